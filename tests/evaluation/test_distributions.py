"""FID against torchmetrics, KID and inception score (by torchmetrics) against golden numbers; diversity."""

import itertools

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.feature_networks import NotComputed
from neurocanvas.evaluation.set_metrics import diversity, fid, inception_score, kid


def features(n: int, width: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + shift


def scored(value: float, n_generated: int, n_seen: int) -> dict:
    return {"value": value, "n_generated": n_generated, "n_seen": n_seen, "n_features": 6, "spread": None}


def test_fid_is_torchmetrics():
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.image.fid")
    a, b = features(60, seed=3), features(70, seed=4, shift=0.5)
    parts = [torch.tensor(part) for values in (a, b) for part in (values.mean(0), np.cov(values, rowvar=False))]
    expected = float(image._compute_fid(*parts))
    assert fid(a, b) == scored(pytest.approx(expected, rel=1e-6), 60, 70)


def test_fid_of_fewer_pictures_than_features_is_finite_and_of_a_set_with_itself_zero():
    a = features(8, width=30, seed=5)
    assert fid(a, a)["value"] == pytest.approx(0, abs=1e-6)
    assert 0 < fid(a, a[::2])["value"] < np.inf


def test_fid_depends_on_n_and_kid_does_not():
    rng = np.random.default_rng(6)
    few, many = ([rng.normal(size=(2, n, 10)) for _ in range(20)] for n in (20, 200))
    small, large = (np.mean([fid(a, b)["value"] for a, b in pairs]) for pairs in (few, many))
    assert small > 5 * large
    assert all(abs(np.mean([kid(a, b, seed=0)["value"] for a, b in pairs])) < 0.1 for pairs in (few, many))


def test_kid_and_inception_score_are_our_former_ones():
    """Origin of both numbers: the implementations in NumPy that torchmetrics replaced."""
    pytest.importorskip("torchmetrics")
    x, y = features(40, seed=9), features(40, seed=10)
    assert kid(x, y, seed=0) == scored(pytest.approx(51.020624605914634, rel=1e-8), 40, 40)
    logits = 3 * features(40, width=9, seed=13)
    assert inception_score(logits)["value"] == pytest.approx(4.849366115178453, rel=1e-10)


def test_kid_over_subsets_is_near_that_of_all_and_says_how_much_it_varies():
    x, y = features(300, seed=11), features(300, seed=12, shift=0.2)
    some, everything = kid(x, y, seed=1, subsets=60, subset_size=100), kid(x, y, seed=1)
    assert some == kid(x, y, seed=1, subsets=60, subset_size=100) != kid(x, y, seed=2, subsets=60, subset_size=100)
    assert some["spread"] is not None and some["spread"] > 0
    assert abs(some["value"] - everything["value"]) < 4 * some["spread"] / np.sqrt(60)


def test_without_torchmetrics_kid_and_inception_score_are_not_computed_and_fid_is(monkeypatch):
    def missing(module):
        raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")

    monkeypatch.setattr("neurocanvas.evaluation.feature_networks.import_module", missing)
    for call in (lambda: kid(GOOD, GOOD, seed=0), lambda: inception_score(GOOD)):
        with pytest.raises(NotComputed, match=r"torchmetrics is not installed: pip install 'neurocanvas\[metrics\]'"):
            call()
    assert fid(GOOD, GOOD)["value"] == pytest.approx(0, abs=1e-6)


def test_effective_rank_tells_collapse():
    rng = np.random.default_rng(15)
    targets = rng.normal(size=(100, 20))
    collapsed = np.ones(20) + 0.01 * targets
    centred = collapsed - collapsed.mean(axis=0)
    whole, few, rest = (diversity(rows)["effective_rank"] for rows in (targets, collapsed, centred))
    assert whole > 18 and few < 2.5
    assert rest > 18, "the small differences still span all directions"
    s = np.linalg.svd(targets, compute_uv=False)
    p = s / s.sum()
    assert whole == pytest.approx(np.prod(p**-p))
    assert diversity(3 * targets[:, ::-1])["effective_rank"] == pytest.approx(whole)
    equal = np.full((4, 3), 0.1)
    for nothing in (np.zeros((4, 3)), equal - equal.mean(axis=0)):
        assert diversity(nothing)["effective_rank"] == 0


def test_mean_cosine_is_the_mean_of_all_pairs_and_needs_pairs_without_zeros():
    values = features(12, seed=16, shift=0.5)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    expected = np.mean([unit[i] @ unit[j] for i, j in itertools.combinations(range(12), 2)])
    assert diversity(values)["mean_cosine"] == pytest.approx(expected)
    assert diversity(np.ones((5, 3)))["mean_cosine"] == pytest.approx(1)
    assert not {"mean_cosine"} & {*diversity(values[:1]), *diversity(values * (np.arange(12) > 0)[:, None])}


GOOD, NAN = features(5), np.full((3, 2), np.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fid(GOOD[:1], GOOD), "2 images or more are needed; got 1 and 5"),
        (lambda: fid(np.where(GOOD[0, 0] == GOOD, np.nan, GOOD), GOOD), "finite features"),
        (lambda: kid(GOOD[:1], GOOD, seed=0), "2 images or more are needed; got 1 and 5"),
        (lambda: inception_score(NAN), "finite features"),
        (lambda: diversity(NAN), "NaN or infinity"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(NeuroCanvasError, match=message):
        call()
