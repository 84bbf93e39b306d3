"""Benchmarks of the data set: peak memory to convert and to open 16,000 trials, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import Row, compare, peak_mb

from neurocanvas.config import DataSettings, SimulateSettings
from neurocanvas.data import open_trials
from neurocanvas.data.store import convert
from neurocanvas.simulation.dataset import simulate

SIZE = SimulateSettings(subjects=4, concepts=80, trials_per_concept=50)


def peak(function: Callable[[], object]) -> None:
    """Print the memory that a function needs above the imports, MB."""
    import torch  # noqa: F401
    from PIL import Image  # noqa: F401

    print(peak_mb(function))


def peak_of_convert() -> None:
    """Convert the folder of the first argument to that of the second."""
    peak(lambda: convert(DataSettings(root=sys.argv[1]), sys.argv[2]))


def peak_of_open() -> None:
    """Open the data set of the first argument."""
    peak(lambda: open_trials(DataSettings(root=sys.argv[1])))


def peak_of_reading_a_subject() -> None:
    """Open the data set of the first argument and read the signal of one of its subjects."""
    peak(lambda: open_trials(DataSettings(root=sys.argv[1], subjects=("1",))).signal())


def peak_of_plain_load() -> None:
    """Load the whole file, as the released code does on opening."""
    import torch

    peak(lambda: torch.load(Path(sys.argv[1]) / "EEG-ImageNet.pth", weights_only=True))


def peak_of_plain_convert() -> None:
    """Load the whole file, stack its trials and save them as one array."""
    import numpy as np
    import torch

    def plain() -> None:
        content = torch.load(Path(sys.argv[1]) / "EEG-ImageNet.pth", weights_only=True)
        signal = np.stack([record["eeg_data"].numpy() for record in content["dataset"]])
        np.save(Path(sys.argv[2]) / "plain.npy", signal)

    peak(plain)


def memory() -> list[Row]:
    """Peak memory to convert and to open what `neurocanvas simulate --subjects 4 --concepts 80 --trials 50` makes."""

    def measure(program: Callable[[], None], *folders: str) -> float:
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import bench_dataset; "
            f"bench_dataset.{program.__name__}()"
        )
        done = subprocess.run([sys.executable, "-c", code, *folders], stdout=subprocess.PIPE, text=True, check=True)
        return float(done.stdout)

    with tempfile.TemporaryDirectory() as folder:
        released, store = f"{folder}/released", f"{folder}/store"
        simulate(SIZE, released)
        ours = measure(peak_of_convert, released, store)
        theirs = measure(peak_of_plain_convert, released, folder)
        trials = f"{SIZE.n_trials:,} trials, 2 GB"
        return [
            compare(
                "convert_peak_mb", theirs, ours, "MB",
                f"peak memory above the imports, {trials}: `torch.load`, `np.stack` and `np.save`; `convert`, which "
                "maps the file anew for each 2,000 trials",
            ),
            compare(
                "open_peak_mb", measure(peak_of_plain_load, released), measure(peak_of_open, released), "MB",
                f"peak memory above the imports, {trials}: `torch.load`; `open_dataset` of the same file",
            ),
            compare(
                "open_store_peak_mb", measure(peak_of_plain_load, released), measure(peak_of_open, store), "MB",
                f"peak memory above the imports, {trials}: `torch.load`; `open_dataset` of the converted store",
            ),
        ]  # fmt: skip


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {"dataset_memory": memory}
