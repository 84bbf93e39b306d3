"""What memory may cost: the arrays that are asked for and a few pieces of work, however many trials there are."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurocanvas import pages
from neurocanvas.evaluation import confusions, control_inputs, identification, statistics, time_controls
from neurocanvas.evaluation.control_inputs import ControlInputs
from neurocanvas.models import mlp
from neurocanvas.training import losses

MB = 1_000_000
N_TRIALS = 4000


def peak_mb(function: Callable[[], object]) -> float:
    """Most memory that arrays take while a function runs for the second time, when all that it needs is loaded."""
    function()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / MB
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces so small that a table of all trials by all trials, 128 MB, stands out."""
    for module in (identification, statistics, control_inputs, time_controls, mlp, losses):
        monkeypatch.setattr(module, "AT_ONCE", 200_000)


@pytest.fixture
def inputs() -> ControlInputs:
    """Many trials in mixed order, one fold."""
    rng, rows = np.random.default_rng(0), np.arange(N_TRIALS)
    splits = [(rows[rows % 2 == 0], rows[rows % 2 == 1])]
    return ControlInputs(
        rng.normal(size=(N_TRIALS, 4)), rng.integers(0, 4, N_TRIALS), rows, rows, np.zeros_like(rows),
        np.zeros_like(rows), rows, splits, permutations=199,
    )  # fmt: skip


@pytest.mark.parametrize("control", [time_controls.distance_to_training, confusions.confusions_in_time])
def test_controls_of_time_hold_no_table_of_all_pairs_of_trials(small_pieces, inputs, control) -> None:
    """2,000 x 2,000 trials would be 32 MB in each of several tables, 199 shifts of them 6 MB."""
    assert peak_mb(lambda: control(inputs, rng=np.random.default_rng(0))) < 12


def test_permutations_and_resamples_take_little_more_than_what_they_give(small_pieces) -> None:
    rng, trials, values = np.random.default_rng(0), np.arange(N_TRIALS), np.random.default_rng(1).random(N_TRIALS)
    strata = np.zeros(N_TRIALS)
    drawn = 1000 * N_TRIALS * 4 / MB
    assert peak_mb(lambda: statistics.permutations(strata, trials, 1000, rng=rng)) < drawn + 8
    assert peak_mb(lambda: statistics.bootstrap_interval(values, trials, rng=rng, resamples=1000)) < 8
    assert peak_mb(lambda: statistics.paired_permutation_p(values, 1 - values, trials, rng=rng, count=1000)) < 8


@pytest.mark.parametrize(
    "table", [identification.two_way_table, lambda sim: identification.n_way_top_k_table(sim, 50)], ids=["2", "50"]
)
def test_tables_of_scores_take_little_more_than_themselves(small_pieces, table) -> None:
    sim = np.random.default_rng(0).random((1000, 1000))
    assert peak_mb(lambda: table(sim)) < sim.nbytes / MB + 18


def test_similarities_are_of_float64_a_few_rows_at_a_time(small_pieces) -> None:
    features = np.random.default_rng(0).random((150, 20_000), dtype=np.float32)
    assert peak_mb(lambda: identification.similarity(features, features)) < 20  # all in float64: 24 MB, some times over


def test_what_a_mapper_makes_of_many_trials_is_looked_at_a_few_trials_at_a_time(small_pieces) -> None:
    targets = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    posterior = mlp.TargetPosterior(targets, np.ones(3000, np.float32), 1.0)
    assert peak_mb(lambda: posterior.mean(targets)) < 8
    assert peak_mb(lambda: losses.two_way_of_trials(targets, targets, np.ones(3000), np.arange(3000))) < 12


BASIS = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from bench import peak_mb
from neurocanvas.models import TargetBasis, basis
basis.PRODUCTS_UP_TO = 100
TargetBasis.fit(np.random.default_rng(0).normal(size=(101, 2, 50)), np.ones(101, int), 1)  # loads what is needed
targets = np.load(sys.argv[1], mmap_mode="r")
print(peak_mb(lambda: TargetBasis.fit(targets, np.ones(len(targets), int), 2).transform(targets)))
"""


def test_a_basis_is_fitted_on_mapped_targets_that_stay_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "targets.npy"
    part = np.random.default_rng(0).normal(size=(250, 40, 512)).astype(np.float16)
    targets = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(3000, 40, 512))
    for start in range(0, 3000, 250):
        targets[start : start + 250] = np.roll(part, start, axis=2)
    targets.flush()
    del targets
    tools = str(Path(__file__).parents[1] / "tools")
    command = [sys.executable, "-c", BASIS, str(path), tools]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert float(done.stdout) < 150  # the file has 123 MB, in float32 twice that


PAGES = """
import sys, torch, numpy as np
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from bench import peak_mb
from neurocanvas import pages, store
from neurocanvas.large_arrays import growing_array
from neurocanvas.targets.released_files import write_released_embeddings
pages.AT_ONCE = 10_000_000
folder = Path(sys.argv[1])

def grow(embeddings):
    pieces = [range(start, min(start + 50, len(embeddings))) for start in range(0, len(embeddings), 50)]
    with growing_array(folder / "grown.npy", embeddings.shape, "print", pieces) as (array, _, note):
        for number, rows in enumerate(pieces):
            array[rows.start : rows.stop] = 1
            note(number + 1)

def export(embeddings):
    write_released_embeddings(folder / "out.pth", [str(n) for n in range(len(embeddings))], embeddings)

work = {"fingerprint": store.fingerprint, "export": export, "grow": grow}[sys.argv[2]]
embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
work(embeddings[:10])
print(peak_mb(lambda: work(embeddings)))
"""


@pytest.mark.parametrize("verb", ["fingerprint", "export", "grow"])
def test_pages_of_large_files_are_given_back(tmp_path: Path, verb: str) -> None:
    """The file has 118 MB; what is written of it, in float32, twice as many."""
    path, shape = tmp_path / "embeddings.npy", (1000, 77, 768)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)[:] = 1
    command = [sys.executable, "-c", PAGES, str(tmp_path), verb, str(Path(__file__).parents[1] / "tools")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert float(done.stdout) < 60


@pytest.mark.parametrize(
    "array",
    [np.array(3.0), np.zeros((0, 3)), np.zeros((3, 0)), np.arange(20.0).reshape(4, 5).T, np.array(["a", "\u00e9"])],
    ids=["0-d", "empty", "empty rows", "not in order", "text"],
)
def test_pieces_of_an_array_are_its_bytes(monkeypatch: pytest.MonkeyPatch, array: np.ndarray) -> None:
    monkeypatch.setattr(pages, "AT_ONCE", 10)
    assert b"".join(piece.tobytes() for piece in pages.pieces(array)) == array.tobytes()


def test_what_was_written_to_scratch_is_there_when_its_pages_are_gone(tmp_path: Path) -> None:
    with pages.scratch(tmp_path, (1000, 1000)) as array:
        array[:] = 7
        pages.let_go(array)
        assert array.min() == 7
    assert not list(tmp_path.iterdir())
