"""Principal coordinates of the training targets: encoders predict these, and `inverse` gives whole embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# For predictions inside the subspace of an orthonormal basis, |target - prediction|² = |difference of coordinates|² +
# |target - its projection|²: the error over 59,136 numbers is that over a few coordinates plus a constant. With token
# weights this holds for the weighted error, because the axes are orthonormal once tokens are scaled by their roots.

ROWS_AT_ONCE = 64

# Up to this many targets the axes come from all their products, exactly; from more by randomised SVD [Halko2011].
EXACT_UP_TO = 4096

# Columns per product in float32; the products are added up in float64.
COLUMNS_AT_ONCE = 4096

# Axes with a smaller share of the total variance are rounding errors.
SMALLEST_SHARE = 1e-7


@dataclass(frozen=True)
class TargetPCA:
    """Orthonormal principal axes of the training targets around their mean; all float32."""

    mean: np.ndarray  # (77, 768) or another target shape, over trials
    axes: np.ndarray  # (k, n_outputs), largest variance first
    # (k,), over training trials. Least-squares predictions are shrunk towards the mean: a decoder's `prediction_sd_` is
    # smaller, and the ratio is the gain by which a generator may scale coordinates up again.
    target_sd: np.ndarray
    token_scale: np.ndarray | None  # (77,), roots of token weights of mean 1; None: all tokens weigh the same
    scale: np.ndarray  # (n_outputs,), `token_scale` for each number of a target

    @classmethod
    def fit(
        cls, targets: np.ndarray, counts: np.ndarray, components: int, token_weights: tuple[float, ...] = ()
    ) -> TargetPCA:
        """Fit to distinct targets, (n_targets, 77, 768), each with its count of *training* trials, (n_targets,)."""
        used = np.flatnonzero(counts)
        share = counts[used] / max(1, counts.sum())
        shape, token_scale = targets.shape[1:], None
        scale = np.ones(int(np.prod(shape)), np.float32)
        if token_weights:
            n_tokens, n_further = shape[0], shape[0] - len(token_weights)
            if n_further < 0:
                raise NeuroCanvasError(
                    f"token_weights: at most one for each of the {n_tokens} tokens; got {len(token_weights)}."
                )
            weights = np.array([*token_weights, *token_weights[-1:] * n_further], dtype=np.float64)
            token_scale = np.sqrt(weights / weights.mean()).astype(np.float32)
            scale = np.repeat(token_scale, len(scale) // n_tokens)
        centred = targets[used].reshape(len(used), -1).astype(np.float32)
        mean = np.einsum("n,nd->d", share, centred).astype(np.float32)  # in float64, without a copy
        centred -= mean
        centred *= scale
        centred *= np.sqrt(share).astype(np.float32)[:, None]
        total = float(np.einsum("nd,nd->", centred, centred, dtype=np.float64))
        if not np.isfinite(total):
            raise NeuroCanvasError("targets: NaN or infinite values; make the embeddings again (verb embed).")
        if len(used) <= EXACT_UP_TO:
            columns = batches(centred.shape[1], COLUMNS_AT_ONCE)
            products = sum((centred[:, some] @ centred[:, some].T).astype(np.float64) for some in columns)
            variance, vectors = (array[..., : -components - 1 : -1] for array in np.linalg.eigh(products))
        else:
            from sklearn.utils.extmath import randomized_svd

            left, singular, _ = randomized_svd(centred, components, n_oversamples=components, random_state=0)
            variance, vectors = singular**2, left
        large = variance > SMALLEST_SHARE * max(total, float(np.finfo(np.float32).tiny))
        if not large.any():
            raise NeuroCanvasError("targets: the training trials all have the same target; at least 2 are needed.")
        axes = (vectors[:, large] / np.sqrt(variance[large])).T.astype(np.float32) @ centred
        # Rounding errors were squared; one Cholesky step makes the axes orthonormal again.
        axes = np.linalg.solve(np.linalg.cholesky(axes @ axes.T), axes)
        basis = cls(mean.reshape(shape), axes, np.ones(len(axes), np.float32), token_scale, scale)
        coordinates = basis.transform(targets[used]).astype(np.float64)
        return replace(basis, target_sd=np.sqrt(share @ coordinates**2).astype(np.float32))

    def transform(self, targets: np.ndarray) -> np.ndarray:
        """Project targets: (n, 77, 768) -> (n, k), float32."""
        flat, mean, scale = targets.reshape(len(targets), -1), self.mean.reshape(-1), self.scale
        coordinates = np.empty((len(flat), len(self.axes)), np.float32)
        for rows in batches(len(flat), ROWS_AT_ONCE):
            coordinates[rows] = ((flat[rows].astype(np.float32) - mean) * scale) @ self.axes.T
        return coordinates

    def inverse(self, coordinates: np.ndarray) -> np.ndarray:
        """Targets at coordinates: (n, k) -> (n, 77, 768), float32."""
        flat = coordinates.astype(np.float32) @ self.axes
        flat /= self.scale
        flat += self.mean.reshape(-1)
        return flat.reshape(len(coordinates), *self.mean.shape)

    def squared_distance(self, targets: np.ndarray) -> np.ndarray:
        """|target - its projection|², token-weighted, (n,): the error that no prediction in the subspace can avoid."""
        distances = np.empty(len(targets))
        for rows in batches(len(targets), ROWS_AT_ONCE):
            batch = np.asarray(targets[rows], dtype=np.float32)
            residual = (batch - self.inverse(self.transform(batch))).reshape(len(batch), -1).astype(np.float64)
            distances[rows] = np.square(residual * self.scale).sum(axis=1)
        return distances


# Pairs of trial and training target per batch; sets memory, not results.
PAIRS_AT_ONCE = 16_000_000

# Temperatures of the posterior to try on validation trials, as multiples of the contrastive loss's.
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0)


def fit_posterior(
    coordinates: np.ndarray, output: np.ndarray, val_coordinates: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Atoms, counts and temperature for `posterior_mean`; the temperature has the least error on validation trials."""
    atoms, counts = np.unique(coordinates, axis=0, return_counts=True)
    candidates = [(atoms, counts.astype(np.float32), float(np.float32(t * unit))) for t in TEMPERATURES]
    return min(candidates, key=lambda posterior: np.mean((posterior_mean(output, *posterior) - val_coordinates) ** 2))


def posterior_mean(output: np.ndarray, atoms: np.ndarray, counts: np.ndarray, temperature: float) -> np.ndarray:
    """Posterior mean of the target, given outputs of a contrastively trained network: (n, k) -> (n, k)."""
    # `atoms`, (m, k), are the distinct training targets, `counts`, (m,), the trials of each. The larger `temperature`,
    # in the unit of coordinates, the closer is the result to the mean training target.
    # The least-squares prediction is Σ_j p_j atoms_j, p_j ∝ counts_j exp(output @ atoms_j / |atoms_j| / temperature).
    from scipy.special import softmax
    from sklearn.preprocessing import normalize

    directions, means = normalize(atoms).T, np.empty_like(output)
    for rows in batches(len(output), max(1, PAIRS_AT_ONCE // len(atoms))):
        logits = output[rows] @ directions / np.float32(temperature) + np.log(counts)
        means[rows] = softmax(logits, axis=1) @ atoms
    return means
