"""FutureWarning and DeprecationWarning fail tests where our code causes them, and not where a library's does."""

from __future__ import annotations

import warnings

import pytest


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
@pytest.mark.parametrize(
    ("module", "fails"),
    [("neurocanvas.pipeline.run", True), (__name__, True), ("mne", True), ("mne.io.base", False), ("sklearn", False)],
)
def test_deprecations_of_our_own_code_are_errors(category, module, fails):
    try:
        warnings.warn_explicit("planted", category, "somewhere.py", 1, module)
    except category:
        assert fails
    else:
        assert not fails
