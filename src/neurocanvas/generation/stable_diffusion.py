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
    from safetensors.torch import load_file

    source = find_family(family).preview
    if not source:
        raise NeuroCanvasError(f"--preview: family {family} has no TAESD; leave it out, or put one into its folder.")
    if not (Path(source) / PUBLISHED[1]).is_file():
        return load_part(source, AutoencoderTiny.from_pretrained)

    def read(folder: str) -> Any:
        tiny: Any = AutoencoderTiny()
        # The published decoder counts a layer without weights, which diffusers leaves out.
        for network, file, skipped in ((tiny.encoder, PUBLISHED[0], 0), (tiny.decoder, PUBLISHED[1], 1)):
            numbered = ((name.partition("."), tensor) for name, tensor in load_file(Path(folder) / file).items())
            network.load_state_dict({f"layers.{int(n) - skipped}.{name}": tensor for (n, _, name), tensor in numbered})
        return tiny.eval()

    return load_part(source, read)


@dataclass
class StableDiffusion:
    """Text embeddings to images, which do not depend on the batch size (to 2/255 on a CPU)."""

    pipeline: Any
    settings: GenerateSettings
    tell: Callable[[str], None]
    batch: int
    size: int  # width and height of the images, px
    accepts: ClassVar[tuple[str, ...]] = ("clip-text",)

    @classmethod
    def load(cls, settings: GenerateSettings, *, tell: Callable[[str], None] = lambda _: None) -> StableDiffusion:
        """Load the Stable Diffusion of a family."""
        import diffusers
        import torch
        from transformers import CLIPTextModel

        on_gpu, source = device().startswith("cuda"), find_family(settings.family).diffusion
        encoder: Any = load_part(  # diffusers would fill what its file lacks with random numbers
            source, CLIPTextModel.from_pretrained, network=True, subfolder="text_encoder",
            weights="text_encoder/model.safetensors",
        )  # fmt: skip
        pipeline = load_part(
            source, diffusers.StableDiffusionPipeline.from_pretrained,
            weights="unet/diffusion_pytorch_model.safetensors", text_encoder=encoder, safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        if settings.preview:
            pipeline.vae = load_preview(settings.family)
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
        size = settings.size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        return cls(pipeline, settings, tell, settings.shard, size)

    @cached_property
    def image_to_image(self) -> Any:
        """Pipeline with the same networks that starts from the mode of the VAE's posterior."""
        from diffusers import StableDiffusionImg2ImgPipeline
        from diffusers.utils.torch_utils import randn_tensor

        class ImageToImage(StableDiffusionImg2ImgPipeline):  # type: ignore[misc]
            # diffusers samples the posterior with the generators of the noise
            def prepare_latents(self: Any, image: Any, timestep: Any, *arguments: Any) -> torch.Tensor:
                *_, dtype, device, generators = arguments
                encoded = self.vae.encode(image.to(device, self.vae.dtype))
                mode = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents  # of TAESD
                noise = randn_tensor(mode.shape, generator=generators).to(device, dtype)
                return self.scheduler.add_noise(mode * self.vae.config.scaling_factor, noise, timestep)

        pipeline: Any = ImageToImage(**self.pipeline.components, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @cached_property
    def negative(self) -> torch.Tensor:
        """Embedding that guidance leads away from, (1, 77, width): the empty caption, or the negative prompt."""
        import torch

        with torch.no_grad():
            embedding: torch.Tensor = self.pipeline.encode_prompt(self.settings.negative, device(), 1, False)[0]
        return embedding

    def generate(self, conditions: np.ndarray, seeds: Sequence[int], init: np.ndarray | None = None) -> np.ndarray:
        """Generate one image per text embedding, (n, 77, width); see `Generator.generate`."""
        import torch

        width = self.pipeline.unet.config.cross_attention_dim
        if conditions.ndim != 3 or conditions.shape[-1] != width:
            raise NeuroCanvasError(
                f"conditions: this generator needs shape (n, 77, {width}); got {conditions.shape}. An encoder of width "
                f"{width} fits: embed and train with --family {self.settings.family}."
            )
        deepest = self.pipeline.vae_scale_factor * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1)
        if self.size % deepest:
            raise NeuroCanvasError(f"generate.size: a multiple of {deepest} is needed; got {self.size}.")
        images: list[np.ndarray] = []
        while (begin := sum(map(len, images))) < len(conditions):
            rows = slice(begin, begin + self.batch)
            start = None if init is None else init[rows]
            try:
                images.append(self._generate_batch(conditions[rows], seeds[rows], start))
            except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError on a CPU
                short = isinstance(error, MemoryError | torch.OutOfMemoryError)
                if not short and not any(sign in str(error) for sign in ("can't allocate memory", "ALLOC_FAILED")):
                    raise
                if len(conditions[rows]) == 1:
                    raise NeuroCanvasError(
                        f"generate: memory does not hold one image of {self.size} px; ask for a smaller generate.size, "
                        "for generate.precision float16 or for generate.offload."
                    ) from error
                if self.batch == self.settings.shard:
                    self.tell("generate: memory is short, so images are generated in smaller batches.")
                self.batch = len(conditions[rows]) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        return np.concatenate(images)

    def _generate_batch(self, conditions: np.ndarray, seeds: Sequence[int], init: np.ndarray | None) -> np.ndarray:
        """One batch from diffusers' pipeline, with guidance in some of the steps only."""
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        pipeline, settings, unet = self.pipeline, self.settings, self.pipeline.unet
        # one generator per image, on the CPU and in float32, so that device and precision do not change the noise
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        positive = torch.from_numpy(np.ascontiguousarray(conditions, np.float32)).to(device(), unet.dtype)
        negative = self.negative.to(unet.dtype).expand(len(positive), -1, -1)
        options: dict[str, Any] = {"guidance_scale": settings.guidance}
        begin, end = settings.guidance_interval
        # guidance-distilled networks (LCM) have guidance inside
        if settings.guidance > 1 and unet.config.time_cond_proj_dim is None and (begin, end) != (0, 1):

            def set_guidance(running: Any, step: int, *_: Any) -> dict[str, Any]:
                guided = begin * running.num_timesteps <= step + 1 < end * running.num_timesteps
                running._guidance_scale = settings.guidance if guided else 1.0
                return {"prompt_embeds": torch.cat([negative, positive]) if guided else positive}

            options = {"guidance_scale": settings.guidance if begin == 0 < end else 1.0}
            options |= {"callback_on_step_end": set_guidance, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
        if init is None:
            side = self.size // pipeline.vae_scale_factor
            noise = randn_tensor((len(positive), unet.config.in_channels, side, side), generator=generators)
            options |= {"latents": noise.to(device(), unet.dtype), "height": self.size, "width": self.size}
        else:
            pipeline, n_steps = self.image_to_image, max(1, round(settings.steps * settings.strength))
            strength = min(1.0, (n_steps + 0.5) / settings.steps)  # the pipeline rounds down
            options |= {"image": init.astype(np.float32) / 255, "strength": strength}
        latents = pipeline(
            prompt_embeds=positive, negative_prompt_embeds=negative, num_inference_steps=settings.steps,
            generator=generators, output_type="latent", **options,
        ).images  # fmt: skip
        images = self._decode(latents)
        self.pipeline.maybe_free_model_hooks()  # the pipeline that starts from images does not offload the VAE again
        return np.asarray(np.round(images * 255).astype(np.uint8))

    def _decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents to images, 0 to 1: in float32 if the VAE's config says so, or if half precision gives NaN."""
        import torch

        vae, config, precision = self.pipeline.vae, self.pipeline.vae.config, self.pipeline.vae.dtype
        # where the file says nothing, diffusers' own default is true, also for VAEs that are exact in half precision
        upcast = config.get("force_upcast") and "force_upcast" not in config.get("_use_default_values", ())
        for dtype in dict.fromkeys((torch.float32 if upcast else precision, torch.float32)):
            vae.to(dtype)
            with torch.inference_mode():
                decoded = vae.decode((latents / config.scaling_factor).to(dtype), return_dict=False)[0]
            finite = decoded.isfinite().flatten(1).all(dim=1)
            if finite.all():
                break
        vae.to(precision)
        images = np.array(self.pipeline.image_processor.postprocess(decoded, output_type="np"))
        images[~finite.cpu().numpy()] = 0  # the UNet's NaN: a black image, which `generate` refuses by its trial
        return images
