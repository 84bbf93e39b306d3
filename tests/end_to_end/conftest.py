"""The command line as tests call it: what must succeed, and what must be refused."""

import json

import pytest


@pytest.fixture
def ask(call):
    """Run a verb that must succeed, and return what it says as JSON."""

    def run(*words):
        code, stdout, stderr = call(*words, "--json")
        assert code == 0, stderr
        return json.loads(stdout)

    return run


@pytest.fixture
def refuse(call):
    """Run a verb that must be refused: exit code 2 and one line with all of the words."""

    def run(*words, says):
        code, stdout, stderr = call(*words)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1) and stderr.startswith("neurocanvas: "), stderr
        assert not [word for word in says if word not in stderr], stderr

    return run
