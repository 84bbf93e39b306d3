"""An arm, a generator, a target space, a metric and a control are one row each: toy rows run from the command line."""

from __future__ import annotations

import html
import json
from pkgutil import resolve_name
from typing import ClassVar

import numpy as np
import pytest

from neurocanvas.audit.controls.base import ControlResult
from neurocanvas.audit.controls.registry import CONTROLS, Control
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.metrics import METRICS, Metric
from neurocanvas.generation import GENERATORS, load_generator
from neurocanvas.generation.arms import ARMS, Arm
from neurocanvas.targets import TARGETS, Target, target_space

HERE = __name__


class Flat:
    """A generator of images of one colour, the mean of the condition, with a dark corner."""

    accepts: ClassVar[tuple[str, ...]] = ("clip-text",)
    size = 64

    @classmethod
    def load(cls, settings, *, tell):
        return cls()

    def generate(self, conditions, seeds, init=None):
        level = np.clip(128 + 400 * conditions.mean(axis=(1, 2)), 0, 255).astype(np.uint8)
        images = np.broadcast_to(level[:, None, None, None], (len(level), 64, 64, 3)).copy()
        images[:, 0, 0] = 0
        return images


def colour_shape(network):
    return 1, 3


def load_colour(network):
    return lambda images: np.stack([image.mean(axis=(0, 1)) for image in images])[:, None].astype(np.float16)


@pytest.fixture
def rows(monkeypatch):
    """Toy rows of five registries; nothing else is touched."""
    monkeypatch.setitem(
        ARMS, "doubled", Arm(lambda inputs: 2 * inputs.rescaled, "Twice the prediction.", space="encoder")
    )
    monkeypatch.setitem(GENERATORS, "flat", f"{HERE}:Flat")
    monkeypatch.setitem(TARGETS, "colour", Target("image", f"{HERE}:colour_shape", f"{HERE}:load_colour", "mean"))
    brightness = Metric(
        "brightness", "lower", "no chance level", "distance", "a toy", kind="pixels", meaning="in brightness",
        function=lambda drawn, seen: abs(drawn.mean() - seen.mean()) / 255,
    )  # fmt: skip
    monkeypatch.setitem(METRICS, "brightness", brightness)
    control = Control(
        lambda inputs, *, rng: ControlResult(0.1, 0.0, 0.2, 0.5, False), "Is it a toy?", "a toy", "nothing", (), "", "",
        "{some} is a toy", "it is no toy",
    )  # fmt: skip
    monkeypatch.setitem(CONTROLS, "toy", control)


def test_toy_rows_run_from_the_command_line(rows, tiny_fork, call):
    run = tiny_fork(generate={"generator": "flat", "arms": ["eeg", "doubled"], "steps": 2})
    for words in (
        ("generate",),
        ("evaluate", "--metrics", "brightness"),
        ("controls", "--control", "toy"),
        ("report",),
    ):
        code, _, err = call(*words, "-o", run.folder)
        assert code == 0, err
    summary = json.loads((run.folder / "scores" / "summary.json").read_text())
    assert set(summary["arms"]) == {"eeg", "doubled"} and 0 < summary["arms"]["eeg"]["brightness"]["value"] < 1
    controls = json.loads((run.folder / "scores" / "controls.json").read_text())
    assert [row["control"] for row in controls["rows"]] == ["toy"] and controls["rows"][0]["fired"] is False
    page = html.unescape((run.folder / "report.html").read_text())
    assert "Twice the prediction." in page and "brightness" in page and "it is no toy" in page


def test_a_toy_target_is_embedded_and_predicted(rows, tiny_fork, call):
    run = tiny_fork(embed={"target": "colour"}, encoder={"name": "ridge"})
    for verb in ("embed", "train", "predict"):
        code, _, err = call(verb, "-o", run.folder)
        assert code == 0, err
    assert np.load(run.folder / "targets" / "colour.npy").shape == (24, 1, 3)
    code, _, err = call("generate", "-o", run.folder, "--arm", "eeg")
    assert code == 2 and "and stable-diffusion accepts clip-text" in err


@pytest.mark.parametrize(
    ("words", "registry"),
    [
        (("generate", "--arm", "x"), ARMS),
        (("embed", "--target", "x"), TARGETS),
        (("controls", "--control", "x"), CONTROLS),
    ],
)
def test_a_name_that_no_row_has_is_refused_with_those_that_there_are(words, registry, tmp_path, call):
    code, _, err = call(*words, "-o", tmp_path / "run")
    assert code == 2 and "got 'x'" in err and list(registry)[-1] in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_takes_known_spaces_and_a_batch_is_its_images(name):
    generator = load_generator(f"{name}@bundled", steps=2)
    assert set(generator.accepts) <= set(TARGETS)
    space = target_space(f"{generator.accepts[0]}@bundled")
    conditions = np.random.default_rng(0).normal(size=(2, *space.shape)).astype(np.float32)
    images = generator.generate(conditions, [1, 2])
    assert images.shape == (2, generator.size, generator.size, 3) and images.dtype == np.uint8
    alone = generator.generate(conditions[1:], [2])[0]
    assert np.abs(alone.astype(int) - images[1]).max() <= 2
    with pytest.raises(NeuroCanvasError, match="conditions: "):
        generator.generate(conditions[..., :-1], [1, 2])


@pytest.mark.parametrize("name", [name for name, row in TARGETS.items() if row.of != "concept"])
def test_every_target_space_says_its_shape_before_it_is_made(name):
    space = target_space(f"{name}@bundled")
    given = ["a photo of a banana"] if TARGETS[name].of == "caption" else [np.full((40, 30, 3), 90, np.uint8)]
    made = resolve_name(TARGETS[name].load)("bundled")(given)
    assert made.shape == (1, *space.shape) and made.dtype == np.float16 and np.isfinite(made).all()
    assert str(space) == f"{name}@bundled" and space.layer
