"""Images per second: the released generation loop against ours, on the device that is here.

On a GPU Stable Diffusion 1.4 at full size with random weights, 512 px, bfloat16; on a CPU the bundled one, 64 px.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import full_size
import numpy as np
import torch
from bench import Row, compare, in_turn, peak_mb
from diffusers import PNDMScheduler, StableDiffusionPipeline

from neurocanvas.config import GenerateSettings
from neurocanvas.generation.stable_diffusion import StableDiffusion
from neurocanvas.targets.pretrained import FAMILIES

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


OURS: dict[str, dict[str, Any]] = {
    "generate_pndm50": {"scheduler": "pndm", "steps": STEPS},
    "generate_dpm20": {"scheduler": "dpm-solver++", "steps": 20},
}
"""What is compared with the released loop."""


def programs(family: str) -> dict[str, Callable[[], Callable[[], object]]]:
    """What loads each program, which then draws a batch of 40, by its name."""
    source = FAMILIES[family].diffusion if family in FAMILIES else f"{family}/stable-diffusion"
    conditions = np.random.default_rng(0).standard_normal((BATCH, 77, 768)).astype(np.float32)
    asked = GenerateSettings(family=family, shard=BATCH, guidance=GUIDANCE, precision="bfloat16" if ON_GPU else "auto")

    def ours(**how: Any) -> Callable[[], object]:
        return partial(StableDiffusion.load(asked.model_copy(update=how)).generate, conditions, range(BATCH))

    loads: dict[str, Callable[[], Callable[[], object]]] = {
        "released": lambda: partial(released_loop(source), conditions)
    }
    return loads | {name: partial(ours, **how) for name, how in OURS.items()}


def benchmark() -> list[Row]:
    """Seconds per image, share of the device's matrix rate, and peak memory of each program alone."""
    torch.set_num_threads(2)
    where = "CPU, the bundled Stable Diffusion, 64 px, float32, 2 threads"
    if ON_GPU:
        where = f"{torch.cuda.get_device_name()}, Stable Diffusion 1.4 at full size, random weights, 512 px, bfloat16"
    with tempfile.TemporaryDirectory() as folder:
        family = "bundled"
        if ON_GPU:
            family = str(full_size.save_family(Path(folder) / "family", full_size.build()))
        loads, rows = programs(family), []
        baseline, rate, flops = loads["released"](), matrix_rate(), pass_flops(family)
        alone = _peak_alone("released", family)
        for name, how in OURS.items():
            seconds = [spent / BATCH for spent in in_turn(baseline, loads[name](), rounds=3)]
            what = (
                f"{where}: the released loop, PNDM, {STEPS} steps, guidance {GUIDANCE}, batch {BATCH}; ours, "
                f"{how['scheduler']}, {how['steps']} steps"
            )
            rows.append(compare(name, *seconds, "s", f"seconds per image, {what}"))
            passes = STEPS + 1, how["steps"] + (how["scheduler"] == "pndm")  # PNDM passes its second step twice
            shares = [2 * flops * count / spent / rate for count, spent in zip(passes, seconds, strict=True)]
            rows.append(Row(
                name=f"{name}_matrix_share", baseline=shares[0], ours=shares[1], unit="of the rate",
                ratio=shares[1] / shares[0],
                what=f"denoising's share of the rate of a large matrix product in the same precision, "
                f"{rate / 1e12:.3g} TFLOP/s measured, as in `{name}`",
            ))  # fmt: skip
            ours = _peak_alone(name, family)
            rows.append(compare(f"{name}_peak_mb", alone, ours, "MB", f"peak memory of each alone, as in `{name}`"))
        return rows


def matrix_rate() -> float:
    """Floating-point operations per second of a large square matrix product, the best of many."""
    side, device = (8192, "cuda") if ON_GPU else (2048, "cpu")
    left, right = torch.randn((2, side, side), device=device, dtype=torch.bfloat16 if ON_GPU else torch.float32)
    spent = []
    for _ in range(20):
        started = time.perf_counter()
        left @ right
        if ON_GPU:
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)
    return float(2 * side**3 / min(spent[1:]))


def pass_flops(family: str) -> int:
    """Floating-point operations of the denoiser for one image and one step, without guidance."""
    from torch.utils.flop_counter import FlopCounterMode

    unet = StableDiffusion.load(GenerateSettings(family=family, precision="float32")).pipeline.unet
    shape, on = (1, unet.config.in_channels, *(unet.config.sample_size,) * 2), unet.device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(torch.zeros(shape, device=on), 1, encoder_hidden_states=torch.zeros((1, 77, 768), device=on))
    return int(counter.get_total_flops())


def peak(name: str, family: str) -> float:
    """Most memory that a program takes while it loads and draws a batch, MB: of the GPU, or of the process."""
    torch.set_num_threads(2)
    load = programs(family)[name]
    if not ON_GPU:
        return peak_mb(lambda: load()())
    load()()
    return torch.cuda.max_memory_allocated() / 1e6


def _peak_alone(name: str, family: str) -> float:
    """`peak` in a process of its own: what one program keeps does not count for the other."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import bench_generation; "
        f"print(bench_generation.peak({name!r}, {family!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {"generate": benchmark}
