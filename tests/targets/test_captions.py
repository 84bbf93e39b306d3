"""Captions: the file that holds them, and a captioner that is deterministic. How good it is: tests/test_bundled.py."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.simulation.images import CONCEPTS, render, sample_drawing
from neurocanvas.targets.captions import caption_stimuli, load_captioner, read_captions, tidy, write_captions


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


@pytest.mark.parametrize("concept", CONCEPTS.values(), ids=lambda concept: concept.wnid)
def test_tidy_undoes_what_a_word_tokenizer_takes_apart(concept):
    apart = " ".join(concept.caption_name.replace("-", " - ").replace("'", " ' ").split())
    assert tidy(f" a {apart} on a cloth ") == f"a {concept.caption_name} on a cloth"
    assert tidy("two dogs' ears\nand a\u2028tail") == "two dogs' ears and a tail"


def test_captions_follow_the_pictures_and_not_their_company():
    rng = np.random.default_rng(0)
    pictures = [render(sample_drawing(wnid, rng=rng)) for wnid in list(CONCEPTS)[:3]]
    captioner = load_captioner("bundled")
    together = captioner.describe(pictures)
    assert together == [captioner.describe([picture])[0] for picture in pictures]
    assert all(caption and caption == caption.strip() and "\t" not in caption for caption in together)


class Counting:
    """Describes a picture by its number, and dies when it is told to."""

    def __init__(self, dies_after=None):
        self.described, self.dies_after = [], dies_after

    def __call__(self, parts):
        for part in parts:
            if self.dies_after is not None and len(self.described) >= self.dies_after:
                raise KeyboardInterrupt
            self.described += [int(picture(name)[0, 0, 0]) for name in part]
            yield [f"picture {picture(name)[0, 0, 0]}" for name in part]


def picture(name):
    """Stimuli n0, n1, ...: n0 and n50 are the same picture."""
    return np.full((2, 2, 3), int(name[1:]) % 50, np.uint8)


def test_every_distinct_picture_is_described_once_and_a_killed_call_goes_on(tmp_path):
    ids, begun = [f"n{number}" for number in range(100)], tmp_path / "begun.json"
    first, second = Counting(dies_after=32), Counting()
    with pytest.raises(KeyboardInterrupt):
        caption_stimuli(ids, picture, first, begun, "a")
    captions = caption_stimuli(ids, picture, second, begun, "a")
    assert captions == {name: f"picture {int(name[1:]) % 50}" for name in ids}
    assert sorted(first.described + second.described) == list(range(50)) and len(second.described) == 18
    other = Counting()
    caption_stimuli(ids, picture, other, begun, "b")
    assert len(other.described) == 50, "what other settings left is not taken"


def test_the_released_recipe_samples_and_gives_the_same_twice():
    pictures = [render(sample_drawing(wnid, rng=np.random.default_rng(1))) for wnid in list(CONCEPTS)[:2]]
    captioner = load_captioner("bundled", "released")
    described = captioner.describe(pictures)
    assert described == captioner.describe(pictures) and described[0].startswith("a ")
