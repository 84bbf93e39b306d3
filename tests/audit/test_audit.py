"""The audit on arrays: what parts share, exact thresholds, errors among neighbours, and every verdict both ways."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurocanvas.audit.overlap import (
    AuditInput,
    Predictions,
    _needed,
    answer_scores,
    audit_cases,
    block_answers,
    group_errors,
    neighbour_errors,
    overlaps,
)
from neurocanvas.audit.verdict import SCOPE, SELECTIONS, conclude
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.benchmark import chance_p
from neurocanvas.evaluation.statistics import permutation_p
from neurocanvas.findings import CODES, finding
from neurocanvas.report.text import sentence, verdict

N_CONCEPTS, OF_EACH, N_TRAIN = 6, 20, 12


def table(design, rng):
    """Columns of one subject's trials, the first 12 of every concept's 20 train and the others test."""
    n = N_CONCEPTS * OF_EACH
    concept = np.arange(n) // OF_EACH if design == "block" else rng.permutation(np.arange(n) % N_CONCEPTS)
    place = np.array([(concept[:row] == concept[row]).sum() for row in range(n)])
    test = place >= N_TRAIN
    columns = {
        "subject": np.zeros(n, int), "session": np.zeros(n, int), "concept": concept, "stimulus": np.arange(n),
        "block": concept if design == "block" else np.full(n, -1), "order": np.arange(n),
    }  # fmt: skip
    return columns, {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


def case(design="mixed", *, right=0.5, seed=0, **changes):
    """A case whose one model is right in a share of the test trials."""
    rng = np.random.default_rng(seed)
    columns, split = table("block" if design == "block" else "rapid", rng)
    columns |= changes.pop("columns", {})
    columns = {name: codes for name, codes in columns.items() if codes is not None}
    test, concept = split["test"], columns["concept"]
    named = np.where(rng.random(len(test)) < right, concept[test], rng.integers(N_CONCEPTS, size=len(test)))
    units = columns["block"][test] if design == "block" else test
    answers = Predictions("mlp", test, named, np.zeros(len(test), int), units, **changes.pop("answers", {}))
    blocked = None if design == "unknown" else np.full(len(concept), design == "block")
    made = {"splits": [split], "answers": [answers], **changes}
    return AuditInput("released, all", columns, blocked=blocked, **made)


def found(one):
    return audit_cases("here", [one], rng=np.random.default_rng(0))["cases"][0]


def clean(**changes):
    """The audit of a case in which nothing is found, but for the changes."""
    return found(case(answers={"selection": "validation"}, **changes))


def test_overlap_counts_values_and_trials_within_each_split():
    columns = {"run": np.array([0, 0, 1, 1, 2, -1]), "picture": np.array([7, 8, 7, 9, 9, 9])}
    folds = [
        {"train": np.array([0, 2]), "test": np.array([1, 3, 4, 5])},
        {"train": np.array([4]), "test": np.array([0]), "gallery": np.array([3, 2])},
    ]
    rows = {(row["column"], row["pair"]): row for row in overlaps(columns, folds)}
    run, gallery = rows["run", "train/test"], rows["picture", "train/gallery"]
    assert [run[key] for key in ("shared", "values", "trials", "of")] == [2, 3, 2, 4]  # codes below 0 do not count
    assert [rows["picture", "train/test"][key] for key in ("shared", "values", "trials", "of")] == [0, 3, 0, 5]
    assert (gallery["shared"], gallery["values"]) == (1, 2)
    assert ("run", "train/gallery") not in rows and ("run", "val/test") not in rows


def test_p_and_threshold_agree_with_one_another_and_with_the_benchmark():
    rng = np.random.default_rng(1)
    one = case(right=0.15)
    [answers], concept = one.answers, one.columns["concept"]
    [scored] = answer_scores([answers], concept, one.columns["subject"], rng=rng)
    true = concept[answers.rows]
    p, _ = chance_p(answers.predicted[None], true, answers.strata, answers.units, count=1999, rng=rng)
    assert scored["p"] == pytest.approx(p[0], abs=0.03) and scored["chance"] == pytest.approx(1 / 6, abs=0.01)
    assert scored["correct"] == (answers.predicted == true).sum() and scored["majority"] == pytest.approx(1 / 6)
    assert abs(scored["needed"] - scored["needed_binomial"]) <= 1


def test_so_many_right_answers_are_needed_and_one_fewer_are_not_enough():
    for seed, chance in enumerate((1 / 6, 1 / 6, 1 / 40)):
        hits = np.random.default_rng(seed).binomial(48, chance, 1999)
        needed = _needed(hits, 48)
        assert permutation_p(needed, hits) < 0.05 <= permutation_p(needed - 1, hits)
    assert _needed(np.full(99, 48), 48) is None and _needed(np.zeros(10), 48) is None


def test_models_asked_the_same_share_permutations_and_others_do_not():
    first, second = case(seed=0).answers[0], case(seed=3).answers[0]
    concept = case(seed=0).columns["concept"]
    alone, twice, both = (
        answer_scores(answers, concept, np.zeros(len(concept), int), rng=np.random.default_rng(5))
        for answers in ([first], [first, first], [first, second])
    )
    assert twice[0]["p"] == alone[0]["p"] == twice[1]["p"] and len(both) == 2
    assert twice[0]["p_holm"] == pytest.approx(2 * alone[0]["p"])


def test_few_blocks_say_that_p_cannot_be_small():
    one = case("block")
    some = one.answers[0]
    few = np.isin(one.columns["block"][some.rows], (0, 1))
    kept = Predictions("mlp", some.rows[few], some.predicted[few], some.strata[few], some.units[few])
    said = found(replace(one, answers=[kept]))
    assert said["results"][0]["least_p"] == pytest.approx(0.5) and said["results"][0]["needed"] is None
    assert any("with 2 units, p is at least .500" in sentence(one) for one in said["cannot"])


def test_the_block_alone_names_the_concept_where_blocks_hold_one():
    one = case("block")
    rows, named, inside = block_answers(one.columns, one.splits)
    assert inside == 1 and (named == one.columns["concept"][rows]).all()
    columns = {"block": np.array([5, 5, 5, 6, 6, 7, -1]), "concept": np.array([1, 1, 0, 2, 2, 3, 1])}
    split = {"train": np.array([0, 2]), "val": np.array([1, 3]), "test": np.array([2, 4, 5, 6])}
    rows, named, inside = block_answers(columns, [split])
    assert rows.tolist() == [2, 4, 5, 6] and named.tolist() == [1, 2, -1, -1] and inside == 0.5


@pytest.mark.parametrize(("planted", "least", "most"), [(0.2, 19, 20), (0.0, 0, 5)])
def test_errors_next_door_are_found_where_they_are_planted_only(planted, least, most):
    """80 blocks; of the wrong answers a share names the concept of the block before or after."""
    alarms, block = 0, np.repeat(np.arange(80), 10)
    for rng in map(np.random.default_rng, range(20)):
        beside = np.clip(block + rng.choice([-1, 1], len(block)), 0, 79)
        wrong = np.where(rng.random(len(block)) < planted, beside, rng.integers(80, size=len(block)))
        named = np.where(rng.random(len(block)) < 0.5, block, wrong)
        near = neighbour_errors(block, block, np.zeros_like(block), named, rng=rng)
        alarms += near["p"] < 0.05
        assert near["errors"] == np.sum(named != block) and (not planted or near["share"] > 4 * near["expected"])
    assert least <= alarms <= most


def test_errors_within_groups_are_counted_beside_what_is_expected():
    rng, concept = np.random.default_rng(0), np.repeat(np.arange(16), 20)
    group = np.arange(16) // 4
    within = concept // 4 * 4 + rng.integers(4, size=len(concept))
    alike, anywhere = (group_errors(concept, named, group, rng=rng) for named in (within, rng.permutation(concept)))
    assert alike["share"] == 1 and alike["expected"] == pytest.approx(3 / 15, abs=0.02) and alike["p"] < 0.01
    assert anywhere["share"] == pytest.approx(3 / 15, abs=0.06) and anywhere["p"] > 0.05
    assert group_errors(concept, within, np.full(16, -1), rng=rng) is None, "groups are unknown"


def test_errors_next_door_need_blocks_an_order_and_errors():
    assert found(case())["results"][0]["neighbours"] is None
    assert found(case("block", columns={"order": None}))["results"][0]["neighbours"] is None
    assert found(case("block", right=1.0))["results"][0]["neighbours"] is None
    assert found(case("block", right=0.0))["results"][0]["neighbours"]["errors"] > 10


def pictures(value=0.8, low=0.7, p=0.001, floor=0.5, **changes):
    """A mixed case of generated images, scored as `evaluate` does; a floor of None was not drawn."""
    beside = None if floor is None else {"value": floor, "low": floor - 0.05, "high": floor + 0.05}
    score = {
        "model": "mlp_sd", "metric": "two-way", "n": 48, "value": value, "chance": 0.5, "low": low, "high": 0.9, "p": p,
        "p_holm": p, "place": 0.6, "floor": beside, "p_floor": 0.01, "least_p": None, "n_units": None,
        "selection": "validation", "transductive": [],
    }  # fmt: skip
    return replace(case(), answers=[], scores=[{**score, **changes}])


STALE = {"file": "weights", "more": 1, "stage": "train"}
VERDICTS = {
    "other-split": (case("block", other_split=STALE), "weights and 1 more were trained on another split"),
    "block-confounded": (case("block"), "recording block: concepts were presented in blocks, 100 %"),
    "same-signal": (case(columns={"signal": np.arange(120) % 30}), "48 of 48 test trials hold the same signal"),
    "block-unknown": (
        case("block", splits=[{"test": case("block").splits[0]["test"]}]),
        "presented in blocks, and the blocks of the training trials are unknown; add the training trials",
    ),
    "no-answers": (replace(case(), answers=[]), "predictions of test trials and scores"),
    "chance": (case(right=0.0), "No result is significantly above chance"),
    "no-floor": (pictures(floor=None), "without the shuffled arm there is no noise floor"),
    "not-above-floor": (pictures(p_floor=0.2), "above that of shuffled EEG (50 %, paired p 0.2)"),
    "unchecked": (case("unknown"), "without the column order or block, block effects cannot"),
    "selection-on-test": (case(answers={"selection": "test"}), "too high by an unknown amount"),
    "transductive": (case(answers={"selection": "validation", "transductive": ("CSLS",)}), "single trials: CSLS"),
    "known-pictures": (
        case(answers={"selection": "validation"}, columns={"stimulus": np.arange(120) % 40}),
        "40 of 40 test images",
    ),
    "unchecked-pictures": (
        case(answers={"selection": "validation"}, columns={"stimulus": None}),
        "without the column stimulus, image or sha256, repeated images cannot be ruled out",
    ),
    "same-order": (
        case(answers={"selection": "validation"}, findings=(finding("order-repeats"),)), "Drift since the start",
    ),
    "selection-unknown": (case(), "The accuracy may be inflated by model selection"),
    "clean": (case(answers={"selection": "validation"}), "The split and the selection do not explain the accuracy"),
}  # fmt: skip


@pytest.mark.parametrize("code", VERDICTS)
def test_every_verdict_has_a_case(code):
    one, says = VERDICTS[code]
    audited = audit_cases("here", [one], rng=np.random.default_rng(0))
    said = verdict(audited).replace("\N{NO-BREAK SPACE}", " ")
    assert audited["verdict"]["code"] == code, said
    assert says in said and said.endswith(".")
    assert said.startswith("Accuracy is confounded") == (code in ("block-confounded", "block-unknown"))
    codes = list(CODES)
    assert codes[codes.index("other-split") : codes.index("clean") + 1] == list(VERDICTS), "no verdict without a case"


def test_pictures_are_claimed_only_above_the_floor():
    assert found(pictures())["verdict"]["code"] == "clean" and found(pictures())["can"][0]["code"] == "tells-seen"
    assert found(pictures(p_floor=0.2))["verdict"]["code"] == "not-above-floor"
    assert found(pictures(p=0.06))["verdict"]["code"] == "chance"
    assert not [one for code in ("no-floor", "chance") for one in found(VERDICTS[code][0])["can"]]
    said = verdict({"cases": [found(pictures())], "verdict": found(pictures())["verdict"]})
    assert "closes 60 % of the gap between shuffled EEG and the true caption" in said.replace("\N{NO-BREAK SPACE}", " ")


def test_blocks_held_out_whole_are_no_confound_and_inside_blocks_they_are():
    columns, twice = table("block", np.random.default_rng(0))[0], np.arange(120) // 10  # two blocks of every concept
    split = {"train": np.flatnonzero(twice % 2 == 0), "test": np.flatnonzero(twice % 2 == 1)}
    test = split["test"]
    answers = Predictions("mlp", test, columns["concept"][test], np.zeros(60, int), twice[test], "validation")
    apart = AuditInput("leave-block-out", columns | {"block": twice}, [split], np.ones(120, bool), [answers])
    said = found(apart)["verdict"]
    assert said["code"] == "clean" and said["numbers"]["design"] == "block"
    said = found(replace(apart, columns=columns | {"block": columns["concept"]}))
    assert said["verdict"]["code"] == "block-confounded"
    del apart.columns["stimulus"]
    said = found(apart)
    assert said["verdict"]["code"] == "unchecked-pictures" and "the recording block" not in sentence(said["verdict"])


def test_blocks_of_few_concepts_explain_an_accuracy_only_if_it_is_no_higher():
    rng = np.random.default_rng(0)
    pair = rng.permutation(np.repeat(np.arange(3), 40))  # every block shows two of the six concepts, mixed
    pair.sort()
    concept = 2 * pair + rng.integers(2, size=120)
    columns = {"concept": concept, "block": pair, "stimulus": np.arange(120)}
    split = {"train": np.arange(0, 120, 2), "test": np.arange(1, 120, 2)}
    test = split["test"]

    def answered(named):
        answers = Predictions("mlp", test, named, np.zeros(60, int), test, "validation")
        return found(AuditInput("table", columns, [split], np.zeros(120, bool), [answers]))["verdict"]

    by_block = answered(2 * pair[test] + rng.integers(2, size=60))
    assert by_block["code"] == "block-confounded" and "blocks differ in their concepts" in sentence(by_block)
    # by the block alone one is right in half of the trials only
    assert answered(concept[test])["code"] == "clean"
    columns["block"] = np.arange(120) // 2 % 3  # blocks that say nothing of the concept
    assert answered(concept[test])["code"] == "clean"


def test_the_verdict_of_several_cases_begins_with_the_gravest_and_names_them():
    cases = [case(answers={"selection": "validation"}), case("block"), case("block")]
    said = verdict(audit_cases("here", cases, rng=np.random.default_rng(0)))
    gravest, other = said.splitlines()
    assert gravest.startswith("Accuracy is confounded") and gravest.endswith("(released, all and 1 more).")
    assert other.startswith("The split and the selection") and other.endswith("(released, all).")
    with pytest.raises(NeuroCanvasError, match="nothing to audit"):
        audit_cases("here", [], rng=np.random.default_rng(0))


def test_what_carries_over_is_what_no_training_trial_shares():
    other = np.where(np.isin(np.arange(120), case().splits[0]["test"]), 1, 0)
    said = clean(columns={"subject": other})
    assert ("carries-over", "subject") in scope(said["can"]) and ("shared", "session") in scope(said["cannot"])
    assert ("sharing-unknown", "subject") in scope(clean(columns={"subject": None})["cannot"])


def scope(findings):
    """Codes and columns."""
    return [(one["code"], one["numbers"].get("column")) for one in findings]


def test_pictures_are_known_by_name_or_by_bytes():
    said = clean(columns={"picture": np.arange(120) // 2})  # equal bytes under another name
    assert said["verdict"]["code"] == "known-pictures" and ("shared", "picture") in scope(said["cannot"])
    named = np.where(np.isin(np.arange(120), case().splits[0]["test"]), np.arange(120), -1)  # training trials name none
    said = clean(columns={"stimulus": named})
    assert said["verdict"]["code"] == "unchecked-pictures" and ("carries-over", "stimulus") not in scope(said["can"])
    assert clean(columns={"stimulus": None, "picture": np.arange(120)})["verdict"]["code"] == "clean"


def test_pictures_made_elsewhere_are_not_asked_for_rows_of_a_table():
    test = {"test": case("block").splits[0]["test"]}
    for design in ("block", "unknown"):
        said = found(case(design, splits=[test], made_elsewhere=True, answers={"selection": "validation"}))
        assert "split = train" not in " ".join(map(sentence, [said["verdict"], *said["can"], *said["cannot"]]))


def test_steps_computed_beside_the_score_do_not_make_it_transductive():
    said = clean(transductive={"rules": "csls", "alone": "greedy"})
    assert said["verdict"]["code"] == "clean" and "whole-set-beside" in dict(scope(said["cannot"]))


@st.composite
def facts(draw):
    """Facts of a case, in any combination."""
    share = st.floats(0, 1, allow_nan=False)
    columns = draw(st.lists(st.sampled_from(SCOPE), unique=True))
    tested = draw(st.lists(st.sampled_from(columns), unique=True)) if columns else []
    images = draw(st.booleans())

    def result():
        beside = {"value": 0.5, "low": 0.4, "high": 0.6}
        metric = "two-way" if images else "accuracy"
        return {
            "model": "m", "metric": metric, "value": draw(share), "chance": 0.5, "low": 0.4, "high": 0.9,
            "p": (p := draw(share)), "p_holm": p, "floor": draw(st.sampled_from([None, beside])),
            "p_floor": draw(st.one_of(st.none(), share)), "least_p": draw(share), "n_units": 5,
            "selection": draw(st.sampled_from(SELECTIONS)), "transductive": draw(st.sampled_from([(), ("CSLS",)])),
        }  # fmt: skip

    parts = draw(st.lists(st.sampled_from(["pretrain", "train", "val", "gallery"]), unique=True))
    block = {"inside": draw(share), "accuracy": draw(share), "chance": 0.1, "p": draw(st.one_of(st.none(), share))}
    return {
        "trials": dict.fromkeys([*parts, "test"], 10), "design": draw(st.sampled_from(["unknown", "mixed", "block"])),
        "columns": columns, "block": draw(st.sampled_from([None, block])),
        "overlaps": [{"column": column, "pair": "known/test", "shared": draw(st.integers(0, 3)), "values": 3}
                     for column in tested],
        "results": [result() for _ in range(draw(st.integers(0, 2)))], "transductive": {},
        "findings": [asdict(finding("order-repeats"))] * draw(st.booleans()),
        "other_split": draw(st.sampled_from([{}, STALE])), "made_elsewhere": draw(st.booleans()),
    }  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(facts())
def test_what_is_supported_and_what_is_not_never_contradict_one_another(given_facts):
    said = conclude(given_facts)
    can, cannot = scope(said["can"]), scope(said["cannot"])
    carried = {column for code, column in can if code == "carries-over"}
    denied = {column for code, column in cannot if code in ("shared", "sharing-unknown")}
    assert not carried & denied
    assert not (carried & {"stimulus", "picture"} and denied_by_sharing(cannot) & {"stimulus", "picture"})
    claims, against = {code for code, _ in can}, {code for code, _ in cannot}
    if said["verdict"]["code"] in ("other-split", "no-answers", "chance", "no-floor", "not-above-floor"):
        assert not claims
    assert "not-response" not in against or claims <= {"tells-blocks"}
    assert "tells-seen" not in claims or not against & {"source-unknown", "not-shared", "not-response"}
    assert all(map(sentence, [said["verdict"], *said["can"], *said["cannot"]]))


def denied_by_sharing(cannot):
    return {column for code, column in cannot if code == "shared"}
