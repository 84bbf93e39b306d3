"""Train one subject's mapper beside its baselines, score them, and write the card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import EncoderSettings
from neurocanvas.data.splits import Fold
from neurocanvas.encoders import EEGSpec, Mapper, MeanMapper, MLPMapper, RidgeMapper, TargetBasis
from neurocanvas.encoders.base import standardisation
from neurocanvas.encoders.checkpoint import save_mapper
from neurocanvas.encoders.mlp import TargetPosterior
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.training.loop import fit
from neurocanvas.training.losses import mse_per_element, spread, two_way_in_targets

LICENCE = "MIT for the weights; the terms of the recordings and pictures that they were trained on apply as well"


def train_mapper(
    features: np.ndarray, targets: np.ndarray, target_of: np.ndarray, split: Fold, spec: EEGSpec,
    settings: EncoderSettings, *, state: Path | None = None, log: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[Mapper, dict[str, Any]]:  # fmt: skip
    """Train every mapper on one split, score all, return the one that the settings name.

    Basis and standardisation are fitted on training trials, epochs and penalties chosen on validation trials; test
    trials are read last, for the scores, when every prediction has been made.

    Parameters
    ----------
    features : array, shape (n_trials, n_chans, n_bands)
        One subject's.
    targets : array, shape (n_targets, 77, 768), any float type
        One per stimulus; may be memory-mapped.
    target_of : array of int, shape (n_trials,)
        Which row of `targets` each trial's stimulus has.
    split : Fold
        Rows of `features`.
    spec : EEGSpec
        What the features and targets are.
    settings : EncoderSettings
        Which mapper, and how to train it.
    state : Path, optional
        Training state of the network, to continue from after a kill; see `training.loop.fit`.
    log : callable
        Called with one dictionary per epoch.

    Returns
    -------
    mapper : Mapper
        The one that `settings.name` names.
    card : dict
        settings, split, selection, history (losses: MSE per number of the target), selected_epoch, scores (per mapper:
        val_mse, test_mse, val_two_way, test_two_way), explained (share of variance in the basis), licence, warnings.

    Raises
    ------
    NeuroCanvasError
        If the arrays do not fit one another or the spec, or hold NaN.
    """
    _check(features, targets, target_of, split, spec)
    flat = spec.check(features)
    mean, sd = standardisation(flat[split.train])
    x = ((flat - mean) / sd).astype(np.float32)
    counts = np.bincount(target_of[split.train], minlength=len(targets))
    basis = TargetBasis.fit(targets, counts, settings.components, settings.token_weights)
    stimuli = basis.transform(targets), basis.squared_distance(targets)  # which of them a trial has is its label
    known = {"train": split.train, "val": split.validation}
    y, distance = ({part: found[target_of[rows]] for part, rows in known.items()} for found in stimuli)
    fitted = x[split.train], y["train"], x[split.validation], y["val"]

    ridge, mlp = RidgeMapper(spec, basis, mean, sd), MLPMapper(spec, basis, mean, sd)
    mappers: dict[str, Mapper] = {"mlp_sd": mlp, "ridge": ridge, "mean": MeanMapper(spec, basis, mean, sd)}
    ridge.fit(*fitted)
    to_mse = _loss_to_mse(y["train"], distance, basis)
    mlp.network, losses, selected = fit(*fitted, settings, state=state, log=lambda line: log(to_mse(line)))
    if settings.contrastive:
        found = mlp.coordinates(features[split.validation])
        mlp.posterior = TargetPosterior.fit(y["train"], found, y["val"], settings.temperature * spread(y["train"]))
    inside = np.sum(basis.target_sd.astype(np.float64) ** 2)
    card = {
        "settings": settings.model_dump(mode="json"),
        "split": {"name": split.name, "fingerprint": split.fingerprint()}
        | {part: len(rows) for part, rows in split.parts().items()},
        "selection": f"lowest val_objective; validation trials are {split.selection}",
        "history": [to_mse(line) for line in losses],
        "selected_epoch": selected,
        "scores": _score(mappers, features, stimuli, target_of, split),
        "explained": float(inside / (inside + np.mean(distance["train"]))),
        "licence": LICENCE,
        "warnings": list(split.warnings),
    }
    return mappers[settings.name], card


def _score(
    mappers: Mapping[str, Mapper],
    features: np.ndarray,
    stimuli: tuple[np.ndarray, np.ndarray],
    target_of: np.ndarray,
    split: Fold,
) -> dict[str, dict[str, float]]:
    """Predict validation and test trials with every mapper, set its `prediction_sd` from the former, then score."""
    rows = {"val": split.validation, "test": split.test}
    predicted = {
        (name, part): mapper.coordinates(features[of_part])
        for name, mapper in mappers.items()
        for part, of_part in rows.items()
    }
    scores: dict[str, dict[str, float]] = {name: {} for name in mappers}
    for (name, part), found in predicted.items():
        stimulus = target_of[rows[part]]
        true, distance = (one[stimulus] for one in stimuli)
        scores[name][f"{part}_mse"] = mse_per_element(found, true, distance, mappers[name].basis)
        scores[name][f"{part}_two_way"] = two_way_in_targets(found, true, distance, stimulus)
        if part == "val":
            mappers[name].prediction_sd = found.std(axis=0)
    return scores


def mapper_table(cards: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Scores of mappers and baselines, mean over trainings, as a table; None without cards that hold scores."""
    cards = [card for card in cards if card.get("scores")]
    if not cards:
        return None
    lines = []
    for name, scores in cards[0]["scores"].items():
        means = [np.mean([card["scores"][name][key] for card in cards]) for key in scores]
        lines.append([name, *(f"{mean:.4f}" for mean in means)])
    return {
        "title": f"Mappers, mean of {len(cards)} trainings; MSE per number of the target, two-way chance .5",
        "header": ["mapper", "val MSE", "val two-way", "test MSE", "test two-way"],
        "lines": lines,
        "warnings": list(dict.fromkeys(warning for card in cards for warning in card["warnings"])),
    }


def train_and_save(
    features: np.ndarray,
    targets: np.ndarray,
    target_of: np.ndarray,
    split: Fold,
    spec: EEGSpec,
    settings: EncoderSettings,
    *,
    path: Path,
    log: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """`train_mapper` unless the file at `path` has the same inputs; resumes after a kill; returns the card."""
    inputs = artifacts.fingerprint(
        features, targets, target_of, split.fingerprint(), spec.ch_names, spec.bands, settings
    )
    state = path.with_name(path.name + ".state")
    if not artifacts.is_done(path, inputs):
        mapper, card = train_mapper(features, targets, target_of, split, spec, settings, state=state, log=log)
        save_mapper(mapper, path, inputs, {"data": artifacts.fingerprint(features), **card})
    state.unlink(missing_ok=True)  # also one that a killed run left here
    return artifacts.read_card(path)


def _loss_to_mse(
    coordinates: np.ndarray, distance: Mapping[str, np.ndarray], basis: TargetBasis
) -> Callable[[dict[str, float]], dict[str, float]]:
    """Make the function that converts a line of `fit`'s history to MSE per number of the target."""
    variance = float(np.mean(np.sum(coordinates.astype(np.float64) ** 2, axis=1)))
    outside = {part: float(np.mean(left)) for part, left in distance.items()}

    def convert(line: dict[str, float]) -> dict[str, float]:
        mse = {
            f"{part}_loss": (line[f"{part}_loss"] * variance + left) / basis.mean.size for part, left in outside.items()
        }
        return {**line, **mse}

    return convert


def _check(features: np.ndarray, targets: np.ndarray, target_of: np.ndarray, split: Fold, spec: EEGSpec) -> None:
    if targets.shape[1:] != spec.target_shape:
        raise NeuroCanvasError(f"targets: shape (n, {spec.target_shape}) is needed; got {targets.shape}; embed again.")
    if len(target_of) != len(features) or target_of.min() < 0 or target_of.max() >= len(targets):
        raise NeuroCanvasError(
            f"target_of: one row of the {len(targets)} targets per trial is needed, for {len(features)} "
            f"trials; got {len(target_of)} from {target_of.min()} to {target_of.max()}."
        )
    last = max(int(rows.max()) for rows in split.parts().values())
    if last >= len(features):
        raise NeuroCanvasError(f"split {split.name}: names trial {last}, but there are {len(features)} trials.")
