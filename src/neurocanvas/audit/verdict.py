"""What an audit means: the verdict, and what can and what cannot be concluded, as findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from neurocanvas.evaluation.statistics import SIGNIFICANT, holm
from neurocanvas.findings import RESULT, Finding, finding

# How epoch, penalty or model were selected.
SELECTIONS = ("validation", "final", "test", "unknown")

# The arm of images that were made elsewhere, and their case's name, which stands for what made them.
GIVEN, MADE_ELSEWHERE = "given", "images made elsewhere"

# Columns by which results carry over to what did not train, or do not.
SCOPE = ("subject", "session", "run", "stimulus", "picture", "concept")

# Columns that say which trials show the same image.
PICTURES = ("stimulus", "picture")

# The block explains the accuracy if naming concepts by it alone reaches this share of the accuracy above chance.
EXPLAINED = 0.5


def conclude(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the facts of a case its verdict, and what one can and cannot conclude."""
    results = facts["results"]
    above = [result for result in results if result["p_holm"] is not None and result["p_holm"] < SIGNIFICANT]
    tested = above or [result for result in results if result["p"] is not None]
    # a top-5, always higher than its top-1, is the best only where nothing else is
    best: Mapping[str, Any] = max(tested, key=lambda row: (row["metric"] != "top-5", row["value"]), default={})
    overlaps = {row["column"]: row for row in facts["overlaps"] if row["pair"] == "known/test"}
    training = not {"pretrain", "train", "val"} & set(facts["trials"])
    lacks = {
        "order": int(facts["design"] == "unknown"),
        "images": int(not set(PICTURES) & (set(facts["columns"]) if training else overlaps.keys())),
        "training": int(training), "elsewhere": int(facts["made_elsewhere"]),
    }  # fmt: skip
    numbers_of_best = {**{name: best.get(name) for name in RESULT.split()}, "p": best.get("p_holm")}
    verdict = _verdict(facts, best, bool(above), overlaps, lacks, numbers_of_best)
    can, cannot = [], []
    if verdict.code in ("block-confounded", "block-unknown"):
        cannot.append(finding("not-response"))
    if verdict.code == "other-split":
        cannot.append(finding("not-shared", **facts["other_split"]))
    if verdict.code in ("unchecked", "unchecked-pictures"):
        cannot.append(finding("source-unknown", **lacks))
    selections = {result["selection"] for result in results}
    cannot += [finding("untouched-unknown")] * ("test" in selections)
    cannot += [finding("share-unknown")] * ("unknown" in selections)
    steps = dict.fromkeys(step for result in results for step in result["transductive"])
    cannot += [finding("whole-set", step=step) for step in steps]
    averaged = [row["numbers"]["most"] for row in facts["findings"] if row["code"] == "averaged-showings"]
    cannot += [finding("not-single", most=most) for most in averaged[:1]]
    if facts["transductive"]:
        cannot.append(finding("whole-set-beside", **facts["transductive"]))
    for result in [result for result in results if (result["least_p"] or 0.0) >= SIGNIFICANT][:1]:
        cannot.append(finding("p-out-of-reach", units=result["n_units"], least=result["least_p"]))
    near = [result for result in results if result.get("neighbours")]
    adjusted = holm([result["neighbours"]["p"] for result in near])
    for result, p in [(result, p) for result, p in zip(near, adjusted, strict=True) if p < SIGNIFICANT][:1]:
        numbers = {name: result["neighbours"][name] for name in ("share", "expected")}
        cannot.append(finding("neighbours", model=result["model"], **numbers, p=p))
    claim = {
        "block-confounded": "tells-blocks", "block-unknown": "tells-blocks", "unchecked": "goes-with-seen",
        "unchecked-pictures": "goes-with-seen", "same-order": "goes-with-seen",
        "selection-unknown": "tells-unless-selected",
        **dict.fromkeys(("transductive", "known-pictures", "clean"), "tells-seen"),
    }.get(verdict.code)  # fmt: skip
    if above and claim:
        can.append(finding(claim, **numbers_of_best))
    known_images = any(overlaps[name]["shared"] for name in PICTURES if name in overlaps)
    for column in SCOPE if verdict.code != "other-split" else ():
        row = overlaps.get(column)
        if row is None and column != "picture":
            cannot.append(finding("sharing-unknown", column=column))
        elif row and row["shared"]:
            cannot.append(finding("shared", column=column, shared=row["shared"], values=row["values"]))
        elif row and claim == "tells-seen" and not (column in PICTURES and known_images):
            can.append(finding("carries-over", column=column))
    conclusions = {"can": list(map(asdict, can)), "cannot": list(map(asdict, cannot))}
    return {**facts, "verdict": asdict(verdict), **conclusions}


def _verdict(
    facts: Mapping[str, Any],
    best: Mapping[str, Any],
    significant: bool,
    overlaps: Mapping[str, Mapping[str, Any]],
    lacks: Mapping[str, int],
    result: Mapping[str, Any],
) -> Finding:
    """The gravest finding of a case; the order is that of the verdicts in `findings.CODES`."""
    block, design = facts["block"], facts["design"]
    if facts["other_split"]:
        return finding("other-split", **facts["other_split"])
    confounded = design == "block" and block is not None and block["inside"] > 0
    if design != "block" and block is not None and block["p"] is not None and block["p"] < SIGNIFICANT:
        most = max((row["value"] for row in facts["results"] if row["metric"] == "accuracy"), default=1.0)
        confounded = block["accuracy"] - block["chance"] >= EXPLAINED * (most - block["chance"])
    if confounded:
        numbers = {"inside": block["inside"], "by_block": block["accuracy"], "design": design}
        return finding("block-confounded", **numbers, **result)
    if (same := overlaps.get("signal")) and same["shared"]:
        return finding("same-signal", trials=same["trials"], of=same["of"], **result)
    if design == "block" and lacks["training"]:
        return finding("block-unknown", **lacks, **result)
    if not facts["results"]:
        return finding("no-answers")
    if not significant:
        return finding("chance", **result)
    if best["metric"] == "two-way" and not facts["made_elsewhere"]:
        if best["floor"] is None or best["p_floor"] is None:
            return finding("no-floor", **result)
        if best["p_floor"] >= SIGNIFICANT:  # a paired test: intervals that overlap do not decide
            return finding("not-above-floor", **result, floor=best["floor"]["value"], p_floor=best["p_floor"])
    if lacks["order"] or lacks["training"]:
        return finding("unchecked", **lacks, **result)
    if best["selection"] == "test":
        return finding("selection-on-test", **result)
    if best["transductive"]:
        return finding("transductive", steps="; ".join(best["transductive"]), **result)
    shared = max((overlaps[name] for name in PICTURES if name in overlaps), key=lambda row: row["shared"], default=None)
    if shared and shared["shared"]:
        return finding("known-pictures", shared=shared["shared"], values=shared["values"], **result)
    if lacks["images"]:
        return finding("unchecked-pictures", **lacks, **result)
    if any(row["code"] == "order-repeats" for row in facts["findings"]):
        return finding("same-order", **result)
    if best["selection"] == "unknown":
        return finding("selection-unknown", **result)
    controls = facts.get("controls") or {}
    return finding(
        "clean", design=design, compared=int(shared is not None), selection=best["selection"], **result,
        computed=controls.get("computed"), flagged=controls.get("flagged"),
    )  # fmt: skip
