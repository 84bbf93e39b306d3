"""The controls by name: what each asks, where its recipe comes from, and its row in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from neurocanvas.audit.controls.base import SIGNIFICANT, ControlResult, NotApplicable, nothing_decoded
from neurocanvas.audit.controls.confusion import confusions_in_time
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.stimulus import (
    low_level_match,
    pseudo_concepts,
    random_codebook,
    repeated_stimulus,
)
from neurocanvas.audit.controls.surrogate import noise_eeg, null_generators, phase_randomisation, shuffled_pairs
from neurocanvas.audit.controls.time import (
    baseline_window,
    block_surrogate,
    distance_to_training,
    drift_removal,
    leave_block_out,
)
from neurocanvas.errors import check_option
from neurocanvas.evaluation.statistics import holm, mean_interval
from neurocanvas.findings import Finding, finding, read_findings


@dataclass(frozen=True)
class Control:
    """One control."""

    measure: Callable[..., ControlResult | NotApplicable]  # measure(inputs, *, rng)
    asks: str
    recipe: str
    effect: str
    needs: tuple[str, ...]  # fields of `ControlInputs` beyond features, columns and splits
    planted: str  # name of the simulation on which it must fire
    clean: str  # name of the simulation on which it must stay silent
    fires: str  # `{some}` becomes "most", "part" or "an unknown part"
    silent: str
    explains: bool = False  # explains the accuracy, so it asks nothing where that is not above chance
    by_p: bool = True  # fires by a small p; else p is of the opposite, and no correction for many tests counts it
    may_use: tuple[str, ...] = ()  # optional fields of `ControlInputs`


NOT_LOST = "it is not shown that more than a quarter of what lies above chance is lost"

# Every control by name, in the order in which tables show them.
CONTROLS: dict[str, Control] = {
    "leave-block-out": Control(
        leave_block_out,
        "Does accuracy fall when no trial of a tested block (run, in mixed order) trains?",
        "Li et al. 2020 (arXiv 1812.07697); Xu et al. 2405.17024",
        "accuracy lost", (), "blocks-come-back", "clean-rapid",
        "{some} of this accuracy is the recording block: it is lost when no trial of the tested blocks is in the "
        "training set",
        f"{NOT_LOST} when no trial of the tested blocks or runs is in the training set",
        explains=True,
    ),
    "block-surrogate": Control(
        block_surrogate,
        "Can random labels of blocks that are shifted by half a block be decoded as well as concepts?",
        "Li et al. 2020 (arXiv 1812.07697); Xu et al. 2405.17024",
        "surrogate accuracy above chance", (), "drift-in-blocks", "clean-rapid",
        "{some} of this accuracy is the recording block: arbitrary labels of shifted blocks are decoded as well",
        "it is not shown that arbitrary labels of shifted blocks reach more than half of what lies above chance",
        explains=True,
    ),
    "pseudo-concepts": Control(
        pseudo_concepts,
        "Can even mixes of images of all concepts be decoded as well as concepts?",
        "Kilgallen et al. 2406.16902",
        "pseudo-concept accuracy above chance", (), "exemplar-memory", "clean-rapid",
        "{some} of this accuracy is memory of single images: arbitrary mixes of them are decoded as well",
        "it is not shown that arbitrary mixes of images reach more than half of what lies above chance",
        explains=True,
    ),
    "random-codebook": Control(
        random_codebook,
        "Do random codes of the concepts serve as well as their embeddings?",
        "Li et al. 2020 (arXiv 1812.07697)",
        "two-way identification by random codes above 1/2", ("embeddings",), "class-codes", "clean-zero-shot",
        "{some} of this identification says which trained concept it is, not what it means: random codes do as well",
        "it is not shown that random codes serve as the embeddings do",
    ),
    "baseline-window": Control(
        baseline_window,
        "Is the concept decoded from before the image could have been seen?",
        "Li et al. 2020 (arXiv 1812.07697); Palazzo et al. 2012.03849",
        "baseline accuracy above chance", ("baseline",), "drift-in-blocks", "clean-rapid",
        "the concept is decoded from before the image: {some} of this accuracy needs no response to it",
        "it is not shown that the concept is decoded from before the image",
    ),
    "distance-to-training": Control(
        distance_to_training,
        "Does accuracy fall with the number of trials to the nearest training trial of the concept?",
        "Xu et al. 2405.17024",
        "accuracy per doubling of the distance", (), "fast-drift", "steady-blocks",
        "accuracy falls with the distance in time to training trials, as it does with drift",
        "it is not shown that accuracy falls with the distance in time to training trials",
        explains=True,
    ),
    "drift-removal": Control(
        drift_removal,
        "Does accuracy survive without what changes slowly over trials?",
        "Palazzo et al. 2012.03849; Xu et al. 2405.17024",
        "accuracy lost", (), "drift-in-blocks", "clean-rapid",
        "{some} of this accuracy is in slow changes over trials: drift, or what cannot be distinguished from it",
        f"{NOT_LOST} without what changes slowly over trials",
        explains=True,
    ),
    "confusions-in-time": Control(
        confusions_in_time,
        "Do wrong answers name the concepts of adjacent blocks?",
        "cyclic shifts of whole blocks, as Guillot & Rousset 2013 recommend for autocorrelated tables",
        "share of errors on adjacent blocks, above that of shifted blocks", (), "ordered-blocks", "steady-blocks",
        "wrong answers name the concepts of adjacent blocks: time is decoded",
        "it is not shown that wrong answers name the concepts of adjacent blocks",
        explains=True, may_use=("embeddings",),
    ),
    "noise-eeg": Control(
        noise_eeg,
        "Is noise with the covariance of the EEG decoded?",
        "Jo et al. 2405.06459",
        "accuracy on noise above chance", (), "place-in-batch", "clean-rapid",
        "noise is decoded: {some} of this accuracy does not come from EEG",
        "it is not shown that noise is decoded",
    ),
    "phase-randomisation": Control(
        phase_randomisation,
        "Do the same features decode as well when every trial's phases are random?",
        "Jo et al. 2405.06459; surrogates of Theiler et al. 1992",
        "surrogate accuracy above chance", ("signal",), "power-without-time", "clean-rapid",
        "{some} of this accuracy is in the spectrum of the window, not in the timing within it",
        "it is not shown that the same features reach more than half of what lies above chance when phases are random",
    ),
    "shuffled-pairs": Control(
        shuffled_pairs,
        "Does a decoder that was trained on shuffled pairs name the right concept?",
        "Jo et al. 2405.06459",
        "accuracy above chance", (), "answers-known-before", "clean-rapid",
        "{some} of this accuracy needs no training on true pairs: the decoder knows the answers from elsewhere",
        "it is not shown that anything is decoded without training on true pairs",
    ),
    "null-generators": Control(
        null_generators,
        "Are the images better than null generators draw: the mean, another trial, another image, a class name?",
        "Shirakawa et al. 2405.10078",
        "score less that of the hardest null arm", ("arms",), "hallucinating-generator", "clean-rapid",
        "these images are not shown to be better than those of the hardest null generator",
        "these images are better than those of the null arms that were compared",
        by_p=False,
    ),
    "low-level-match": Control(
        low_level_match,
        "Does accuracy survive when training images that look like the tested one are left out?",
        "Lützow Holm et al., NeuroImage 2024",
        "accuracy lost", ("low_level",), "looks-alone", "clean-rapid",
        "{some} of this accuracy is how images look: it is lost when look-alikes are not in the training set",
        f"{NOT_LOST} when look-alikes are not in the training set",
        explains=True,
    ),
    "repeated-stimulus": Control(
        repeated_stimulus,
        "Does accuracy survive when tested images are left out of training?",
        "2508.00531 (16 papers: 4.5 to 7.4 points too high)",
        "accuracy lost", (), "repeated-pictures", "clean-rapid",
        "{some} of this accuracy needs the tested images in training",
        f"{NOT_LOST} when the tested images are not in the training set",
        explains=True,
    ),
}  # fmt: skip

# Main columns of a row; it has `share`, `measures`, `subjects`, `notes`, `reasons`, `bound` and `details` too.
COLUMNS = ("control", "effect", "low", "high", "p", "p_holm", "fired")


def compute_control(name: str, inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Compute one control, or refuse where inputs are missing or nothing is decoded that needs explaining."""
    control = CONTROLS[check_option("control", name, CONTROLS)]
    missing = [need for need in control.needs if getattr(inputs, need) is None]
    if missing:
        return NotApplicable(finding(f"no-{missing[0].replace('_', '-')}"))
    refused = nothing_decoded(inputs, inputs.named, rng=rng) if control.explains else None
    return control.measure(inputs, rng=rng) if refused is None else refused


def control_row(inputs: ControlInputs, name: str, *, seed: int) -> dict[str, Any]:
    """Row of one control, `p_holm` still None; its numbers do not depend on which others are computed."""
    result = compute_control(name, inputs, rng=np.random.default_rng([seed, list(CONTROLS).index(name)]))
    row: dict[str, Any] = {
        "control": name, "measures": CONTROLS[name].effect,
        **dict.fromkeys(("effect", "low", "high", "p", "share", "p_holm", "fired", "subjects")),
        "bound": False, "notes": [], "reasons": [], "details": {},
    }  # fmt: skip
    if isinstance(result, NotApplicable):
        return {**row, "reasons": _counted([result.reason])}

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        **row, **{key: number(getattr(result, key)) for key in ("effect", "low", "high", "p", "share")},
        "fired": result.fired, "bound": result.bound, "notes": [asdict(result.note)] if result.note else [],
        "details": {key: number(value) for key, value in result.details.items()},
    }  # fmt: skip


def _counted(reasons: Sequence[Finding]) -> list[dict[str, Any]]:
    """Every reason once, with the number of subjects that have it."""
    return [{**asdict(reason), "subjects": reasons.count(reason)} for reason in dict.fromkeys(reasons)]


def correct_for_many(rows: Sequence[dict[str, Any]]) -> None:
    """Set `p_holm`, in place, of every control that fires by a small p, over the controls that were computed."""
    tested = [row for row in rows if row["p"] is not None and CONTROLS[row["control"]].by_p]
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = adjusted


def over_subjects(rows: Mapping[Any, Sequence[Mapping[str, Any]]], *, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Join the rows of several subjects: mean effect, bootstrap over subjects, Fisher's p, median share."""
    # Fires where more than half of the subjects do and the joined p is at most .05, as one subject alone could fire by
    # accident. A control without `by_p` claims something by staying silent, and fires where that is not shown.
    if len(rows) == 1:
        return [dict(row) for subject in rows.values() for row in subject]
    joined = [_join(of_control, rng) for of_control in zip(*rows.values(), strict=True)]
    correct_for_many(joined)
    return joined


def _join(rows: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    from scipy.stats import combine_pvalues

    computed = [row for row in rows if row["fired"] is not None]
    # a serious reason says what the accuracy is worth, whether or not the control was computed for other subjects
    reasons = _counted([read_findings([reason])[0] for row in rows for reason in row["reasons"]])
    serious = [reason for reason in reasons if reason["severity"] == "serious"]
    if not computed:
        return {**rows[0], "reasons": serious or reasons[:1], "subjects": {"fired": 0, "computed": 0, "of": len(rows)}}
    effects, p_values, shares = (
        np.array([row[key] for row in computed if row[key] is not None], dtype=float)
        for key in ("effect", "p", "share")
    )
    # Fisher's method [Fisher1932]
    p = float(combine_pvalues(p_values).pvalue) if len(p_values) else None
    times, is_shown = sum(row["fired"] for row in computed), p is not None and p <= SIGNIFICANT
    most = 2 * times > len(computed)
    fired = most and is_shown if CONTROLS[rows[0]["control"]].by_p else most or not is_shown
    interval = mean_interval(effects, np.arange(len(effects)), rng=rng) if len(effects) > 1 else None
    low, high = interval or (None, None)
    same = all(row["notes"] == computed[0]["notes"] for row in computed)
    return {
        **computed[0], "effect": float(effects.mean()) if len(effects) else None, "low": low, "high": high, "p": p,
        "p_holm": None, "fired": fired, "share": float(np.median(shares)) if len(shares) else None,
        "notes": computed[0]["notes"] if same else [], "reasons": serious,
        "subjects": {"fired": times, "computed": len(computed), "of": len(rows)},
        "bound": all(row.get("bound", False) for row in computed if row["fired"]) and fired, "details": {},
    }  # fmt: skip


def overall(rows: Sequence[Mapping[str, Any]]) -> Finding:
    """Sum up the controls; `worst` is the fired one with the largest share that survives Holm's correction."""
    computed = [row for row in rows if row["fired"] is not None]
    fired = [row for row in computed if row["fired"] and not row["bound"]]
    expected = [row["control"] for row in computed if row["fired"] and row["bound"]]
    corrected = [row for row in fired if row["p_holm"] is not None]
    firm = [row for row in corrected if row["p_holm"] <= SIGNIFICANT]
    loose = [row["control"] for row in corrected if row["p_holm"] > SIGNIFICANT]
    missing = [row for row in rows if row["fired"] is None and "serious" not in [r["severity"] for r in row["reasons"]]]
    worst = None
    if fired and len(loose) < len(fired) and (firm or not corrected):
        worst = max(firm or fired, key=lambda row: (row["share"] is not None, row["share"] or 0.0))
    return finding(
        "controls", computed=len(computed), missing=len(missing), fired=", ".join(row["control"] for row in fired),
        loose=", ".join(loose), expected=", ".join(expected), worst=worst["control"] if worst else None,
    )  # fmt: skip
