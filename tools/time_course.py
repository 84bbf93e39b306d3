"""Leave-one-run-out scores of time-course classifiers on the public Muse recordings, as docs/own_recordings.md has."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import neurocanvas as nc

GRATINGS = {
    "frequency (2)": ("{Marker0}", "balanced accuracy"), "orientation (4)": ("{Marker2}", "balanced accuracy"),
    "grating (8)": ("{Marker0}_{Marker2}", "balanced accuracy"),
}  # fmt: skip
COMMON = {"l_freq": 1.0, "h_freq": 30.0, "tmin": -0.2, "tmax": 0.9}
MODELS = ("lda", "logreg", "xdawn")


def score(trials: nc.Trials, model: str, measure: str) -> float:
    """Balanced accuracy of all test trials, or AUC as a mean over folds, whose margins cannot be compared."""
    true, answers, areas = [], [], []
    for fold in nc.make_split(trials, "leave-run-out"):
        decoder = nc.Decoder(model, window=(0.0, 0.8)).set_params(encoder__input="signal")
        test = trials[fold.test]
        answers += decoder.fit(trials[fold.train], validation=trials[fold.validation]).predict(test).tolist()
        true += test.y.tolist()
        areas += [roc_auc_score(test.y, decoder.decision_function(test))] if measure == "AUC" else []
    return np.mean(areas) if areas else balanced_accuracy_score(true, answers)


def main() -> None:
    """Print one row per question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    print("| question | trials | score | chance | " + " | ".join(MODELS) + " |")
    print("|---|--:|---|--:|" + "--:|" * len(MODELS))
    questions = [
        (name, "muse_gratings", measure, {
            **COMMON, "rename": {"Right AUX": "POz"}, "baseline": (-0.2, 0.0), "stimulus": stimulus,
            "events": {"Marker0": {"1": "low", "2": "high", "*": ""}, "Marker2": {"*": "{}"}},
        }) for name, (stimulus, measure) in GRATINGS.items()
    ]  # fmt: skip
    faces = {**COMMON, "tmin": -0.1, "tmax": 0.8, "reject": {"eeg": 100e-6}}
    faces["events"] = {"Marker0": {"1": "house", "2": "face"}}
    questions.append(("face or house, 100 µV rejection", "muse_faces_houses", "AUC", faces))
    for name, folder, measure, recording in questions:
        trials = nc.open_dataset("recordings", data / folder, recording=recording)
        chance = 0.5 if measure == "AUC" else 1 / len(np.unique(trials.y))
        scores = " | ".join(f"{score(trials, model, measure):.3f}" for model in MODELS)
        print(f"| {name} | {len(trials)} | {measure} | {chance:.3f} | {scores} |", flush=True)


if __name__ == "__main__":
    main()
