"""Benchmark of `evaluate`: seconds per 512-pixel image must not grow with the number of images."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from bench import Row, compare
from PIL import Image
from scipy.ndimage import correlate1d

from neurocanvas.config import load_settings
from neurocanvas.evaluation.statistics import OTHERS
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import run_stage

SIZE = 512
LUMA = (0.2125, 0.7154, 0.0721)  # red, green and blue in scikit-image's grey image
ARMS = 2  # the images, and the same ones shuffled


def draw_pictures(folder: Path, count: int, seed: int) -> None:
    """Smooth random colours with a little noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((SIZE, SIZE))
        noise = rng.integers(-8, 9, (SIZE, SIZE, 3))
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")


def evaluate(folder: Path) -> float:
    """CPU seconds of the whole stage, from files to scores; one process, one thread."""
    settings = load_settings(None, data={"pictures": str(folder / "made")}, evaluate={"against": str(folder / "seen")})
    started = time.process_time()
    run_stage(RunFolder(folder / "out", settings), "evaluate")
    return time.process_time() - started


def smooth(pictures: np.ndarray) -> np.ndarray:
    """Local means, as SSIM had them when it compared all pairs."""
    radius = 5
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / 1.5) ** 2)
    rows = correlate1d(pictures, weights / weights.sum(), axis=-2)[..., radius:-radius, :]
    return correlate1d(rows, weights / weights.sum(), axis=-1)[..., radius:-radius]


def all_pairs(folder: Path, few: int, at_once: int = 15) -> float:
    """CPU seconds of SSIM of a few drawn images with all seen ones, without the seen pictures' own moments."""
    seen = np.stack([np.asarray(Image.open(path)) @ LUMA / 255 for path in sorted((folder / "seen").iterdir())])
    drawn = [np.asarray(Image.open(path)) @ LUMA / 255 for path in sorted((folder / "made").iterdir())[:few]]
    spent = 0.0
    for start in range(0, len(seen), at_once):
        right = seen[start : start + at_once]
        means = smooth(right)
        variances = smooth(right * right) - means**2
        started = time.process_time()
        for left in drawn:
            mean = smooth(left)
            variance = smooth(left * left) - mean**2
            covariance = smooth(left * right) - mean * means
            luminance = (2 * mean * means + 0.01**2) / (mean**2 + means**2 + 0.01**2)
            (luminance * (2 * covariance + 0.03**2) / (variance + variances + 0.03**2)).mean(axis=(1, 2))
        spent += time.process_time() - started
    return spent


def seconds_per_picture(count: int, few: int) -> list[Row]:
    """The row of one number of images."""
    with tempfile.TemporaryDirectory() as scratch:
        warm_up, folder = Path(scratch) / "few", Path(scratch) / "all"
        for where, pictures in ((warm_up, 4), (folder, count)):
            draw_pictures(where / "made", pictures, seed=0)
            draw_pictures(where / "seen", pictures, seed=1)
        evaluate(warm_up)
        ours = evaluate(folder) / count
        baseline = ARMS * all_pairs(folder, few) / few
    what = (
        f"CPU seconds per image, {count} images of {SIZE} px and the same ones shuffled; baseline: SSIM alone with "
        f"all {count} seen images, measured on {few} of the drawn ones; ours: the whole of `evaluate` (judge, "
        f"PixCorr and SSIM with at most {OTHERS} others, permutations), one thread"
    )
    return [compare(f"evaluate_{SIZE}px_{count}", baseline, ours, "s", what)]


BENCHMARKS = {
    "evaluate_512px_100": partial(seconds_per_picture, 100, few=3),
    "evaluate_512px_400": partial(seconds_per_picture, 400, few=1),
}
