"""The released code's embeddings file, `clip_embeddings.pth`: picture name to (1, 77, 768)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.store import atomic
from neurocanvas.torch_files import read_torch

SHAPE = (1, 77, 768)


def write_released_embeddings(path: Path, stimuli: Sequence[str], embeddings: np.ndarray) -> None:
    """Write embeddings, (n_stimuli, 77, 768), as the released code reads them."""
    import torch

    tensors = {
        name: torch.from_numpy(np.array(row, np.float32).reshape(SHAPE))
        for name, row in zip(stimuli, embeddings, strict=True)
    }
    with atomic(path) as temporary, temporary.open("wb") as stream:  # torch writes a path's name into the archive
        torch.save(tensors, stream)


def read_released_embeddings(path: Path | str, stimuli: Sequence[str], out: np.ndarray) -> None:
    """Read the embeddings of some pictures into `out`, (n_stimuli, 77, 768), which may be memory-mapped."""
    import torch

    found = read_torch(path, "CLIP embeddings by picture name")
    for row, name in enumerate(stimuli):
        tensor = found.get(name) if isinstance(found, dict) else None
        if not isinstance(tensor, torch.Tensor) or tensor.numel() != out[row].size or tensor.shape[-2:] != SHAPE[1:]:
            came = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else "none"
            raise NeuroCanvasError(
                f"{path}: {name} should have an embedding of shape {SHAPE}; got {came}. Choose the data that the file "
                "was made for, or run `neurocanvas embed`."
            )
        out[row] = tensor.detach().float().numpy().reshape(SHAPE[1:])
        if not np.isfinite(out[row]).all():
            raise NeuroCanvasError(f"{path}: the embedding of {name} is not finite; make the file again.")
