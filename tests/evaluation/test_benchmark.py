"""The benchmark's rows and how they are written."""

import csv
import io

import numpy as np
import pytest

from neurocanvas.evaluation.benchmark import Cell, as_csv, as_latex, as_text, cell_text, paper_tables, summarise_cells


def make_cell(model, subject, hit_rate, granularity="all", protocol="released", n=400, warnings=()):
    """A model that is right in a share of the trials of all concepts, and one trial per unit."""
    rng = np.random.default_rng([subject, len(model), len(granularity)])
    n_concepts = {"a": 80, "c": 40, "f": 8}[granularity[0]]
    true = np.arange(n) % n_concepts
    scores = rng.uniform(size=(n, n_concepts))
    right = rng.uniform(size=n) < hit_rate
    scores[np.arange(n)[right], true[right]] = 2.0
    accuracy = float(np.mean(scores.argmax(axis=1) == true))
    reached = {"selected": accuracy, "final": accuracy - 0.01, "best_on_test": accuracy + 0.03}
    return Cell(
        protocol, granularity, model, model.upper(), subject, scores, true, np.zeros(n, int), np.arange(n), reached,
        2.0, warnings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    cells = [make_cell("svm", s, 0.6, warnings=("Block design: drift.",)) for s in range(8)]
    cells += [make_cell("dt", s, 0.0) for s in range(8)]
    cells += [make_cell("svm", s, 0.5, granularity=f"fine{k}") for s in range(8) for k in range(5)]
    return summarise_cells(cells, count=499, seed=0)


def test_one_row_per_protocol_granularity_and_model(rows):
    assert [(row["granularity"], row["model"]) for row in rows] == [("all", "svm"), ("all", "dt"), ("fine", "svm")]
    assert all(row["subjects"] == list(range(8)) for row in rows)


def test_fine_is_the_mean_of_its_tasks(rows):
    fine = rows[2]
    expected = np.mean([make_cell("svm", 3, 0.5, granularity=f"fine{k}").accuracy["selected"] for k in range(5)])
    assert fine["accuracy"][3] == pytest.approx(expected)
    assert fine["seconds"][3] == 10.0


def test_the_gap_says_what_choosing_on_test_trials_would_add(rows):
    assert rows[0]["gap"] == pytest.approx(0.03)


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
    for written in (text, table, latex):
        assert "Block design: drift." in written
    assert ".392" in text  # the published number beside ours
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_crosspt_numbers_stand_beside_the_same_metric():
    found = summarise_cells([make_cell("mlp", 0, 0.5, "coarse", "leave-session-out")], count=99, seed=0)
    [table] = paper_tables(found)
    assert table["lines"][0][table["header"].index("published")].startswith(".552 (ours ")
