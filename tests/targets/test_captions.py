"""Captions: the file that holds them, and a captioner that is deterministic. How good it is: tests/test_bundled.py."""

from __future__ import annotations

import numpy as np
import pytest

from neurocanvas.datasets.pictures import CONCEPTS, render, sample_drawing
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.captions import caption_pictures, read_captions, tidy, write_captions


def test_written_captions_are_read_back_in_their_order(tmp_path):
    captions = {"b_1.JPEG": "a red mitten on a blue cloth", "a_2.JPEG": "a jack-o'-lantern", "c": ""}
    write_captions(tmp_path / "caption.txt", captions)
    assert list(read_captions(tmp_path / "caption.txt").items()) == list(captions.items())


def test_the_released_file_is_read(tmp_path):
    (tmp_path / "caption.txt").write_bytes(b"n02106662_1.JPEG\ta dog laying on the grass\r\nn2_3.JPEG\ta dog\r\n")
    assert read_captions(tmp_path / "caption.txt")["n02106662_1.JPEG"] == "a dog laying on the grass"


def test_a_row_without_a_tab_is_named(tmp_path):
    (tmp_path / "caption.txt").write_text("a\tone\nb two\n")
    with pytest.raises(NeuroCanvasError, match=r"caption\.txt, line 2: a row is stimulus<TAB>caption; got 'b two'"):
        read_captions(tmp_path / "caption.txt")


def test_a_missing_file_says_which_verb_makes_it(tmp_path):
    with pytest.raises(NeuroCanvasError, match="neurocanvas caption"):
        read_captions(tmp_path / "caption.txt")


@pytest.mark.parametrize("concept", CONCEPTS.values(), ids=lambda concept: concept.wnid)
def test_tidy_undoes_what_a_word_tokenizer_takes_apart(concept):
    apart = " ".join(concept.caption_name.replace("-", " - ").replace("'", " ' ").split())
    assert tidy(f" a {apart} on a cloth ") == f"a {concept.caption_name} on a cloth"


def test_captions_follow_the_pictures_and_not_their_company():
    rng = np.random.default_rng(0)
    pictures = [render(sample_drawing(wnid, rng=rng)) for wnid in list(CONCEPTS)[:3]]
    told = []
    together = caption_pictures(pictures, "bundled", progress=told.append)
    alone = caption_pictures(pictures[::-1], "bundled", batch_size=1)[::-1]
    assert together == alone and told == [3]
    assert all(caption and caption == caption.strip() and "\t" not in caption for caption in together)
