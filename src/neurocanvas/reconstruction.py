"""`reconstruct` and `classify`: trials to images, or to concepts, with scores, in one call."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import EncoderSettings, load_settings
from neurocanvas.console import progress_lines
from neurocanvas.data.splits import Split
from neurocanvas.data.trials import Trials, unique_names
from neurocanvas.decoder import Decoder
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.generation.base import Generator
from neurocanvas.pipeline.run import RunFolder, read_pictures
from neurocanvas.workflow import run_stage

if TYPE_CHECKING:
    import pandas as pd

VERBS = ("features", "caption", "embed", "train", "predict", "generate", "evaluate")


class _Result:
    """A run folder, kept or temporary, with its audit and its page."""

    def __init__(self, folder: Path, temporary: Any = None) -> None:
        self.folder = folder
        self._temporary = temporary

    def audit(self) -> dict[str, Any]:
        """Audit what can be concluded, as `neurocanvas audit` does."""
        from neurocanvas.pipeline.audit import audit

        return audit(self.folder)

    def report(self, path: Path | str) -> Path:
        """Write the report page."""
        run = RunFolder(self.folder, load_settings(self.folder / "run.toml"))
        [page] = run_stage(run, "report")
        return Path(shutil.copyfile(page, path))


class Classification(_Result):
    """Result of `classify`.

    Parameters
    ----------
    folder : Path
        The run folder with decoders and scores; `neurocanvas report` and `audit` read it too.
    temporary : TemporaryDirectory, optional
        Deletes the folder when this object is garbage-collected.
    """

    @property
    def scores(self) -> pd.DataFrame:
        """One row per model: accuracy (mean over subjects), chance, balanced accuracy, AUC, n, p and p after Holm."""
        import pandas as pd

        content = artifacts.read_json(self.folder / "scores" / "classification.json", "the scores")
        rows = {
            row["model"]: {
                "accuracy": row["mean"], "chance": row["chance"], "n": sum(row["n"]), "p": row["p"],
                "p_holm": row["p_holm"], "balanced_accuracy": np.mean(row["balanced_accuracy"]),
                "auc": np.mean(row["auc"]),
            } for row in content["rows"]
        }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")

    def _repr_html_(self) -> str:
        return str(self.scores.to_html(float_format="%.3f"))


class Reconstruction(_Result):
    """Result of `reconstruct`.

    Parameters
    ----------
    folder : Path
        The run folder with predictions, images and scores; `neurocanvas report` and `audit` read it too.
    temporary : TemporaryDirectory, optional
        Deletes the folder when this object is garbage-collected.
    """

    @property
    def summary(self) -> dict[str, Any]:
        """All scores with chance, interval and p, as in scores/summary.json."""
        return artifacts.read_json(self.folder / "scores" / "summary.json", "the scores")  # type: ignore[no-any-return]

    @property
    def scores(self) -> pd.DataFrame:
        """One row per metric and arm: value, low, high, chance, p."""
        import pandas as pd

        rows = {
            (metric, arm): {name: score.get(name) for name in ("value", "low", "high", "chance", "p")}
            for arm, metrics in self.summary["arms"].items()
            for metric, score in metrics.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["metric", "arm"]).sort_index(level=0)

    def images(self, arm: str = "eeg") -> dict[str, np.ndarray]:
        """Generated images of an arm by the name of the seen image, (height, width, 3), uint8."""
        lines = artifacts.read_text(self.folder / "images" / "manifest.jsonl", "the images").splitlines()
        entries = [entry for entry in map(json.loads, lines) if entry["arm"] == arm]
        return {entry["stimulus"]: read_pictures([self.folder / "images" / entry["file"]])[0] for entry in entries}

    def _repr_html_(self) -> str:
        return f"<p>{self.summary['n_trials']} test trials</p>{self.scores.to_html(float_format='%.3f')}"


def classify(
    trials: Trials,
    models: Sequence[str] = ("lda", "ridge"),
    *,
    protocol: str = "auto",
    window: tuple[float, float] = (0.04, 0.44),
    folder: Path | str | None = None,
    progress: bool = True,
    **settings: Mapping[str, Any],
) -> Classification:
    """Train classifiers of the concepts and test them on held-out trials, with chance and permutation p.

    Parameters
    ----------
    trials : Trials
        Of one or many subjects; each is split by itself.
    models : sequence of str
        Classifiers of `encoders.ENCODERS`.
    protocol : str
        A key of `PROTOCOLS`, or "auto": the first that the trials allow.
    window : (float, float)
        Part of each trial that is used, s after onset, end exclusive.
    folder : path-like, optional
        A run folder to keep; by default a temporary one that lives as long as the result.
    progress : bool
        Show progress lines.
    **settings
        Sections of the settings of a run, as ``split={"folds": 10}``.

    Returns
    -------
    Classification

    Raises
    ------
    NeuroCanvasError
        If a model or protocol is unknown, or the trials do not allow it.

    Examples
    --------
    >>> rng, y = np.random.default_rng(0), ["cat", "dog"] * 40
    >>> x = rng.normal(size=(80, 2, 60)) * 1e-5
    >>> x[1::2, :, 20:30] += 2e-5
    >>> from neurocanvas.data.arrays import from_arrays
    >>> result = classify(from_arrays(x, y, ch_names=["O1", "O2"], sfreq=100), ["lda"], progress=False)
    >>> result.scores.loc["lda", "accuracy"] > 0.9
    np.True_
    """
    if not isinstance(trials, Trials):
        raise NeuroCanvasError(f"trials: Trials are needed, see from_arrays; got {type(trials).__name__}.")
    sections: dict[str, dict[str, Any]] = {
        "data": {"root": "trials passed from Python", "subjects": unique_names(trials.column("subject"))},
        "features": {"tmin": window[0], "tmax": window[1]}, "split": {"protocol": protocol},
        "classify": {"models": [*models]},
    }  # fmt: skip
    for name, values in settings.items():
        sections[name] = {**sections.get(name, {}), **values}
    temporary = None if folder else tempfile.TemporaryDirectory(prefix="neurocanvas-")
    where = Path(folder) if folder else Path(temporary.name)  # type: ignore[union-attr]
    with progress_lines(quiet=not progress) as track:
        run_stage(RunFolder(where, load_settings(None, **sections), track, trials=trials), "classify")
    return Classification(where, temporary)


def reconstruct(
    trials: Trials,
    decoder: Decoder,
    generator: Generator,
    split: Split | Mapping[str, Split],
    arms: Sequence[str] = ("eeg", "shuffled", "mean", "oracle"),
    *,
    folder: Path | str | None = None,
    progress: bool = True,
    **settings: Mapping[str, Any],
) -> Reconstruction:
    """Fit on the training trials of every fold, predict the test trials, generate images, and score them.

    Parameters
    ----------
    trials : Trials
        With images, from which captions and targets are made.
    decoder : Decoder
        Unfitted, with embeddings as its target; a clone is fitted for every fold.
    generator : Generator
        One that accepts the decoder's target space; see `load_generator`.
    split : Split, or mapping of subject to Split
        Made by `make_split` for these trials.
    arms : sequence of str
        Keys of `generation.arms.ARMS`: EEG, and the controls that its scores are compared with.
    folder : path-like, optional
        A run folder to keep; by default a temporary one that lives as long as the result.
    progress : bool
        Show progress lines.
    **settings
        Sections of the settings of a run, as ``evaluate={"permutations": 500}``.

    Returns
    -------
    Reconstruction

    Raises
    ------
    NeuroCanvasError
        If trials, split, decoder and generator do not fit one another.

    Examples
    --------
    >>> decoder = Decoder("ridge", target="clip-text@bundled")
    >>> result = reconstruct(trials, decoder, load_generator(), make_split(trials))  # doctest: +SKIP
    >>> result.scores.loc[("two_way", "eeg"), "value"]  # doctest: +SKIP
    np.float64(0.7)
    """
    if decoder.target == "concept":
        raise NeuroCanvasError(
            f"decoder: images are generated from embeddings, but its target is {decoder.target}; use for example "
            "Decoder(target='clip-text@bundled')."
        )
    decoder.check_parameters()
    splits = _splits(trials, generator, split)
    sections = _settings(decoder, getattr(generator, "settings", None), splits)
    sections["generate"]["arms"] = [*arms]
    for name, values in settings.items():
        sections[name] = {**sections.get(name, {}), **values}
    temporary = None if folder else tempfile.TemporaryDirectory(prefix="neurocanvas-")
    where = Path(folder) if folder else Path(temporary.name)  # type: ignore[union-attr]
    with progress_lines(quiet=not progress) as track:
        all_settings = load_settings(None, **sections)
        run = RunFolder(where, all_settings, track, trials=trials, decoder=decoder, generator=generator)
        with artifacts.lock_run(where, "reconstruct"):
            for subject, split_of_subject in splits.items():
                path, content = where / "splits" / f"{subject}.json", split_of_subject.to_dict()
                content = {"fingerprint": artifacts.fingerprint(content), **content}
                if path.is_file() and artifacts.read_json(path, "a split") != content:
                    raise NeuroCanvasError(f"{path}: {where} was made with another split; pass another folder.")
                artifacts.write_json(path, content)
        for verb in VERBS:
            if verb != "features" or decoder.takes == "features":
                run_stage(run, verb)
    return Reconstruction(where, temporary)


def _splits(trials: Trials, generator: Generator, split: Split | Mapping[str, Split]) -> Mapping[str, Split]:
    """Each subject's split; raise if trials, generator or split are something else."""
    if not isinstance(trials, Trials):
        raise NeuroCanvasError(f"trials: Trials are needed, see from_arrays; got {type(trials).__name__}.")
    if not isinstance(split, Split | Mapping):
        raise NeuroCanvasError(f"split: what make_split returns is needed; got {type(split).__name__}.")
    if not hasattr(generator, "accepts"):
        raise NeuroCanvasError(
            f"generator: one with accepts and generate is needed, see load_generator; got {type(generator).__name__}."
        )
    if not isinstance(split, Split):
        return split
    tested = unique_names(trials.column("subject")[np.isin(trials.names, split.names[split[0].test])])
    if len(tested) != 1:
        raise NeuroCanvasError("split: made for other trials; pass make_split(trials) of these trials.")
    return {tested[0]: split}


def _settings(decoder: Decoder, of_generator: Any, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Settings that describe the arguments, so that a folder refuses another decoder as it refuses other settings."""
    space, _, network = decoder.target.partition("@")
    parameters = decoder.get_params(deep=False)
    encoder = {name: parameters[name] for name in EncoderSettings.model_fields.keys() & parameters.keys()}
    encoder |= {"name": parameters["encoder"], "components": decoder.n_components, "parameters": {
        name.removeprefix("encoder__"): value if isinstance(value, str | int | float) else str(value)
        for name, value in parameters.items() if name.startswith("encoder__") and value is not None
    }}  # fmt: skip
    if not isinstance(decoder.encoder, str):
        encoder["name"] = f"python:{getattr(decoder.encoder, '__name__', type(decoder.encoder).__name__)}"
    return {
        "family": network or "bundled", "embed": {"target": space},
        "encoder": {name: value for name, value in encoder.items() if value is not None},
        "data": {"root": "trials passed from Python", "subjects": [*splits]},
        "split": {"protocol": next(iter(splits.values())).protocol},
        "features": {"method": decoder.features, "tmin": decoder.window[0], "tmax": decoder.window[1]},
        "generate": {} if of_generator is None else of_generator.model_dump(
            mode="json", exclude={"arms"}, exclude_none=True
        ),
    }  # fmt: skip
