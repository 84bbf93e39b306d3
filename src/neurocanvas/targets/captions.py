"""Captions of stimulus images, by BLIP, and the file `caption.txt`, ours or the released one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.artifacts import read_text, write_text
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches, device, find_family, load_part

BATCH = 32

# Recipe -> decoding: greedy, or sampled with a fixed seed as in the released script.
DECODING: dict[str, dict[str, Any]] = {
    "default": {"max_new_tokens": 32, "num_beams": 1, "do_sample": False},
    "released": {
        "max_new_tokens": 20, "num_beams": 20, "do_sample": True, "temperature": 0.5, "repetition_penalty": 2.0,
    },
}  # fmt: skip


def load_captioner(source: str, recipe: str = "default") -> Callable[[Sequence[np.ndarray]], list[str]]:
    """Load a family's BLIP, or any image-to-text model of transformers that needs no prompt: images -> captions."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    name = captioner_of(source)
    model: Any = load_part(name, AutoModelForImageTextToText.from_pretrained, network=True)
    tokenizer: Any = load_part(name, AutoTokenizer.from_pretrained)
    processor: Any = load_part(name, AutoImageProcessor.from_pretrained, backend="pil")

    def describe(images: Sequence[np.ndarray]) -> list[str]:  # (height, width, 3), uint8
        captions: list[str] = []
        for batch in batches(len(images), BATCH):
            pixels = processor(images=list(images[batch]), return_tensors="pt")["pixel_values"].to(device())
            with torch.inference_mode(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(0)  # the same images get the same captions
                tokens = model.generate(pixel_values=pixels, **DECODING[recipe])
            captions += [tidy(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        return captions

    return describe


def captioner_of(source: str) -> str:
    """Folder or hub id of the captioner: a family's BLIP, or `source` itself if it is not a family."""
    try:
        return find_family(source).captioner
    except NeuroCanvasError:
        return source


def tidy(caption: str) -> str:
    """Rejoin words that BLIP's tokenizer splits: "jack - o'- lantern" becomes "jack-o'-lantern"."""
    return " ".join(re.sub(r"\s*-\s*|\s+'\s*", lambda match: match[0].strip(), caption).split())


def prompt(name: str) -> str:
    """CLIP's usual prompt for the name of a concept."""
    return f"a photo of {name}" if name.startswith(("a ", "an ")) else f"a photo of a {name}"


def write_captions(path: Path, captions: Mapping[str, str]) -> None:
    """Write `caption.txt`: stimulus, tab and caption per row; tabs and line ends in captions become spaces."""
    if bad := [stimulus for stimulus in captions if re.search(r"[\t\r\n]", stimulus)]:
        raise NeuroCanvasError(f"{path}: ids of stimuli have no tab and no line end; got {bad[0]!r}.")
    rows = ((stimulus, re.sub(r"[\t\r\n]", " ", caption)) for stimulus, caption in captions.items())
    write_text(path, "".join(f"{stimulus}\t{caption}\n" for stimulus, caption in rows))


def read_captions(path: Path, ids: Sequence[str] | None = None, remedy: str = "") -> dict[str, str]:
    """Read `caption.txt`; with `ids` only these stimuli, in this order. If one is missing, the error names `remedy`."""
    captions, numbers = dict[str, str](), dict[str, int]()
    text = read_text(path, "captions; `neurocanvas caption` makes it").removeprefix("\ufeff")
    lines = text.split("\n")  # splitlines also splits within captions
    while lines and not lines[-1].strip(" "):
        lines.pop()
    for number, line in enumerate(lines, 1):
        stimulus, tab, caption = line.partition("\t")
        if not tab:
            raise NeuroCanvasError(f"{path}, line {number}: a row is stimulus<TAB>caption; got {line[:60]!r}.")
        if (first := numbers.setdefault(stimulus, number)) != number:
            raise NeuroCanvasError(
                f"{path}: lines {first} and {number} both caption {stimulus}; an image has one caption: leave one out."
            )
        captions[stimulus] = caption
    if missing := [name for name in ids or () if name not in captions]:
        raise NeuroCanvasError(f"{path}: no caption of {missing[0]}; {remedy}.")
    return captions if ids is None else {name: captions[name] for name in ids}
