"""Contents of a data set, and what is unusual about it: the verb `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.artifacts import sidecar_path
from neurocanvas.config import DataSettings
from neurocanvas.data.eeg_imagenet import find_released, fine_groups
from neurocanvas.data.images import Images, read_names
from neurocanvas.data.splits import blocked_trials
from neurocanvas.data.store import ARRAY, TABLE
from neurocanvas.data.trials import Trials, natural_key
from neurocanvas.findings import listed

_SAMPLED = 20
_NAMED = 5


# Two trials hold the same signal if their sample-to-sample changes correlate by more than this.
SAME_SIGNAL = 0.999
_SKETCHED, _AT_ONCE = 256, 64


def signal_groups(trials: Trials) -> np.ndarray:
    """Number of every trial's signal, (n_trials,): trials with equal signals, or nearly equal ones, share it."""
    # Changes at a few random places find candidates, all changes decide: the place of a trial, or its offset and gain,
    # do not matter.
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    def changes(rows: np.ndarray) -> np.ndarray:
        flat = np.diff(trials.signal(rows), axis=2).reshape(len(rows), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12))

    n, width = len(trials), len(trials.spec.ch_names) * (trials.spec.n_times - 1)
    places = np.random.default_rng(0).choice(width, min(_SKETCHED, width), replace=False)
    sketch = np.empty((n, len(places)), np.float32)
    for rows in np.array_split(np.arange(n), max(1, -(-n // _AT_ONCE))):
        sketch[rows] = changes(rows)[:, places]
    sketch /= np.maximum(np.linalg.norm(sketch, axis=1, keepdims=True), 1e-12)
    pairs = []
    for rows in np.array_split(np.arange(n), max(1, -(-n // 1024))):
        first, second = np.nonzero(sketch[rows] @ sketch.T > 0.98)
        candidates = np.stack([rows[first], second])[:, rows[first] < second]
        known: dict[int, np.ndarray] = {}
        for one, other in candidates.T.tolist():
            if one not in known:
                known = {one: changes(np.array([one]))[0]}
            if float(known[one] @ changes(np.array([other]))[0]) > SAME_SIGNAL:
                pairs.append((one, other))
    linked = np.array(pairs, np.int32).reshape(-1, 2)
    links = csr_matrix((np.ones(len(linked)), tuple(linked.T)), shape=(n, n))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def inspect_dataset(settings: DataSettings) -> dict[str, Any]:
    """Describe what the files hold as JSON-ready values."""
    from neurocanvas.data import open_trials

    root, trials = Path(settings.root), open_trials(settings)
    images = trials.images or Images((), {}, {}, {})
    some = trials.signal(np.unique(np.linspace(0, len(trials) - 1, _SAMPLED).astype(int)))
    converted = settings.name == "eeg-imagenet" and sidecar_path(root / ARRAY).is_file()
    files = [root / ARRAY, root / TABLE] if converted else find_released(root)
    in_file = "µV, converted" if converted else settings.unit.replace("auto", "V" if files else "as the files say")
    groups = signal_groups(trials)
    sizes = np.bincount(groups)
    missing = [name for name in images.ids if name in images.files and not images.files[name].is_file()]
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
        "findings": listed(trials.findings),
        "repeated signals": {"trials": int(sizes[sizes > 1].sum()), "signals": int((sizes > 1).sum())},
        "pictures": {"needed": len(images.ids), "missing": len(missing), "first": missing[:_NAMED]},
    }


def describe(report: dict[str, Any]) -> list[tuple[str, list[dict[str, str]]]]:
    """Lay a report out as titled tables for reading; empty tables are left out."""
    pictures, unit = report["pictures"], report["unit"]
    facts = {
        **({"files": ", ".join(f"{file['file']} ({file['bytes'] / 1e6:,.1f} MB)" for file in report["files"])}
           if report["files"] else {}),
        "trials": f"{report['trials']:,} of {report['concepts']} concepts",
        "signal": f"{report['channels']} channels, {report['samples']} samples at {report['sampling rate']:g} Hz",
        "unit": f"{unit['file']}; typical standard deviation {unit['µV']} µV",
        "pictures": f"{pictures['needed'] - pictures['missing']:,} of {pictures['needed']:,} are there"
        + (f"; missing: {', '.join(pictures['first'])}" if pictures["missing"] else "")
        + (", ..." if pictures["missing"] > _NAMED else "") if pictures["needed"] else "none: conditions alone",
    }
    repeated = report["repeated signals"]
    if repeated["trials"]:
        facts["repeated signals"] = (
            f"{repeated['trials']:,} trials hold only {repeated['signals']:,} different signals: windows or copies of "
            "one trial, which must not be on both sides of a split"
        )
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
        else ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict)
        else str(value)
        for name, value in row.items()
    }  # fmt: skip


def _recordings(trials: Trials) -> list[dict[str, Any]]:
    """Trials, concepts, blocks and design of every subject and session."""
    metadata = trials.metadata.assign(blocked=blocked_trials(trials))
    metadata = metadata if "session" in metadata else metadata.assign(session="0")
    table = metadata.groupby(["subject", "session"])
    rows = [
        {
            "subject": str(subject),
            "session": str(session),
            "trials": len(recording),
            "concepts": recording["concept"].nunique(),
            "blocks": recording["block"].nunique(),
            "blocked": bool(recording["blocked"].any()),
        }
        for (subject, session), recording in table
    ]
    return sorted(rows, key=lambda row: (natural_key(row["subject"]), natural_key(row["session"])))


def _concepts(trials: Trials, images: Images, root: str) -> list[dict[str, Any]]:
    """Names, granularity, trials and blocks of every concept, in the order of groups and wnids."""
    group_of, chinese, rows = {}, read_names(root, "ch"), []
    within = [name for name in ("subject", "session", "block") if name in trials.metadata]
    if grouped := "granularity" in trials.metadata:
        group_of = fine_groups(trials.y, trials.column("granularity"))
    for wnid, table in trials.metadata.groupby("concept"):
        row = {
            "concept": wnid,
            "name": images.names.get(wnid, wnid),  # a label need not be that of the image's folder
            **({"granularity": f"fine{group_of[wnid]}" if wnid in group_of else "coarse"} if grouped else {}),
            "trials": len(table),
            "blocks": len(table[within].drop_duplicates()),
        }
        rows.append({**row, "Chinese": chinese.get(wnid, "")} if chinese else row)
    return sorted(rows, key=lambda row: ((of := row.get("granularity", "")) == "coarse", of, row["concept"]))


def _unusual(trials: Trials) -> list[dict[str, Any]]:
    """Recordings whose number of trials is not the most frequent of their session, and what they lack."""
    rows = []
    metadata = trials.metadata if "session" in trials.metadata else trials.metadata.assign(session="0")
    for session, table in sorted(metadata.groupby("session"), key=lambda group: natural_key(group[0])):
        counts = table.groupby(["subject", "concept"]).size().unstack(fill_value=0)  # of trials
        n_trials = counts.sum(axis=1)
        usual, usual_counts = n_trials.mode().max(), counts.mode().max()  # the largest where several are as frequent
        for subject in sorted(counts.index[n_trials != usual], key=natural_key):
            lacking = usual_counts - counts.loc[subject]
            rows.append({
                "subject": subject, "session": session, "trials": int(n_trials[subject]), "usual": int(usual),
                "lacking": {wnid: int(n) for wnid, n in lacking.items() if n > 0},
            })  # fmt: skip
    return rows
