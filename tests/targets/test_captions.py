"""Captions: the file that holds them, and a captioner that is deterministic. How good it is: tests/test_bundled.py."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.simulation.images import CONCEPTS, render, sample_drawing
from neurocanvas.targets.captions import load_captioner, read_captions, tidy, write_captions


def test_captions_are_read_back_in_their_order_and_the_released_file_is_read(tmp_path):
    path, captions = tmp_path / "caption.txt", {"b_1.JPEG": "a red mitten", "a_2.JPEG": "a jack-o'-lantern", "c": ""}
    write_captions(path, captions)
    assert list(read_captions(path).items()) == list(captions.items())
    path.write_bytes(b"n02106662_1.JPEG\ta dog laying on the grass\r\nn2_3.JPEG\ta dog\r\n")
    assert read_captions(path)["n02106662_1.JPEG"] == "a dog laying on the grass"


def test_a_row_without_a_tab_is_named_and_a_missing_file_says_which_verb_makes_it(tmp_path):
    with pytest.raises(NeuroCanvasError, match="neurocanvas caption"):
        read_captions(tmp_path / "caption.txt")
    (tmp_path / "caption.txt").write_text("a\tone\nb two\n")
    with pytest.raises(NeuroCanvasError, match=r"caption\.txt, line 2: a row is stimulus<TAB>caption; got 'b two'"):
        read_captions(tmp_path / "caption.txt")


def test_an_image_has_one_caption_and_blank_last_lines_are_no_rows(tmp_path):
    path = tmp_path / "caption.txt"
    path.write_text("a\tone\nb\t\n\n \n")
    assert read_captions(path) == {"a": "one", "b": ""}
    path.write_text("a\tone\nb\ttwo\na\tone\n")
    with pytest.raises(NeuroCanvasError, match=r"caption\.txt: lines 1 and 3 both caption a; .*leave one out"):
        read_captions(path)
    path.write_text("a\tone\n\nb\ttwo\n")
    with pytest.raises(NeuroCanvasError, match=r"line 2: a row is stimulus<TAB>caption; got ''"):
        read_captions(path)


@pytest.mark.parametrize("concept", CONCEPTS.values(), ids=lambda concept: concept.wnid)
def test_tidy_undoes_what_a_word_tokenizer_takes_apart(concept):
    apart = " ".join(concept.caption_name.replace("-", " - ").replace("'", " ' ").split())
    assert tidy(f" a {apart} on a cloth ") == f"a {concept.caption_name} on a cloth"
    assert tidy("two dogs' ears\nand a\u2028tail") == "two dogs' ears and a tail"


def test_captions_follow_the_pictures_and_not_their_company():
    rng = np.random.default_rng(0)
    pictures = [render(sample_drawing(wnid, rng=rng)) for wnid in list(CONCEPTS)[:3]]
    describe = load_captioner("bundled")
    together = describe(pictures)
    assert together == [describe([picture])[0] for picture in pictures]
    assert all(caption and caption == caption.strip() and "\t" not in caption for caption in together)


def test_the_released_recipe_samples_and_gives_the_same_twice():
    pictures = [render(sample_drawing(wnid, rng=np.random.default_rng(1))) for wnid in list(CONCEPTS)[:2]]
    describe = load_captioner("bundled", "released")
    described = describe(pictures)
    assert described == describe(pictures) and described[0].startswith("a ")
