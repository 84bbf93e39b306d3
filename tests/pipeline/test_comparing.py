"""Images beside images: pixels within cells, features a few at a time, and nothing computed twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from neurocanvas.config import RunSettings
from neurocanvas.evaluation.feature_networks import FEATURE_NETWORKS
from neurocanvas.evaluation.pixels import pixcorr, ssim
from neurocanvas.evaluation.statistics import draw_cells
from neurocanvas.pipeline import evaluate as comparing
from neurocanvas.pipeline.evaluate import ImagePairs, cached
from neurocanvas.pipeline.run import RunFolder, read_pictures

SHOWN = np.array([2, 0, 1, 2, 3, 4, 0])


def draw(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def given(tmp_path) -> ImagePairs:
    """Seven images that were drawn for five seen ones."""
    paths = {name: [tmp_path / f"{name}{n}.png" for n in range(count)] for name, count in (("drawn", 7), ("seen", 5))}
    for seed, path in enumerate(paths["drawn"] + paths["seen"]):
        draw(path, seed)
    return anew(paths["drawn"], paths["seen"])


def anew(drawn: list[Path], seen: list[Path]) -> ImagePairs:
    """The files as another call sees them."""
    return ImagePairs({"eeg": np.array(drawn)}, np.array(seen), SHOWN)


@pytest.mark.parametrize("units", [np.arange(7), np.array([0, 0, 0, 1, 1, 2, 3])], ids=["trials", "blocks"])
def test_pixels_are_those_of_the_pairs_that_cells_name(given, tmp_path, monkeypatch, units):
    monkeypatch.setattr("neurocanvas.evaluation.statistics.OTHERS", 2)
    _, partners, _ = draw_cells(np.zeros(7), units, rng=np.random.default_rng(0))
    found = comparing._pixels_in_cells(RunFolder(tmp_path, RunSettings()), given, "eeg", partners)
    assert found.shape == (7, partners.shape[1], 2) and 2 <= partners.shape[1] <= 3
    for trial, column in np.ndindex(partners.shape):
        partner = partners[trial, column]
        if partner < 0:
            assert np.isnan(found[trial, column]).all()
            continue
        files = [given.generated["eeg"][trial]], [given.gallery[int(SHOWN[partner])]]
        pair = [read_pictures(one) / 255 for one in files]
        np.testing.assert_allclose(found[trial, column], [pixcorr(*pair)[0], ssim(*pair)[0]], atol=1e-12)


@pytest.mark.parametrize("metric", ["alexnet2", "swav", "top1-of-50", "fid-64", "lpips"])
def test_features_are_read_a_few_at_a_time_and_once(given, tmp_path, monkeypatch, metric):
    read = []

    def forward(pixels):
        read.append(len(pixels))
        places = pixels.reshape(len(pixels), -1)[:, :64].float()
        return (places[:, :, None, None],) if metric == "lpips" else (places,)

    def measure(where: Path, of: ImagePairs):
        unit = metric, FEATURE_NETWORKS["swav"], [metric]
        return comparing._measure(of, RunFolder(where, RunSettings()), unit)[0][metric]["eeg"]

    loaded = lambda some: torch.from_numpy(np.stack(list(some))), forward
    monkeypatch.setattr("neurocanvas.evaluation.feature_networks.load_network", lambda *_, **__: loaded)

    class Distance(torch.nn.Module):  # in the place of torchmetrics', which needs torchvision
        def __init__(self, pnet_rand):
            super().__init__()
            self.net = torch.nn.Module()

        def forward(self, *sides):
            left, right = (self.net.forward(pixels)[0].double() for pixels in sides)
            return ((left - right) ** 2).mean(dim=(1, 2, 3))

    package = SimpleNamespace(_LPIPS=Distance)
    monkeypatch.setattr("neurocanvas.evaluation.feature_networks.import_extra", lambda name: package)
    whole = measure(tmp_path / "one", given)
    monkeypatch.setattr(comparing, "AT_ONCE", 2)
    np.testing.assert_equal(measure(tmp_path / "other", given), whole)
    assert max(read[2:]) == (5 if metric in comparing.WIDE else 7)
    read.clear()
    np.testing.assert_equal(measure(tmp_path / "one", anew(given.generated["eeg"], given.gallery)), whole)
    assert read == []
    draw(given.generated["eeg"][3], 99)
    changed = measure(tmp_path / "one", anew(given.generated["eeg"], given.gallery))
    assert read == {"alexnet2": [5, 1], "lpips": [1, 1]}.get(metric, [1])
    same = np.arange(7) != 3
    if metric == "fid-64":
        assert changed["value"] != whole["value"]
    else:
        np.testing.assert_equal(changed[same], whole[same])
        assert metric == "top1-of-50" or not np.array_equal(changed[3], whole[3])


def test_rows_are_stored_once_per_key_and_forgotten_when_no_longer_needed(tmp_path):
    run, asked = RunFolder(tmp_path, RunSettings()), []

    def lengths(keys, made_by="x"):
        def compute(rows):
            asked.append([keys[row] for row in rows])
            return np.array([[len(keys[row]), 0.5] for row in rows])

        return cached(run, "lengths", made_by, keys, compute)[:, 0].tolist()

    assert lengths(["bb", "a", "bb", "ccc"]) == [2, 1, 2, 3] and lengths(["ccc", "a"]) == [3, 1]
    assert lengths(["a", "dddd", "ccc"]) == [1, 4, 3] and lengths(["bb"]) == [2]
    assert asked == [["bb", "a", "ccc"], ["dddd"], ["bb"]]
    assert lengths(["bb"], "y") == [2] and asked[-1] == ["bb"] and len(asked) == 4
