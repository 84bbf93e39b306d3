"""Faults that were found by reading the code, each with the test that failed while it was there."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pkgutil
import re
import shutil
import sys
from pathlib import Path

import pytest
import tomli_w
import torch
from tiny import TINY, tiny_settings, true_captions
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode

import neurocanvas
from neurocanvas import cli
from neurocanvas.data import splits

# Data are read, not simulated by the run; one arm is enough.
SETTINGS = {name: keys for name, keys in TINY.items() if name != "simulate"} | {
    "generate": {**TINY["generate"], "arms": ["eeg"]},
    "classify": {"models": ["mlp"], "epochs": 3},
}


def command(*words: object) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        patch.setattr(sys, "argv", ["neurocanvas", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue()
    return 0, out.getvalue()


def done(*words: object) -> str:
    """Run a command that must succeed, and return what it printed."""
    code, printed = command(*words)
    if code:
        raise RuntimeError(f"neurocanvas {' '.join(map(str, words))}: {printed}")
    return printed


@contextlib.contextmanager
def counted_splits():
    """Count how often splits are derived, whoever imports the function that derives them."""
    calls, original = [], splits.make_split
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(neurocanvas.__path__, "neurocanvas.")
        if not found.name.endswith("__main__")
    ]

    def counting(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            if vars(module).get("make_split") is original:
                patch.setattr(module, "make_split", counting)
        yield calls


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_data) -> tuple[Path, Path, int]:
    """A run by mlp_sd, complete and before it trained; and how often the splits of its one subject were derived."""
    folder = tmp_path_factory.mktemp("faults")
    captions, settings = folder / "captions.txt", folder / "settings.toml"
    run, untrained = folder / "run", folder / "untrained"
    true = true_captions(tiny_settings().simulate)
    captions.write_text("".join(f"{stimulus}\t{caption}\n" for stimulus, caption in true.items()))
    settings.write_text(tomli_w.dumps(SETTINGS))
    data = ("-d", tiny_data, "-o", run)
    with counted_splits() as calls:
        done("features", "-c", settings, *data)
        done("caption", *data, "--source", captions)
        done("embed", *data)
        shutil.copytree(run, untrained)
        done("train", *data, "-m", "mlp_sd")
        for verb in ("predict", "generate", "evaluate"):
            done(verb, *data)
        done("report", "-o", run)
    return run, untrained, len(calls)


@pytest.fixture(scope="module")
def retrained(made, tmp_path_factory) -> tuple[Path, dict]:
    """The run after `train -m ridge` was accepted or refused, scored and reported again; and its audit."""
    run = Path(shutil.copytree(made[0], tmp_path_factory.mktemp("retrained") / "run"))
    code, printed = command("train", "-m", "ridge", "-o", run)
    if code not in (0, 2):
        raise RuntimeError(printed)
    done("evaluate", "-o", run)
    done("report", "-o", run)
    return run, json.loads(done("audit", run, "--json"))


def test_retrieval_is_scored_by_the_mapper_that_made_the_images(retrained):
    summary = json.loads((retrained[0] / "scores" / "summary.json").read_text())
    assert summary["retrieval"]


def test_the_report_credits_the_mapper_that_made_the_images(retrained):
    page = (retrained[0] / "report.html").read_text()
    text = re.sub(r"<[^>]*>", " ", page)
    assert set(re.findall(r"\b(?:Mapper|Encoder)\s+(\w+)", text)) == {"mlp_sd"}


def test_the_audit_credits_the_mapper_that_made_the_images(retrained):
    assert {one["model"] for case in retrained[1]["cases"] for one in case["results"]} == {"mlp_sd"}


# Verb -> the sidecars of what it makes.
ON_A_DEVICE = {
    "train": "models/*_model.safetensors.json", "predict": "predictions/s0.npy.json",
    "classify": "classification/**/*.json",
}  # fmt: skip


class Moves(TorchFunctionMode):
    """Count the tensors that are moved to a device by `to`, of a tensor or of a module."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        named = any(isinstance(value, str | torch.device) for value in (*args, kwargs.get("device")))
        self.count += named and func is torch.Tensor.to
        return func(*args, **kwargs)


def copied_without(run: Path, verb: str, folder: Path) -> Path:
    """A copy of a run that lacks what the verb makes."""
    copy = Path(shutil.copytree(run, folder / "run"))
    for path in copy.glob(ON_A_DEVICE[verb]):
        path.unlink()
    return copy


@pytest.mark.parametrize("verb", ON_A_DEVICE)
def test_a_device_can_be_chosen_and_is_recorded(verb, made, tmp_path):
    run = copied_without(made[0], verb, tmp_path)
    code, printed = command(verb, "-o", run, "--device", "cpu")
    assert code == 0, printed
    sidecars = [path.read_text() for path in run.glob(ON_A_DEVICE[verb])]
    assert sidecars and all(re.search(r'"device": ?"cpu"', sidecar) for sidecar in sidecars)


@pytest.mark.parametrize("verb", ON_A_DEVICE)
def test_tensors_are_moved_to_the_device(verb, made, tmp_path):
    run = copied_without(made[0], verb, tmp_path)
    with Moves() as moves:
        done(verb, "-o", run)
    assert moves.count


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("verb", ON_A_DEVICE)
def test_training_and_prediction_run_on_cuda(verb, made, tmp_path):
    run = copied_without(made[0], verb, tmp_path)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    code, printed = command(verb, "-o", run, "--device", "cuda")
    assert code == 0, printed
    assert torch.cuda.max_memory_allocated() > before


def test_training_ridge_trains_no_network(made, tmp_path):
    run, steps = Path(shutil.copytree(made[1], tmp_path / "run")), []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    try:
        done("train", "-m", "ridge", "-o", run)
    finally:
        hook.remove()
    assert not steps


def test_splits_are_derived_once_from_features_to_report(made):
    assert made[2] == 1


def test_splits_are_an_artifact_of_the_run(made):
    assert [path.name for path in (made[0] / "splits").glob("*.json")] == ["0.json"]
