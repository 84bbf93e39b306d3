"""NaN in half precision, images of one colour, and weights that are missing or have another shape."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import embed_captions

from neurocanvas.config import GenerateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.generation.stable_diffusion import StableDiffusion
from neurocanvas.targets.pretrained import BUNDLED
from neurocanvas.workflow import run_stage


@pytest.fixture
def family(tmp_path):
    """A copy of the bundled networks."""
    return shutil.copytree(BUNDLED, tmp_path / "family")


def change(folder, part, edit):
    """Edit the weights of a part of Stable Diffusion."""
    path = next((folder / "stable-diffusion" / part).glob("*.safetensors"))
    weights = load_file(path)
    edit(weights)
    save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, path, {"format": "pt"})


def generate(family, precision):
    """Two images of one caption."""
    generator = StableDiffusion.load(GenerateSettings(family=str(family), steps=1, precision=precision))
    precisions, decode = [], generator.pipeline.vae.decode
    generator.pipeline.vae.decode = lambda z, **how: precisions.append(str(z.dtype)) or decode(z, **how)
    return generator.generate(embed_captions(["a red mitten on a table"] * 2).astype(np.float32), [3, 4]), precisions


@pytest.mark.parametrize(("stated", "precisions"), [
    (True, ["torch.float32"]), (False, ["torch.float16", "torch.float32"]), (None, ["torch.float16", "torch.float32"]),
])  # fmt: skip
def test_what_half_precision_cannot_hold_is_decoded_in_float32(family, recwarn, stated, precisions):
    config = family / "stable-diffusion" / "vae" / "config.json"
    settings = json.loads(config.read_text()) | {"force_upcast": stated}
    config.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))

    def overflow(weights):  # the group norm behind it divides the factor out, in float32
        for name in ("decoder.conv_in.weight", "decoder.conv_in.bias"):
            weights[name] = weights[name] * np.float32(3e4)

    change(family, "vae", overflow)
    half, used = generate(family, "float16")
    assert used == precisions
    assert (
        np.abs(half.astype(float) - generate(family, "float32")[0]).mean() < 3 and (half.std(axis=(1, 2, 3)) > 1).all()
    )
    change(family, "unet", lambda weights: weights["conv_out.bias"].fill(np.nan))
    assert not generate(family, "float32")[0].any()
    assert not [warning for warning in recwarn.list if "cast" in str(warning.message)]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 9)])
@pytest.mark.parametrize(
    ("arm", "says"), [("eeg", r"trial 0/0/\d+, n\d+_.*, arm eeg"), ("caption", r"n\d+_.*, arm caption")]
)
def test_an_image_of_one_colour_is_an_error_with_the_name_of_its_trial(tiny_fork, monkeypatch, colour, arm, says):
    run = tiny_fork(generate={"arms": [arm], "max_trials": 2, "seed": 7})

    def draw(generator, conditions, seeds, init=None):
        images = np.random.default_rng(0).integers(0, 255, (len(seeds), 8, 8, 3), np.uint8)
        images[-1] = colour
        return images

    monkeypatch.setattr(StableDiffusion, "generate", draw)
    with pytest.raises(NeuroCanvasError, match=rf"^generate: {says}: the image is of one colour.*generate\.precision"):
        run_stage(run, "generate")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", ["missing", "another shape"])
def test_weights_that_do_not_fit_are_named_in_one_line(family, part, damage):
    name = {"unet": "conv_in.weight", "vae": "decoder.conv_in.weight"}.get(part, "encoder.layers.0.mlp.fc1.weight")

    def spoil(weights):
        stored = next(key for key in weights if key.endswith(name))
        if damage == "missing":
            weights["renamed"] = weights.pop(stored)
        else:
            weights[stored] = weights[stored][:-1]

    change(family, part, spoil)
    with pytest.raises(NeuroCanvasError, match=rf"stable-diffusion: the weights cannot be loaded \(.*{name}") as caught:
        StableDiffusion.load(GenerateSettings(family=str(family)))
    assert str(caught.value).count("\n") == 0 and "meta" not in str(caught.value)
