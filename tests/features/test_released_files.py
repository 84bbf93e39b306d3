"""Released feature files: the layout of the released code, there and back, and nothing unpickled."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline.exchange import read_released, write_released


def test_layout_is_all_channels_of_a_band_then_the_next(tmp_path):
    path = tmp_path / "0_coarse_de.npy"
    bands = [np.full((2, 62), 10.0 * band) + np.arange(62) / 100 for band in range(5)]
    np.save(path, np.concatenate(bands, axis=1))  # as de_feat_cal.py joins and saves them
    features = read_released(path)
    assert features.shape == (2, 62, 5) and features.dtype == np.float64
    assert features[1, 7].tolist() == [0.07, 10.07, 20.07, 30.07, 40.07]
    write_released(path, features.astype(np.float32))
    columns = np.load(path)
    assert columns.shape == (2, 310) and columns.dtype == np.float64
    assert columns[0, 3 * 62 + 7] == np.float32(30.07)


@pytest.mark.parametrize(("n_trials", "n_chans"), [(4, 62), (4, 3), (0, 62)])
def test_what_is_written_is_read(tmp_path, n_trials, n_chans):
    features = np.random.default_rng(0).normal(size=(n_trials, n_chans, 5))
    write_released(tmp_path / "1_all_de.npy", features)
    np.testing.assert_array_equal(read_released(tmp_path / "1_all_de.npy", n_chans), features)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (np.zeros((3, 309)), r"\(n_trials, 310\).*\(3, 309\)"),
        (np.zeros((3, 62, 5)), r"\(n_trials, 310\).*\(3, 62, 5\)"),
        (np.full((3, 310), "a"), "real numbers.*<U1"),
        (np.ones((3, 310), dtype=complex), "real numbers.*complex128"),
        (np.where(np.arange(930).reshape(3, 310) == 400, np.nan, 0.0), "1 of 3 trials.*trial 1"),
        (np.full((3, 310), np.inf), "3 of 3 trials.*trial 0"),
        (np.full((1, 310), None), r"undamaged \.npy array"),
    ],
)
def test_other_arrays_are_refused_in_one_line(tmp_path, columns, message):
    path = tmp_path / "0_all_de.npy"
    np.save(path, columns, allow_pickle=True)
    with pytest.raises(NeuroCanvasError, match=message) as refusal:
        read_released(path)
    assert str(refusal.value).startswith(str(path)) and "\n" not in str(refusal.value)
