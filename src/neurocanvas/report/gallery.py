"""The pictures that the page shows, chosen by rank, and how a picture is put into a page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.report.tables import csv_link, read_csv
from neurocanvas.report.words import number, ranking_arm

GROUP, SAMPLE = 4, 12
"""Trials shown from the top, the middle and the end of the ranking, and spread over the rest."""

AS_IT_IS, REDUCED = 128, 192  # px: pictures up to the first are embedded unchanged, larger ones shrink to the second
PAGE, PAGES = 1400, 2  # of pictures from captions: the longer side in px, and how many pages are embedded


def choose_trials(scores: Mapping[tuple[int, int], float]) -> list[tuple[str, list[tuple[int, int]]]]:
    """Choose by rank alone which trials the page shows.

    Parameters
    ----------
    scores : dict of (subject, trial) to float
        Two-way identification of each trial's `eeg` picture.

    Returns
    -------
    list of (str, list of (subject, trial))
        Headings and their trials: best, middle and worst, and more that are evenly spaced through the rest of the
        ranking. Few trials are all shown, best first.

    Examples
    --------
    >>> [(title, len(keys)) for title, keys in choose_trials({(0, t): t / 60 for t in range(60)})]
    [('Best 4', 4), ('Middle 4', 4), ('Worst 4', 4), ('12 others, evenly spaced through the ranking', 12)]
    """
    ranked = sorted(scores, key=lambda key: (-scores[key], key))
    if len(ranked) <= 3 * GROUP + SAMPLE:
        return [(f"All {len(ranked)} trials, best first", ranked)]
    middle = (len(ranked) - GROUP) // 2
    best, worst = ranked[:GROUP], ranked[-GROUP:]
    median = ranked[middle : middle + GROUP]
    rest = [key for key in ranked if key not in {*best, *median, *worst}]
    spaced = [rest[int(at)] for at in np.linspace(0, len(rest) - 1, SAMPLE).round()] if len(rest) > SAMPLE else rest
    return [
        (f"Best {GROUP}", best), (f"Middle {GROUP}", median), (f"Worst {GROUP}", worst),
        (f"{len(spaced)} others, evenly spaced through the ranking", spaced),
    ]  # fmt: skip


def ranked_pictures(
    folder: Path, arms: Sequence[str], captions: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, Any]:
    """Lay out the picture grid: groups of trials, each with the seen picture and one of every arm.

    Parameters
    ----------
    folder : Path
        The run folder.
    arms : sequence of str
        In the page's order.
    captions : dict of str to str
        Stimulus to caption.
    names : dict of str to str
        Concept to name.

    Returns
    -------
    dict
        groups, by (the arm that ranks), link (to the numbers of the trials that are shown).

    Raises
    ------
    NeuroCanvasError
        If a table or a picture is missing or damaged.
    """
    rows = read_csv(folder / "scores" / "trials.csv", "evaluate")
    by = ranking_arm(arms)
    scored = {(int(row["subject"]), int(row["trial"])): row for row in rows if row["arm"] == by}
    lines = check_file(folder / "images" / "manifest.jsonl", "the list of pictures; run the verb generate")
    made = {}
    for row in map(json.loads, filter(None, lines.read_text(encoding="utf-8").splitlines())):
        made[int(row["subject"]), int(row["trial"]), row["arm"]] = row["file"]
    groups, table = [], []
    for title, keys in choose_trials({key: float(row["two_way"]) for key, row in scored.items()}):
        shown = []
        for key in keys:
            stimulus, concept = scored[key]["stimulus"], scored[key]["concept"]
            pictures = [("seen", f"seen/{stimulus}.png"), *((arm, made.get((*key, arm))) for arm in arms)]
            table.append([title, *key, stimulus, concept, scored[key]["two_way"], captions.get(stimulus, "")])
            shown.append({
                "subject": key[0], "trial": key[1], "caption": captions.get(stimulus, ""),
                "concept": names.get(concept, concept),
                "two_way": number(float(scored[key]["two_way"]), "two_way", digits=0),
                "pictures": [(arm, _data_uri(folder / "images" / file) if file else None) for arm, file in pictures],
            })  # fmt: skip
        groups.append({"title": title, "trials": shown})
    columns = ["group", "subject", "trial", "stimulus", "concept", f"two_way of {by}", "caption"]
    return {"groups": groups, "by": by, "link": csv_link("pictures.csv", columns, table)}


def caption_pages(folder: Path) -> dict[str, Any]:
    """Read the first pages of comparison of pictures drawn from captions.

    Parameters
    ----------
    folder : Path
        The run folder.

    Returns
    -------
    dict
        shown (data URIs) and n (how many pages there are).
    """
    paths = sorted((folder / "generated_from_captions").glob("page_*.png"))
    return {"shown": [_data_uri(path, PAGE) for path in paths[:PAGES]], "n": len(paths)}


def _data_uri(path: Path, most: int = REDUCED) -> str:
    """A picture as a data URI; large ones are reduced, to `most` pixels on the longer side."""
    from PIL import Image

    raw = check_file(path, "a picture; run the verb generate").read_bytes()
    try:
        with Image.open(io.BytesIO(raw)) as opened:
            opened.load()
            kind = "png"
            if max(opened.size) > AS_IT_IS:
                stream, kind = io.BytesIO(), "jpeg"
                opened.thumbnail((most, most), Image.Resampling.LANCZOS)
                opened.convert("RGB").save(stream, format="JPEG", quality=88)
                raw = stream.getvalue()
    except (OSError, ValueError) as error:
        raise NeuroCanvasError(f"{path}: damaged, or not a picture; delete it and run the verb generate.") from error
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
