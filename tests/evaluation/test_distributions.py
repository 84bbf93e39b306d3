"""FID, KID and inception score against scipy, torchmetrics and their definitions; diversity where it must tell."""

import itertools

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.distributions import (
    FeatureMoments,
    SetScore,
    effective_rank,
    fid,
    inception_score,
    kid,
    mean_pairwise_cosine,
)


def features(n: int, width: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + shift


def moments(values: np.ndarray, batch: int = 1000) -> FeatureMoments:
    made = FeatureMoments(values.shape[1])
    for start in range(0, len(values), batch):
        made.update(values[start : start + batch])
    return made


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_moments_are_numpys_whatever_the_batches(batch):
    values = features(50) + 1e6  # a large mean costs digits where squares are summed
    made = moments(values, batch)
    np.testing.assert_allclose(made.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(made.covariance(), np.cov(values, rowvar=False), rtol=1e-6)
    assert made.n == 50


def test_fid_is_its_formula_with_scipys_matrix_root():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = features(60, seed=1), features(80, seed=2, shift=0.5)
    found = fid(moments(a), moments(b))
    c, d = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * linalg.sqrtm(c @ d).real)
    assert found == SetScore(pytest.approx(expected, rel=1e-8), 60, 80, 6)


def test_fid_is_torchmetrics():
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.image.fid")
    a, b = features(60, seed=3), features(70, seed=4)
    parts = [torch.tensor(part) for values in (a, b) for part in (values.mean(0), np.cov(values, rowvar=False))]
    assert fid(moments(a), moments(b)).value == pytest.approx(float(image._compute_fid(*parts)), rel=1e-6)


def test_fid_of_fewer_pictures_than_features_is_finite_and_of_a_set_with_itself_zero():
    a = features(8, width=30, seed=5)
    assert fid(moments(a), moments(a)).value == pytest.approx(0, abs=1e-6)
    assert 0 < fid(moments(a), moments(a[::2])).value < np.inf


def test_fid_depends_on_n_and_kid_does_not():
    rng = np.random.default_rng(6)
    values = {}
    for n in (20, 200):
        pairs = [rng.normal(size=(2, n, 10)) for _ in range(20)]
        values[n] = [
            np.mean([fid(moments(a), moments(b)).value for a, b in pairs]),
            np.mean([kid(a, b, rng=rng).value for a, b in pairs]),
        ]
    assert values[20][0] > 5 * values[200][0]
    assert abs(values[20][1]) < 0.1 and abs(values[200][1]) < 0.1


def test_kid_is_its_formula_pair_by_pair():
    x, y = features(9, seed=7), features(9, seed=8, shift=0.3)

    def k(a, b):
        return (a @ b / 6 + 1) ** 3

    within = [np.mean([k(s[i], s[j]) for i, j in itertools.permutations(range(9), 2)]) for s in (x, y)]
    across = np.mean([k(a, b) for a in x for b in y])
    found = kid(x, y, rng=np.random.default_rng(0))
    assert found.value == pytest.approx(sum(within) - 2 * across, rel=1e-10)
    assert (found.n_generated, found.n_seen, found.n_features, found.spread) == (9, 9, 6, None)


def test_kid_is_torchmetrics():
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.image.kid")
    x, y = features(40, seed=9), features(40, seed=10)
    expected = float(image.poly_mmd(torch.tensor(y), torch.tensor(x)))
    assert kid(x, y, rng=np.random.default_rng(0)).value == pytest.approx(expected, rel=1e-8)


def test_kid_over_subsets_is_near_that_of_all_and_says_how_much_it_varies():
    x, y = features(300, seed=11), features(300, seed=12, shift=0.2)
    rng = np.random.default_rng(1)
    some, everything = kid(x, y, rng=rng, subsets=60, subset_size=100), kid(x, y, rng=rng)
    assert some.spread is not None and some.spread > 0
    assert abs(some.value - everything.value) < 4 * some.spread / np.sqrt(60)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save", "ignore:The ``compute`` method")
def test_inception_score_is_torchmetrics(monkeypatch):
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.image.inception")
    logits = 3 * features(40, width=9, seed=13)
    monkeypatch.setattr(image.torch, "randperm", lambda n: torch.arange(n))
    metric = image.InceptionScore(torch.nn.Identity(), splits=4)
    metric.features = [torch.tensor(logits)]
    mean, spread = metric.compute()
    found = inception_score(logits, splits=4)
    assert found.value == pytest.approx(float(mean), rel=1e-10)
    # torchmetrics divides by one split less
    assert found.spread == pytest.approx(float(spread) * np.sqrt(3 / 4), rel=1e-10)


def test_inception_score_is_its_formula_and_shuffles_when_asked(monkeypatch):
    monkeypatch.setattr("neurocanvas.evaluation.distributions.AT_ONCE", 4)
    logits = 3 * features(30, width=5, seed=14)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.exp(np.mean([(row * np.log(row / p.mean(axis=0))).sum() for row in p]))
    assert inception_score(logits).value == pytest.approx(expected, rel=1e-10)
    assert inception_score(logits, rng=np.random.default_rng(0)).value == pytest.approx(expected, rel=1e-10)
    split = inception_score(logits, splits=3)
    assert split.value != inception_score(logits, splits=3, rng=np.random.default_rng(0)).value


def test_effective_rank_tells_collapse():
    rng = np.random.default_rng(15)
    targets = rng.normal(size=(100, 20))
    collapsed = np.ones(20) + 0.01 * targets
    assert effective_rank(targets) > 18 and effective_rank(collapsed) < 2.5
    assert effective_rank(collapsed, centre=True) > 18, "the small differences still span all directions"
    s = np.linalg.svd(targets, compute_uv=False)
    p = s / s.sum()
    assert effective_rank(targets) == pytest.approx(np.prod(p**-p))
    assert effective_rank(3 * targets[:, ::-1]) == pytest.approx(effective_rank(targets))
    assert effective_rank(np.full((4, 3), 0.1), centre=True) == 0 == effective_rank(np.zeros((4, 3)))


def test_mean_pairwise_cosine_is_the_mean_of_all_pairs():
    values = features(12, seed=16, shift=0.5)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    expected = np.mean([unit[i] @ unit[j] for i, j in itertools.combinations(range(12), 2)])
    assert mean_pairwise_cosine(values) == pytest.approx(expected)
    assert mean_pairwise_cosine(np.ones((5, 3))) == pytest.approx(1)


def test_bad_input_is_refused():
    good, rng = features(5), np.random.default_rng(0)
    with pytest.raises(NeuroCanvasError, match="one width are needed; got 6 and 5"):
        fid(moments(good), moments(good[:, :5]))
    with pytest.raises(NeuroCanvasError, match="two pictures or more are needed for a covariance; got 1"):
        fid(moments(good[:1]), moments(good))
    with pytest.raises(NeuroCanvasError, match="6 finite numbers per picture"):
        moments(good).update(good[:, :3])
    with pytest.raises(NeuroCanvasError, match="1 not finite"):
        moments(np.where(good == good[0, 0], np.nan, good))
    with pytest.raises(NeuroCanvasError, match=r"n_pictures >= 2.*got \(1, 6\)"):
        kid(good[:1], good, rng=rng)
    with pytest.raises(NeuroCanvasError, match="widths 6 and 3"):
        kid(good, good[:, :3], rng=rng)
    with pytest.raises(NeuroCanvasError, match="1 to 5, the number of pictures, is allowed; got 6"):
        inception_score(good, splits=6)
    with pytest.raises(NeuroCanvasError, match="logits: finite"):
        inception_score(np.full((3, 2), np.nan))
    for bad in (np.zeros((3, 2)), np.full((3, 2), np.nan)):
        with pytest.raises(NeuroCanvasError, match="not zero"):
            mean_pairwise_cosine(bad)
    with pytest.raises(NeuroCanvasError, match="NaN or infinity"):
        effective_rank(np.full((3, 2), np.nan))
