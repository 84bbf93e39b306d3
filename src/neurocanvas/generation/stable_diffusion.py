"""Conditions to images with the Stable Diffusion of a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from neurocanvas.config import GenerateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.clip import N_TOKENS
from neurocanvas.targets.pretrained import device, find_family, load_part

if TYPE_CHECKING:
    import torch

# Files of TAESD as it was published.
PUBLISHED = ("taesd_encoder.safetensors", "taesd_decoder.safetensors")

# Name -> class in diffusers, and its options on top of the family's own noise schedule.
SCHEDULERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "dpm-solver++": ("DPMSolverMultistepScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ddim": ("DDIMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}


def load_preview(family: str) -> Any:
    """Load a family's TAESD, which decodes latents in a fraction of the time, slightly blurred."""
    from diffusers import AutoencoderTiny

    source = find_family(family).preview
    if not source:
        raise NeuroCanvasError(f"--preview: family {family} has no TAESD; leave it out, or put one into its folder.")
    published = (Path(source) / PUBLISHED[1]).is_file()
    return load_part(source, _read_published if published else AutoencoderTiny.from_pretrained)


def _read_published(source: str) -> Any:
    """A TAESD from its two published files."""
    from diffusers import AutoencoderTiny
    from safetensors.torch import load_file

    tiny: Any = AutoencoderTiny()
    tiny.eval()
    # the published decoder counts a layer without weights, which diffusers leaves out
    for part, file, skipped in (("encoder", PUBLISHED[0], 0), ("decoder", PUBLISHED[1], 1)):
        numbered = ((name.partition("."), tensor) for name, tensor in load_file(Path(source) / file).items())
        state = {f"layers.{int(number) - skipped}.{rest}": tensor for (number, _, rest), tensor in numbered}
        getattr(tiny, part).load_state_dict(state)
    return tiny


@dataclass
class StableDiffusion:
    """Text embeddings to images, which do not depend on the batch size (to 2/255 on a CPU)."""

    pipeline: Any
    settings: GenerateSettings
    tell: Callable[[str], None]
    batch: int
    size: int  # width and height of the images, px
    preview: Any = None
    accepts: ClassVar[tuple[str, ...]] = ("clip-text",)

    @classmethod
    def load(cls, settings: GenerateSettings, *, tell: Callable[[str], None] = lambda _: None) -> StableDiffusion:
        """Load the Stable Diffusion of a family."""
        import diffusers
        import torch

        on_gpu = device().startswith("cuda")
        pipeline = load_part(
            find_family(settings.family).diffusion, diffusers.StableDiffusionPipeline.from_pretrained,
            weights="unet/diffusion_pytorch_model.safetensors", safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        # Precision is set here because versions of diffusers name the loading argument differently.
        automatic = "float16" if on_gpu else "float32"
        pipeline.to(getattr(torch, automatic if settings.precision == "auto" else settings.precision))
        pipeline.set_progress_bar_config(disable=True)
        kind, options = SCHEDULERS[settings.scheduler]
        pipeline.scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config, **options)
        if on_gpu:  # cuDNN's half-precision convolutions are made for this layout
            pipeline.unet.to(memory_format=torch.channels_last)
            pipeline.vae.to(memory_format=torch.channels_last)
        if on_gpu and settings.offload:
            pipeline.enable_model_cpu_offload(gpu_id=torch.cuda.current_device())
        else:
            pipeline.to(device())
        pipeline.vae.enable_slicing()
        if settings.compile:
            pipeline.unet.compile()
        preview = None
        if settings.preview:
            preview = load_preview(settings.family).to(device(), pipeline.unet.dtype)
            preview.enable_slicing()
        size = settings.size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        return cls(pipeline, settings, tell, settings.shard, size, preview)

    @cached_property
    def negative(self) -> torch.Tensor:
        """Embedding that guidance leads away from, (1, 77, width): the empty caption, or the negative prompt."""
        import torch

        ids = self.pipeline.tokenizer(
            self.settings.negative, padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            found: torch.Tensor = self.pipeline.text_encoder(input_ids=ids.to(device()))[0]
        return found

    def generate(self, conditions: np.ndarray, seeds: Sequence[int], init: np.ndarray | None = None) -> np.ndarray:
        """Generate one image per text embedding, (n, 77, width); see `Generator.generate`."""
        width = self.pipeline.unet.config.cross_attention_dim
        if conditions.ndim != 3 or conditions.shape[-1] != width:
            raise NeuroCanvasError(
                f"conditions: this generator needs shape (n, 77, {width}); got {conditions.shape}. An encoder of width "
                f"{width} fits: embed and train with --family {self.settings.family}."
            )
        deepest = self.pipeline.vae_scale_factor * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1)
        if self.size % deepest:
            raise NeuroCanvasError(f"generate.size: a multiple of {deepest} is needed; got {self.size}.")
        drawn: list[np.ndarray] = []
        while (begin := sum(map(len, drawn))) < len(conditions):
            part = slice(begin, begin + self.batch)
            start = None if init is None else init[part]
            try:
                drawn.append(self._draw(conditions[part], seeds[part], start))
            except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError on a CPU
                self._shrink(error, len(conditions[part]))
        return np.concatenate(drawn)

    def _shrink(self, error: Exception, batch: int) -> None:
        """Halve the batch if memory was short; raise any other error."""
        import torch

        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        short |= any(sign in str(error) for sign in ("can't allocate memory", "ALLOC_FAILED"))
        if not short:
            raise error
        if batch == 1:
            raise NeuroCanvasError(
                f"generate: memory does not hold one image of {self.size} px; ask for a smaller generate.size, for "
                "generate.precision float16 or for generate.offload."
            ) from error
        if self.batch == self.settings.shard:
            self.tell("generate: memory is short, so images are drawn in smaller batches.")
        self.batch = batch // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _draw(self, conditions: np.ndarray, seeds: Sequence[int], starts: np.ndarray | None) -> np.ndarray:
        """Draw one batch: the pipeline's own denoising loop, but with guidance in some of the steps only."""
        import torch

        pipeline, settings, unet = self.pipeline, self.settings, self.pipeline.unet
        scheduler = pipeline.scheduler
        noises = [torch.Generator().manual_seed(seed) for seed in seeds]
        prompts = torch.from_numpy(np.ascontiguousarray(conditions, np.float32)).to(device(), unet.dtype)
        both = torch.cat([self.negative.to(unet.dtype).expand(len(prompts), -1, -1), prompts])
        own_guidance = unet.config.time_cond_proj_dim  # of guidance-distilled networks (LCM)
        scheduler.set_timesteps(settings.steps)
        with torch.inference_mode():
            side = self.size // pipeline.vae_scale_factor
            shape = (1, unet.config.in_channels, side, side)
            noise = torch.cat([torch.randn(shape, generator=one) for one in noises]).to(device(), unet.dtype)
            latents, times = noise * scheduler.init_noise_sigma, scheduler.timesteps
            if starts is not None:  # as image-to-image of diffusers does
                pixels = pipeline.image_processor.preprocess(starts.astype(np.float32) / 255)
                mean = pipeline.vae.encode(pixels.to(device(), pipeline.vae.dtype)).latent_dist.mode()
                n_steps = max(1, round(settings.steps * settings.strength))
                times = scheduler.timesteps[(settings.steps - n_steps) * scheduler.order :]
                if hasattr(scheduler, "set_begin_index"):
                    scheduler.set_begin_index(len(scheduler.timesteps) - len(times))
                latents = scheduler.add_noise(mean * pipeline.vae.config.scaling_factor, noise, times[:1])
            inside = None
            if own_guidance is not None:
                scale = torch.full((len(prompts),), settings.guidance - 1)
                inside = pipeline.get_guidance_scale_embedding(scale, own_guidance).to(device(), unet.dtype)
            extra = pipeline.prepare_extra_step_kwargs(noises, 0.0)
            begin, end = (share * len(times) for share in settings.guidance_interval)
            for number, time in enumerate(times):
                guided = settings.guidance > 1 and own_guidance is None and begin <= number < end
                model_input = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
                predicted = unet(
                    model_input, time, encoder_hidden_states=both if guided else prompts, timestep_cond=inside,
                    return_dict=False,
                )[0]  # fmt: skip
                if guided:
                    away, towards = predicted.chunk(2)
                    predicted = away + settings.guidance * (towards - away)
                latents = scheduler.step(predicted, time, latents, **extra, return_dict=False)[0]
        pictures = self.decode(latents)
        pipeline.maybe_free_model_hooks()  # offloads the VAE again where networks are offloaded
        return pictures

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Decode latents, one at a time."""
        import torch

        vae = self.pipeline.vae if self.preview is None else self.preview
        with torch.inference_mode():
            pictures = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
            values = self.pipeline.image_processor.postprocess(pictures, output_type="np")
        return np.round(values * 255).astype(np.uint8)
