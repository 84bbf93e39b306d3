"""Concepts confused with one another, and two orders to look at them in: by meaning, and as they were recorded."""

from __future__ import annotations

import numpy as np

from neurocanvas.errors import NeuroCanvasError


def confusion_counts(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Count which concept the judge names for pictures of which.

    Parameters
    ----------
    scores : array, shape (n_trials, n_concepts)
        The judge's score of every concept for every generated picture.
    true : array of int, shape (n_trials,)
        Column of the concept that was seen.

    Returns
    -------
    array of int, shape (n_concepts, n_concepts)
        Row: seen; column: named first. A tie goes to the concept that stands first.

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit.

    Examples
    --------
    >>> confusion_counts(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1])).tolist()
    [[1, 0], [1, 0]]
    """
    if scores.ndim != 2 or true.shape != scores.shape[:1]:
        raise NeuroCanvasError(
            f"confusions: scores (n_trials, n_concepts) and one column per trial are needed; got {scores.shape}, "
            f"{true.shape}."
        )
    counts = np.zeros((scores.shape[1], scores.shape[1]), dtype=np.int64)
    np.add.at(counts, (true, scores.argmax(axis=1)), 1)
    return counts


def semantic_order(embeddings: np.ndarray) -> np.ndarray:
    """Order concepts so that those of like meaning stand together.

    Parameters
    ----------
    embeddings : array, shape (n_concepts, width)
        Of the concepts' names, by a network of texts.

    Returns
    -------
    array of int, shape (n_concepts,)
        Place of every concept: among the leaves of a clustering (average linkage of cosine distances), turned so that
        neighbours are as alike as they can be [BarJoseph2001]_.

    References
    ----------
    .. [BarJoseph2001] Bar-Joseph, Gifford, Jaakkola. Fast optimal leaf ordering for hierarchical clustering.
       Bioinformatics 17, S22-S29, 2001.

    Examples
    --------
    >>> abs(np.diff(semantic_order(np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]]))[[0, 2]])).tolist()
    [1]
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(embeddings) < 3:
        return np.arange(len(embeddings))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    leaves = leaves_list(linkage(unit, "average", metric="cosine", optimal_ordering=True))
    places = np.empty(len(leaves), dtype=np.int64)
    places[leaves] = np.arange(len(leaves))
    return places
