"""The verb audit: run folders of a block and a rapid design, and tables of somebody else's predictions."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from neurocanvas import artifacts
from neurocanvas.config import load_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.findings import finding, listed
from neurocanvas.pipeline.audit import audit
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.report.text import audited, sentence, verdict
from neurocanvas.workflow import run_stage

SAYS_BLOCK = "Accuracy is confounded with recording block"
ADAPTED = listed([finding("transductive-training")])


def settings_of(design, **sections):
    """One subject, four concepts, one classifier, the released split."""
    asked = {
        "simulate": {"design": design, "concepts": 4, "explained_variance": 0.5},
        "split": {"protocol": "released", "accept_block_confound": True},
        "classify": {"models": ["svm"]}, "benchmark": {"permutations": 19}, "caption": {"source": "class-names"},
    }  # fmt: skip
    asked |= {name: {**asked.get(name, {}), **keys} for name, keys in sections.items()}
    return load_settings(None, **asked)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of a classified run of each design. Only for reading."""
    folders = {}
    for design in ("block", "rapid"):
        folders[design] = tmp_path_factory.mktemp(design)
        run_stage(RunFolder(folders[design], settings_of(design)), "classify")
    run_stage(RunFolder(folders["rapid"], settings_of("rapid")), "caption")  # the other has no image hashes
    return folders


@pytest.fixture
def rapid(runs, tmp_path):
    """A copy of the rapid run that a test may change."""
    return shutil.copytree(runs["rapid"], tmp_path / "rapid")


def rows_of(audited, column, case=0):
    """Overlaps of a column by pair."""
    found = audited["cases"][case]["overlaps"]
    return {row["pair"]: (row["shared"], row["values"]) for row in found if row["column"] == column}


def test_the_first_line_names_the_block_on_a_block_design_only(runs, call):
    code, stdout, _ = call("audit", runs["block"])
    assert code == 0 and stdout.splitlines()[0].startswith(SAYS_BLOCK)
    code, stdout, _ = call("audit", runs["rapid"])
    first = stdout.splitlines()[0]
    assert code == 0 and "block" not in first and first.startswith("The split and the selection do not explain")
    assert "80 of" not in first and "used validation trials only" in first


def test_a_run_folder_says_what_its_parts_share(runs):
    block, rapid = audit(runs["block"]), audit(runs["rapid"])
    assert rows_of(block, "block")["train/test"] == (4, 4) and rows_of(rapid, "block") == {}
    for one in (block, rapid):
        assert rows_of(one, "stimulus")["train/test"] == (0, 80)
        assert rows_of(one, "concept")["val/test"] == (4, 4)
        [case] = one["cases"]
        assert case["name"] == "released, all" and case["trials"]["test"] == 80
        [result] = case["results"]
        assert result["selection"] == "validation" and result["transductive"] == [] and result["n"] == 80
    assert rows_of(rapid, "picture")["train/test"] == (0, 80) and not rows_of(block, "picture")
    assert "pictures-by-name" in [one["code"] for one in block["cases"][0]["findings"]]
    table = np.load(runs["rapid"] / "classification" / "released" / "all" / "svm_s0.npy")
    assert rapid["cases"][0]["results"][0]["value"] == np.mean(table[:, 4:].argmax(axis=1) == table[:, 1])
    assert json.loads(json.dumps(rapid)) == rapid


def test_a_picture_under_two_names_is_found_by_its_bytes(rapid):
    files = sorted(rapid.glob("data/imageNet_images/*/*"))
    run = RunFolder(rapid, settings_of("rapid"))
    trials = run.dataset
    tested = trials.column("image")[trials.column("concept") == trials.column("concept")[0]]
    first, last = (next(file for file in files if file.name == name) for name in (tested[0], tested[-1]))
    shutil.copyfile(first, last)  # the first of a concept trains, the last is tested
    run_stage(run, "caption")
    found = audit(rapid)
    assert rows_of(found, "stimulus")["known/test"] == (0, 80) and rows_of(found, "picture")["known/test"] == (1, 80)
    assert "1 of 80 test images are in the training set" in verdict(found)


def change_card(folder, **changes):
    """Replace entries of the only cell's sidecar."""
    path = folder / "classification" / "released" / "all" / "svm_s0.npy"
    artifacts.write_json(artifacts.sidecar_path(path), {**artifacts.read_sidecar(path), **changes})


def test_what_cards_say_of_selection_and_test_trials_is_said(rapid):
    change_card(rapid, findings=ADAPTED)
    found = audit(rapid)
    assert "transductive" in verdict(found) and found["cases"][0]["results"][0]["transductive"] == ["domain adaptation"]
    change_card(rapid, findings=[], selection="none: the last epoch, and the validation trials train too")
    assert "used no trials (last epoch)" in verdict(audit(rapid))
    change_card(rapid, imported=True)
    found = audit(rapid)
    assert found["cases"][0]["results"][0]["selection"] == "unknown" and "inflated by model selection" in verdict(found)


def test_answers_to_other_trials_than_the_split_tests_are_noticed(rapid):
    run_toml = (rapid / "run.toml").read_text(encoding="utf-8")
    assert not audit(rapid)["cases"][0]["findings"]
    path = rapid / "classification" / "released" / "all" / "svm_s0.npy"
    table = np.load(path)
    np.save(path, table[:40])
    found = audit(rapid)
    assert "svm_s0.npy was made from other trials" in sentence(found["cases"][0]["findings"][0])
    assert found["verdict"]["code"] == "other-split" and "run `neurocanvas classify` again" in verdict(found)
    path.write_bytes(b"no array")
    with pytest.raises(NeuroCanvasError, match=r"svm_s0.npy: damaged"):
        audit(rapid)
    (rapid / "run.toml").write_text(run_toml.replace('"released"', '"leaked"'), encoding="utf-8")
    with pytest.raises(NeuroCanvasError, match=r"run.toml: split.protocol"):
        audit(rapid)


def test_an_audit_opens_no_data_and_follows_the_split_of_the_folder(rapid):
    before = audit(rapid)
    shutil.rmtree(rapid / "data")
    assert audit(rapid) == before
    path = rapid / "splits" / "0.json"
    content = artifacts.read_json(path, "a split")
    [fold] = content["folds"]
    fold["train"][0], fold["test"][0] = fold["test"][0], fold["train"][0]
    artifacts.write_json(path, content)
    assert audit(rapid)["verdict"]["code"] == "other-split"
    fold["test"][0] = "nobody"
    artifacts.write_json(path, content)
    with pytest.raises(NeuroCanvasError, match=r"test names trial nobody, which is not among the 200 trials"):
        audit(rapid)
    shutil.rmtree(rapid / "features")
    with pytest.raises(NeuroCanvasError, match=r"no trial table features/s\*_trials.csv; run `neurocanvas features`"):
        audit(rapid)


def test_every_protocol_and_subject_of_a_benchmark_is_a_case(tmp_path):
    asked = {"design": "block", "subjects": 3, "concepts": 4, "trials_per_concept": 32, "explained_variance": 0.0}
    protocols = ["released", "leave-subject-out"]  # the first is the run's own
    settings = settings_of("block", simulate=asked, classify={"models": ["ridge"]}, benchmark={"protocols": protocols})
    run_stage(RunFolder(tmp_path, settings), "benchmark")
    found = audit(tmp_path)
    splits = {path.relative_to(tmp_path / "splits").as_posix() for path in tmp_path.glob("splits/**/0.json")}
    assert {"0.json", "leave-subject-out/all/0.json"} <= splits and "released/all/0.json" not in splits
    cases = {case["name"].partition(",")[0]: case for case in found["cases"] if case["name"].endswith(", all")}
    assert cases["released"]["verdict"]["code"] == "block-confounded"
    assert cases["leave-subject-out"]["verdict"]["code"] == "chance"
    assert verdict(found).startswith(SAYS_BLOCK) and "(leave-subject-out, " in verdict(found)
    apart = {row["column"]: row for row in cases["leave-subject-out"]["overlaps"] if row["pair"] == "known/test"}
    assert apart["subject"]["shared"] == apart["block"]["shared"] == 0 and apart["subject"]["values"] == 3
    assert len(audited(found)[0][0][2]) == len(found["cases"]) and SAYS_BLOCK not in audited(found)[1][0]


def test_a_run_that_draws_pictures_is_audited_with_its_gallery(tiny_run, tmp_path):
    found = audit(tiny_run)
    [case] = found["cases"]
    summary = json.loads((tiny_run / "scores" / "summary.json").read_text(encoding="utf-8"))
    [result] = case["results"]
    assert result["value"] == summary["arms"]["eeg"]["two_way"]["value"] and result["selection"] == "validation"
    assert result["metric"] == "two-way" and case["name"] == "by-stimulus, encoder"
    shared = rows_of(found, "stimulus")
    assert shared["test/gallery"] == (8, 8) and shared["train/gallery"] == (0, 8)
    [_, (_, header, lines)] = audited(found)[0]
    cells = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert cells["session"]["train/gallery"] == cells["block"]["train/test"] == "–"
    assert cells["picture"]["test/gallery"] == "8 of 8" and cells["trials"]["val/test"] == "4/8"
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    shutil.rmtree(copy / "data")
    assert audit(copy)["cases"] == found["cases"]
    shutil.rmtree(copy / "scores")
    assert verdict(audit(copy)).startswith("Nothing can be concluded yet")
    (copy / "images" / "manifest.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(NeuroCanvasError, match=r"manifest.jsonl: damaged"):
        audit(copy)


CONCEPTS = [f"c{number}" for number in range(8)]


def predictions(design, rng):
    """Rows of a table: a model that reads the block only, or one that is right in half of a rapid design's trials."""
    rows = []
    order = np.repeat(CONCEPTS, 50) if design == "block" else rng.permutation(np.repeat(CONCEPTS, 50))
    for place, true in enumerate(order.tolist()):
        test = place % 50 >= 30
        near = CONCEPTS[int(np.clip(round(place // 50 + rng.normal(0, 0.8)), 0, 7))]
        named = near if design == "block" else (true if rng.random() < 0.5 else str(rng.choice(CONCEPTS)))
        block = place // 50 if design == "block" else place // 5
        rows.append({
            "true": true, "predicted": named if test else "", "split": "test" if test else "train", "order": place,
            "block": block, "stimulus": f"{place}.png",
        })  # fmt: skip
    return rows


def write(path, rows, *columns):
    """Write some columns of rows as CSV, all of them by default."""
    columns = columns or tuple(rows[0])
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows([row[name] for name in columns] for row in rows)
    return path


@pytest.mark.parametrize("columns", [(), ("order",), ("block",)], ids=["both", "order", "block"])
@pytest.mark.parametrize("design", ["block", "rapid"])
def test_a_table_says_block_where_concepts_came_in_blocks(design, columns, tmp_path):
    rows = predictions(design, np.random.default_rng(0))
    asked = ("true", "predicted", "split", "stimulus", *(columns or ("order", "block")))
    found = audit(write(tmp_path / "theirs.csv", rows, *asked), selection="validation")
    [case] = found["cases"]
    assert verdict(found).startswith(SAYS_BLOCK) == (design == "block")
    assert case["verdict"]["code"] == ("block-confounded" if design == "block" else "clean")
    near = case["results"][0]["neighbours"]
    assert (near is None) == (columns == ("block",) or design == "rapid"), "mixed order has no adjacent blocks"
    assert near is None or (near["share"] > near["expected"] and near["p"] == 1 / 8)


def test_a_table_without_order_and_training_says_that_nothing_can_be_checked(tmp_path):
    rows = [row for row in predictions("rapid", np.random.default_rng(0)) if row["predicted"]]
    found = audit(write(tmp_path / "bare.csv", rows, "true", "predicted"))
    assert verdict(found).startswith("The accuracy cannot be interpreted: without the column order or block")
    [result] = found["cases"][0]["results"]
    right = np.mean([row["true"] == row["predicted"] for row in rows])
    assert result["value"] == right and result["p"] < 0.01 and result["low"] < right < result["high"]
    share = max(sum(row["true"] == name for row in rows) for name in CONCEPTS) / len(rows)
    assert result["majority"] == pytest.approx(share) and abs(result["chance"] - 1 / 8) < 0.02
    in_blocks = [row for row in predictions("block", np.random.default_rng(0)) if row["predicted"]]
    found = audit(write(tmp_path / "order.csv", in_blocks, "true", "predicted", "order"))
    assert verdict(found).startswith(SAYS_BLOCK) and "the blocks of the training trials are unknown" in verdict(found)


def test_a_table_without_pictures_says_that_these_may_repeat(tmp_path):
    rows = predictions("rapid", np.random.default_rng(0))
    path = write(tmp_path / "theirs.csv", rows, "true", "predicted", "split", "order")
    found = audit(path, selection="validation")
    assert verdict(found).startswith("The accuracy cannot be interpreted: without the column stimulus")
    assert "repeated images cannot be ruled out" in verdict(found) and "block effects" not in verdict(found)
    assert "too high by an unknown amount" in verdict(audit(path, selection="test"))
    for row in rows:
        row["sha256"] = f"{row['order']:064x}"
    path = write(path, rows, "true", "predicted", "split", "order", "sha256")
    assert audit(path, selection="validation")["cases"][0]["verdict"]["code"] == "clean"


def test_blocks_are_those_of_their_subject_and_session(tmp_path):
    rows = predictions("block", np.random.default_rng(0))
    for row in rows:  # training and test trials were recorded in two sessions, whose blocks have the same numbers
        row |= {"subject": 1, "session": int(row["split"] == "test")}
    found = audit(write(tmp_path / "apart.csv", rows), selection="validation")
    assert rows_of(found, "block")["train/test"] == (0, 8) and rows_of(found, "subject")["train/test"] == (1, 1)
    [case] = found["cases"]
    assert case["verdict"]["code"] == "same-order", "both sessions show the concepts in one order"


def test_pictures_of_a_table_are_compared_by_bytes_and_stay_inside_their_folder(tmp_path):
    rows = predictions("rapid", np.random.default_rng(0))
    for row in rows:
        row["picture"] = "a.png" if row["split"] == "train" else "b.png"
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a.png")
    shutil.copyfile(tmp_path / "pictures" / "a.png", tmp_path / "pictures" / "b.png")
    path = write(tmp_path / "theirs.csv", rows)
    found = audit(path, selection="validation", pictures=tmp_path / "pictures")
    assert found["verdict"]["code"] == "known-pictures" and rows_of(found, "picture")["train/test"] == (1, 1)
    Image.new("RGB", (5, 5)).save(tmp_path / "pictures" / "b.png")
    found = audit(path, selection="validation", pictures=tmp_path / "pictures")
    assert found["verdict"]["code"] == "clean" and rows_of(found, "picture")["train/test"] == (0, 1)
    rows[3]["picture"] = "../theirs.csv"
    with pytest.raises(NeuroCanvasError, match=r"image, row 4: a name inside"):
        audit(write(path, rows), pictures=tmp_path / "pictures")


def test_what_the_table_or_the_caller_says_of_selection_and_transduction_is_said(tmp_path, call):
    rows = predictions("rapid", np.random.default_rng(0))
    path = write(tmp_path / "theirs.csv", rows)
    assert "too high by an unknown amount" in verdict(audit(path, selection="test"))
    code, stdout, _ = call("audit", path, "--selection", "validation", "--transductive", "Hungarian", "--json")
    assert code == 0 and "not for single trials: Hungarian" in verdict(json.loads(stdout))
    for cell, code in (("z-scored on test", "transductive"), ("no", "clean")):
        write(path, [{**row, "transductive": cell} for row in rows])
        assert audit(path, selection="validation")["cases"][0]["verdict"]["code"] == code
    code, stdout, stderr = call("audit", path, "--selection", "none")
    assert (code, stdout, stderr.count("\n")) == (2, "", 1) and "allowed are validation, final, test" in stderr


def test_cells_that_look_like_formulas_markup_or_escapes_are_data(tmp_path, call):
    rows = predictions("rapid", np.random.default_rng(0))
    odd = {"c0": '=HYPERLINK("x")', "c1": "[bold]", "c2": "\x1b[2J", "c3": "@SUM(A1)"}
    for row in rows:
        for name in ("true", "predicted"):
            row[name] = odd.get(row[name], row[name])
        row["[red]{0}\x1b"] = "-1+1"
    plain = audit(write(tmp_path / "plain.csv", predictions("rapid", np.random.default_rng(0))))
    path = write(tmp_path / "[odd].csv", rows)
    assert audit(path)["cases"][0]["results"][0]["value"] == plain["cases"][0]["results"][0]["value"]
    code, stdout, _ = call("audit", path)
    assert code == 0 and "[odd].csv" in stdout and "[red]{0}?" in stdout and "\x1b" not in stdout


GOOD = "true,predicted\na,a\nb,b\n"
FAULTS = {
    "no column": ("true,guess\na,b\n", r"the column predicted is missing; it has true, guess"),
    "semicolons": ("true;predicted\na;b\n", r"the column true is missing; it has true;predicted"),
    "twice": ("true,predicted,true\na,b,a\n", r"the column true is there twice"),
    "ragged": ("true,predicted\na,b\na\n", r"row 2: predicted is empty"),
    "longer": ("true,predicted\na,b,c\n", r"not CSV \(.*Expected 2 fields in line 2, saw 3\)"),
    "empty": ("", r"no rows"),
    "header only": ("true,predicted\n", r"no rows"),
    "quote": ('true,predicted\n"a,b\n', r"not CSV \(.*EOF inside string"),
    "binary": ("true,predicted\na\0,b\n", r"zero byte"),
    "no answer": ("true,predicted\na,\n", r"row 1: predicted is empty, which a row of test needs"),
    "no truth": ("true,predicted\n,a\n", r"row 1: true is empty"),
    "part": ("true,predicted,split\na,a,training\n", r"row 1: split: allowed are pretrain, train, val, test, gallery"),
    "no test": ("true,predicted,split\na,a,train\n", r"no row has split = test"),
    "order": ("true,predicted,order\na,a,1\na,a,second\n", r"row 2: order: a number is needed"),
    "infinite": ("true,predicted,order\na,a,inf\na,a,1\n", r"row 1: order: a number is needed"),
    "other names": ("true,predicted\na,0\nb,1\n", r"none of its values is among those of true \(such as '0' and 'a'\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_table_are_one_sentence(fault, tmp_path, call):
    text, says = FAULTS[fault]
    path = tmp_path / "theirs.csv"
    path.write_text(text, encoding="utf-8")
    code, stdout, stderr = call("audit", path)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1) and stderr.startswith(f"neurocanvas: {path}: ")
    assert re.search(says, stderr)


def test_files_that_are_no_tables_are_refused(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(NeuroCanvasError, match=r"theirs.csv: not UTF-8"):
        audit(path)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert audit(path)["cases"][0]["results"][0]["value"] == 1
    with pytest.raises(NeuroCanvasError, match=r"none.csv: no such file"):
        audit(tmp_path / "none.csv")
    path.rename(tmp_path / "theirs.txt")
    with pytest.raises(NeuroCanvasError, match=r"a run folder, or a .csv or .parquet file of predictions is needed"):
        audit(tmp_path / "theirs.txt")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(NeuroCanvasError, match=r"d.csv: a folder without run.toml, and no table; name a run folder"):
        audit(tmp_path / "d.csv")


def test_parquet_says_what_to_install(tmp_path, monkeypatch, call):
    (tmp_path / "theirs.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    code, stdout, stderr = call("audit", tmp_path / "theirs.parquet")
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert "reading theirs.parquet needs the package pyarrow: pip install 'neurocanvas[parquet]'" in stderr


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_says_what_csv_says(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [{**row, "predicted": row["predicted"] or None} for row in predictions("block", np.random.default_rng(0))]
    rows[0]["order"] = 0.0  # a column of floats, as pandas makes it where there are gaps
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "theirs.parquet")
    same = audit(write(tmp_path / "theirs.csv", predictions("block", np.random.default_rng(0))))
    found = audit(tmp_path / "theirs.parquet")
    assert verdict(found) == verdict(same) and found["cases"][0]["results"] == same["cases"][0]["results"]
    content = (tmp_path / "theirs.parquet").read_bytes()
    (tmp_path / "theirs.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(NeuroCanvasError, match=r"damaged, or not a parquet file"):
        audit(tmp_path / "theirs.parquet")


def test_sentences_of_many_cases_are_said_once():
    same, other = listed([finding("share-unknown")]), listed([finding("untouched-unknown")])
    whole = {"name": "a", "can": [], "cannot": [*same, *other], "results": [], "overlaps": [], "findings": []}
    whole |= {"design": "mixed", "trials": {}}
    others = [{**whole, "name": name, "cannot": same} for name in "bcde"]
    titles = [title for title, _ in audited({"cases": [whole, *others], "source": "x"})[1]]
    assert titles == ["Not supported", "Not supported (a)"]
    titles = [title for title, _ in audited({"cases": [{**whole, "cannot": []}, *others], "source": "x"})[1]]
    assert titles == ["Not supported (b; c; d and 1 more)"]


@pytest.mark.parametrize(
    ("true", "predicted", "says"),
    [
        (("01", "10"), ("1", "10"), "predicted '1' and true '01' may be one concept"),
        (("1", "2"), ("1.0", "2"), "predicted '1.0' and true '1' may be one concept"),
        (("Cat", "dog"), ("cat", "dog"), "predicted 'cat' and true 'Cat' may be one concept"),
        (("cat", "dog"), ("NaN", "dog"), "row 1: predicted is NaN; write the name of a concept"),
        (("cat", "dog"), ("0.25", "0.75"), "these look like probabilities"),
        (("cat", "dog"), ("katze", "hund"), "none of its values is among those of true"),
    ],
)
def test_names_that_spreadsheets_change_are_asked_and_not_guessed(true, predicted, says, tmp_path):
    rows = [{"true": true[row % 2], "predicted": predicted[row % 2], "order": row} for row in range(40)]
    with pytest.raises(NeuroCanvasError, match=says):
        audit(write(tmp_path / "theirs.csv", rows))


def test_wnids_and_english_names_are_one_concept(tmp_path):
    true = ["n03063599", "n07753592"] * 20
    said = {"n03063599": "coffee mug", "n07753592": "Banana"}
    rows = [{"y_true": name, "y_pred": said[name], "order": row} for row, name in enumerate(true)]
    [result] = audit(write(tmp_path / "theirs.csv", rows))["cases"][0]["results"]
    assert result["value"] == 1


def test_a_label_that_contradicts_the_name_of_its_image_is_refused(tmp_path):
    rows = predictions("rapid", np.random.default_rng(0))
    wnid = {name: f"n{number:08}" for number, name in enumerate(sorted({row["true"] for row in rows}))}
    for number, row in enumerate(rows):
        row |= {"true": wnid[row["true"]], "predicted": wnid.get(row["predicted"], "")}
        row["stimulus"] = f"{row['true']}_{number}.JPEG"
    assert audit(write(tmp_path / "right.csv", rows))["cases"]
    rows[7]["stimulus"] = "n00000099_1.JPEG"
    with pytest.raises(NeuroCanvasError, match=r"row 8: true is n.*names an image of n00000099"):
        audit(write(tmp_path / "wrong.csv", rows))


def test_a_constant_answer_is_named_and_never_above_chance(tmp_path):
    rows = predictions("rapid", np.random.default_rng(0))
    most = max({row["true"] for row in rows}, key=[row["true"] for row in rows if row["predicted"]].count)
    found = audit(write(tmp_path / "one.csv", [{**row, "predicted": row["predicted"] and most} for row in rows]))
    [result] = found["cases"][0]["results"]
    assert "one-answer" in [one["code"] for one in found["cases"][0]["findings"]]
    assert result["value"] == pytest.approx(result["chance"]) and result["p"] == 1
