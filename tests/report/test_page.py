"""The report page: complete, self-contained, the same bytes each time, careful with words and with hostile strings."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurocanvas import artifacts
from neurocanvas.config import RunSettings, save_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.benchmark import explanation, paper_tables
from neurocanvas.findings import Finding, finding, listed
from neurocanvas.report import write_report
from neurocanvas.report.text import number, p_value, sentence
from neurocanvas.simulation.images import CONCEPTS

MUSE = ("TP9", "AF7", "AF8", "TP10", "POz")
HOSTILE = "<script>alert(1)</script>\"'&"
Make = Callable[..., Path]


class Page(HTMLParser):
    """Every tag with its attributes, whether the tags nest, and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open, self.scripts, self.headings, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.text += data
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)

    @property
    def words(self) -> str:
        """The text with plain single spaces."""
        return re.sub(r"\s+", " ", self.text.replace("\u2060", ""))

    def classes(self, tag: str = "") -> list[str | None]:
        """Classes of all tags, or of those of a name."""
        return [attrs.get("class") for name, attrs in self.tags if tag in ("", name)]


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def assert_only_our_script(page: Page) -> None:
    """One script, which is the file's, and a policy that lets only that one run."""
    [script] = page.scripts
    assert script == (files("neurocanvas.report") / "page.js").read_text(encoding="utf-8").strip()
    [policy] = [str(attrs["content"]) for tag, attrs in page.tags if attrs.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}';" in policy
    names = {name for _, attrs in page.tags for name in attrs}
    assert all(re.fullmatch(r"[a-z][a-z0-9:-]*", name) and not name.startswith("on") for name in names)


def test_page_is_complete_self_contained_and_the_same_each_time(make_run: Make) -> None:
    folder = make_run(n_trials=30)
    page = read(folder)
    first = (folder / "report.html").read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    sections = ["What was run", "Scores", "Images", "Concepts", "Features on the scalp", "Training", "Glossary"]
    assert not page.open and page.headings == sections
    for words in ("74.0 – 82.0", ".0005", "Best 4", "Middle 4",
                  "Worst 4", "12 others"):  # fmt: skip
        assert words in page.words
    assert len([1 for tag, attrs in page.tags if tag == "img" and attrs.get("alt")]) == 24 * 5
    assert page.classes("img").count("scalp") == 5
    links = ("src", "href", "srcset", "xlink:href")
    loads = [str(attrs[key]) for _, attrs in page.tags for key in links if key in attrs]
    saved = [load for load in loads if load.startswith("data:text/csv;")]
    assert len(loads) == 24 * 5 + 5 + len(saved)
    assert all(load.startswith("data:image/") for load in loads if load not in saved)
    assert [attrs["download"] for tag, attrs in page.tags if tag == "a"] == [
        "scores.csv", "pictures.csv", "concepts.csv", "features_on_scalp.csv", "training.csv", "encoders.csv",
    ]  # fmt: skip
    assert not re.search(r"https?://|url\(|@import", first.decode())
    assert_only_our_script(page)
    assert len(first) < 6e6


def test_hostile_strings_are_shown_as_text(make_run: Make) -> None:
    words = {
        "captions": {0: HOSTILE},
        "names": dict.fromkeys(CONCEPTS, HOSTILE),
        "findings": (finding("columns-unread", columns=HOSTILE),),
    }
    evidence = {"hostile": HOSTILE, "n_concepts": 8}
    folder = make_run(n_trials=6, ch_names=(*MUSE[:4], HOSTILE), evidence=evidence, **words)
    toml = folder / "run.toml"
    toml.write_text(toml.read_text().replace('name = "tiny"', f"name = '''{HOSTILE} '''"))
    page = read(folder)
    assert_only_our_script(page)
    assert not page.open
    # title, heading, warning, caption, names, audit, controls, subjects, metrics, labels of the confusion matrix
    assert page.words.count("<script>alert(1)</script>") >= 60
    assert any(HOSTILE in str(attrs.get("alt")) for tag, attrs in page.tags if tag == "img")


def test_halves_of_surrogate_pairs_and_formulas_are_no_danger(make_run: Make) -> None:
    names = dict.fromkeys(CONCEPTS, "=HYPERLINK(1)")
    folder = make_run(
        n_trials=6,
        ch_names=MUSE,
        names=names,
        findings=(finding("columns-unread", columns="WARNING"),),
        evidence={"n_concepts": 8},
    )
    summary = folder / "scores" / "summary.json"
    summary.write_text(summary.read_text(encoding="utf-8").replace("WARNING", r"\ud800 \u0000 =1+1"), encoding="utf-8")
    page = read(folder)
    assert "? " in page.words and "=1+1" in page.words
    links = [str(attrs["href"]) for tag, attrs in page.tags if tag == "a"]
    saved = "".join(base64.b64decode(link.partition("base64,")[2]).decode() for link in links)
    assert "'=HYPERLINK(1)" in saved and not re.search(r"(^|,)=", saved, re.MULTILINE)


def test_serious_findings_stand_before_others(make_run: Make) -> None:
    block, few = finding("block-on-both-sides"), finding("few-units", n=6, unit="trials")
    page = read(make_run(n_trials=6, ch_names=MUSE, findings=(few, block)))
    assert page.words.index(sentence(block)) < page.words.index(sentence(few))
    assert [name for name in page.classes("p") if name in ("serious", "warning")] == ["serious", "warning"]


@pytest.mark.parametrize(
    ("part", "verb"),
    [
        ("run.toml", "run"), ("features/s0_trials.csv", "features"), ("features/s0_de.npy", "features"),
        ("targets/caption.txt", "caption"), ("models/mlp_sd_s0_fold0_model.safetensors.json", "train"),
        ("images/manifest.jsonl", "generate"), ("scores/summary.json", "evaluate"), ("scores/trials.csv", "evaluate"),
        ("predictions/s0.npy.json", "predict"),
    ],
)  # fmt: skip
def test_missing_part_names_the_verb_to_run(make_run: Make, part: str, verb: str) -> None:
    folder = make_run(n_trials=6, ch_names=MUSE)
    (folder / part).unlink()
    with pytest.raises(NeuroCanvasError, match=rf"run the verb {verb}\.|`neurocanvas {verb}` makes it") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value) and not (folder / "report.html").exists()


def test_missing_or_damaged_picture_is_named(make_run: Make) -> None:
    folder = make_run(n_trials=6, ch_names=MUSE)
    picture = next((folder / "images" / "s0" / "oracle").iterdir())
    for damage in (lambda: picture.write_bytes(picture.read_bytes()[:90]), picture.unlink):
        damage()
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
    assert page.classes().count("curves") == 6 and "first 6 of 12 encoders" in page.words
    assert page.words.index("fold 2") < page.words.index("fold 5") and "fold 10" not in page.words


def test_numbers_are_written_alike_everywhere() -> None:
    assert (number(1.0, True), number(-0.5, False)) == ("100.0\N{NO-BREAK SPACE}%", "−0.500")
    assert [p_value(p) for p in (1.0, 0.05, 0.0024, 0.00001)] == ["1.00", ".05", ".002", "< .0001"]


def write_benchmark(folder: Path, *findings: Finding, p_holm: float = 0.001) -> None:
    """Scores of the verb benchmark for two models under one protocol."""
    row = {"protocol": "released", "granularity": "all", "chance": 0.0125, "p_holm": p_holm, "p_best": None, "sd": 0.1}
    row |= {"subjects": list(range(16)), "released": None, "seconds": [1.0], "final": [0.377], "gap": 0.027}
    row |= {"n": [100], "largest_class": [0.02], "balanced_accuracy": [0.4], "auc": [0.9], "p_subjects": 0.01}
    row |= {"findings": listed(findings), "n_above": 16}
    mlp, svm = ({"model": "mlp", "title": "MLP", "mean": 0.404}, {"model": "svm", "title": "<b>SVM</b>", "mean": 0.392})
    rows = [{**row, **mlp, "best_on_test": [0.431]}, {**row, **svm, "best_on_test": [0.419], "p_best": 0.01}]
    content = {"explanation": explanation(rows), "rows": rows, "tables": paper_tables(rows)}
    artifacts.write_json(folder / "scores" / "benchmark.json", content)


def test_a_benchmark_alone_makes_a_page_with_selection_below_its_scores_and_says_things_once(tmp_path: Path) -> None:
    save_settings(RunSettings(name="table"), tmp_path / "run.toml")
    block = finding("block-on-both-sides")
    write_benchmark(tmp_path, block)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert ".392±.100 †" in text and "† differs from the best model" in text and "<b>SVM" not in text
    assert "40.4\u00a0%" in text and "whose accuracy is confounded with recording block" in text
    assert "<h2>Images" not in text
    assert text.count("<h2>Classification · released, 16 subjects</h2>") == text.count("Block design: training") == 1
    below = text.split("<h3>released, 16 subjects: selection</h3>")[1]
    named = "best on test (diagnostic, not a result)"
    assert f'<th class="num">{named}</th>' in below and f"{named} is the highest" in below.lower()
    cells = "".join(f'<td class="num">{word}</td>' for word in (".404", ".377", ".431", "+0.027"))
    assert f"<tr><th>MLP</th><td>all</td>{cells}</tr>" in below


def test_a_benchmark_beside_pictures_is_shown_with_them(make_run: Make) -> None:
    folder = make_run()
    write_benchmark(folder, p_holm=0.3)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "released, 16 subjects" in text and "No model is above chance" in text and "<h2>Images</h2>" in text


SECTIONS = [
    "What was run", "Scores", "Subjects", "Images", "Concepts", "Confusions", "Importance of bands and electrodes",
    "Features on the scalp", "Training", "Controls", "Glossary",
]  # fmt: skip


def test_evidence_is_shown_where_it_is_and_left_out_where_it_is_not(make_run: Make) -> None:
    folder = make_run(n_trials=6, ch_names=MUSE, evidence={})
    page = read(folder)
    assert not page.open and page.headings == SECTIONS
    assert page.words.index("The split and the selection do not explain") < page.words.index("What was run")
    assert "closes 60 % of the gap between shuffled EEG and the true caption" in page.words
    assert "Not computed:AlexNet(2), AlexNet(5): torchvision is not installedCLIP: openai" in page.words
    assert (folder / "report.html").read_bytes() == write_report(folder).read_bytes()
    for part, section in (("confusion.csv", "Confusions"), ("importance.csv", "Importance of bands and electrodes"),
                          ("controls.json", "Controls")):  # fmt: skip
        (folder / "scores" / part).unlink()
        page = read(folder)
        assert not page.open and section not in page.headings
    (folder / "scores" / "audit.json").unlink()
    assert "audit info" not in read(folder).classes()


@pytest.mark.parametrize(
    ("verdict", "severity", "says"),
    [
        ("clean", "info", "The split and the selection do not explain the accuracy"),
        ("selection-on-test", "warning", "too high by an unknown amount"),
        ("block-confounded", "serious", "Accuracy is confounded with recording block"),
        ("other-split", "serious", "Nothing can be concluded: s0 was trained on another split"),
    ],
)  # fmt: skip
def test_there_is_one_verdict_which_is_that_of_the_audit(make_run: Make, verdict, severity, says) -> None:
    page = read(make_run(n_trials=6, ch_names=MUSE, evidence={"verdict": verdict}))
    assert f"audit {severity}" in page.classes() and page.classes("p").count("verdict") == 1
    assert says in page.words and page.words.count("Verdict") == 1


def test_an_audit_of_classifiers_alone_is_shown_too(tmp_path: Path) -> None:
    save_settings(RunSettings(name="table"), tmp_path / "run.toml")
    write_benchmark(tmp_path)
    [said] = listed([finding("no-answers")])
    cases = [{"name": "svm", "verdict": said, "can": [], "cannot": []}]
    artifacts.write_json(tmp_path / "scores" / "audit.json", {"verdict": said, "cases": cases})
    page = read(tmp_path)
    assert page.words.index("Nothing can be concluded yet") < page.words.index("MLP predicts the concept")


@pytest.mark.parametrize(
    ("file", "content", "verb"),
    [
        ("audit.json", '{"verdict": "clean"}', "report"),
        ("controls.json", '{"verdict": "x"}', "controls"),
        ("controls.json", "[", "run again"),
        ("confusion.csv", "arm,true,named,count\neeg,a,b,many\n", "evaluate"),
        ("confusion.csv", "arm,true\neeg,a\n", "evaluate"),
        ("importance.csv", "kind,group,name,drop,low,high\npermutation,band,alpha,much,0,1\n", "evaluate"),
    ],
)
def test_damaged_evidence_is_refused_with_its_verb(make_run: Make, file: str, content: str, verb: str) -> None:
    folder = make_run(n_trials=6, ch_names=MUSE, evidence={})
    (folder / "scores" / file).write_text(content)
    with pytest.raises(NeuroCanvasError, match=rf"{file}.*{verb}"):
        write_report(folder)
