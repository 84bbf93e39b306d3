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
from sklearn.metrics import accuracy_score
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from neurocanvas import artifacts
from neurocanvas.config import ARCHITECTURES, EncoderSettings
from neurocanvas.console import progress_lines
from neurocanvas.data.trials import Trials, TrialSpec
from neurocanvas.encoders import build, find_encoder
from neurocanvas.encoders.target_pca import TargetPCA, fit_posterior, posterior_mean
from neurocanvas.errors import NeuroCanvasError, check_file, check_option
from neurocanvas.features.differential_entropy import METHODS, band_features, usable_bands
from neurocanvas.features.window import MICROVOLTS, Window, window_samples
from neurocanvas.parallel import threads
from neurocanvas.targets import TARGETS, TargetSpace, embed, target_space
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

LARGEST_VOLTS = 0.01  # standard deviation within a trial; an array above it is not EEG in volts

# Share of the images, or trials, of each concept that is held out if no validation trials are passed.
HELD_OUT = 0.15

RELEASED_EPOCHS = 1000

# Parameters that say where to compute, not what.
EXECUTION = ("device", "precision", "threads", "verbose")

# Types of scikit-learn that files may hold, beyond those that skops trusts by default.
TRUSTED = (
    "neurocanvas.encoders.xdawn.XdawnTangent", "pyriemann.estimation.XdawnCovariances",
    "pyriemann.spatialfilters.Xdawn", "pyriemann.tangentspace.TangentSpace",
    "sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.neighbors._kd_tree.KDTree", "sklearn.tree._tree.Tree",
)  # fmt: skip

NOT_FITTED = "decoder: it is not fitted yet; call fit, or load_decoder."


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
        try:
            return replace(self, rows=np.array([row[str(name)] for name in images], dtype=np.int64))
        except KeyError as error:
            raise NeuroCanvasError(f"embeddings: {error.args[0]} has none; embed the images of these trials.") from None


def project(
    embeddings: Embeddings, train: np.ndarray, n_components: int, weights: tuple[float, ...]
) -> tuple[TargetPCA, np.ndarray, np.ndarray]:
    """Axes from the training trials; coordinates of all images, (n, k), and squared distances from the axes, (n,)."""
    counts = np.bincount(embeddings.row_of_trial[train], minlength=len(embeddings.table))
    basis = TargetPCA.fit(embeddings.table, counts, n_components, tuple(weights))
    return basis, basis.transform(embeddings.table), basis.squared_distance(embeddings.table)


def _decodes_concepts(decoder: Decoder) -> bool:
    return decoder.target == "concept"


def _has_probabilities(decoder: Decoder) -> bool:
    encoder = getattr(decoder, "encoder_", None) or decoder.encoder_class()[0]
    return decoder.target == "concept" and (hasattr(encoder, "forward") or hasattr(encoder, "predict_proba"))


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
    bands : mapping of str to (float, float), optional
        Edges of the bands, Hz; by default `data.montage.BANDS`. Those that the trials cannot hold are left out.
    bin_width : float
        Estimators of the signal get its means over bins of this many s; 0: every sample.
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
        "released": nothing is standardised, and training is that of the released code: its optimiser for 1000 epochs,
        or its penalty, without validation trials; of `mlp_sd` for embeddings its layers, squared error alone, and the
        epoch with the lowest validation loss; its features are those of "eeg-imagenet".
    conditions : {"posterior", "output"}
        Predicted embeddings of a network with a contrastive loss: the posterior mean over the training targets, or
        the network's output, matched to their mean and scale on validation trials.
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
    matched_: np.ndarray | None  # (k + 1,): mean output, and the factor that gives it the targets' scale
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
        window: tuple[float, float] = (0.04, 0.44), features: str = "gaussian", bands: Any = None,
        bin_width: float = 0.02, n_components: int = 64, token_weights: tuple[float, ...] = (), mse: float = 1.0,
        cosine: float = 0.0, contrastive: float = 10.0, temperature: float = 0.1, learning_rate: float | None = None,
        weight_decay: float | None = None, epochs: int | None = None, batch_size: int | None = None,
        patience: int | None = None, recipe: str = "default", conditions: str = "posterior", seed: int = 0,
        device: str = "auto", precision: str = "auto", threads: int | None = None, verbose: bool = False,
        **encoder_parameters: Any,
    ) -> None:  # fmt: skip
        self.encoder, self.target, self.spec, self.window, self.features = encoder, target, spec, window, features
        self.bands, self.bin_width = bands, bin_width
        self.n_components, self.token_weights = n_components, token_weights
        self.mse, self.cosine, self.contrastive, self.temperature = mse, cosine, contrastive, temperature
        self.learning_rate, self.weight_decay, self.epochs = learning_rate, weight_decay, epochs
        self.batch_size, self.patience, self.recipe, self.seed = batch_size, patience, recipe, seed
        self.conditions = conditions
        self.device, self.precision, self.threads, self.verbose = device, precision, threads, verbose
        self.set_params(**encoder_parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters, those of the encoder as ``encoder__<name>``."""
        of_encoder = {name: value for name, value in vars(self).items() if name.startswith("encoder__")}
        return {**super().get_params(deep), **of_encoder}

    def set_params(self, **parameters: Any) -> Decoder:
        """Set parameters, those of the encoder as ``encoder__<name>``."""
        of_encoder = {name: value for name, value in parameters.items() if name.startswith("encoder__")}
        super().set_params(**{name: value for name, value in parameters.items() if name not in of_encoder})
        if of_encoder and hasattr(self.encoder, "set_params") and not isinstance(self.encoder, type):
            self.encoder = clone(self.encoder)  # the caller's estimator stays as it is
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
        self.check_parameters()
        spec, targets = self._spec_of(X), self._targets(X, y)
        if validation is None:
            sources, held_out = [X], _held_out(X, targets)
        else:
            X_val, y_val = validation if isinstance(validation, tuple) and len(validation) == 2 else (validation, None)
            y_val = y if y_val is None and isinstance(y, Embeddings) and y.rows is None else y_val
            if y_val is None and y is not None:
                raise NeuroCanvasError("validation: pass (X, y), as y was given for X; got no y.")
            _check_same(self._spec_of(X_val), spec, "validation")
            sources, held_out = [X, X_val], np.arange(len(X) + len(X_val)) >= len(X)
            targets = _joined(targets, self._targets(X_val, y_val))
        x = self._prepared(sources, spec)
        train, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        with progress_lines(quiet=not self.verbose) as track:
            advance = track(f"fit {find_encoder(self.encoder, self.target).title}", self.epochs or 0)
            return self.fit_prepared(x, targets, spec, train=train, validation=validation, log=lambda _: advance(1))

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
        concept = self.target == "concept"
        if self.recipe == "released" and concept:
            train, validation = np.concatenate([train, validation]), validation[:0]
        phases = {"train": train} if pretrain is None or not len(pretrain) else {"pretrain": pretrain, "train": train}
        trained = np.concatenate([*phases.values()])
        encoder_class, parameters = self.encoder_class()
        self.spec_, self.findings_, self.history_, self.chosen_ = spec, [], [], None
        self.final_, self.every_, self.posterior_, self.matched_, self.unit_ = None, [], None, None, 1.0
        self.is_module_ = hasattr(encoder_class, "forward")
        with nullcontext() if self.threads is None else threads(self.threads):
            inputs = self._inputs(x, learn_from=trained)
            self.precision_ = find_precision(self.precision, inputs.device) if self.is_module_ else "float32"
            y_of_trial, units = self._learn_targets(y, len(x), trained, train, validation, classes, projected)
            # RMS distance of targets from the mean training target: the unit in which networks are trained
            target_rms = 1.0 if concept else math.sqrt(units["train_loss"][0])
            if self.is_module_:
                self._fit_module(
                    encoder_class, parameters, inputs, y_of_trial, phases, validation, target_rms, start=start,
                    state=state, x=x, units=units, adapt_to=adapt_to, watch=watch, watch_epochs=watch_epochs, log=log,
                )  # fmt: skip
            else:
                watched = watch if watch_epochs else None
                self._fit_estimator(encoder_class, parameters, inputs, y_of_trial, trained, validation, watched)
            if not concept:
                predicted = self.outputs(x, validation)
                contrastive = self.contrastive if self.recipe == "default" else 0
                if self.is_module_ and contrastive and not hasattr(self.encoder_, "fit_closed_form"):
                    if self.conditions == "posterior":
                        unit = self.temperature * target_rms
                        self.posterior_ = fit_posterior(y_of_trial[train], predicted, y_of_trial[validation], unit)
                    else:
                        factor = target_rms / (math.sqrt(float(predicted.var(axis=0).sum())) or 1.0)
                        self.matched_ = np.append(predicted.mean(axis=0), factor).astype(np.float32)
                    predicted = self.outputs(x, validation)
                self.prediction_sd_ = predicted.std(axis=0)
        return self

    def outputs(self, x: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """Scores of concepts, or coordinates with the least squared error, of features or signal in µV."""
        outputs = self.network_outputs(x, rows)
        if self.matched_ is not None:
            outputs = (outputs - self.matched_[:-1]) * self.matched_[-1]
        return outputs if self.posterior_ is None else posterior_mean(outputs, *self.posterior_)

    def network_outputs(self, x: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """What the encoder itself gives: a contrastive network's directions, which retrieve better than `outputs`."""
        inputs, rows = self._inputs(x), np.arange(len(x)) if rows is None else rows
        if not self.is_module_:
            values = self._of_estimator(inputs, rows)
            if self.target == "concept":
                return _concept_scores(self.encoder_, values, len(self.classes_))
            return np.asarray(self.encoder_.predict(values), np.float32).reshape(len(rows), -1)
        return evaluate(self.encoder_.to(inputs.device), inputs, rows).float().cpu().numpy() * np.float32(self.unit_)

    @available_if(_decodes_concepts)
    def decision_function(self, X: Any) -> np.ndarray:
        """Scores of concepts, (n_trials, n_concepts), or of two the second's minus the first's, (n_trials,)."""
        scores = self._of(X, self.outputs)
        return scores[..., 1] - scores[..., 0] if scores.shape[-1] == 2 else scores

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of concepts, (n_trials, n_concepts): softmax of a network's scores, or the estimator's own."""
        if self.is_module_:
            return torch.from_numpy(self._of(X, self.outputs)).softmax(dim=-1).numpy()
        scores = self._of(X, lambda x: _concept_scores(
            self.encoder_, self._of_estimator(self._inputs(x), slice(None)), len(self.classes_), ("predict_proba",)
        ))  # fmt: skip
        return np.maximum(scores, 0)  # concepts without training trials

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
        true, predicted = self._targets(X, y), self._of(X, self.network_outputs)
        if self.target == "concept":
            names, classes = self.classes_[predicted.argmax(axis=-1)], self.classes_
            if "U" in classes.dtype.kind + true.dtype.kind:  # `Trials` have the text of labels
                names, classes, true = names.astype(str), classes.astype(str), true.astype(str)
            if not np.isin(true, classes).any():
                raise NeuroCanvasError(f"y: the decoder knows {classes[:8].tolist()}; got others, {true[:3].tolist()}.")
            return float(accuracy_score(true, names))
        rows, image = np.unique(true.row_of_trial, return_inverse=True)
        table = true.table[rows]
        coordinates, distance = self.basis_.transform(table), self.basis_.squared_distance(table)
        return float(np.mean(two_way_of_trials(predicted, coordinates[image], distance[image], image)))

    def save(self, path: Path | str) -> None:
        """Write the decoder as one safetensors file for `load_decoder`, without pickle.

        Parameters
        ----------
        path : path-like
            The file to write. Equal networks give equal bytes.
        """
        check_is_fitted(self, "encoder_", msg=NOT_FITTED)
        if Path(path).is_dir():
            raise NeuroCanvasError(f"save: the name of a file is needed, as decoder.safetensors; {path} is a folder.")
        unsaved = (*EXECUTION, "encoder", "spec")
        sidecar = {
            "encoder": self.encoder if isinstance(self.encoder, str) else "",
            "class": type(self.encoder_).__qualname__, "module": self.is_module_,
            "parameters": {
                # keys are sorted in the file, but the order of bands is that of the features
                key: [[name, *edges] for name, edges in value.items()] if key == "bands" and value else value
                for key, value in self.get_params(deep=False).items() if key not in unsaved
            },
            "spec": asdict(self.spec_), "space": asdict(self.space_),
            "classes": None if self.classes_ is None else self.classes_.tolist(),
            "chosen": self.chosen_, "unit": self.unit_, "findings": self.findings_,
        }  # fmt: skip
        arrays = {"input_mean": self.mean_, "input_sd": self.sd_}
        if (basis := self.basis_) is not None:
            arrays |= {"target_mean": basis.mean, "target_axes": basis.axes, "target_sd": basis.target_sd}
            arrays |= {"prediction_sd": self.prediction_sd_}
            arrays |= {} if basis.token_scale is None else {"token_scale": basis.token_scale}
            arrays |= {} if self.matched_ is None else {"matched": self.matched_}
        if self.posterior_ is not None:
            atoms, counts, temperature = self.posterior_
            arrays |= {"posterior.atoms": atoms, "posterior.counts": counts}
            arrays |= {"posterior.temperature": np.array([temperature], np.float32)}
        if self.is_module_:
            arrays |= {f"module.{name}": tensor.cpu().numpy() for name, tensor in self.encoder_.state_dict().items()}
        else:
            arrays |= {"estimator": np.frombuffer(_dump_estimator(self.encoder_), np.uint8)}
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
        bands = tuple(usable_bands(self.bands, self.spec_)) if self.takes == "features" else ()
        return replace(self.spec_, tmin=tmin, n_times=n_times, bands=bands)

    def encoder_class(self) -> tuple[Any, dict[str, Any]]:
        """The module class, or the class or instance of an estimator; and the parameters to build it with."""
        row = find_encoder(self.encoder, self.target)
        encoder = row.concept if self.target == "concept" else row.embedding
        parameters = {
            name.removeprefix("encoder__"): value for name, value in vars(self).items()
            if name.startswith("encoder__") and name != "encoder__input"
        }  # fmt: skip
        if self.recipe == "released" and self.target != "concept":
            hidden, activation = ARCHITECTURES["released"]
            parameters = {"hidden": hidden, "activation": activation, **parameters}
        return resolve_name(encoder) if isinstance(encoder, str) else encoder, parameters

    def check_parameters(self) -> None:
        """Raise unless parameters are within the bounds of `EncoderSettings`."""
        name = str(self.target).partition("@")[0]
        check_option("target", self.target if name == "concept" else name, TARGETS)
        has_released = self.target == "concept" or self.encoder == "mlp_sd"
        check_option("recipe", self.recipe, ("default", "released") if has_released else ("default",))
        unset = {"learning_rate", "weight_decay", "epochs", "batch_size", "patience"}  # may be None
        values = {key: getattr(self, key) for key in EncoderSettings.model_fields if hasattr(self, key)}
        values = {key: value for key, value in values.items() if value is not None or key not in unset}
        values |= {"components": self.n_components, "token_weights": np.asarray(self.token_weights)}
        try:  # as JSON, in which tuples are lists
            plain = json.dumps(values, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
            EncoderSettings.model_validate_json(plain, strict=True)
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
                raise NeuroCanvasError(
                    f"X: arrays are in volts; a standard deviation of {sd:.3g} V is not EEG; divide µV by 1e6."
                )
        window = Window(sources, spec, self.window, flat=self.takes == "signal")
        if self.takes == "signal":
            return window
        method = check_option("features", self.features, METHODS)
        return band_features(window, method, spec.sfreq, usable_bands(self.bands, spec))

    def _of(self, X: Any, function: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Apply a function of prepared inputs to trials, or to one window."""
        check_is_fitted(self, "encoder_", msg=NOT_FITTED)
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
        values = function(self._prepared([X], spec))
        return values[0] if single else values

    def _inputs(self, x: Any, learn_from: np.ndarray | None = None) -> Inputs | Tensor:
        """Check and standardise inputs, by mean and deviation of the rows `learn_from`, or by the stored ones."""
        # Features have a mean and a deviation each, signal has them per channel. Features of embeddings are moved to
        # the device at once, others when they are indexed.
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
        if learn_from is not None and self.recipe == "released":  # nothing is standardised, and signal is in volts
            self.mean_, self.sd_ = np.zeros(1, np.float32), np.array([1 if spec.bands else MICROVOLTS], np.float32)
        elif learn_from is not None and spec.bands:
            values = x[learn_from].astype(np.float64)
            mean, sd = values.mean(axis=0), values.std(axis=0)
            sd[sd <= 1e-6 * np.maximum(1e-6, np.abs(mean))] = 1.0  # constant features
            self.mean_, self.sd_ = mean.astype(np.float32), sd.astype(np.float32)
        elif learn_from is not None:
            sums = np.zeros((2, x.shape[1], 1))
            for rows in np.array_split(learn_from, -(-len(learn_from) // AT_ONCE)):
                signal = x[rows].astype(np.float64)
                sums += [power.sum(axis=(0, 2))[:, None] for power in (signal, signal**2)]
            mean, square = sums / (len(learn_from) * x.shape[2])
            self.mean_ = mean.astype(np.float32)
            self.sd_ = np.sqrt(np.maximum(square - mean**2, 1e-12)).astype(np.float32)
        device = find_device(self.device if self.is_module_ else "cpu")
        self.device_ = device.type
        inputs = Inputs(x, self.mean_, self.sd_, device)
        return inputs[:] if self.target != "concept" and spec.bands else inputs

    def _of_estimator(self, inputs: Inputs | Tensor, rows: Any) -> np.ndarray:
        """Inputs of an estimator: features or means of the signal over bins as one row per trial, or whole trials."""
        values = inputs[rows]
        if self.takes == "signal" and not find_encoder(self.encoder, self.target).matrices:
            width = min(max(1, round(self.bin_width * self.spec_.sfreq)), values.shape[2])
            n_bins = values.shape[2] // width
            values = values[..., : n_bins * width].reshape(*values.shape[:2], n_bins, width).mean(dim=3)
        matrices = find_encoder(self.encoder, self.target).matrices
        return np.asarray(values.numpy() if matrices else values.flatten(1).numpy())

    def _learn_targets(
        self, y: Any, n: int, trained: np.ndarray, train: np.ndarray, validation: np.ndarray, classes: Any,
        projected: tuple[TargetPCA, np.ndarray, np.ndarray] | None,
    ) -> tuple[np.ndarray, Units]:  # fmt: skip
        """Learn classes or basis; return the codes of concepts, (n,), or coordinates, (n, k), and units of losses."""
        # Trials that neither train nor validate have the code -1 or NaN. The units of losses of coordinates convert
        # these to MSE per number of the target.
        used = np.concatenate([trained, validation])
        rows = y.row_of_trial if isinstance(y, Embeddings) else y
        if len(rows) != n:
            raise NeuroCanvasError(f"y: one target for each of {n} trials is needed; got {len(rows)}.")
        if used.max() >= n:
            raise NeuroCanvasError(f"split: it names trial {used.max()}, but there are {n} trials.")
        if self.target == "concept":
            self.basis_, self.prediction_sd_ = None, None
            self.classes_ = np.unique(y[used]) if classes is None else np.asarray(classes)
            self.space_ = TargetSpace("concept", (len(self.classes_),))
            if (n_trained := len(np.unique(y[trained]))) < 2:
                raise NeuroCanvasError(
                    f"training trials of 2 or more concepts are needed, got {n_trained}; choose another granularity "
                    "or protocol."
                )
            codes = np.full(n, -1)
            codes[used] = np.searchsorted(self.classes_, y[used])
            return codes, {}
        self.classes_, self.space_ = None, y.space
        self.basis_, of_image, distance = projected or project(y, trained, self.n_components, self.token_weights)
        coordinates = np.full((n, of_image.shape[1]), np.nan, np.float32)
        coordinates[used] = of_image[rows[used]]
        variance = float(np.mean(np.sum(coordinates[train].astype(np.float64) ** 2, axis=1)))
        parts = {"train_loss": rows[train], "val_loss": rows[validation]}
        size = self.basis_.mean.size
        return coordinates, {name: (variance, float(np.mean(distance[part])), size) for name, part in parts.items()}

    def _fit_module(
        self, module_class: Any, parameters: dict[str, Any], inputs: Inputs | Tensor, targets: np.ndarray,
        phases: Mapping[str, np.ndarray], validation: np.ndarray, target_rms: float, *, start: str, state: Path | None,
        x: Any, units: Units, adapt_to: np.ndarray | None, watch: np.ndarray | None, watch_epochs: bool,
        log: Callable[[dict[str, Any]], None],
    ) -> None:  # fmt: skip
        """Train in one phase, or first on the trials to pretrain on; each phase ends at its selected epoch."""
        concept, device = self.target == "concept", inputs.device
        with own_randomness(self.seed, device):
            space = self.space_ if concept else replace(self.space_, shape=targets.shape[1:])
            network = build(module_class, self.input_spec, space, parameters)
            if start:
                _start_from(network, start, self.input_spec, self.recipe)
                self.findings_ = ["pretrained-unknown"]
            self.encoder_ = network.to(device)
            if hasattr(network, "fit_closed_form"):
                pairs = [
                    (inputs[rows], torch.from_numpy(targets[rows]).to(device)) for rows in (phases["train"], validation)
                ]
                network.eval().fit_closed_form(*pairs[0], *pairs[1])
                return
            made_from = ""
            if state is not None:  # one that was made from anything else is ignored
                scientific = {key: value for key, value in self.get_params(deep=False).items() if key not in EXECUTION}
                made_from = artifacts.fingerprint(
                    "state 2", x if isinstance(x, np.ndarray) else x.fingerprint(), targets, *phases.values(),
                    validation, scientific, self.device_, self.precision_,
                )  # fmt: skip
            self.unit_, batch_size = target_rms, 80 if self.batch_size is None else self.batch_size
            y = torch.from_numpy(targets if concept else (targets / self.unit_).astype(np.float32)).to(device)
            weights = (1.0, 0.0, 0.0) if self.recipe == "released" else (self.mse, self.cosine, self.contrastive)
            objective = ConceptLoss() if concept else EmbeddingLoss(*weights, self.temperature, batch_size, self.seed)
            for phase, rows in phases.items():
                epochs, patience, optimizer = self._recipe(network)
                last: dict[str, Any] = {"watch": watch, "state": state} if phase == "train" else {}
                history, self.chosen_, final, every = train(
                    network, inputs, y, rows, validation, objective, optimizer, epochs=epochs, patience=patience,
                    batch_size=batch_size, units=units, precision=self.precision_, adapt_to=adapt_to,
                    watch_epochs=watch_epochs, made_from=made_from, log=log, **last,
                )  # fmt: skip
                self.history_ += [{"phase": phase, **line} for line in history]
        self.every_ = [outputs.argmax(dim=1).numpy() for outputs in every]
        self.final_ = None if final is None else final.argmax(dim=1).numpy()
        if hasattr(network, "scale_outputs"):
            network.scale_outputs(self.unit_)
            self.unit_ = 1.0
        network.eval()

    def _recipe(self, network: nn.Module) -> tuple[int, int, torch.optim.Optimizer]:
        """Epochs, patience and optimiser of a network; unset parameters are those of its row."""
        row, optimizer = find_encoder(self.encoder, self.target), "adamw"
        if self.recipe == "released":
            epochs = patience = RELEASED_EPOCHS
            optimizer, rate, decay = row.released or (optimizer, row.learning_rate, row.weight_decay)
        else:
            concept = self.target == "concept"
            defaults = (row.learning_rate, row.weight_decay, 300, 20) if concept else (1e-3, 3.0, 200, 30)
            values = self.learning_rate, self.weight_decay, self.epochs, self.patience
            pairs: Any = zip(values, defaults, strict=True)
            rate, decay, epochs, patience = (default if value is None else value for value, default in pairs)
        classes = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
        make: Any = classes[optimizer]
        return epochs, patience, make(network.parameters(), lr=rate, weight_decay=decay, fused=True, **momentum)

    def _fit_estimator(
        self, estimator: Any, parameters: dict[str, Any], inputs: Inputs | Tensor, targets: np.ndarray,
        rows: np.ndarray, validation: np.ndarray, watch: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Fit every candidate, the simplest first; the one with the highest balanced validation accuracy is chosen."""
        row = find_encoder(self.encoder, self.target)
        if not row.parameter:  # nothing to choose
            rows, validation = np.concatenate([rows, validation]), validation[:0]
        x, x_val = (self._of_estimator(inputs, some) for some in (rows, validation))
        options = {**(row.fixed or {}), **parameters}
        candidates = (row.released_candidate,) if self.recipe == "released" else row.candidates or (None,)
        if row.parameter in options:
            candidates = (options[row.parameter],)
        elif row.counts_trials:
            candidates = tuple(value for value in candidates if value <= len(rows)) or (len(rows),)
        highest = -1.0
        for value in candidates:
            line: dict[str, Any] = {"candidate": value}
            accuracy = 0.0
            if row.parameter:
                options[row.parameter] = value
            try:
                model = estimator(**options) if isinstance(estimator, type) else clone(estimator)
                if "random_state" not in options and model.get_params().get("random_state", 0) is None:
                    model.set_params(random_state=self.seed)
                model.fit(x, targets[rows])
                if self.target == "concept" and len(x_val):
                    scores = _concept_scores(model, x_val, len(self.classes_))
                    accuracy = line["val_accuracy"] = balanced_accuracy(scores.argmax(axis=1), targets[validation])
            except (TypeError, ValueError, AttributeError) as error:  # scikit-learn's checks of parameters and targets
                raise NeuroCanvasError(f"encoder {row.title}: cannot be fitted to these trials ({error}).") from error
            if accuracy > highest:
                highest, self.encoder_, self.chosen_ = accuracy, model, value
            if watch is not None:
                scores = _concept_scores(model, self._of_estimator(inputs, watch), len(self.classes_))
                self.every_.append(scores.argmax(axis=1))
            self.history_.append(line)


def balanced_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean accuracy of the concepts that are there."""
    return float(np.mean([np.mean(predicted[true == concept] == concept) for concept in np.unique(true)]))


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
    name, is_module = sidecar["encoder"], bool(sidecar["module"])
    estimator = None if is_module else _load_estimator(arrays.pop("estimator").tobytes())
    if is_module and not name and encoder is None:
        raise NeuroCanvasError(
            f"its encoder is the class {sidecar['class']}, not one of ENCODERS; pass it: load_decoder(path, encoder="
            f"{sidecar['class']})"
        )
    parameters, spec, space = (
        dict[str, Any]((key, tuple(value) if isinstance(value, list) else value) for key, value in group.items())
        for group in (sidecar["parameters"], sidecar["spec"], sidecar["space"])
    )
    if parameters.get("bands"):
        parameters["bands"] = {band: (low, high) for band, low, high in parameters["bands"]}
    if not name and not is_module:  # the estimator has its own
        parameters = {key: value for key, value in parameters.items() if "__" not in key}
    decoder = Decoder(encoder or name or clone(estimator), **parameters)
    decoder.spec = decoder.spec_ = TrialSpec(**spec)  # with `spec` it can be fitted again to arrays
    decoder.space_, decoder.is_module_ = TargetSpace(**space), is_module
    decoder.classes_ = None if sidecar["classes"] is None else np.array(sidecar["classes"])
    decoder.chosen_, decoder.unit_ = sidecar["chosen"], float(sidecar["unit"])
    decoder.findings_, decoder.history_, decoder.every_ = list(sidecar["findings"]), [], []
    decoder.final_, decoder.posterior_, decoder.basis_, decoder.prediction_sd_ = None, None, None, None
    decoder.matched_ = arrays.pop("matched", None)
    decoder.device_, decoder.precision_ = "cpu", "float32"
    decoder.mean_, decoder.sd_ = arrays.pop("input_mean"), arrays.pop("input_sd")
    shape, n_outputs = decoder.space_.shape, decoder.space_.shape
    if decoder.target != "concept":
        n_outputs, size = arrays["target_sd"].shape, math.prod(shape)
        for key, needed in {
            "target_mean": shape, "target_axes": (*n_outputs, size), "prediction_sd": n_outputs,
            "token_scale": shape[:1], "posterior.atoms": (len(arrays.get("posterior.counts", ())), *n_outputs),
        }.items():  # fmt: skip
            if key in arrays and arrays[key].shape != needed:
                raise NeuroCanvasError(f"{key}: shape {needed} is needed; got {arrays[key].shape}")
        decoder.prediction_sd_, token_scale = arrays.pop("prediction_sd"), arrays.pop("token_scale", None)
        scale = np.ones(size, np.float32) if token_scale is None else np.repeat(token_scale, size // shape[0])
        mean, axes, sd = (arrays.pop(f"target_{key}") for key in ("mean", "axes", "sd"))
        decoder.basis_ = TargetPCA(mean, axes, sd, token_scale, scale)
        if decoder.matched_ is not None and decoder.matched_.shape != (n_outputs[0] + 1,):
            raise NeuroCanvasError(f"matched: shape ({n_outputs[0] + 1},) is needed; got {decoder.matched_.shape}")
        if "posterior.atoms" in arrays:
            atoms, counts, temperature = (arrays.pop(f"posterior.{key}") for key in ("atoms", "counts", "temperature"))
            decoder.posterior_ = atoms, counts, float(temperature[0])
    input_spec = decoder.input_spec
    n_chans = len(input_spec.ch_names)
    allowed = {(1,), (n_chans, 1), (n_chans, len(input_spec.bands) or input_spec.n_times)}
    if not {decoder.mean_.shape, decoder.sd_.shape} <= allowed or (
        decoder.classes_ is not None and decoder.classes_.shape != n_outputs
    ):
        raise NeuroCanvasError(f"input_mean, input_sd or classes do not fit {n_chans} channels, {n_outputs} outputs")
    if estimator is not None:
        decoder.encoder_ = estimator
        return decoder
    state = {key.removeprefix("module."): torch.from_numpy(np.array(arrays[key], order="C")) for key in arrays}
    module_class, parameters = decoder.encoder_class()
    with own_randomness(0):  # the initial weights are replaced
        module: nn.Module = build(module_class, input_spec, replace(decoder.space_, shape=n_outputs), parameters)
    module.load_state_dict(state)
    decoder.encoder_ = module.eval()
    return decoder


def _held_out(X: Any, y: Any) -> np.ndarray:
    """Mask of the trials that are held out for validation: the last images, or trials, of every concept."""
    columns = X.metadata.columns if isinstance(X, Trials) else ()
    embedded = isinstance(y, Embeddings)
    concept: Any = y if not embedded else X.y if "concept" in columns else np.zeros(len(X))
    image = X.column("image") if "image" in columns else y.row_of_trial if embedded else np.arange(len(X))
    mask = np.zeros(len(X), dtype=bool)
    for name in np.unique(concept):
        shown, first = np.unique(image[concept == name], return_index=True)
        if len(shown) > 1:
            count = max(1, round(HELD_OUT * len(shown)))
            mask |= (concept == name) & np.isin(image, shown[np.argsort(first)][-count:])
    if not mask.any() or mask.all():
        raise NeuroCanvasError("validation: too few trials to hold some out; pass others as validation=.")
    return mask


def _joined(first: Any, second: Any) -> Any:
    """Targets of two sets of trials."""
    if not isinstance(first, Embeddings):
        return np.concatenate([first, second])
    shared = first.table is second.table
    rows = np.concatenate([first.row_of_trial, second.row_of_trial + (0 if shared else len(first.table))])
    table = first.table if shared else np.concatenate([first.table, second.table])
    return replace(first, ids=[], table=table, rows=rows)


def _check_same(spec: TrialSpec, fitted: TrialSpec, name: str) -> None:
    """Raise if channels, rate or window differ from those that the decoder was fitted on."""
    if len(spec.ch_names) == len(fitted.ch_names) and spec.ch_names != fitted.ch_names:
        at = next(at for at, channel in enumerate(spec.ch_names) if channel != fitted.ch_names[at])
        raise NeuroCanvasError(
            f"{name}: channel {at + 1} is {spec.ch_names[at]}, the decoder was fitted on {fitted.ch_names[at]}; "
            "reorder or select the channels."
        )
    facts = [
        {"channels": len(trials.ch_names), "Hz": trials.sfreq,
         "s of window": (trials.tmin, trials.tmin + trials.n_times / trials.sfreq)}
        for trials in (spec, fitted)
    ]  # fmt: skip
    for unit, value in facts[0].items():
        if value != facts[1][unit]:
            raise NeuroCanvasError(
                f"{name}: these trials have {value} {unit}, the decoder was fitted on {facts[1][unit]} {unit}; select "
                "or resample them to match, or fit a decoder on these trials."
            )


def _concept_scores(
    estimator: Any, x: np.ndarray, n_outputs: int,
    methods: Sequence[str] = ("decision_function", "predict_proba", "predict"),
) -> np.ndarray:  # fmt: skip
    """Scores of all concepts by the first method that a fitted estimator has; -inf without training trials."""
    method = next(name for name in methods if hasattr(estimator, name))
    values = getattr(estimator, method)(x)
    if method == "predict":
        values = (values[:, None] == estimator.classes_).astype(np.float32)
    elif values.ndim == 1:  # two concepts: one number, positive for the second
        values = np.stack([-values, values], axis=1)
    scores = np.full((len(x), n_outputs), -np.inf, dtype=np.float32)
    scores[:, estimator.classes_] = values
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
        for child in node if isinstance(node, list) else list(node.values()) if isinstance(node, dict) else ():
            renumber(child)
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
    import zipfile

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
            if recipe != "released":
                raise NeuroCanvasError(
                    f"{file}: weights of the released code expect inputs that are not standardised, and signal in "
                    f"volts; classify.recipe must be 'released' for them (--recipe released), got {recipe!r}."
                )
            if "edge_weight" in state and not getattr(network, "scrambled", True):
                raise NeuroCanvasError(
                    f"{file}: weights of the released RGNN are valid in its own layout only; classify.rgnn_layout must "
                    "be 'scrambled' for them, got 'channel-major'."
                )
            if "l1.weight" in state:  # its inputs are band-major
                by_band = state["l1.weight"].reshape(-1, len(spec.bands), len(spec.ch_names))
                state["l1.weight"] = by_band.transpose(1, 2).flatten(1)
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise NeuroCanvasError(f"{file}: does not fit this network, or is damaged ({reason[:300]}).") from error
