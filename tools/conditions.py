"""Posterior mean or matched output as conditions of images: scores on validation images of three simulations."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import neurocanvas as nc
from neurocanvas.config import DEMO, load_settings
from neurocanvas.simulation.dataset import simulate

METRICS = ("two_way", "n_way", "pixcorr", "ssim")


def main(seeds: int = 3) -> None:
    """Print one line per simulation and kind of condition."""
    settings, means = load_settings(DEMO), dict[str, list[list[float]]]()
    print(f"{'seed':6}{'conditions':12}" + "".join(f"{name:>10}" for name in METRICS))
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            simulate(settings.simulate.model_copy(update={"seed": seed}), Path(folder))
            trials = nc.open_dataset("simulated", folder)
            [outer] = nc.make_split(trials, settings=settings.split)
            rest = trials[np.sort(np.concatenate([outer.train, outer.validation]))]  # no test image is ever used
            inner = nc.make_split(rest, settings=settings.split.model_copy(update={"test_fraction": 0.079, "seed": 1}))
            for kind in ("posterior", "output"):
                result = nc.reconstruct(
                    rest, nc.Decoder("mlp_sd", "clip-text@bundled", conditions=kind), nc.load_generator(), inner,
                    arms=("eeg",), progress=False,
                    generate=settings.generate.model_dump(mode="json", include={"steps", "max_trials"}),
                )  # fmt: skip
                scores = [float(result.scores.loc[(name, "eeg"), "value"]) for name in METRICS]
                means.setdefault(kind, []).append(scores)
                print(f"{seed:<6}{kind:12}" + "".join(f"{score:10.3f}" for score in scores), flush=True)
    for kind, scores in means.items():
        print(f"{'mean':6}{kind:12}" + "".join(f"{score:10.3f}" for score in np.mean(scores, axis=0)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
