"""The channels and bands, against the released montage where it is at hand."""

import itertools
import json

import mne
import numpy as np
import pytest

from neurocanvas.data.montage import BANDS, CH_NAMES, POSITIONS, REGIONS, positions_of, standard_positions


def test_sixty_two_channels_on_a_sphere_of_85_mm():
    radius = dict(zip(CH_NAMES, np.linalg.norm(POSITIONS, axis=1)))
    assert len(set(CH_NAMES)) == 62 and POSITIONS.shape == (62, 3)
    for name, metres in radius.items():
        assert metres == pytest.approx(0.0925 if name in ("CB1", "CB2") else 0.085, abs=2e-4), name


def test_left_is_left_the_back_is_the_back_and_every_channel_has_a_region():
    place = dict(zip(CH_NAMES, POSITIONS))
    assert place["T7"][0] < -0.08 and place["T8"][0] > 0.08
    assert place["FPZ"][1] > 0.08 and place["OZ"][1] < -0.08
    assert place["CZ"][2] == pytest.approx(0.085)
    assert set(REGIONS) == set(CH_NAMES)
    assert {REGIONS[name] for name in ("O1", "OZ", "PO7", "CB2")} == {"occipital"}
    assert [REGIONS[name] for name in ("FPZ", "FC3", "T8", "CP1")] == ["frontal", "central", "temporal", "parietal"]


def test_bands_tile_the_recorded_range():
    edges = list(BANDS.values())
    assert edges[0][0] == 0.5 and edges[-1][1] == 80.0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))


def test_restates_the_released_montage(test_data):
    released = test_data / "eeg_imagenet_trials"
    names = json.loads((released / "montage_ch_names.json").read_text())
    places = mne.channels.read_dig_fif(released / "montage.fif", verbose="error").get_positions()["ch_pos"]
    kept = [name for name in names if name not in ("M1", "M2", "HEO", "VEO", "EKG", "EMG", "Trigger")]
    assert list(CH_NAMES) == kept
    micrometres = np.array([places[f"EEG{names.index(name) + 1:03d}"] for name in kept])
    np.testing.assert_allclose(POSITIONS, micrometres * 1e-6, atol=6e-5)


@pytest.mark.parametrize("names", [("standard_1005",), ("standard_1005", "colin27_1005"), ("colin27_1005",)])
def test_10_05_positions_are_the_same_under_either_name_of_mne(names, monkeypatch):
    """MNE until 1.12, MNE 1.13 (the old name warns, whether listed or not), and MNE from 1.14."""
    real, asked = mne.channels.make_standard_montage, []
    ours = next(name for name in ("colin27_1005", "standard_1005") if name in mne.channels.get_builtin_montages())

    def make(name):
        asked.append(name)
        if name not in names:
            raise ValueError(f"Invalid value for the 'kind' parameter: {name}")
        return real(ours)

    monkeypatch.setattr(mne.channels, "get_builtin_montages", lambda: [*names, "biosemi16"])
    monkeypatch.setattr(mne.channels, "make_standard_montage", make)
    standard_positions.cache_clear()
    found = positions_of(("TP9", "AF7", "POz"))
    assert asked == [names[-1]]
    # metres; POz is in the released montage, the others are MNE's
    expected = [[-0.0856, -0.0465, -0.0457], [-0.0548, 0.0686, -0.0106], [0.0, -0.079, 0.0313]]
    np.testing.assert_allclose(found, expected, atol=1e-4)
