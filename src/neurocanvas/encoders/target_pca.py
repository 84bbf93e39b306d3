"""Principal coordinates of the training targets: where encoders are trained, and the way back to (77, 768)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# For predictions inside the subspace of an orthonormal basis, |target - prediction|² = |difference of coordinates|² +
# |target - its projection|²: the error over 59,136 numbers is that over a few coordinates plus a constant. With token
# weights the same holds of the weighted error, the axes being orthonormal once tokens are scaled by their roots.


COLUMNS_AT_ONCE = 4096
ROWS_AT_ONCE = 64
SMALLEST_SHARE = 1e-7

# Up to this many targets all pairwise products are formed (128 MB); for more the axes are found in passes.
PRODUCTS_UP_TO = 4096

# Passes, and directions that each follows beyond the wanted ones: both set the precision of the axes.
PASSES, SPARE = 6, 16


@dataclass(frozen=True)
class TargetPCA:
    """Orthonormal principal axes of the training targets around their mean; all float32."""

    mean: np.ndarray  # (77, 768) or another target shape, over trials
    axes: np.ndarray  # (k, n_outputs), largest variance first
    # (k,), over training trials. Least-squares predictions are shrunk towards the mean: a mapper's `prediction_sd` is
    # smaller, and the ratio says by how much a generator may scale coordinates up again.
    target_sd: np.ndarray
    token_scale: np.ndarray | None  # (77,), roots of token weights of mean 1; None: all tokens weigh the same
    scale: np.ndarray  # (n_outputs,), `token_scale` for each number of a target

    @classmethod
    def fit(
        cls, targets: np.ndarray, counts: np.ndarray, components: int, token_weights: tuple[float, ...] = ()
    ) -> TargetPCA:
        """Fit to distinct targets, (n_targets, 77, 768), each with its count of *training* trials, (n_targets,)."""
        # In chunks: neither the covariance nor a copy of the targets, which may be memory-mapped, is ever formed.
        # The last of `token_weights` holds for all tokens that follow.
        used = np.flatnonzero(counts)
        flat = targets.reshape(len(targets), -1)
        share = counts[used] / max(1, counts.sum())
        token_scale, scale = None, np.ones(flat.shape[1], np.float32)
        if token_weights:
            n_tokens, further = targets.shape[1], targets.shape[1] - len(token_weights)
            if further < 0:
                raise NeuroCanvasError(
                    f"token_weights: at most one for each of the {n_tokens} tokens; got {len(token_weights)}."
                )
            weights = np.array(token_weights + token_weights[-1:] * further, dtype=np.float64)
            token_scale = np.sqrt(weights / weights.mean()).astype(np.float32)
            scale = np.repeat(token_scale, len(scale) // n_tokens)
        find = _axes_by_products if len(used) <= PRODUCTS_UP_TO else _axes_by_passes
        mean, axes = find(flat, used, share, scale, components)
        # Rounding errors were squared; one Cholesky step makes the axes orthonormal again.
        axes = np.linalg.solve(np.linalg.cholesky(axes @ axes.T), axes).astype(np.float32)
        basis = cls(mean.reshape(targets.shape[1:]), axes, np.ones(len(axes), np.float32), token_scale, scale)
        coordinates = np.empty((len(used), len(axes)))
        for part in batches(len(used), ROWS_AT_ONCE):
            coordinates[part] = basis.transform(targets[used[part]])
        spread = np.sqrt(share @ coordinates**2)
        return replace(basis, target_sd=spread.astype(np.float32))

    def transform(self, targets: np.ndarray) -> np.ndarray:
        """Project targets: (n, 77, 768) -> (n, k), float32."""
        flat, mean, scale = targets.reshape(len(targets), -1), self.mean.reshape(-1), self.scale
        found = np.empty((len(flat), len(self.axes)), np.float32)
        for rows in batches(len(flat), ROWS_AT_ONCE):
            found[rows] = ((flat[rows].astype(np.float32) - mean) * scale) @ self.axes.T
        return found

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
            part = np.asarray(targets[rows], dtype=np.float32)
            left = (part - self.inverse(self.transform(part))).reshape(len(part), -1).astype(np.float64) * self.scale
            distances[rows] = np.einsum("nd,nd->n", left, left)
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
    tried = [(atoms, counts.astype(np.float32), float(np.float32(t * unit))) for t in TEMPERATURES]
    return min(tried, key=lambda one: float(np.mean((posterior_mean(output, *one) - val_coordinates) ** 2)))


def posterior_mean(output: np.ndarray, atoms: np.ndarray, counts: np.ndarray, temperature: float) -> np.ndarray:
    """Posterior mean of the target, given outputs of a contrastively trained network: (n, k) -> (n, k)."""
    # `atoms`, (m, k), are the distinct training targets, `counts`, (m,), the trials of each. The larger `temperature`,
    # in the unit of coordinates, the closer is the result to the mean training target.
    # The least-squares prediction is Σ_j p_j atoms_j, p_j ∝ counts_j exp(output @ atoms_j / |atoms_j| / temperature).
    length = np.maximum(np.linalg.norm(atoms, axis=1), np.finfo(np.float32).tiny)
    directions, found = (atoms / length[:, None]).T, np.empty_like(output)
    for rows in batches(len(output), max(1, PAIRS_AT_ONCE // len(atoms))):
        logits = output[rows] @ directions / np.float32(temperature) + np.log(counts)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        found[rows] = (share / share.sum(axis=1, keepdims=True)) @ atoms
    return found


def _axes_by_products(
    flat: np.ndarray, used: np.ndarray, share: np.ndarray, scale: np.ndarray, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and principal axes from the Gram matrix of the targets, (n_targets, n_targets)."""
    root = np.sqrt(share)[:, None]
    mean = np.empty(flat.shape[1], dtype=np.float32)
    gram = np.zeros((len(used), len(used)))
    for columns in batches(flat.shape[1], COLUMNS_AT_ONCE):
        part = flat[used, columns].astype(np.float32)
        mean[columns] = share @ part
        part = (part - mean[columns]) * scale[columns] * root.astype(np.float32)
        gram += part @ part.T
    variance, vectors = _largest(gram, float(np.trace(gram)), components)
    weights = (vectors / np.sqrt(variance)).T
    axes = np.empty((len(variance), flat.shape[1]))
    for columns in batches(flat.shape[1], COLUMNS_AT_ONCE):
        part = (flat[used, columns].astype(np.float32) - mean[columns]) * scale[columns]
        axes[:, columns] = weights @ (part * root)
    return mean, axes


def _axes_by_passes(
    flat: np.ndarray, used: np.ndarray, share: np.ndarray, scale: np.ndarray, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and principal axes, (k, n_outputs), by a block Krylov method [Musco2015], a few rows at a time."""
    total = np.zeros(flat.shape[1])
    for part in batches(len(used), ROWS_AT_ONCE):
        total += share[part] @ flat[used[part]].astype(np.float32)
    mean, root = total.astype(np.float32), np.sqrt(share).astype(np.float32)[:, None]

    def centred() -> Iterator[np.ndarray]:
        """Centred, scaled targets weighted by the root of their share, a few rows at a time."""
        for part in batches(len(used), ROWS_AT_ONCE):
            yield (flat[used[part]].astype(np.float32) - mean) * scale * root[part]

    width = min(components + SPARE, flat.shape[1] // PASSES)
    block = np.random.default_rng(0).standard_normal((flat.shape[1], width)).astype(np.float32)
    blocks = []
    for _ in range(PASSES):
        applied = np.zeros_like(block)
        for rows in centred():
            applied += rows.T @ (rows @ block)
        block = np.linalg.qr(applied)[0]
        blocks.append(block)
    inside = np.linalg.qr(np.concatenate(blocks, axis=1))[0]
    gram, whole = np.zeros((inside.shape[1],) * 2), 0.0
    for rows in centred():
        seen = (rows @ inside).astype(np.float64)
        gram += seen.T @ seen
        whole += float(np.einsum("nd,nd->", rows, rows, dtype=np.float64))
    return mean, (inside @ _largest(gram, whole, components)[1]).T.astype(np.float64)


def _largest(gram: np.ndarray, whole: float, components: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues above `SMALLEST_SHARE` of the total variance, and their vectors; raise if none."""
    if not np.isfinite(gram).all():
        raise NeuroCanvasError("targets: NaN or infinite values; make the embeddings again (verb embed).")
    variance, vectors = np.linalg.eigh(gram)
    keep = np.argsort(variance)[::-1][:components]
    keep = keep[variance[keep] > SMALLEST_SHARE * max(whole, float(np.finfo(np.float32).tiny))]
    if len(keep) == 0:
        raise NeuroCanvasError("targets: the training trials all have the same target; at least 2 are needed.")
    return variance[keep], vectors[:, keep]
