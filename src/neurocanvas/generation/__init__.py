"""Generators: embeddings of a target space to images."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from neurocanvas.config import load_settings
from neurocanvas.errors import check_option

if TYPE_CHECKING:
    from neurocanvas.generation.base import Generator


# Name of a generator -> its class, "module:class", which `load(settings, tell=...)` makes.
GENERATORS: dict[str, str] = {"stable-diffusion": "neurocanvas.generation.stable_diffusion:StableDiffusion"}


def load_generator(name: str = "bundled", **options: Any) -> Generator:
    """Load a generator.

    Parameters
    ----------
    name : str
        Networks for Stable Diffusion: bundled, sd14, or a folder with blip, stable-diffusion and clip; or
        ``generator@networks`` with a key of `GENERATORS`.
    **options
        Settings of `neurocanvas generate` (`config.GenerateSettings`): scheduler, steps, guidance, guidance_interval,
        negative, size, strength, precision, preview, offload, compile, shard.

    Returns
    -------
    Generator

    Raises
    ------
    NeuroCanvasError
        If the name or an option is unknown, or weights cannot be loaded.

    Examples
    --------
    >>> load_generator("bundled", steps=20).accepts
    ('clip-text',)
    """
    kind, at, networks = name.partition("@")
    if not at:
        kind, networks = "stable-diffusion", name
    generator = resolve_name(GENERATORS[check_option("generator", kind, GENERATORS)])
    made: Generator = generator.load(load_settings(None, generate={**options, "family": networks}).generate)
    return made
