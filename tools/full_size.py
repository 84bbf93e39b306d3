"""Stable Diffusion 1.4 and BLIP at full size with random weights, in the hub's layout: for tests and speed tables.

Sizes are those of the published configuration files (CompVis/stable-diffusion-v1-4,
Salesforce/blip-image-captioning-base and -large); the tokenizers, and with BLIP's its few words, are the bundled ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from neurocanvas.targets.pretrained import BUNDLED

UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 768, "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "norm_num_groups": 32,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}  # fmt: skip
VAE: dict[str, Any] = {
    "sample_size": 512, "in_channels": 3, "out_channels": 3, "latent_channels": 4, "scaling_factor": 0.18215,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "max_position_embeddings": 77, "vocab_size": 49408, "projection_dim": 768, "hidden_act": "quick_gelu",
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
}  # fmt: skip

BLIP: dict[str, dict[str, int]] = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
"""Of the side that sees; the side that writes is the same in both."""


def save_blip(folder: Path, size: str) -> Path:
    """Write a captioner of the published size, "base" or "large"."""
    from transformers import AutoImageProcessor, AutoTokenizer, BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(0)
    config = BlipConfig.from_pretrained(BUNDLED / "blip")
    for name, value in {**BLIP[size], "image_size": 384, "patch_size": 16}.items():
        setattr(config.vision_config, name, value)
    writes = {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "encoder_hidden_size": BLIP[size]["hidden_size"], "max_position_embeddings": 512,
    }  # fmt: skip
    for name, value in writes.items():
        setattr(config.text_config, name, value)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BUNDLED / "blip").save_pretrained(folder)
    AutoImageProcessor.from_pretrained(BUNDLED / "blip", size={"height": 384, "width": 384}).save_pretrained(folder)
    return folder


def build(**changed: dict[str, Any]) -> Any:
    """Make the pipeline; `unet`, `vae` and `text` replace single sizes."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(**{**UNET, **changed.get("unet", {})}).eval(),
        vae=AutoencoderKL(**{**VAE, **changed.get("vae", {})}).eval(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**{**TEXT, **changed.get("text", {})})).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(BUNDLED / "stable-diffusion", subfolder="tokenizer"),
        scheduler=PNDMScheduler(**SCHEDULER),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save_family(folder: Path, pipeline: Any, **how: Any) -> Path:
    """Write a family whose Stable Diffusion is `pipeline` and whose other networks are the bundled ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("blip", "clip"):
        (folder / part).symlink_to(BUNDLED / part)
    pipeline.save_pretrained(folder / "stable-diffusion", **how)
    return folder
