"""Every setting of a run: frozen, typed, unknown keys refused, read from and written to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import partial, reduce
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from neurocanvas.artifacts import fingerprint, write_text
from neurocanvas.errors import NeuroCanvasError, check_file

# The settings of the bundled run.
DEMO = Path(__file__).parent / "bundled" / "demo.toml"

Share = Annotated[float, Field(ge=0, le=1)]
Granularity = Literal["coarse", "fine0", "fine1", "fine2", "fine3", "fine4", "all"]


def _in_registry(where: str, name: str, kind: str = "") -> str:
    """Accept the keys of a registry, "module:name", that is imported on use; for encoders only those of a kind."""
    # python:<class> is an encoder that a script passed to `reconstruct`
    allowed = [key for key, row in resolve_name(where).items() if not kind or getattr(row, kind)]
    if name not in allowed and not (kind and name.startswith(("braindecode:", "python:"))):
        raise ValueError(f"allowed are {', '.join(allowed)}{', braindecode:<model>' if kind else ''}")
    return name


ProtocolName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.data.splits:PROTOCOLS"))]
DatasetName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.data:DATASETS"))]
EncoderName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.encoders:ENCODERS", kind="embedding"))]
ClassifierName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.encoders:ENCODERS", kind="concept"))]
TargetName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.targets:TARGETS"))]
GeneratorName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.generation:GENERATORS"))]
ArmName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.generation.arms:ARMS"))]
MetricName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.evaluation.metrics:METRICS"))]
VariantName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.audit.variants:VARIANTS"))]
ControlName = Annotated[str, AfterValidator(partial(_in_registry, "neurocanvas.audit.controls.registry:CONTROLS"))]
# Numbers in TOML become their text.
SubjectName = Annotated[str, Field(coerce_numbers_to_str=True)]


class Settings(BaseModel):
    """What all settings share: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# Subject id in the stage-2 file of EEG-ImageNet -> the subject of stage 1 who came back.
STAGE2_SUBJECTS: Mapping[int, int] = {16: 4, 17: 12, 18: 0, 19: 13, 20: 6}


class SimulateSettings(Settings):
    """Simulated EEG-ImageNet files (verb `simulate`)."""

    design: Literal["rapid", "block"] = "rapid"
    subjects: int = Field(1, ge=1)
    concepts: int = Field(18, ge=2, le=80)
    trials_per_concept: int = Field(50, ge=2, description="different images of every concept")
    repeats: int = Field(1, ge=1, description="how often every image is shown in a stage")
    stages: int = Field(1, ge=1, le=2, description="2: subjects 0, 4, 6, 12 and 13 come back on another day")
    incomplete: bool = Field(
        False, description="the last subject lacks the trials of one concept in stage 1, as one released subject does"
    )
    explained_variance: float = Field(
        0.05,
        ge=0.0,
        le=1.0,
        description="share of a trial's log band power variance that images explain, mean over channels and bands",
    )
    seed: int = Field(0, ge=0)

    @property
    def n_trials(self) -> int:
        of_concept = self.trials_per_concept * self.repeats
        back = sum(subject < self.subjects for subject in STAGE2_SUBJECTS.values()) if self.stages == 2 else 0
        return (self.subjects + back) * self.concepts * of_concept - self.incomplete * of_concept


class RecordingSettings(Settings):
    """How to cut trials out of continuous recordings (data set `recordings`): one file is one run."""

    files: str = Field("**/*.csv", description="glob below data.root: Muse CSV, or what MNE reads")
    rename: dict[str, str] = Field({}, description="channel name in the file -> name to use")
    channels: tuple[str, ...] = Field((), description="channels to keep, by their new names; empty = all EEG")
    events: dict[str, dict[str, str]] = Field(
        {},
        description="source (marker column, stim channel, or 'annotations') -> value in the file -> part of "
        "the stimulus id; '' = no image onset. The first source marks onsets, the others are read there",
    )
    stimulus: str = Field("{annotations}", description="stimulus id: a format string over `events`")
    pictures: str = Field("gratings", description="'gratings' (drawn), or the folder of imageNet_images")
    tmin: float = Field(-0.5, description="s, relative to image onset")
    tmax: float = Field(1.0, description="s, exclusive")
    high_pass: float | None = Field(None, gt=0, description="Hz; causal: nothing leaks to before the onset")
    low_pass: float | None = Field(None, gt=0, description="Hz; causal")


class DataSettings(Settings):
    """Which trials."""

    name: DatasetName = "eeg-imagenet"
    root: str = "data"
    subjects: tuple[SubjectName, ...] = Field((), description="names; empty = all")
    granularity: Granularity = "all"
    unit: Literal["auto", "V", "mV", "uV"] = Field(
        "auto", description="of eeg_data in EEG-ImageNet files; auto accepts volts of a plausible size"
    )
    pictures: str = Field("", description="folder that holds imageNet_images; empty = root")
    recording: RecordingSettings = RecordingSettings()

    @property
    def features_folder(self) -> Path:
        """Folder of the features in a run folder; each granularity has its own."""
        return Path("features") if self.granularity == "all" else Path("features", self.granularity)


class FeatureSettings(Settings):
    """Differential entropy per channel and band (verb `features`)."""

    method: Literal["gaussian", "eeg-imagenet"] = "gaussian"
    tmin: float = Field(0.04, description="s after image onset; 40 samples of the released 1 kHz")
    tmax: float = Field(0.44, description="s, exclusive")


class CaptionSettings(Settings):
    """Images to words (verb `caption`)."""

    source: str = Field(
        "",
        description="empty = the family's BLIP; class-names; a .txt of stimulus<TAB>caption; or a folder or hub id of "
        "an image-to-text model that needs no prompt (BLIP, BLIP-2, GIT)",
    )
    recipe: Literal["default", "released"] = Field(
        "default", description="released: 20 beams, sampled at temperature .5, repetition penalty 2"
    )


class EmbedSettings(Settings):
    """Captions and images to targets (verb `embed`)."""

    target: TargetName = Field(
        "clip-text",
        description="what encoders predict: the hidden states of captions (77, 768), which Stable Diffusion takes; a "
        "caption as one vector; or the image's CLIP embedding. With the last two the arms that retrieve are drawn",
    )


class SplitSettings(Settings):
    """Which trials train, validate and test."""

    protocol: ProtocolName = "by-stimulus"
    test_fraction: float = Field(0.1, gt=0, lt=1, description="of each concept's stimuli (by-stimulus)")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="of the training stimuli, trials or subjects")
    folds: int = Field(5, ge=2, description="parts into which each concept's stimuli are dealt (kfold-by-stimulus)")
    gap: int = Field(
        10, ge=1, le=28, description="trials dropped before the test part of every block (within-block-gap)"
    )
    seed: int = Field(0, ge=0)
    accept_block_confound: bool = False
    average_test: bool = Field(
        False, description="average the features of a subject's test trials that show one image, as if one trial"
    )


# Widths and activation of the hidden layers of mlp_sd; a linear layer comes last. The published description has four
# layers, the released code three.
ARCHITECTURES: Mapping[str, tuple[tuple[int, ...], str]] = {
    "four-layer": ((512, 512, 512), "gelu"), "released": ((1024, 2048), "relu"),
}  # fmt: skip


class EncoderSettings(Settings):
    """EEG to embeddings (verb `train`)."""

    name: EncoderName = Field(
        "mlp_sd", description="a name in encoders.ENCODERS, or braindecode:<name of a model there>"
    )
    parameters: dict[str, Any] = Field({}, description='of the encoder, by name, e.g. input = "signal" of ridge')
    architecture: Literal["four-layer", "released"] = Field("four-layer", description="layers of mlp_sd: ARCHITECTURES")
    hidden: tuple[int, ...] = Field((), description="widths of the hidden layers; empty = those of the architecture")
    dropout: float = Field(0.5, ge=0, lt=1)
    input_dropout: float = Field(0.0, ge=0, lt=1)
    components: int = Field(64, ge=1, description="principal coordinates of the training targets")
    token_weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        max_length=77,
        description="of every token's squared error, from the first; the last one given holds for all that follow; "
        "empty = all alike",
    )
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(3.0, ge=0, description="decoupled (AdamW); weak signals need a strong one")
    mse: float = Field(1.0, ge=0, description="weight of the squared error")
    cosine: float = Field(0.0, ge=0, description="weight of the cosine error around the mean target")
    contrastive: float = Field(10.0, ge=0, description="weight of the contrastive error")
    temperature: float = Field(0.1, gt=0, description="of the contrastive error, in units of the targets' spread")
    batch_size: int = Field(80, ge=2)
    epochs: int = Field(200, ge=1)
    patience: int = Field(30, ge=1)
    seed: int = Field(0, ge=0)
    baselines: tuple[EncoderName, ...] = Field((), description="encoders that are trained and scored beside it")

    @model_validator(mode="after")
    def _has_a_loss(self) -> EncoderSettings:
        if self.mse == self.cosine == self.contrastive == 0:
            raise ValueError("one of mse, cosine and contrastive must be above 0")
        return self


class ClassifySettings(Settings):
    """EEG to concepts (verbs `classify` and `benchmark`)."""

    models: tuple[ClassifierName, ...] = Field(
        ("eegnet", "mlp", "rgnn", "ridge", "knn", "rf", "svm", "dt"),
        min_length=1,
        description="names in encoders.ENCODERS, or braindecode:<name of a model there>",
    )
    recipe: Literal["default", "released"] = Field(
        "default",
        description="released: optimisers, penalties and 1000 epochs of the released code, nothing standardised",
    )
    eegnet: Literal["released", "paper"] = Field("released", description="layer sizes of EEGNet")
    rgnn_layout: Literal["channel-major", "scrambled"] = Field(
        "channel-major", description="scrambled: the released view(-1, 5) of band-major features, an ablation"
    )
    domain_adaptation: bool = Field(
        False, description="rgnn: NodeDAT head, which sees the test trials without their labels (transductive)"
    )
    edge_penalty: float = Field(0.0, ge=0, description="rgnn: weight of the mean absolute edge weight in the loss")
    pretrained: str = Field(
        "", description="weights that networks start from: a .safetensors of ours, or with recipe released a .pth"
    )
    batch_size: int = Field(80, ge=2)
    epochs: int = Field(300, ge=1)
    patience: int = Field(20, ge=1)
    diagnose_selection: bool = Field(
        False, description="also report the accuracy that selecting on test trials would give: a diagnostic, no result"
    )
    seed: int = Field(0, ge=0)


class ExecutionSettings(Settings):
    """Where networks run; never frozen, and recorded with what was made."""

    device: str = Field("auto", description="auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="of training: auto is mixed on CUDA, float32 elsewhere; predictions are made in float32"
    )


class BenchmarkSettings(Settings):
    """The table over models, granularities, protocols and subjects (verb `benchmark`)."""

    granularities: tuple[Literal["all", "coarse", "fine"], ...] = Field(
        (), description="empty = those that the data have; fine is the mean over fine0 to fine4"
    )
    protocols: tuple[ProtocolName, ...] = Field((), description="empty = the one of [split]")
    permutations: int = Field(2000, ge=19)
    seed: int = Field(0, ge=0)


class GenerateSettings(Settings):
    """Predictions to images (verb `generate`)."""

    family: str = Field(
        "bundled", description="a name in targets.pretrained.FAMILIES, or a folder like the bundled one"
    )
    generator: GeneratorName = Field("stable-diffusion", description="a name in generation.GENERATORS")
    arms: tuple[ArmName, ...] = Field(("eeg", "shuffled", "mean", "oracle"), min_length=1)
    samples: int = Field(1, ge=1, description="images per trial; the first is scored, or of the arm best-of the best")
    scheduler: Literal["dpm-solver++", "pndm", "ddim", "unipc", "lcm"] = "dpm-solver++"
    steps: int = Field(20, ge=1)
    guidance: float = Field(5.0, ge=0, description="classifier-free guidance scale; 1 or less is none")
    guidance_interval: tuple[Share, Share] = Field((0.0, 1.0), description="guide in this part of the steps only")
    strength: Share = Field(
        0.8, description="of arms that start from an image: the share of the steps that are drawn over it"
    )
    negative: str = Field("", description="text that guidance leads away from; empty = none")
    size: int | None = Field(None, ge=8, le=8192, description="px; else what the network was trained at")
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="float16 on a GPU, float32 on a CPU"
    )
    preview: bool = Field(False, description="decode by the family's TAESD: quick and somewhat blurred")
    offload: bool = Field(False, description="keep on the GPU only the network that is at work: for small cards")
    compile: bool = Field(False, description="torch.compile the UNet: minutes at the start, for long runs on a GPU")
    shard: int = Field(
        24, ge=1, le=4096, description="images at once, if memory holds them, and the unit of resumable work"
    )
    scale: Literal["none", "token-norm", "affine"] = Field(
        "affine",
        description="of predictions: as they are; every token as long as training targets are there; or stretched "
        "around the mean target until they vary as much as targets do",
    )
    max_trials: int | None = Field(None, ge=1, description="images per subject and arm; spread evenly over concepts")
    seed: int = 42

    @model_validator(mode="after")
    def _check_together(self) -> GenerateSettings:
        if "best-of" in self.arms and self.samples < 2:
            raise ValueError(f"samples: 2 or more are needed, among which the arm best-of chooses; got {self.samples}")
        if self.scheduler == "lcm" and self.steps > 50:
            raise ValueError(f"steps: the scheduler lcm takes up to 50; got {self.steps}")
        return self


class ControlsSettings(Settings):
    """What else could explain the accuracy (verb `controls`)."""

    names: tuple[ControlName, ...] = Field((), description="names in audit.controls.registry.CONTROLS; empty = all")
    permutations: int = Field(999, ge=19)
    repeats: int = Field(10, ge=1, description="surrogates that an accuracy is averaged over")
    seed: int = Field(0, ge=0)


class EvaluateSettings(Settings):
    """Images to scores (verb `evaluate`)."""

    judge: str = "bundled"
    against: str = Field(
        "", description="folder of seen images: score the images in data.pictures against these, not a run's"
    )
    pairs: str = Field("", description="CSV that says which belong together: image, against; empty = of one name")
    variant: VariantName = Field("mindeye", description="whose sizes, layers and counting: audit.variants.VARIANTS")
    metrics: tuple[MetricName, ...] = Field(
        (),
        description="of feature networks: names in evaluation.metrics.METRICS, whose weights may be fetched; empty = "
        "those whose weights are here",
    )
    weights: str = Field("", description="folder with weights of feature networks; empty = the usual caches")
    n_way: int = Field(50, ge=2)
    permutations: int = Field(2000, ge=19)
    resamples: int = Field(2000, ge=100)
    resample: Literal["auto", "stimuli"] = Field(
        "auto", description="by intervals: subjects if there are many, else trials or blocks; or a subject's stimuli"
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
    family: str = Field("bundled", description="captioner and text encoder")

    @property
    def of_trials(self) -> str:
        """Fingerprint of all settings that decide which trials train and test, and their features."""
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

# Settings that say where, how fast and on what: they are never frozen.
EXECUTION = frozenset({
    "name", "data.root", "data.pictures", "execution.device", "execution.precision", "generate.precision",
    "generate.shard", "generate.offload", "generate.compile", "evaluate.weights",
})  # fmt: skip
# Settings that may grow from verb to verb: artifacts have them in their paths.
SCOPE = frozenset({
    "data.subjects", "encoder.baselines", "classify.models", "benchmark.protocols", "benchmark.granularities",
    "generate.arms", "generate.max_trials", "evaluate.metrics", "controls.names",
})  # fmt: skip


def frozen_settings(settings: RunSettings, sections: Iterable[str]) -> dict[str, Any]:
    """Scientific settings of some sections by their dotted names."""
    found: dict[str, Any] = {}
    for section in dict.fromkeys(sections):
        value = getattr(settings, section)
        if isinstance(value, BaseModel):
            found |= {f"{section}.{key}": one for key, one in value.model_dump(mode="json").items()}
        else:
            found[section] = value
    return {name: value for name, value in found.items() if name not in EXECUTION | SCOPE}


def stale_after(before: RunSettings, after: RunSettings) -> set[str]:
    """Verbs whose artifacts a change of settings makes stale, those that build on them included."""
    stale: set[str] = set()
    for verb, (sections, before_it, _) in STEPS.items():  # in the order in which they build on one another
        if frozen_settings(before, sections) != frozen_settings(after, sections) or stale & {*before_it}:
            stale.add(verb)
    return stale


def load_settings(path: Path | str | None, **changes: Any) -> RunSettings:
    """Read a run's settings from TOML."""
    raw: dict[str, Any] = {}
    try:
        if path is not None:
            raw = tomllib.loads(check_file(path, "the settings of a run as TOML").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NeuroCanvasError(f"{path}: not valid TOML ({error}).") from error
    made_by, _ = raw.pop("format", None), raw.pop("used", None)
    if made_by != FORMAT and (made_by is not None or (path is not None and Path(path).name == "run.toml")):
        root = raw.get("data", {}).get("root", "DATA") if isinstance(raw.get("data"), dict) else "DATA"
        raise NeuroCanvasError(
            f"{path}: a run folder of format {made_by or 1}, and this version reads format {FORMAT}; make it again in "
            f"another folder, e.g. `neurocanvas run -d {root} -o NEW`."
        )
    for section, values in changes.items():
        there = raw.get(section, {})
        if not isinstance(values, dict):
            raw[section] = values
        elif isinstance(there, dict):  # anything else in a file is refused below
            raw[section] = {**there, **values}
    try:
        return RunSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            there = reduce(getattr, first["loc"][:-1], RunSettings(simulate=SimulateSettings()))  # type: ignore[arg-type]
            reason = f"no such setting; there are {', '.join(type(there).model_fields)}"
        raise NeuroCanvasError(f"{path or 'settings'}: {where}: {reason}; got {first['input']!r}.") from error


def used_verbs(path: Path) -> tuple[str, ...]:
    """The verbs whose settings a run.toml has frozen; none where there is no file."""
    if not path.is_file():
        return ()
    load_settings(path)  # refuses what is damaged or of another format
    return tuple(tomllib.loads(path.read_text(encoding="utf-8")).get("used", ()))


def save_settings(settings: RunSettings, path: Path, used: Iterable[str] = ()) -> None:
    """Write all settings, defaults included, as TOML; `used` are the verbs that froze theirs."""
    import tomli_w

    head = {"format": FORMAT, "used": [*dict.fromkeys(used)]}
    write_text(path, tomli_w.dumps(head | settings.model_dump(mode="json", exclude_none=True)))
