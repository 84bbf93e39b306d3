"""What a run folder keeps of its stages, read for the audit; damage is one sentence with the file and the verb."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.datasets.stimuli import Stimuli
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.pairing import read_columns
from neurocanvas.trials import COLUMNS, Trials

# `Trials.source` where the data set is not there and the tables beside the features are read instead.
NO_DATA = "trial tables of the run folder"

# Entries of cards that are lists of texts, where they are there.
TEXTS = ("warnings", "concepts")


def damaged(path: Path, what: str, verb: str) -> NeuroCanvasError:
    """Make the error of a damaged file."""
    return NeuroCanvasError(f"{path}: damaged ({what}); run `neurocanvas {verb}` again.")


def read_card(path: Path, verb: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Read the card of an artifact, and check what is read of it."""
    path = store.card_path(path)
    card = _read_mapping(path, verb)
    for name, kind in kinds.items():
        if not isinstance(card.get(name), kind):
            raise damaged(path, f"{name} is missing or of a wrong kind", verb)
    for name in TEXTS:
        said = card.get(name, [])
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            raise damaged(path, f"{name} must be a list of texts", verb)
    return card


def _read_mapping(path: Path, verb: str) -> dict[str, Any]:
    """A JSON file that holds a mapping."""
    text = store.read_text(path, f"what `neurocanvas {verb}` writes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}", verb) from error
    if not isinstance(found, dict):
        raise damaged(path, "not a mapping", verb)
    return found


def read_mapper_card(path: Path) -> dict[str, Any]:
    """Read the card of a mapper."""
    card = read_card(path, "train", {})
    split = card.get("split")
    if not card.get("imported") and not (isinstance(split, dict) and isinstance(split.get("fingerprint"), str)):
        raise damaged(store.card_path(path), "split: no fingerprint", "train")
    return card


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Read what `evaluate` scored."""
    path = folder / "scores" / "summary.json"
    if not path.is_file():
        return None
    summary = _read_mapping(path, "evaluate")
    for name in ("arms", "subjects", "retrieval"):
        parts = summary.get(name, {})
        if not isinstance(parts, dict) or not all(isinstance(one, dict) for one in parts.values()):
            raise damaged(path, f"{name} is not a mapping of mappings", "evaluate")
    if not summary.get("arms"):
        raise damaged(path, "no arms", "evaluate")
    said = summary.get("warnings", [])
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise damaged(path, "warnings must be a list of texts", "evaluate")
    return summary


def two_way(folder: Path, summary: Mapping[str, Any], arm: str, *, model: str, selection: str) -> list[dict[str, Any]]:
    """Give two-way identification of an arm, as `evaluate` tested it."""
    if arm not in summary["arms"]:
        return []
    path, scored = folder / "scores" / "summary.json", summary["arms"][arm].get("two_way")
    if not isinstance(scored, dict):
        raise damaged(path, f"arms.{arm} has no two_way", "evaluate")
    for name in ("value", "chance", "low", "high", "p"):
        if not (_is_number(scored.get(name)) or (scored.get(name) is None and name in ("low", "high", "p"))):
            raise damaged(path, f"arms.{arm}.two_way.{name} is no number", "evaluate")
    if not _is_number(summary.get("n_trials")):
        raise damaged(path, "n_trials is no number", "evaluate")
    return [{
        "model": model, "metric": "two-way", "n": summary["n_trials"], "correct": None,
        **{name: scored.get(name) for name in ("value", "chance", "low", "high", "p")}, "p_holm": scored.get("p"),
        "needed": None, "needed_binomial": None, "least_p": None, "majority": None, "n_units": None,
        "selection": selection, "transductive": [],
    }]  # fmt: skip


def _is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def transductive_rules(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which rules of retrieval used test trials together, beside the score that is tested."""
    rules = summary.get("retrieval", {})
    together = [rule for rule, found in rules.items() if found.get("transductive")]
    alone = [rule for rule in rules if rule not in together]
    if not together:
        return ()
    others = f"; the {', '.join(alone)} rule is not" if alone else ""
    return (f"{', '.join(together)} in scores/summary.json: retrieval{others}",)


def drawn_stimuli(folder: Path) -> set[str]:
    """Read among which stimuli generated pictures are identified."""
    manifest = folder / "images" / "manifest.jsonl"
    if not manifest.is_file():
        return set()
    lines = store.read_text(manifest, "one line per picture").splitlines()
    try:
        return {json.loads(line)["stimulus"] for line in lines}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(manifest, str(error), "generate") from error


def kept_tables(folder: Path) -> tuple[Trials, Stimuli] | None:
    """Read trials and stimuli from the tables beside the features, the longest of every subject."""
    tables: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(folder.glob("features/**/s*_trials.csv")):
        found = read_columns(path, list(COLUMNS), "a trial table")
        if len(found["subject"]) > len(tables.get(path.name, found)["subject"]) or path.name not in tables:
            tables[path.name] = found
    if not tables:
        return None
    try:
        joined: dict[str, np.ndarray] = {
            name: np.concatenate([table[name] for table in tables.values()]).astype(kind)
            for name, kind in COLUMNS.items()
        }
    except (ValueError, OverflowError) as error:
        raise damaged(folder / "features", f"a trial table: {error}", "features") from error
    trials = Trials(joined, (), 1.0, 0.0, lambda rows: np.empty((len(rows), 0, 0), np.float32), NO_DATA)
    concepts = dict(zip(joined["stimulus"].tolist(), joined["concept"].tolist(), strict=True))
    return trials, Stimuli(tuple(sorted(concepts)), concepts, {name: name for name in concepts.values()}, {})
