"""Principal coordinates of the training targets: where a mapper is trained, and the way back to (77, 768).

A mapper that predicts inside the subspace of an orthonormal basis has, for each trial,

    |target - prediction|² = |coordinates - predicted coordinates|² + |target - its projection|²,

so the mean squared error over 59,136 numbers is the one over a few coordinates plus a constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import batches

COLUMNS_AT_ONCE = 4096
ROWS_AT_ONCE = 64
SMALLEST_SHARE = 1e-7


@dataclass(frozen=True)
class TargetBasis:
    """Orthonormal principal axes of the training targets around their mean.

    Parameters
    ----------
    mean : array, shape (77, 768) or any, float32
        Mean training target, over trials.
    axes : array, shape (k, n_outputs), float32
        Orthonormal rows, the largest variance first.
    target_sd : array, shape (k,), float32
        Standard deviation of the training targets along each axis, over trials.

    Notes
    -----
    Predictions that minimise squared error are shrunk towards the mean: a mapper's `prediction_sd` (over
    validation trials) is below `target_sd`. The two together say by how much; a generator may scale
    coordinates up again.
    """

    mean: np.ndarray
    axes: np.ndarray
    target_sd: np.ndarray

    def __post_init__(self) -> None:
        k = len(self.target_sd)
        if self.axes.shape != (k, self.mean.size) or k == 0:
            raise NeuroCanvasError(
                f"target basis: axes of shape (k, {self.mean.size}) and k deviations are needed; got "
                f"{self.axes.shape} and {self.target_sd.shape}."
            )

    @classmethod
    def fit(cls, targets: np.ndarray, counts: np.ndarray, components: int) -> TargetBasis:
        """Find the principal axes of the targets.

        Solved through the Gram matrix of the targets (n_targets x n_targets), a chunk of columns at a time;
        the full covariance is never formed.

        Parameters
        ----------
        targets : array, shape (n_targets, 77, 768), any float type
            Distinct targets, for instance one per stimulus; may be memory-mapped.
        counts : array of int, shape (n_targets,)
            How many *training* trials have each target; 0 leaves one out.
        components : int
            How many axes to keep; fewer are kept where the targets do not span as many.

        Returns
        -------
        TargetBasis

        Raises
        ------
        NeuroCanvasError
            If fewer than two different targets have trials, or one is not finite.
        """
        used = np.flatnonzero(counts)
        flat = targets.reshape(len(targets), -1)
        share = counts[used] / max(1, counts.sum())
        root = np.sqrt(share)[:, None]
        mean = np.empty(flat.shape[1], dtype=np.float32)
        gram = np.zeros((len(used), len(used)))
        for columns in batches(flat.shape[1], COLUMNS_AT_ONCE):
            part = flat[used, columns].astype(np.float32)
            mean[columns] = share @ part
            part = (part - mean[columns]) * root.astype(np.float32)
            gram += part @ part.T
        if not np.isfinite(gram).all():
            raise NeuroCanvasError("targets: NaN or infinite values; make the embeddings again (verb embed).")
        variance, vectors = np.linalg.eigh(gram)
        keep = np.argsort(variance)[::-1][:components]
        keep = keep[variance[keep] > SMALLEST_SHARE * max(variance.sum(), np.finfo(np.float32).tiny)]
        if len(keep) == 0:
            raise NeuroCanvasError(
                "targets: the training trials all have the same target; at least 2 are needed."
            )
        weights = (vectors[:, keep] / np.sqrt(variance[keep])).T
        axes = np.empty((len(keep), flat.shape[1]))
        for columns in batches(flat.shape[1], COLUMNS_AT_ONCE):
            axes[:, columns] = weights @ ((flat[used, columns].astype(np.float32) - mean[columns]) * root)
        # The Gram matrix squares rounding errors; one Cholesky step makes the axes orthonormal again.
        axes = np.linalg.solve(np.linalg.cholesky(axes @ axes.T), axes).astype(np.float32)
        basis = cls(mean.reshape(targets.shape[1:]), axes, np.ones(len(keep), np.float32))
        spread = np.sqrt(share @ basis.transform(targets[used]).astype(np.float64) ** 2)
        return cls(basis.mean, axes, spread.astype(np.float32))

    def transform(self, targets: np.ndarray) -> np.ndarray:
        """Coordinates of targets.

        Parameters
        ----------
        targets : array, shape (n, 77, 768)

        Returns
        -------
        array, shape (n, k), float32
        """
        flat, mean = targets.reshape(len(targets), -1), self.mean.reshape(-1)
        parts = [
            (flat[rows].astype(np.float32) - mean) @ self.axes.T for rows in batches(len(flat), ROWS_AT_ONCE)
        ]
        return np.concatenate([np.empty((0, len(self.axes)), np.float32), *parts])

    def inverse(self, coordinates: np.ndarray) -> np.ndarray:
        """Targets at given coordinates.

        Parameters
        ----------
        coordinates : array, shape (n, k)

        Returns
        -------
        array, shape (n, 77, 768), float32
        """
        flat = coordinates.astype(np.float32) @ self.axes + self.mean.reshape(-1)
        return flat.reshape(len(coordinates), *self.mean.shape)

    def squared_distance(self, targets: np.ndarray) -> np.ndarray:
        """|target - its projection|²: what no prediction inside the subspace can reach.

        Parameters
        ----------
        targets : array, shape (n, 77, 768)

        Returns
        -------
        array, shape (n,), float64
        """
        distances = np.empty(len(targets))
        for rows in batches(len(targets), ROWS_AT_ONCE):
            part = np.asarray(targets[rows], dtype=np.float32)
            left = (part - self.inverse(self.transform(part))).reshape(len(part), -1).astype(np.float64)
            distances[rows] = np.einsum("nd,nd->n", left, left)
        return distances
