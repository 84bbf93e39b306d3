"""The summary: every arm, every metric, with what one may and may not conclude."""

import json

import numpy as np
import pytest

from neurocanvas.config import EvaluateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import draw_cells
from neurocanvas.evaluation.summary import exchangeable, score_tables, summarise
from neurocanvas.findings import finding

METRICS = ("two_way", "n_way", "concept_top1", "concept_top5", "pixcorr", "ssim")
SETTINGS = EvaluateSettings(permutations=199, resamples=200)
CONCEPTS = {"n1": "banana", "n2": "apple", "n3": "piano", "n4": "owl", "n5": "car", "n6": "shoe"}
STRENGTH = {"eeg": 0.8, "shuffled": 0.0, "mean": 0.0, "oracle": 4.0}


def trial_table(n_subjects: int = 1, per_concept: int = 5, folds: int = 1) -> dict[str, np.ndarray]:
    """Every subject saw the same images, concept by concept."""
    n = n_subjects * 6 * per_concept
    block = np.arange(n) // per_concept % 6
    concept = np.array(list(CONCEPTS))[block]
    stimulus = np.array([f"{c}_{p % (6 * per_concept)}.JPEG" for p, c in enumerate(concept)])
    return {
        "subject": np.arange(n) // (6 * per_concept), "trial": np.arange(n), "stimulus": stimulus, "concept": concept,
        "block": block, "fold": np.arange(n) % folds, "unit": np.arange(n),
    }  # fmt: skip


def cells_of(trials: dict[str, np.ndarray], blocked: bool, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return draw_cells(*exchangeable(units_of(trials, blocked)), rng=np.random.default_rng([seed, 1]))


def units_of(trials: dict[str, np.ndarray], blocked: bool) -> dict[str, np.ndarray]:
    """Whole blocks are exchanged within subjects, trials within folds."""
    return {**trials, "unit": trials["block"], "fold": np.zeros_like(trials["fold"])} if blocked else trials


def in_cells(table: np.ndarray, trials: dict[str, np.ndarray], blocked: bool = False) -> np.ndarray:
    """Of a table of all images what a trial's cell holds."""
    partners = cells_of(trials, blocked, seed=0)[1]
    true = np.unique(trials["stimulus"], return_inverse=True)[1]
    return np.where(partners < 0, np.nan, table[np.arange(len(true))[:, None], true[partners]])


def arm_tables(trials, strength: float, seed: int, blocked: bool = False) -> dict[str, np.ndarray]:
    """Noise, plus `strength` at what was seen."""
    rng = np.random.default_rng(seed)
    gallery, concepts = sorted(set(trials["stimulus"])), list(CONCEPTS)
    picture = trials["stimulus"][:, None] == np.array(gallery)
    concept = trials["concept"][:, None] == np.array(concepts)
    return {
        "similarity": rng.normal(size=picture.shape) + strength * picture,
        "concept": rng.normal(size=concept.shape) + strength * concept,
        **{
            metric: in_cells(level + 0.1 * rng.normal(size=picture.shape) + 0.1 * strength * picture, trials, blocked)
            for metric, level in (("pixcorr", 0.3), ("ssim", 0.4))
        },
    }  # fmt: skip


def score(trials, arms, gallery=None, concepts=CONCEPTS, settings=SETTINGS, *, blocked=False, seed=0, **more):
    """Summary and rows of some arms' tables."""
    gallery, cells = gallery or sorted(set(trials["stimulus"])), cells_of(trials, blocked, seed=0)
    rng = np.random.default_rng(seed)
    return summarise(
        arms, units_of(trials, blocked), gallery, concepts, settings,
        exchanged="blocks" if blocked else "trials", cells=cells, rng=rng, **more,
    )  # fmt: skip


def summary_of(trials, strength=STRENGTH, blocked=False, **more):
    arms = {arm: arm_tables(trials, strength[arm], seed, blocked) for seed, arm in enumerate(strength)}
    return score(trials, arms, blocked=blocked, **more)


def test_every_arm_gets_every_metric_with_chance_interval_p_and_place() -> None:
    trials = trial_table()
    summary, rows = summary_of(trials)
    json.dumps(summary, allow_nan=False)
    assert list(summary["arms"]) == list(STRENGTH)
    for arm, metrics in summary["arms"].items():
        assert tuple(metrics) == METRICS
        for metric, found in metrics.items():
            assert found["value"] == pytest.approx(np.mean([row[metric] for row in rows if row["arm"] == arm]))
            assert found["low"] <= found["value"] <= found["high"] and 1 / 200 <= found["p"] <= 1
            assert ("p_vs_shuffled" in found) == (arm == "eeg")
    eeg, shuffled, oracle = (summary["arms"][arm]["two_way"] for arm in ("eeg", "shuffled", "oracle"))
    assert eeg["p"] < 0.01 and eeg["p_vs_shuffled"] < 0.05 and shuffled["p"] > 0.05
    span = oracle["value"] - shuffled["value"]
    assert eeg["place"] == pytest.approx((eeg["value"] - shuffled["value"]) / span)
    assert shuffled["place"] == 0 and oracle["place"] == 1
    assert (summary["n_trials"], summary["n_pictures"], summary["unit"]) == (30, 30, "trials")
    assert summary["findings"] == []


def test_chance_is_exact_for_identification_and_of_other_pictures_for_pixels() -> None:
    trials = {name: column[:29] for name, column in trial_table().items()}  # cells of 15 and of 14
    summary, _ = summary_of(trials)
    chance = {metric: score["chance"] for metric, score in summary["arms"]["eeg"].items()}
    assert summary["n_way"] == 29, "50-way with 29 images is 29-way, and is said to be"
    assert [chance[m] for m in METRICS[:2]] == pytest.approx([0.5, 1 / 29])
    assert [chance[m] for m in METRICS[2:4]] == pytest.approx([1 / 6, 5 / 6], abs=0.01), "one concept has fewer trials"
    tables, partners = arm_tables(trials, STRENGTH["eeg"], seed=0), cells_of(trials, False, seed=0)[1]
    for metric, level in (("pixcorr", 0.3), ("ssim", 0.4)):  # the noise around these, and nothing of the signal
        shown = trials["stimulus"]
        other = (partners >= 0) & (shown[partners] != shown[:, None])
        of_trials = [row[shown].mean() for row, shown in zip(tables[metric], other, strict=True)]
        assert other.sum() == 15 * 14 + 14 * 13 and chance[metric] == pytest.approx(np.mean(of_trials))
        assert chance[metric] == pytest.approx(level, abs=0.02)


def test_rows_concepts_and_subjects_hold_the_same_scores() -> None:
    trials = trial_table(n_subjects=2)
    summary, rows = summary_of(trials)
    assert len(rows) == 4 * 60
    assert list(rows[0]) == ["subject", "trial", "stimulus", "concept", "arm", *METRICS]
    of_one = [row["concept_top1"] for row in rows if row["concept"] == "n3" and row["arm"] == "eeg"]
    piano = summary["concepts"]["n3"]
    assert piano["name"] == "piano" and piano["n"] == len(of_one) == 10
    assert piano["eeg"]["concept_top1"] == pytest.approx(np.mean(of_one))
    of_subject = [row["ssim"] for row in rows if row["subject"] == "1" and row["arm"] == "mean"]
    assert summary["subjects"]["1"]["mean"]["ssim"] == pytest.approx(np.mean(of_subject))


def test_the_same_seed_gives_the_same_summary_whichever_arms_there_are() -> None:
    trials = trial_table()
    whole, _ = summary_of(trials, seed=5)
    assert whole == summary_of(trials, seed=5)[0] != summary_of(trials, seed=6)[0]
    alone, _ = summary_of(trials, {"eeg": 0.8}, seed=5)
    for metric in METRICS:
        kept = {key: alone["arms"]["eeg"][metric][key] for key in ("value", "low", "high", "p", "chance")}
        assert kept.items() <= whole["arms"]["eeg"][metric].items()
        assert alone["arms"]["eeg"][metric]["place"] is None


def test_blocks_are_exchanged_whole_and_the_design_is_named() -> None:
    trials = trial_table(n_subjects=2)
    rapid, _ = summary_of(trials)
    blocked, _ = summary_of(trials, blocked=True, findings=[finding("pictures-repeat"), finding("blocked-design")])
    assert (rapid["unit"], blocked["unit"]) == ("trials", "blocks")
    assert [one["code"] for one in blocked["findings"]] == ["blocked-design", "pictures-repeat", "few-units"]
    assert blocked["findings"][2]["numbers"] == {"n": 12, "unit": "blocks"}
    for key in ("p", "low"):
        assert rapid["arms"]["shuffled"]["two_way"][key] != blocked["arms"]["shuffled"]["two_way"][key]


def test_units_never_cross_subjects_or_folds() -> None:
    trials = trial_table(n_subjects=2, folds=3)
    strata, units = exchangeable(trials)
    assert len(set(strata)) == 6 and len(set(units)) == 60
    assert len(set(zip(strata, trials["subject"], trials["fold"]))) == 6
    strata, units = exchangeable(units_of(trials, True))
    assert len(set(strata)) == 2 and len(set(units)) == 12


def test_many_subjects_are_resampled_themselves() -> None:
    summary, _ = summary_of(trial_table(n_subjects=5))
    assert (summary["unit"], summary["exchanged"]) == ("subjects", "trials")
    assert {"n": 5, "unit": "subjects"} in [one["numbers"] for one in summary["findings"]]


def test_pixels_must_be_there_for_the_seen_picture_and_may_have_no_chance_level() -> None:
    trials = trial_table()
    tables = arm_tables(trials, 1.0, seed=0) | {metric: np.full((30, 1), 0.5) for metric in ("pixcorr", "ssim")}
    trials["subject"] = np.arange(30)  # one trial each: there is no other image
    summary, _ = score(trials, {"eeg": tables})
    json.dumps(summary, allow_nan=False)
    assert (summary["arms"]["eeg"]["ssim"]["chance"], summary["arms"]["eeg"]["ssim"]["p"]) == (None, 1.0)
    tables["ssim"][:, :] = np.nan
    with pytest.raises(NeuroCanvasError, match="arm eeg, ssim: NaN"):
        score(trials, {"eeg": tables})


def test_controls_that_fail_are_named() -> None:
    trials = trial_table()
    weak, _ = summary_of(trials, {**STRENGTH, "oracle": 0.3})
    assert "low-oracle" in [one["code"] for one in weak["findings"]]
    for arm in ("shuffled", "mean"):
        for strength in (2.0, -2.0):
            leaking, _ = summary_of(trials, {**STRENGTH, arm: strength})
            assert arm in [one["numbers"].get("arm") for one in leaking["findings"] if one["code"] == "floor-differs"]


def test_a_run_without_anything_to_exchange_says_so() -> None:
    trials = {name: column[:2] for name, column in trial_table().items()}
    trials["block"][:] = 0
    summary, _ = score(trials, {"eeg": arm_tables(trials, 1.0, seed=1, blocked=True)}, blocked=True)
    found = summary["arms"]["eeg"]["two_way"]
    assert (found["low"], found["high"], found["p"]) == (None, None, 1.0)
    assert {"least": 1.0} in [one["numbers"] for one in summary["findings"]]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda arm, trials: trials["stimulus"].__setitem__(0, "nowhere"), "nowhere"),
        (lambda arm, trials: trials["concept"].__setitem__(0, "n9"), "n9"),
        (lambda arm, trials: arm.update(pixcorr=arm["pixcorr"][:, :-1]), r"pixcorr: a \(30, 15\) table"),
        (lambda arm, trials: arm.update(similarity=arm["similarity"][:-1]), r"got \(29, 30\)"),
        (lambda arm, trials: arm["similarity"].__setitem__((0, 0), np.nan), "NaN"),
        (lambda arm, trials: arm["concept"].__setitem__((0, 0), np.inf), "NaN and infinity"),
    ],
)
def test_bad_tables_are_refused(change, message: str) -> None:
    trials = trial_table()
    gallery, arm = sorted(set(trials["stimulus"])), arm_tables(trials, 1.0, seed=2)
    cells, rng = cells_of(trials, False, seed=0), np.random.default_rng(0)
    change(arm, trials)
    with pytest.raises(NeuroCanvasError, match=message):
        summarise(
            {"eeg": arm}, trials, gallery, CONCEPTS, SETTINGS, exchanged="trials", cells=cells, rng=rng
        )


def test_a_picture_may_stand_in_the_gallery_once() -> None:
    trials = trial_table()
    gallery = [*sorted(set(trials["stimulus"]))[:-1], trials["stimulus"][0]]
    with pytest.raises(NeuroCanvasError, match="29 of them distinct"):
        score(trials, {"eeg": arm_tables(trials, 1.0, seed=3)}, gallery)


def test_score_tables_read_at_the_truth_are_the_scores() -> None:
    tables = score_tables(arm_tables(trial_table(), 1.0, seed=4), n_way=10)
    assert tuple(tables) == METRICS
    shapes = [table.shape for table in tables.values()]
    assert shapes == [(30, 30), (30, 30), (30, 6), (30, 6), (30, 15), (30, 15)]


def test_intervals_may_resample_stimuli_with_all_their_showings() -> None:
    trials = trial_table(per_concept=10)
    trials["stimulus"] = np.repeat(np.unique(trials["stimulus"])[:6], 10)
    tables = arm_tables(trials, 0.0, 0)
    own = np.arange(6)[np.unique(trials["stimulus"], return_inverse=True)[1]]
    tables["similarity"][np.arange(60), own] += np.linspace(-4, 4, 6)[own]  # stimuli differ, their showings hardly do
    widths = []
    for resample in ("auto", "stimuli"):
        settings = SETTINGS.model_copy(update={"resample": resample})
        summary, _ = score(trials, {"eeg": tables}, settings=settings)
        found = summary["arms"]["eeg"]["two_way"]
        widths.append(found["high"] - found["low"])
    assert summary["unit"] == "stimuli" and widths[1] > 2 * widths[0]


def test_distances_are_scored_upside_down_and_shown_upright() -> None:
    trials = trial_table()
    arms = {arm: arm_tables(trials, strength, seed) for seed, (arm, strength) in enumerate(STRENGTH.items())}
    own = trials["stimulus"][:, None] == np.unique(trials["stimulus"])
    for arm, tables in arms.items():
        tables["swav"] = 1.0 - 0.5 * own * (arm == "oracle") + 0.01 * np.random.default_rng(0).random(own.shape)
    values = {arm: {"lpips": np.full(len(own), 0.25)} for arm in arms}
    summary, rows = score(trials, arms, values=values)
    near, far = summary["arms"]["oracle"]["swav"], summary["arms"]["eeg"]["swav"]
    assert near["value"] < 0.52 < 0.9 < far["value"] and near["low"] <= near["value"] <= near["high"]
    assert near["p"] == 1 / 200 and near["chance"] > 0.9 and far["p"] > 0.01 and near["place"] == 1
    assert summary["arms"]["eeg"]["lpips"]["value"] == 0.25 and summary["arms"]["eeg"]["lpips"]["p"] is None
    assert all(row["lpips"] == 0.25 and row["swav"] > 0 for row in rows)
    assert summary["subjects"]["0"]["eeg"]["lpips"] == 0.25


def test_without_concepts_the_rest_is_scored() -> None:
    trials = trial_table()
    tables = arm_tables(trials, 1.0, 0)
    del tables["concept"]
    summary, _ = score(trials, {"eeg": tables}, concepts={})
    assert set(summary["arms"]["eeg"]) == {"two_way", "n_way", "pixcorr", "ssim"} and summary["concepts"] == {}
