"""Findings about results: a code with numbers; `report.text` has a sentence for every code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "serious"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "info")

# Numbers of the best result, p after Holm's correction; for images of the arm eeg also `place` and the floor.
RESULT = "metric model value chance low high p place place_low place_high n_subjects n_above p_subjects "
# Unknown inputs (0 or 1); `elsewhere`: the images were not made by this package.
LACKS = "order images training elsewhere "

# Code -> its severity, and the names of its numbers, all optional. Verdicts are sorted by severity.
CODES: dict[str, tuple[Severity, str]] = {
    # of folds
    "block-on-both-sides": ("serious", ""),
    "gap-on-both-sides": ("serious", "gap"),
    "pictures-repeat": ("warning", ""),
    "order-repeats": ("warning", ""),
    "untrained-concepts": ("info", "n"),
    # of recordings
    "events": ("info", "events trials dropped"),
    "channels-left-out": ("info", "names"),
    "bad-channels": ("info", "names"),
    "bands-left-out": ("info", "names"),
    "same-signals": ("warning", "trials signals"),
    "missing-images": ("info", "trials images"),
    # of training and prediction
    "pretrained-unknown": ("warning", ""),
    "imported-unknown": ("warning", ""),
    "transductive-training": ("warning", ""),
    "averaged-showings": ("warning", "most"),
    "captions-repeat": ("info", "shared values"),
    "captions-cut": ("warning", "n of tokens"),
    "equal-embeddings": ("warning", "n of target first second"),
    # of scores
    "blocked-design": ("serious", ""),
    "few-units": ("warning", "n unit"),
    "coarse-p": ("warning", "least"),
    "low-oracle": ("warning", "value"),
    "judge-left-out": ("warning", "judge accuracy chance p n least"),
    "judge-poor": ("warning", "judge accuracy chance p n least"),
    "judge-unchecked": ("info", "judge"),
    "floor-differs": ("warning", "arm value p"),
    "best-out-of-reach": ("info", "models subjects least"),
    # of images and tables from other sources
    "paired-by-name": ("info", "n"),
    "paired-by-table": ("info", "table n"),
    "columns-unread": ("info", "columns"),
    "equal-pictures": ("warning", "n first second"),
    "resized": ("info", "n of width height"),
    "pairs-missing": ("warning", "path"),
    "rows-differ": ("warning", "source rows scored"),
    "unseen-answers": ("info", "n"),
    "one-answer": ("warning", "name n model"),
    "identical-images": ("warning", "arm n of"),
    "matrix-alone": ("info", ""),
    "rows-are-columns": ("info", ""),
    "no-one-to-one": ("info", "rows names"),
    "constant-rows": ("warning", "n of"),
    # of two audits of the same subjects
    "inflated": ("warning", "model metric margin share n p"),
    "not-inflated": ("info", "model metric margin share n p"),
    "few-pairs": ("warning", "n least"),
    "rows-of-trials": ("info", "rows trials"),
    "pooled-training": ("info", ""),
    "pictures-by-name": ("warning", ""),
    "scored-elsewhere": ("warning", ""),
    "other-trials": ("warning", "file"),
    # verdicts of the audit
    "other-split": ("serious", "file more stage"),
    "block-confounded": ("serious", "inside by_block design " + RESULT),
    "same-signal": ("serious", "trials of " + RESULT),
    "block-unknown": ("serious", LACKS + RESULT),
    "no-answers": ("warning", ""),
    "chance": ("warning", RESULT),
    "no-floor": ("warning", RESULT),
    "not-above-floor": ("warning", RESULT + "floor p_floor"),
    "unchecked": ("warning", LACKS + RESULT),
    "selection-on-test": ("warning", RESULT),
    "transductive": ("warning", "steps " + RESULT),
    "known-pictures": ("warning", "shared values " + RESULT),
    "unchecked-pictures": ("warning", LACKS + RESULT),
    "same-order": ("warning", RESULT),
    "selection-unknown": ("warning", RESULT),
    "clean": ("info", "design compared selection computed flagged " + RESULT),
    # supported conclusions
    "tells-blocks": ("info", RESULT),
    "goes-with-seen": ("info", RESULT),
    "tells-unless-selected": ("info", RESULT),
    "tells-seen": ("info", RESULT),
    "carries-over": ("info", "column"),
    # unsupported conclusions
    "not-response": ("info", ""),
    "not-shared": ("info", "file more stage"),
    "source-unknown": ("info", LACKS),
    "untouched-unknown": ("info", ""),
    "share-unknown": ("info", ""),
    "whole-set": ("info", "step"),
    "not-single": ("info", "most"),
    "whole-set-beside": ("info", "rules alone"),
    "p-out-of-reach": ("info", "units least"),
    "neighbours": ("info", "model share expected p"),
    "shared": ("info", "column shared values"),
    "sharing-unknown": ("info", "column"),
    # reasons why a control is not testable
    "one-block-only": ("serious", ""),
    "nothing-decoded": ("info", "decoder p"),
    "no-baseline": ("info", ""),
    "no-signal": ("info", ""),
    "no-embeddings": ("info", ""),
    "no-low-level": ("info", ""),
    "no-arms": ("info", ""),
    "too-few-pictures": ("info", "images concepts"),
    "one-concept-per-fold": ("info", ""),
    "no-blocks": ("info", ""),
    "whole-blocks": ("info", ""),
    "whole-runs": ("info", ""),
    "no-repeats": ("info", ""),
    "no-training-in-session": ("info", ""),
    "equal-distances": ("info", ""),
    "few-shifts": ("info", "blocks ways"),
    "few-concepts": ("info", "concepts"),
    "no-errors": ("info", ""),
    # notes on controls, and their summary
    "mixed-order": ("info", ""),
    "concepts-left-out": ("info", "n"),
    "repeats": ("info", "share"),
    "codes-bound": ("info", ""),
    "phases-bound": ("info", ""),
    "hardest-arm": ("info", "arm arms"),
    "semantic-errors": ("info", "r p"),
    "controls": ("info", "computed missing fired expected loose worst"),
}

# Scores are confounded with the recording block.
OF_BLOCKS = frozenset({"block-on-both-sides", "gap-on-both-sides", "blocked-design"})


@dataclass(frozen=True)
class Finding:
    """A code of `CODES`, its severity, and its numbers (or names)."""

    code: str
    severity: Severity
    numbers: Mapping[str, float | int | str] = field(default_factory=dict, hash=False)


def finding(code: str, **numbers: float | int | str | None) -> Finding:
    """Make a finding of a code; None values are omitted."""
    severity, names = CODES[code]
    if unknown := numbers.keys() - set(names.split()):
        raise TypeError(f"finding {code}: has {names or 'no numbers'}; got {', '.join(sorted(unknown))}.")
    return Finding(code, severity, {name: value for name, value in numbers.items() if value is not None})


def listed(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Unique findings for a JSON file, the most serious first."""
    order = list(CODES)

    def rank(record: Finding) -> tuple[int, int, str]:
        return SEVERITIES.index(record.severity), order.index(record.code), str(record.numbers)

    return [asdict(record) for record in sorted({*findings}, key=rank)]


def read_findings(rows: Any) -> tuple[Finding, ...]:
    """Findings of a JSON file; raises `ValueError` for anything else."""
    try:
        return tuple(finding(row["code"], **row["numbers"]) for row in rows)
    except (TypeError, LookupError) as error:
        raise ValueError("findings must be a list of known codes with their numbers") from error
