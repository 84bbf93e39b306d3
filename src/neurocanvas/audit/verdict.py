"""What an audit means, in words: what can and what cannot be concluded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from neurocanvas.evaluation.benchmark import SIGNIFICANT, holm

# How epoch, penalty or model were selected -> in words.
SELECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "validation": "on validation trials",
        "final": "by no trials: the last epoch",
        "test": "on the test trials",
        "unknown": "unknown",
    }
)

# Column -> what cannot be concluded where test trials share it with those that train, and what can where none does.
SCOPE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "subject": ("how it does on persons whose EEG did not train", "it carries over to persons who did not train"),
        "session": ("how it does on another day", "it carries over to a session that did not train"),
        "run": ("how it does in another run of the recording", "it carries over to runs that did not train"),
        "stimulus": (
            "what it makes of a picture that did not train: {shared} of {values} tested pictures train too",
            "it carries over to pictures that did not train",
        ),
        "picture": (
            "what it makes of a picture that did not train: the files of {shared} of {values} tested pictures hold the "
            "same bytes as files that train, under whatever name",
            "no file of a tested picture holds the same bytes as one that trains",
        ),
        "concept": (
            "how it does on concepts that did not train: {shared} of {values} tested concepts train too",
            "it carries over to concepts that did not train",
        ),
    }
)

# Beginning of the split's warning that recordings repeat the order of concepts.
SAME_ORDER = "Concepts came in nearly the same order"

# The block explains the accuracy if naming concepts by it alone reaches this share of the accuracy above chance.
EXPLAINED = 0.5

DESIGNS: Mapping[str, str] = MappingProxyType(
    {"block": "concepts in blocks", "mixed": "concepts in mixed order", "unknown": "order unknown"}
)


# Columns that say which trials show the same picture.
PICTURES = ("stimulus", "picture")

# What a table or run may lack: order, pictures, training trials.
MISSING = (
    "the column order or block", "the column stimulus, picture or sha256",
    "the trials that train (rows with split = train)",
)  # fmt: skip

# The same for pictures made elsewhere.
MISSING_ELSEWHERE = (
    "the columns concept and order or block of the pairing table", "the seen pictures",
    "the trials that trained what made the pictures",
)  # fmt: skip

UNCHECKED = "What the accuracy shows cannot be concluded: without {missing}, {risks} cannot be ruled out; {said}."


def conclude(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the facts `finding`, `text` (one sentence), and what one `can` and `cannot` conclude."""
    finding = next(name for name, (holds, _) in FINDINGS.items() if holds(facts))
    can, cannot = _scope(facts) if finding != "other-split" else ([], [])
    can, cannot = _claims(facts, finding, can), [*_doubts(facts, finding), *cannot]
    text = FINDINGS[finding][1].format(**_words(facts))
    return {**facts, "finding": finding, "text": text, "can": can, "cannot": cannot}


def verdict(audit: Mapping[str, Any]) -> str:
    """Sum an audit up in one sentence; the most severe finding comes first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name in FINDINGS:
        of_finding = [case for case in audit["cases"] if case["finding"] == name]
        if of_finding:
            found[name] = of_finding
    if len(found) == 1:
        [cases] = found.values()
        return str(cases[0]["text"])
    parts = []
    for cases in found.values():
        others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        text = str(cases[0]["text"]).removesuffix(".")
        parts.append(f"{text} ({cases[0]['name']}{others})")
    return "; ".join([parts[0], *(part[0].lower() + part[1:] for part in parts[1:])]) + "."


def shared_with_known(facts: Mapping[str, Any], column: str) -> Mapping[str, Any] | None:
    """Row of `overlaps` that compares a column of test trials with all that a model has seen; None if unknown."""
    found = [row for row in facts["overlaps"] if row["column"] == column and row["pair"] == "known/test"]
    return found[0] if found else None


def _significant(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Results above chance, the best first."""
    above = [one for one in facts["results"] if one["p_holm"] is not None and one["p_holm"] < SIGNIFICANT]
    return sorted(above, key=lambda one: -one["value"])


def _unknown(facts: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Whether order, repeated pictures, and training trials are unknown."""
    trains = not {"pretrain", "train", "val"} & set(facts["trials"])
    compared = [name for name in PICTURES if shared_with_known(facts, name)]
    told = set(PICTURES) & set(facts["columns"]) if trains else compared
    return facts["design"] == "unknown", not told, trains


def _missing(facts: Mapping[str, Any]) -> str:
    """Names of the missing columns, without which block or repeated pictures cannot be ruled out."""
    names = MISSING_ELSEWHERE if facts["made_elsewhere"] else MISSING
    missing = [name for name, lacks in zip(names, _unknown(facts), strict=True) if lacks]
    return " and ".join([", ".join(missing[:-1]), missing[-1]] if len(missing) > 1 else missing)


def _risks(facts: Mapping[str, Any]) -> str:
    """Confounds that cannot be ruled out because of what is missing."""
    order, pictures, trains = _unknown(facts)
    return " and ".join(["the recording block"] * (order or trains) + ["repeated pictures"] * (pictures or trains))


def _is_block(facts: Mapping[str, Any]) -> bool:
    """Whether the recording block explains the answers, or may."""
    block = facts["block"]
    if facts["design"] == "block":
        return block is not None and block["inside"] > 0
    if block is None or block["p"] is None or block["p"] >= SIGNIFICANT:
        return False
    best = max((one["value"] for one in facts["results"] if one["metric"] == "accuracy"), default=1.0)
    return bool(block["accuracy"] - block["chance"] >= EXPLAINED * (best - block["chance"]))


def _is_untold_block(facts: Mapping[str, Any]) -> bool:
    """Whether concepts came in blocks and the training blocks are unknown."""
    return facts["design"] == "block" and _unknown(facts)[2]


def _shares_pictures(facts: Mapping[str, Any]) -> bool:
    """Whether any tested picture is a training picture too."""
    found = (shared_with_known(facts, name) for name in PICTURES)
    return any(one is not None and one["shared"] > 0 for one in found)


def _repeats_order(facts: Mapping[str, Any]) -> bool:
    return any(text.startswith(SAME_ORDER) for text in facts["warnings"])


# Finding -> condition and sentence; the first that holds counts, so the gravest stand first.
FINDINGS: Mapping[str, tuple[Callable[[Mapping[str, Any]], bool], str]] = MappingProxyType(
    {
        "other-split": (
            lambda facts: bool(facts["other_split"]),
            "Nothing can be concluded: {other_split}.",
        ),
        "block": (
            _is_block,
            "The accuracy cannot be told from the recording block: {came}, {inside} of the test trials are of blocks "
            "that train too, and the block alone names the concept in {by_block}.",
        ),
        "untold-block": (
            _is_untold_block,
            "The accuracy cannot be told from the recording block: concepts came in blocks, and nothing says which "
            "blocks train; {ask}.",
        ),
        "nothing": (
            lambda facts: not facts["results"],
            "Nothing can be concluded yet: there are no answers to test trials.",
        ),
        "chance": (
            lambda facts: not _significant(facts),
            "Nothing can be concluded: no result is above chance; {said}.",
        ),
        "unchecked": (
            lambda facts: _unknown(facts)[0] or _unknown(facts)[2],
            UNCHECKED,
        ),
        "selected-on-test": (
            lambda facts: _significant(facts)[0]["selection"] == "test",
            "The accuracy is too high by an unknown amount: it was selected on the test trials; {said}.",
        ),
        "transductive": (
            lambda facts: bool(_significant(facts)[0]["transductive"]),
            "The accuracy is transductive, so it holds for a whole set of test trials and not for one alone: {steps}; "
            "{said}.",
        ),
        "known-pictures": (
            _shares_pictures,
            "The accuracy says which known picture was seen, not what can be told of a new one: {shared} of {values} "
            "tested pictures train too; {said}.",
        ),
        "unchecked-pictures": (lambda facts: _unknown(facts)[1], UNCHECKED),
        "same-order": (
            _repeats_order,
            "Drift since the start of a recording may give the accuracy: concepts came in nearly the same order in "
            "what trains and in what is tested; {said}.",
        ),
        "unknown-selection": (
            lambda facts: _significant(facts)[0]["selection"] == "unknown",
            "How much of the accuracy is selection is unknown: nothing says on which trials epoch, penalty or model "
            "were selected; {said}.",
        ),
        "clean": (
            lambda facts: bool(facts),
            "Nothing was found that explains the accuracy away: {looked}; {said}.",
        ),
    }
)


def _words(facts: Mapping[str, Any]) -> dict[str, str]:
    """Values for the braces in `FINDINGS`."""
    block = facts["block"] or {"inside": 0.0, "accuracy": 0.0}
    pictures = [found for name in PICTURES if (found := shared_with_known(facts, name))]
    most = max(pictures, key=lambda one: one["shared"], default={"shared": 0, "values": 0})
    tested = _significant(facts) or sorted(
        (one for one in facts["results"] if one["p"] is not None), key=lambda one: -one["value"]
    )
    in_blocks, steps = facts["design"] == "block", tested[0]["transductive"] if tested else ()
    looked = ["whole blocks were held out" if in_blocks else "concepts came in mixed order"]
    looked += ["no tested picture trains"] if pictures else []
    looked.append(f"selection was {SELECTIONS[tested[0]['selection']]}" if tested else "nothing was selected")
    return {
        "came": "concepts came in blocks" if in_blocks else "blocks differ in their concepts",
        "inside": percent(block["inside"]), "by_block": percent(block["accuracy"]),
        "missing": _missing(facts), "risks": _risks(facts), "other_split": facts["other_split"],
        "ask": "ask whoever made the pictures" if facts["made_elsewhere"] else f"add {MISSING[2]}",
        "steps": "; ".join(steps), "looked": ", ".join(looked),
        "shared": str(most["shared"]), "values": str(most["values"]),
        "said": _said(tested[0]) if tested else "none was tested",
    }  # fmt: skip


def _scope(facts: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What the answers generalise to, and what they do not, or where that is unknown."""
    can, cannot = [], []
    for column, (if_shared, if_not) in SCOPE.items():
        found = shared_with_known(facts, column)
        if found is None:
            if column != "picture":
                cannot.append(f"{if_shared.partition(':')[0]}: which {column} trains is not known")
        elif found["shared"]:
            cannot.append(if_shared.format(**found))
        else:
            can.append(if_not)
    return can, cannot


def _claims(facts: Mapping[str, Any], finding: str, scope: Sequence[str]) -> list[str]:
    above = _significant(facts)
    if not above:
        return []
    said = _said(above[0])
    if finding in ("block", "untold-block"):
        return [f"that EEG tells recording blocks from one another ({said})"]
    if finding in ("other-split", "selected-on-test"):
        return []
    if finding in ("unchecked", "unchecked-pictures", "same-order"):
        return [f"that answers go with what was seen, or with something that goes with it ({said})"]
    if finding == "unknown-selection":
        return [f"that EEG tells concepts, unless selection on the test trials made it so ({said})"]
    return [f"that EEG tells {'pictures' if above[0]['metric'] != 'accuracy' else 'concepts'} ({said})", *scope]


def _doubts(facts: Mapping[str, Any], finding: str) -> list[str]:
    """What cannot be concluded, apart from the scope."""
    found = []
    if finding in ("block", "untold-block"):
        found.append("that the brain's response to a picture was decoded: drift of the recording alone can give this")
    if finding == "other-split":
        found.append(f"anything of what training and testing share: {facts['other_split']}")
    if finding in ("unchecked", "unchecked-pictures"):
        found.append(f"whether it comes from {_risks(facts)}: {_missing(facts)} would have to be known")
    chosen = {one["selection"] for one in facts["results"]}
    if "test" in chosen:
        found.append("what the accuracy on untouched trials is: it was selected on the test trials")
    if "unknown" in chosen:
        found.append("how much of the accuracy is selection: which trials selected it is not known")
    steps = dict.fromkeys(step for one in facts["results"] for step in one["transductive"])
    found += [f"how it does on one trial alone: transductive ({step})" for step in steps]
    found += [
        f"how one trial alone does by what was computed beside the score: transductive ({step})"
        for step in facts["transductive"]
    ]
    reach = [one for one in facts["results"] if (one["least_p"] or 0.0) >= SIGNIFICANT]
    if reach:
        found.append(f"anything from p: {reach[0]['n_units']} units give {short(reach[0]['least_p'])} at the least")
    return found + _neighbour_doubts(facts)


def _neighbour_doubts(facts: Mapping[str, Any]) -> list[str]:
    """Name a model whose errors fall on concepts recorded nearby."""
    tested = [one for one in facts["results"] if one.get("neighbours")]
    adjusted = holm([one["neighbours"]["p"] for one in tested])
    near = [one for one, p in zip(tested, adjusted, strict=True) if p < SIGNIFICANT]
    return [
        f"that errors are about content: wrong answers of {one['model']} name concepts recorded "
        f"{one['neighbours']['distance']:.0f} trials away, {one['neighbours']['expected']:.0f} if answers were shifted "
        "along the recording"
        for one in near[:1]
    ]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def short(value: float | None, digits: int = 3) -> str:
    """Format a number below 1 without the leading zero; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}".removeprefix("0" if value < 1 else "")


def _said(one: Mapping[str, Any]) -> str:
    tested = "not tested" if one["p"] is None else f"p {short(one['p'], 4)}"
    metric = {"two-way": "two-way identification"}.get(one["metric"], one["metric"])
    return f"{metric} {short(one['value'])} of {one['model']}, chance {short(one['chance'])}, {tested}"
