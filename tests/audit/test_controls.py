"""Every control fires on its planted confound and stays silent without one; the table and its sentence."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from control_simulations import CLEAN, PLANTED, clean_rapid, run_controls
from scipy.stats import binom

from neurocanvas.audit.controls.base import Measured, Refusal
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.registry import COLUMNS, CONTROLS, PROVIDED, compute_control, overall_verdict
from neurocanvas.errors import NeuroCanvasError

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
        assert isinstance(found, Measured) or seed
        fired += isinstance(found, Measured) and found.fired
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
    assert "Of 200 seeds" in text and "too low" not in text and "too many" not in text


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
        assert rows[name]["verdict"].startswith("cannot be computed: ") and words in rows[name]["verdict"], rows[name]
    assert {need for control in CONTROLS.values() for need in control.needs} == set(PROVIDED)


def test_nothing_is_explained_where_nothing_is_decoded() -> None:
    refused = 0
    for seed in range(10):
        inputs = CLEAN["nothing-answered"](rng=np.random.default_rng(seed))
        found = compute_control("drift-removal", inputs, rng=np.random.default_rng(seed))
        whose = "the control's decoder (shrinkage LDA on single trials) is not above chance"
        refused += isinstance(found, Refusal) and whose in found.reason
    assert refused >= 8


def test_the_sentence_names_the_worst_that_is_firm() -> None:
    rows = run_controls(PLANTED["blocks-come-back"](rng=np.random.default_rng(0)))
    said = overall_verdict(rows)
    assert "of this accuracy is" in said and said[0].isupper() and "leave-block-out" in said
    assert "could not be computed" in said


def test_the_sentence_tells_what_does_not_survive_the_correction() -> None:
    def row(name: str, fired: bool | None, p_holm: float | None, share: float | None = None) -> dict[str, object]:
        return {"control": name, "fired": fired, "p_holm": p_holm, "share": share, "verdict": f"{name} says so"}

    assert overall_verdict([row("a", None, None)]) == "No control could be computed."
    said = overall_verdict([row("a", False, 1.0), row("b", None, None)])
    assert said == "No control fired (1 computed). 1 could not be computed."
    assert "None of them survives" in overall_verdict([row("a", True, 0.2), row("b", False, 1.0)])
    said = overall_verdict([row("a", True, 0.01, 0.3), row("b", True, 0.01, 0.9), row("c", True, 0.06, 1.0)])
    assert said.startswith("B says so. 3 of 3 controls fired (a, b, c). Without Holm's correction only: c.")
    # a null generator that is not beaten has a large p, and counts all the same, but gives the verdict alone only
    null = row("null-generators", True, None)
    assert overall_verdict([null, row("a", False, 1.0)]).startswith("Null-generators says so.")
    assert overall_verdict([row("a", True, 0.06, 1.0), null]) == (
        "2 of 2 controls fired (a, null-generators). Without Holm's correction only: a."
    )
    assert overall_verdict([null, row("a", True, 0.01)]).startswith("A says so.")
    # without a share behind those with one, and last what had to fire
    assert overall_verdict([row("a", True, 0.01), row("b", True, 0.01, 0.0)]).startswith("B says so.")
    had_to = {**row("a", True, 0.01, 1.0), "bound": True}
    assert overall_verdict([had_to, row("b", True, 0.01, 0.3)]).startswith("B says so.")


def test_what_is_decisive_comes_first_whether_the_control_was_computed_or_not() -> None:
    refused = {"control": "a", "fired": None, "p_holm": None, "share": None, "verdict": "no", "decisive": "it is so"}
    computed = {**refused, "fired": False, "p_holm": 1.0}
    other = {**computed, "control": "b", "decisive": ""}
    assert overall_verdict([refused, other]) == "It is so. No control fired (1 computed)."
    assert overall_verdict([computed, other]) == "It is so. No control fired (2 computed)."
    assert overall_verdict([refused]) == "It is so. No control could be computed."


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(NeuroCanvasError, match="control: allowed are leave-block-out"):
        compute_control("no-such-control", clean_rapid(rng=np.random.default_rng(0)), rng=np.random.default_rng(0))
