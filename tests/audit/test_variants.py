"""Every variant against a literal transcription of what its program does, on small arrays."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom, pearsonr

from neurocanvas.audit.variants import (
    VARIANTS,
    add_up,
    as_published,
    n_way_class,
    pixels_of_pairs,
    score_similarity,
    upper_half,
    variant_two_way,
)
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.feature_networks import FEATURE_NETWORKS, preprocess
from neurocanvas.evaluation.identification import read_true, similarity, two_way_table
from neurocanvas.evaluation.metrics import METRICS


def embeddings(n: int = 30, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Generated and seen, related enough that two-way scores lie between chance and 1."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(n, width))
    return seen + 1.5 * rng.normal(size=(n, width)), seen


def pictures(n: int = 3, height: int = 60, width: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    waves = rng.uniform(2, 20, size=(n, 1, 1, 3))
    rows, columns = np.mgrid[:height, :width] / 60
    stack = 127 + 90 * np.sin(waves * rows[..., None] + waves[..., ::-1] * columns[..., None])
    return (stack + rng.integers(-30, 30, size=stack.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["mindeye", "atm-old", "ozcelik"])
def test_mindeyes_two_way_is_read_down_the_columns_of_the_correlations(name):
    generated, seen = embeddings()
    # rows are seen images, columns generated ones; for each column, the rows below the diagonal's value
    r = np.corrcoef(seen, generated)[:30, 30:]
    counts = [sum(r[i, j] < r[j, j] for i in range(30)) for j in range(30)]
    np.testing.assert_allclose(variant_two_way(similarity(generated, seen), name), np.array(counts) / 29)


def test_enigma_takes_one_off_although_the_picture_itself_never_counted():
    generated, seen = embeddings(seed=1)
    r = np.corrcoef(seen, generated)[:30, 30:]
    expected = [(np.sum(r[:, i] < r[i, i]) - 1) / 29 for i in range(30)]
    np.testing.assert_allclose(variant_two_way(similarity(generated, seen), "enigma"), expected)
    np.testing.assert_allclose(variant_two_way(similarity(seen, seen), "enigma"), 28 / 29)


def test_bread_compares_in_the_other_direction():
    generated, seen = embeddings(seed=2)
    sim, expected = similarity(generated, seen), []
    # each seen image: how often its own generated one correlates more than another trial's generated one
    for i, one in enumerate(seen):
        r = np.array([pearsonr(one, other)[0] for other in generated])
        expected.append((r < r[i]).sum() / 29)
    np.testing.assert_allclose(variant_two_way(sim, "bread"), expected)
    assert abs(variant_two_way(sim, "bread") - variant_two_way(sim)).max() > 0.1


def test_our_own_score_differs_from_mindeyes_in_ties_and_repeated_pictures_only():
    generated, seen = embeddings(seed=4)
    sim = similarity(generated, seen)
    np.testing.assert_allclose(read_true(two_way_table(sim), np.arange(30)), variant_two_way(sim), atol=1e-12)
    tied = np.array([[0.5, 0.5, 0.1], [0.1, 0.5, 0.2], [0.1, 0.2, 0.5]])
    assert two_way_table(tied)[0, 0] == 0.75 and variant_two_way(tied)[0] == 0.5
    # the second and third trial showed one image, and what was generated is it exactly
    sim = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    assert read_true(two_way_table(sim[:, :2]), np.array([0, 1, 1])).tolist() == [1.0, 1.0, 1.0]
    assert variant_two_way(sim).tolist() == [1.0, 0.5, 0.5]


def test_mindvis_draws_49_others_than_the_seen_pictures_class():
    rng = np.random.default_rng(6)
    seen = rng.normal(size=(200, 70))
    logits = 0.7 * seen + rng.normal(size=(200, 70))
    below = (logits < np.take_along_axis(logits, seen.argmax(axis=1)[:, None], axis=1)).sum(axis=1)  # of 69 others
    expected = [math.comb(count, 49) / math.comb(69, 49) for count in below]  # all that are drawn must be below
    np.testing.assert_allclose(n_way_class(logits, seen), expected, atol=1e-12)
    assert n_way_class(seen, seen).tolist() == [1.0] * 200
    assert n_way_class(-seen, seen).tolist() == [0.0] * 200


def test_upper_half_is_the_exact_expectation_of_an_indicator():
    rng = np.random.default_rng(8)
    scores, true = rng.normal(size=(9, 41)), rng.integers(0, 41, size=9)
    scores[np.arange(9), true] = np.sort(scores, axis=1)[:, 16:25].diagonal() + 1e-9  # around the middle
    beaten = (scores < scores[np.arange(9), true][:, None]).sum(axis=1)
    drawn = rng.binomial(500, beaten / 40, size=(1500, 9)) > 250
    # CrossPT-EEG: more than 250 of 500 others, drawn with replacement, must be beaten
    np.testing.assert_allclose(upper_half(scores, true), binom.sf(250, 500, beaten / 40), atol=1e-9)
    np.testing.assert_allclose(upper_half(scores, true), drawn.mean(axis=0), atol=0.06)
    assert 0.05 < upper_half(scores, true)[4] < 0.95


def torch_resized(stack: np.ndarray, *sizes: int, antialias: bool, rounded: bool = False) -> np.ndarray:
    """(n, h, w, 3) of 0 to 255 through torchvision's tensor resize to squares, from 0 to 1."""
    made = torch.tensor(stack).permute(0, 3, 1, 2).float() / 255
    for size in sizes:
        how = {"mode": "bilinear", "align_corners": False, "antialias": antialias}
        made = torch.nn.functional.interpolate(made, (size, size), **how)
        made = (made * 255).round() / 255 if rounded else made
    return made.permute(0, 2, 3, 1).numpy().astype(float)


def mindeye_ssim(a: np.ndarray, b: np.ndarray) -> list[float]:
    color, metrics = pytest.importorskip("skimage.color"), pytest.importorskip("skimage.metrics")
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return [metrics.structural_similarity(*pair, **how) for pair in zip(color.rgb2gray(a), color.rgb2gray(b))]


def correlations(a: np.ndarray, b: np.ndarray) -> list[float]:
    return [np.corrcoef(left.ravel(), right.ravel())[0, 1] for left, right in zip(a, b)]


def assert_pixels(found, a, b):
    np.testing.assert_allclose(found[:, 0], correlations(a, b), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], mindeye_ssim(np.clip(a, 0, 1), np.clip(b, 0, 1)), atol=1e-6)


def test_mindeyes_pixels_are_at_425_from_256():
    generated, seen = pictures(seed=1), pictures(seed=2, height=300, width=200)
    a, b = (torch_resized(stack, 256, 425, antialias=False) for stack in (generated, seen))
    assert_pixels(pixels_of_pairs(generated, seen), a, b)


def test_the_old_notebook_of_atm_divides_by_982_and_clamps():
    generated, seen = pictures(n=4, seed=3), pictures(n=4, seed=4)
    generated[:, ::2] = 0
    clamped = torch_resized(generated.clip(0, 1), 256, 425, antialias=False, rounded=True)
    b = torch_resized(seen, 256, 425, antialias=False, rounded=True)
    found = pixels_of_pairs(generated, seen, "atm-old")
    assert add_up(found[:, 0], VARIANTS["atm-old"].divisor).mean() == pytest.approx(
        sum(correlations(clamped, b)) / 982, abs=1e-9
    )
    np.testing.assert_allclose(found[:, 1], mindeye_ssim(clamped, b), atol=1e-6)
    assert np.unique(clamped * 255).round().tolist() == [0.0, 1.0]


def test_perceptogram_compares_pixels_at_512_by_pil():
    generated, seen = pictures(n=2, seed=5), pictures(n=2, seed=6)
    a, b = (
        np.stack([np.array(Image.fromarray(one).resize((512, 512))) / 255.0 for one in stack])
        for stack in (generated, seen)
    )
    assert_pixels(pixels_of_pairs(generated, seen, "ozcelik"), a, b)


def test_bread_distorts_what_is_not_square_and_compares_colours_in_a_flat_window():
    metrics = pytest.importorskip("skimage.metrics")
    generated, seen = pictures(n=2, seed=7), pictures(n=2, seed=8, height=60, width=90)

    def literal(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        new = (512, int(512 / width * height)) if width < height else (int(512 / height * width), 512)
        tensor = torch.tensor(picture).permute(2, 0, 1)[None].float() / 255
        # (new_width, new_height) is handed to a function that takes (height, width)
        tensor = torch.nn.functional.interpolate(tensor, new, mode="bilinear", align_corners=False, antialias=True)
        top, left = round((tensor.shape[2] - 512) / 2), round((tensor.shape[3] - 512) / 2)
        return tensor[0, :, top : top + 512, left : left + 512].numpy().astype(float)

    a, b = ([literal(one) for one in stack] for stack in (generated, seen))
    assert b[0].shape == (3, 512, 512)
    found = pixels_of_pairs(generated, seen, "bread")
    np.testing.assert_allclose(found[:, 0], correlations(a, b), atol=1e-6)
    pairs, how = zip(np.clip(a, 0, 1), np.clip(b, 0, 1)), {"channel_axis": 0, "data_range": 1.0}
    expected = [metrics.structural_similarity(*pair, **how) for pair in pairs]
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-6)


def test_enigmas_generated_pictures_go_through_jpeg_and_224_pixels():
    generated, seen = pictures(n=2, seed=9, height=256, width=256), pictures(n=2, seed=10, height=500, width=500)
    small = []
    for picture in generated:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, format="JPEG", quality=75)
        small.append(np.array(Image.open(stream).resize((224, 224))))
    for made, expected in zip(as_published(generated, VARIANTS["enigma"]), small):
        np.testing.assert_array_equal(made, expected)
    a = torch_resized(np.stack(small), 512, antialias=True)
    b = torch_resized(seen, 224, 512, antialias=True)
    assert_pixels(pixels_of_pairs(generated, seen, "enigma"), a, b)


@pytest.mark.parametrize("name", ["mindeye", "bread", "enigma"])
def test_scores_of_networks_are_two_way_or_distances_of_what_the_network_gives(name):
    generated, seen = pictures(n=5, seed=13, height=70, width=90), pictures(n=5, seed=14)
    drawn = as_published(generated, VARIANTS[name])
    for metric in ("alexnet5", "clip", "efficientnet-b1"):
        how = VARIANTS[name].networks[metric].preprocess
        pooled = (torch.nn.functional.adaptive_avg_pool2d(preprocess(some, how), 8) for some in (drawn, seen))
        ours, theirs = (places.flatten(1).numpy() for places in pooled)
        found, r = score_similarity(similarity(ours, theirs), metric, name), np.corrcoef(ours, theirs)[:5, 5:]
        if metric == "efficientnet-b1":
            np.testing.assert_allclose(found, 1 - np.diag(r), atol=1e-4)
            continue
        r = r.T if name == "bread" else r
        off = 1 if name == "enigma" else 0
        expected = [(sum(r[i, j] < r[i, i] for j in range(5)) - off) / 4 for i in range(5)]
        np.testing.assert_allclose(found, expected)


# Layers that are read, and sides of the tensors that networks are given.
LAYERS = {"alexnet2": "features.4", "alexnet5": "features.11", "inception": "avgpool", "clip": "image_embeds",
          "efficientnet-b1": "avgpool", "swav": "avgpool"}  # fmt: skip
SIDES = {"mindeye": (256, 256, 342, 224, 255, 224), "ozcelik": (224,) * 6, "bread": (224, 224, 299, 224, 240, 240),
         "enigma": (256, 256, 342, 224, 255, 224)}  # fmt: skip


@pytest.mark.parametrize("name", [*SIDES, "mindvis-nway"])
def test_networks_of_a_variant_are_given_its_sizes_and_read_at_its_layers(name):
    expected = {metric: (layer, side) for (metric, layer), side in zip(LAYERS.items(), SIDES.get(name, ()))}
    if name == "bread":
        expected |= {"alexnet2": ("features.5", 224), "alexnet5": ("features.12", 224)}
    found, values = {}, pictures(n=1, height=80, width=100)
    for metric, network in VARIANTS[name].networks.items():
        shape = preprocess(values, network.preprocess).shape
        assert shape == (1, 3, shape[-1], shape[-1]), metric
        found[metric] = (*network.layers, shape[-1])
    assert found == (expected or {"top1-of-50": ("heads", 518)})


def test_the_table_holds_what_is_asked_of_it():
    assert list(VARIANTS) == ["mindeye", "atm-old", "ozcelik", "bread", "enigma", "mindvis-nway", "crosspt-upper-half"]
    assert VARIANTS["mindvis-nway"].n_way == (50, 1)
    assert VARIANTS["bread"].networks["clip"].subfolder == "image_encoder"
    assert VARIANTS["ozcelik"].networks["clip"].preprocess.on == "pil"
    assert {name for name, variant in VARIANTS.items() if variant.jpeg} == {"enigma"}
    for name, variant in VARIANTS.items():
        assert variant.reference and variant.differs, name
        assert set(variant.networks) <= set(METRICS), name


def test_every_metric_says_how_to_read_it():
    for name, metric in METRICS.items():
        assert metric.better in ("higher", "lower") and metric.reference and metric.unit and metric.title, name
        assert set(metric.networks) <= set(FEATURE_NETWORKS), name
        assert isinstance(metric.chance, str) or 0 < metric.chance < 1, name
    lower = {name for name, metric in METRICS.items() if metric.better == "lower"}
    assert lower == {"median_rank", "efficientnet-b1", "swav", "lpips", "fid-64", "fid-2048", "kid", "mean_cosine"}
    # the network that conditions the generator is never the only judge
    assert all("dinov2" in METRICS[name].networks for name in ("two_way", "n_way"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: variant_two_way(np.eye(3)[:, :2]), r"as many rows as columns; got \(3, 2\)"),
        (lambda: pixels_of_pairs(pictures(3), pictures(2)), "got 3 and 2"),
        (lambda: n_way_class(np.zeros((2, 49)), np.zeros((2, 49))), r"50 classes or more are needed; got \(2, 49\)"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(NeuroCanvasError, match=message):
        call()
