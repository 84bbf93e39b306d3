"""The package itself: its public names are there, documented, and loaded only when they are used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import neurocanvas


@pytest.mark.parametrize("name", [name for name in neurocanvas.__all__ if name != "__version__"])
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(neurocanvas, name)
    assert value.__name__ == name
    assert value.__module__.startswith("neurocanvas.")
    assert value.__doc__ and len(value.__doc__.strip()) > 20


def test_public_names_and_the_version():
    assert set(neurocanvas.__all__) <= set(dir(neurocanvas))
    assert len(set(neurocanvas.__all__)) == len(neurocanvas.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        neurocanvas.no_such_name  # noqa: B018
    assert neurocanvas.__version__ == version("neurocanvas")


def test_a_name_is_loaded_by_its_first_use_and_not_before():
    loaded = "print('neurocanvas.data.trials' in sys.modules)"
    program = f"import sys, neurocanvas\n{loaded}\nneurocanvas.Trials\n{loaded}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
