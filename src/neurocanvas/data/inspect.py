"""Contents of an EEG-ImageNet data set, and what is unusual about it: the verb `inspect`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import multimode
from typing import Any, cast

import numpy as np

from neurocanvas.artifacts import sidecar_path
from neurocanvas.config import DataSettings
from neurocanvas.data.eeg_imagenet import find_released, fine_groups, open_eeg_imagenet
from neurocanvas.data.images import Images, read_names
from neurocanvas.data.splits import blocked_trials, groups
from neurocanvas.data.store import ARRAY, TABLE
from neurocanvas.data.trials import Trials, unique_names
from neurocanvas.errors import check_option

_SAMPLED = 20
_NAMED = 5


def inspect_dataset(settings: DataSettings) -> dict[str, Any]:
    """Describe what the files hold as JSON-ready values; reads the table and a few trials."""
    check_option("inspect: data set", settings.name, ["eeg-imagenet"])
    root = Path(settings.root)
    trials = open_eeg_imagenet(root, settings)
    images = cast(Images, trials.images)
    some = trials.signal(np.unique(np.linspace(0, len(trials) - 1, _SAMPLED).astype(int)))
    converted = sidecar_path(root / ARRAY).is_file()
    files = [root / ARRAY, root / TABLE] if converted else find_released(root)
    in_file = "µV, converted" if converted else settings.unit.replace("auto", "V")
    missing = [name for name in images.ids if not images.files[name].is_file()]
    return {
        "files": [{"file": path.name, "bytes": path.stat().st_size} for path in files],
        "trials": len(trials),
        "concepts": len(np.unique(trials.column("concept"))),
        "channels": len(trials.spec.ch_names),
        "samples": trials.spec.n_times,
        "sampling rate": trials.spec.sfreq,
        "unit": {"file": in_file, "µV": round(float(np.median(some.std(axis=(1, 2)))), 2)},
        "recordings": _recordings(trials),
        "by concept": _concepts(trials, images, settings.pictures or settings.root),
        "unusual": _unusual(trials),
        "pictures": {"needed": len(images.ids), "missing": len(missing), "first": missing[:_NAMED]},
    }


def describe(report: dict[str, Any]) -> list[tuple[str, list[dict[str, str]]]]:
    """Lay a report out as titled tables for reading; empty tables are left out."""
    pictures, unit = report["pictures"], report["unit"]
    facts = {
        "files": ", ".join(f"{one['file']} ({one['bytes'] / 1e6:,.1f} MB)" for one in report["files"]),
        "trials": f"{report['trials']:,} of {report['concepts']} concepts",
        "signal": f"{report['channels']} channels, {report['samples']} samples at {report['sampling rate']:g} Hz",
        "unit": f"{unit['file']}; typical standard deviation {unit['µV']} µV",
        "pictures": f"{pictures['needed'] - pictures['missing']:,} of {pictures['needed']:,} are there"
        + (f"; missing: {', '.join(pictures['first'])}" if pictures["missing"] else "")
        + (", ..." if pictures["missing"] > _NAMED else ""),
    }
    tables = [
        ("Data set", [{"what": name, "found": value} for name, value in facts.items()]),
        ("Recordings", [_as_text(one) for one in report["recordings"]]),
        ("Unusual", [_as_text(one) for one in report["unusual"]]),
        ("Concepts", [_as_text(one) for one in report["by concept"]]),
    ]
    return [(title, rows) for title, rows in tables if rows]


def _as_text(row: dict[str, Any]) -> dict[str, str]:
    words = {True: "yes", False: "no", None: ""}
    return {
        name: words[value] if value is None or isinstance(value, bool)
        else ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict)
        else str(value)
        for name, value in row.items()
    }  # fmt: skip


def _sessions(trials: Trials) -> list[tuple[str, str, np.ndarray]]:
    """Subject, session and rows of every recording."""
    subject, session = trials.column("subject"), trials.column("session")
    recording = groups(trials, "session")
    found = (np.flatnonzero(recording == number) for number in range(recording.max() + 1))
    return [(str(subject[rows[0]]), str(session[rows[0]]), rows) for rows in found]


def _recordings(trials: Trials) -> list[dict[str, Any]]:
    """Trials, concepts, blocks and design of every subject and session."""
    blocked = blocked_trials(trials)
    return [
        {
            "subject": subject,
            "session": session,
            "trials": len(rows),
            "concepts": len(np.unique(trials.column("concept")[rows])),
            "blocks": len(np.unique(trials.column("block")[rows])),
            "blocked": bool(blocked[rows].any()),
        }
        for subject, session, rows in _sessions(trials)
    ]


def _concepts(trials: Trials, images: Images, root: str) -> list[dict[str, Any]]:
    """Names, granularity, trials and blocks of every concept, in the order of groups and wnids."""
    concept, granularity = trials.column("concept"), trials.column("granularity")
    group_of, chinese = fine_groups(concept, granularity), read_names(root, "ch")
    found = []
    for wnid in np.unique(concept).tolist():
        rows = concept == wnid
        blocks = groups(trials[rows], "block")
        row = {
            "concept": wnid,
            "name": images.names.get(wnid, wnid),  # a label need not be that of the image's folder
            "granularity": f"fine{group_of[wnid]}" if wnid in group_of else "coarse",
            "trials": int(rows.sum()),
            "blocks": int(blocks.max()) + 1,
        }
        found.append({**row, "Chinese": chinese.get(wnid, "")} if chinese else row)
    return sorted(found, key=lambda row: (row["granularity"] == "coarse", row["granularity"], row["concept"]))


def _unusual(trials: Trials) -> list[dict[str, Any]]:
    """Recordings whose number of trials is not the most frequent of their session, and what they lack."""
    found, concept, everything = [], trials.y, _sessions(trials)
    for session in unique_names(trials.column("session")):
        recordings = [(subject, rows) for subject, one, rows in everything if one == session]
        usual = max(multimode(len(rows) for _, rows in recordings))  # the largest where several are as frequent
        counts = {subject: Counter(concept[rows].tolist()) for subject, rows in recordings}
        each = {wnid: max(multimode(one[wnid] for one in counts.values())) for wnid in np.unique(concept).tolist()}
        for subject, rows in recordings:
            if len(rows) != usual:
                lacking = {wnid: n - counts[subject][wnid] for wnid, n in each.items()}
                found.append(
                    {
                        "subject": subject,
                        "session": session,
                        "trials": len(rows),
                        "usual": usual,
                        "lacking": {wnid: n for wnid, n in lacking.items() if n > 0},
                    }
                )
    return found
