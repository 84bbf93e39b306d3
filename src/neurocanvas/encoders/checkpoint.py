"""A mapper as one self-contained safetensors file, and the JSON card of its provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.encoders import MAPPERS, EEGSpec, Mapper, TargetBasis
from neurocanvas.errors import NeuroCanvasError, check_file, check_option

SHARED_ARRAYS = ("feature_mean", "feature_sd", "target_mean", "target_axes", "target_sd", "prediction_sd")


def save_mapper(mapper: Mapper, path: Path, print_of_inputs: str, card: Mapping[str, Any]) -> None:
    """Write a mapper and its card, atomically; equal mappers give equal bytes. 15 MB for 64 axes, all float32."""
    from safetensors.numpy import save

    arrays = {
        "feature_mean": mapper.feature_mean,
        "feature_sd": mapper.feature_sd,
        "target_mean": mapper.basis.mean,
        "target_axes": mapper.basis.axes,
        "target_sd": mapper.basis.target_sd,
        "prediction_sd": mapper.prediction_sd,
        **mapper.weights(),
    }
    if mapper.basis.token_scale is not None:
        arrays["token_scale"] = mapper.basis.token_scale
    # One entry only: the order of several is not the same from one process to the next.
    head = {"neurocanvas": json.dumps({"mapper": _name_of(mapper), "spec": asdict(mapper.spec)}, sort_keys=True)}
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    card = {"mapper": _name_of(mapper), "spec": asdict(mapper.spec), **card}
    content = save(tensors, metadata=head)  # a full disk is an OSError then, which `save_file` hides
    artifacts.write_artifact(path, content, print_of_inputs, card)


def load_mapper(path: Path | str) -> Mapper:
    """Read a mapper that `save_mapper` wrote.

    Parameters
    ----------
    path : path-like
        The safetensors file; the card beside it, if there, must agree with its bytes.

    Returns
    -------
    Mapper
        Of the kind that was saved.

    Raises
    ------
    NeuroCanvasError
        If the file is missing, damaged, not a mapper, or its arrays do not fit one another.
    """
    from safetensors import SafetensorError, safe_open

    file = check_file(path, "a trained mapper; run the verb train")
    try:
        with safe_open(file, framework="numpy") as opened:
            head = json.loads((opened.metadata() or {})["neurocanvas"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        spec = _read_spec(head["spec"])
        shared = {name: arrays.pop(name) for name in SHARED_ARRAYS}
        kind = MAPPERS[check_option("mapper", head.get("mapper"), MAPPERS)]
        if "token_scale" in arrays:
            shared["token_scale"] = arrays.pop("token_scale")
        _check_arrays(spec, shared)
        basis = TargetBasis(
            shared["target_mean"], shared["target_axes"], shared["target_sd"], shared.get("token_scale")
        )
        mapper = kind(spec, basis, shared["feature_mean"], shared["feature_sd"], shared["prediction_sd"])
        mapper.load_weights(arrays)
    except (  # what damaged headers, and arrays that are none of a mapper's, provoke
        SafetensorError, NeuroCanvasError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NeuroCanvasError(f"{file}: damaged, or not a mapper ({reason}); train again.") from error
    # Checked after reading: bytes that are whole now were whole when they were read.
    if artifacts.card_path(file).is_file() and artifacts.read_card(file).get("sha256") != artifacts.sha256(file):
        raise NeuroCanvasError(f"{file}: differs from what its card says; delete both and train again.")
    return mapper


def _read_spec(said: Any) -> EEGSpec:
    spec = EEGSpec(**{key: tuple(value) for key, value in said.items()})
    names = (*spec.ch_names, *spec.bands)
    sizes = all(isinstance(size, int) and size > 0 for size in spec.target_shape)
    if not names or not all(isinstance(name, str) for name in names) or not spec.target_shape or not sizes:
        raise NeuroCanvasError("spec: names of channels and bands and a shape of targets are needed")
    return spec


def _name_of(mapper: Mapper) -> str:
    return next(name for name, kind in MAPPERS.items() if kind is type(mapper))


def _check_arrays(spec: EEGSpec, shared: Mapping[str, np.ndarray]) -> None:
    k = len(shared["target_sd"])
    needed = {
        "feature_mean": (spec.n_features,),
        "feature_sd": (spec.n_features,),
        "target_mean": spec.target_shape,
        "target_axes": (k, spec.n_outputs),
        "target_sd": (k,),
        "prediction_sd": (k,),
        "token_scale": spec.target_shape[:1],
    }
    for name, array in shared.items():
        if array.shape != needed[name] or array.dtype.kind != "f":
            raise NeuroCanvasError(
                f"{name} should have shape {needed[name]}, floating-point; got {array.shape}, {array.dtype}"
            )
