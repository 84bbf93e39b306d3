"""Captions of stimuli, written by a BLIP, and the released `caption.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.artifacts import read_text, write_text
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches, device, find_family, load_network, load_part, pil_processor

BATCH = 32

# Recipe -> decoding: greedy, or sampled with a fixed seed as in the released script.
DECODING: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": MappingProxyType({"max_new_tokens": 32, "num_beams": 1, "do_sample": False}),
        "released": MappingProxyType(
            {"max_new_tokens": 20, "num_beams": 20, "do_sample": True, "temperature": 0.5, "repetition_penalty": 2.0}
        ),
    }
)


@dataclass(frozen=True)
class Captioner:
    """A network that describes pictures in words."""

    model: Any
    tokenizer: Any
    processor: Any
    recipe: str

    def describe(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """Caption pictures, (height, width, 3), uint8; the same pictures get the same captions."""
        import torch

        captions: list[str] = []
        for part in batches(len(pictures), BATCH):
            pixels = self.processor(images=list(pictures[part]), return_tensors="pt")["pixel_values"].to(device())
            with torch.inference_mode(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(0)
                words = self.model.generate(pixel_values=pixels, **DECODING[self.recipe])
            captions += [tidy(text) for text in self.tokenizer.batch_decode(words, skip_special_tokens=True)]
        return captions


def load_captioner(source: str, recipe: str = "default") -> Captioner:
    """Load a family's BLIP, or any image-to-text model of transformers that needs no prompt (BLIP-2, GIT, ...)."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    name = captioner_of(source)
    model = load_part(name, partial(load_network, AutoModelForImageTextToText))
    tokenizer, processor = load_part(name, AutoTokenizer.from_pretrained), load_part(name, pil_processor)
    return Captioner(model, tokenizer, processor, recipe)


def captioner_of(source: str) -> str:
    """Folder or hub id of the captioner: a family's BLIP, or `source` itself if it is no family."""
    try:
        return find_family(source).captioner
    except NeuroCanvasError:
        return source


def tidy(caption: str) -> str:
    """Rejoin what BLIP's tokenizer splits: "jack - o'- lantern" becomes "jack-o'-lantern"."""
    joined = re.sub(r"\s*-\s*|\s+'\s*", lambda found: found[0].strip(), caption)
    return " ".join(joined.split())


def prompt(name: str) -> str:
    """CLIP's usual prompt for the name of a concept."""
    return f"a photo of {name}" if name.startswith(("a ", "an ")) else f"a photo of a {name}"


def write_captions(path: Path, captions: Mapping[str, str]) -> None:
    """Write `caption.txt`: per row a stimulus, a tab, its caption; tabs and line ends in captions become blanks."""
    for stimulus in captions:
        if re.search(r"[\t\r\n]", stimulus):
            raise NeuroCanvasError(f"{path}: ids of stimuli have no tab and no line end; got {stimulus!r}.")
    rows = ((stimulus, re.sub(r"[\t\r\n]", " ", caption)) for stimulus, caption in captions.items())
    write_text(path, "".join(f"{stimulus}\t{caption}\n" for stimulus, caption in rows))


def read_captions(path: Path) -> dict[str, str]:
    """Read `caption.txt`, ours or the released one."""
    captions = {}
    text = read_text(path, "captions; `neurocanvas caption` makes it").removeprefix("\ufeff")
    lines = text.removesuffix("\n").split("\n") if text else []  # splitlines splits at marks that a caption may hold
    for number, line in enumerate(lines, 1):
        stimulus, tab, caption = line.partition("\t")
        if not tab:
            raise NeuroCanvasError(f"{path}, line {number}: a row is stimulus<TAB>caption; got {line[:60]!r}.")
        captions[stimulus] = caption
    return captions


def read_captions_of(path: Path, ids: Sequence[str], remedy: str) -> dict[str, str]:
    """Read the captions of some stimuli, in their order; raise with `remedy` if one is missing."""
    captions = read_captions(path)
    missing = [name for name in ids if name not in captions]
    if missing:
        raise NeuroCanvasError(f"{path}: no caption of {missing[0]}; {remedy}.")
    return {name: captions[name] for name in ids}
