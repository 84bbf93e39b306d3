"""The classifiers: EEG of a trial to the concept of what the person saw. Networks, and estimators of scikit-learn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neurocanvas.artifacts import read_torch
from neurocanvas.config import ClassifySettings
from neurocanvas.data.montage import positions_of
from neurocanvas.errors import NeuroCanvasError, check_file, check_option, require

if TYPE_CHECKING:
    import torch

Takes = Literal["features", "signal"]


@dataclass(frozen=True)
class TrialSpec:
    """What a trial is and how many concepts there are."""

    ch_names: tuple[str, ...]
    sfreq: float
    n_last: int
    n_outputs: int


@dataclass(frozen=True)
class Network:
    """A classifier that is trained by epochs."""

    title: str
    takes: Takes
    build: Callable[[TrialSpec, ClassifySettings], torch.nn.Module]
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    released: tuple[str, float, float] | None = None


@dataclass(frozen=True)
class Estimator:
    """A classifier of scikit-learn, fitted once for every candidate."""

    title: str
    build: Callable[[Any, int], Any]
    candidates: tuple[Any, ...]
    released: Any
    counts_trials: bool = False
    takes: Takes = "features"


def _eegnet(spec: TrialSpec, settings: ClassifySettings) -> torch.nn.Module:
    from neurocanvas.encoders.eegnet import build_eegnet

    return build_eegnet(len(spec.ch_names), spec.n_last, spec.n_outputs, settings.eegnet, sfreq=spec.sfreq)


def build_perceptron(
    n_features: int, n_outputs: int, hidden: tuple[int, ...] = (256, 128), dropout: float = 0.5
) -> torch.nn.Sequential:
    """Build the multi-layer perceptron on features; sizes and names of layers are the released ones."""
    from torch import nn

    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for number, (n_in, n_out) in enumerate(pairwise((n_features, *hidden)), 1):
        layers |= {f"l{number}": nn.Linear(n_in, n_out), f"bn{number}": nn.BatchNorm1d(n_out)}
        layers |= {f"relu{number}": nn.ReLU(), f"dropout{number}": nn.Dropout(dropout)}
    layers[f"l{len(hidden) + 1}"] = nn.Linear((n_features, *hidden)[-1], n_outputs)
    return nn.Sequential(OrderedDict(layers))


def _mlp(spec: TrialSpec, settings: ClassifySettings) -> torch.nn.Module:  # noqa: ARG001
    return build_perceptron(len(spec.ch_names) * spec.n_last, spec.n_outputs)


def _rgnn(spec: TrialSpec, settings: ClassifySettings) -> torch.nn.Module:
    from neurocanvas.encoders.rgnn import build_rgnn

    return build_rgnn(
        spec.n_outputs,
        positions_of(spec.ch_names),
        layout=settings.rgnn_layout,
        domain_adaptation=settings.domain_adaptation,
    )


def _ridge(penalty: float, seed: int) -> Any:  # noqa: ARG001
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(alpha=penalty)


def _knn(neighbours: int, seed: int) -> Any:  # noqa: ARG001
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=neighbours)


def _forest(features: Any, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=200, max_features=features, random_state=seed)


def _svm(cost: float, seed: int) -> Any:  # noqa: ARG001
    from sklearn.svm import SVC

    return SVC(kernel="linear", C=cost)


def _tree(depth: int | None, seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(criterion="entropy", max_depth=depth, random_state=seed)


# Every classifier by the name that ``-m`` takes; * marks the one that sees the signal instead of features.
CLASSIFIERS: Mapping[str, Network | Estimator] = MappingProxyType(
    {
        "eegnet": Network("EEGNet*", "signal", _eegnet, learning_rate=1e-2, released=("sgd", 1e-2, 1e-3)),
        "mlp": Network("MLP", "features", _mlp, weight_decay=1e-1, released=("sgd", 1e-4, 1e-4)),
        "rgnn": Network("RGNN", "features", _rgnn, learning_rate=3e-3, released=("adam", 1e-3, 0.0)),
        "ridge": Estimator("Ridge", _ridge, (1e4, 1e3, 1e2, 1e1, 1.0), released=1.0),
        "knn": Estimator("KNN", _knn, (33, 17, 9, 5, 3, 1), released=5, counts_trials=True),
        "rf": Estimator("RandomForest", _forest, ("sqrt",), released="sqrt"),
        "svm": Estimator("SVM", _svm, (1e-3, 1e-2, 1e-1, 1.0), released=1.0),
        "dt": Estimator("DecisionTree", _tree, (3, 6, 12, None), released=None),
    }
)

BRAINDECODE = "braindecode:"


def find_classifier(name: str) -> Network | Estimator:
    """Return a classifier by name."""
    if not name.startswith(BRAINDECODE):
        return CLASSIFIERS[check_option("classifier", name, [*CLASSIFIERS, f"{BRAINDECODE}<model>"])]
    models = require("braindecode.models", f"the classifier {name}", "braindecode")
    wanted = name.removeprefix(BRAINDECODE)
    kind = getattr(models, wanted, None)
    if not isinstance(kind, type):
        raise NeuroCanvasError(f"classifier {name}: the installed braindecode has no model {wanted!r}.")

    def build(spec: TrialSpec, settings: ClassifySettings) -> torch.nn.Module:  # noqa: ARG001
        sizes = {"n_chans": len(spec.ch_names), "n_times": spec.n_last, "n_outputs": spec.n_outputs}
        try:
            network: torch.nn.Module = kind(**sizes, sfreq=spec.sfreq)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise NeuroCanvasError(f"classifier {name}: cannot be built for {sizes} ({reason}).") from error
        return network

    return Network(f"{wanted}*", "signal", build)


def class_scores(estimator: Any, x: np.ndarray, n_outputs: int) -> np.ndarray:
    """Scores of all concepts from a fitted estimator: the larger, the more probable."""
    found = (estimator.decision_function if hasattr(estimator, "decision_function") else estimator.predict_proba)(x)
    if found.ndim == 1:  # two concepts: one number, positive for the second
        found = np.stack([-found, found], axis=1)
    scores = np.full((len(x), n_outputs), -np.inf, dtype=np.float32)
    scores[:, estimator.classes_] = found
    return scores


def load_network(network: torch.nn.Module, path: Path | str, spec: TrialSpec, settings: ClassifySettings) -> None:
    """Give a network the weights of a file, as ``-p`` of the released code does."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = check_file(path, "weights of a network")
    ours = file.suffix == ".safetensors"
    try:
        state = load_file(file) if ours else read_torch(file, "weights of a network")
        if not isinstance(state, dict):
            kind = type(state).__name__
            raise NeuroCanvasError(f"{file}: allowed is a state dict, names of weights to tensors; got a {kind}.")
        if not ours:
            state = _from_released(state, file, spec, settings)
        network.load_state_dict({name: state[name] for name in state if name not in ("mean", "sd")})
    except (SafetensorError, RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise NeuroCanvasError(f"{file}: does not fit this network, or is damaged ({reason[:300]}).") from error


def _from_released(
    state: dict[str, torch.Tensor], file: Path, spec: TrialSpec, settings: ClassifySettings
) -> dict[str, torch.Tensor]:
    """Weights of the released code for inputs in our order, if the settings give the inputs that they know."""
    if settings.recipe != "released":
        raise NeuroCanvasError(
            f"{file}: weights of the released code know inputs that are not standardised, and signal in volts; "
            f"classify.recipe must be 'released' for them (--recipe released), got {settings.recipe!r}."
        )
    if "edge_weight" in state and settings.rgnn_layout != "scrambled":
        raise NeuroCanvasError(
            f"{file}: weights of the released RGNN mean something in its own layout only; classify.rgnn_layout must "
            f"be 'scrambled' for them, got {settings.rgnn_layout!r}."
        )
    first = state.get("l1.weight")
    if first is None:
        return state
    by_band = first.reshape(-1, spec.n_last, len(spec.ch_names))
    return {**state, "l1.weight": by_band.transpose(1, 2).flatten(1)}
