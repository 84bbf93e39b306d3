"""The simulated data set: its layout, its physics, and how much of it is the image."""

import hashlib
import json
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from neurocanvas.config import DataSettings, SimulateSettings
from neurocanvas.data import open_trials
from neurocanvas.data.images import IMAGENET_CONCEPTS
from neurocanvas.data.montage import CH_NAMES, POSITIONS
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.simulation import dataset as simulated
from neurocanvas.simulation.dataset import GROUPS, simulate
from neurocanvas.simulation.eeg import N_RESPONDING, Brain, draw_drift, leadfield, log_band_power, make_brain, record

SMALL = SimulateSettings(concepts=3, trials_per_concept=4, explained_variance=0.0)

# What real single trials of 501 ms are like, average reference, .5-80 Hz. From the three EEG-ImageNet trials in
# `eeg_imagenet_trials` (slope, correlation with distance, rank) and, for the standard deviation, from the one
# that is in volts (9.3 µV) and the middle 95 % of 475 segments of `recordings/eeglab_data.set` (8.2 to 21.7 µV).
SLOPE = (0.84, 1.60)  # median over channels of the 1/f exponent, fitted on 2-40 Hz without 7-14 Hz
DISTANCE_CORRELATION = (-0.81, -0.67)  # of channel correlation with electrode distance
RANK = (7.5, 9.2)  # exp of the entropy of the correlation matrix' eigenvalues
MICROVOLTS = (8.0, 22.0)


@cache
def world() -> np.ndarray:
    """Parameters of 18 x 50 images, concept by concept."""
    return np.array([stimulus.parameters for stimulus in simulated.draw_stimuli(SimulateSettings())])


@cache
def brain_of(explained_variance: float) -> Brain:
    """Subject 0 of seed 0."""
    return make_brain(0, 0, GROUPS, world(), explained_variance)


def record_trials(explained_variance: float, order: np.ndarray, tag: int = 0) -> np.ndarray:
    """Signal of images of `world` in this order."""
    person = brain_of(explained_variance)
    drift = draw_drift(person, len(order), rng=np.random.default_rng([1, tag]))
    parts = []
    for start in range(0, len(order), 50):
        rows = slice(start, min(start + 50, len(order)))
        rngs = [np.random.default_rng([2, tag, trial]) for trial in range(rows.start, rows.stop)]
        parts.append(record(person, drift.rows(rows), world()[order[rows]], rngs=rngs))
    return np.concatenate(parts)


@cache
def rapid_features(explained_variance: float) -> tuple[np.ndarray, np.ndarray]:
    """Log band power, (900, 310), and the order of the images, of one rapid recording."""
    order = np.random.default_rng(7).permutation(900)
    return log_band_power(record_trials(explained_variance, order)).reshape(900, -1), order


def decode(features: np.ndarray, concept: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Share of test trials whose concept a linear discriminant with shrinkage finds."""
    mean, scale = features[train].mean(axis=0), features[train].std(axis=0)
    known, asked = (features[train] - mean) / scale, (features[test] - mean) / scale
    names = np.unique(concept)
    means = np.array([known[concept[train] == name].mean(axis=0) for name in names])
    rest = known - means[np.searchsorted(names, concept[train])]
    covariance = 0.7 * rest.T @ rest / len(rest) + 0.3 * np.eye(features.shape[1])
    weights = np.linalg.solve(covariance, means.T)
    scores = asked @ weights - 0.5 * (means.T * weights).sum(axis=0)
    return float((names[scores.argmax(axis=1)] == concept[test]).mean())


def decode_folds(features: np.ndarray, concept: np.ndarray) -> float:
    """Mean accuracy over ten folds of held-out images."""
    fold = np.random.default_rng(1).permutation(len(concept)) % 10
    return float(np.mean([decode(features, concept, fold != one, fold == one) for one in range(10)]))


def opened(folder, settings=SMALL, **changes):
    """Trials of a simulation, which is done with some settings changed."""
    simulate(settings.model_copy(update=changes), folder)
    return open_trials(DataSettings(root=str(folder)))


def test_writes_the_released_layout_with_pictures(tmp_path):
    path = simulate(SMALL, tmp_path)
    content = torch.load(path, weights_only=True)
    assert path.name == "EEG-ImageNet.pth" and list(content) == ["dataset", "labels", "images"]
    assert content["labels"] == list(IMAGENET_CONCEPTS) and len(content["images"]) == 12
    first = content["dataset"][0]
    assert list(first) == ["eeg_data", "granularity", "subject", "label", "image", "order"]
    assert first["eeg_data"].shape == (62, 501) and first["eeg_data"].dtype == torch.float32
    assert first["eeg_data"].untyped_storage().nbytes() == 62 * 501 * 4
    assert 2e-6 < float(first["eeg_data"].std()) < 1e-4
    assert path.stat().st_size < 1.05 * 12 * 62 * 501 * 4
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "EEG-ImageNet.pth", "EEG-ImageNet.pth.json", "imageNet_images", "synset_map_en.txt",
    ]  # fmt: skip
    trials = open_trials(DataSettings(root=str(tmp_path)))
    assert len(trials) == 12 and np.isfinite(trials.signal()).all()
    assert trials.images.picture(trials.images.ids[0]).shape == (64, 64, 3)
    with Image.open(trials.images.path(trials.images.ids[0])) as image:
        assert image.format == "JPEG" and image.layer[0][1:3] == image.layer[1][1:3] == (1, 1)
    assert set(trials.images.names.values()) == {"airliner", "coffee mug", "jack-o'-lantern"}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    settings = SMALL.model_copy(update={"explained_variance": 0.05})
    hashes = [
        hashlib.sha256(simulate(settings.model_copy(update={"seed": seed}), tmp_path / name).read_bytes()).digest()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_subjects_and_trials_do_not_depend_on_how_many_there_are(tmp_path):
    one, two = opened(tmp_path / "one"), opened(tmp_path / "two", subjects=2)
    np.testing.assert_array_equal(one.signal(), two.signal(slice(0, 12)))
    assert not np.array_equal(two.column("image")[:12], two.column("image")[12:])
    assert set(two.column("image")[:12]) == set(two.column("image")[12:])


def test_a_block_design_shows_one_concept_after_another_and_a_rapid_one_does_not(tmp_path):
    block, rapid = (opened(tmp_path / design, design=design) for design in ("block", "rapid"))
    assert block.column("block").tolist() == np.repeat(np.arange(3), 4).tolist()
    assert rapid.column("block").max() >= 6
    assert "stage" not in torch.load(tmp_path / "rapid" / "EEG-ImageNet.pth", weights_only=True)["dataset"][0]


@pytest.mark.parametrize("design", ["rapid", "block"])
def test_stage_2_has_the_released_layout(tmp_path, design):
    sizes = {"subjects": 5, "concepts": 3, "trials_per_concept": 5, "stages": 2}
    settings = SimulateSettings(design=design, explained_variance=0.0, **sizes)
    shown = []
    simulate(settings, tmp_path, progress=shown.append)
    content = torch.load(tmp_path / "EEG-ImageNet_stage2.pth", weights_only=True)["dataset"]
    assert sum(shown) == settings.n_trials == 5 * 15 + len(content)
    assert [record["subject"] for record in content] == [16] * 15 + [18] * 15  # subjects 4 and 0
    assert [record["stage"] for record in content[:15]] == [30] * 9 + [20] * 6  # 3 and 2 of 5 images
    assert len({record["image"] for record in content[:15]}) == 15
    trials = open_trials(DataSettings(root=str(tmp_path), subjects=("0",)))
    assert trials.column("session").tolist() == ["0"] * 15 + ["1"] * 15
    assert trials.column("run").tolist() == ["0"] * 24 + ["1"] * 6
    concepts, counts = np.unique(trials.column("concept")[15:24], return_counts=True)
    assert len(concepts) == 3 and set(counts) == {3}
    if design == "block":
        assert trials.column("block").tolist() == np.repeat(np.arange(9), [5] * 3 + [3] * 3 + [2] * 3).tolist()


def test_a_simulation_without_stage_2_takes_that_of_an_earlier_one_away(tmp_path):
    two = SMALL.model_copy(update={"stages": 2})
    simulate(two, tmp_path)
    before = (tmp_path / "EEG-ImageNet_stage2.pth").read_bytes()
    simulate(SMALL, tmp_path)
    assert not list(tmp_path.glob("*stage2*"))
    simulate(two, tmp_path)
    assert (tmp_path / "EEG-ImageNet_stage2.pth").read_bytes() == before


def test_the_last_subject_can_lack_a_concept(tmp_path):
    settings = SMALL.model_copy(update={"subjects": 2, "incomplete": True})
    trials = opened(tmp_path, settings)
    assert np.unique(trials.column("subject"), return_counts=True)[1].tolist() == [12, 8]
    assert len(trials) == settings.n_trials
    assert len(set(trials.column("concept")[12:])) == 2


@pytest.mark.parametrize("design", ["rapid", "block"])
def test_every_picture_is_shown_as_often_as_asked(tmp_path, design):
    trials = opened(tmp_path, design=design, repeats=3)
    assert np.unique(trials.column("image"), return_counts=True)[1].tolist() == [3] * 12
    assert (trials.column("block").max() == 2) == (design == "block")


def test_concepts_beyond_the_drawn_ones_have_trials_but_no_pictures(tmp_path):
    simulate(SimulateSettings(concepts=19, trials_per_concept=2, explained_variance=0.0), tmp_path)
    trials = open_trials(DataSettings(root=str(tmp_path), granularity="fine0"))
    assert len(trials) == 2 and set(trials.column("concept")) == {"n02099601"}
    with pytest.raises(NeuroCanvasError, match="no such file"):
        trials.images.picture(trials.images.ids[0])


def test_nothing_is_done_twice_and_a_real_file_is_not_overwritten(tmp_path):
    path = simulate(SMALL, tmp_path)
    before = path.stat().st_mtime_ns
    assert simulate(SMALL, tmp_path) == path and path.stat().st_mtime_ns == before
    assert simulate(SMALL.model_copy(update={"seed": 3}), tmp_path).stat().st_mtime_ns > before
    sidecar = json.loads((tmp_path / "EEG-ImageNet.pth.json").read_text())
    assert sidecar["simulated"]["seed"] == 3
    (tmp_path / "EEG-ImageNet.pth.json").unlink()
    with pytest.raises(NeuroCanvasError, match="was not simulated"):
        simulate(SMALL, tmp_path)


def test_the_forward_model_is_a_head():
    field = leadfield()
    np.testing.assert_allclose(field.gain.mean(axis=0), 0, atol=1e-12)
    assert CH_NAMES[np.abs(field.blink).argmax()] in ("FP1", "FPZ", "FP2")
    size = np.sqrt((field.gain**2).sum(axis=(0, 2)))
    assert size.min() > 0
    # A source is seen best near where it lies: the strongest electrodes are on its side of the head.
    side = np.sign(field.positions[:N_RESPONDING, 0])
    power = (field.gain[:, :N_RESPONDING] ** 2).sum(axis=2)
    seen = (power * POSITIONS[:, :1]).sum(axis=0)
    assert (np.sign(seen) == side).mean() > 0.9


def test_the_signal_is_average_referenced_and_within_the_recorded_band():
    signal = record_trials(0.0, np.arange(50))
    np.testing.assert_allclose(signal.mean(axis=1), 0, atol=1e-10)
    power = np.abs(np.fft.rfft(signal * np.hanning(501), axis=2)) ** 2
    freqs = np.fft.rfftfreq(501, 1e-3)
    assert power[..., freqs > 110].sum() < 1e-5 * power.sum()


def test_nothing_of_the_picture_before_50_ms():
    person = brain_of(0.05)
    drift = draw_drift(person, 20, rng=np.random.default_rng(3))

    def shown(pictures):
        return record(person, drift, pictures, rngs=[np.random.default_rng([4, trial]) for trial in range(20)])

    difference = np.abs(shown(world()[:20]) - shown(world()[400:420])).max(axis=(0, 1))
    assert difference[:51].max() == 0
    assert difference[60:].min() > 1e-7


def single_trials(signal: np.ndarray) -> dict[str, np.ndarray]:
    """Slope, correlation with distance, rank and standard deviation in µV of every trial."""
    distance = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=-1)
    pairs = np.triu_indices(62, 1)
    freqs = np.fft.rfftfreq(501, 1e-3)
    fitted = (freqs >= 2) & (freqs <= 40) & ~((freqs >= 7) & (freqs <= 14))
    centred = signal - signal.mean(axis=2, keepdims=True)
    power = np.abs(np.fft.rfft(centred * np.hanning(501), axis=2))[..., fitted] ** 2
    slopes = -np.polyfit(np.log(freqs[fitted]), np.log(power).reshape(-1, fitted.sum()).T, 1)[0].reshape(-1, 62)
    correlations = [np.corrcoef(trial) for trial in signal]
    eigenvalues = [np.clip(np.linalg.eigvalsh(one) / 62, 1e-12, 1) for one in correlations]
    return {
        "slope": np.median(slopes, axis=1),
        "distance": np.array([np.corrcoef(one[pairs], distance[pairs])[0, 1] for one in correlations]),
        "rank": np.array([np.exp(-(one * np.log(one)).sum()) for one in eigenvalues]),
        "microvolts": signal.std(axis=(1, 2)) * 1e6,
    }


def test_single_trials_look_like_real_ones():
    found = single_trials(record_trials(0.05, np.arange(0, 900, 9)))
    real = {"slope": SLOPE, "distance": DISTANCE_CORRELATION, "rank": RANK, "microvolts": MICROVOLTS}
    for name, (low, high) in real.items():
        assert low <= np.median(found[name]) <= high, (name, np.median(found[name]))


def explained(features: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Adjusted share of variance that the parameters explain, per feature."""
    design = np.column_stack([np.ones(len(parameters)), parameters])
    residual = features - design @ np.linalg.lstsq(design, features, rcond=None)[0]
    return 1 - (residual**2).sum(axis=0) / (len(design) - design.shape[1]) / features.var(axis=0, ddof=1)


def test_the_picture_explains_the_stated_share_of_a_single_trial():
    features, order = rapid_features(0.05)
    assert 0.04 <= explained(features, world()[order]).mean() <= 0.05
    features, order = rapid_features(0.0)
    assert abs(explained(features, world()[order]).mean()) < 0.003


def test_concepts_of_new_pictures_can_be_decoded_and_at_zero_signal_cannot():
    features, order = rapid_features(0.05)
    assert decode_folds(features, order // 50) > 0.15  # chance is 1/18 = .056
    features, order = rapid_features(0.0)
    concept = order // 50
    rng = np.random.default_rng(3)
    null = [decode_folds(features, rng.permutation(concept)) for _ in range(19)]
    assert decode_folds(features, concept) <= max(null)


def test_slow_drift_makes_blocks_decodable_without_any_signal():
    order = np.random.default_rng(5).permutation(18).repeat(50) * 50 + np.tile(np.arange(50), 18)
    features = log_band_power(record_trials(0.0, order, tag=1)).reshape(900, -1)
    place = np.arange(900) % 50
    assert decode(features, order // 50, place < 30, place >= 30) > 2.5 / 18
