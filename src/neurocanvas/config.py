"""Every setting of a run: frozen, typed, unknown keys refused, read from and written to TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.store import write_text

DEMO = Path(__file__).parent / "bundled" / "demo.toml"
"""The settings of the bundled run."""

Granularity = Literal["coarse", "fine0", "fine1", "fine2", "fine3", "fine4", "all"]
Arm = Literal["eeg", "shuffled", "mean", "oracle"]


class Settings(BaseModel):
    """What all settings share: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SimulateSettings(Settings):
    """Simulated EEG-ImageNet files (verb `simulate`)."""

    design: Literal["rapid", "block"] = "rapid"
    subjects: int = Field(1, ge=1)
    concepts: int = Field(18, ge=2, le=80)
    trials_per_concept: int = Field(50, ge=2, description="different pictures of every concept")
    repeats: int = Field(1, ge=1, description="how often every picture is shown in a stage")
    stages: int = Field(1, ge=1, le=2)
    explained_variance: float = Field(
        0.05,
        ge=0.0,
        le=1.0,
        description="share of a trial's log band power variance that pictures explain, mean over channels and bands",
    )
    seed: int = Field(0, ge=0)

    @property
    def n_trials(self) -> int:
        """How many trials that makes."""
        return self.subjects * self.stages * self.concepts * self.trials_per_concept * self.repeats


class RecordingSettings(Settings):
    """How to cut trials out of continuous recordings (data set `recordings`): one file is one run."""

    files: str = Field("**/*.csv", description="glob below data.root: Muse CSV, or what MNE reads")
    rename: dict[str, str] = Field({}, description="channel name in the file -> name to use")
    channels: tuple[str, ...] = Field((), description="channels to keep, by their new names; empty = all EEG")
    events: dict[str, dict[str, str]] = Field(
        {},
        description="source (marker column, stim channel, or 'annotations') -> value in the file -> part of "
        "the stimulus id; '' = no picture onset. The first source marks onsets, the others are read there",
    )
    stimulus: str = Field("{annotations}", description="stimulus id: a format string over `events`")
    pictures: str = Field("gratings", description="'gratings' (drawn), or the folder of imageNet_images")
    tmin: float = Field(-0.5, description="s, relative to picture onset")
    tmax: float = Field(1.0, description="s, exclusive")
    high_pass: float | None = Field(None, gt=0, description="Hz; causal: nothing leaks to before the onset")
    low_pass: float | None = Field(None, gt=0, description="Hz; causal")


class DataSettings(Settings):
    """Which trials."""

    name: Literal["eeg-imagenet", "recordings"] = "eeg-imagenet"
    root: str = "data"
    subjects: tuple[int, ...] = Field((), description="empty = all")
    granularity: Granularity = "all"
    recording: RecordingSettings = RecordingSettings()


class FeatureSettings(Settings):
    """Differential entropy per channel and band (verb `features`)."""

    method: Literal["gaussian", "eeg-imagenet"] = "gaussian"
    tmin: float = Field(0.04, description="s after picture onset; 40 samples of the released 1 kHz")
    tmax: float = Field(0.44, description="s, exclusive")


class SplitSettings(Settings):
    """Which trials train, validate and test."""

    protocol: Literal["by-stimulus", "leave-run-out", "released"] = "by-stimulus"
    test_fraction: float = Field(0.1, gt=0, lt=1, description="of each concept's stimuli (by-stimulus)")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="of the training stimuli or trials")
    seed: int = Field(0, ge=0)
    accept_block_confound: bool = False
    average_test: bool = Field(
        False, description="average the features of a subject's test trials that show one picture, as if one trial"
    )


class MapperSettings(Settings):
    """EEG features to (77, 768) (verb `train`)."""

    name: Literal["mlp_sd", "ridge", "mean"] = "mlp_sd"
    hidden: tuple[int, ...] = (512, 512, 512)
    dropout: float = Field(0.5, ge=0, lt=1)
    input_dropout: float = Field(0.0, ge=0, lt=1)
    components: int = Field(64, ge=1, description="principal coordinates of the training targets")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(3.0, ge=0, description="decoupled (AdamW); weak signals need a strong one")
    contrastive: float = Field(10.0, ge=0, description="weight of the contrastive loss beside the MSE; 0 = MSE alone")
    temperature: float = Field(0.1, gt=0, description="of the contrastive loss, in units of the targets' spread")
    batch_size: int = Field(80, ge=2)
    epochs: int = Field(200, ge=1)
    patience: int = Field(30, ge=1)
    seed: int = Field(0, ge=0)


class GenerateSettings(Settings):
    """Predictions to pictures (verb `generate`)."""

    family: str = Field("bundled", description="a name in families.FAMILIES, or a folder like the bundled one")
    arms: tuple[Arm, ...] = Field(("eeg", "shuffled", "mean", "oracle"), min_length=1)
    steps: int = Field(20, ge=1)
    guidance: float = Field(5.0, ge=0)
    shard: int = Field(24, ge=1, description="pictures per batch and per unit of resumable work")
    scale: Literal["none", "affine"] = "affine"
    max_trials: int | None = Field(None, ge=1, description="pictures per subject and arm; spread evenly over concepts")
    seed: int = 42


class EvaluateSettings(Settings):
    """Pictures to scores (verb `evaluate`)."""

    judge: str = "bundled"
    n_way: int = Field(50, ge=2)
    permutations: int = Field(2000, ge=19)
    resamples: int = Field(2000, ge=100)
    seed: int = Field(0, ge=0)


class RunSettings(Settings):
    """A whole run: what `run.toml` says."""

    name: str = "run"
    simulate: SimulateSettings | None = None
    data: DataSettings = DataSettings()
    features: FeatureSettings = FeatureSettings()
    split: SplitSettings = SplitSettings()
    mapper: MapperSettings = MapperSettings()
    generate: GenerateSettings = GenerateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    family: str = Field("bundled", description="captioner and text encoder")


def load_settings(path: Path | str | None, **changes: Any) -> RunSettings:
    """Read a run's settings from TOML.

    Parameters
    ----------
    path : path-like or None
        The TOML file; None for the defaults.
    **changes : mapping
        Sections whose keys replace what the file says, e.g. ``data={"root": "/my/eeg"}``.

    Returns
    -------
    RunSettings

    Raises
    ------
    NeuroCanvasError
        If the file is missing, is not TOML, has an unknown key, or a value that is not allowed.
    """
    raw: dict[str, Any] = {}
    try:
        if path is not None:
            raw = tomllib.loads(check_file(path, "the settings of a run as TOML").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NeuroCanvasError(f"{path}: not valid TOML ({error}).") from error
    for section, values in changes.items():
        there = raw.get(section, {})
        if not isinstance(values, dict):
            raw[section] = values
        elif isinstance(there, dict):  # what else a file puts there is refused below
            raw[section] = {**there, **values}
    try:
        return RunSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NeuroCanvasError(f"{path or 'settings'}: {where}: {first['msg']}; got {first['input']!r}.") from error


def save_settings(settings: RunSettings, path: Path) -> None:
    """Write every setting, resolved, as TOML.

    Parameters
    ----------
    settings : RunSettings
        What to write.
    path : Path
        Where to.
    """
    import tomli_w

    write_text(path, tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
