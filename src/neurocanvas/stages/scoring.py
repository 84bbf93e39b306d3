"""What is in the folder of scores: the summary, and tables with the numbers behind every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.stages.comparing import Compared
from neurocanvas.stages.run import write_table


def write_scores(folder: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write the scores of a run."""
    per_concept = [
        {"concept": concept, "name": said["name"], "n": said["n"], "arm": arm, **said[arm]}
        for concept, said in summary["concepts"].items() for arm in summary["arms"]
    ]  # fmt: skip
    paths = [folder / "summary.json"]
    store.write_json(paths[0], summary)
    for name, table in (("trials.csv", rows), ("concepts.csv", per_concept)):
        if table:
            paths.append(folder / name)
            write_table(paths[-1], {column: np.array([row[column] for row in table]) for column in table[0]})
    return paths


def write_confusions(
    folder: Path,
    compared: Compared,
    trials: Mapping[str, np.ndarray],
    concepts: Mapping[str, str],
    *,
    blocked: bool,
) -> list[Path]:
    """Write which concepts the judge names for pictures of which, and two orders of concepts."""
    from neurocanvas.evaluation.concepts import confusion_counts, semantic_order

    if compared.prompted is None:
        return []
    ids = list(concepts)
    true = np.array([ids.index(concept) for concept in trials["concept"]])
    cells = []
    for arm, tables in compared.tables.items():
        counts = confusion_counts(tables["concept"], true)
        cells += [(arm, ids[row], ids[column], int(counts[row, column])) for row, column in np.argwhere(counts)]
    columns = ("arm", "true", "named", "count")
    write_table(
        folder / "confusion.csv", {name: np.array([cell[at] for cell in cells]) for at, name in enumerate(columns)}
    )
    first = [int(trials["block"][true == row].min()) for row in range(len(ids))]
    write_table(folder / "concept_order.csv", {
        "concept": np.array(ids), "name": np.array(list(concepts.values())),
        "semantic": semantic_order(compared.prompted),
        "block": np.argsort(np.argsort(first, kind="stable")) if blocked else np.full(len(ids), ""),
    })  # fmt: skip
    return [folder / "confusion.csv", folder / "concept_order.csv"]
