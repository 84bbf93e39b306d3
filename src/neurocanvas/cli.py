"""The command line: it parses and calls. One verb per stage, `run` for all of them, `demo` for the bundled run."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neurocanvas import __version__
from neurocanvas.console import print_tables, progress_lines
from neurocanvas.errors import NeuroCanvasError, printable

if TYPE_CHECKING:
    from neurocanvas.config import DataSettings

DataFolder = Annotated[Path, typer.Option("-d", "--data", help="Folder of the data set.")]
Unit = Annotated[str, typer.Option("--unit", help="Unit of the signal in the file: auto, V, mV or uV.")]
Images = Annotated[str, typer.Option("--images", help="Folder that holds imageNet_images, if not the data folder.")]
Subjects = Annotated[str | None, typer.Option("-s", "--subject", help="Subjects, e.g. 0 or 0,3,5; -1 = all.")]
EngineName = Annotated[str, typer.Option("--engine", help="local, or ray for a cluster.")]
Address = Annotated[str, typer.Option("--address", help="Address of the cluster: auto, host:port or ray://host:port.")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, envvar="NEUROCANVAS_WORKERS", help="Tasks at once; 0: as many as fit.")
]
Threads = Annotated[
    int, typer.Option("--threads", min=0, envvar="NEUROCANVAS_THREADS", help="Threads per task; 0: what it needs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="Run folder.")]

app = typer.Typer(
    name="neurocanvas", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="EEG recorded while a person looks at images, turned into images, with honest scores.",
)  # fmt: skip


def read_subjects(text: str) -> list[str]:
    """Read the option --subject."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise NeuroCanvasError(f"--subject: a name, several as 0,3,5, or -1 for all; got {text!r}.")
    return [] if names == ["-1"] else names


@app.command("simulate")
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Data folder to make.")],
    design: Annotated[
        str, typer.Option(help="rapid (random order) or block (50 trials of one concept in a row).")
    ] = "rapid",
    subjects: Annotated[int, typer.Option(help="Number of subjects.")] = 1,
    concepts: Annotated[int, typer.Option(help="2 to 80; the first 18 are drawn, the others have no images.")] = 18,
    trials: Annotated[int, typer.Option(help="Images per concept.")] = 50,
    repeats: Annotated[int, typer.Option(help="How often each image is shown in a stage.")] = 1,
    stages: Annotated[int, typer.Option(help="2: subjects 0, 4, 6, 12 and 13 come back on another day.")] = 1,
    incomplete: Annotated[bool, typer.Option(help="Leave one block of the last subject out.")] = False,
    signal: Annotated[float, typer.Option(help="Single-trial explained variance; 0 = no brain response.")] = 0.05,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    as_json: Json = False,
) -> None:
    """Write EEG with known content in the layout of the released EEG-ImageNet."""
    from neurocanvas.artifacts import lock_run
    from neurocanvas.config import load_settings
    from neurocanvas.simulation.dataset import simulate as write_simulation

    asked = {
        "design": design, "subjects": subjects, "concepts": concepts, "trials_per_concept": trials, "repeats": repeats,
        "stages": stages, "incomplete": incomplete, "explained_variance": signal, "seed": seed,
    }  # fmt: skip
    settings = load_settings(None, simulate=asked).simulate
    if settings is None:
        raise TypeError("load_settings gave no section simulate.")
    with progress_lines(quiet=as_json) as track, lock_run(output, "simulate"):
        path = write_simulation(settings, output, progress=track("simulate", settings.n_trials))
    _print_paths([path], as_json)


@app.command("inspect")
def inspect_data(
    data: DataFolder, images: Images = "", unit: Unit = "auto", subject: Subjects = None, as_json: Json = False
) -> None:
    """Show what is in EEG-ImageNet files: subjects, sessions, blocks, concepts, unit, missing images."""
    from neurocanvas.data.inspect import describe, inspect_dataset

    report = inspect_dataset(_data_settings(subject, root=str(data), pictures=images, unit=unit))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        tables = [(title, list(rows[0]), [list(row.values()) for row in rows]) for title, rows in describe(report)]
        print_tables(tables, [])


@app.command("convert")
def convert(
    data: DataFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the converted store.")],
    unit: Unit = "auto",
    engine: EngineName = "local",
    address: Address = "",
    workers: Workers = 0,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Write EEG-ImageNet files as one memory-mapped array and a table, which open at once."""
    from neurocanvas.artifacts import lock_run
    from neurocanvas.data.store import convert as write_store
    from neurocanvas.parallel import NEEDS, make_engine

    settings = _data_settings(None, root=str(data), unit=unit)
    found = make_engine(engine, address, workers, threads)
    with progress_lines(quiet=as_json) as track, closing(found) as units, lock_run(output, "convert"):
        path = write_store(settings, output, spread=partial(units.map, needs=NEEDS["convert"]), track=track)
    _print_paths([path], as_json)


@app.command("pictures")
def pictures(
    data: DataFolder,
    source: Annotated[Path, typer.Option("--from", help="ImageNet: a folder, a tar, or a folder of tars.")],
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Copy the images that were shown from ImageNet into imageNet_images."""
    from neurocanvas.data import open_trials
    from neurocanvas.data.imagenet import import_pictures

    ids = sorted(set(open_trials(_data_settings(subject, root=str(data))).column("image").tolist()))
    with progress_lines(quiet=as_json) as track:
        missing = import_pictures(source, data, ids, progress=track("pictures", len(ids)))
    if as_json:
        typer.echo(json.dumps({"pictures": len(ids), "missing": missing}))
    else:
        shown = f"; missing: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}" if missing else ""
        typer.echo(printable(f"{len(ids) - len(missing)} of {len(ids)} images are there{shown}"))


def _data_settings(subject: str | None, **asked: str) -> DataSettings:
    """Settings of a data set without a run."""
    from neurocanvas.config import load_settings

    return load_settings(None, data={**asked, **_asked_subjects(subject)}).data


def _asked_subjects(subject: str | None) -> dict[str, Any]:
    """The setting that the option --subject changes, if it was given."""
    return {} if subject is None else {"subjects": read_subjects(subject)}


@app.command("export")
def export_files(
    output: OutputFolder,
    to: Annotated[Path, typer.Option("--to", help="Folder to write de_feat/ and output/ to.")],
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Write features, captions, embeddings and encoders of a run as the files that the released code reads."""
    from neurocanvas.config import load_settings
    from neurocanvas.pipeline.exchange import export
    from neurocanvas.pipeline.run import RunFolder

    run = RunFolder(output, load_settings(output / "run.toml", data=_asked_subjects(subject)))
    _print_paths(export(run, to, tell=lambda text: typer.echo(printable(text), err=True)), as_json)


@app.command("import")
def import_files(
    output: OutputFolder,
    source: Annotated[Path, typer.Option("--from", help="Folder with files of the released code.")],
    data: Annotated[str | None, typer.Option("-d", "--data", help="Folder of the data set.")] = None,
    granularity: Annotated[str | None, typer.Option("-g", "--granularity", help="Which trials.")] = None,
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Take captions, embeddings, features and encoders of the released code into a run folder."""
    from neurocanvas.artifacts import lock_run
    from neurocanvas.config import load_settings, save_settings, used_verbs
    from neurocanvas.pipeline.exchange import import_files as take
    from neurocanvas.pipeline.run import RunFolder

    there = output / "run.toml"
    asked = {name: value for name, value in (("root", data), ("granularity", granularity)) if value is not None}
    settings = load_settings(there if there.is_file() else None, data={**asked, **_asked_subjects(subject)})
    with lock_run(output, "import"):
        paths = take(RunFolder(output, settings), source)
        save_settings(settings, there, [*used_verbs(there), "import"])
    _print_paths(paths, as_json)


def _print_paths(paths: list[Path], as_json: bool) -> None:
    """Print what was written."""
    typer.echo(json.dumps({"wrote": [str(path) for path in paths]}) if as_json else "\n".join(map(printable, paths)))


@app.command("doctor")
def doctor(
    family: Annotated[str, typer.Option("--family", help="bundled, sd14, or a folder of your own.")] = "bundled",
    data: Annotated[Path | None, typer.Option("-d", "--data", help="Folder of a data set, for its images.")] = None,
    images: Images = "",
    as_json: Json = False,
) -> None:
    """List packages, devices, weights and missing images; no network."""
    from neurocanvas.doctor import describe, examine

    settings = None if data is None else _data_settings(None, root=str(data), pictures=images)
    report = examine(family, settings)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        print_tables(*describe(report))


@app.command("audit")
def audit(
    path: Annotated[Path, typer.Argument(help="A run folder, or a .csv or .parquet table of predictions.")],
    selection: Annotated[
        str, typer.Option(help="For a table: trials that selected epoch and model: validation, final, test or unknown.")
    ] = "unknown",
    transductive: Annotated[
        list[str] | None, typer.Option(help="For a table: a step that used test trials together; may be repeated.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="For a table: folder of the files that its column image names.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what can be concluded: what training and testing share, how weights were selected, chance, blocks."""
    from neurocanvas.pipeline.audit import audit as examine
    from neurocanvas.report.text import audited, verdict

    found = examine(path, selection=selection, transductive=transductive or (), pictures=images)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(printable(verdict(found)))
        print_tables(*audited(found))


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="A run folder, or another folder with artifacts.")],
    as_json: Json = False,
) -> None:
    """Compare every artifact with the sha256 in its sidecar, and name those that are damaged; other verbs do not."""
    from neurocanvas.artifacts import verify as compare
    from neurocanvas.errors import check_folder

    count, damaged = compare(check_folder(folder, "a run"))
    if not count and not damaged:
        raise NeuroCanvasError(f"{folder}: no artifacts here; name a run folder.")
    names = [path.relative_to(folder).as_posix() for path in damaged]
    if as_json:
        typer.echo(json.dumps({"artifacts": count, "damaged": names}))
    elif not damaged:
        typer.echo(printable(f"{folder}: {count} artifacts, none damaged (not checked: tables, scores, the data set)"))
    if damaged:
        raise NeuroCanvasError(
            f"{folder}: {len(damaged)} of {count} artifacts are damaged or missing: {', '.join(names)}; delete them "
            "and run the command that made them again."
        )


@app.command("fork")
def fork(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    new: Annotated[Path, typer.Argument(help="Folder of the copy.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A setting that differs, e.g. generate.steps=20; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a run under other settings: artifacts that stay valid are linked, the others are left to be made."""
    from neurocanvas.workflow import changed_settings
    from neurocanvas.workflow import fork as copy_run

    linked, stale = copy_run(folder, new, changed_settings(folder / "run.toml", changes or ()))
    if as_json:
        typer.echo(json.dumps({"wrote": [str(new)], "linked": linked, "to_make": sorted(stale)}))
    else:
        left = f"to make: {', '.join(sorted(stale))}" if stale else "nothing to make"
        typer.echo(printable(f"{new}: {linked} files linked, {left}; go on with neurocanvas run -o {new}"))


@app.command("cache")
def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Delete entries.")] = False,
    days: Annotated[float, typer.Option("--days", min=0, help="With --prune: only those older than this.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Show what the shared cache holds: captions, embeddings, features; or delete what is old."""
    from neurocanvas.artifacts import cache_files, cache_folder

    before = time.time() - 86400 * days
    counts: dict[str, list[int]] = {}
    for kind, paths in cache_files().items():
        counts[kind] = [len(paths), sum(path.stat().st_size for path in paths), 0]
        for path in (path for path in paths if prune and path.stat().st_mtime <= before):
            path.unlink(missing_ok=True)
            counts[kind][2] += 1
    if as_json:
        typer.echo(json.dumps({"folder": str(cache_folder()), "entries": counts}))
        return
    rows = [[kind, f"{n}", f"{size / 1e6:.1f}", f"{gone}"] for kind, (n, size, gone) in counts.items()]
    print_tables([(f"Shared cache, {cache_folder()}", ["kind", "entries", "MB", "deleted"], rows)], [])


# Name -> type, flags, the settings that it changes, help, in which {module:NAME} stands for the names in a registry.
OPTIONS: Mapping[str, tuple[type, tuple[str, ...], tuple[str, ...], str]] = {
    "data": (str, ("-d", "--data"), ("data.root",), "Folder of the data set."),
    "unit": (str, ("--unit",), ("data.unit",), "Unit of the signal in EEG-ImageNet files: auto, V, mV or uV."),
    "images": (str, ("--images",), ("data.pictures",), "Folder that holds imageNet_images, if not the data folder."),
    "dataset": (str, ("--dataset",), ("data.name",), "{data:DATASETS}."),
    "granularity": (str, ("-g", "--granularity"), ("data.granularity",), "coarse, fine0 ... fine4, or all."),
    "subject": (str, ("-s", "--subject"), ("data.subjects",), "Subjects, e.g. 0 or 0,3,5; -1 = all."),
    "method": (str, ("--method",), ("features.method",), "gaussian, or eeg-imagenet for the released formula."),
    "captions": (
        str, ("--source",), ("caption.source",),
        "class-names, a caption.txt, or an image-to-text model that needs no prompt; else the family's BLIP.",
    ),
    "decoding": (str, ("--recipe",), ("caption.recipe",), "default, or released: 20 beams, sampled."),
    "target": (str, ("--target",), ("embed.target",), "What encoders predict: {targets:TARGETS}."),
    "model": (str, ("-m", "--model"), ("encoder.name",), "Encoder of embeddings: {encoders:ENCODERS embedding}."),
    "baselines": (
        str, ("--baselines",), ("encoder.baselines",), 'Encoders trained and scored beside it: ridge,mean; or "".',
    ),
    "device": (str, ("--device",), ("execution.device",), "auto, cpu, cuda, cuda:1 or mps."),
    "precision": (
        str, ("--precision",), ("execution.precision", "generate.precision"), "auto, float32, float16 or bfloat16.",
    ),
    "batch": (int, ("-b", "--batch"), ("encoder.batch_size",), "Trials per training batch."),
    "classifiers": (
        str, ("-m", "--model"), ("classify.models",),
        "One or several as a,b: {encoders:ENCODERS concept}, braindecode:<model>.",
    ),
    "trials": (int, ("-b", "--batch"), ("classify.batch_size",), "Trials per training batch."),
    "recipe": (str, ("--recipe",), ("classify.recipe",), "default, or released: optimisers and epochs of that code."),
    "diagnose": (
        bool, ("--diagnose-selection/--no-diagnose-selection",), ("classify.diagnose_selection",),
        "Also show what choosing the epoch on test trials would report: a diagnostic, no result.",
    ),
    "pretrained": (str, ("-p", "--pretrained"), ("classify.pretrained",), "Weights that networks start from."),
    "protocol": (str, ("--protocol",), ("split.protocol",), "{data.splits:PROTOCOLS}."),
    "protocols": (str, ("--protocol",), ("benchmark.protocols",), "One or several as a,b: {data.splits:PROTOCOLS}."),
    "granularities": (str, ("-g", "--granularity"), ("benchmark.granularities",), "all, coarse, fine; or several."),
    "accept": (
        bool, ("--accept-block-confound",), ("split.accept_block_confound",),
        "Accept that accuracy is confounded with the recording block.",
    ),
    "shard": (int, ("-b", "--batch"), ("generate.shard",), "Images per batch."),
    "arms": (str, ("--arm",), ("generate.arms",), "One or several as a,b: {generation.arms:ARMS}."),
    "generator": (str, ("--generator",), ("generate.generator",), "{generation:GENERATORS}."),
    "scheduler": (str, ("--scheduler",), ("generate.scheduler",), "{generation.stable_diffusion:SCHEDULERS}."),
    "samples": (int, ("--samples",), ("generate.samples",), "Images per trial."),
    "size": (int, ("--size",), ("generate.size",), "Pixels per side; else what the network was trained at."),
    "preview": (bool, ("--preview/--no-preview",), ("generate.preview",), "Decode by TAESD: quick, somewhat blurred."),
    "steps": (int, ("--steps",), ("generate.steps",), "Denoising steps."),
    "guidance": (float, ("--guidance",), ("generate.guidance",), "Classifier-free guidance scale."),
    "pictures": (int, ("--pictures",), ("generate.max_trials",), "Test trials per subject, at most."),
    "against": (str, ("--against",), ("evaluate.against",), "Folder of seen images: score those in --images."),
    "pairs": (str, ("--pairs",), ("evaluate.pairs",), "CSV with the columns image and against; else equal names."),
    "variant": (str, ("--variant",), ("evaluate.variant",), "{audit.variants:VARIANTS}."),
    "metrics": (
        str, ("--metrics",), ("evaluate.metrics",),
        "Feature-network metrics, e.g. alexnet5,clip,dinov2, fetched if need be; else those whose weights are here.",
    ),
    "controls": (
        str, ("--control",), ("controls.names",), "Several as a,b: {audit.controls.registry:CONTROLS}; else all.",
    ),
    "family": (
        str, ("--family",), ("family", "generate.family", "evaluate.judge"),
        "bundled, sd14, or a folder with blip, stable-diffusion, clip.",
    ),
}  # fmt: skip

# Options of every verb that runs tasks: where, how many at once, with how many threads.
ENGINE: Mapping[str, tuple[Any, Any]] = {
    "engine": (EngineName, "local"), "address": (Address, ""), "workers": (Workers, 0), "threads": (Threads, 0),
}  # fmt: skip

WHERE = ("device", "precision")
DATA = ("data", "images", "unit", "dataset", "granularity", "subject")
# Verb -> its options beside --config, --output and --json.
VERBS: Mapping[str, tuple[str, ...]] = {
    "features": (*DATA, "method", "protocol"),
    "caption": (*DATA, "family", "captions", "decoding", "protocol", "device"),
    "embed": (*DATA, "family", "target", "protocol", "device"),
    "train": (*DATA, "model", "baselines", "batch", "protocol", "accept", *WHERE),
    "predict": (*DATA, "model", "protocol", "accept", *WHERE),
    "generate": (
        *DATA, "arms", "generator", "shard", "scheduler", "steps", "guidance", "samples", "size", "preview", "pictures",
        "family", *WHERE,
    ),
    "evaluate": (*DATA, "family", "against", "pairs", "variant", "metrics", "device"),
    "controls": (*DATA, "controls", "protocol", "accept"),
    "report": (),
    "classify": (
        *DATA, "method", "classifiers", "trials", "recipe", "diagnose", "pretrained", "protocol", "accept", *WHERE,
    ),
    "benchmark": (
        *(name for name in DATA if name != "granularity"), "method", "granularities", "classifiers", "recipe",
        "diagnose", "protocols", "accept", *WHERE,
    ),
    "run": (
        *DATA, "method", "model", "baselines", "batch", "protocol", "accept", "steps", "guidance", "pictures",
        "family", *WHERE,
    ),
    "demo": WHERE,
}  # fmt: skip

HELP: Mapping[str, str] = {
    "features": "Differential entropy of five bands, for every trial.",
    "caption": "Describe every image in words (BLIP).",
    "embed": "Encode every caption as (77, 768) (CLIP text encoder); or captions or images as one vector each.",
    "train": "Train an encoder of embeddings on every subject and fold.",
    "classify": "Train classifiers: which concept did the person see?",
    "benchmark": "Train every classifier on every granularity and subject; make the paper's table.",
    "predict": "Predict the embedding of every test trial.",
    "generate": "Draw images from predictions and controls (Stable Diffusion).",
    "evaluate": "Score the images, with chance, intervals and p-values.",
    "controls": "Ask what else could explain the accuracy: block, drift, noise, repeated images.",
    "report": "Make report.html.",
    "run": "Run every stage that the settings describe, from data to report.",
    "demo": "Run every stage on simulated EEG with the bundled networks; a few minutes on a laptop.",
}


# Verb -> the file of scores whose content is printed.
SCORES: Mapping[str, str] = {
    **dict.fromkeys(("run", "demo", "evaluate"), "summary.json"),
    "classify": "classification.json", "benchmark": "benchmark.json", "controls": "controls.json",
}  # fmt: skip


@app.callback(invoke_without_command=True)
def _first(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never touch the network; weights that are not here are an error.")
    ] = False,
) -> None:
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported, which is later
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _add_verb(verb: str) -> None:
    """Give the app a command whose options are those that `VERBS` lists."""
    default_folder: Any = Path("runs/demo") if verb == "demo" else inspect.Parameter.empty
    fixed: dict[str, tuple[Any, Any]] = {
        "config": (
            Annotated[Path | None, typer.Option("-c", "--config", help="Settings as TOML; else run.toml.")],
            None,
        ),
        "output": (OutputFolder, default_folder),
        "as_json": (Json, False),
    }
    if verb != "report":
        fixed |= ENGINE
    shown = {verb, "--help"} <= {*sys.argv}  # only this verb's help pays for the import of registries
    for name in VERBS[verb]:
        kind, flags, _, text = OPTIONS[name]
        text = re.sub(r"\{(.*?)\}", lambda m: _rows(*m[1].split()) if shown else "a name", text)
        fixed[name] = (Annotated[kind | None, typer.Option(*flags, help=text)], None)  # type: ignore[operator]
    command: Any = partial(_call, verb)
    command.__annotations__ = {name: annotation for name, (annotation, _) in fixed.items()}
    command.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in fixed.items()
        ]
    )
    app.command(verb, help=HELP[verb])(command)


def _rows(registry: str, kind: str = "") -> str:
    """Names of the rows of a registry; of encoders those of a kind."""
    rows = resolve_name(f"neurocanvas.{registry}").items()
    return ", ".join(name for name, row in rows if not kind or getattr(row, kind))


def _call(verb: str, config: Path | None, output: Path, as_json: bool, **options: Any) -> None:
    """Resolve the settings, run the stages, print what came out."""
    from neurocanvas.config import DEMO, load_settings
    from neurocanvas.parallel import IN_PROCESS, make_engine
    from neurocanvas.pipeline.run import RunFolder
    from neurocanvas.workflow import run_all, run_stage

    if verb == "demo":
        config = config or DEMO
    elif config is None and (output / "run.toml").is_file():
        config = output / "run.toml"
    engine = [options.pop(name) for name in ENGINE if name in options]
    changes: dict[str, Any] = {}
    for name, value in options.items():
        for section, _, key in (where.partition(".") for where in OPTIONS[name][2]):
            if value is not None and key:
                changes.setdefault(section, {})[key] = LISTS[name](value) if name in LISTS else value
            elif value is not None:
                changes[section] = value
    settings = load_settings(config, **changes)
    if verb in ("run", "demo") and options.get("baselines") is None and not settings.encoder.baselines:
        with_baselines = settings.encoder.model_copy(update={"baselines": ("ridge", "mean")})
        settings = settings.model_copy(update={"encoder": with_baselines})
    workers = make_engine(*engine) if engine else IN_PROCESS
    with progress_lines(quiet=as_json) as track, closing(workers) as units:
        run = RunFolder(output, settings, track, units)
        paths = [run_all(run)] if verb in ("run", "demo") else run_stage(run, verb)
    scores = None
    if verb in SCORES:
        scores = json.loads((output / "scores" / SCORES[verb]).read_text(encoding="utf-8"))
    elif verb == "train":
        from neurocanvas.artifacts import read_sidecar
        from neurocanvas.pipeline.train import training_table

        scores = training_table([read_sidecar(path) for path in paths])
    if as_json:
        typer.echo(json.dumps({"wrote": [str(path) for path in paths], "scores": scores}))
        return
    if scores is not None:
        from neurocanvas.report.text import shown, verdict

        tables, notes = shown(verb, scores)
        if verb in ("run", "demo"):
            audit = json.loads((output / "scores" / "audit.json").read_text(encoding="utf-8"))
            notes.append(("Verdict", verdict(audit)))
        print_tables(tables, notes)
    for path in paths:
        typer.echo(printable(str(path)))


for _verb in VERBS:
    _add_verb(_verb)


def _names(text: str) -> list[str]:
    """Read "mlp" or "mlp,svm"."""
    return [part.strip() for part in text.split(",") if part.strip()]


# Options that take several values, and what reads them.
LISTS: Mapping[str, Callable[[str], list[Any]]] = {
    "subject": read_subjects,
    **dict.fromkeys(("arms", "metrics", "controls", "classifiers", "protocols", "granularities", "baselines"), _names),
}  # fmt: skip


# Exit codes; the last is what a shell gives where Ctrl-C ends a program.
BAD_INPUT, BUG, INTERRUPTED = 2, 1, 130

# What to do about an error of the operating system.
REMEDIES: Mapping[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space, or name another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or name another file or folder"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "rename what is in the way, or name another folder"),
}
NETWORK_ERRORS = {
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED,
    errno.ETIMEDOUT,
}  # fmt: skip
NETWORK_PACKAGES = {"requests", "urllib3", "httpx", "httpcore", "huggingface_hub", "socket", "ssl"}


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for library in ("TRANSFORMERS", "DIFFUSERS"):  # they warn while they are imported
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    guarded(lambda: app(standalone_mode=False))


def guarded(call: Callable[[], object]) -> None:
    """Call a command: what a user can cause ends as one line and exit code 2, a bug as a traceback and 1."""
    try:
        code = call()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            sys.exit(int(str(code)))
    except KeyboardInterrupt:
        _end(INTERRUPTED, "interrupted; the same command goes on from what is finished.")
    except BrokenPipeError:  # the reader closed the pipe, as `head` does; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BUG)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(str(error))  # the help, unless it was printed in colours before
            sys.exit(BAD_INPUT)
        message = user_error(error)
        if message is None:
            raise
        _end(BAD_INPUT, message)


def user_error(error: Exception) -> str | None:
    """Say in one line what went wrong and what to do; None for a bug."""
    text = str(error)
    if isinstance(error, NeuroCanvasError):
        return text
    if isinstance(error, UnicodeEncodeError):  # of an argument that is not UTF-8
        return f"{error.object!r:.200}: names and paths must be UTF-8; got another byte."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return "not enough memory; use smaller batches (-b) or fewer --workers, or close other programs."
    if is_network_error(error):
        what = text or type(error).__name__
        return f"network: {what}; check the connection, or use weights that are here (--offline)."
    if isinstance(error, OSError):
        remedy = REMEDIES.get(error.errno or 0, "check the file and its folder")
        return f"{error.filename or 'file'}: {error.strerror or text}; {remedy}."
    if hasattr(error, "format_message"):  # typer's, about options: from a click of its own, so not our class
        context = getattr(error, "ctx", None)
        usage = f"; see {context.command_path} --help" if context is not None else ""
        return f"{error.format_message().rstrip('.')}{usage}."
    return None


def is_network_error(error: BaseException | None) -> bool:
    """Tell a failed connection from a failed disk: libraries derive both from OSError, or wrap one in the other."""
    while error is not None:
        kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.split(".")[0] in NETWORK_PACKAGES}
        number = error.errno if isinstance(error, OSError) else None
        failed = any(word in name for name in kinds for word in ("Connect", "Timeout", "Proxy", "SSL", "gaierror"))
        if failed or isinstance(error, ConnectionError | TimeoutError) or number in NETWORK_ERRORS:
            return True
        error = error.__cause__
    return False


def _end(code: int, message: str) -> None:
    """Print one line on stderr and exit."""
    sys.stderr.write(f"neurocanvas: {printable(' '.join(message.split()))}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
