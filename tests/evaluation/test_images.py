"""PixCorr against numpy, and SSIM against numbers of an independent implementation."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.pixels import BREAD_SSIM, pixcorr, ssim


def pictures(n: int, seed: int, size: tuple[int, int] = (32, 40)) -> np.ndarray:
    """Smooth random images with a few flat ones in between, as generated images are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / 10.0
    waves = rng.uniform(0.3, 2.0, size=(n, 3, 2))
    stack = np.sin(waves[:, :, :1, None] * rows + waves[:, :, 1:, None] * columns)
    stack = 0.5 + 0.4 * stack + 0.1 * rng.uniform(-1, 1, size=stack.shape)
    stack[n // 2] = 0.25
    return np.moveaxis(stack, 1, -1)


# Of `pictures(3, seed=2)` (rows) and `pictures(3, seed=3)`, by our own Gaussian window before scikit-image took over: a
# digit that changes in a release of scikit-image is seen here. Tolerance 1e-9; the two differed by 1e-16.
GOLDEN = [
    [0.100327774724, 0.153514914199, -0.037124110293],
    [0.144301999428, 1.0, 0.123753493674],
    [0.380342280606, 0.133532157664, 0.069780717037],
]
GOLDEN_BREAD = [0.061090104750, 1.0, 0.134153694669]  # of the pairs, in colour and in a flat window


def test_ssim_gives_the_numbers_that_were_published_with_earlier_runs() -> None:
    images, others = pictures(3, seed=2), pictures(3, seed=3)
    np.testing.assert_allclose(ssim(images, others, table=True), GOLDEN, atol=1e-9)
    np.testing.assert_allclose(ssim(images, others), np.diag(GOLDEN), atol=1e-9)
    np.testing.assert_allclose(ssim(images.astype(np.float32), others), np.diag(GOLDEN), atol=1e-6)
    np.testing.assert_allclose(ssim(images, others, BREAD_SSIM), GOLDEN_BREAD, atol=1e-9)


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
        with pytest.raises(NeuroCanvasError, match=r"got \(2, 32, 40\) and \(3, 32, 40\)"):
            metric(good[:2], good)
    with pytest.raises(NeuroCanvasError, match="11 x 11 pixels or more"):
        ssim(good[:, :10], good[:, :10])
