"""Controls of several subjects in one table."""

import numpy as np
import pytest
from scipy.stats import combine_pvalues

from neurocanvas.audit.controls.registry import CONTROLS, over_subjects, overall
from neurocanvas.findings import finding, listed
from neurocanvas.report.text import control_sentence, controls_verdict

BLOCK = CONTROLS["leave-block-out"]


def row(fired, effect=0.1, p=0.01, control="leave-block-out", share=0.6, **changed):
    return {
        "control": control, "effect": effect, "low": 0.0, "high": 1.0, "p": p, "p_holm": p, "fired": fired,
        "share": None if fired is None else share, "measures": "", "notes": [], "reasons": [], "subjects": None,
        "bound": False, "details": {}, **changed,
    }  # fmt: skip


def join(*rows):
    found = over_subjects({n: [one] for n, one in enumerate(rows)}, rng=np.random.default_rng(0))
    assert len(found) == 1
    return found[0]


def test_one_subject_is_left_as_it_is_and_several_are_averaged_and_counted():
    assert join(row(True)) == row(True)
    given = row(True, 0.4, 0.01, share=0.7), row(True, 0.2, 0.02, share=0.3), row(False, 0.0, 0.5, share=0.1)
    found = join(*given, row(None, None, None))
    assert found["fired"] is True and np.isclose(found["effect"], 0.2) and found["low"] <= 0.2 <= found["high"]
    assert np.isclose(found["p"], combine_pvalues([0.01, 0.02, 0.5]).pvalue) and np.isclose(found["p_holm"], found["p"])
    # the words are those of the joined share, not of the first subject's
    assert found["share"] == 0.3
    said = control_sentence(found)
    assert said.startswith(f"{BLOCK.fires.format(some='part')} (accuracy lost 0.200, 95 % interval -0.297 to 0.697)")
    assert "flagged in 2 of 3 subjects (more than half of them" in said
    assert join(row(None, None, None), row(None, None, None))["fired"] is None


def test_more_than_half_must_be_joined_by_a_small_p():
    found = join(row(True, p=0.001), row(False, p=0.4))
    assert found["p"] <= 0.05 and not found["fired"]
    said = control_sentence(found)
    assert said.startswith(f"{BLOCK.silent} (accuracy lost 0.100") and "flagged in 1 of 2 subjects" in said
    weak = (row(True, p=0.05), row(True, p=0.05), row(True, p=0.9), row(False, p=1.0), row(False, p=1.0))
    assert not join(*weak)["fired"]
    assert join(row(True, p=0.01), row(True, p=0.01), row(False, p=1.0))["fired"]


def test_two_clean_subjects_rarely_fire_a_control():
    rng, alarms = np.random.default_rng(0), 0
    for pair in rng.random((2000, 2)):
        alarms += join(*(row(bool(p <= 0.05), p=float(p)) for p in pair))["fired"]
    assert alarms / 2000 <= 0.05


def test_pictures_are_better_than_null_generators_only_where_that_is_shown():
    def null(*p_values):
        return join(*(row(p > 0.05, p=p, control="null-generators", share=None) for p in p_values))

    assert not null(0.001, 0.01, 0.3)["fired"] and null(0.001, 0.01, 0.3)["p_holm"] is None
    assert null(0.001, 0.2, 0.3)["fired"], "more than half are not shown to be better"
    assert null(0.04, 0.9)["fired"], "neither are both together"


def test_a_note_that_all_subjects_share_stays():
    first, second = listed([finding("no-repeats")]), listed([finding("whole-runs")])
    assert join(row(False, notes=first), row(False, notes=first))["notes"] == first
    assert join(row(False, notes=first), row(False, notes=second))["notes"] == []


@pytest.mark.parametrize("computed", [0, 1])
def test_a_serious_reason_in_some_subjects_is_not_lost_in_the_others(computed):
    alone, other = (
        row(None, None, None, reasons=[{**listed([finding(code)])[0], "subjects": 1}])
        for code in ("one-block-only", "no-errors")
    )
    found = join(*[row(False, p=0.5)] * computed, alone, alone, other)
    assert [one["code"] for one in found["reasons"]] == ["one-block-only"]
    said = f"in 2 of {3 + computed} subjects every concept has one block only"
    assert said in control_sentence(found)
    assert controls_verdict({"rows": [found], "overall": listed([overall([found])])[0]}).startswith(said.capitalize())
    assert control_sentence(join(alone, alone)).startswith("not testable: every concept has one block only")
