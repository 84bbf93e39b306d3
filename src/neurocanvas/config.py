"""Every setting of a run: frozen, typed, unknown keys refused, read from and written to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from neurocanvas.artifacts import fingerprint, write_text
from neurocanvas.errors import NeuroCanvasError, check_file

# The settings of the bundled run.
DEMO = Path(__file__).parent / "bundled" / "demo.toml"


@dataclass(frozen=True)
class Registered:
    """Accepts the keys of a registry, "module:NAME", which is imported on use; for encoders only those of a kind."""

    registry: str
    kind: str = ""
    also: tuple[str, ...] = ()

    def names(self) -> list[str]:
        rows = resolve_name(f"neurocanvas.{self.registry}").items()
        names = [*self.also, *(name for name, row in rows if not self.kind or getattr(row, self.kind))]
        return [*names, "braindecode:<model>"] if self.kind else names

    def __call__(self, name: str) -> str:
        # python:<class> is an encoder that a script passed to `reconstruct`
        if name not in self.names() and not (self.kind and name.startswith(("braindecode:", "python:"))):
            raise ValueError(f"allowed are {', '.join(self.names())}")
        return name


Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
ProtocolName = Annotated[str, AfterValidator(Registered("data.splits:PROTOCOLS"))]
EncoderName = Annotated[str, AfterValidator(Registered("encoders:ENCODERS", kind="embedding"))]
ClassifierName = Annotated[str, AfterValidator(Registered("encoders:ENCODERS", kind="concept"))]


class Settings(BaseModel):
    """All settings are frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# Subject id in the stage-2 file of EEG-ImageNet -> id of the same person in stage 1.
STAGE2_SUBJECTS: Mapping[int, int] = {16: 4, 17: 12, 18: 0, 19: 13, 20: 6}


class SimulateSettings(Settings):
    """Simulated EEG-ImageNet files (verb `simulate`)."""

    design: Literal["rapid", "block"] = "rapid"
    subjects: int = Field(1, ge=1)
    concepts: int = Field(18, ge=2, le=80)
    trials_per_concept: int = Field(50, ge=2, description="Different images of every concept.")
    repeats: int = Field(1, ge=1, description="How often every image is shown in a stage.")
    stages: int = Field(1, ge=1, le=2, description="2: subjects 0, 4, 6, 12 and 13 return on another day.")
    incomplete: bool = Field(False, description="The last subject lacks one concept in stage 1.")
    response: Literal["induced", "evoked", "mixed"] = Field(
        "induced", description="What images change: band power, the phase of the evoked response, or both."
    )
    explained_variance: Share = Field(
        0.05, description="Share of one trial's log band power (evoked: voltage) that images explain, if possible."
    )
    seed: int = Field(0, ge=0)

    @property
    def n_trials(self) -> int:
        per_concept = self.trials_per_concept * self.repeats
        returning = sum(subject < self.subjects for subject in STAGE2_SUBJECTS.values()) if self.stages == 2 else 0
        return (self.subjects + returning) * self.concepts * per_concept - self.incomplete * per_concept


ChannelType = Literal["eeg", "eog", "ecg", "emg", "misc", "stim"]


class RecordingSettings(Settings):
    """How to cut trials out of continuous recordings (data set `recordings`): one file is one run."""

    files: str = Field("", description="Glob below data.root: Muse CSV, or formats that MNE reads; empty: all of them.")
    encoding: str = Field("", description="Of text in EDF and BDF files, e.g. latin1; empty: UTF-8.")
    scale: dict[str, Annotated[float, Field(gt=0)]] = Field({}, description="Glob of files -> factor of their signal.")
    rename: dict[str, str] = Field({}, description="Channel name in the file -> new name.")
    types: dict[str, ChannelType] = Field(
        {}, description="Channel name in the file -> its type, where file or name do not say it."
    )
    channels: tuple[str, ...] = Field((), description="Channels to use, by their new names; empty: all EEG channels.")
    drop: tuple[str, ...] = Field((), description="Channels to leave out, by their new names.")
    bads: tuple[str, ...] = Field((), description="Bad channels beside those that the file marks; they are left out.")
    interpolate_bads: bool = Field(False, description="Interpolate bad channels instead.")
    events: dict[str, dict[str, str]] = Field(
        {},
        description="Source (marker column, trigger channel, column of a table of events, or 'annotations') -> value "
        "or pattern, as *.jpg, -> its text in the stimulus id, {} for the value itself; '' = no image onset. The first "
        "source marks onsets; the others are read at those onsets.",
    )
    events_file: str = Field("", description="Table of events beside a recording; {stem} is its name; default: BIDS.")
    onset_unit: Literal["s", "samples"] = Field("s", description="Of the column onset; a column sample has samples.")
    delay: float = Field(0.0, description="Seconds from the marker to the image on the screen.")
    photodiode: str = Field("", description="Channel of a light sensor: onsets move to where its signal steps.")
    stimulus: str = Field("", description="Stimulus id, a format string over the sources; default: the first source.")
    concept: str = Field("", description="Concept, likewise; default: the image's, without images the stimulus id.")
    pictures: str = Field("", description="Folder of <concept>/<file>, 'gratings' (drawn), or empty: no images.")
    tmin: float = Field(-0.5, description="Seconds relative to image onset.")
    tmax: float = Field(1.0, description="Seconds relative to image onset, exclusive.")
    baseline: tuple[float, float] | None = Field(None, description="Seconds whose mean is subtracted from each trial.")
    reject: dict[Literal["eeg"], float] = Field({}, description="Largest peak-to-peak amplitude of a trial, V.")
    flat: dict[Literal["eeg"], float] = Field({}, description="Smallest peak-to-peak amplitude of a trial, V.")
    reference: tuple[str, ...] = Field((), description="Channels of the new reference, or average.")
    eog: Literal["", "regression", "ica"] = Field("", description="Remove eye movements, by the EOG channels.")
    l_freq: float | None = Field(None, gt=0, description="Lower edge of the pass band, Hz.")
    h_freq: float | None = Field(None, gt=0, description="Upper edge of the pass band, Hz.")
    phase: Literal["zero", "causal"] = Field(
        "zero", description="Of the band-pass; zero carries the response back to before the onset, causal delays it."
    )
    notch: tuple[float, ...] = Field((), description="Line frequencies to remove, Hz.")
    sfreq: float | None = Field(None, gt=0, description="Sampling rate to resample to, Hz.")


class ArraySettings(Settings):
    """Trials that are cut already (data set `arrays`): an array and a table, or MNE's epochs."""

    signal: str = Field("trials.npz", description="File below data.root: .npz, .npy, .mat, or -epo.fif of MNE.")
    key: str = Field("", description="Name of the array in a .npz or .mat file; default: the only one of 3 dimensions.")
    table: str = Field("trials.csv", description="CSV or TSV below data.root, a row per trial; epochs have their own.")
    concept: str = Field("concept", description="Column of the concepts.")
    ch_names: tuple[str, ...] = Field((), description="Channels, in the order of the array.")
    sfreq: float = Field(0.0, ge=0, description="Sampling rate, Hz.")
    tmin: float = Field(0.0, description="Time of the first sample relative to image onset, s.")


class DataSettings(Settings):
    """Which trials."""

    name: Annotated[str, AfterValidator(Registered("data:DATASETS"))] = Field(
        "eeg-imagenet",
        description="Data set; recordings: EDF, BrainVision, FIF, ... described in --config.",
    )
    root: str = Field("data", description="Folder of the data set.")
    # numbers in TOML become their text
    subjects: tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...] = Field(
        (), description="Subjects, e.g. 0 or 0,3,5; -1: all."
    )
    granularity: Literal["coarse", "fine0", "fine1", "fine2", "fine3", "fine4", "all"] = Field(
        "all", description="Which trials of EEG-ImageNet."
    )
    unit: Literal["auto", "V", "mV", "uV"] = Field(
        "auto", description="Unit of the EEG in the files; auto: as the file says, CSV in µV, EEG-ImageNet in volts."
    )
    on_missing: Literal["error", "drop"] = Field("error", description="Trials whose image is missing.")
    pictures: str = Field("", description="Folder that holds imageNet_images, if not the data folder.")
    recording: RecordingSettings = RecordingSettings()
    array: ArraySettings = ArraySettings()

    @property
    def features_folder(self) -> Path:
        """Folder of the features in a run folder; each granularity has its own."""
        return Path("features") if self.granularity == "all" else Path("features", self.granularity)


class FeatureSettings(Settings):
    """Differential entropy per channel and band (verb `features`)."""

    method: Literal["gaussian", "eeg-imagenet"] = Field(
        "gaussian", description="Differential entropy; eeg-imagenet: as released."
    )
    bands: dict[str, tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]]] = Field(
        {}, description="Name -> edges of a band, Hz; default: delta to gamma, up to what the recordings hold."
    )
    tmin: float = Field(0.04, description="Seconds after image onset; sample 40 at the released 1 kHz.")
    tmax: float = Field(0.44, description="Seconds after image onset, exclusive.")

    @model_validator(mode="after")
    def _bands_have_width(self) -> FeatureSettings:
        for name, (low, high) in self.bands.items():
            if low >= high:
                raise ValueError(f"bands.{name}: the upper edge must lie above the lower one")
        return self


class CaptionSettings(Settings):
    """Images to words (verb `caption`)."""

    source: str = Field(
        "",
        description="class-names, a .txt of stimulus<TAB>caption, or a model such as BLIP (default: that of --family).",
    )
    recipe: Literal["default", "released"] = Field("default", description="Decoding; released: 20 beams, sampled.")


class EmbedSettings(Settings):
    """Captions and images to targets (verb `embed`)."""

    target: Annotated[str, AfterValidator(Registered("targets:TARGETS"))] = Field(
        "clip-text",
        description="Embeddings to predict. Stable Diffusion needs clip-text; others allow arms that retrieve.",
    )


class SplitSettings(Settings):
    """Which trials are training, validation and test trials."""

    protocol: Annotated[str, AfterValidator(Registered("data.splits:PROTOCOLS", also=("auto",)))] = Field(
        "auto", description="Evaluation split; auto: the first that the data allow."
    )
    test_fraction: float = Field(0.1, gt=0, lt=1, description="Share of each concept's stimuli (by-stimulus).")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="Share of the training stimuli, trials or subjects.")
    folds: int = Field(5, ge=2, description="Folds of kfold-by-stimulus, kfold-by-time and kfold-by-group.")
    gap: int = Field(10, ge=1, le=28, description="Trials dropped beside test trials (within-block-gap, by-time).")
    group: str = Field("run", description="Column whose values stay whole (kfold-by-group).")
    seed: int = Field(0, ge=0)
    accept_block_confound: bool = Field(
        False,
        description="Proceed although training and test set share recording blocks; results are marked as confounded.",
    )
    average_test: bool = Field(False, description="Average a subject's test trials of one image.")


# Widths and activation of the hidden layers of mlp_sd; a linear layer comes last. The published description has four
# layers, the released code three.
ARCHITECTURES: Mapping[str, tuple[tuple[int, ...], str]] = {
    "four-layer": ((512, 512, 512), "gelu"), "released": ((1024, 2048), "relu"),
}  # fmt: skip


class EncoderSettings(Settings):
    """EEG to embeddings (verb `train`)."""

    name: EncoderName = Field("mlp_sd", description="Encoder of embeddings.")
    parameters: dict[str, Any] = Field({}, description='Arguments of the encoder, e.g. input = "signal" of ridge.')
    recipe: Literal["default", "released"] = Field(
        "default", description="Training of mlp_sd; released: the released features, layers and optimiser, plain MSE."
    )
    conditions: Literal["posterior", "output"] = Field(
        "posterior",
        description="What generators get of a contrastive network: the posterior mean over the training targets, or "
        "its output, matched to their mean and scale.",
    )
    architecture: Literal["four-layer", "released"] = Field("four-layer", description="Layers of mlp_sd.")
    hidden: tuple[int, ...] = Field((), description="Widths of the hidden layers; empty: those of the architecture.")
    dropout: float = Field(0.5, ge=0, lt=1)
    input_dropout: float = Field(0.0, ge=0, lt=1)
    components: int = Field(64, ge=1, description="Principal components of the training targets.")
    token_weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        max_length=77,
        description="Weights of the tokens' squared errors; the last one holds for further tokens; empty: equal.",
    )
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(3.0, ge=0, description="Decoupled (AdamW); weak signals need a strong one.")
    mse: float = Field(1.0, ge=0, description="Weight of the squared error.")
    cosine: float = Field(0.0, ge=0, description="Weight of the cosine error around the mean target.")
    contrastive: float = Field(10.0, ge=0, description="Weight of the contrastive error.")
    temperature: float = Field(0.1, gt=0, description="Of the contrastive error, in units of the targets' deviation.")
    batch_size: int = Field(80, ge=2, description="Trials per training batch.")
    epochs: int = Field(200, ge=1)
    patience: int = Field(30, ge=1)
    seed: int = Field(0, ge=0)
    seeds: int = Field(
        1, ge=1, description="Trainings of a network per fold, for the spread of scores; the first predicts."
    )
    baselines: tuple[EncoderName, ...] = Field(
        (), description='Encoders to compare; "" for none (run, demo: ridge,mean).'
    )

    @model_validator(mode="after")
    def _has_a_loss(self) -> EncoderSettings:
        if self.mse == self.cosine == self.contrastive == 0:
            raise ValueError("one of mse, cosine and contrastive must be above 0")
        return self


class ClassifySettings(Settings):
    """EEG to concepts (verbs `classify` and `benchmark`)."""

    models: tuple[ClassifierName, ...] = Field(
        ("eegnet", "mlp", "rgnn", "ridge", "knn", "rf", "svm", "dt"), min_length=1, description="Classifiers."
    )
    recipe: Literal["default", "released"] = Field(
        "default",
        description="Training; released: as in the released code.",
    )
    eegnet: Literal["released", "paper"] = Field("released", description="Layer sizes of EEGNet.")
    rgnn_layout: Literal["channel-major", "scrambled"] = Field(
        "channel-major", description="Scrambled: the released view(-1, 5), an ablation."
    )
    domain_adaptation: bool = Field(False, description="RGNN: NodeDAT head; uses unlabelled test trials.")
    edge_penalty: float = Field(0.0, ge=0, description="RGNN: weight of the mean absolute edge weight in the loss.")
    pretrained: str = Field("", description="Initial weights: .safetensors, or with recipe released .pth.")
    batch_size: int = Field(80, ge=2)
    epochs: int = Field(300, ge=1)
    patience: int = Field(20, ge=1)
    diagnose_selection: bool = Field(False, description="Also report the biased accuracy of selection on test trials.")
    seed: int = Field(0, ge=0)


class ExecutionSettings(Settings):
    """Where networks run; never frozen, and recorded with what was made."""

    device: str = Field("auto", description="auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1 or mps.")
    precision: Precision = Field("auto", description="Precision of training; auto: mixed on CUDA, else float32.")


class BenchmarkSettings(Settings):
    """The table over models, granularities, protocols and subjects (verb `benchmark`)."""

    granularities: tuple[Literal["all", "coarse", "fine"], ...] = Field(
        (), description="Default: those in the data; fine: mean over fine0 to fine4."
    )
    protocols: tuple[ProtocolName, ...] = Field((), description="Evaluation splits, default that of [split].")
    permutations: int = Field(2000, ge=19)
    seed: int = Field(0, ge=0)


class GenerateSettings(Settings):
    """Predictions to images (verb `generate`)."""

    family: str = Field("bundled", description="bundled, sd14, or a folder like the bundled one.")
    generator: Annotated[str, AfterValidator(Registered("generation:GENERATORS"))] = Field(
        "stable-diffusion", description="Generator."
    )
    arms: tuple[Annotated[str, AfterValidator(Registered("generation.arms:ARMS"))], ...] = Field(
        ("eeg", "shuffled", "mean", "oracle"), min_length=1, description="Sources of images."
    )
    samples: int = Field(1, ge=1, description="Images per trial; the first is scored, of the arm best-of the best.")
    scheduler: Literal["dpm-solver++", "pndm", "ddim", "unipc", "lcm"] = Field(
        "dpm-solver++", description="Noise scheduler."
    )
    steps: int = Field(20, ge=1, description="Denoising steps.")
    guidance: float = Field(5.0, ge=0, description="Classifier-free guidance scale; 1 or less: none.")
    guidance_interval: tuple[Share, Share] = Field((0.0, 1.0), description="Share of the steps that are guided.")
    strength: Share = Field(0.8, description="Of arms that start from an image: share of the steps that change it.")
    negative: str = Field("", description="Negative prompt; empty: none.")
    size: int | None = Field(None, ge=8, le=8192, description="Pixels per side (default: the network's native size).")
    precision: Precision = Field("auto", description="auto: float16 on a GPU, float32 on a CPU.")
    preview: bool = Field(False, description="Decode with the family's TAESD: fast, somewhat blurred.")
    offload: bool = Field(False, description="Only the active network is on the GPU: for small cards.")
    compile: bool = Field(False, description="torch.compile the UNet: slow to start, for long runs on a GPU.")
    shard: int = Field(24, ge=1, le=4096, description="Images per batch; a killed run loses one batch at most.")
    scale: Literal["none", "token-norm", "affine"] = Field(
        "affine",
        description="Scaling of predictions; token-norm: to the norm of targets; affine: to their variance.",
    )
    max_trials: int | None = Field(None, ge=1, description="At most N test trials per subject, evenly over concepts.")
    seed: int = 42

    @model_validator(mode="after")
    def _check_together(self) -> GenerateSettings:
        if "best-of" in self.arms and self.samples < 2:
            raise ValueError(f"samples: the arm best-of needs 2 or more to choose from; got {self.samples}")
        if self.scheduler == "lcm" and self.steps > 50:
            raise ValueError(f"steps: the scheduler lcm takes up to 50; got {self.steps}")
        return self


class ControlsSettings(Settings):
    """Other explanations of the accuracy (verb `controls`)."""

    names: tuple[Annotated[str, AfterValidator(Registered("audit.controls.registry:CONTROLS"))], ...] = Field(
        (), description="Controls, default all."
    )
    permutations: int = Field(999, ge=19)
    repeats: int = Field(10, ge=1, description="Surrogates that an accuracy is averaged over.")
    seed: int = Field(0, ge=0)


class EvaluateSettings(Settings):
    """Images to scores (verb `evaluate`)."""

    judge: str = Field("bundled", description="Family of the CLIP that identifies images.")
    judge_anyway: bool = Field(False, description="Use the judge even if it does not recognise the seen images.")
    against: str = Field("", description="Folder of seen images: score those in --images against these.")
    pairs: str = Field("", description="CSV of pairs with the columns image and against (default: equal file names).")
    variant: Annotated[str, AfterValidator(Registered("audit.variants:VARIANTS"))] = Field(
        "mindeye", description="Published pipeline to follow."
    )
    metrics: tuple[Annotated[str, AfterValidator(Registered("evaluation.metrics:METRICS"))], ...] = Field(
        (),
        description="Feature-network metrics; missing weights are downloaded. Default: those with local weights.",
    )
    weights: str = Field("", description="Folder with weights of feature networks; empty: the usual caches.")
    n_way: int = Field(50, ge=2)
    permutations: int = Field(2000, ge=19)
    resamples: int = Field(2000, ge=100)
    resample: Literal["auto", "stimuli"] = Field(
        "auto", description="Unit of intervals; auto: subjects if many, else trials or blocks."
    )
    seed: int = Field(0, ge=0)


class RunSettings(Settings):
    """Every setting of a run: one section per stage, as in `run.toml`."""

    name: str = "run"
    simulate: SimulateSettings | None = None
    data: DataSettings = DataSettings()
    features: FeatureSettings = FeatureSettings()
    caption: CaptionSettings = CaptionSettings()
    embed: EmbedSettings = EmbedSettings()
    split: SplitSettings = SplitSettings()
    encoder: EncoderSettings = EncoderSettings()
    classify: ClassifySettings = ClassifySettings()
    benchmark: BenchmarkSettings = BenchmarkSettings()
    generate: GenerateSettings = GenerateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    controls: ControlsSettings = ControlsSettings()
    execution: ExecutionSettings = ExecutionSettings()
    family: str = Field("bundled", description="bundled, sd14, or a folder with blip, stable-diffusion, clip.")

    @property
    def of_trials(self) -> str:
        """Hash of the settings that decide on training and test trials and their features."""
        return fingerprint(self.simulate, self.data, self.features, self.split)


# Version of run.toml. Those of other versions are refused.
FORMAT = 2

# Verb -> sections of settings that it reads, verbs before it, and files that it leaves in the run folder (globs).
# The first verb that reads a setting freezes it; `fork` leaves behind what a change makes stale.
STEPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "simulate": (("simulate",), (), ("data/**/*",)),
    "features": (("data", "features"), ("simulate",), ("features/**/*",)),
    "split": (("data", "split"), ("simulate",), ("splits/**/*",)),
    "caption": (("data", "caption", "family"), ("simulate",), ("targets/caption.txt*",)),
    "embed": (("embed",), ("caption",), ("targets/*.npy*",)),
    "train": (("encoder", "split"), ("features", "embed", "split"), ("models/*",)),
    "predict": ((), ("train",), ("predictions/*",)),
    "generate": (("generate",), ("predict",), ("images/**/*", "generated_from_captions/*", "scores/per_image/*")),
    "evaluate": (("evaluate",), ("generate",), ("scores/*",)),
    "report": ((), ("evaluate",), ("report.html",)),
    "classify": (("classify", "split"), ("features", "split"), ("classification/**/*", "models/*/**/*")),
    "benchmark": (("benchmark", "split"), ("classify",), ()),
    "controls": (("controls", "split"), ("features", "split"), ()),
    "import": (("data",), (), ()),
}

# Settings of where and how fast a run executes: never frozen.
EXECUTION = frozenset({
    "name", "data.root", "data.pictures", "execution.device", "execution.precision", "generate.precision",
    "generate.shard", "generate.offload", "generate.compile", "evaluate.weights",
})  # fmt: skip
# Settings that may grow from verb to verb: they are in the paths of artifacts.
SCOPE = frozenset({
    "data.subjects", "encoder.baselines", "classify.models", "benchmark.protocols", "benchmark.granularities",
    "generate.arms", "generate.max_trials", "evaluate.metrics", "evaluate.judge_anyway", "controls.names",
})  # fmt: skip


def frozen_settings(settings: RunSettings, sections: Iterable[str]) -> dict[str, Any]:
    """Scientific settings of some sections by their dotted names."""
    values: dict[str, Any] = {}
    for section, content in settings.model_dump(mode="json", include={*sections}).items():
        named = content.items() if isinstance(content, dict) else ()
        values |= {f"{section}.{key}": value for key, value in named} or {section: content}
    return {name: value for name, value in values.items() if name not in EXECUTION | SCOPE}


def stale_after(before: RunSettings, after: RunSettings) -> set[str]:
    """Verbs whose artifacts a change of settings makes stale, directly or through earlier verbs."""
    stale: set[str] = set()
    for verb, (sections, earlier, _) in STEPS.items():
        if frozen_settings(before, sections) != frozen_settings(after, sections) or stale & {*earlier}:
            stale.add(verb)
    return stale


def help_text(setting: str) -> str:
    """Description of a setting, with its allowed values and its default."""
    section, _, key = setting.partition(".")
    model: Any = RunSettings.model_fields[section].annotation if key else RunSettings
    field = model.model_fields[key or section]
    annotation = get_args(field.annotation)[0] if isinstance(field.default, tuple) else field.annotation
    metadata = [*field.metadata, *getattr(annotation, "__metadata__", ())]
    names = [
        name for entry in metadata if isinstance(entry, AfterValidator) for name in cast(Registered, entry.func).names()
    ]
    choices = ", ".join(get_args(annotation) if get_origin(annotation) is Literal else names)
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    several = "One or several as a,b:" if isinstance(field.default, tuple) else "One of"
    texts = [field.description or "", f"{several} {choices}." if choices else ""]
    return " ".join(filter(None, [*texts, f"Default {default}." if default and default is not True else ""]))


def load_settings(path: Path | str | None, flags: Mapping[str, str] | None = None, **changes: Any) -> RunSettings:
    """Read settings from TOML and apply changes, None for none; errors name `flags` instead of settings."""
    raw: dict[str, Any] = {}
    try:
        if path is not None:
            raw = tomllib.loads(check_file(path, "the settings of a run as TOML").read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NeuroCanvasError(f"{path}: not valid TOML ({error}).") from error
    made_by, _ = raw.pop("format", None), raw.pop("used", None)
    root = raw.get("data", {}).get("root", "DATA") if isinstance(raw.get("data"), dict) else "DATA"
    other_format = NeuroCanvasError(
        f"{path}: a run folder of format {made_by or 1}, and this version reads format {FORMAT}; make it again in "
        f"another folder, e.g. `neurocanvas run -d {root} -o NEW`."
    )
    if made_by not in (None, FORMAT):
        raise other_format
    for source in (raw, changes):  # one switch for all that the released recipe sets
        encoder = source.get("encoder")
        if isinstance(encoder, dict) and encoder.get("recipe") == "released":
            features = source.get("features", {})
            source["features"] = {"method": "eeg-imagenet", **features} if isinstance(features, dict) else features
    for section, values in changes.items():
        before = raw.get(section, {})
        if not isinstance(values, dict):
            raw[section] = values
        elif isinstance(before, dict):  # anything else in a file is refused below
            raw[section] = before | {key: value for key, value in values.items() if value is not None}
    try:
        return RunSettings.model_validate(raw)
    except ValidationError as error:
        if made_by is None and path is not None and Path(path).name == "run.toml" and not changes.keys() & raw.keys():
            raise other_format from error
        first = error.errors()[0]
        place = [str(key) for key in first["loc"]]
        where = (flags or {}).get(".".join(place[:2]), f"{path or 'settings'}: {'.'.join(place)}")
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "literal_error":
            reason = f"allowed are {first['ctx']['expected']}"
        elif first["type"] == "string_type" and isinstance(first["input"], dict):
            key = f"{place[-1]}.{next(iter(first['input']), '')}"
            reason = f'a name with a dot needs quotes, as "{key}" = ...'
        elif first["type"] == "extra_forbidden":
            parent: Any = reduce(getattr, first["loc"][:-1], RunSettings(simulate=SimulateSettings()))  # type: ignore[arg-type]
            allowed = type(parent).model_fields
            near = [f"did you mean {name}? " for name in get_close_matches(place[-1], allowed, 1)]
            reason = f"no such setting; {''.join(near)}there are {', '.join(allowed)}"
        raise NeuroCanvasError(f"{where}: {reason}; got {first['input']!r}.") from error


def used_verbs(path: Path) -> tuple[str, ...]:
    """The verbs whose settings a run.toml has frozen; none without a file."""
    if not path.is_file():
        return ()
    load_settings(path)  # refuses what is damaged or of another format
    return tuple(tomllib.loads(path.read_text(encoding="utf-8")).get("used", ()))


def save_settings(settings: RunSettings, path: Path, used: Iterable[str] = ()) -> None:
    """Write all settings, defaults included, as TOML; `used` are the verbs that froze theirs."""
    import tomli_w

    head = {"format": FORMAT, "used": [*dict.fromkeys(used)]}
    write_text(path, tomli_w.dumps(head | settings.model_dump(mode="json", exclude_none=True)))
