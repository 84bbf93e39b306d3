"""The stage embed: one row per stimulus, of whatever is predicted; killed and resumed."""

from __future__ import annotations

import json
import shutil
from functools import partial

import full_size
import numpy as np
import pytest
from PIL import Image
from tiny import embed_captions, tiny_settings, write_true_captions

from neurocanvas import artifacts
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline import train as describing
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import read_predictions
from neurocanvas.targets import clip as text
from neurocanvas.targets.captions import read_captions, write_captions
from neurocanvas.targets.pretrained import find_family, load_picture_encoder
from neurocanvas.workflow import run_stage

ARMS = ["retrieval", "class-name", "oracle"]


@pytest.mark.parametrize("target", ["clip-pooled", "clip-image"])
def test_other_targets_go_from_embed_to_the_report(tiny_fork, target):
    run = tiny_fork(embed={"target": target}, generate={"arms": ARMS})
    tiny_copy = run.folder
    paths = run_stage(run, "embed")
    assert [path.name for path in paths] == ["clip_embeddings.npy", f"{target}.npy"]
    targets = run.targets()
    assert targets.shape == (24, 1, targets.shape[2]) and run.targets("clip-text").shape == (24, 77, 768)
    if target == "clip-image":
        seen = [run.images.picture(name) for name in run.stimuli]
        judged = load_picture_encoder(find_family("bundled").judge)[0](seen)
        np.testing.assert_allclose(targets[:, 0].astype(np.float32), judged, atol=2e-2)
    for name in ("train", "predict", "generate", "evaluate", "report"):
        run_stage(run, name)
    assert read_predictions(run, "0")[0].shape == (8, *targets.shape[1:])
    assert list(json.loads((tiny_copy / "scores" / "summary.json").read_text())["arms"]) == ARMS
    page = (tiny_copy / "report.html").read_text()
    assert "each trial’s retrieval image" in page and "All 8 trials, best first" in page
    with pytest.raises(NeuroCanvasError, match=f"--arm eeg: .* are {target}, and stable-diffusion accepts clip-text"):
        run_stage(RunFolder(tiny_copy, tiny_settings(embed={"target": target}, generate={"arms": ["eeg"]})), "generate")


def test_a_killed_embedding_goes_on_where_it_stopped(tiny_copy, monkeypatch):
    run = RunFolder(tiny_copy, tiny_settings())
    file = tiny_copy / "targets" / "caption.txt"
    captions = read_captions(file)
    write_captions(file, {name: f"{captions[name]} {row}" for row, name in enumerate(captions)})
    artifacts.write_sidecar(file, "other captions")
    monkeypatch.setattr(describing, "IMAGES_AT_ONCE", 5)
    encoded, load = [], text.load_text_encoder

    def killed(family, *, after):
        encode = load(family)

        def some(captions):
            if len(encoded) == after:
                raise KeyboardInterrupt
            encoded.append(len(captions))
            return encode(captions)

        return some

    monkeypatch.setattr(text, "load_text_encoder", partial(killed, after=3))
    with pytest.raises(KeyboardInterrupt):
        run_stage(run, "embed")
    monkeypatch.setattr(text, "load_text_encoder", partial(killed, after=-1))
    run_stage(run, "embed")
    assert encoded == [5, 5, 5, 5, 4], "what was made of each caption is in the shared cache"
    other = RunFolder(tiny_copy.with_name("other"), tiny_settings())
    for name in ("data", "targets"):
        shutil.copytree(tiny_copy / name, other.folder / name)
    other.path("embeddings", "clip-text").unlink()
    run_stage(other, "embed")
    assert len(encoded) == 5, "nor does another run folder make it again"
    np.testing.assert_array_equal(run.targets("clip-text"), embed_captions([*read_captions(file).values()]))


def test_stimuli_of_one_caption_share_its_embedding(tiny_copy):
    run = RunFolder(tiny_copy, tiny_settings())
    path = tiny_copy / "targets" / "caption.txt"
    write_captions(path, dict.fromkeys(run.stimuli, "a banana"))
    artifacts.write_sidecar(path, "other captions")
    run_stage(run, "embed")
    assert (np.asarray(run.targets("clip-text")) == run.targets("clip-text")[0]).all()


def test_a_sketched_start_is_predicted_from_training_pictures(tiny_fork):
    run = tiny_fork(generate={"arms": ["eeg", "sketched-start"], "strength": 0.5})
    tiny_copy = run.folder
    run_stage(run, "generate")
    path = tiny_copy / "predictions" / "s0_sketch.npy"
    sketches, sidecar = np.load(path), artifacts.read_sidecar(tiny_copy / "predictions" / "s0.npy")
    assert sketches.shape == (8, 16, 16, 3) and sketches.dtype == np.uint8
    shown = run.subjects["0"].column("image")[sidecar["trials"]]
    seen = np.stack([run.images.picture(name, size=16) for name in shown]).astype(float)
    centred = [rows - rows.mean(axis=0) for rows in (sketches.astype(float), seen)]
    own = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*centred, strict=True)])
    assert own > 0.03  # much of the log band power of the tiny run is the image's; others' sketches give about -1/7
    drawn = [tiny_copy / "images" / "s0" / arm for arm in ("eeg", "sketched-start")]
    for one in sorted(drawn[1].glob("*.png")):
        assert np.asarray(Image.open(one)).tobytes() != np.asarray(Image.open(drawn[0] / one.name)).tobytes()


def test_a_family_of_another_width_goes_from_embed_to_pictures(tiny_fork, tmp_path):
    """Stable Diffusion 2.x: 1024 numbers a token."""
    wide = full_size.build(
        unet={"block_out_channels": (32, 64, 64, 64), "layers_per_block": 1, "sample_size": 8,
              "cross_attention_dim": 1024},
        vae={"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
        text={"num_hidden_layers": 1, "intermediate_size": 64, "hidden_size": 1024, "num_attention_heads": 16},
    )  # fmt: skip
    family = str(full_size.save_family(tmp_path / "wide", wide))
    before = tiny_fork(generate={"family": family, "max_trials": 2})
    with pytest.raises(NeuroCanvasError, match=f"width 1024 fits: embed and train with --family {family}"):
        run_stage(before, "generate")
    run = tiny_fork(generate={"family": family, "max_trials": 2}, family=family)
    tiny_copy, _ = run.folder, write_true_captions(run)
    for name in ("embed", "train", "predict", "generate"):
        run_stage(run, name)
    assert run.targets("clip-text").shape == (24, 77, 1024) and read_predictions(run, "0")[0].shape[2] == 1024
    assert len(list((tiny_copy / "images" / "s0" / "eeg").glob("*.png"))) >= 2
