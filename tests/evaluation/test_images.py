"""PixCorr and SSIM against numpy and scikit-image."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.pixels import Window, lpips_distance, pixcorr, ssim


def pictures(n: int, seed: int, size: tuple[int, int] = (32, 40)) -> np.ndarray:
    """Smooth random images with a few flat ones in between, as generated images are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / 10.0
    waves = rng.uniform(0.3, 2.0, size=(n, 3, 2))
    stack = np.sin(waves[:, :, :1, None] * rows + waves[:, :, 1:, None] * columns)
    stack = 0.5 + 0.4 * stack + 0.1 * rng.uniform(-1, 1, size=stack.shape)
    stack[n // 2] = 0.25
    return np.moveaxis(stack, 1, -1)


def literal_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """MindEye's call."""
    color, metrics = pytest.importorskip("skimage.color"), pytest.importorskip("skimage.metrics")
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(metrics.structural_similarity(color.rgb2gray(a), color.rgb2gray(b), **how))


@pytest.mark.parametrize("kind", [float, np.float32])
def test_ssim_and_its_table_are_scikit_images_in_single_precision_too(kind) -> None:
    images, others = pictures(3, seed=2).astype(kind), pictures(5, seed=3).astype(kind)
    expected = np.array([[literal_ssim(a.astype(float), b.astype(float)) for b in others] for a in images])
    np.testing.assert_allclose(ssim(images, others, table=True), expected, atol=1e-6)
    np.testing.assert_allclose(ssim(images, others[:3]), np.diag(expected), atol=1e-6)
    np.testing.assert_allclose(ssim(images, images), 1.0, atol=1e-6)


def test_pixcorr_is_numpys_correlation_of_all_pixels() -> None:
    images, others = pictures(4, seed=8)[[0, 1, 3]], pictures(4, seed=9)[[0, 1, 3]]
    expected = np.corrcoef(images.reshape(3, -1), others.reshape(3, -1))[:3, 3:]
    np.testing.assert_allclose(pixcorr(images, others, table=True), expected, atol=1e-10)
    np.testing.assert_allclose(pixcorr(images, others), np.diag(expected), atol=1e-10)


def test_a_picture_of_one_colour_has_no_correlation() -> None:
    images = pictures(2, seed=10)
    flat = np.full_like(images, 0.3)
    assert pixcorr(images, flat).tolist() == [0.0, 0.0]
    assert pixcorr(flat, images, table=True).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("metric", [pixcorr, ssim])
def test_bad_pictures_are_refused(metric, table) -> None:  # type: ignore[no-untyped-def]
    good = pictures(3, seed=11)
    for bad, message in (
        ((good * 255).astype(np.uint8), "Divide 8-bit"), (good * 255, "floats from 0 to 1"),
        (np.where(good == good[0, 0, 0, 0], np.nan, good), "floats from 0 to 1"),
        (good[..., 0], "RGB images"), (good[:, :20], "one size"),
    ):  # fmt: skip
        with pytest.raises(NeuroCanvasError, match=message):
            metric(bad, good, table=table)


def test_pairs_and_sizes_are_checked() -> None:
    good = pictures(3, seed=12)
    for metric in (pixcorr, ssim):
        with pytest.raises(NeuroCanvasError, match="got 2 and 3"):
            metric(good[:2], good)
    with pytest.raises(NeuroCanvasError, match="11 x 11"):
        ssim(good[:, :10], good[:, :10])
    with pytest.raises(NeuroCanvasError, match="8 x 8 pixels, an odd number"):
        ssim(good, good, Window(8))


@pytest.mark.parametrize("how", [(7, 0, True, False), (7, 0, False, False), (11, 1.5, True, False)])
def test_other_windows_are_scikit_images_too(how: tuple[int, float, bool, bool]) -> None:
    window = Window(*how)
    metrics = pytest.importorskip("skimage.metrics")
    images, others = pictures(3, seed=13), pictures(3, seed=14)
    call = {"channel_axis": -1, "data_range": 1.0, "use_sample_covariance": window.sample_covariance}
    call |= {"gaussian_weights": bool(window.sigma), "win_size": window.size}
    expected = [metrics.structural_similarity(a, b, **call) for a, b in zip(images, others)]
    np.testing.assert_allclose(ssim(images, others, window), expected, atol=1e-6)
    assert abs(ssim(images, others, window) - ssim(images, others)).max() > 1e-3


def layers(seed: int, n: int = 3) -> list[np.ndarray]:
    """Features of three layers, some places without any."""
    rng = np.random.default_rng(seed)
    made = [np.maximum(rng.normal(size=(n, c, s, s + 1)), 0) for c, s in ((4, 6), (5, 3), (7, 2))]
    made[0][:, :, 0, 0] = 0
    return made


def test_lpips_is_torchmetrics_steps() -> None:
    steps = pytest.importorskip("torchmetrics.functional.image.lpips")
    torch = pytest.importorskip("torch")
    a, b = layers(19), layers(20)
    heads = [np.abs(np.random.default_rng(21).normal(size=layer.shape[1])) for layer in a]
    expected = sum(
        steps._spatial_average(
            (torch.tensor(head)[None, :, None, None] * (steps._normalize_tensor(torch.tensor(left))
             - steps._normalize_tensor(torch.tensor(right))) ** 2).sum(1, keepdim=True)
        ).flatten()
        for left, right, head in zip(a, b, heads)
    )  # fmt: skip
    # torchmetrics adds its epsilon under the root
    np.testing.assert_allclose(lpips_distance(a, b, heads), expected.numpy(), atol=1e-5)
    assert lpips_distance(a, a, heads).tolist() == [0.0, 0.0, 0.0]


def test_layers_and_heads_must_fit() -> None:
    a, heads = layers(22), [np.ones(4), np.ones(5), np.ones(7)]
    for other, weights in ((a[:2], heads), (a, heads[:2]), (a, [*heads[:2], np.ones(6)]), (layers(22, n=2), heads)):
        with pytest.raises(NeuroCanvasError, match="a head"):
            lpips_distance(a, other, weights)
