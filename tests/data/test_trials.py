"""Trials: a table, and signal that is read only where it is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from neurocanvas.data.trials import COLUMNS, Trials
from neurocanvas.errors import NeuroCanvasError


def make_trials(n=6, source="file"):
    """Trials whose signal is their row number; `reads` collects the rows that were read."""
    reads = []

    def read(indices):
        reads.append(indices.tolist())
        return np.broadcast_to(indices[:, None, None], (len(indices), 2, 3)).astype(np.float32)

    table = {name: np.array([f"{name}{i}" for i in range(n)] if kind is np.str_ else range(n), dtype=kind)
             for name, kind in COLUMNS.items()}  # fmt: skip
    return Trials(table, ("O1", "O2"), 250.0, -0.1, read, source), reads


def test_opening_and_selecting_read_nothing():
    trials, reads = make_trials()
    chosen = trials.select(trials.column("order") > 3)
    assert len(chosen) == 2 and reads == []
    chosen.signal([1])
    assert reads == [[5]]


@pytest.mark.parametrize("indices", [[4, 1], np.array([4, 1]), slice(4, None), np.arange(6) > 3, 3])
def test_signal_is_that_of_the_rows_asked_for(indices):
    trials, _ = make_trials()
    signal = trials.signal(indices)
    assert signal.dtype == np.float32
    np.testing.assert_array_equal(signal[:, 0, 0], np.atleast_1d(np.arange(6)[indices]))


def test_a_selection_of_a_selection_keeps_table_and_signal_together():
    trials, _ = make_trials()
    chosen = trials.select([5, 3, 1]).select([2, 0])
    assert chosen.column("order").tolist() == [1, 5]
    assert chosen.column("stimulus").tolist() == ["stimulus1", "stimulus5"]
    assert chosen.signal()[:, 0, 0].tolist() == [1, 5]


def test_the_fingerprint_changes_with_whatever_the_signal_depends_on():
    trials, _ = make_trials()
    assert trials.fingerprint() == make_trials()[0].fingerprint()
    others = [trials.select([0, 1]), trials.select([1, 0]), make_trials(source="other")[0]]
    assert len({trials.fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_a_table_that_does_not_fit_is_refused():
    trials, _ = make_trials()
    table = dict(trials.table)
    with pytest.raises(NeuroCanvasError, match="'concept'"):
        Trials({k: v for k, v in table.items() if k != "concept"}, ("O1",), 250.0, 0.0, trials.read, "x")
    with pytest.raises(NeuroCanvasError, match="one value per trial"):
        Trials({**table, "block": np.arange(4)}, ("O1",), 250.0, 0.0, trials.read, "x")
