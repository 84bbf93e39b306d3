"""EEG recorded while a person looks at pictures, turned into pictures, with scores that say how much is real.

The names below are loaded on first use; importing the package imports nothing else.

Notes
-----
Data go from `open_dataset` (`Trials`) through `make_split`, `Decoder` and `load_generator` to
`summarise` (scores). `run_all` does all of it in a run folder. ARCHITECTURE.md describes the
way, GLOSSARY.md the words.

Examples
--------
>>> import neurocanvas as nc
>>> settings = nc.load_settings(None, encoder={"name": "ridge"})
>>> settings.encoder.name
'ridge'
>>> nc.load_settings(None, encoder={"epochs": 0})
Traceback (most recent call last):
    ...
neurocanvas.errors.NeuroCanvasError: settings: encoder.epochs: Input should be greater than or equal to 1; got 0.
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
    "Run": "neurocanvas.pipeline.run",
    "RunSettings": "neurocanvas.config",
    "Split": "neurocanvas.data.splits",
    "TrialSpec": "neurocanvas.data.trials",
    "Trials": "neurocanvas.data.trials",
    "extract": "neurocanvas.features.differential_entropy",
    "from_arrays": "neurocanvas.data.arrays",
    "from_epochs": "neurocanvas.data.arrays",
    "load_decoder": "neurocanvas.decoder",
    "load_generator": "neurocanvas.generation",
    "load_settings": "neurocanvas.config",
    "make_split": "neurocanvas.data.splits",
    "open_dataset": "neurocanvas.data",
    "run_all": "neurocanvas.workflow",
    "summarise": "neurocanvas.evaluation.summary",
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
    """List the public names beside what is loaded."""
    return sorted({*globals(), *__all__})
