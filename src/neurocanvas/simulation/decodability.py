"""How much of an image can be read from one simulated trial: ridge on its features and on its time course."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import FeatureSettings, SimulateSettings
from neurocanvas.data.eeg_imagenet import WHOLE, open_released
from neurocanvas.evaluation.identification import similarity, two_way_table
from neurocanvas.features.differential_entropy import gaussian_entropy
from neurocanvas.features.window import Window
from neurocanvas.simulation.dataset import CONCEPT_DIMENSIONS, draw_stimuli

N_TRIALS, N_FOLDS, BIN = 900, 5, 20  # BIN: samples per bin of the time course
PENALTIES = np.logspace(0, 6, 13)
_VERSION = 1


def measure(folder: Path, settings: SimulateSettings) -> dict[str, Any]:
    """Measure subject 0 of simulated files and write `decodability.json` beside them, unless it is there."""
    path, whole = folder / "decodability.json", artifacts.read_sidecar(folder / WHOLE)
    inputs = artifacts.fingerprint(whole["fingerprint"], _VERSION)
    if not artifacts.is_cached(path, inputs):
        trials = open_released(folder, "auto")[1]
        trials = trials[trials.column("subject") == "0"]
        trials = trials[np.unique(np.linspace(0, len(trials) - 1, min(len(trials), N_TRIALS)).astype(int))]
        parameters = {stimulus.name: stimulus.parameters for stimulus in draw_stimuli(settings)}
        names, image = np.unique(trials.column("image"), return_inverse=True)
        result = {
            "n_trials": len(trials), "n_images": len(names), "design": settings.design, "response": settings.response,
            "explained_variance": settings.explained_variance, "reached": whole["reached"],
        }  # fmt: skip
        if len(names) >= 2 * N_FOLDS:
            codes, features = np.array([parameters[name] for name in names]), FeatureSettings()
            window = Window([trials], trials.spec, (features.tmin, features.tmax))
            parts = [window[rows] for rows in window.chunks()]
            entropy = [gaussian_entropy(part, trials.spec.sfreq).reshape(len(part), -1) for part in parts]
            course = [part.reshape(len(part), -1, BIN).mean(axis=-1) for part in parts]
            result["differential_entropy"] = read_out(np.concatenate(entropy), codes, image)
            result["time_course"] = read_out(np.concatenate(course), codes, image)
        artifacts.write_json(path, result)
        artifacts.write_sidecar(path, inputs)
    return dict(artifacts.read_json(path, "the decodability of simulated EEG"))


def read_out(features: np.ndarray, codes: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """Cross-validated R² of the concept code, and two-way identification among left-out images, by ridge regression."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    residual, total, two_way = 0.0, 0.0, list[float]()
    for train, test in GroupKFold(N_FOLDS).split(features, groups=image):
        mean = codes[image[train]].mean(axis=0)
        model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(features[train], codes[image[train]] - mean)
        predicted, true = model.predict(features[test]), codes[image[test]] - mean
        residual += ((true - predicted)[:, :CONCEPT_DIMENSIONS] ** 2).sum()
        total += (true[:, :CONCEPT_DIMENSIONS] ** 2).sum()
        shown, column = np.unique(image[test], return_inverse=True)
        table = two_way_table(similarity(predicted, codes[shown] - mean))
        two_way.extend(table[np.arange(len(test)), column])
    return {"concept_r2": 1 - residual / total if total > 1e-9 else 0.0, "two_way": float(np.mean(two_way))}
