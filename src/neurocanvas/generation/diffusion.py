"""Conditions to pictures, by the Stable Diffusion of a family."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import device, find_family, load_part


def picture_seed(seed: int, arm: str, subject: int, trial: int) -> int:
    """Derive the seed of one picture's noise from what the picture is, never from its place in a batch.

    Parameters
    ----------
    seed : int
        The run's.
    arm : str
        Name of the arm.
    subject, trial : int
        Whose, and which row of the subject's trial table.

    Returns
    -------
    int
        Below 2^63.

    Examples
    --------
    >>> picture_seed(42, "eeg", 0, 7) == picture_seed(42, "eeg", 0, 7)
    True
    """
    name = f"{seed}/{arm}/{subject}/{trial}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


def load_generator(family: str) -> Any:
    """Load a family's Stable Diffusion: float32 on a CPU, float16 on a GPU, DPM-Solver++ sampling.

    Parameters
    ----------
    family : str
        A name in `families.FAMILIES` or a folder.

    Returns
    -------
    diffusers.StableDiffusionPipeline

    Raises
    ------
    NeuroCanvasError
        If its weights cannot be loaded.
    """
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    source = find_family(family).diffusion
    pipeline = load_part(
        source,
        lambda name: StableDiffusionPipeline.from_pretrained(
            name, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ),
    )
    pipeline = pipeline.to(device(), torch.float16 if device() == "cuda" else torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate_pictures(
    pipeline: Any, conditions: np.ndarray, seeds: Sequence[int], *, steps: int, guidance: float
) -> np.ndarray:
    """Draw one picture per condition.

    Parameters
    ----------
    pipeline : diffusers.StableDiffusionPipeline
        From `load_generator`.
    conditions : array, shape (n, 77, width)
        Text embeddings, predicted or true; `width` is the text encoder's, 768 for Stable Diffusion 1.x.
    seeds : sequence of int, length n
        One per picture: its noise depends on nothing else.
    steps : int
        Denoising steps.
    guidance : float
        Classifier-free guidance scale; 1 or less switches it off.

    Returns
    -------
    array, shape (n, height, width, 3), uint8

    Raises
    ------
    NeuroCanvasError
        If the conditions' width is not the pipeline's.
    """
    import torch

    width = pipeline.unet.config.cross_attention_dim
    if conditions.ndim != 3 or conditions.shape[-1] != width:
        raise NeuroCanvasError(f"conditions: this generator needs shape (n, 77, {width}); got {conditions.shape}.")
    dtype = pipeline.unet.dtype
    empty = pipeline.tokenizer("", padding="max_length", max_length=conditions.shape[1], return_tensors="pt").input_ids
    with torch.inference_mode():
        negative = pipeline.text_encoder(input_ids=empty.to(pipeline.device))[0].to(dtype)
        pictures = pipeline(
            prompt_embeds=torch.from_numpy(np.ascontiguousarray(conditions, np.float32)).to(pipeline.device, dtype),
            negative_prompt_embeds=negative.expand(len(conditions), -1, -1),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        ).images
    return np.round(pictures * 255).astype(np.uint8)
