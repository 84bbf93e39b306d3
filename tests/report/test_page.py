"""The report page: complete, self-contained, the same bytes each time, careful with words and with hostile strings."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurocanvas import store
from neurocanvas.config import RunSettings, save_settings
from neurocanvas.datasets.pictures import CONCEPTS
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.benchmark import EXPLANATION, paper_tables
from neurocanvas.montage import CH_NAMES
from neurocanvas.report import write_report
from neurocanvas.report.figures import Scale, curves, electrode_positions, scalp_map
from neurocanvas.report.page import choose_trials
from neurocanvas.report.words import number, p_value, verdict

MUSE = ("TP9", "AF7", "AF8", "TP10", "POz")
HOSTILE = "<script>alert(1)</script>\"'&"
Make = Callable[..., Path]


class Page(HTMLParser):
    """Every tag with its attributes, whether the tags nest, and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.headings: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)

    @property
    def words(self) -> str:
        """The text with plain single spaces."""
        return re.sub(r"\s+", " ", self.text.replace("\u2060", ""))


def read(folder: Path) -> Page:
    """Write the report and parse it."""
    return Page(write_report(folder).read_text(encoding="utf-8"))


def two_way(value: float, low: float | None, high: float | None, p: float = 0.0005) -> dict[str, object]:
    """One arm of a summary."""
    place = (value - 0.5) / 0.47
    return {"two_way": {"value": value, "low": low, "high": high, "p": p, "chance": 0.5, "place": place}}


FLOOR = two_way(0.5, 0.46, 0.54, 0.5)


def test_page_is_complete_self_contained_and_the_same_each_time(make_run: Make) -> None:
    folder = make_run(n_trials=30)
    page = read(folder)
    first = (folder / "report.html").read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert not page.open
    sections = ["What was run", "Scores", "Pictures", "Concepts", "Features on the scalp", "Training", "Glossary"]
    assert page.headings == sections
    assert page.words.index("identify the seen picture in 78 % of pairs") < page.words.index("What was run")
    assert "60 % of the way from shuffled EEG to the true caption" in page.words
    assert "74.0 – 82.0" in page.words and ".0005" in page.words
    for words in ("Best 4", "Middle 4", "Worst 4", "12 others"):
        assert words in page.words
    pictures = [attrs for tag, attrs in page.tags if tag == "img" and attrs.get("alt")]
    assert len(pictures) == 24 * 5
    assert len([1 for tag, attrs in page.tags if tag == "img" and attrs.get("class") == "scalp"]) == 5

    text = first.decode()
    loads = [attrs[key] for _, attrs in page.tags for key in ("src", "href", "srcset", "xlink:href") if key in attrs]
    assert len(loads) == 24 * 5 + 5
    assert all(str(load).startswith("data:image/") for load in loads)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert len(first) < 6e6


def test_hostile_strings_are_shown_as_text(make_run: Make) -> None:
    names = dict.fromkeys(CONCEPTS, HOSTILE)
    cap = (*MUSE[:4], HOSTILE)
    folder = make_run(n_trials=6, captions={0: HOSTILE}, names=names, ch_names=cap, warnings=(HOSTILE,))
    toml = folder / "run.toml"
    toml.write_text(toml.read_text().replace('name = "tiny"', f"name = '''{HOSTILE} '''"))
    page = read(folder)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.words.count("<script>alert(1)</script>") >= 9  # title, heading, warning, caption, names
    assert any(HOSTILE in str(attrs.get("alt")) for tag, attrs in page.tags if tag == "img")


def test_block_design_is_warned_of_and_claims_nothing(make_run: Make) -> None:
    page = read(make_run(n_trials=6, ch_names=MUSE, exchanged="blocks"))
    blocks = [attrs for tag, attrs in page.tags if tag == "p" and attrs.get("class") == "block"]
    assert len(blocks) == 1
    assert "cannot be told from decoding the recording block" in page.words
    assert "of the way from" not in page.words


def test_block_warning_of_the_splits_stands_before_other_warnings(make_run: Make) -> None:
    page = read(make_run(n_trials=6, ch_names=MUSE, warnings=("Only 6 trials.", "Block design: slow drift.")))
    assert page.words.index("Block design: slow drift.") < page.words.index("Only 6 trials.")
    assert "but every concept was recorded in one stretch of time" in page.words


def test_rapid_design_has_no_block_warning(make_run: Make) -> None:
    page = read(make_run(n_trials=6, ch_names=MUSE))
    assert not [1 for tag, attrs in page.tags if attrs.get("class") == "block"]


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"eeg": two_way(0.56, 0.52, 0.6, 0.01), "shuffled": FLOOR}, "cannot be told from shuffled EEG (50 %"),
        ({"eeg": two_way(0.6, 0.55, 0.65, 0.06), "shuffled": FLOOR}, "chance alone can give (p .06)"),
        ({"eeg": two_way(0.6, None, None), "shuffled": FLOOR}, "too few units for an interval"),
        ({"eeg": two_way(0.6, 0.55, 0.65)}, "without the shuffled arm"),
        ({"shuffled": FLOOR}, "the arm eeg was not drawn"),
    ],
)
def test_verdict_claims_nothing_without_evidence(arms: dict[str, dict[str, object]], words: str) -> None:
    found = verdict({"arms": arms})
    assert not found["claimed"]
    assert found["text"].startswith("Nothing can be claimed")
    assert words in found["text"].replace("\N{NO-BREAK SPACE}", " ")


def test_verdict_heeds_the_comparison_with_shuffled() -> None:
    arms: dict[str, dict[str, dict[str, object]]] = {"eeg": two_way(0.6, 0.55, 0.65), "shuffled": FLOOR}  # type: ignore[dict-item]
    assert verdict({"arms": arms})["claimed"]
    arms["eeg"]["two_way"]["p_vs_shuffled"] = 0.2
    assert "not reliably more than from shuffled EEG (p .20)" in verdict({"arms": arms})["text"]


@pytest.mark.parametrize(
    ("part", "verb"),
    [
        ("run.toml", "run"),
        ("features/s0_trials.csv", "features"),
        ("features/s0_de.npy", "features"),
        ("targets/caption.txt", "caption"),
        ("models/mlp_sd_s0_fold0_model.safetensors.json", "train"),
        ("images/manifest.jsonl", "generate"),
        ("scores/summary.json", "evaluate"),
        ("scores/trials.csv", "evaluate"),
    ],
)
def test_missing_part_names_the_verb_to_run(make_run: Make, part: str, verb: str) -> None:
    folder = make_run(n_trials=6, ch_names=MUSE)
    (folder / part).unlink()
    with pytest.raises(NeuroCanvasError, match=rf"run the verb {verb}\.|`neurocanvas {verb}` makes it") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_missing_or_damaged_picture_is_named(make_run: Make) -> None:
    folder = make_run(n_trials=6, ch_names=MUSE)
    picture = next((folder / "images" / "s0" / "oracle").iterdir())
    picture.write_bytes(picture.read_bytes()[:90])
    with pytest.raises(NeuroCanvasError, match=f"{picture.name}.*generate"):
        write_report(folder)
    picture.unlink()
    with pytest.raises(NeuroCanvasError, match=f"{picture.name}.*generate"):
        write_report(folder)


def test_large_pictures_are_reduced(make_run: Make) -> None:
    folder = make_run(n_trials=6, ch_names=MUSE)
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for picture in (folder / "images").rglob("*.png"):
        Image.fromarray(noise).save(picture)
    assert write_report(folder).stat().st_size < 6 * 5 * 60_000
    assert "data:image/jpeg" in (folder / "report.html").read_text()


def test_every_fold_has_its_curve_up_to_a_limit(make_run: Make) -> None:
    page = read(make_run(n_trials=6, ch_names=MUSE, folds=12))
    assert len([1 for tag, attrs in page.tags if attrs.get("class") == "curves"]) == 6
    assert "first 6 of 12 mappers" in page.words
    assert page.words.index("fold 2") < page.words.index("fold 5")
    assert "fold 10" not in page.words


def test_few_arms_make_a_page_too(make_run: Make) -> None:
    page = read(make_run(n_trials=6, ch_names=MUSE, levels={"eeg": 0.8, "oracle": 0.97}))
    assert "without the shuffled arm" in page.words
    assert not page.open


def test_trials_are_chosen_by_rank() -> None:
    scores = {(0, trial): trial / 99 for trial in range(100)}
    groups = choose_trials(scores)
    assert groups[0][1] == [(0, 99), (0, 98), (0, 97), (0, 96)]
    assert groups[1][1] == [(0, 51), (0, 50), (0, 49), (0, 48)]
    assert groups[2][1] == [(0, 3), (0, 2), (0, 1), (0, 0)]
    shown = [key for _, keys in groups for key in keys]
    assert len(set(shown)) == len(shown) == 24
    spaced = [scores[key] for key in groups[3][1]]
    assert np.ptp(np.diff(spaced)) < 0.06  # even, but for the gap that the middle leaves
    assert choose_trials({(0, 1): 0.2, (1, 0): 0.9}) == [("All 2 trials, best first", [(1, 0), (0, 1)])]


def test_scales_hold_their_values_and_stay_round() -> None:
    for values in ([0.2, 0.61], [-0.03, 0.57], [0.0], [1.0], [0.004, float("nan")], [-0.4, -0.1]):
        scale = Scale.around(values)
        finite = np.array([value for value in values if np.isfinite(value)])
        assert scale.low <= finite.min() and scale.high >= finite.max() and scale.low < scale.high
        assert 2 <= len(scale.ticks) <= 7
    assert (scale.at(-9.0), scale.at(9.0)) == ("0.00%", "100.00%")


def test_curves_mark_the_kept_epoch_where_the_validation_loss_is() -> None:
    history = [{"epoch": e, "train_loss": 5.0 - e, "val_loss": 5.0 - e / 2} for e in range(1, 5)]
    drawn = curves(history, 3, {"ridge": 2.0})
    assert 'cx="66.67%"' in drawn
    assert drawn.count('class="ridge"') == 1
    assert drawn.count("<polyline") == 2
    assert "kept" not in curves(history[:1], None, {})


def test_electrode_positions_of_any_cap() -> None:
    cap = electrode_positions(CH_NAMES)
    assert cap.shape == (62, 3) and np.isfinite(cap).all()
    muse = electrode_positions(("tp9", *MUSE[1:], "nowhere"))
    assert np.isnan(muse[-1]).all()
    left, front_left, _, right, back = muse[:5]
    assert left[0] < 0 < right[0] and front_left[1] > 0 > back[1]


def test_scalp_map_interpolates_only_between_many_electrodes() -> None:
    assert scalp_map(np.arange(5.0), MUSE, (0.0, 4.0)).count('class="dot"') == 5
    assert scalp_map(np.arange(5.0), (*MUSE[:4], "nowhere"), (0.0, 4.0)).count('class="dot"') == 4
    assert scalp_map(np.ones(62), CH_NAMES, (1.0, 1.0)).startswith("<img")
    with pytest.raises(NeuroCanvasError, match="one per channel"):
        scalp_map(np.ones(4), MUSE, (0.0, 1.0))


def test_numbers_are_written_alike_everywhere() -> None:
    assert number(1.0, "two_way") == "100.0\N{NO-BREAK SPACE}%"
    assert number(-0.5, "ssim") == "−0.500"
    assert [p_value(p) for p in (1.0, 0.05, 0.0024, 0.00001)] == ["1.00", ".05", ".002", "< .0001"]


def write_benchmark(folder: Path, warning: str = "", p_holm: float = 0.001) -> None:
    """Scores of the verb benchmark for two models under one protocol."""
    row = {"protocol": "released", "granularity": "all", "chance": 0.0125, "p_holm": p_holm, "p_best": None, "sd": 0.1}
    row |= {"subjects": list(range(16)), "released": None, "seconds": [1.0], "final": [0.377], "gap": 0.027}
    row["warnings"] = [warning] if warning else []
    mlp, svm = ({"model": "mlp", "title": "MLP", "mean": 0.404}, {"model": "svm", "title": "<b>SVM</b>", "mean": 0.392})
    rows = [{**row, **mlp, "best_on_test": [0.431]}, {**row, **svm, "best_on_test": [0.419], "p_best": 0.01}]
    content = {"explanation": EXPLANATION, "rows": rows, "tables": paper_tables(rows)}
    store.write_json(folder / "scores" / "benchmark.json", content)


def test_a_benchmark_alone_makes_a_page(tmp_path: Path) -> None:
    save_settings(RunSettings(name="table"), tmp_path / "run.toml")
    write_benchmark(tmp_path, "Block design: drift.")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert ".392±.100 †" in text and "† differs from the best model" in text and "<b>SVM" not in text
    assert "40.4\u00a0%" in text and "cannot tell the brain" in text
    assert '<p class="block">Block design: drift.</p>' in text
    assert "Pictures" not in text


def test_a_benchmark_shows_selection_below_its_scores_and_says_things_once(tmp_path: Path) -> None:
    save_settings(RunSettings(name="table"), tmp_path / "run.toml")
    write_benchmark(tmp_path, "Block design: drift.")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert text.count("<h2>Classification · released, 16 subjects</h2>") == text.count("Block design: drift.") == 1
    below = text.split("<h3>released, 16 subjects: selection</h3>")[1]
    assert '<th class="num">best on test (diagnostic)</th>' in below and "best on test (diagnostic) is the" in below
    cells = "".join(f'<td class="num">{word}</td>' for word in (".404", ".377", ".431", "+0.027"))
    assert f"<tr><th>MLP</th><td>all</td>{cells}</tr>" in below


def test_a_benchmark_beside_pictures_is_shown_with_them(make_run: Make) -> None:
    folder = make_run()
    write_benchmark(folder, p_holm=0.3)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "released, 16 subjects" in text and "No model is above chance" in text and "<h2>Pictures</h2>" in text
