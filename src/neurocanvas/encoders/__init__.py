"""Encoders: from the signal or features of a trial to scores of concepts, or to coordinates of an embedding."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurocanvas.data.montage import channel_info
from neurocanvas.data.trials import TrialSpec
from neurocanvas.errors import NeuroCanvasError, check_option, require
from neurocanvas.targets import TargetSpace

BRAINDECODE = "braindecode:"

# Arguments by which classes that are built as braindecode's models are recognised.
SIZES = {"n_chans", "n_outputs"}


@dataclass(frozen=True)
class Encoder:
    """A row of `ENCODERS`."""

    title: str  # * marks those that see the signal instead of features
    concept: Any = None  # for concepts: a class or "module:class", of torch or scikit-learn; None: not offered
    embedding: Any = None  # for embeddings, likewise
    inputs: tuple[str, ...] = ("features",)  # what it accepts; the first is the default
    learning_rate: float = 1e-3  # for concepts
    weight_decay: float = 1e-2
    released: tuple[str, float, float] | None = None  # optimiser, learning rate, weight decay of the released code
    # Of estimators: the parameter chosen on validation trials, its candidates, and the value of the released code.
    parameter: str = ""
    candidates: tuple[Any, ...] = ()
    released_candidate: Any = None
    fixed: Mapping[str, Any] | None = None
    counts_trials: bool = False  # no candidate may be larger than the number of training trials
    matrices: bool = False  # an estimator of trials as channels x samples; others get means over bins, as one row


# Every encoder by the name that `-m` takes.
ENCODERS: dict[str, Encoder] = {
    "mlp_sd": Encoder(
        "MLP-SD", "neurocanvas.encoders.mlp:MLPSD", "neurocanvas.encoders.mlp:MLPSD", weight_decay=1e-1,
        released=("adam", 1e-3, 0.0),
    ),
    "mean": Encoder("Mean", None, "neurocanvas.encoders.linear:Mean"),
    "eegnet": Encoder(
        "EEGNet*", "neurocanvas.encoders.eegnet:EEGNet", inputs=("signal",), learning_rate=1e-2,
        released=("sgd", 1e-2, 1e-3),
    ),
    "mlp": Encoder("MLP", "neurocanvas.encoders.mlp:MLP", weight_decay=1e-1, released=("sgd", 1e-4, 1e-4)),
    "rgnn": Encoder("RGNN", "neurocanvas.encoders.rgnn:RGNN", learning_rate=3e-3, released=("adam", 1e-3, 0.0)),
    "ridge": Encoder(
        "Ridge", "sklearn.linear_model:RidgeClassifier", "neurocanvas.encoders.linear:Ridge",
        inputs=("features", "signal"), parameter="alpha", candidates=(1e4, 1e3, 1e2, 1e1, 1.0), released_candidate=1.0,
    ),
    "lda": Encoder(
        "LDA*", "sklearn.discriminant_analysis:LinearDiscriminantAnalysis", inputs=("signal", "features"),
        fixed={"solver": "lsqr", "shrinkage": "auto"},
    ),
    "logreg": Encoder(
        "LogReg*", "sklearn.linear_model:LogisticRegression", inputs=("signal", "features"), parameter="C",
        candidates=(1e-4, 1e-3, 1e-2, 1e-1, 1.0), released_candidate=1.0, fixed={"max_iter": 2000},
    ),
    "xdawn": Encoder(
        "xDAWN+TS*", "neurocanvas.encoders.xdawn:XdawnTangent", inputs=("signal",), matrices=True,
    ),
    "knn": Encoder(
        "KNN", "sklearn.neighbors:KNeighborsClassifier", parameter="n_neighbors", candidates=(33, 17, 9, 5, 3, 1),
        released_candidate=5, counts_trials=True,
    ),
    "rf": Encoder(
        "RandomForest", "sklearn.ensemble:RandomForestClassifier", parameter="max_features", candidates=("sqrt",),
        released_candidate="sqrt", fixed={"n_estimators": 200},
    ),
    "svm": Encoder(
        "SVM", "sklearn.svm:SVC", inputs=("features", "signal"), parameter="C", candidates=(1e-3, 1e-2, 1e-1, 1.0),
        released_candidate=1.0, fixed={"kernel": "linear"},
    ),
    "dt": Encoder(
        "DecisionTree", "sklearn.tree:DecisionTreeClassifier", parameter="max_depth", candidates=(3, 6, 12, None),
        fixed={"criterion": "entropy"},
    ),
}  # fmt: skip


def find_encoder(encoder: Any, target: str = "concept") -> Encoder:
    """Return the row for this target of an encoder: a name, a module class or an estimator."""
    if not isinstance(encoder, str):
        name = getattr(encoder, "__name__", type(encoder).__name__)
        if not hasattr(encoder, "fit") and not (isinstance(encoder, type) and hasattr(encoder, "forward")):
            raise NeuroCanvasError(f"encoder: a name, a module class or an estimator is needed; got {encoder!r}.")
        takes = getattr(encoder, "input", None if isinstance(encoder, type) else "features")
        if takes is None and set(inspect.signature(encoder).parameters) >= SIZES:
            takes = "signal"
        return Encoder(name, encoder, encoder, (check_option(f"{name}.input", takes, ("features", "signal")),))
    if encoder.startswith(BRAINDECODE):
        name = encoder.removeprefix(BRAINDECODE)
        model = getattr(require("braindecode.models", f"the encoder {encoder}", "braindecode"), name, None)
        if not isinstance(model, type):
            raise NeuroCanvasError(f"encoder {encoder}: the installed braindecode has no model {name!r}.")
        return Encoder(f"{name}*", model, model, ("signal",))
    kind = "concept" if target == "concept" else "embedding"
    names = [name for name, row in ENCODERS.items() if getattr(row, kind)]
    return ENCODERS[check_option(f"encoder of {kind}s", encoder, [*names, f"{BRAINDECODE}<model>"])]


def build(module_class: Any, spec: TrialSpec, target: TargetSpace, parameters: Mapping[str, Any]) -> Any:
    """Build a module for these trials and this target space, whose shape is that of a trial's outputs, (n_outputs,)."""
    [n_outputs] = target.shape
    try:
        if set(inspect.signature(module_class).parameters) >= SIZES:
            sizes: dict[str, Any] = {"n_chans": len(spec.ch_names), "n_times": spec.n_times, "n_outputs": n_outputs}
            if "chs_info" in inspect.signature(module_class).parameters:
                sizes["chs_info"] = channel_info(spec.ch_names, spec.sfreq)["chs"]
            return module_class(**sizes, sfreq=spec.sfreq, **parameters)
        return module_class(spec, target, **parameters)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        trials = f"{len(spec.ch_names)} channels of {len(spec.bands) or spec.n_times} numbers"
        raise NeuroCanvasError(
            f"encoder {module_class.__name__}: cannot be built for {trials} and {n_outputs} outputs ({reason})."
        ) from error
