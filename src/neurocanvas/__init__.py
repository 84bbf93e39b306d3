"""Images reconstructed from the EEG of a person who looks at images, with scores that say how much is real.

The names below are loaded on first use; importing the package imports nothing else.

Examples
--------
>>> import numpy as np
>>> import neurocanvas as nc
>>> signal, shown = np.random.default_rng(0).normal(size=(40, 2, 100)) * 1e-5, [f"{n}.png" for n in range(40)]
>>> trials = nc.from_arrays(
...     signal, ["cat", "dog"] * 20, ch_names=["O1", "O2"], sfreq=100, metadata={"image": shown}
... )
>>> trials.shape
(40, 2, 100)
>>> [len(fold.test) for fold in nc.make_split(trials, "kfold-by-stimulus", folds=4)]
[10, 10, 10, 10]
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_PUBLIC = {
    "NeuroCanvasError": "neurocanvas.errors",
    "Decoder": "neurocanvas.decoder",
    "Embeddings": "neurocanvas.decoder",
    "Fold": "neurocanvas.data.splits",
    "Images": "neurocanvas.data.images",
    "Split": "neurocanvas.data.splits",
    "TrialSpec": "neurocanvas.data.trials",
    "classify": "neurocanvas.reconstruction",
    "Trials": "neurocanvas.data.trials",
    "from_arrays": "neurocanvas.data.arrays",
    "from_epochs": "neurocanvas.data.arrays",
    "load_decoder": "neurocanvas.decoder",
    "load_generator": "neurocanvas.generation",
    "make_split": "neurocanvas.data.splits",
    "open_dataset": "neurocanvas.data",
    "reconstruct": "neurocanvas.reconstruction",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names and what is loaded."""
    return sorted({*globals(), *__all__})
