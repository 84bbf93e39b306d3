"""Pictures beside pictures, a few at a time: the same tables as of all at once, without holding all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurocanvas.config import EvaluateSettings, RunSettings
from neurocanvas.evaluation.networks import LoadedNetwork
from neurocanvas.stages import comparing
from neurocanvas.stages.compared_pictures import Given, Pictures
from neurocanvas.stages.run import Run

SHOWN = np.array([2, 0, 1, 2, 3, 4, 0])


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Given:
    """Seven pictures that were drawn for five seen ones."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")

    def pictures(name: str, count: int) -> Pictures:
        paths = [Path(f"{name}{number}.png") for number in range(count)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / path)
        return Pictures(tuple(paths)).at(folder)

    return Given({"eeg": pictures("drawn", 7)}, pictures("seen", 5), {"eeg": SHOWN})


def test_tables_of_pixels_are_the_same_in_blocks_of_seen_pictures(given, tmp_path, monkeypatch):
    run = Run(tmp_path, RunSettings())
    whole = comparing._pixel_tables(run, (given.drawn["eeg"], given.seen))
    monkeypatch.setattr(comparing, "AT_ONCE", 2)
    blocks = comparing._pixel_tables(run, (given.drawn["eeg"], given.seen))
    assert [table.shape for table in blocks] == [(7, 5)] * 2
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", ["alexnet2", "swav", "top1-of-50", "fid-64"])
def test_metrics_of_networks_are_the_same_a_few_pictures_at_a_time(given, monkeypatch, metric):
    import torch

    most = []

    def forward(pictures):
        most.append(len(pictures))
        return (pictures.reshape(len(pictures), -1)[:, :64].float(),)

    network = LoadedNetwork("pixels", lambda some: torch.from_numpy(np.stack(some)), forward, "here")
    found = []
    for at_once in (64, 2):
        monkeypatch.setattr(comparing, "AT_ONCE", at_once)
        one = comparing.Compared({"eeg": {}}, None, {"eeg": {}}, {"eeg": {}})
        comparing._measure(one, metric, network, given, EvaluateSettings())
        found.append({**one.tables["eeg"], **one.values["eeg"], **one.sets["eeg"]}[metric])
    assert most[:2] == [5, 7] and max(most[3:]) == (2 if metric in comparing.TWO_WAY else 7)
    if metric in comparing.TWO_WAY:
        assert found[0].shape == (7, 5)
    np.testing.assert_equal(*found)
