"""Scores subject by subject."""

import numpy as np

from neurocanvas.config import EvaluateSettings
from neurocanvas.evaluation.statistics import permutation_p, permutations
from neurocanvas.evaluation.summary import forest

SETTINGS = EvaluateSettings(permutations=199, resamples=200)


def test_each_subject_is_as_if_alone_and_p_is_corrected_over_subjects():
    rng = np.random.default_rng(0)
    table = rng.random((60, 60)) / 2
    true, subject = np.arange(60), np.repeat([3, 7, 9], 20)
    table[true[:20], true[:20]] += 0.5  # only the first subject's EEG says anything
    units = np.arange(60)
    permuted = permutations(subject, units, 199, rng=rng)
    rows = forest({"eeg": {"two_way": table}}, true, subject, units, permuted, SETTINGS)
    assert [(row["subject"], row["arm"], row["n"]) for row in rows] == [(s, "eeg", 20) for s in ("3", "7", "9")]
    assert rows[0]["value"] == table[true[:20], true[:20]].mean()
    assert rows[0]["low"] < rows[0]["value"] < rows[0]["high"]
    assert rows[0]["p"] == 1 / 200 and rows[0]["p_holm"] == 3 / 200 and min(row["p"] for row in rows[1:]) > 0.02
    local = permuted[:, 20:40] - 20
    null = table[20:40, 20:40][np.arange(20), local].mean(axis=1)
    assert rows[1]["p"] == permutation_p(rows[1]["value"], null)
