"""Measure how often every control is flagged where its confound is planted, and where there is none.

    python tools/control_power.py [--seeds 200] [--recordings 100] [--keep runs/control_power]

Writes the tables of docs/controls.md. Finished steps are kept, so that a run that was killed continues; steps made by
other sources are done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from pages import write_table
from scipy.stats import beta

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "tiny"))
import control_simulations
from control_simulations import CLEAN, PLANTED, block_columns, folds, random_walk, rapid_columns

from neurocanvas.artifacts import fingerprint, sha256, write_json
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.registry import CONTROLS, control_row, over_subjects

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "neurocanvas"
STEP = 25
OTHER_DESIGNS = ("nothing-answered", "steady-blocks", "strong-drift")
OF_TIME = ("leave-block-out", "block-surrogate", "baseline-window", "distance-to-training", "drift-removal",
           "confusions-in-time")  # fmt: skip
CONCEPTS, FEATURES = 8, 40

# Kind of drift -> the number of its directions, and the trials after which it is forgotten.
DRIFTS = {"independent": (FEATURES, 25.0), "AR(1), 30 trials": (6, 30.0), "AR(1), 200 trials": (6, 200.0),
          "2 shared directions": (2, 60.0)}  # fmt: skip
# Standard deviation of the response to concepts; trial noise has 1, and drift 1.2.
RESPONSES = {"none": 0.0, "weak": 0.25, "strong": 0.8}


def drifting(drift: str, response: str, *, rng: np.random.Generator, rapid: bool = False) -> ControlInputs:
    """Three blocks of eight concepts (or mixed order) with drift, split within blocks: the first 60 % train."""
    columns = rapid_columns(CONCEPTS, 30, 1, rng=rng) if rapid else block_columns(CONCEPTS, 3, 10, rng=rng)
    concept, n = columns["concept"], len(columns["concept"])
    directions, trials = DRIFTS[drift]
    mixing = np.eye(FEATURES) if directions == FEATURES else rng.standard_normal((directions, FEATURES))
    slow = 1.2 * random_walk(n, directions, trials, rng=rng) @ mixing
    slow /= 1.0 if directions == FEATURES else np.sqrt(directions)
    answered = RESPONSES[response] * rng.standard_normal((CONCEPTS, FEATURES))[concept]
    noise = rng.standard_normal((2, n, FEATURES))
    inside = columns["order"] % 10 >= 6
    splits = folds(np.arange(n), concept, 5, rng=rng) if rapid else [(np.flatnonzero(~inside), np.flatnonzero(inside))]
    return ControlInputs(
        slow + answered + noise[0], **columns, splits=splits, baseline=slow + noise[1], permutations=199
    )


SIMULATIONS: dict[str, Any] = {**PLANTED, **CLEAN} | {
    f"{drift}, {response}{', rapid' * rapid}": partial(drifting, drift, response, rapid=rapid)
    for drift in DRIFTS for response in RESPONSES for rapid in (False, True)
}  # fmt: skip


def rows_of(control: str, simulation: str, seeds: range) -> list[dict[str, Any]]:
    """The control's row for each simulated recording."""
    return [
        control_row(SIMULATIONS[simulation](rng=np.random.default_rng([seed, 0])), control, seed=seed)
        for seed in seeds
    ]


def measured(control: str, simulation: str, count: int, keep: Path, inputs: str) -> list[dict[str, Any]]:
    """Rows of all seeds, those that were kept read and the others made step by step, by two processes."""
    steps = [range(start, min(start + STEP, count)) for start in range(0, count, STEP)]
    paths = [keep / f"{control}_{fingerprint(simulation)[:12]}_{step.start}_{step.stop}.json" for step in steps]
    rows = [json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {} for path in paths]
    missing = [number for number, step in enumerate(rows) if step.get("inputs") != inputs]
    made = Parallel(2)(delayed(rows_of)(control, simulation, steps[number]) for number in missing)
    for number, of_step in zip(missing, made, strict=True):
        rows[number] = {"inputs": inputs, "rows": of_step}
        write_json(paths[number], rows[number])
    return [row for step in rows for row in step["rows"]]


def share(flagged: int, n: int) -> str:
    """A share with its Clopper-Pearson interval."""
    low = beta.ppf(0.025, flagged, n - flagged + 1) if flagged else 0.0
    high = beta.ppf(0.975, flagged + 1, n - flagged) if flagged < n else 1.0
    return f"{flagged / n:.3f} ({low:.3f} to {high:.3f})"


def flags(rows: list[dict[str, Any]]) -> list[bool]:
    return [bool(row["fired"]) for row in rows if row["fired"] is not None]


def power_rows(measure: Any, seeds: int) -> Iterator[str]:
    """Power where the confound is planted, and false alarms without it."""
    yield "| control | planted | power | clean | false alarms |\n|---|---|---|---|---|"
    for name, control in CONTROLS.items():
        planted, clean = (sum(flags(measure(name, which, seeds))) for which in (control.planted, control.clean))
        yield f"| {name} | {control.planted} | {share(planted, seeds)} | {control.clean} | {share(clean, seeds)} |"


def other_rows(measure: Any, seeds: int) -> Iterator[str]:
    """Share flagged of those that pass the gate (are testable), and how many these are."""
    yield f"| control | {' | '.join(OTHER_DESIGNS)} |\n|---|{'---|' * len(OTHER_DESIGNS)}"
    for name in CONTROLS:
        cells = []
        for design in OTHER_DESIGNS:
            testable = flags(measure(name, design, seeds))
            cells.append(f"{np.mean(testable):.3f} of {len(testable)}" if testable else "not testable")
        yield f"| {name} | {' | '.join(cells)} |"


def drift_rows(measure: Any, recordings: int) -> Iterator[str]:
    """Share flagged in the worst and the best kind of drift, for one and several subjects, of the testable ones."""
    yield "| control | response | 1 subject | 3 subjects | 5 subjects | worst with 1 |\n|---|---|--:|--:|--:|---|"
    for rapid in (False, True):
        for name in OF_TIME:
            for response in RESPONSES:
                by_kind = {}
                for drift in DRIFTS:
                    rows = measure(name, f"{drift}, {response}{', rapid' * rapid}", recordings)
                    by_kind[drift] = [_flagged(rows, n_subjects) for n_subjects in (1, 3, 5)]
                testable = {drift: cells for drift, cells in by_kind.items() if cells[0] is not None}
                title = f"{name}, rapid" if rapid else name
                if not testable:
                    yield f"| {title} | {response} | not testable | | | |"
                    continue
                worst = (max if rapid else min)(testable, key=lambda drift: testable[drift][0])
                cells = []
                for column in range(3):
                    shares = [of_kind[column] for of_kind in testable.values() if of_kind[column] is not None]
                    cells.append(f"{min(shares):.2f} to {max(shares):.2f}")
                yield f"| {title} | {response} | {' | '.join(cells)} | {worst} |"


def _flagged(rows: list[dict[str, Any]], n_subjects: int) -> float | None:
    """Share of groups of subjects that are flagged."""
    groups = [rows[start : start + n_subjects] for start in range(0, len(rows) - n_subjects + 1, n_subjects)]
    joined = [
        over_subjects({number: [row] for number, row in enumerate(group)}, rng=np.random.default_rng(0))[0]
        for group in groups
    ]
    flagged = flags(joined)
    return float(np.mean(flagged)) if flagged else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--recordings", type=int, default=100)
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "control_power")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    used = [Path(__file__), Path(control_simulations.__file__), SOURCES / "evaluation" / "statistics.py"]
    used += [SOURCES / "audit" / "overlap.py", *sorted((SOURCES / "audit" / "controls").glob("*.py"))]
    measure = partial(measured, keep=options.keep, inputs=fingerprint(*map(sha256, used)))
    write_table("controls.md", "power", power_rows(measure, options.seeds))
    write_table("controls.md", "drift", drift_rows(measure, options.recordings))
    write_table("controls.md", "other designs", other_rows(measure, options.seeds))
    write_table("controls.md", "recipes", (
        f"- **{name}.** {row.asks} Effect: {row.effect}. Source: {row.recipe}." for name, row in CONTROLS.items()
    ))  # fmt: skip
    plants = ((name, (made.__doc__ or "").splitlines()[0]) for name, made in {**PLANTED, **CLEAN}.items())
    write_table("controls.md", "simulations", (f"- **{name}.** {text}" for name, text in plants))


if __name__ == "__main__":
    main()
