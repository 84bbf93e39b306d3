"""Every example in the docstrings of the package runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import neurocanvas

WALKED = [module.name for module in pkgutil.walk_packages(neurocanvas.__path__, "neurocanvas.")]
MODULES = ["neurocanvas", *(name for name in WALKED if not name.endswith("__main__"))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0, f"{failed} examples in {name} fail; the output above says which"


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 4
