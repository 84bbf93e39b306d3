"""From data to predictions: the verbs simulate, features, train and predict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import ARCHITECTURES
from neurocanvas.data.splits import Fold, blocked_trials, groups
from neurocanvas.data.trials import Trials, unique_names
from neurocanvas.decoder import EXECUTION, Decoder, Embeddings, Window, load_decoder, project
from neurocanvas.encoders import find_encoder
from neurocanvas.errors import NeuroCanvasError, check_file, check_name
from neurocanvas.findings import finding, listed, read_findings
from neurocanvas.generation.arms import gain
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.run import Run, write_table
from neurocanvas.targets import TargetSpace
from neurocanvas.targets.pretrained import batches
from neurocanvas.training.losses import mse_per_element, two_way_of_trials

# Purpose of a file of features, for errors.
FEATURES = "features; `neurocanvas features` makes them"

# What the cards of features that train together must agree on.
MADE_BY = ("method", "window", "ch_names", "bands")

# Trials that are predicted in one batch.
AT_ONCE = 64

# A signal of at most this many bytes is read once and stays in memory; a larger one is read batch by batch.
IN_MEMORY = 500_000_000

LICENCE = "MIT for the weights; the terms of the recordings and images that they were trained on apply as well"

# Parameters on which an encoder in closed form depends.
OF_CLOSED_FORM = ("encoder", "target", "window", "features", "n_components", "token_weights")


def simulate(run: Run) -> list[Path]:
    """Write the simulated data set into the run folder."""
    if run.settings.simulate is None:
        return []
    from neurocanvas.simulation.dataset import simulate as write_simulation

    advance = run.track("simulate", run.settings.simulate.n_trials)
    return [write_simulation(run.settings.simulate, run.folder / "data", progress=advance)]


def features(run: Run, *, keep_imported: bool = False) -> list[Path]:
    """Compute the features of every subject, and of others whose trials the protocol trains on."""
    work = partial(_extract, keep_imported=keep_imported)
    return list(run.spread("features", work, list(run.opened)))


def _extract(run: Run, subject: str, *, keep_imported: bool) -> Path:
    """Compute one subject's features, unless they are there."""
    from neurocanvas.data.montage import BANDS
    from neurocanvas.features.differential_entropy import UNITS, extract

    trials, settings, path = run.opened[subject], run.settings.features, run.features_path(subject)
    inputs = artifacts.fingerprint("features", trials.fingerprint(), settings)
    imported = keep_imported and path.is_file() and artifacts.read_card(path).get("imported")
    if not (imported or artifacts.is_done(path, inputs)):
        [values] = artifacts.cached("features", [inputs], lambda _: [extract(trials, settings)])
        card = {
            "method": settings.method,
            "ch_names": list(trials.spec.ch_names),
            "bands": list(BANDS),
            "window": [settings.tmin, settings.tmax],
            "unit": UNITS[settings.method],
        }
        artifacts.write_array(path, values, inputs, card)
    write_trials(run, subject)
    return path


def write_trials(run: Run, subject: str) -> None:
    """Write a subject's trial table beside the features."""
    path, trials = run.features_path(subject).with_name(f"s{subject}_trials.csv"), run.opened[subject]
    write_table(path, {"trial": trials.names, **{name: trials.column(name) for name in trials.metadata}})


def pooled_features_paths(run: Run, subject: str) -> list[Path]:
    """Paths of the features of a subject's pool."""
    return [run.features_path(one) for one in unique_names(run.pool(subject).column("subject"))]


def read_pooled_features(run: Run, subject: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Read the features of a subject's pool."""
    values, card = _read_features(run, subject)
    whose = run.pool(subject).column("subject")
    pooled = np.empty((len(whose), *values.shape[1:]), values.dtype)
    for one in np.unique(whose).tolist():
        part, other = (values, card) if one == subject else _read_features(run, one)
        if any(other.get(key) != card.get(key) for key in MADE_BY):
            raise NeuroCanvasError(
                f"{run.features_path(one)}: made in another way than those of subject {subject}, for which its trials "
                "train; run `neurocanvas features` again."
            )
        pooled[whose == one] = part
    return pooled, card


def _read_features(run: Run, subject: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """A subject's features and their card."""
    path = run.features_path(subject)
    values, card = artifacts.read_array(path, FEATURES), artifacts.read_card(path)
    if len(values) != len(run.opened[subject]):
        raise NeuroCanvasError(f"{path}: made for other trials; run `neurocanvas features` again.")
    return values, card


def read_inputs(run: Run, subject: str, decoder: Decoder) -> Any:
    """What a decoder is fitted on: features of a subject's pool, or its signal in the window."""
    if decoder.takes == "features":
        return read_pooled_features(run, subject)[0]
    pool = run.pool(subject)
    window = Window([pool], pool.spec, decoder.window)
    return window.read() if 4 * math.prod(window.shape) <= IN_MEMORY else window


def made_from(run: Run, subject: str, decoder: Decoder) -> tuple[list[Path], list[str]]:
    """The artifacts that a decoder's inputs are read from, and their hashes."""
    if decoder.takes == "signal":
        return [], [run.pool(subject).fingerprint()]
    paths = [check_file(path, FEATURES) for path in pooled_features_paths(run, subject)]
    return paths, [artifacts.read_card(path)["sha256"] for path in paths]


def make_decoder(run: Run, encoder: str) -> Decoder:
    """The unfitted decoder of embeddings that the settings describe, or the one that a script gave."""
    if run.decoder is not None and encoder == run.settings.encoder.name:
        from sklearn.base import clone

        given: Decoder = clone(run.decoder)
        return given
    settings, of_features, where = run.settings.encoder, run.settings.features, run.settings.execution
    parameters = dict(settings.parameters) if encoder == settings.name else {}
    if encoder == "mlp_sd":
        hidden, activation = ARCHITECTURES[settings.architecture]
        dropout = {name: getattr(settings, name) for name in ("dropout", "input_dropout")}
        parameters = {"hidden": settings.hidden or hidden, **dropout, "activation": activation, **parameters}
    same = (
        "token_weights", "mse", "cosine", "contrastive", "temperature", "learning_rate", "weight_decay", "epochs",
        "batch_size", "patience", "seed",
    )  # fmt: skip
    return Decoder(
        encoder, f"{run.settings.embed.target}@{run.settings.family}", window=(of_features.tmin, of_features.tmax),
        features=of_features.method, n_components=settings.components, device=where.device, precision=where.precision,
        **{name: getattr(settings, name) for name in same},
        **{f"encoder__{name}": value for name, value in parameters.items()},
    )  # fmt: skip


def train(run: Run) -> list[Path]:
    """Train the encoder, and its baselines, for every subject and fold."""
    names = dict.fromkeys((run.settings.encoder.name, *run.settings.encoder.baselines))
    for name in names if run.decoder is None else ():
        find_encoder(name, "embedding")
    units = []
    for subject in run.opened:  # the audit reads these, whatever the encoder is made from
        write_trials(run, subject)
    for subject in run.subjects:  # raises before anything is trained if one cannot be split
        units += [(subject, fold, name) for fold in range(len(run.split(subject).folds)) for name in names]
    return list(run.spread("train", _train, units))


def _train(run: Run, unit: tuple[str, int, str]) -> Path:
    """Train one encoder for one subject and fold, unless it is there; continue after a kill."""
    subject, number, name = unit
    pool, decoder, path = run.pool(subject), make_decoder(run, name), run.model_path(subject, number, name)
    fold = run.split(subject).folds[number].joined()
    read, hashes = made_from(run, subject, decoder)
    parameters = {key: value for key, value in decoder.get_params(deep=False).items() if key not in EXECUTION}
    closed_form = hasattr(decoder.what()[0], "fit_closed_form")
    if closed_form:
        of_encoder = {key: value for key, value in parameters.items() if key.startswith("encoder__")}
        parameters = {key: parameters[key] for key in OF_CLOSED_FORM} | of_encoder
    embedded = run.embeddings_path(run.settings.embed.target)
    target_hash = artifacts.read_card(check_file(embedded, "embeddings; `neurocanvas embed` makes them"))["sha256"]
    inputs = artifacts.fingerprint("train 3", hashes, target_hash, run.stimuli, fold.fingerprint(), parameters)
    state = path.with_name(path.name + ".state")
    if artifacts.is_done(path, inputs):
        state.unlink(missing_ok=True)  # left by a killed run
        return path
    targets = run.targets()
    space = TargetSpace(run.settings.embed.target, targets.shape[1:], run.settings.family)
    y = Embeddings(space, run.stimuli, targets, run.stimulus_rows(pool))
    common = run.settings.encoder.components, run.settings.encoder.token_weights
    projected = process_cache("train", "targets", (run, unit[:2]), lambda: project(y, fold.train, *common))
    left = 0 if closed_form else decoder.epochs or 0
    advance = run.track(f"train {name} s{subject} fold{number}", left)

    def note(line: dict[str, Any]) -> None:
        run.log("train", subject=subject, fold=number, **line)
        advance(1)

    x = process_cache("train", decoder.takes, (run, subject), lambda: read_inputs(run, subject, decoder))
    decoder.fit_prepared(
        x, y, pool.spec, train=fold.train, validation=fold.validation, projected=projected, state=state, log=note
    )
    advance(max(0, left - len(decoder.history_)))  # most trainings end early
    inside = np.sum(decoder.basis_.target_sd.astype(np.float64) ** 2)
    outside = np.mean(projected[2][y.row_of_trial[fold.train]])
    card = {
        "encoder": name, "target": decoder.target, "spec": asdict(decoder.input_spec), "settings": parameters,
        "device": decoder.device_, "precision": decoder.precision_,
        "split": {"name": fold.name, "fingerprint": fold.fingerprint(pool.names)}
        | {part: len(rows) for part, rows in fold.parts().items()},
        "selection": f"lowest validation error; validation trials are {fold.selection}",
        "history": decoder.history_, "selected_epoch": decoder.chosen_,
        "scores": {name: _scores(decoder, *projected[1:], x, y.row_of_trial, fold)},
        "explained": float(inside / (inside + outside)), "licence": LICENCE, "findings": listed(fold.findings),
    }  # fmt: skip
    decoder.save(path)
    artifacts.finish(path, inputs, card, [*read, embedded])
    state.unlink(missing_ok=True)
    return path


def _scores(
    decoder: Decoder, coordinates: np.ndarray, distances: np.ndarray, x: Any, shown: np.ndarray, fold: Fold
) -> dict[str, float]:
    """Error and two-way identification on validation and test trials, whose labels are read after all predictions."""
    rows_of = {"val": fold.validation, "test": fold.test}
    predicted = {part: decoder.outputs(x[rows]) for part, rows in rows_of.items()}
    scores = {}
    for part, found in predicted.items():
        own = shown[rows_of[part]]
        true, distance = coordinates[own], distances[own]
        scores[f"{part}_mse"] = mse_per_element(found, true, distance, decoder.basis_)
        scores[f"{part}_two_way"] = float(np.mean(two_way_of_trials(found, true, distance, own)))
    return scores


def training_table(cards: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Scores of encoders and baselines, mean over trainings, as a table; None if no card holds scores."""
    cards = [card for card in cards if card.get("scores")]
    if not cards:
        return None
    lines = []
    for name in dict.fromkeys(name for card in cards for name in card["scores"]):
        of_name = [card["scores"][name] for card in cards if name in card["scores"]]
        lines.append([name, *(f"{np.mean([scores[key] for scores in of_name]):.4f}" for key in of_name[0])])
    count = sum(next(iter(cards[0]["scores"])) in card["scores"] for card in cards)
    return {
        "title": f"Encoders, mean of {count} trainings; MSE per number of the target, two-way chance .5",
        "header": ["encoder", "val MSE", "val two-way", "test MSE", "test two-way"],
        "lines": lines,
        "findings": listed(one for card in cards for one in read_findings(card["findings"])),
    }


def asked(values: Any, trials: Trials, rows: np.ndarray, average: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs of trials, or their mean over the showings of each image; row of the first showing; number of showings."""
    if not average:
        return values[rows], rows, np.ones(len(rows), dtype=np.int64)
    shown = groups(trials, "subject", "image")[rows]
    _, first, own = np.unique(shown, return_index=True, return_inverse=True)
    showings = np.bincount(own)
    sums = np.zeros((len(first), *values.shape[1:]))
    np.add.at(sums, own, values[rows])
    return (sums / showings[:, None, None]).astype(np.float32), rows[first], showings


def predict(run: Run) -> list[Path]:
    """Predict every test trial by the decoder of its fold."""
    return list(run.spread("predict", _predict, list(run.subjects)))


def _predict(run: Run, subject: str) -> Path:
    """Predict the test trials of one subject in coordinates of their fold's basis, unless that was done."""
    pool, average = run.pool(subject), run.settings.split.average_test
    folds_of = run.split(subject).folds
    models = [run.model_path(subject, number) for number in range(len(folds_of))]
    cards = [artifacts.read_card(check_file(model, "a decoder; `neurocanvas train` makes it")) for model in models]
    decoders = [read_decoder(run, model) for model in models]
    for decoder in decoders:
        decoder.set_params(device=run.settings.execution.device, precision=run.settings.execution.precision)
    read, sources = made_from(run, subject, decoders[0])
    path = run.predictions_path(subject)
    hashes = [card["sha256"] for card in cards]
    inputs = artifacts.fingerprint("predict 3", hashes, [fold.fingerprint() for fold in folds_of], sources, average)
    if artifacts.is_done(path, inputs):
        return path
    values = read_inputs(run, subject, decoders[0])
    tests = [asked(values, pool, fold.test, average) for fold in folds_of]
    own = np.flatnonzero(pool.column("subject") == subject)
    rows = np.searchsorted(own, np.concatenate([shown for _, shown, _ in tests]))  # in the subject's own table
    folds = np.concatenate([np.full(len(shown), number) for number, (_, shown, _) in enumerate(tests)])
    order = np.argsort(rows, kind="stable")
    # shrinkage of predictions is measured on validation trials, averaged as the test trials are
    spreads = [
        decoder.outputs(asked(values, pool, fold.validation, average)[0]).std(axis=0)
        for decoder, fold in zip(decoders, folds_of, strict=True)
    ]
    findings = [one for fold in folds_of for one in fold.findings]
    findings += [one for card in cards for one in read_findings(card.get("findings", []))]  # of imported ones
    most = max(int(showings.max()) for *_, showings in tests)
    if most > 1:
        findings.append(finding("averaged-showings", most=most))
    tested, folds = np.concatenate([inputs_of for inputs_of, *_ in tests])[order], folds[order]
    coordinates = np.zeros((len(rows), max(len(decoder.basis_.target_sd) for decoder in decoders)), np.float32)
    for part in batches(len(tested), AT_ONCE):
        for number in np.unique(folds[part]):
            members = np.flatnonzero(folds[part] == number) + part.start
            found = decoders[number].outputs(tested[members])
            coordinates[members, : found.shape[1]] = found
    seen = run.stimulus_rows(pool)
    artifacts.write_array(path, coordinates, inputs, {
        "encoder": cards[0].get("encoder", "mlp_sd"), "device": decoders[0].device_, "precision": "float32",
        "decoders": [[one.relative_to(run.folder).as_posix(), sha] for one, sha in zip(models, hashes, strict=True)],
        "known": [np.unique(seen[fold.joined().train]).tolist() for fold in folds_of],
        "trials": rows[order].tolist(), "folds": folds.tolist(),
        "gains": [gain(one.basis_.target_sd, sd) for one, sd in zip(decoders, spreads, strict=True)],
        "blocked": bool(blocked_trials(run.subjects[subject]).any()), "findings": listed(findings),
    }, [*read, *models])  # fmt: skip
    return path


def read_decoder(run: Run, path: Path) -> Decoder:
    """Load a decoder of this run."""
    given = None if run.decoder is None or isinstance(run.decoder.encoder, str) else run.decoder.encoder
    return load_decoder(path, given)


def decoders_of(run: Run, subject: str) -> list[Decoder]:
    """The decoders that made a subject's predictions, one per fold, as the predictions say."""
    path, decoders = run.predictions_path(subject), []
    for name, sha256 in artifacts.read_card(path)["decoders"]:
        model = run.folder / check_name(run.folder, name, str(path))
        if artifacts.read_card(check_file(model, "the decoder of these predictions"))["sha256"] != sha256:
            raise NeuroCanvasError(f"{path}: {name} was trained anew since; run `neurocanvas predict` again.")
        decoders.append(read_decoder(run, model))
    return decoders


class Predictions:
    """Predicted targets of a subject's test trials, rebuilt from their coordinates when they are indexed."""

    def __init__(self, run: Run, subject: str) -> None:
        path = run.predictions_path(subject)
        self.coordinates = artifacts.read_array(path, "predictions; `neurocanvas predict` makes them")
        self.bases = [decoder.basis_ for decoder in decoders_of(run, subject)]
        self.folds = np.array(artifacts.read_card(path)["folds"])
        self.means = np.stack([basis.mean for basis in self.bases])
        self.shape = (len(self.coordinates), *self.means.shape[1:])

    def __len__(self) -> int:
        return len(self.coordinates)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """(n, *shape), float32."""
        rows = np.atleast_1d(np.arange(len(self))[rows])
        found = np.empty((len(rows), *self.shape[1:]), np.float32)
        for part in batches(len(self), AT_ONCE):  # fixed batches, so that no number depends on which rows are read
            wanted = np.flatnonzero((rows >= part.start) & (rows < part.stop))
            for number in np.unique(self.folds[rows[wanted]]):
                members, basis = np.flatnonzero(self.folds[part] == number) + part.start, self.bases[number]
                whole = basis.inverse(self.coordinates[members, : len(basis.target_sd)])
                own = wanted[self.folds[rows[wanted]] == number]
                found[own] = whole[np.searchsorted(members, rows[own])]
        return found
