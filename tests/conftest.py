"""What all tests share: no network, one thread, the real recordings, and a small run that is complete."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# Before anything imports torch: the bundled networks are too small to share, and processes started here inherit this.
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["NEUROCANVAS_WORKERS"] = "1"  # the command line works in its own process; tests of engines say otherwise

# What runs share is shared by the tests of this process alone.
os.environ["NEUROCANVAS_CACHE"] = tempfile.mkdtemp(prefix="neurocanvas-cache-")
atexit.register(shutil.rmtree, os.environ["NEUROCANVAS_CACHE"], ignore_errors=True)

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / "tiny"), str(ROOT / "tests" / "parallel"), str(ROOT / "tools")]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real recordings; a test that asks for it skips where there is none."""
    folder = os.environ.get("NEUROCANVAS_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NEUROCANVAS_TEST_DATA names no folder of real recordings")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A simulated data set in the released layout: 24 trials of 4 concepts. Only for reading."""
    from tiny import tiny_settings

    from neurocanvas.simulation.dataset import simulate

    return simulate(tiny_settings().simulate, tmp_path_factory.mktemp("data")).parent


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_data) -> Path:
    """The folder of a complete run on `tiny_data`. Only for reading."""
    from tiny import tiny_settings, write_true_captions

    from neurocanvas.pipeline.run import RunFolder
    from neurocanvas.workflow import run_all

    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(tiny_data, folder / "data")
    run = RunFolder(folder, tiny_settings())
    write_true_captions(run)
    run_all(run)
    return folder


@pytest.fixture
def tiny_copy(tiny_run, tmp_path) -> Path:
    """A copy of the complete run that a test may change."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def tiny_fork(tiny_run, tmp_path):
    """Make copies of the complete run with other settings, without what these make stale: tiny_fork(**sections)."""
    from tiny import tiny_settings

    from neurocanvas.pipeline.run import RunFolder
    from neurocanvas.workflow import fork

    def make(**sections):
        folder = tmp_path / f"fork{len(list(tmp_path.glob('fork*')))}"
        settings = tiny_settings(**sections)
        fork(tiny_run, folder, settings)
        return RunFolder(folder, settings)

    return make


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: call(*words) -> (exit code, stdout, stderr)."""
    from neurocanvas import cli

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["neurocanvas", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
