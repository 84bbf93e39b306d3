"""Images that somebody else made, and their scores."""

from __future__ import annotations

import csv
import shutil
from types import SimpleNamespace

import pytest

from neurocanvas.config import load_settings
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import run_stage

HEADER = ("image", "against", "concept", "order")


@pytest.fixture
def theirs(tiny_run, tmp_path):
    """Images made elsewhere, what was seen, and the rows of a table that pairs them; concepts in mixed order."""
    made, seen, rows = tmp_path / "made", tmp_path / "seen", []
    made.mkdir()
    shutil.copytree(tiny_run / "images" / "seen", seen)
    stimuli = RunFolder(tiny_run, load_settings(tiny_run / "run.toml")).images
    for number, path in enumerate(sorted((tiny_run / "images" / "s0" / "oracle").glob("*.png"))):
        stimulus = next(one.name for one in seen.glob("*.png") if path.stem.split("_", 1)[1] in one.name)
        shutil.copy(path, made / f"{number}.png")
        concept = stimuli.names[stimuli.concepts[stimulus.removesuffix(".png")]]
        rows.append((f"{number}.png", stimulus, concept, str(number)))

    def blocks():
        """Three images of each seen one, of which four in turn are one block and four the other."""
        shown = [row for half in (rows[:4], rows[4:]) for _ in range(3) for row in half]
        names = [f"{order}_{row[0]}" for order, row in enumerate(shown)]
        for name, row in zip(names, shown, strict=True):
            shutil.copy(made / row[0], made / name)
        for row in rows:
            (made / row[0]).unlink()
        concepts = ["mug"] * 12 + ["banana"] * 12
        return [(name, row[1], concept, str(order))
                for order, (name, row, concept) in enumerate(zip(names, shown, concepts, strict=True))]

    pairs, folder = tmp_path / "pairs.csv", tmp_path / "out"

    def score(folder=folder, header=HEADER, rows=rows, **changed):
        """Write the table and evaluate the images into a folder."""
        with pairs.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([header, *(row[: len(header)] for row in rows)])
        asked = {"against": str(seen), "pairs": str(pairs), "permutations": 99, "resamples": 100, **changed}
        run_stage(RunFolder(folder, load_settings(None, data={"pictures": str(made)}, evaluate=asked)), "evaluate")

    return SimpleNamespace(blocks=blocks, pairs=pairs, folder=folder, score=score)
