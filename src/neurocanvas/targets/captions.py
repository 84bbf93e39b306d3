"""Captions of stimuli, written by a BLIP, and the released `caption.txt`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import batches, device, find_family, load_part, pil_processor
from neurocanvas.store import read_text, write_text

LONGEST = 32  # words a caption may have; the released script leaves BLIP's default of 20 tokens


def caption_pictures(
    pictures: Sequence[np.ndarray],
    family: str,
    *,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Describe pictures in words, deterministically (greedy decoding).

    Parameters
    ----------
    pictures : sequence of array, each (height, width, 3), uint8
        What was seen.
    family : str
        Whose captioner: a name in `families.FAMILIES` or a folder.
    batch_size : int
        Pictures at a time.
    progress : callable
        Is told how many pictures were captioned since the last call.

    Returns
    -------
    list of str
        One caption per picture.

    Raises
    ------
    NeuroCanvasError
        If the captioner's weights cannot be loaded.
    """
    import torch
    from transformers import AutoTokenizer, BlipForConditionalGeneration

    source = find_family(family).captioner
    model = load_part(source, BlipForConditionalGeneration.from_pretrained).float().eval().to(device())
    tokenizer, processor = load_part(source, AutoTokenizer.from_pretrained), load_part(source, pil_processor)
    captions: list[str] = []
    for part in batches(len(pictures), batch_size):
        pixels = processor(images=list(pictures[part]), return_tensors="pt")["pixel_values"].to(device())
        with torch.inference_mode():
            words = model.generate(pixel_values=pixels, max_new_tokens=LONGEST, num_beams=1, do_sample=False)
        captions += [tidy(text) for text in tokenizer.batch_decode(words, skip_special_tokens=True)]
        progress(part.stop - part.start)
    return captions


def tidy(caption: str) -> str:
    """Join what BLIP's word tokenizer took apart: "jack - o'- lantern" becomes "jack-o'-lantern".

    Parameters
    ----------
    caption : str
        As decoded.

    Returns
    -------
    str

    Examples
    --------
    >>> tidy("a jack - o'- lantern")
    "a jack-o'-lantern"
    """
    return re.sub(r"\s*([-'])\s*", r"\1", caption).strip()


def write_captions(path: Path, captions: Mapping[str, str]) -> None:
    """Write `caption.txt`: one stimulus a row, a tab, its caption.

    Parameters
    ----------
    path : Path
        Where to.
    captions : mapping of str to str
        Stimulus id to caption.
    """
    write_text(path, "".join(f"{stimulus}\t{caption}\n" for stimulus, caption in captions.items()))


def read_captions(path: Path) -> dict[str, str]:
    """Read `caption.txt`, ours or the released one.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to str
        Stimulus id to caption.

    Raises
    ------
    NeuroCanvasError
        If the file is missing or a row has no tab.
    """
    captions = {}
    lines = read_text(path, "captions; `neurocanvas caption` makes it").splitlines()
    for number, line in enumerate(lines, 1):
        stimulus, tab, caption = line.partition("\t")
        if not tab:
            raise NeuroCanvasError(
                f"{path}, line {number}: a row is stimulus<TAB>caption; got {line[:60]!r}."
            )
        captions[stimulus] = caption
    return captions
