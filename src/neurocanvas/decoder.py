"""The decoder: window, features, encoder and target space as one scikit-learn estimator, saved as one file."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sklearn.base import BaseEstimator, clone
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from neurocanvas import artifacts
from neurocanvas.config import EncoderSettings
from neurocanvas.console import progress_lines
from neurocanvas.data.montage import BANDS
from neurocanvas.data.trials import Trials, TrialSpec
from neurocanvas.encoders import build, find_encoder
from neurocanvas.encoders.target_pca import TargetPCA, fit_posterior, posterior_mean
from neurocanvas.errors import NeuroCanvasError, check_file, check_option
from neurocanvas.features.differential_entropy import CHUNK, METHODS, window_samples
from neurocanvas.parallel import threads
from neurocanvas.targets import TARGETS, TargetSpace, embed, target_space
from neurocanvas.targets.pretrained import batches
from neurocanvas.training.loop import (
    AT_ONCE,
    Inputs,
    Units,
    evaluate,
    find_device,
    find_precision,
    own_randomness,
    train,
)
from neurocanvas.training.losses import ConceptLoss, EmbeddingLoss, two_way_of_trials

MICROVOLTS = 1e6
LARGEST_VOLTS = 0.01  # standard deviation within a trial; an array above it is not EEG in volts

# Share of the images, or trials, of each concept that is held out if no validation trials are passed.
HELD_OUT = 0.15

RELEASED_EPOCHS = 1000

# Parameters that say where to compute, not what.
EXECUTION = ("device", "precision", "threads", "verbose")

# Types of scikit-learn that files may hold, beyond those that skops trusts by default.
TRUSTED = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.neighbors._kd_tree.KDTree", "sklearn.tree._tree.Tree",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of images, one row per image, and the row of every trial.

    Parameters
    ----------
    space : TargetSpace
        Their network and layer.
    ids : sequence of str, length n_images
        Names of the images.
    table : array, shape (n_images, *space.shape)
        May be memory-mapped.
    rows : array of int, shape (n_trials,), optional
        Row of every trial; by default there is one trial per image.

    Examples
    --------
    >>> table = Embeddings(TargetSpace("clip-image", (1, 2), "bundled"), ["a", "b"], np.ones((2, 1, 2)))
    >>> len(table.of(["b", "a", "b"]))
    3
    """

    space: TargetSpace
    ids: Sequence[str] | np.ndarray
    table: np.ndarray
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row_of_trial)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_trials, *space.shape)."""
        return len(self), *self.table.shape[1:]

    @property
    def row_of_trial(self) -> np.ndarray:
        """Row of every trial, shape (n_trials,)."""
        return np.arange(len(self.table)) if self.rows is None else self.rows

    def __getitem__(self, trials: Any) -> Embeddings:
        trials = trials[0] if isinstance(trials, tuple) else trials
        return replace(self, rows=np.atleast_1d(self.row_of_trial[trials]))

    def of(self, images: Sequence[str] | np.ndarray) -> Embeddings:
        """Return the embeddings of trials that showed these images."""
        row = {str(name): number for number, name in enumerate(self.ids)}
        missing = [str(name) for name in images if str(name) not in row]
        if missing:
            raise NeuroCanvasError(f"embeddings: {missing[0]} has none; embed the images of these trials.")
        return replace(self, rows=np.array([row[str(name)] for name in images], dtype=np.int64))


def project(
    embeddings: Embeddings, train: np.ndarray, n_components: int, weights: tuple[float, ...]
) -> tuple[TargetPCA, np.ndarray, np.ndarray]:
    """Axes from the training trials; coordinates of all images, (n, k), and squared distances from the axes, (n,)."""
    counts = np.bincount(embeddings.row_of_trial[train], minlength=len(embeddings.table))
    basis = TargetPCA.fit(embeddings.table, counts, n_components, tuple(weights))
    return basis, basis.transform(embeddings.table), basis.squared_distance(embeddings.table)


class Window:
    """The signal of trials in a decoder's window, µV, read and checked when it is indexed."""

    def __init__(self, sources: Sequence[Any], spec: TrialSpec, window: tuple[float, float], flat: bool = True) -> None:
        self.sources, self.samples = sources, window_samples(spec, *window, "window")
        self.ch_names, self.flat = spec.ch_names, flat  # `flat`: whether channels may be
        self.shape = (sum(map(len, sources)), len(spec.ch_names), self.samples.stop - self.samples.start)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = np.atleast_1d(np.arange(len(self))[rows])
        signal, first = np.empty((len(rows), *self.shape[1:]), np.float32), 0
        for source in self.sources:
            inside = (rows >= first) & (rows < first + len(source))
            if inside.any():
                part = rows[inside] - first
                in_volts = isinstance(source, np.ndarray)
                read = np.multiply(source[part], MICROVOLTS, dtype=float) if in_volts else source.signal(part)
                read = read[..., self.samples] if read.shape[-1] != self.shape[-1] else read
                spread = np.ptp(read, axis=-1)  # NaN and infinity show in it
                if (bad := ~np.isfinite(spread) | ((spread == 0) & (not self.flat))).any():
                    trial, chan = np.argwhere(bad)[0]
                    name = part[trial] if in_volts else source.names[part[trial]]
                    problem = f"{self.ch_names[chan]} is {'NaN or infinite' if spread[trial, chan] else 'flat'}"
                    raise NeuroCanvasError(f"X: trial {name}: channel {problem}; leave out that trial or channel.")
                signal[inside] = read
            first += len(source)
        return signal

    def read(self) -> np.ndarray:
        """Read all trials, a chunk at a time."""
        whole = np.empty(self.shape, np.float32)
        for part in batches(len(self), CHUNK):
            whole[part] = self[part]
        return whole

    def fingerprint(self) -> str:
        """Hash the trials and the window."""
        parts = [one if isinstance(one, np.ndarray) else one.fingerprint() for one in self.sources]
        return artifacts.fingerprint(*parts, self.samples.start, self.samples.stop)


class Decoder(BaseEstimator):
    """Decode trials of EEG into concepts, or into embeddings of what was seen.

    A scikit-learn estimator: `clone`, `cross_val_score` and `GridSearchCV` work, with `Trials` or arrays.

    Parameters
    ----------
    encoder : str, type or estimator
        A key of `encoders.ENCODERS`, "braindecode:<model>", an unfitted module class that declares `input` and is
        built from a `TrialSpec` and a `TargetSpace`, or an estimator of scikit-learn.
    target : str
        "concept", or "<space>@<network>", as "clip-text@bundled".
    spec : TrialSpec, optional
        Channels, rate and timing of arrays; `Trials` have their own.
    window : (float, float)
        Part of each trial that is used, s after image onset, end exclusive.
    features : {"gaussian", "eeg-imagenet"}
        Method of the band features, for encoders of features.
    n_components : int
        Number of principal coordinates of the training targets to predict.
    token_weights : tuple of float
        Weights of the tokens' squared errors, from the first token; the last weight holds for all further tokens.
    mse, cosine, contrastive : float
        Weights of the three terms in the training loss of embeddings.
    temperature : float
        Of the contrastive error, in units of the targets' spread.
    learning_rate, weight_decay, epochs, batch_size, patience : float or int, optional
        For networks; by default 1e-3, 3.0, 200, 80 and 30, for concepts the encoder's own two, 300, 80 and 20.
        Training stops after `patience` epochs without improvement.
    recipe : {"default", "released"}
        "released", for concepts only: the released code's optimiser for 1000 epochs, or its penalty; nothing is
        standardised and no epoch selected.
    seed : int
        Of initialisation, batches and dropout.
    device : str
        "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1" or "mps".
    precision : {"auto", "float32", "float16", "bfloat16"}
        Of training; auto is mixed on CUDA. Predictions are made in float32.
    threads : int, optional
        Threads while fitting; None leaves them as they are.
    verbose : bool
        Show a progress line while fitting.
    **encoder_parameters
        ``encoder__<name>``: parameters of the encoder, as ``encoder__dropout=0.3``.

    Attributes
    ----------
    classes_ : array, shape (n_concepts,)
        Concepts, in the order of scores; None for embeddings.
    basis_ : TargetPCA
        Principal axes of the training targets, (k, n_outputs), around their mean; None for concepts.
    spec_ : TrialSpec
        Of the trials that it was fitted on.
    space_ : TargetSpace
        What it predicts.
    prediction_sd_ : array, shape (k,)
        Standard deviations of the predicted coordinates of the validation trials; None for concepts.
    encoder_ : module or estimator
        The fitted encoder.
    history_ : list of dict
        One entry per epoch, or per candidate of an estimator.

    Examples
    --------
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> rng, y = np.random.default_rng(0), np.repeat(["cat", "dog"], 30)
    >>> x = rng.normal(size=(60, 2, 50)) * 1e-5
    >>> x[y == "dog", :, 20:30] += 2e-5
    >>> decoder = Decoder("ridge", spec=TrialSpec(("O1", "O2"), 100.0, 0.0, 50), encoder__input="signal")
    >>> cross_val_score(decoder, x, y, groups=np.arange(60) % 6, cv=GroupKFold(3)).round(1).tolist()
    [1.0, 1.0, 1.0]
    """

    spec_: TrialSpec
    space_: TargetSpace
    classes_: Any
    basis_: Any
    prediction_sd_: Any
    posterior_: tuple[np.ndarray, np.ndarray, float] | None
    encoder_: Any
    history_: list[dict[str, Any]]
    chosen_: Any
    final_: np.ndarray | None
    every_: list[np.ndarray]
    findings_: list[str]
    device_: str
    precision_: str

    def __init__(
        self, encoder: Any = "mlp_sd", target: str = "concept", *, spec: TrialSpec | None = None,
        window: tuple[float, float] = (0.04, 0.44), features: str = "gaussian", n_components: int = 64,
        token_weights: tuple[float, ...] = (), mse: float = 1.0, cosine: float = 0.0, contrastive: float = 10.0,
        temperature: float = 0.1, learning_rate: float | None = None, weight_decay: float | None = None,
        epochs: int | None = None, batch_size: int | None = None, patience: int | None = None,
        recipe: str = "default", seed: int = 0, device: str = "auto", precision: str = "auto",
        threads: int | None = None, verbose: bool = False, **encoder_parameters: Any,
    ) -> None:  # fmt: skip
        self.encoder, self.target, self.spec, self.window, self.features = encoder, target, spec, window, features
        self.n_components, self.token_weights = n_components, token_weights
        self.mse, self.cosine, self.contrastive, self.temperature = mse, cosine, contrastive, temperature
        self.learning_rate, self.weight_decay, self.epochs = learning_rate, weight_decay, epochs
        self.batch_size, self.patience, self.recipe, self.seed = batch_size, patience, recipe, seed
        self.device, self.precision, self.threads, self.verbose = device, precision, threads, verbose
        self.set_params(**encoder_parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters, those of the encoder as ``encoder__<name>``."""
        own = {name: value for name, value in vars(self).items() if name.startswith("encoder__")}
        return {**super().get_params(deep), **own}

    def set_params(self, **parameters: Any) -> Decoder:
        """Set parameters, those of the encoder as ``encoder__<name>``."""
        of_encoder = {name: value for name, value in parameters.items() if name.startswith("encoder__")}
        super().set_params(**{name: value for name, value in parameters.items() if name not in of_encoder})
        if of_encoder and hasattr(self.encoder, "set_params") and not isinstance(self.encoder, type):
            self.encoder = clone(self.encoder)  # the caller's stays as it is
            super().set_params(**of_encoder)
        else:
            self.__dict__.update(of_encoder)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if self.target == "concept" else "regressor"
        tags.classifier_tags, tags.regressor_tags = ClassifierTags(), RegressorTags()
        return tags

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(getattr(self, "encoder_", None), nn.Module):
            self.encoder_.cpu()  # a pickle can be read where there is no GPU
        state: dict[str, Any] = super().__getstate__()
        return state

    @property
    def takes(self) -> str:
        """The encoder's input: features or signal."""
        allowed = find_encoder(self.encoder, self.target).inputs
        return str(check_option("encoder__input", getattr(self, "encoder__input", allowed[0]), allowed))

    def fit(self, X: Any, y: Any = None, *, validation: Any = None) -> Decoder:
        """Fit on trials.

        Parameters
        ----------
        X : Trials, or array of shape (n_trials, n_chans, n_times)
            Arrays are in volts, as in MNE, and need `spec`; they are converted to µV internally.
        y : array of shape (n_trials,), array of shape (n_trials, ...), or Embeddings, optional
            Concepts, or embeddings. By default the concepts of `X`, or the embeddings of the images that it shows.
            A table of `Embeddings` without rows is looked up by the images of `X`.
        validation : Trials, or (X, y), optional
            Trials on which epochs, penalties and temperatures are chosen. By default the last 15 % of the images of
            every concept (of all trials where neither is known), in the order of `X`, which then do not train.

        Returns
        -------
        Decoder

        Raises
        ------
        NeuroCanvasError
            If trials, targets and encoder do not fit one another.
        """
        self._check_parameters()
        name = str(self.target).partition("@")[0]
        check_option("target", self.target if name == "concept" else name, TARGETS)
        spec, targets_ = self._spec_of(X), self._targets(X, y)
        if validation is None:
            sources, held_out = [X], _held_out(X, targets_)
        else:
            other, wanted = validation if isinstance(validation, tuple) and len(validation) == 2 else (validation, None)
            wanted = y if wanted is None and isinstance(y, Embeddings) and y.rows is None else wanted
            if wanted is None and y is not None:
                raise NeuroCanvasError("validation: pass (X, y), as y was given for X; got no y.")
            _check_same(self._spec_of(other), spec, "validation")
            sources, held_out = [X, other], np.arange(len(X) + len(other)) >= len(X)
            targets_ = _joined(targets_, self._targets(other, wanted))
        x = self._prepared(sources, spec)
        rows, chosen = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        with progress_lines(quiet=not self.verbose) as track:
            advance = track(f"fit {find_encoder(self.encoder, self.target).title}", self.epochs or 0)
            return self.fit_prepared(x, targets_, spec, train=rows, validation=chosen, log=lambda _: advance(1))

    def fit_prepared(
        self, x: Any, y: Any, spec: TrialSpec, *, train: np.ndarray, validation: np.ndarray,
        pretrain: np.ndarray | None = None, adapt_to: np.ndarray | None = None, watch: np.ndarray | None = None,
        watch_epochs: bool = False, classes: np.ndarray | None = None,
        projected: tuple[TargetPCA, np.ndarray, np.ndarray] | None = None, start: str = "", state: Path | None = None,
        log: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Decoder:  # fmt: skip
        """Fit on features (n, n_chans, n_bands), or on the window's signal (n, n_chans, n_times) in µV.

        `train`, `validation` and `pretrain` are rows; `y` of other rows is not read. RGNN may `adapt_to` rows without
        labels. `final_` holds the concepts of the rows `watch` after the last epoch, `every_` those after each epoch.
        Training starts from the weights in the file `start`, and resumes from `state` after a kill. `classes` are the
        concepts to score, sorted; by default those of the rows. `projected` is what `project` returns for `train`.
        """
        self._check_parameters()
        concept = self.target == "concept"
        if self.recipe == "released":
            train, validation = np.concatenate([train, validation]), validation[:0]
        phases = {"train": train} if pretrain is None or not len(pretrain) else {"pretrain": pretrain, "train": train}
        every = np.concatenate([*phases.values()])
        what, parameters = self.what()
        self.spec_, self.findings_, self.history_, self.chosen_ = spec, [], [], None
        self.final_, self.every_, self.posterior_, self.unit_ = None, [], None, 1.0
        self.is_module_ = hasattr(what, "forward")
        with nullcontext() if self.threads is None else threads(self.threads):
            inputs = self._inputs(x, learn_from=every)
            self.precision_ = find_precision(self.precision, inputs.device) if self.is_module_ else "float32"
            wanted, units = self._learn_targets(y, len(x), every, train, validation, classes, projected)
            # RMS distance of targets from the mean training target: the unit in which networks are trained
            spread = 1.0 if concept else math.sqrt(units["train_loss"][0])
            if self.is_module_:
                self._fit_module(
                    what, parameters, inputs, wanted, phases, validation, spread, start=start, state=state,
                    x=x, units=units, adapt_to=adapt_to, watch=watch, watch_epochs=watch_epochs, log=log,
                )  # fmt: skip
            else:
                watched = watch if watch_epochs else None
                self._fit_estimator(what, parameters, inputs, wanted, every, validation, watched)
            if not concept:
                found = self.outputs(x, validation)
                if self.is_module_ and self.contrastive and not hasattr(self.encoder_, "fit_closed_form"):
                    unit = self.temperature * spread
                    self.posterior_ = fit_posterior(wanted[train], found, wanted[validation], unit)
                    found = posterior_mean(found, *self.posterior_)
                self.prediction_sd_ = found.std(axis=0)
        return self

    def outputs(self, x: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """Scores of concepts, or coordinates, of features or signal in µV as `fit_prepared` takes them."""
        inputs, rows = self._inputs(x), np.arange(len(x)) if rows is None else rows
        if self.is_module_:
            found: np.ndarray = evaluate(self.encoder_.to(inputs.device), inputs, rows).float().cpu().numpy()
            found = found if self.unit_ == 1 else found * np.float32(self.unit_)
        else:
            values = inputs[rows].flatten(1).numpy()
            if self.target == "concept":
                return _concept_scores(self.encoder_, values, len(self.classes_))
            found = self.encoder_.predict(values).reshape(len(rows), -1).astype(np.float32)
        return found if self.posterior_ is None else posterior_mean(found, *self.posterior_)

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores of concepts, (n_trials, n_concepts), or of two the second's minus the first's, (n_trials,)."""
        if self.target != "concept":
            raise NeuroCanvasError(f"decision_function: only for the target concept; got {self.target}. Use predict.")
        scores = self._of(X, self.outputs)
        return scores[..., 1] - scores[..., 0] if scores.shape[-1] == 2 else scores

    def coordinates(self, X: Any) -> np.ndarray:
        """Predictions in the principal axes of `basis_`: (n_trials, k), or (k,) of one window."""
        if self.target == "concept":
            raise NeuroCanvasError("coordinates: only for embeddings; the target is concept. Use decision_function.")
        return self._of(X, self.outputs)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the concept or the embedding of trials.

        Parameters
        ----------
        X : Trials, or array of shape (n_trials, n_chans, n_times) or (n_chans, n_times)
            Arrays are in volts: whole trials as in fitting, or the decoder's window alone.

        Returns
        -------
        array
            Concepts, (n_trials,), or embeddings, (n_trials, *space.shape); of one window without the first axis.

        Raises
        ------
        NeuroCanvasError
            If channels, sampling rate or window differ from those that the decoder was fitted on.
        """
        if self.target == "concept":
            scores = self._of(X, self.outputs)
            return np.asarray(self.classes_[scores.argmax(axis=-1)])
        return self._of(X, lambda x: self.basis_.inverse(self.outputs(x)))

    def score(self, X: Any, y: Any = None) -> float:
        """Accuracy, or two-way identification of the true embedding among those of all trials; chance is .5."""
        wanted, predicted = self._targets(X, y), self._of(X, self.outputs)
        if self.target == "concept":
            found, known = self.classes_[predicted.argmax(axis=-1)], self.classes_
            if "U" in known.dtype.kind + wanted.dtype.kind:  # `Trials` have the text of labels
                found, known, wanted = (one.astype(str) for one in (found, known, wanted))
            if not np.isin(wanted, known).any():
                raise NeuroCanvasError(f"y: the decoder knows {known[:8].tolist()}; got others, {wanted[:3].tolist()}.")
            return float(np.mean(found == wanted))
        rows, own = np.unique(wanted.row_of_trial, return_inverse=True)
        table = wanted.table[rows]
        true, distance = self.basis_.transform(table), self.basis_.squared_distance(table)
        return float(np.mean(two_way_of_trials(predicted, true[own], distance[own], own)))

    def save(self, path: Path | str) -> None:
        """Write the decoder as one safetensors file for `load_decoder`, without pickle.

        Parameters
        ----------
        path : path-like
            The file to write. Equal decoders give equal bytes.
        """
        check_is_fitted(self, "encoder_", msg="decoder: it is not fitted yet; call fit, or load_decoder.")
        if Path(path).is_dir():
            raise NeuroCanvasError(f"save: the name of a file is needed, as decoder.safetensors; {path} is a folder.")
        parameters = {
            name: value for name, value in self.get_params(deep=False).items()
            if name not in (*EXECUTION, "encoder", "spec")
        }  # fmt: skip
        sidecar = {
            "encoder": self.encoder if isinstance(self.encoder, str) else "",
            "class": type(self.encoder_).__qualname__, "module": self.is_module_,
            "parameters": parameters, "spec": asdict(self.spec_), "space": asdict(self.space_),
            "classes": None if self.classes_ is None else self.classes_.tolist(),
            "chosen": self.chosen_, "unit": self.unit_, "findings": self.findings_,
        }  # fmt: skip
        arrays: dict[str, np.ndarray] = {"input_mean": self.mean_, "input_sd": self.sd_}
        if self.basis_ is not None:
            basis = self.basis_
            arrays |= {"target_mean": basis.mean, "target_axes": basis.axes, "target_sd": basis.target_sd}
            arrays["prediction_sd"] = self.prediction_sd_
            if basis.token_scale is not None:
                arrays["token_scale"] = basis.token_scale
        if self.posterior_ is not None:
            atoms, counts, temperature = self.posterior_
            arrays |= {"posterior.atoms": atoms, "posterior.counts": counts}
            arrays["posterior.temperature"] = np.array([temperature], np.float32)
        if self.is_module_:
            arrays |= {f"module.{name}": one.cpu().numpy() for name, one in self.encoder_.state_dict().items()}
        else:
            arrays["estimator"] = np.frombuffer(_dump_estimator(self.encoder_), np.uint8)
        try:  # one entry only: the order of several is not the same from one process to the next
            head = {"neurocanvas decoder": json.dumps(sidecar, sort_keys=True)}
        except TypeError as error:
            raise NeuroCanvasError(f"save: parameters must be numbers, strings and lists of them ({error}).") from error
        content = save({name: np.array(array, order="C") for name, array in arrays.items()}, metadata=head)
        artifacts.write_text(Path(path), content)

    @property
    def input_spec(self) -> TrialSpec:
        """Spec of the encoder's input: the window, and the bands of features."""
        samples = window_samples(self.spec_, *self.window, "window")
        tmin, n_times = self.spec_.tmin + samples.start / self.spec_.sfreq, samples.stop - samples.start
        return replace(self.spec_, tmin=tmin, n_times=n_times, bands=tuple(BANDS) if self.takes == "features" else ())

    def what(self) -> tuple[Any, dict[str, Any]]:
        """What to build and fit, a module class or a class or an instance of an estimator; and its parameters."""
        row = find_encoder(self.encoder, self.target)
        what = row.concept if self.target == "concept" else row.embedding
        own = {name: value for name, value in vars(self).items() if name.startswith("encoder__")}
        parameters = {name.removeprefix("encoder__"): own[name] for name in own if name != "encoder__input"}
        return resolve_name(what) if isinstance(what, str) else what, parameters

    def _check_parameters(self) -> None:
        """Raise unless parameters are within the bounds of `EncoderSettings`."""
        check_option("recipe", self.recipe, ("default", "released") if self.target == "concept" else ("default",))
        unset = {"learning_rate", "weight_decay", "epochs", "batch_size", "patience"}  # may be None
        shared = {name: getattr(self, name) for name in EncoderSettings.model_fields if hasattr(self, name)}
        given = {name: one for name, one in shared.items() if one is not None or name not in unset}
        given |= {"components": self.n_components, "token_weights": np.asarray(self.token_weights)}
        plain = {name: one.tolist() if isinstance(one, np.generic | np.ndarray) else one for name, one in given.items()}
        try:  # as JSON, in which tuples are lists
            EncoderSettings.model_validate_json(json.dumps(plain, default=str), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])).replace("components", "n_components") or "loss"
            reason, got = first["msg"].removeprefix("Value error, "), first["input"] if first["loc"] else "none above 0"
            raise NeuroCanvasError(f"{where}: {reason}; got {got!r}.") from error
        if self.threads is not None and not (isinstance(self.threads, int | np.integer) and self.threads >= 1):
            raise NeuroCanvasError(f"threads: 1 or more, or None, is allowed; got {self.threads!r}.")
        edges = np.asarray(self.window)
        if edges.shape != (2,) or edges.dtype.kind not in "iuf" or not np.isfinite(edges).all():
            raise NeuroCanvasError(f"window: (start, stop) in s after image onset is needed; got {self.window!r}.")

    def _spec_of(self, X: Any) -> TrialSpec:
        """Spec of the trials: their own, or for arrays the parameter `spec`."""
        if isinstance(X, Trials):
            return X.spec
        if not isinstance(self.spec, TrialSpec):
            raise NeuroCanvasError(f"spec: arrays need a TrialSpec (channels, rate, first sample); got {self.spec!r}.")
        wanted = len(self.spec.ch_names), self.spec.n_times
        if not isinstance(X, np.ndarray) or X.ndim != 3 or X.shape[1:] != wanted:
            got = X.shape if isinstance(X, np.ndarray) else type(X).__name__
            raise NeuroCanvasError(
                f"X: Trials, or an array in volts of shape (n_trials, {wanted[0]} channels, {wanted[1]} samples) as "
                f"spec says, is needed; got {got}."
            )
        return self.spec

    def _targets(self, X: Any, y: Any) -> Any:
        """Concepts, (n_trials,), or Embeddings with a row for each trial."""
        if self.target == "concept":
            if y is None and not isinstance(X, Trials):
                raise NeuroCanvasError("y: arrays need a concept for each trial; got none.")
            import pandas as pd

            y = X.y if y is None else y
            missing, y = np.asarray(pd.isna(y)), np.asarray(y)
            if y.ndim != 1 or missing.any():
                got = f"none for trial {missing.argmax()}" if y.ndim == 1 else y.shape
                raise NeuroCanvasError(f"y: a concept for each trial, shape ({len(X)},), is needed; got {got}.")
            y = np.array(y.tolist()) if y.dtype == object else y
        elif y is None:
            if not isinstance(X, Trials) or X.images is None:
                raise NeuroCanvasError(f"y: the embeddings of {self.target} are needed, as an array or as Embeddings.")
            ids, space = np.unique(X.column("image")).tolist(), target_space(self.target)
            y = Embeddings(space, ids, embed(X.images, ids, space))
        elif not isinstance(y, Embeddings):
            y = np.asarray(y)
            if y.ndim < 2 or y.dtype.kind not in "iuf" or not np.isfinite(y).all():
                raise NeuroCanvasError(f"y: finite embeddings, (n_trials, ...), are needed; got {y.dtype}, {y.shape}.")
            name, _, network = self.target.partition("@")
            y = Embeddings(TargetSpace(name, y.shape[1:], network or "bundled"), [], y, np.arange(len(y)))
        if isinstance(y, Embeddings):
            if str(y.space) not in (self.target, f"{self.target}@bundled"):
                raise NeuroCanvasError(f"y: embeddings of {self.target} are needed; got those of {y.space}.")
            y = y.of(X.column("image")) if y.rows is None and isinstance(X, Trials) else y
        if len(y) != len(X):
            raise NeuroCanvasError(f"y: one target for each of {len(X)} trials is needed; got {len(y)}.")
        return y

    def _prepared(self, sources: Sequence[Any], spec: TrialSpec) -> Any:
        """Features of whole trials, or their signal in the window, read when it is indexed."""
        for X in sources:
            kind = X.dtype if isinstance(X, np.ndarray) else np.dtype(np.float32)
            if not len(X) or kind.kind not in "iuf":
                raise NeuroCanvasError(f"X: numbers of one trial or more are needed; got {len(X)} trials of {kind}.")
            if isinstance(X, np.ndarray) and (sd := float(np.median(X.std(axis=-1, dtype=float)))) > LARGEST_VOLTS:
                raise NeuroCanvasError(f"X: arrays are in volts; a standard deviation of {sd:.3g} V is not EEG.")
        window = Window(sources, spec, self.window, flat=self.takes == "signal")
        if self.takes == "signal":
            return window
        entropy = METHODS[check_option("features", self.features, METHODS)]
        parts = [entropy(window[part], spec.sfreq) for part in batches(len(window), CHUNK)]
        return np.concatenate(parts).astype(np.float32)

    def _of(self, X: Any, answer: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Answer for trials, or for one window."""
        check_is_fitted(self, "encoder_", msg="decoder: it is not fitted yet; call fit, or load_decoder.")
        spec, single = self.spec_, not isinstance(X, Trials) and np.ndim(X) == 2
        if isinstance(X, Trials):
            _check_same(X.spec, spec, "X")
        else:
            got, n_times = np.shape(X), self.input_spec.n_times
            X = np.asarray(X)[None] if single else np.asarray(X)
            if X.ndim != 3 or X.shape[1] != len(spec.ch_names) or X.shape[2] not in (spec.n_times, n_times):
                raise NeuroCanvasError(
                    f"X: {len(spec.ch_names)} channels and {spec.n_times} samples, or the {n_times} of the window, are "
                    f"needed; got {got}. Select the channels and samples that the decoder was fitted on."
                )
        found = answer(self._prepared([X], spec))
        return found[0] if single else found

    def _inputs(self, x: Any, learn_from: np.ndarray | None = None) -> Inputs | Tensor:
        """Check and standardise inputs, by mean and deviation over the rows `learn_from` where these are not known yet.

        Features have a mean and a deviation each, signal has them per channel. Features of embeddings are moved to the
        device at once, others when they are indexed.
        """
        spec, takes = self.input_spec, self.takes
        allowed = len(spec.ch_names), len(spec.bands) or spec.n_times
        if len(x.shape) != 3 or tuple(x.shape[1:]) != allowed:
            raise NeuroCanvasError(
                f"{takes}: shape (n, {allowed[0]} channels, {allowed[1]} {'bands' if spec.bands else 'samples'}) is "
                f"needed; got {tuple(x.shape)}; use the {takes} that this decoder was fitted on."
            )
        if spec.bands and len(bad := np.argwhere(~np.isfinite(x))):
            trial, chan, band = bad[0]
            raise NeuroCanvasError(
                f"features: NaN or infinite at trial {trial}, channel {spec.ch_names[chan]}, band {spec.bands[band]}; "
                "drop that trial or channel and make the features again."
            )
        if learn_from is None:
            pass  # they are known
        elif self.recipe == "released":  # nothing is standardised, and signal is in volts
            self.mean_, self.sd_ = np.zeros(1, np.float32), np.array([1 if spec.bands else MICROVOLTS], np.float32)
        elif spec.bands:
            values = x[learn_from].reshape(len(learn_from), -1).astype(np.float64)
            mean, sd = values.mean(axis=0), values.std(axis=0)
            sd[sd <= 1e-6 * np.maximum(1e-6, np.abs(mean))] = 1.0  # constant features
            self.mean_, self.sd_ = (one.astype(np.float32).reshape(allowed) for one in (mean, sd))
        else:
            sums = np.zeros((2, x.shape[1]))
            for part in np.array_split(learn_from, -(-len(learn_from) // AT_ONCE)):
                signal = x[part]
                sums += signal.sum(axis=(0, 2), dtype=np.float64), np.square(signal, dtype=np.float64).sum(axis=(0, 2))
            mean, square = sums / (len(learn_from) * x.shape[2])
            sd = np.sqrt(np.maximum(square - mean**2, 1e-12))
            self.mean_, self.sd_ = (one.astype(np.float32)[:, None] for one in (mean, sd))
        device = find_device(self.device if self.is_module_ else "cpu")
        self.device_ = device.type
        inputs = Inputs(x, self.mean_, self.sd_, device)
        return inputs[:] if self.target != "concept" and spec.bands else inputs

    def _learn_targets(
        self, y: Any, n: int, every: np.ndarray, train: np.ndarray, validation: np.ndarray, classes: Any,
        projected: tuple[TargetPCA, np.ndarray, np.ndarray] | None,
    ) -> tuple[np.ndarray, Units]:  # fmt: skip
        """Learn classes or basis from the trials that train.

        Returns the codes of concepts, (n,), or coordinates, (n, k), of those and the validation trials, elsewhere -1 or
        NaN; and the `units` of `train` that convert losses of coordinates to MSE per number of the target.
        """
        used = np.concatenate([every, validation])
        rows = y.row_of_trial if isinstance(y, Embeddings) else y
        if len(rows) != n:
            raise NeuroCanvasError(f"y: one target for each of {n} trials is needed; got {len(rows)}.")
        if used.max() >= n:
            raise NeuroCanvasError(f"split: it names trial {used.max()}, but there are {n} trials.")
        if self.target == "concept":
            self.basis_, self.prediction_sd_ = None, None
            self.classes_ = np.unique(y[used]) if classes is None else np.asarray(classes)
            known = len(np.unique(y[every]))
            if known < 2:
                raise NeuroCanvasError(
                    f"training trials of 2 or more concepts are needed, got {known}; choose another granularity or "
                    "protocol."
                )
            self.space_ = TargetSpace("concept", (len(self.classes_),))
            codes = np.full(n, -1)
            codes[used] = np.searchsorted(self.classes_, y[used])
            return codes, {}
        self.classes_, self.space_ = None, y.space
        self.basis_, coordinates, distance = projected or project(y, every, self.n_components, self.token_weights)
        wanted = np.full((n, coordinates.shape[1]), np.nan, np.float32)
        wanted[used] = coordinates[rows[used]]
        variance = float(np.mean(np.sum(wanted[train].astype(np.float64) ** 2, axis=1)))
        outside = {"train_loss": distance[rows[train]], "val_loss": distance[rows[validation]]}
        return wanted, {name: (variance, float(np.mean(left)), self.basis_.mean.size) for name, left in outside.items()}

    def _fit_module(
        self, what: Any, parameters: dict[str, Any], inputs: Inputs | Tensor, wanted: np.ndarray,
        phases: Mapping[str, np.ndarray], validation: np.ndarray, spread: float, *, start: str, state: Path | None,
        x: Any, units: Units, adapt_to: np.ndarray | None, watch: np.ndarray | None, watch_epochs: bool,
        log: Callable[[dict[str, Any]], None],
    ) -> None:  # fmt: skip
        """Train in one phase, or first on the trials to pretrain on; each phase ends at its selected epoch."""
        concept, device = self.target == "concept", inputs.device
        with own_randomness(self.seed, device):
            space = self.space_ if concept else replace(self.space_, shape=wanted.shape[1:])
            network = build(what, self.input_spec, space, parameters)
            if start:
                _start_from(network, start, self.input_spec, self.recipe)
                self.findings_ = ["pretrained-unknown"]
            self.encoder_ = network.to(device)
            if hasattr(network, "fit_closed_form"):
                parts = phases["train"], validation
                known = [(inputs[rows], torch.from_numpy(wanted[rows]).to(device)) for rows in parts]
                network.eval().fit_closed_form(*known[0], *known[1])
                return
            made_from = ""
            if state is not None:  # one that was made from anything else is ignored
                scientific = {key: value for key, value in self.get_params(deep=False).items() if key not in EXECUTION}
                made_from = artifacts.fingerprint(
                    "state 2", x if isinstance(x, np.ndarray) else x.fingerprint(), wanted, *phases.values(),
                    validation, scientific, self.device_, self.precision_,
                )  # fmt: skip
            self.unit_, batch_size = spread, 80 if self.batch_size is None else self.batch_size
            y = torch.from_numpy(wanted if concept else (wanted / self.unit_).astype(np.float32)).to(device)
            weights = self.mse, self.cosine, self.contrastive, self.temperature, batch_size, self.seed
            objective = ConceptLoss() if concept else EmbeddingLoss(*weights)
            for phase, rows in phases.items():
                last = phase == "train"
                epochs, patience, optimizer = self._recipe(network)
                history, self.chosen_, final, every = train(
                    network, inputs, y, rows, validation, objective, optimizer, epochs=epochs, patience=patience,
                    batch_size=batch_size, units=units, precision=self.precision_, adapt_to=adapt_to,
                    watch=watch if last else None, watch_epochs=watch_epochs, state=state if last else None,
                    made_from=made_from, log=log,
                )  # fmt: skip
                self.history_ += [{"phase": phase, **line} for line in history]
        self.every_ = [one.argmax(dim=1).numpy() for one in every]
        self.final_ = None if final is None else final.argmax(dim=1).numpy()
        if hasattr(network, "scale_outputs"):
            network.scale_outputs(self.unit_)
            self.unit_ = 1.0
        network.eval()

    def _recipe(self, network: nn.Module) -> tuple[int, int, torch.optim.Optimizer]:
        """Epochs, patience and optimiser of a network; unset parameters are those of its row."""
        row = find_encoder(self.encoder, self.target)
        kind, rate, decay, epochs, patience = "adamw", row.learning_rate, row.weight_decay, 300, 20
        if self.target != "concept":
            rate, decay, epochs, patience = 1e-3, 3.0, 200, 30
        if self.recipe == "released":
            kind, rate, decay = row.released or (kind, rate, decay)
            epochs = patience = RELEASED_EPOCHS
        else:
            epochs = epochs if self.epochs is None else self.epochs
            patience = patience if self.patience is None else self.patience
            rate = rate if self.learning_rate is None else self.learning_rate
            decay = decay if self.weight_decay is None else self.weight_decay
        options: dict[str, Any] = {"lr": rate, "weight_decay": decay, "fused": True}
        if kind == "sgd":
            return epochs, patience, torch.optim.SGD(network.parameters(), momentum=0.9, **options)
        optimizers = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
        return epochs, patience, optimizers[kind](network.parameters(), **options)

    def _fit_estimator(
        self, what: Any, parameters: dict[str, Any], inputs: Inputs | Tensor, wanted: np.ndarray, rows: np.ndarray,
        validation: np.ndarray, watch: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Fit every candidate; the one with the highest validation accuracy becomes the encoder."""
        row = find_encoder(self.encoder, self.target)
        x, val = (inputs[part].flatten(1).numpy() for part in (rows, validation))
        options = {**(row.fixed or {}), **parameters}
        candidates = (row.released_candidate,) if self.recipe == "released" else row.candidates or (None,)
        if row.parameter in options:
            candidates = (options[row.parameter],)
        elif row.counts_trials:
            candidates = tuple(value for value in candidates if value <= len(rows)) or (len(rows),)
        highest = -1.0
        for value in candidates:
            line = {"candidate": value}
            try:
                chosen = {row.parameter: value} if row.parameter else {}
                made = what(**{**options, **chosen}) if isinstance(what, type) else clone(what)
                if "random_state" not in options and made.get_params().get("random_state", 0) is None:
                    made.set_params(random_state=self.seed)
                made.fit(x, wanted[rows])
                if self.target == "concept" and len(val):
                    scores = _concept_scores(made, val, len(self.classes_))
                    line["val_accuracy"] = float(np.mean(scores.argmax(axis=1) == wanted[validation]))
            except (TypeError, ValueError, AttributeError) as error:  # scikit-learn's checks of parameters and targets
                raise NeuroCanvasError(f"encoder {row.title}: cannot be fitted to these trials ({error}).") from error
            if line.get("val_accuracy", 0.0) > highest:
                highest, self.encoder_, self.chosen_ = line.get("val_accuracy", 0.0), made, value
            if watch is not None:
                watched = inputs[watch].flatten(1).numpy()
                self.every_.append(_concept_scores(made, watched, len(self.classes_)).argmax(axis=1))
            self.history_.append(line)


def load_decoder(path: Path | str, encoder: Any = None) -> Decoder:
    """Read a decoder that `Decoder.save` wrote; neither data set nor run folder is needed.

    Parameters
    ----------
    path : path-like
        The safetensors file.
    encoder : type, optional
        The module class, if the encoder is not one of `encoders.ENCODERS`: a file cannot name code to run.

    Returns
    -------
    Decoder
        Fitted.

    Raises
    ------
    NeuroCanvasError
        If the file is missing, damaged, not a decoder, or its arrays do not fit one another.

    Examples
    --------
    >>> load_decoder("s0.safetensors").predict(window)  # (n_chans, n_times), in V # doctest: +SKIP
    """
    file = check_file(path, "a trained decoder; run the verb train")
    try:
        with safe_open(file, framework="numpy") as opened:
            sidecar = json.loads((opened.metadata() or {})["neurocanvas decoder"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        return assemble(sidecar, arrays, encoder)
    except NeuroCanvasError as error:
        raise NeuroCanvasError(f"{file}: {error}") from error
    except (  # raised by damaged headers, and by arrays that are not a decoder's
        SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NeuroCanvasError(f"{file}: damaged, or not a decoder ({reason[:300]}); train again.") from error


def assemble(sidecar: Mapping[str, Any], arrays: dict[str, np.ndarray], encoder: Any = None) -> Decoder:
    """Make a fitted decoder from its sidecar and arrays, as files hold them."""
    named = sidecar["encoder"]
    estimator = None if sidecar["module"] else _load_estimator(arrays.pop("estimator").tobytes())
    if not named and sidecar["module"] and encoder is None:
        raise NeuroCanvasError(
            f"its encoder is the class {sidecar['class']}, not one of ENCODERS; pass it: load_decoder(path, encoder="
            f"{sidecar['class']})"
        )
    parameters, spec, space = (
        dict[str, Any]((key, tuple(one) if isinstance(one, list) else one) for key, one in sidecar[part].items())
        for part in ("parameters", "spec", "space")
    )
    whole = {name: value for name, value in parameters.items() if named or sidecar["module"] or "__" not in name}
    made = Decoder(encoder or named or clone(estimator), **whole)
    made.spec = made.spec_ = TrialSpec(**spec)  # with `spec` it can be fitted again to arrays
    made.space_, made.is_module_ = TargetSpace(**space), bool(sidecar["module"])
    made.classes_ = None if sidecar["classes"] is None else np.array(sidecar["classes"])
    made.chosen_, made.unit_, made.findings_ = sidecar["chosen"], float(sidecar["unit"]), list(sidecar["findings"])
    made.history_, made.final_, made.every_, made.posterior_, made.basis_ = [], None, [], None, None
    made.mean_, made.sd_ = arrays.pop("input_mean"), arrays.pop("input_sd")
    made.device_, made.precision_, made.prediction_sd_ = "cpu", "float32", None
    if made.target != "concept":
        if arrays["target_mean"].shape != made.space_.shape:
            raise NeuroCanvasError(f"target_mean: {made.space_.shape} is needed; got {arrays['target_mean'].shape}")
        axes, sd, scale = arrays.pop("target_axes"), arrays.pop("target_sd"), arrays.pop("token_scale", None)
        size = math.prod(made.space_.shape)
        if axes.shape != (len(sd), size) or not len(sd):
            raise NeuroCanvasError(
                f"target basis: axes of shape (k, {size}) and k deviations are needed; got {axes.shape} and {sd.shape}."
            )
        made.prediction_sd_ = arrays.pop("prediction_sd")
        if made.prediction_sd_.shape != sd.shape or (scale is not None and scale.shape != made.space_.shape[:1]):
            raise NeuroCanvasError(f"prediction_sd and token_scale: {sd.shape} and {made.space_.shape[:1]} are needed")
        of_numbers = np.ones(size, np.float32) if scale is None else np.repeat(scale, size // len(scale))
        made.basis_ = TargetPCA(arrays.pop("target_mean"), axes, sd, scale, of_numbers)
    if "posterior.atoms" in arrays:
        atoms, counts = arrays.pop("posterior.atoms"), arrays.pop("posterior.counts")
        if atoms.shape != (len(counts), len(made.basis_.target_sd)):
            raise NeuroCanvasError(f"posterior: {len(counts)} atoms of {len(made.basis_.target_sd)} are needed")
        made.posterior_ = atoms, counts, float(arrays.pop("posterior.temperature")[0])
    output = made.space_ if made.basis_ is None else replace(made.space_, shape=made.basis_.target_sd.shape)
    [n], spec_ = output.shape, made.input_spec
    allowed = {(1,), (len(spec_.ch_names), 1), (len(spec_.ch_names), len(spec_.bands) or spec_.n_times)}
    if not {made.mean_.shape, made.sd_.shape} <= allowed or (made.classes_ is not None and len(made.classes_) != n):
        raise NeuroCanvasError(
            f"input_mean, input_sd or classes do not fit {len(spec_.ch_names)} channels, {n} outputs"
        )
    if estimator is not None:
        made.encoder_ = estimator
        return made
    state = {name.removeprefix("module."): torch.from_numpy(np.array(one, order="C")) for name, one in arrays.items()}
    what, of_encoder = made.what()
    with torch.device("meta"):  # initial weights are neither allocated nor drawn
        module: nn.Module = build(what, spec_, output, of_encoder)
    module.load_state_dict(state, assign=True)
    if any(one.is_meta for one in module.buffers()):  # buffers that files do not hold
        with own_randomness(0):
            module = build(what, spec_, output, of_encoder)
        module.load_state_dict(state)
    made.encoder_ = module.eval()
    return made


def _held_out(X: Any, y: Any) -> np.ndarray:
    """Mask of the trials that are held out for validation: the last images, or trials, of every concept."""
    known = X.metadata.columns if isinstance(X, Trials) else ()
    concept: Any = y if not isinstance(y, Embeddings) else X.y if "concept" in known else np.zeros(len(X))
    image = (
        X.column("image") if "image" in known else y.row_of_trial if isinstance(y, Embeddings) else np.arange(len(X))
    )
    mask = np.zeros(len(X), dtype=bool)
    for one in np.unique(concept):
        shown, first = np.unique(image[concept == one], return_index=True)
        if len(shown) > 1:
            count = max(1, round(HELD_OUT * len(shown)))
            mask |= (concept == one) & np.isin(image, shown[np.argsort(first)][-count:])
    if not mask.any() or mask.all():
        raise NeuroCanvasError("validation: too few trials to hold some out; pass others as validation=.")
    return mask


def _joined(one: Any, other: Any) -> Any:
    """Targets of two sets of trials."""
    if not isinstance(one, Embeddings):
        return np.concatenate([one, other])
    if one.table is other.table:
        return replace(one, rows=np.concatenate([one.row_of_trial, other.row_of_trial]))
    rows = np.concatenate([one.row_of_trial, len(one.table) + other.row_of_trial])
    return replace(one, ids=[], table=np.concatenate([one.table, other.table]), rows=rows)


def _check_same(spec: TrialSpec, wanted: TrialSpec, who: str) -> None:
    """Raise if channels, rate or window differ from those that the decoder was fitted on."""
    facts: dict[str, list[Any]] = {
        "channels": [spec.ch_names, wanted.ch_names], "Hz": [spec.sfreq, wanted.sfreq],
        "s of window": [(one.tmin, one.tmin + one.n_times / one.sfreq) for one in (spec, wanted)],
    }  # fmt: skip
    for name, (ours, theirs) in facts.items():
        if ours != theirs:
            if name == "channels" and len(ours) == len(theirs):
                at = next(at for at, one in enumerate(ours) if one != theirs[at])
                says = f"channel {at + 1} is {ours[at]}, the decoder was fitted on {theirs[at]}"
                raise NeuroCanvasError(f"{who}: {says}; reorder or select the channels.")
            ours, theirs = (len(ours), len(theirs)) if name == "channels" else (ours, theirs)
            raise NeuroCanvasError(
                f"{who}: these trials have {ours} {name}, the decoder was fitted on {theirs} {name}; select or "
                "resample them to match, or fit a decoder on these trials."
            )


def _concept_scores(estimator: Any, x: np.ndarray, n_outputs: int) -> np.ndarray:
    """Scores of all concepts from a fitted estimator: the larger, the more probable."""
    answers = [name for name in ("decision_function", "predict_proba", "predict") if hasattr(estimator, name)]
    found = getattr(estimator, answers[0])(x)
    if answers[0] == "predict":
        found = (found[:, None] == estimator.classes_).astype(np.float32)
    elif found.ndim == 1:  # two concepts: one number, positive for the second
        found = np.stack([-found, found], axis=1)
    scores = np.full((len(x), n_outputs), -np.inf, dtype=np.float32)
    scores[:, estimator.classes_] = found
    return scores


def _dump_estimator(estimator: Any) -> bytes:
    """Serialise an estimator with skops, without the addresses and times that differ between equal ones."""
    import skops.io as skops

    with zipfile.ZipFile(io.BytesIO(skops.dumps(estimator))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        nodes: Any = np.load(io.BytesIO(content), allow_pickle=False) if name.endswith(".npy") else np.empty(0)
        if nodes.dtype.names:  # of trees: the bytes between fields are uninitialised
            clean: Any = np.zeros(nodes.shape, nodes.dtype)
            stream = io.BytesIO()
            for field in nodes.dtype.names:
                clean[field] = nodes[field]
            np.save(stream, clean)
            members[name] = stream.getvalue()
    schema, numbers, files = json.loads(members["schema.json"]), {}, {}  # type: ignore[var-annotated]

    def renumber(node: Any) -> None:
        for one in node if isinstance(node, list) else list(node.values()) if isinstance(node, dict) else ():
            renumber(one)
        if isinstance(node, dict) and "__id__" in node:
            key = object() if node.get("__loader__") == "JsonNode" else node["__id__"]
            node["__id__"] = numbers.setdefault(key, len(numbers))
        if isinstance(node, dict) and node.get("file") in members:
            node["file"] = files.setdefault(node["file"], f"{len(files)}{Path(node['file']).suffix}")

    renumber(schema)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for old, new in files.items():
            archive.writestr(zipfile.ZipInfo(new), members[old])
        archive.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema))
    return stream.getvalue()


def _load_estimator(content: bytes) -> Any:
    """Load an estimator of trusted types; others are refused before any object is created."""
    import skops.io as skops

    try:
        unknown = set(skops.get_untrusted_types(data=content)) - set(TRUSTED)
        if unknown:
            raise NeuroCanvasError(f"it holds the types {', '.join(sorted(unknown))}, which are not trusted")
        return skops.loads(content, trusted=list(TRUSTED))
    except (zipfile.BadZipFile, KeyError) as error:
        raise NeuroCanvasError(f"the estimator in it cannot be read ({error})") from error


def _start_from(network: nn.Module, path: Path | str, spec: TrialSpec, recipe: str) -> None:
    """Load weights into a network from a file of ours, or of the released code as its ``-p`` does."""
    file = check_file(path, "weights of a network")
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                names = [name for name in opened.keys() if name.startswith("module.")]  # noqa: SIM118
                state = {name.removeprefix("module."): opened.get_tensor(name) for name in names}
        else:
            state = artifacts.read_torch(file, "weights of a network")
            if not isinstance(state, dict):
                kind = type(state).__name__
                raise NeuroCanvasError(f"{file}: allowed is a state dict, names of weights to tensors; got a {kind}.")
            state = _from_released(state, file, spec, network, recipe)
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise NeuroCanvasError(f"{file}: does not fit this network, or is damaged ({reason[:300]}).") from error


def _from_released(
    state: dict[str, Tensor], file: Path, spec: TrialSpec, network: nn.Module, recipe: str
) -> dict[str, Tensor]:
    """Reorder weights of the released code for our inputs; raise if the settings change what they were trained on."""
    if recipe != "released":
        raise NeuroCanvasError(
            f"{file}: weights of the released code expect inputs that are not standardised, and signal in volts; "
            f"classify.recipe must be 'released' for them (--recipe released), got {recipe!r}."
        )
    if "edge_weight" in state and not getattr(network, "scrambled", True):
        raise NeuroCanvasError(
            f"{file}: weights of the released RGNN are valid in its own layout only; classify.rgnn_layout must "
            "be 'scrambled' for them, got 'channel-major'."
        )
    first = state.get("l1.weight")
    if first is None:
        return state
    by_band = first.reshape(-1, len(spec.bands), len(spec.ch_names))
    return {**state, "l1.weight": by_band.transpose(1, 2).flatten(1)}
