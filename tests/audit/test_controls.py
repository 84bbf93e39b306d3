"""Every control fires on its planted confound and stays silent without one; the table and its sentence."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from control_simulations import CLEAN, PLANTED, clean_rapid, run_controls
from scipy.stats import binom

from neurocanvas.audit.controls.base import ControlResult, NotApplicable
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.registry import COLUMNS, CONTROLS, compute_control, overall
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.findings import CODES, finding, listed
from neurocanvas.report.text import control_sentence, controls_verdict

PAGE = Path(__file__).parents[2] / "docs" / "controls.md"
FEW_SEEDS, SEEDS = 20, 200
FEWEST_FIRED = int(binom.ppf(0.001, FEW_SEEDS, 0.9))
MOST_ALARMS = int(binom.ppf(0.999, FEW_SEEDS, 0.05))


def times_fired(name: str, simulation: str, seeds: range) -> int:
    """On how many simulated recordings a control fires; it must be computable on the first."""
    fired = 0
    for seed in seeds:
        inputs = {**PLANTED, **CLEAN}[simulation](rng=np.random.default_rng([seed, 0]))
        found = compute_control(name, inputs, rng=np.random.default_rng([seed, 1]))
        assert isinstance(found, ControlResult) or seed
        fired += isinstance(found, ControlResult) and found.fired
    return fired


@pytest.mark.parametrize("name", CONTROLS)
def test_it_fires_where_its_confound_is_planted(name: str) -> None:
    assert times_fired(name, CONTROLS[name].planted, range(FEW_SEEDS)) >= FEWEST_FIRED


@pytest.mark.parametrize("name", CONTROLS)
def test_it_is_silent_without_a_confound(name: str) -> None:
    assert times_fired(name, CONTROLS[name].clean, range(FEW_SEEDS)) <= MOST_ALARMS


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_power_and_false_alarms_over_200_seeds(name: str) -> None:
    control, seeds = CONTROLS[name], range(SEEDS)
    assert times_fired(name, control.planted, seeds) >= 0.9 * SEEDS
    assert times_fired(name, control.clean, seeds) <= binom.ppf(0.975, SEEDS, 0.05)


def test_the_page_shows_every_control_and_that_none_falls_short() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z-]+) \| ([a-z-]+) \| (\d\.\d+) .*\| ([a-z-]+) \| (\d\.\d+) .*\|$", text, re.MULTILINE)
    shown = {name: (planted, clean) for name, planted, _, clean, _ in rows}
    assert shown == {name: (control.planted, control.clean) for name, control in CONTROLS.items()}
    assert all(float(power) >= 0.9 for _, _, power, _, _ in rows)
    assert all(float(alarms) <= binom.ppf(0.975, SEEDS, 0.05) / SEEDS for *_, alarms in rows)
    assert "200 seeds each" in text and "too low" not in text and "too many" not in text


def test_rows_of_the_registry_hold_together() -> None:
    names = {field.name for field in fields(ControlInputs)}
    for name, control in CONTROLS.items():
        assert control.planted in PLANTED and control.clean in CLEAN, name
        assert set(control.needs) <= names, name
        assert control.asks.endswith("?") and not control.fires.endswith("."), name
        assert control.fires.format(some="most") and "{some}" not in control.silent, name
    silent = CONTROLS["phase-randomisation"].silent
    assert "not shown" in silent and "needs" not in silent, "silence is no proof that timing counts"
    assert {control.planted for control in CONTROLS.values()} == set(PLANTED)


def test_the_table_has_a_row_per_control_and_is_json() -> None:
    rows = run_controls(clean_rapid(rng=np.random.default_rng(0)))
    assert [row["control"] for row in rows] == list(CONTROLS)
    assert all(set(COLUMNS) <= set(row) for row in rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    for row in rows:
        # its own clean simulation holds concepts out; here they are trained
        assert not row["fired"] or row["p_holm"] > 0.05 or row["control"] == "random-codebook", row
        assert row["low"] is None or row["low"] <= row["effect"] <= row["high"], row


def test_a_controls_numbers_depend_on_no_other_control() -> None:
    inputs = PLANTED["drift-in-blocks"](rng=np.random.default_rng(1))
    alone = run_controls(inputs, ["drift-removal"], seed=3)[0]
    beside = next(row for row in run_controls(inputs, seed=3) if row["control"] == "drift-removal")
    assert alone["p_holm"] == alone["p"] and beside["p_holm"] > beside["p"]
    assert alone == {**beside, "p_holm": alone["p"]}


def test_what_cannot_be_computed_says_why_and_has_no_numbers() -> None:
    none = dict.fromkeys(("baseline", "signal", "arms", "embeddings", "low_level"))
    inputs = replace(clean_rapid(rng=np.random.default_rng(2)), **none)
    rows = {row["control"]: row for row in run_controls(inputs)}
    provided = {
        "baseline-window": "the data set", "phase-randomisation": "the data set",
        "random-codebook": "`neurocanvas embed`", "low-level-match": "`neurocanvas pictures`",
        "null-generators": "`neurocanvas generate --arm eeg,shuffled,mean,random`",
    }  # fmt: skip
    for name, words in provided.items():
        assert rows[name]["fired"] is None and rows[name]["p"] is None and rows[name]["effect"] is None
        said = control_sentence(rows[name])
        assert said.startswith("not testable: ") and words in said, rows[name]
    needs = {need for control in CONTROLS.values() for need in control.needs}
    assert {f"no-{need.replace('_', '-')}" for need in needs} <= CODES.keys()


def test_nothing_is_explained_where_nothing_is_decoded() -> None:
    refused = 0
    for seed in range(10):
        inputs = CLEAN["nothing-answered"](rng=np.random.default_rng(seed))
        found = compute_control("drift-removal", inputs, rng=np.random.default_rng(seed))
        refused += isinstance(found, NotApplicable) and found.reason.code == "nothing-decoded"
    assert refused >= 8


def verdict_of(rows: list[dict]) -> str:
    """What the rows of controls come to."""
    return controls_verdict({"rows": rows, "overall": listed([overall(rows)])[0]})


def test_the_verdict_names_the_worst_that_is_firm() -> None:
    rows = run_controls(PLANTED["blocks-come-back"](rng=np.random.default_rng(0)))
    said = verdict_of(rows)
    assert "of this accuracy is" in said and said[0].isupper() and "leave-block-out" in said
    assert "not testable" in said


A, B, C, NULL = "leave-block-out", "block-surrogate", "noise-eeg", "null-generators"


def outcome(name: str, fired: bool | None, p_holm: float | None, share: float | None = None, **changed: object) -> dict:
    """A row as far as the verdict reads it."""
    row = {"control": name, "fired": fired, "p_holm": p_holm, "share": share, "bound": False, "reasons": []}
    return {**row, "subjects": None, "notes": [], **changed}


def test_the_verdict_tells_what_does_not_survive_the_correction() -> None:
    def numbers(*rows: dict) -> tuple:
        found = overall(rows).numbers
        return found["fired"], found["loose"], found.get("worst")

    assert verdict_of([outcome(A, None, None)]) == "No control could be computed."
    said = verdict_of([outcome(A, False, 1.0), outcome(B, None, None)])
    assert said == "No control is flagged (1 computed). 1 are not testable."
    assert "None of them survives" in verdict_of([outcome(A, True, 0.2), outcome(B, False, 1.0)])
    rows = [outcome(A, True, 0.01, 0.3), outcome(B, True, 0.01, 0.9), outcome(C, True, 0.06, 1.0)]
    assert numbers(*rows) == (f"{A}, {B}, {C}", C, B)
    assert verdict_of(rows).startswith("Most of this accuracy is the recording block")
    assert verdict_of(rows).endswith(f"Without Holm's correction only: {C}.")
    # a null generator that is not beaten has a large p, and counts all the same, but gives the verdict alone only
    null = outcome(NULL, True, None)
    assert numbers(null, outcome(A, False, 1.0))[2] == NULL
    assert numbers(outcome(A, True, 0.06, 1.0), null) == (f"{A}, {NULL}", A, None)
    assert numbers(null, outcome(A, True, 0.01))[2] == A
    # without a share behind those with one, and last what had to fire
    assert numbers(outcome(A, True, 0.01), outcome(B, True, 0.01, 0.0))[2] == B
    assert numbers(outcome(A, True, 0.01, 1.0, bound=True), outcome(B, True, 0.01, 0.3))[2] == B


def test_a_serious_reason_comes_first_whether_the_control_was_computed_or_not() -> None:
    reasons = [{**listed([finding("one-block-only")])[0], "subjects": 1}]
    refused, computed = outcome(A, None, None, reasons=reasons), outcome(A, False, 1.0, reasons=reasons)
    other = outcome(B, False, 1.0)
    for rows, n in (([refused, other], 1), ([computed, other], 2)):
        assert verdict_of(rows).startswith("Every concept has one block only")
        assert verdict_of(rows).endswith(f". No control is flagged ({n} computed).")
    assert verdict_of([refused]).endswith(". No control could be computed.")


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(NeuroCanvasError, match="control: allowed are leave-block-out"):
        compute_control("no-such-control", clean_rapid(rng=np.random.default_rng(0)), rng=np.random.default_rng(0))
