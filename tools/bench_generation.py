"""Pictures per second: the released generation loop against ours, on the device that is here.

On a GPU Stable Diffusion 1.4 at full size with random weights, 512 px, bfloat16; on a CPU the bundled one, 64 px.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import full_size
import numpy as np
import torch
from bench import Row, compare, in_turn
from diffusers import PNDMScheduler, StableDiffusionPipeline

from neurocanvas.config import GenerateSettings
from neurocanvas.families import FAMILIES
from neurocanvas.generation.diffusion import load_generator

BATCH, STEPS, GUIDANCE = 40, 50, 7.5
"""Of the released loop."""

ON_GPU = torch.cuda.is_available()


def released_loop(source: str) -> Callable[[np.ndarray], np.ndarray]:
    """The released loop: the pipeline per batch of 40, PNDM, one seed for all, the empty prompt encoded each time."""
    dtype = torch.bfloat16 if ON_GPU else torch.float32
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        source, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).to("cuda" if ON_GPU else "cpu", dtype)
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True)
    pipeline.set_progress_bar_config(disable=True)

    def draw(conditions: np.ndarray) -> np.ndarray:
        found = pipeline(
            prompt_embeds=torch.from_numpy(conditions).to(pipeline.device, dtype),
            negative_prompt=[""] * len(conditions),
            num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(42),
            output_type="np",
        ).images  # fmt: skip
        pictures: np.ndarray = np.round(found * 255).astype(np.uint8)
        return pictures

    return draw


def benchmark() -> list[Row]:
    """Seconds per picture; on a GPU peak memory too."""
    torch.set_num_threads(2)
    conditions = np.random.default_rng(0).standard_normal((BATCH, 77, 768)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        family = "bundled"
        if ON_GPU:
            family = str(full_size.save_family(Path(folder) / "family", full_size.build()))
        source = f"{family}/stable-diffusion" if ON_GPU else FAMILIES["bundled"].diffusion
        baseline = released_loop(source)
        asked = GenerateSettings(
            family=family, shard=BATCH, guidance=GUIDANCE, precision="bfloat16" if ON_GPU else "auto"
        )
        where = "CPU, the bundled Stable Diffusion, 64 px, float32, 2 threads"
        if ON_GPU:
            card = torch.cuda.get_device_name()
            where = f"{card}, Stable Diffusion 1.4 at full size, random weights, 512 px, bfloat16"
        rows = []
        for name, scheduler, steps in (("generate_pndm50", "pndm", STEPS), ("generate_dpm20", "dpm-solver++", 20)):
            generator = load_generator(asked.model_copy(update={"scheduler": scheduler, "steps": steps}))
            programs = partial(baseline, conditions), partial(generator.draw, conditions, range(BATCH))
            seconds = in_turn(*programs, rounds=3)
            what = (
                f"seconds per picture, {where}: the released loop, PNDM, {STEPS} steps, guidance {GUIDANCE}, batch "
                f"{BATCH}; ours, {scheduler}, {steps} steps"
            )
            rows.append(compare(name, seconds[0] / BATCH, seconds[1] / BATCH, "s", what))
            if ON_GPU:
                rows.append(_peak(name, *programs))
        return rows


def _peak(name: str, *programs: Callable[[], object]) -> Row:
    """Most memory of the card that each takes."""
    peaks = []
    for program in programs:
        torch.cuda.reset_peak_memory_stats()
        program()
        peaks.append(torch.cuda.max_memory_allocated() / 1e6)
    return compare(f"{name}_peak_mb", peaks[0], peaks[1], "MB", f"most memory of the card, as in `{name}`")


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {"generate": benchmark}
