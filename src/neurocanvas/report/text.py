"""What the page says in words: the verdict, what was run, what arms and metrics mean, how numbers are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neurocanvas.config import RunSettings
from neurocanvas.console import short

# Arm -> what its pictures are made from; in the order in which the page shows them.
ARMS: dict[str, str] = {
    "eeg": "Made from what the mapper predicts from this trial's EEG.",
    "shuffled": "Made from the prediction for another trial of the same subject: the floor. What it scores above "
    "chance does not come from this trial's EEG.",
    "mean": "Made from the mean of the training targets, the same for every trial: what knowing nothing looks like.",
    "oracle": "Made from the true target, the embedding of the seen picture's own caption: the ceiling that the "
    "generator and the judge leave to any EEG.",
    "random": "Made from the caption of a training picture that is drawn at random, whatever the EEG says.",
    "retrieval": "Made from the caption of the training picture whose embedding is nearest to the prediction.",
    "class-name": "Made from the words “a photo of a …” with the concept that is nearest to the prediction.",
    "retrieved-start": "Made from the prediction, but drawn over the training picture that is nearest to it.",
    "sketched-start": "Made from the prediction, but drawn over a small picture that ridge regression predicts.",
    "best-of": "Made from the prediction several times; kept is the picture whose own caption is nearest to it.",
}

# Arms that say nothing of the trial's EEG.
CONTROL_ARMS = ("shuffled", "mean", "random", "oracle")

# Metric -> title and meaning, in the page's order; ``{n}`` stands for the number of pictures to choose from.
METRICS: dict[str, tuple[str, str]] = {
    "two_way": (
        "Two-way identification",
        "share of the other seen pictures that are less like the generated picture than the one that was seen, to "
        "the judge; ties count one half",
    ),
    "n_way": (
        "{n}-way identification",
        "how often the seen picture is the most similar of {n}, the others drawn from the seen pictures",
    ),
    "concept_top1": ("Concept top-1", "how often the judge names the seen concept first"),
    "concept_top5": ("Concept top-5", "how often the seen concept is among the judge's first five"),
    "pixcorr": ("PixCorr", "correlation of the pixels of the generated and the seen picture"),
    "ssim": ("SSIM", "structural similarity of the two pictures in grey, from −1 to 1"),
}

# Metrics written in percent.
PERCENT = frozenset({"two_way", "n_way", "concept_top1", "concept_top5"})

ALPHA = 0.05

# Findings of the audit that mean that the accuracy cannot be told from the recording block.
BLOCK_FINDINGS = frozenset({"block", "untold-block"})

# Order of the concepts in the confusion matrix -> its name.
ORDERS: dict[str, str] = {"semantic": "by meaning", "block": "by time of recording"}

# How importance is measured -> title and meaning.
KINDS: dict[str, tuple[str, str]] = {
    "permutation": ("Permuted", "its values exchanged between test trials"),
    "occlusion": ("Occluded", "its values replaced by the training mean"),
}


def number(value: float, metric: str, *, unit: bool = True, digits: int = 1) -> str:
    """Write a score."""
    text = f"{100 * value:.{digits}f}" + ("\N{NO-BREAK SPACE}%" if unit else "")
    plain = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return (text if metric in PERCENT else plain).replace("-", "−")


def interval(score: Mapping[str, Any], metric: str) -> str:
    """Write the interval of a score."""
    low, high = score.get("low"), score.get("high")
    if low is None or high is None:
        return "–"
    return f"{number(low, metric, unit=False)} – {number(high, metric, unit=False)}"


def p_value(p: float) -> str:
    """Write a p-value with two figures, or as a bound below .0001."""
    if p < 0.0001:
        return "< .0001"
    digits = 2 if p >= 0.01 else 3 if p >= 0.001 else 4
    return f"{p:.{digits}f}".removeprefix("0")


def ranking_arm(arms: Sequence[str]) -> str:
    """Choose the arm whose pictures rank the trials."""
    return next((arm for arm in arms if arm not in CONTROL_ARMS), arms[0])


def is_blocked(summary: Mapping[str, Any], warnings: Sequence[str] = ()) -> bool:
    """Tell whether scores come from a block design."""
    said = (text.lower().startswith("block design") for text in [*summary.get("warnings", []), *warnings])
    return "blocks" in (summary.get("exchanged"), summary.get("unit")) or any(said)


def verdict(summary: Mapping[str, Any], *, blocked: bool = False, other_split: bool = False) -> dict[str, Any]:
    """Say in one sentence what the scores allow to conclude."""
    scores = {arm: given.get("two_way") for arm, given in summary["arms"].items()}
    eeg, shuffled = scores.get("eeg"), scores.get("shuffled")
    if other_split:
        return {"claimed": False, "text": "Nothing can be claimed: models were trained on another split."}
    if "given" in scores:
        given = scores["given"]
        text = (
            f"These pictures identify the seen one in {_whole(given['value'])} of pairs (chance "
            f"{_whole(given['chance'])}, {_interval(given)}, p {p_value(given['p'])}); what they were made from is not "
            "known here, so no more can be claimed."
        )
        return {"claimed": False, "text": text}
    if eeg is None:
        return {"claimed": False, "text": "Nothing can be claimed: the arm eeg was not drawn."}
    fact = (
        f"ictures made from EEG identify the seen picture in {_whole(eeg['value'])} of pairs "
        f"(chance {_whole(eeg['chance'])}, {_interval(eeg)})"
    )
    doubts = _doubts(eeg, shuffled)
    if doubts:
        return {"claimed": False, "text": f"Nothing can be claimed: p{fact}, {doubts}."}
    if blocked or is_blocked(summary):
        why = "every concept was recorded in one stretch of time, so" if is_blocked(summary) else "the audit found that"
        text = f"P{fact}, but {why} this cannot be told from decoding the recording block."
        return {"claimed": False, "text": text}
    place = eeg.get("place")
    way = "" if place is None else f": {_whole(place)} of the way from shuffled EEG to the true caption"
    return {"claimed": True, "text": f"P{fact}{way}."}


def _doubts(eeg: Mapping[str, Any], shuffled: Mapping[str, Any] | None) -> str:
    """What speaks against a claim; empty if nothing does."""
    if shuffled is None:
        return "and without the shuffled arm there is no floor to hold that against"
    if eeg["low"] is None or shuffled["low"] is None:
        return "and there are too few units for an interval"
    if eeg["low"] <= shuffled["high"]:
        return f"which cannot be told from shuffled EEG ({_whole(shuffled['value'])}, {_interval(shuffled)})"
    if eeg["p"] >= ALPHA:
        return f"which chance alone can give (p {p_value(eeg['p'])})"
    if eeg.get("p_vs_shuffled", 0.0) >= ALPHA:
        return f"which is not reliably more than from shuffled EEG (p {p_value(eeg['p_vs_shuffled'])})"
    return ""


def _whole(share: float) -> str:
    """A share as whole percent."""
    return number(share, "two_way", digits=0)


def _interval(score: Mapping[str, Any]) -> str:
    """A 95 % interval in words."""
    if score["low"] is None:
        return "no interval"
    return f"95\N{NO-BREAK SPACE}% interval {100 * score['low']:.0f}–{_whole(score['high'])}"


def definitions(
    settings: RunSettings,
    summary: Mapping[str, Any],
    trials: Sequence[Mapping[str, str]],
    n_subjects: int,
    ch_names: Sequence[str],
) -> list[tuple[str, str]]:
    """List what was run."""
    made, mapper = settings.generate, settings.encoder
    data: str = settings.data.name
    if settings.simulate is not None:
        data = f"simulated EEG, {settings.simulate.design} design, in the layout of EEG-ImageNet"
    chosen = f"; granularity {settings.data.granularity}" if settings.data.name == "eeg-imagenet" else ""
    features = settings.features
    layers = f", hidden layers {' · '.join(map(str, mapper.widths))}" if mapper.name == "mlp_sd" else ""
    stimuli = len({row["image"] for row in trials})
    electrodes = ", ".join(ch_names) if len(ch_names) <= 8 else f"{len(ch_names)}"
    seeds = [f"split {settings.split.seed}", f"mapper {mapper.seed}", f"pictures {made.seed}"]
    seeds += [f"scores {settings.evaluate.seed}"]
    if settings.simulate is not None:
        seeds.insert(0, f"simulation {settings.simulate.seed}")
    tested = "pictures, their showings averaged" if settings.split.average_test else "trials"
    return [
        ("Data", data + chosen),
        ("Subjects", f"{n_subjects}"),
        ("Trials", f"{len(trials):,} of {stimuli:,} pictures, {len(summary['concepts'])} concepts tested"),
        ("Electrodes", electrodes),
        ("Features", f"differential entropy ({features.method}), {features.tmin:g} to {features.tmax:g} s after onset"),
        ("Split", f"{settings.split.protocol}; tested on {summary['n_trials']:,} {tested}"),
        ("Mapper", f"{mapper.name}{layers}, {mapper.components} components"),
        ("Networks", f"captions {settings.family}, pictures {made.family}, judge {settings.evaluate.judge}"),
        ("Diffusion", f"{made.scheduler}, {made.steps} steps, guidance {made.guidance:g}, scale {made.scale}"),
        ("Statistics", f"{settings.evaluate.permutations:,} permutations, {settings.evaluate.resamples:,} resamples"),
        ("Seeds", ", ".join(seeds)),
    ]  # fmt: skip


def classification_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what one protocol's rows of the benchmark come to."""
    first = [row for row in rows if row["granularity"] == rows[0]["granularity"]]
    best = max(first, key=lambda row: row["mean"])
    right, chance = 100 * best["mean"], 100 * best["chance"]
    name = best["title"].rstrip("*")
    scored = f"{name} names the concept of {right:.1f}\u00a0% of the trials (chance {chance:.1f}\u00a0%)"
    if any(warning.startswith("Block design") for row in rows for warning in row["warnings"]):
        return f"{scored} on a split that cannot tell the brain's response from the recording block."
    corrected = f"p {p_value(best['p_holm'])} after correction for all tests"
    return f"No model is above chance: {scored}, {corrected}." if best["p_holm"] >= 0.05 else f"{scored}, {corrected}."


def notes(summary: Mapping[str, Any]) -> Iterator[str | tuple[str, str]]:
    """What is said below the scores of pictures."""
    for rule, found in summary.get("retrieval", {}).items():
        if not found["transductive"] or found.get("rule") == "greedy":  # summary.json has the others
            how = f"cosine with {found['space']}" if "space" in found else rule
            if found["transductive"]:
                how += ", both sides centred, which uses all test trials"
            yield (
                f"Predictions retrieve the seen stimulus among {found['n_pictures']:g} ({how}): top-1 "
                f"{short(found['top1'])} (chance {short(found['chance1'])}), top-5 {short(found['top5'])} "
                f"({short(found['chance5'])}), median rank {found['median_rank']:g}."
            )
    if summary.get("not_computed"):
        yield f"Not computed, because weights are not here: {', '.join(summary['not_computed'])}."
    yield from (("Warning", warning) for warning in summary["warnings"])
    yield "Verdict", verdict(summary)["text"]
