"""Confusions between concepts, and an order by meaning to show them in."""

from __future__ import annotations

import numpy as np

from neurocanvas.errors import NeuroCanvasError


def confusion_counts(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Confusion counts, (n_concepts, n_concepts), row seen, column named, from scores (n_trials, n_concepts)."""
    if scores.ndim != 2 or true.shape != scores.shape[:1]:
        raise NeuroCanvasError(
            f"confusions: scores (n_trials, n_concepts) and one column per trial are needed; got {scores.shape}, "
            f"{true.shape}."
        )
    counts = np.zeros((scores.shape[1], scores.shape[1]), dtype=np.int64)
    np.add.at(counts, (true, scores.argmax(axis=1)), 1)
    return counts


def semantic_order(embeddings: np.ndarray) -> np.ndarray:
    """Place of every concept, (n_concepts,), so that concepts of similar meaning are neighbours [BarJoseph2001]."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(embeddings) < 3:
        return np.arange(len(embeddings))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    leaves = leaves_list(linkage(unit, "average", metric="cosine", optimal_ordering=True))
    places = np.empty(len(leaves), dtype=np.int64)
    places[leaves] = np.arange(len(leaves))
    return places
