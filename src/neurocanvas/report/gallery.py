"""The images on the page, selected by rank, as data URIs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.artifacts import number_in, read_csv, read_text
from neurocanvas.data.images import open_picture
from neurocanvas.data.trials import natural_key
from neurocanvas.errors import NeuroCanvasError, check_inside
from neurocanvas.report.figures import csv_link
from neurocanvas.report.text import percent, ranking_arm

# Trials from the top, the middle and the end of the ranking, and evenly spaced ones.
GROUP, SAMPLE = 4, 12

UNCHANGED, REDUCED = 128, 192  # px: images up to the first are embedded unchanged, larger ones shrink to the second
PAGE, PAGES = 1400, 2  # of images from captions: the longer side in px, and how many pages are embedded


def choose_trials(scores: Mapping[tuple[str, int], float]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Select the trials of the page by rank."""
    ranked = sorted(scores, key=lambda key: (-scores[key], natural_key(key[0]), key[1]))
    if len(ranked) <= 3 * GROUP + SAMPLE:
        return [(f"All {len(ranked)} trials, best first", ranked)]
    middle = (len(ranked) - GROUP) // 2
    best, worst = ranked[:GROUP], ranked[-GROUP:]
    median = ranked[middle : middle + GROUP]
    rest = [key for key in ranked if key not in {*best, *median, *worst}]
    spaced = [rest[int(rank)] for rank in np.linspace(0, len(rest) - 1, SAMPLE).round()] if len(rest) > SAMPLE else rest
    return [
        (f"Best {GROUP}", best), (f"Middle {GROUP}", median), (f"Worst {GROUP}", worst),
        (f"{len(spaced)} others, evenly spaced through the ranking", spaced),
    ]  # fmt: skip


def ranked_pictures(
    folder: Path, arms: Sequence[str], captions: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, Any]:
    """The image grid: groups of trials, each with the seen image and one of every arm."""
    path, by = folder / "scores" / "trials.csv", ranking_arm(arms)
    scored, scores = {}, {}
    for row in read_csv(path, "evaluate", ("subject", "trial", "arm", "stimulus", "concept", "two_way")):
        trial = number_in(row, "trial", path, "evaluate")
        if not trial.is_integer():
            raise NeuroCanvasError(f"{path}: trial must be a whole number; got {row['trial']!r}; run evaluate again.")
        key = str(row["subject"]), int(trial)
        if row["arm"] == by:
            scored[key], scores[key] = row, number_in(row, "two_way", path, "evaluate")
    images, made = folder / "images", {}
    manifest = images / "manifest.jsonl"
    lines = read_text(manifest, "the list of images; run the verb generate").splitlines()
    for line, text in enumerate(lines, 1):
        try:
            if text:
                drawn = json.loads(text)
                if not isinstance(drawn["subject"], str | int):
                    raise TypeError("subject is no name")
                made[str(drawn["subject"]), int(drawn["trial"]), str(drawn["arm"])] = drawn["file"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise NeuroCanvasError(
                f"{manifest}, line {line}: damaged ({error}); run the verb generate again."
            ) from error
    groups, table = [], []
    for title, keys in choose_trials(scores):
        shown = []
        for key in keys:
            stimulus, concept = scored[key]["stimulus"], scored[key]["concept"]
            pictures = [("seen", f"seen/{stimulus}.png"), *((arm, made.get((*key, arm))) for arm in arms)]
            table.append([title, *key, stimulus, concept, scored[key]["two_way"], captions.get(stimulus, "")])
            shown.append({
                "subject": key[0], "trial": key[1], "caption": captions.get(stimulus, ""),
                "concept": names.get(concept, concept),
                "two_way": percent(scores[key]),
                "pictures": [
                    (arm, data_uri(check_inside(images, file, "images")) if file else None) for arm, file in pictures
                ],
            })  # fmt: skip
        groups.append({"title": title, "trials": shown})
    columns = ["group", "subject", "trial", "stimulus", "concept", f"two_way of {by}", "caption"]
    return {"groups": groups, "by": by, "link": csv_link("pictures.csv", columns, table)}


def data_uri(path: Path, most: int = REDUCED) -> str:
    """An image as a data URI, with at most `most` pixels on the longer side."""
    from PIL import Image

    with open_picture(path, "run the verb generate") as opened:
        opened.load()
        if opened.format == "PNG" and max(opened.size) <= UNCHANGED:
            return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        stream = io.BytesIO()
        opened.thumbnail((most, most), Image.Resampling.LANCZOS)
        opened.convert("RGB").save(stream, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
