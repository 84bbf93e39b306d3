"""Generation: an image follows from its condition and its seed, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tiny import embed_captions

from neurocanvas.config import GenerateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.generation.stable_diffusion import SCHEDULERS, StableDiffusion
from neurocanvas.targets.pretrained import BUNDLED

CAPTIONS = ["a yellow banana on a blue cloth", "a red mitten on a green table", "a white daisy on a black wall"]
SEEDS = [3, 2**62 + 1, 5]


def load(**how):
    """The bundled generator; two steps are enough to tell images apart."""
    return StableDiffusion.load(GenerateSettings(**{"steps": 2, "guidance": 3.0, **how}))


@pytest.fixture(scope="module")
def generator():
    return load()


@pytest.fixture(scope="module")
def conditions():
    return embed_captions(CAPTIONS, "bundled").astype(np.float32)


@pytest.fixture(scope="module")
def drawn(generator, conditions):
    return generator.generate(conditions, SEEDS)


def distance(a, b):
    """Largest difference of two images in steps of 1/255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_the_same_seeds_give_the_same_images(generator, conditions, drawn):
    np.testing.assert_array_equal(generator.generate(conditions, SEEDS), drawn)
    assert drawn.shape == (3, 64, 64, 3) and drawn.dtype == np.uint8
    assert all(image.std() > 1 for image in drawn)
    assert distance(drawn[0], drawn[1]) > 20


# Scheduler -> mean of every 16th pixel of three images, from noise and from an image, as diffusers' loop in plain
# code gave them (4 steps; guidance in .2-.8 and .3-1 of the steps; strength .55).
GOLDEN = {
    "dpm-solver++": [[107.6, 100.2, 88.1], [129.4, 129.1, 133.5]],
    "pndm": [[106.0, 107.6, 97.0], [128.5, 124.9, 126.5]],
    "ddim": [[106.8, 100.5, 91.6], [125.5, 126.8, 137.5]],
    "unipc": [[108.3, 101.9, 88.5], [129.4, 129.1, 133.5]],
    "lcm": [[118.1, 89.1, 98.4], [131.5, 128.0, 140.8]],
}  # fmt: skip


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
def test_images_stay_what_they_are_and_do_not_depend_on_the_batch(scheduler, conditions):
    init = np.random.default_rng(1).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
    generator, means = load(scheduler=scheduler, steps=4, strength=0.55), []
    for interval, starts in (((0.2, 0.8), None), ((0.3, 1.0), init)):
        generator.settings = generator.settings.model_copy(update={"guidance_interval": interval})
        together = generator.generate(conditions, SEEDS, starts)
        means.append(together[:, ::16, ::16].mean(axis=(1, 2, 3)))
        for index in range(3):
            row = slice(index, index + 1)
            alone = generator.generate(conditions[row], SEEDS[row], None if starts is None else starts[row])[0]
            assert distance(alone, together[index]) <= 2
    np.testing.assert_allclose(means, GOLDEN[scheduler], atol=1)


def test_seed_condition_guidance_and_negative_prompt_all_matter(generator, conditions, drawn):
    others = [
        generator.generate(conditions[:1], [4])[0],
        generator.generate(conditions[1:2], SEEDS[:1])[0],
        load(guidance=1.0).generate(conditions[:1], SEEDS[:1])[0],
        load(negative="a red mitten").generate(conditions[:1], SEEDS[:1])[0],
        load(guidance_interval=(0.5, 1.0)).generate(conditions[:1], SEEDS[:1])[0],
        load(guidance_interval=(0.0, 0.5)).generate(conditions[:1], SEEDS[:1])[0],
    ]
    assert min(distance(other, drawn[0]) for other in others) > 2


def test_guidance_in_no_step_is_no_guidance(conditions):
    nowhere, none = load(guidance_interval=(0.0, 0.0)), load(guidance=1.0)
    np.testing.assert_array_equal(nowhere.generate(conditions[:1], [1]), none.generate(conditions[:1], [1]))


def test_the_network_is_called_as_often_as_guidance_needs(conditions, monkeypatch):
    sizes = []
    generator = load(steps=4, guidance_interval=(0.25, 0.75))
    unet, forward = generator.pipeline.unet, generator.pipeline.unet.forward
    monkeypatch.setattr(unet, "forward", lambda x, *a, **k: sizes.append(len(x)) or forward(x, *a, **k))
    generator.generate(conditions[:1], [0])
    assert sizes == [1, 2, 2, 1]


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
def test_a_start_is_kept_the_more_the_weaker_the_noise(scheduler, conditions):
    start = np.zeros((1, 64, 64, 3), np.uint8)
    start[:, 16:48, 16:48] = 220
    near, far = (
        load(scheduler=scheduler, steps=10, strength=strength).generate(conditions[:1], [0], init=start)[0]
        for strength in (0.2, 1.0)
    )
    assert np.abs(near - start[0].astype(float)).mean() < np.abs(far - start[0].astype(float)).mean() / 2


def test_short_memory_halves_the_batch_with_one_message_and_the_same_images(conditions, drawn, monkeypatch):
    messages, generator = [], load()
    generator.tell = messages.append
    forward = generator.pipeline.unet.forward

    def narrow(x, *args, **kwargs):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(x, *args, **kwargs)

    monkeypatch.setattr(generator.pipeline.unet, "forward", narrow)
    for _ in range(2):
        assert distance(generator.generate(conditions, SEEDS), drawn) <= 2
    assert generator.batch == 1 and len(messages) == 1


def test_memory_for_no_image_is_one_line(generator, conditions, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(generator.pipeline.unet, "forward", full)
    monkeypatch.setattr(generator, "batch", 4)
    with pytest.raises(NeuroCanvasError, match="memory does not hold one image of 64 px"):
        generator.generate(conditions, SEEDS)


def test_another_size(conditions):
    assert load(size=32).generate(conditions[:1], [0]).shape == (1, 32, 32, 3)
    with pytest.raises(NeuroCanvasError, match=r"generate.size: a multiple of \d+ is needed; got 60"):
        load(size=60).generate(conditions[:1], [0])


@pytest.mark.parametrize("shape", [(1, 77, 512), (1, 77, 1024), (77, 768)])
def test_conditions_of_another_generator_are_refused(generator, shape):
    with pytest.raises(NeuroCanvasError, match=r"needs shape \(n, 77, 768\); got"):
        generator.generate(np.zeros(shape, np.float32), [0])


def test_the_preview_decodes_latents_of_a_real_image(test_data, tmp_path):
    """Published weights of TAESD; eight images had 24 dB on average."""
    for part in ("blip", "stable-diffusion", "clip"):
        (tmp_path / part).symlink_to(BUNDLED / part)
    (tmp_path / "taesd").symlink_to(test_data / "taesd")
    pipeline = load(family=str(tmp_path), preview=True).pipeline
    path = sorted((test_data / "imagenet_pictures").glob("*.*"))[5]
    image = np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (256, 256)))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latents).sample
    decoded = pipeline.image_processor.postprocess(decoded, output_type="np")[0] * 255
    error = np.mean(np.square(decoded - image))
    assert 10 * np.log10(255**2 / error) >= 22
    assert decoded.shape == (256, 256, 3)


@pytest.fixture
def calls(monkeypatch):
    """Calls that move networks, of a simulated GPU."""
    from diffusers import StableDiffusionPipeline

    done = []
    monkeypatch.setattr("neurocanvas.generation.stable_diffusion.device", lambda: "cuda")
    monkeypatch.setattr("neurocanvas.targets.pretrained.device", lambda: "cpu")  # of the text encoder, loaded before
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    monkeypatch.setattr(StableDiffusionPipeline, "to", lambda _, where: done.append(where))
    monkeypatch.setattr(StableDiffusionPipeline, "enable_model_cpu_offload", lambda _, gpu_id: done.append(gpu_id))
    monkeypatch.setattr("torch.nn.Module.compile", lambda network: done.append(type(network).__name__))
    return done


def test_a_gpu_gets_half_precision_and_its_own_layout(calls):
    pipeline = load().pipeline
    assert calls == [torch.float16, "cuda"]
    weights = pipeline.unet.conv_in.weight
    assert weights.is_contiguous(memory_format=torch.channels_last) and not weights.is_contiguous()


def test_offloading_and_compiling_are_asked_for_where_they_are_set(calls):
    load(precision="bfloat16", offload=True)
    assert calls == [torch.bfloat16, 3]
    calls.clear()
    load(compile=True)
    assert calls == [torch.float16, "cuda", "UNet2DConditionModel"]


def test_a_family_without_taesd_says_so():
    with pytest.raises(NeuroCanvasError, match="--preview: family bundled has no TAESD"):
        load(preview=True)
