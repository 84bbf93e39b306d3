"""Measure how often every control fires where its confound is planted, and where there is none.

    python tools/control_power.py [--seeds 200] [--keep runs/control_power]

Prints the tables and writes docs/controls.md. What is done is kept in steps of 50 seeds, so a run that was killed goes
on where it stopped; steps made by other sources are done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import beta, binom

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "tiny"))
import control_simulations
from control_simulations import CLEAN, PLANTED

from neurocanvas.artifacts import fingerprint, sha256, write_json
from neurocanvas.audit.controls.base import SIGNIFICANT, NotApplicable
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.registry import CONTROLS, compute_control

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "controls.md"
SOURCES = ROOT / "src" / "neurocanvas"
STEP = 50
WANTED_POWER = 0.9
ELSEWHERE = ("nothing-answered", "steady-blocks", "strong-drift")
SIMULATIONS: dict[str, Callable[..., ControlInputs]] = {**PLANTED, **CLEAN}

FIRED, SILENT, REFUSED = 1, 0, -1

HEAD = """# Controls: how often they fire, and how often they should not

A control asks whether a score could come from elsewhere than from the brain's response to an image. Each is tried on
simulated features in which its own confound is planted, where it has to fire, and on a rapid design with a response to
concepts, with drift and without any confound, where it has to stay silent. `src/neurocanvas/audit/controls/registry.py`
lists the controls, `tests/tiny/control_simulations.py` holds the simulations. This page is written by

    python tools/control_power.py --seeds {seeds}
"""

TABLE = """
## Power and false alarms

Of {seeds} seeds each; intervals are of 95 % (Clopper-Pearson). A control fires at p <= .05, so that up to {most} false
alarms of {seeds} are within the binomial interval of .05. Most controls ask for more than a difference: to fire, a
correction must cost more than a quarter of the accuracy above chance, or a surrogate keep more than half of it. That is
why their false alarms are rarer than one in twenty here. A control that cannot be computed has not fired.

| control | planted | power | clean | false alarms |
|---|---|---|---|---|
"""

OTHER = """
## Other designs without a confound

Share of {seeds} seeds on which controls fire; "-" where one cannot be computed on any of them (inputs that it needs are
missing, or nothing is above chance, which is then the reason given), and in brackets how often it can be.
`nothing-answered` is the clean rapid design without any response: there is nothing to explain, and whatever is computed
is computed because the accuracy was above chance by accident. `steady-blocks` is a block design with a response to
concepts and without drift; `strong-drift` a rapid design whose drift has twice the size of trial noise.

| control | nothing-answered | steady-blocks | strong-drift |
|---|---|---|---|
"""

SHORT = """
## What falls short

- `drift-removal` fires on every block design with a response, drift or not (`steady-blocks` above): in blocks, a
  concept's own response is as slow as drift. Its verdict says so.
- `leave-block-out` cannot be computed where every concept has one block, as in EEG-ImageNet's first stage; it says so.
- `leave-block-out` and `distance-to-training` can fire in mixed order where drift is strong (`strong-drift` above):
  training trials near in time then do help, though time tells nothing of the concept. The note of the first says so.
- `block-surrogate` shifts by half a block, after which a concept's own response still explains half of the accuracy.
  So drift that explains less than half of it is not called out; `leave-block-out` calls out a quarter.
- `block-surrogate` needs blocks: on EEG of `neurocanvas simulate` with eight blocks, drift alone and the released split
  its share is right (.8 to 1.3 of the accuracy) but its p is .08 to .23 (three seeds); with five folds it fires.
- `baseline-window` in its weak form, the first 40 ms, did not show the drift of band power in those recordings (three
  seeds): 40 ms do not hold enough of a band. Where trials start before the image, give it 200 ms.
- `random-codebook` fires whenever the tested concepts were trained: retrieval among those is classification. Only
  concepts that were held out can keep it silent, and that is what its clean simulation does.
- `confusions-in-time` needs 20 blocks or more of a session (few blocks can be shifted in few ways), and with 40 its
  smallest p is 1/40. Its free-permutation twin would call autocorrelated tables related far too often, which
  `tests/evaluation/test_controls_time.py::test_free_permutation_is_anticonservative_under_autocorrelation` shows.
- `phase-randomisation` is asked with the features of the run, and fires whenever these are band power and enough is
  decoded: they hardly depend on phases. The note then says so, and the verdict leads with others.
- `low-level-match` falls, too, where look-alikes mean more similar things; better descriptors do not change that.
- `null-generators` fires where `eeg` is not *shown* to be better, so a study with few images (in a blocked design:
  few blocks, which are its units there) fires it as well. Its arms `mean`, `random` and `shuffled` know nothing of the
  trial; `retrieval` and `class-name` take the nearest training image or name from the trial's prediction, so they
  are as good as what is decoded, and to be better than they are the drawing must add something.
- All of this is for one subject and 240 to 400 trials; power over several subjects was not measured. There a control
  fires only if it does in more than half of them and Fisher's joined p is at most .05.
"""


def outcome(control: str, simulation: str, seed: int) -> int:
    """Whether a control fires on one simulated recording."""
    inputs = SIMULATIONS[simulation](rng=np.random.default_rng([seed, 0]))
    found = compute_control(control, inputs, rng=np.random.default_rng([seed, 1]))
    return REFUSED if isinstance(found, NotApplicable) else int(found.fired)


def outcomes(control: str, simulation: str, seeds: int, keep: Path, inputs: str) -> list[int]:
    """Outcomes of all seeds, those that are kept read and the others made step by step."""
    found: list[int] = []
    for start in range(0, seeds, STEP):
        stop = min(start + STEP, seeds)
        path = keep / f"{control}_{simulation}_{start}_{stop}.json"
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["inputs"] == inputs:
                found += kept["outcomes"]
                continue
        part = [outcome(control, simulation, seed) for seed in range(start, stop)]
        write_json(path, {"inputs": inputs, "outcomes": part})
        found += part
    return found


def interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a share."""
    low = beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def share(found: list[int]) -> str:
    """Share that fired, with its interval."""
    hits = found.count(FIRED)
    low, high = interval(hits, len(found))
    return f"{hits / len(found):.3f} ({low:.3f} to {high:.3f})"


def power_rows(seeds: int, keep: Path, inputs: str, most: int) -> Iterator[str]:
    """Rows of the first table; the last word says where something falls short."""
    for name, control in CONTROLS.items():
        planted, clean = (
            outcomes(name, simulation, seeds, keep, inputs) for simulation in (control.planted, control.clean)
        )
        short = " **too low**" if planted.count(FIRED) < WANTED_POWER * seeds else ""
        many = " **too many**" if clean.count(FIRED) > most else ""
        yield f"| {name} | {control.planted} | {share(planted)}{short} | {control.clean} | {share(clean)}{many} |"


def other_rows(seeds: int, keep: Path, inputs: str) -> Iterator[str]:
    """Rows of the second table."""
    for name in CONTROLS:
        cells = []
        for simulation in ELSEWHERE:
            found = outcomes(name, simulation, seeds, keep, inputs)
            computed = len(found) - found.count(REFUSED)
            counted = f" ({computed} computed)" if computed < len(found) else ""
            cells.append(f"{found.count(FIRED) / len(found):.3f}{counted}" if computed else "-")
        yield f"| {name} | {' | '.join(cells)} |"


def recipes() -> Iterator[str]:
    """What every control asks, measures and says."""
    yield "\n## Recipes\n"
    for name, control in CONTROLS.items():
        yield f"- **{name}.** {control.asks} Effect: {control.effect}. Source: {control.recipe}."


def planted_words() -> Iterator[str]:
    """What every simulation plants: the first sentence of its docstring."""
    yield "\n## Simulations\n"
    for name, simulation in SIMULATIONS.items():
        yield f"- **{name}.** {(simulation.__doc__ or '').splitlines()[0]}"


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "control_power")
    asked = parser.parse_args()
    asked.keep.mkdir(parents=True, exist_ok=True)
    inputs = fingerprint(*(sha256(path) for path in used_sources()))
    most = int(binom.ppf(0.975, asked.seeds, SIGNIFICANT))
    parts = [
        HEAD.format(seeds=asked.seeds), TABLE.format(seeds=asked.seeds, most=most).rstrip("\n"),
        *power_rows(asked.seeds, asked.keep, inputs, most),
        OTHER.format(seeds=asked.seeds).rstrip("\n"), *other_rows(asked.seeds, asked.keep, inputs),
        SHORT.rstrip("\n"), *recipes(), *planted_words(),
    ]  # fmt: skip
    text = "\n".join(parts) + "\n"
    print(text)
    PAGE.write_text(text, encoding="utf-8")


def used_sources() -> list[Path]:
    """The sources that outcomes depend on."""
    statistics = SOURCES / "evaluation" / "statistics.py"
    return [Path(control_simulations.__file__), statistics, *sorted((SOURCES / "audit" / "controls").glob("*.py"))]


if __name__ == "__main__":
    main()
