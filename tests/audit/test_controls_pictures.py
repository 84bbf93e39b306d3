"""Controls of images, of surrogates and of null generators: what they compare."""

from dataclasses import replace

import numpy as np
import pytest
from control_simulations import CLEAN, PLANTED, clean_rapid, measure, two_way_arms
from numpy.random import default_rng as rng_of
from scipy.stats import binom

from neurocanvas.audit.controls.base import NotApplicable
from neurocanvas.audit.controls.inputs import ControlInputs, shrinkage_lda
from neurocanvas.audit.controls.registry import CONTROLS
from neurocanvas.audit.controls.surrogate import matched_noise, phase_randomised, time_course_and_power

Seen = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def spying(inputs: ControlInputs, seen: Seen) -> ControlInputs:
    """The same inputs with row numbers as first feature and a decoder that notes what it is given."""

    def decode(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        seen.append((x[:, 0].astype(int), y, new[:, 0].astype(int)))
        return shrinkage_lda(x[:, 1:], y, new[:, 1:])

    return replace(inputs, features=np.column_stack([np.arange(len(inputs.order)), inputs.flat]), decode=decode)


def test_pseudo_concepts_are_even_mixes_of_whole_pictures() -> None:
    seen: Seen = []
    inputs = spying(PLANTED["exemplar-memory"](rng=rng_of(0)), seen)
    measure("pseudo-concepts", inputs)
    rows, labels, _ = seen[0]
    of_picture = np.unique(np.stack([inputs.stimulus[rows], labels]), axis=1)
    assert of_picture.shape == (2, 40), "every image has one pseudo-concept"
    mixed = np.zeros((8, 8), dtype=int)
    np.add.at(mixed, (of_picture[0] // 5, of_picture[1]), 1)
    assert mixed.max() == 1 and mixed.sum(axis=0).tolist() == [5] * 8


def test_random_codes_do_well_on_trained_concepts_only() -> None:
    trained = measure("random-codebook", PLANTED["class-codes"](rng=rng_of(0)))
    apart = measure("random-codebook", CLEAN["clean-zero-shot"](rng=rng_of(0)))
    assert trained.fired and trained.note.code == "codes-bound" and trained.bound and not apart.bound
    assert not apart.fired and apart.details["accuracy"] > 0.8 and abs(apart.effect) < 0.1


def test_look_alikes_of_the_own_concept_leave_and_as_many_others_of_it() -> None:
    seen: Seen = []
    inputs = spying(clean_rapid(rng=rng_of(0)), seen)
    measure("low-level-match", inputs)
    looks = inputs.low_level
    assert looks is not None and len(seen) == 2 * 160
    (at_random, _, row), (matched, _, again) = seen[:2]
    (row,) = row
    assert again == [row] and len(at_random) == len(matched)
    assert inputs.stimulus[row] not in inputs.stimulus[at_random]
    apart = np.linalg.norm(looks - looks[row], axis=1)
    own = inputs.concept == inputs.concept[row]
    stayed = np.isin(np.arange(240), matched) & own
    train = next(train for train, test in inputs.splits if row in test)
    left = np.setdiff1d(train[own[train] & (inputs.stimulus[train] != inputs.stimulus[row])], matched)
    assert apart[left].max() <= apart[stayed].min() + 0.5
    assert np.bincount(inputs.concept[at_random]).tolist() == np.bincount(inputs.concept[matched]).tolist()


def test_tested_pictures_leave_training_and_as_many_others() -> None:
    seen: Seen = []
    inputs = spying(PLANTED["repeated-pictures"](rng=rng_of(0)), seen)
    found = measure("repeated-stimulus", inputs)
    assert found.details["share_of_trials"] > 0.9
    for (kept, kept_labels, tested), (without, labels, same) in zip(seen[::2], seen[1::2], strict=True):
        assert (tested == same).all()
        assert np.isin(inputs.stimulus[tested], inputs.stimulus[kept]).all()
        assert not np.isin(inputs.stimulus[tested], inputs.stimulus[without]).any()
        assert np.bincount(kept_labels).tolist() == np.bincount(labels).tolist()


@pytest.mark.parametrize("n_features", [3, 90])
def test_noise_has_the_mean_and_the_covariance_of_the_features(n_features: int) -> None:
    rng = rng_of(0)
    features = 5 + rng.normal(size=(60, n_features)) @ rng.normal(size=(n_features, n_features))
    drawn = np.stack([matched_noise(features, rng=rng) for _ in range(400)]).reshape(-1, n_features)
    expected = np.cov(features.T, ddof=0)
    assert np.abs(np.cov(drawn.T) - expected).max() < 0.06 * expected.max()
    np.testing.assert_allclose(drawn.mean(axis=0), features.mean(axis=0), atol=0.15 * np.sqrt(expected.max()))


def test_both_ways_of_noise_are_reported() -> None:
    found = measure("noise-eeg", clean_rapid(rng=rng_of(0)))
    assert set(found.details) == {"noise_accuracy", "noise_p", "real_to_noise_accuracy", "real_to_noise_p"}
    assert found.p == min(1.0, 2 * min(found.details["noise_p"], found.details["real_to_noise_p"]))


@pytest.mark.parametrize("n_times", [32, 33])
def test_random_phases_keep_means_spectra_and_cross_spectra(n_times: int) -> None:
    signal = rng_of(0).normal(size=(4, 3, n_times)) + 2.0
    made = phase_randomised(signal, rng=rng_of(1))
    before, after = np.fft.rfft(signal, axis=2), np.fft.rfft(made, axis=2)
    np.testing.assert_allclose(before[:, 0] * before[:, 1].conj(), after[:, 0] * after[:, 1].conj(), atol=1e-9)
    np.testing.assert_allclose(signal.mean(axis=2), made.mean(axis=2), atol=1e-12)
    assert abs(np.corrcoef(signal.ravel(), made.ravel())[0, 1]) < 0.3


def test_features_of_the_signal_are_its_course_and_its_power() -> None:
    signal = rng_of(0).normal(size=(5, 3, 40))
    made = time_course_and_power(signal)
    assert made.shape == (5, 3 * 11)
    np.testing.assert_allclose(made[:, 0], signal[:, 0, :4].mean(axis=1))
    np.testing.assert_allclose(made[:, -1], np.log(signal[:, 2].var(axis=1)))


def test_the_extractor_that_is_given_makes_the_features() -> None:
    """Variance does not depend on phases, so surrogates keep all of the accuracy, and the note says why."""
    inputs = replace(PLANTED["power-without-time"](rng=rng_of(0)), extract=lambda signal: signal.var(axis=2))
    power = measure("phase-randomisation", inputs)
    assert power.fired and power.bound and power.note.code == "phases-bound"
    assert power.details["accuracy"] == pytest.approx(power.details["surrogate_accuracy"])
    assert power.details["features_r"] == pytest.approx(1.0)
    both = measure("phase-randomisation", replace(inputs, extract=None))
    assert both.fired and not both.bound and both.note is None


def test_random_phases_explain_nothing_where_the_control_itself_decodes_nothing() -> None:
    refused = 0
    for seed in range(10):
        inputs = replace(clean_rapid(rng=rng_of(seed)), extract=lambda signal: signal[:, :, 20:].mean(axis=2))
        found = measure("phase-randomisation", inputs, seed)
        refused += isinstance(found, NotApplicable) and found.reason.numbers.get("decoder") == "shrinkage LDA"
    assert refused >= 8, "the response is over before sample 20"


def test_what_cannot_be_asked_is_refused_with_a_reason() -> None:
    inputs = clean_rapid(rng=rng_of(0))
    few = measure("shuffled-pairs", replace(inputs, concept=inputs.concept % 3))
    assert (few.reason.code, few.reason.numbers) == ("few-concepts", {"concepts": 3})  # names have too few orders
    assert measure("pseudo-concepts", replace(inputs, stimulus=inputs.concept)).reason.code == "too-few-pictures"
    assert isinstance(measure("null-generators", replace(inputs, arms={"eeg": np.full(30, 0.6)})), NotApplicable)
    assert measure("repeated-stimulus", replace(inputs, stimulus=np.arange(240))).reason.code == "no-repeats"


def test_null_generators_name_the_arm_that_is_hardest_to_beat() -> None:
    inputs = replace(clean_rapid(rng=rng_of(0)), arms=two_way_arms(0.85, rng=rng_of(1)))
    found = measure("null-generators", inputs, 2)
    assert not found.fired and found.p <= 0.05 and found.low > 0
    assert found.details["nearest-picture_difference"] == pytest.approx(found.effect) or found.effect > 0
    arms = {"eeg": np.full(30, 0.6), "mean": np.full(30, 0.5), "class-name": np.full(30, 0.7)}
    found = measure("null-generators", replace(inputs, arms=arms), 3)
    assert found.fired and found.effect == pytest.approx(-0.1)
    assert found.note.numbers["arm"] == "class-name"


def test_arms_of_one_picture_change_sign_together() -> None:
    inputs = clean_rapid(rng=rng_of(0))
    arms = {"eeg": np.repeat([0.9, 0.8, 0.7], 10), "mean": np.full(30, 0.5)}
    alone = measure("null-generators", replace(inputs, arms=arms))
    together = measure("null-generators", replace(inputs, arms=arms, arm_units=np.repeat([0, 1, 2], 10)))
    assert not alone.fired and together.fired, "three images have eight signs, the least p is 1/8"


def test_blocks_as_units_keep_pictures_without_eeg_from_being_called_better() -> None:
    """Images of one block are alike, so that its scores rise and fall together; in truth no arm is better."""
    inputs, claims = clean_rapid(rng=rng_of(0)), {"pictures": 0, "blocks": 0}
    for seed in range(200):
        rng = rng_of(seed)
        block = np.repeat(np.arange(12), 15)
        arms = {"eeg": 0.5 + rng.normal(0, 0.2, 12)[block] + rng.normal(0, 0.2, 180), "mean": np.full(180, 0.5)}
        for name, units in (("pictures", np.arange(180)), ("blocks", block)):
            found = CONTROLS["null-generators"].measure(replace(inputs, arms=arms, arm_units=units), rng=rng)
            claims[name] += not found.fired
    assert claims["blocks"] <= binom.ppf(0.995, 200, 0.05) < claims["pictures"] / 2
