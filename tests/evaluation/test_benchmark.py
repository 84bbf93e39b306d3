"""The benchmark's rows and how they are written."""

import csv
import io
import random
from dataclasses import replace

import numpy as np
import pytest

from neurocanvas.evaluation.benchmark import (
    EXPLAINED,
    Cell,
    as_csv,
    cell_text,
    explanation,
    paper_tables,
    summarise_cells,
)
from neurocanvas.findings import finding
from neurocanvas.report.tables import as_latex, as_text
from neurocanvas.report.text import sentence

BLOCK = finding("block-on-both-sides")


def make_cell(model, subject, hit_rate, granularity="all", protocol="released", n=400, findings=(), diagnosed=False):
    """A model that is right in a share of the trials of all concepts, and one trial per unit."""
    rng = np.random.default_rng([subject, len(model), len(granularity)])
    n_concepts = {"a": 80, "c": 40, "f": 8}[granularity[0]]
    true = np.arange(n) % n_concepts
    scores = rng.uniform(size=(n, n_concepts))
    right = rng.uniform(size=n) < hit_rate
    scores[np.arange(n)[right], true[right]] = 2.0
    accuracy = float(np.mean(scores.argmax(axis=1) == true))
    reached = {"selected": accuracy, "final": accuracy - 0.01}
    reached |= {"best_on_test": accuracy + 0.03} if diagnosed else {}
    return Cell(
        protocol, granularity, model, model.upper(), str(subject), scores, true, np.zeros(n, int), np.arange(n),
        reached, 2.0, findings,
    )  # fmt: skip


def make_rows(**options):
    cells = [make_cell("svm", s, 0.6, findings=(BLOCK,), **options) for s in range(8)]
    cells += [make_cell("dt", s, 0.0, **options) for s in range(8)]
    cells += [make_cell("svm", s, 0.5, granularity=f"fine{k}", **options) for s in range(8) for k in range(5)]
    return summarise_cells(cells, count=499, seed=0)


@pytest.fixture(scope="module")
def rows():
    return make_rows()


def test_one_row_per_protocol_granularity_and_model_and_fine_is_the_mean_of_its_tasks(rows):
    assert [(row["granularity"], row["model"]) for row in rows] == [("all", "svm"), ("all", "dt"), ("fine", "svm")]
    assert all(row["subjects"] == [str(s) for s in range(8)] for row in rows)
    expected = np.mean([make_cell("svm", 3, 0.5, granularity=f"fine{k}").accuracy["selected"] for k in range(5)])
    assert rows[2]["accuracy"][3] == pytest.approx(expected) and rows[2]["seconds"][3] == 10.0


def test_what_is_above_chance_and_what_is_not(rows):
    svm, tree, _ = rows
    assert svm["p_holm"] < 0.05 and svm["chance"] == pytest.approx(1 / 80, abs=0.003)
    assert tree["p_holm"] > 0.05
    assert svm["p_best"] is None and tree["p_best"] < 0.05
    assert "°" in cell_text(tree) and "†" in cell_text(tree) and cell_text(svm).count("°") == 0


def test_text_csv_and_latex_say_the_same(rows):
    text, table, latex = as_text(rows), as_csv(rows), as_latex(rows)
    mean = cell_text(rows[0])
    assert mean in text and mean.replace("±", r"$\pm$") in latex
    read = list(csv.DictReader(io.StringIO(table)))
    assert len(read) == 24 and float(read[0]["accuracy"]) == pytest.approx(rows[0]["accuracy"][0], abs=1e-5)
    for written in (text, latex):
        assert sentence(BLOCK) in " ".join(written.split())
    assert read[0]["findings"] == BLOCK.code
    assert ".392" in text  # the published number beside ours
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3


def test_crosspt_numbers_stand_beside_the_same_metric():
    found = summarise_cells([make_cell("mlp", 0, 0.5, "coarse", "leave-session-out")], count=99, seed=0)
    table, _, _ = paper_tables(found)
    assert table["lines"][0][table["header"].index("published")].startswith(".552 (ours ")


def small_cell(model, subject, protocol, right):
    """A model that names all concepts of six blocks of two trials, or none."""
    true = np.repeat(np.arange(6), 2)
    scores = np.eye(6)[true if right else (true + 1) % 6]
    reached = {"selected": float(right), "final": float(right)}
    return Cell(protocol, "all", model, model, str(subject), scores, true, np.zeros(12, int), true, reached, 1.0, ())


def test_a_table_of_more_than_a_hundred_rows_can_still_be_above_chance():
    cells = [small_cell(f"m{k}", s, "released", right=k < 100) for k in range(120) for s in range(2)]
    rows = summarise_cells(cells, count=2000, seed=0)
    assert [row["p_holm"] < 0.05 for row in rows] == [True] * 100 + [False] * 20


def test_the_order_in_which_cells_come_changes_nothing():
    """Workers finish in any order; models of one protocol may lack subjects that others have."""
    cells = [
        make_cell(model, s, rate, granularity, protocol, n=160)
        for model, rate in (("svm", 0.02), ("dt", 0.0), ("mlp", 0.03))
        for protocol in ("released", "leave-session-out")
        for granularity in ("all", "fine0", "fine1")
        for s in range(2 if protocol == "released" else 4)
    ]
    expected = summarise_cells(cells, count=99, seed=0)
    assert len({row["p"] for row in expected}) > 5
    for seed in range(3):
        mixed = random.Random(seed).sample(cells, len(cells))
        by_model = sorted(mixed, key=lambda cell: ("svm", "dt", "mlp").index(cell.model))
        assert summarise_cells(by_model, count=99, seed=0) == expected
        found = summarise_cells(mixed, count=99, seed=0)  # models may stand in another order, and that is all
        assert sorted(found, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("place", [0, 2])
def test_a_subject_that_lacks_a_concept_does_not_hide_the_published_number(place):
    cells = [make_cell("svm", s, 0.5) for s in range(3)]
    kept = cells[place].true < 79
    fewer = {name: getattr(cells[place], name)[kept] for name in ("true", "folds", "units")}
    cells[place] = replace(cells[place], scores=cells[place].scores[kept, :79], **fewer)
    [row] = summarise_cells(cells, count=19, seed=0)
    assert row["released"] == ("accuracy", 0.392)


@pytest.mark.parametrize(("n_subjects", "possible"), [(1, False), (5, False), (6, True)])
def test_too_few_subjects_for_a_dagger_is_said_in_every_output(n_subjects, possible):
    cells = [small_cell(name, s, "released", right=name == "svm") for name in ("svm", "dt") for s in range(n_subjects)]
    rows = summarise_cells(cells, count=99, seed=0)
    written = [as_text(rows), as_latex(rows).replace(r"$^\dagger$", "†")]
    assert [("No † is possible: with 2 models and" in text) for text in written] == [not possible] * 2
    assert [("best-out-of-reach" in text) for text in (as_csv(rows), str(paper_tables(rows)))] == [not possible] * 2
    assert ("†" in cell_text(rows[1])) == possible
    assert "No †" not in as_text(summarise_cells(cells[:n_subjects], count=99, seed=0))  # of one model


@pytest.mark.parametrize("diagnosed", [False, True])
def test_selection_is_readable_per_granularity_in_every_output(diagnosed):
    rows = make_rows(diagnosed=diagnosed)
    scores, details, selection = paper_tables(rows)
    columns = ["mean", "final", "best_on_test", "gap"] if diagnosed else ["mean", "final"]
    diagnostic = ["best on test (diagnostic, not a result)", "gap"] if diagnosed else []
    assert selection["header"] == ["model", "granularity", "selected", "final", *diagnostic]
    assert not {"final", "gap"} & set(scores["header"])
    assert [line[:2] for line in selection["lines"]] == [["SVM", "all"], ["DT", "all"], ["SVM", "fine"]]
    text, latex, table = as_text(rows), as_latex(rows), as_csv(rows)
    for row, line in zip(rows, selection["lines"], strict=True):
        assert [float(word) for word in line[2:]] == pytest.approx([np.mean(row[name]) for name in columns], abs=6e-4)
        assert " & ".join(line) in latex
        assert line in [written.split() for written in text.splitlines()]
    for written in (text, latex, table, str([scores, details, selection])):
        assert any(word in written for word in ("diagnostic", "gap", "best on test")) == diagnosed
    if diagnosed:
        read = next(csv.DictReader(io.StringIO(table)))
        gap = float(read["best_on_test_diagnostic"]) - float(read["accuracy"])
        assert rows[0]["gap"] == pytest.approx(0.03) and float(read["gap"]) == pytest.approx(gap, abs=1e-5)
    assert (EXPLAINED["diagnosis"] in selection["explanation"]) == diagnosed
    assert " ".join(explanation(rows).split()) in " ".join(text.split())


def test_the_text_fits_into_120_columns():
    cells = [
        replace(make_cell(name, s, 0.0, granularity, protocol, n=160, diagnosed=True), title="Random forest")
        for protocol in ("released", "leave-session-out")
        for granularity in ("all", "coarse", "fine0")
        for name in ("rf", "svm", "mlp")
        for s in range(2)
    ]
    rows = [{**row, "p_best": 0.01} for row in summarise_cells(cells, count=19, seed=0)]
    text = as_text(rows)
    assert "†°" in text and "(ours" in text and max(map(len, text.splitlines())) <= 120
