"""Images that were shown: the file, the concept and the concept's name of every image id."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from neurocanvas.artifacts import fingerprint, read_text, sha256
from neurocanvas.errors import NeuroCanvasError, check_file, check_folder, check_inside, check_name

if TYPE_CHECKING:
    from PIL import Image

# Suffixes of images -> what Pillow may decode; nothing else is tried, whatever a file is called.
FORMATS: Mapping[str, str] = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip

# Images with more pixels are refused: a file of a few bytes can claim any size.
MANY_PIXELS = 50_000_000


@contextmanager
def open_picture(path: Path, remedy: str) -> Iterator[Image.Image]:
    """Open an image; errors while the block decodes it become a message about the file as well."""
    from PIL import Image

    check_file(path, f"an image; {remedy}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is stricter than Pillow's, and damage is an error here
            with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
                width, height = image.size
                if width * height > MANY_PIXELS:
                    raise NeuroCanvasError(
                        f"{path}: claims {width} x {height} pixels, {MANY_PIXELS:,} are allowed; {remedy}."
                    )
                if image.mode.startswith(("I", "F")):  # too deep to be shown as it is
                    raise NeuroCanvasError(
                        f"{path}: 8 bits per channel are needed; it has the mode {image.mode}; convert it, or {remedy}."
                    )
                n_frames = getattr(image, "n_frames", 1)
                if n_frames > 1 and image.format != "MPO":  # the photographs of phones, whose first image is shown
                    raise NeuroCanvasError(
                        f"{path}: one image is needed; it has {n_frames} frames; save one of them, or {remedy}."
                    )
                yield image
    except NeuroCanvasError:
        raise
    except Image.DecompressionBombError as error:
        raise NeuroCanvasError(f"{path}: claims to have too many pixels ({error}); {remedy}.") from error
    except Image.UnidentifiedImageError as error:
        raise NeuroCanvasError(f"{path}: not an image; allowed are {', '.join(FORMATS)}; {remedy}.") from error
    except Exception as error:  # decoders raise many kinds on damaged bytes
        raise NeuroCanvasError(f"{path}: damaged, or not an image ({error}); {remedy}.") from error


def _orientation(image: Image.Image) -> int:
    """How EXIF says the image is turned, 1 to 8; 1 where its EXIF data are damaged, as viewers ignore those."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow's reader raises many kinds
        return 1
    return orientation if orientation in range(1, 9) else 1


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an open image as a viewer shows it; reads no pixels."""
    return image.size[::-1] if _orientation(image) >= 5 else image.size


def as_shown(image: Image.Image) -> Image.Image:
    """An open image as a viewer shows it, in RGB: upright, in sRGB, on white where it is transparent."""
    from PIL import Image, ImageCms

    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    shown, profile = image.convert("RGB"), image.info.get("icc_profile")
    if profile:
        mode = "CMYK" if image.mode == "CMYK" else "L" if image.mode in ("1", "L", "LA") else "RGB"
        with suppress(
            ImageCms.PyCMSError, OSError
        ):  # viewers ignore a damaged profile, and that of another colour space
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() == ("GRAY" if mode == "L" else mode):
                opaque, target = image.convert(mode), ImageCms.createProfile("sRGB")
                shown = ImageCms.profileToProfile(opaque, source, target, outputMode="RGB") or shown
    if alpha is not None:
        shown = Image.composite(shown, Image.new("RGB", shown.size, "white"), alpha)
    turn = Image.Transpose
    turns = (
        None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE, turn.ROTATE_270,
        turn.TRANSVERSE, turn.ROTATE_90,
    )  # fmt: skip
    how = turns[_orientation(image) - 1]
    return shown if how is None else shown.transpose(how)


def is_one_colour(pixels: np.ndarray) -> bool:
    """Whether all pixels of an image, (height, width, 3), are equal, as NaN and safety checkers leave them."""
    return bool((pixels == pixels[:1, :1]).all())


def alike(name: str) -> str:
    """A name without what copies of a file change: how accents are composed, and how its ending is written."""
    text = unicodedata.normalize("NFC", name)
    ending = PurePosixPath(text).suffix
    return text.removesuffix(ending) + ending.lower().replace("jpeg", "jpg")


def by_name(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """The images among some files by their names, with and without the folder, as `alike` gives them."""
    index: dict[str, list[Path]] = {}
    for path in sorted(path for path in paths if path.suffix.lower() in FORMATS and not path.name.startswith(".")):
        for name in (path.name, f"{path.parent.name}/{path.name}"):
            index.setdefault(alike(name), []).append(path)
    return index


def file_of(index: Mapping[str, list[Path]], name: str) -> Path | None:
    """The file of an id, `<folder>/<file>` or a name that is in one folder only; None if there is none."""
    paths = index.get(alike(name), [])
    if len({path.parent for path in paths}) == 1:
        paths = [path for path in paths if path.name == PurePosixPath(name).name] or paths
    if len(paths) > 1:
        first, second = (f"{path.parent.name}/{path.name}" for path in paths[:2])
        raise NeuroCanvasError(
            f"stimulus {name}: {paths[0].parents[1]} has {len(paths)} such images, {first} and {second} among them; "
            "write the folder before the name, as here."
        )
    return paths[0] if paths else None


def find_files(folder: Path, ids: Iterable[str]) -> dict[str, Path]:
    """The file of every id; of one that is missing, the path where it belongs."""
    list_folder, files = cache(lambda where, pattern: by_name(where.glob(pattern))), dict[str, Path]()
    for name in ids:
        check_name(folder, name, "stimulus")
        files[name] = folder / name if "/" in name else folder / name.split("_")[0] / name
        if not re.match(r"n\d{8}_", name):
            files[name] = file_of(list_folder(folder, "*/*"), name) or files[name]
        elif not files[name].is_file():  # an id of ImageNet says its folder, and ImageNet is too large to be listed
            files[name] = file_of(list_folder(files[name].parent, "*"), name) or files[name]
    return files


# Folder of the images beside the EEG file: `imageNet_images/<wnid>/<image id>`.
PICTURES_FOLDER = "imageNet_images"

# Where folders named by wnid lie in a data folder, and in ImageNet as image-net.org and Kaggle give it.
IMAGENET_FOLDERS = (PICTURES_FOLDER, "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train", "train", ".")

# The 80 concepts of EEG-ImageNet, wnid -> English name: the first name of each in its `synset_map_en.txt`
# (github.com/Promise-Z5Q2SQ/EEG-ImageNet-Dataset, MIT licence, commit 7c781571), in the order of `labels` in the
# released file: dogs, fish, fruits, vehicles and instruments by eights (fine0 to fine4), then the 40 coarse concepts.
IMAGENET_CONCEPTS: Mapping[str, str] = {
    "n02099601": "golden retriever", "n02099712": "Labrador retriever",
    "n02106166": "Border collie", "n02106550": "Rottweiler",
    "n02107142": "Doberman", "n02110185": "Siberian husky", "n02111889": "Samoyed", "n02112826": "corgi",
    "n01443537": "goldfish", "n01456756": "seahorse", "n01484850": "great white shark", "n01494475": "hammerhead",
    "n01496331": "electric ray", "n02630281": "sailfish", "n02643566": "lionfish", "n02655020": "puffer",
    "n07740461": "Red Delicious", "n07745940": "strawberry", "n07749192": "navel orange", "n07753275": "pineapple",
    "n07756951": "watermelon", "n07758680": "grape", "n07772935": "coconut", "n12144580": "corn",
    "n02701002": "ambulance", "n02901620": "brigantine", "n03384352": "forklift", "n03690473": "lorry",
    "n03790512": "motorcycle", "n03845190": "oil tanker", "n04389033": "tank", "n04465666": "tractor",
    "n02672831": "accordion", "n02992211": "cello", "n03372029": "flute", "n03495258": "harp",
    "n03838899": "oboe", "n03884397": "panpipe", "n04249415": "snare drum", "n04487394": "trombone",
    "n02106662": "German shepherd", "n02124075": "Egyptian cat", "n02281787": "lycaenid", "n02389026": "sorrel",
    "n02492035": "capuchin", "n02504458": "African elephant", "n02510455": "giant panda", "n02607072": "anemone fish",
    "n02690373": "airliner", "n02906734": "broom", "n02951358": "canoe", "n02992529": "cellular telephone",
    "n03063599": "coffee mug", "n03100240": "convertible",
    "n03180011": "desktop computer", "n03197337": "digital watch",
    "n03272010": "electric guitar", "n03272562": "electric locomotive",
    "n03297495": "espresso maker", "n03376595": "folding chair",
    "n03445777": "golf ball", "n03452741": "grand piano", "n03584829": "iron", "n03590841": "jack-o'-lantern",
    "n03709823": "mailbag", "n03773504": "missile", "n03775071": "mitten", "n03792782": "mountain bike",
    "n03792972": "mountain tent", "n03877472": "pajama", "n03888257": "parachute", "n03982430": "pool table",
    "n04044716": "radio telescope", "n04069434": "reflex camera", "n04086273": "revolver", "n04120489": "running shoe",
    "n07753592": "banana", "n07873807": "pizza", "n11939491": "daisy", "n13054560": "bolete",
}  # fmt: skip

# The first 40 of `IMAGENET_CONCEPTS` are fine, in groups of eight: fine0 to fine4.
N_FINE, FINE_GROUP = 40, 8


@dataclass(frozen=True)
class Images:
    """The images of a data set; opening reads no pixels.

    Parameters
    ----------
    ids : tuple of str
        Stimulus ids, as in the column `image` of Trials.
    concepts : mapping of str to str
        Stimulus id -> concept.
    names : mapping of str to str
        Concept -> English name.
    files : mapping of str to Path
        Stimulus id -> image file; empty for gratings, which are drawn on demand.
    folder : Path, optional
        Folder that the files must be in: a link that leaves it is refused when the image is read.

    Raises
    ------
    NeuroCanvasError
        If an id has no concept, or a concept no name.

    Examples
    --------
    >>> images = Images.from_gratings()
    >>> images.picture("grating_low_45", size=32).shape
    (32, 32, 3)
    """

    ids: tuple[str, ...]
    concepts: Mapping[str, str]
    names: Mapping[str, str]
    files: Mapping[str, Path]
    folder: Path | None = None

    def __post_init__(self) -> None:
        for stimulus in self.ids:
            if self.concepts.get(stimulus) not in self.names:
                raise NeuroCanvasError(f"stimulus {stimulus}: its concept {self.concepts.get(stimulus)!r} has no name.")

    @classmethod
    def from_folder(cls, root: Path | str, ids: Iterable[str] | None = None) -> Images:
        """Find the images of `root/imageNet_images/<concept>/<file>`, `root/<concept>/<file>`, or an ImageNet folder.

        Parameters
        ----------
        root : path-like
            The folder that holds `imageNet_images`, or else one of the other `IMAGENET_FOLDERS` with folders in it
            that are named by wnid, or else a folder of folders of images.
        ids : iterable of str, optional
            Which stimuli, `<file>` or `<folder>/<file>`, whatever the case of the ending and the form of accents; by
            default all that the folder holds. An image may be missing until it is read.

        Returns
        -------
        Images
            Ids in alphabetical order, with the folder where several have a file of that name; names from
            `synset_map_en.txt` (`read_names`) where it exists, else those of the 80 concepts of EEG-ImageNet, else the
            folder's name.

        Raises
        ------
        NeuroCanvasError
            If `ids` is None and there is no such folder, or no image in it; or if an id is not a file name, or
            that of several files.
        """
        folders = [Path(root) / name for name in IMAGENET_FOLDERS]
        folder = next((path for path in folders if any(map(Path.is_dir, path.glob("n[0-9]*")))), folders[0])
        if not folder.is_dir() and by_name(Path(root).glob("*/*")):
            folder = Path(root)
        if ids is None:
            check_folder(folder, "the images, as <concept>/<file>")
            index, files = by_name(folder.glob("*/*")), dict[str, Path]()
            for path in (path for name, paths in index.items() if "/" in name for path in paths):
                alone = len(index[alike(path.name)]) == 1
                files[path.name if alone else f"{path.parent.name}/{path.name}"] = path
            if not files:
                raise NeuroCanvasError(f"{folder}: no images; they belong there as <concept>/<file>.")
            files = {check_name(folder, name, "stimulus"): files[name] for name in sorted(files)}
        else:
            files = find_files(folder, sorted(set(ids)))
        concepts = {name: path.parent.name for name, path in files.items()}
        english = {**IMAGENET_CONCEPTS, **read_names(root)}
        names = {concept: english.get(concept, concept) for concept in dict.fromkeys(concepts.values())}
        return cls(tuple(files), concepts, names, files, folder)

    @classmethod
    def from_gratings(cls) -> Images:
        """Return the drawn gratings; every grating is a concept of its own.

        Returns
        -------
        Images
        """
        from neurocanvas.simulation.images import GRATINGS

        ids = tuple(GRATINGS)
        return cls(ids, {name: name for name in ids}, {name: GRATINGS[name].caption for name in ids}, {})

    def path(self, stimulus: str) -> Path | None:
        """Path of the image of a stimulus, which need not exist.

        Parameters
        ----------
        stimulus : str
            One of `ids`.

        Returns
        -------
        Path or None
            None for an image that is drawn on demand.

        Raises
        ------
        NeuroCanvasError
            If the stimulus is unknown, or its file is a link that leaves the folder.
        """
        if stimulus not in self.concepts:
            raise NeuroCanvasError(
                f"stimulus {stimulus!r}: unknown; there are {len(self.ids)}, {self.ids[0]} to {self.ids[-1]}."
            )
        path = self.files.get(stimulus)
        if path is None or self.folder is None:
            return path
        return check_inside(self.folder, path.relative_to(self.folder).as_posix(), f"stimulus {stimulus}")

    def picture(self, stimulus: str, size: int | None = None) -> np.ndarray:
        """Read or draw an image.

        Parameters
        ----------
        stimulus : str
            One of `ids`.
        size : int, optional
            Width and height in pixels, after cutting the largest centred square; as stored by default (gratings: 64).

        Returns
        -------
        array, shape (height, width, 3), uint8, RGB

        Raises
        ------
        NeuroCanvasError
            If the stimulus is unknown, or its file is missing or is not an image.
        """
        path = self.path(stimulus)
        if path is None:
            from neurocanvas.simulation.images import GRATINGS, render

            return render(GRATINGS[stimulus], size or 64)
        from PIL import Image, ImageOps

        with open_picture(path, "put the right file there, or leave such trials out with --on-missing drop") as image:
            colour = as_shown(image)
        if size is not None and colour.size != (size, size):
            colour = ImageOps.fit(colour, (size, size), Image.Resampling.LANCZOS)
        return np.asarray(colour)

    def file_hash(self, stimulus: str) -> str | None:
        """Hash the bytes of an image.

        Parameters
        ----------
        stimulus : str
            One of `ids`.

        Returns
        -------
        str or None
            64 hex digits; None where there is no file.

        Raises
        ------
        NeuroCanvasError
            If the file is a link that leaves the folder.
        """
        path = self.path(stimulus)
        return sha256(path) if path is not None and path.is_file() else None

    def fingerprint(self) -> str:
        """Hash the ids, concepts, names and the bytes of every image that exists.

        Returns
        -------
        str
            16 hex digits.
        """
        contents = [self.file_hash(name) for name in self.ids]
        drawn = [repr(self.picture(name).tobytes()) for name in self.ids if name not in self.files]
        return fingerprint(list(self.ids), dict(self.concepts), dict(self.names), contents, drawn)


def read_names(root: Path | str, language: Literal["en", "ch"] = "en") -> dict[str, str]:
    """Read the first name of every concept from `synset_map_en.txt` or `synset_map_ch.txt`."""
    name = f"synset_map_{language}.txt"
    for path in (Path(root) / name, Path(root) / PICTURES_FOLDER / name):
        if path.is_file():
            text = read_text(path, "a wnid and its names on every line").removeprefix("\ufeff")
            rows = [line.split(None, 1) for line in text.splitlines()]
            return {row[0]: row[1].split(",")[0].replace("_", " ").strip() for row in rows if len(row) == 2}
    return {}
