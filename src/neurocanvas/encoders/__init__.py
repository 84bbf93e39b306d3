"""Mappers: EEG features of a trial to the embedding of what the person saw."""

from __future__ import annotations

from collections.abc import Mapping

from neurocanvas.encoders.base import TARGET_SHAPE, EEGSpec, Mapper
from neurocanvas.encoders.linear import MeanMapper, RidgeMapper
from neurocanvas.encoders.mlp import MLPMapper
from neurocanvas.encoders.target_pca import TargetBasis

# Every mapper by the name that settings and file names use.
MAPPERS: Mapping[str, type[Mapper]] = {"mlp_sd": MLPMapper, "ridge": RidgeMapper, "mean": MeanMapper}

__all__ = [
    "MAPPERS",
    "TARGET_SHAPE",
    "EEGSpec",
    "MLPMapper",
    "Mapper",
    "MeanMapper",
    "RidgeMapper",
    "TargetBasis",
]
