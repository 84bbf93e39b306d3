"""The audit of matrices, of several models in one table, and of clean beside leaky results; numbers by hand."""

import json
import re

import numpy as np
import pytest
import torch

from neurocanvas.audit.matrix import matrix_case, one_to_one
from neurocanvas.config import load_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import signed_rank
from neurocanvas.pipeline.audit import audit
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.report.text import audited, verdict
from neurocanvas.workflow import run_stage

# Row 0 is right, row 1 ties its item with another, row 2 takes that of row 0, row 3 does not say.
BY_HAND = np.array([[9.0, 1, 2, 3, 4, 5], [0, 7, 7, 1, 2, 3], [8, 1, 6, 2, 3, 4], [5, 5, 5, 5, 5, 5]])
NAMES, GALLERY = ["cat", "dog", "cow", "pig"], ["cat", "dog", "cow", "pig", "hen", "elk"]


def save(folder, values=BY_HAND, names=NAMES, gallery=GALLERY):
    """A matrix, and the options that name its rows and columns."""
    np.save(folder / "m.npy", values)
    (folder / "names.txt").write_text("\n".join(names), encoding="utf-8")
    (folder / "gallery.txt").write_text("\n".join(gallery) + "\n\n", encoding="utf-8")
    return folder / "m.npy", {"names": folder / "names.txt", "gallery": folder / "gallery.txt"}


def test_ties_count_what_a_coin_would_make_of_them(tmp_path):
    path, options = save(tmp_path)
    report = audit(path, **options)
    facts, results = report["matrix"], report["cases"][0]["results"]
    assert (facts["n"], facts["gallery"], facts["n_units"]) == (4, 6, 4)
    assert (facts["chance1"], facts["chance5"]) == pytest.approx((1 / 6, 5 / 6))
    top1, top5 = (1 + 1 / 2 + 0 + 1 / 6) / 4, (1 + 1 + 1 + 5 / 6) / 4
    greedy = facts["rules"]["greedy"]
    assert (greedy["top1"], greedy["top5"]) == pytest.approx((top1, top5))
    assert [(row["metric"], row["value"]) for row in results] == [("top-1", greedy["top1"]), ("top-5", greedy["top5"])]
    assert [rule for rule, row in facts["rules"].items() if row["transductive"]] == ["csls", "hungarian"]
    assert "constant-rows" in [row["code"] for row in report["cases"][0]["findings"]]
    assert "top-1 .417 of the matrix" in verdict(report), "greedy is the headline, never another rule"
    assert json.loads(json.dumps(report)) == report


def test_rows_without_preferences_score_chance_by_every_rule(tmp_path):
    rules = audit(save(tmp_path, np.full((40, 40), 0.1))[0])["matrix"]["rules"]
    assert rules["greedy"]["top1"] == rules["csls"]["top1"] == pytest.approx(1 / 40)
    assert rules["greedy"]["top5"] == rules["csls"]["top5"] == pytest.approx(5 / 40)
    assert rules["hungarian"]["top1"] == pytest.approx(1 / 40, abs=0.02)
    twins = np.repeat(np.eye(20), 2, axis=1)[np.arange(40) // 2]  # every two rows share two equal columns
    assert one_to_one(twins, np.arange(40), np.random.default_rng(0)) == pytest.approx(0.5, abs=0.1)
    rules = audit(save(tmp_path, np.diag([0.0] + [1.0] * 11))[0])["matrix"]["rules"]
    assert rules["csls"]["top1"] == rules["greedy"]["top1"] == pytest.approx((11 + 1 / 12) / 12)
    hub = np.eye(12) + 1.5 * (np.arange(12) == 3)  # every row's best column
    rules = audit(save(tmp_path, hub)[0])["matrix"]["rules"]
    assert rules["greedy"]["top1"] == pytest.approx(1 / 12)
    assert rules["hungarian"]["top1"] == 1 and rules["csls"]["top1"] == 1


def test_rows_of_one_name_are_one_unit_and_have_no_one_to_one(tmp_path):
    # 2 names, 10 rows each: these can be exchanged in one way, so p is about 1/2 at least
    values = np.hstack([np.kron(np.eye(2), np.ones((10, 1))), np.zeros((20, 4))])
    path, options = save(tmp_path, values, ["cat"] * 10 + ["dog"] * 10)
    report = audit(path, **options)
    top1 = report["cases"][0]["results"][0]
    assert top1["value"] == 1 and top1["n_units"] == 2 and 0.4 < top1["p"] < 0.6
    assert report["matrix"]["rules"]["hungarian"]["top1"] is None
    assert "no-one-to-one" in [row["code"] for row in report["cases"][0]["findings"]]


def test_p_is_small_for_a_link_and_not_without_one(tmp_path):
    rng, p = np.random.default_rng(0), []
    for link in [0] * 40 + [3]:
        path, _ = save(tmp_path, rng.normal(size=(20, 20)) + link * np.eye(20))
        p.append(matrix_case(path, count=199)[0].scores[0]["p"])
    assert sum(one < 0.05 for one in p[:40]) <= 6 and p[40] == 1 / 200


def test_every_format_says_the_same_and_wnids_are_names(tmp_path):
    path, options = save(tmp_path, names=["n02124075", *NAMES[1:]], gallery=["egyptian CAT", *GALLERY[1:]])
    expected = audit(path, **options)["matrix"]
    torch.save(torch.tensor(BY_HAND, dtype=torch.bfloat16, requires_grad=True), tmp_path / "m.pt")
    assert audit(tmp_path / "m.pt", **options)["matrix"] == expected
    lines = [",".join(map(str, row)) for row in BY_HAND.tolist()]
    (tmp_path / "m.csv").write_text("\n".join(lines), encoding="utf-8")
    assert audit(tmp_path / "m.csv", **options)["matrix"] == expected
    lines = [f"{name},{line}" for name, line in zip(NAMES, lines, strict=True)]
    for header in (",".join(["", *GALLERY]), ",".join(["true", *GALLERY])):
        (tmp_path / "m.csv").write_text("\ufeff" + "\n".join([header, *lines]), encoding="utf-8")
        assert audit(tmp_path / "m.csv")["matrix"] == expected
    path, options = save(tmp_path, BY_HAND[:, :4], names=["cat", "cat", "dog", "dog"])
    facts = audit(path, names=options["names"])["matrix"]  # square: the names are concepts
    assert facts["concepts"] == {"accuracy": pytest.approx((1 + 0.5 + 0 + 0.5) / 4), "chance": 0.5}
    assert facts["n_units"] == 2 and facts["rules"]["hungarian"]["top1"] is not None, "every row has its own column"


FAULTS = {
    "unknown": ({"names": ["cat", "dgo", "cow", "pig"]}, r"names.txt: row 2: allowed .* got 'dgo'; spell it"),
    "twice": ({"gallery": [*GALLERY[:5], "hen"]}, r"gallery.txt: 'hen' is in the gallery twice"),
    "too few": ({"names": ["cat"]}, r"names.txt: --names needs 4 names, one per line, .*; got 1"),
    "empty line": ({"names": ["cat", "", "cow", "pig"]}, r"names.txt: .*; line 2 is empty"),
    "nan": ({"values": np.where(BY_HAND == 8, np.nan, BY_HAND)}, r"m.npy: row 3 holds NaN or infinity"),
    "one axis": ({"values": BY_HAND[0]}, r"at least 1 row and 2 columns; got float64 \(6,\)"),
    "complex": ({"values": BY_HAND * 1j}, r"got complex128 \(4, 6\)"),
    "pickle": (
        {"values": np.array([[{}, {}]], dtype=object)},
        r"m.npy: not one array of numbers \(it holds pickled objects",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_matrix_are_one_line(fault, tmp_path, call):
    changes, says = FAULTS[fault]
    path, options = save(tmp_path, **changes)
    code, stdout, stderr = call("audit", path, "--names", options["names"], "--gallery", options["gallery"])
    assert (code, stdout, stderr.count("\n")) == (2, "", 1) and re.search(says, stderr), stderr


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.npz", b"PK", r"a matrix: allowed are .npy, .pt, .csv; got '.npz'"),
        ("m.xls", b"", r"a run folder, or a .csv or .parquet file .*, or a matrix"),
        ("m.npy", b"no array", r"m.npy: not one array of numbers"), ("m.pt", b"no", r"not a PyTorch file"),
        ("m.csv", b"1,2\n3,4\n5\n6,7", r"row 3: 2 numbers are needed, separated by commas; got '5'"),
        ("m.csv", b"1,2\n3,4\n5,6", r"--gallery: a file with one name per column .*\(3 x 2 came\)"),
        ("m.csv", b"cat,dog\n1,2", r"--names: a file with one name per row"),
        ("none.pt", None, r"none.pt: no such file"),
    ],
)  # fmt: skip
def test_files_that_are_no_matrix_are_refused(name, content, says, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NeuroCanvasError, match=says):
        audit(tmp_path / name)


def table(path, right, more=""):
    """A table of 4 trials per subject; `right` is how many every model has right in each subject."""
    lines = ["model,subject,true,predicted,order,stimulus,split"]
    for model, subject, trial in [(m, s, t) for m in right for s in range(len(right[m])) for t in range(4)]:
        true, other = ("cat", "dog")[:: 1 if trial % 2 else -1]
        answer = true if trial < right[model][subject] else other
        lines.append(f"{model},s{subject},{true},{answer},{trial},{subject}-{trial}.png,test")
    path.write_text("\n".join(lines) + "\n" + more, encoding="utf-8")
    return path


RIGHT = {"a": [4, 3], "b": [1, 2]}


def test_models_of_one_table_have_their_own_answers_and_subjects(tmp_path, call):
    [case] = audit(table(tmp_path / "both.csv", RIGHT))["cases"]
    assert [(row["model"], row["correct"], row["n"]) for row in case["results"]] == [("a", 7, 8), ("b", 3, 8)]
    assert [(row["subject"], row["value"]) for row in case["results"][1]["subjects"]] == [("s0", 0.25), ("s1", 0.5)]
    assert case["trials"] == {"test": 8}, "a trial that two models answer is one"
    assert not {row["code"] for row in case["findings"]} & {"columns-unread", "rows-of-trials"}
    for beside in case["results"]:
        one = audit(table(tmp_path / "one.csv", {beside["model"]: RIGHT[beside["model"]]}))
        alone, drawn = one["cases"][0]["results"][0], dict.fromkeys(("p", "p_holm", "p_subjects"), 0)
        assert {**alone, **drawn} == {**beside, **drawn}
    code, stdout, _ = call("audit", tmp_path / "both.csv")
    assert code == 0 and re.search(r"s1 +\.750 \(4\) +\.500 \(4\)", stdout)


def test_training_rows_of_a_model_are_its_own(tmp_path):
    of_each = "a,s0,cat,,9,z.png,train\nb,s0,cat,,9,z.png,train\n"
    for more, seen in ((of_each, 0), (",s0,cat,,9,0-0.png,train\n", 1)):  # the second is of all models
        [case] = audit(table(tmp_path / "m.csv", RIGHT, more))["cases"]
        rows = {row["pair"]: row["shared"] for row in case["overlaps"] if row["column"] == "stimulus"}
        assert rows["train/test"] == seen and case["trials"] == {"train": 1, "test": 8}
    for more, says in (("a,s0,cat,,9,z.png,train\n", "model 'b' has no training rows"),
                       (",s0,cat,cat,9,z.png,test\n", "row 17: model is empty")):  # fmt: skip
        with pytest.raises(NeuroCanvasError, match=says):
            audit(table(tmp_path / "m.csv", RIGHT, more))


@pytest.mark.parametrize(
    ("differences", "p", "r"),
    [([1, 2, 3, 4, 5, 6], 1 / 64, 1), ([1, 2, -3], 5 / 8, 0), ([1, 1, -2], 5 / 8, 0), ([1, 1, 2, 0], 1 / 8, 1),
     ([0, 0], 1, 0), ([-1, -2], 1, -1), ([0.3 - 0.2, 0.7 - 0.8], 3 / 4, 0), ([1] * 14, 2 / 8193, 1)],
)  # fmt: skip
def test_the_signed_rank_test_is_exact_also_with_ties(differences, p, r):
    assert signed_rank(np.array(differences, dtype=float), np.random.default_rng(0)) == pytest.approx((p, r))


def test_inflation_is_measured_within_subjects(tmp_path, call):
    clean = table(tmp_path / "clean.csv", {"a": [1, 2, 1], "b": [2, 2, 2]})
    leaky = table(tmp_path / "leaky.csv", {"a": [2, 4, 4], "b": [2, 1, 4]})
    report = audit(clean, leaky=leaky)
    first, second = report["paired"]
    numbers = [first[name] for name in ("clean", "leaky", "margin", "ratio", "share")]
    assert numbers == pytest.approx([1 / 3, 10 / 12, 1 / 2, 2.5, 1])
    assert (first["p"], first["p_holm"], first["r"], first["least_p"]) == (1 / 8, 1 / 4, 1, 1 / 8)
    assert (second["share"], second["p"], second["r"]) == pytest.approx((1 / 3, 1 / 2, 1 / 3))
    assert first["subjects"][2] == {"subject": "s2", "clean": 0.25, "leaky": 1, "margin": 0.75, "ratio": 4}
    assert {row["code"] for row in report["findings"]} == {"not-inflated", "few-pairs"}
    code, stdout, _ = call("audit", clean, "--leaky", leaky)
    assert code == 0 and re.search(r"\.12 \(smallest \.12\) +\.25", stdout) and "chance is not subtracted" in stdout
    low, high = (table(tmp_path / f"{n}.csv", {"a": [n] * 6}) for n in (1, 4))
    report = audit(low, leaky=high)
    assert report["paired"][0]["p"] == 1 / 64 and report["paired"][0]["least_p"] is None
    assert any("accuracy of a is +0.750 higher" in str(note) for note in audited(report)[1])


def test_run_folders_are_compared_by_subject(tmp_path):
    sections = {
        "split": {"protocol": "by-stimulus"},
        "classify": {"models": ["svm"]},
        "benchmark": {"permutations": 19},
    }
    for name, explained in (("clean", 0.05), ("leaky", 0.2)):
        made = {"subjects": 2, "concepts": 3, "explained_variance": explained}
        run_stage(RunFolder(tmp_path / name, load_settings(None, simulate=made, **sections)), "classify")
    report = audit(tmp_path / "clean", leaky=tmp_path / "leaky")
    [row] = report["paired"]
    assert (row["part"], row["model"], row["metric"], row["n"]) == ("all", "svm", "accuracy", 2) and row["margin"] > 0
    assert row["clean"] == pytest.approx(report["cases"][0]["results"][0]["value"])


def test_clean_and_leaky_need_the_same_names(tmp_path):
    clean, other = table(tmp_path / "c.csv", {"a": [1, 2, 1]}), table(tmp_path / "l.csv", {"a": [1, 2]})
    with pytest.raises(NeuroCanvasError, match=r"l.csv: the subjects s2 are missing, which the other side has"):
        audit(clean, leaky=other)
    with pytest.raises(NeuroCanvasError, match=r"c.csv: the models b accuracy are missing"):
        audit(clean, leaky=table(other, {"b": [1, 2, 1], "a": [1, 2, 1]}))
    path, options = save(tmp_path, np.eye(4))
    with pytest.raises(NeuroCanvasError, match=r"--names and --gallery: only one matrix"):
        audit(clean, leaky=other, **options)
    with pytest.raises(NeuroCanvasError, match=r"m.npy: no score of a subject; a table needs the column subject"):
        audit(clean, leaky=path)
