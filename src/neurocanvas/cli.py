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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neurocanvas import __version__
from neurocanvas.console import print_tables, progress_lines
from neurocanvas.errors import NeuroCanvasError, printable

if TYPE_CHECKING:
    from neurocanvas.config import DataSettings

DataFolder = Annotated[Path, typer.Option("-d", "--data", help="Folder of the data set.")]
Unit = Annotated[str, typer.Option("--unit", help="Unit of the EEG in the file: auto, V, mV or uV.")]
Images = Annotated[str, typer.Option("--images", help="Folder that holds imageNet_images, if not the data folder.")]
Subjects = Annotated[str | None, typer.Option("-s", "--subject", help="Subjects, e.g. 0 or 0,3,5; -1: all.")]
EngineName = Annotated[str, typer.Option("--engine", help="local, or ray for a cluster.")]
Address = Annotated[str, typer.Option("--address", help="Address of the cluster: auto, host:port or ray://host:port.")]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=0, envvar="NEUROCANVAS_WORKERS",
        help="Parallel worker processes; 0: as many as cores, memory and GPUs allow.",
    ),
]  # fmt: skip
Threads = Annotated[
    int,
    typer.Option("--threads", min=0, envvar="NEUROCANVAS_THREADS", help="CPU threads per worker; 0: stage's default."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="Run folder.")]

app = typer.Typer(
    name="neurocanvas", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Reconstruct the images a person saw from their EEG, with the controls and statistics that show what was "
    "decoded.",
)  # fmt: skip


def read_names(text: str) -> list[str]:
    """Read "mlp" or "mlp,svm"."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_subjects(text: str | None) -> list[str] | None:
    """Read the option --subject."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise NeuroCanvasError(f"--subject: allowed are a name, several as 0,3,5, or -1 for all; got {text!r}.")
    return [] if names == ["-1"] else names


@app.command("simulate")
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Data folder to make.")],
    design: Annotated[
        str, typer.Option(help="rapid (random order) or block (all trials of a concept in a row).")
    ] = "rapid",
    subjects: Annotated[int, typer.Option(help="Number of subjects.")] = 1,
    concepts: Annotated[int, typer.Option(help="2 to 80; only the first 18 have images.")] = 18,
    trials: Annotated[int, typer.Option(help="Images per concept.")] = 50,
    repeats: Annotated[int, typer.Option(help="How often each image is shown in a stage.")] = 1,
    stages: Annotated[int, typer.Option(help="2: subjects 0, 4, 6, 12 and 13 return on another day.")] = 1,
    incomplete: Annotated[bool, typer.Option(help="Leave one block of the last subject out.")] = False,
    response: Annotated[str, typer.Option(help="induced: images change band power; evoked: phase; mixed.")] = "induced",
    signal: Annotated[float, typer.Option(help="Variance of one trial that images explain; 0: none.")] = 0.05,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    as_json: Json = False,
) -> None:
    """Write EEG with known content in the layout of the released EEG-ImageNet."""
    from neurocanvas.artifacts import lock_run
    from neurocanvas.config import load_settings
    from neurocanvas.report.text import decodability
    from neurocanvas.simulation.dataset import simulate as write_simulation
    from neurocanvas.simulation.decodability import measure

    options = {
        "design": design, "subjects": subjects, "concepts": concepts, "trials_per_concept": trials, "repeats": repeats,
        "stages": stages, "incomplete": incomplete, "response": response, "explained_variance": signal, "seed": seed,
    }  # fmt: skip
    renamed = {"trials_per_concept": "trials", "explained_variance": "signal"}
    flags = {f"simulate.{name}": f"--{renamed.get(name, name)}" for name in options}
    settings = load_settings(None, flags, simulate=options).simulate
    if settings is None:
        raise TypeError("load_settings gave no section simulate.")
    with progress_lines(quiet=as_json) as track, lock_run(output, "simulate"):
        path = write_simulation(settings, output, progress=track("simulate", settings.n_trials))
        measured = measure(output, settings)
    if as_json:
        typer.echo(json.dumps({"wrote": [str(path)], "decodability": measured}))
    else:
        print_tables([], [("Simulation", line) for line in decodability(measured)])
        _print_paths([path], as_json)


@app.command("inspect")
def inspect_data(
    data: Annotated[Path | None, typer.Option("-d", "--data", help="Folder of the data set.")] = None,
    config: Annotated[Path | None, typer.Option("-c", "--config", help="Settings, as init writes.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="eeg-imagenet, recordings, arrays ...")] = None,
    images: Images = "",
    unit: Unit = "auto",
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Summarise a data set: subjects, sessions, blocks, concepts, unit, dropped events, missing images."""
    from neurocanvas.config import load_settings
    from neurocanvas.data.inspect import describe, inspect_dataset
    from neurocanvas.report.text import warned

    if data is None and config is None:
        raise NeuroCanvasError("inspect: a folder (-d) or a file of settings (-c) is needed.")
    given = {"pictures": images or None, "unit": None if unit == "auto" else unit, "name": dataset}
    settings = {"root": None if data is None else str(data), "subjects": read_subjects(subject), **given}
    report = inspect_dataset(load_settings(config, data=settings).data)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        tables = [(title, list(rows[0]), [list(row.values()) for row in rows]) for title, rows in describe(report)]
        print_tables(tables, warned(report["findings"]))


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings (BIDS or any other), or one file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Settings to write.")] = Path("recordings.toml"),
    unit: Unit = "auto",
    as_json: Json = False,
) -> None:
    """Look into recordings and write settings with which their trials can be classified."""
    from neurocanvas.artifacts import write_text
    from neurocanvas.data.init import look_into, propose

    if output.exists():
        raise NeuroCanvasError(f"{output}: it is there already, and is not overwritten; name another file with -o.")
    tables, runs, values = look_into(folder, unit)
    if not as_json:
        print_tables(tables, [])
    trials, content = propose(folder, runs, values, unit)
    write_text(output, content)
    if as_json:
        named = [*tables, *trials]
        rows = {title: [dict(zip(header, row, strict=True)) for row in lines] for title, header, lines in named}
        typer.echo(json.dumps({"wrote": [str(output)], **rows}))
        return
    print_tables(trials, [])
    typer.echo(printable(f"{output}; next: neurocanvas classify -c {output} -o runs/first -m ridge,svm"))


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
    """Convert EEG-ImageNet files to one memory-mapped array and a table, which open instantly."""
    from neurocanvas.artifacts import lock_run
    from neurocanvas.data.store import convert as write_store
    from neurocanvas.parallel import NEEDS, make_engine

    settings = _data_settings(data, unit=unit)
    with (
        progress_lines(quiet=as_json) as track,
        closing(make_engine(engine, address, workers, threads)) as pool,
        lock_run(output, "convert"),
    ):
        path = write_store(settings, output, spread=partial(pool.map, needs=NEEDS["convert"]), track=track)
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

    ids = sorted(set(open_trials(_data_settings(data, subject)).column("image").tolist()))
    with progress_lines(quiet=as_json) as track:
        missing = import_pictures(source, data, ids, progress=track("pictures", len(ids)))
    if len(missing) == len(ids):
        raise NeuroCanvasError(
            f"--from {source}: has none of the {len(ids)} images, such as {missing[0]}; name the folder that holds "
            "<wnid>/<image id>, or a tar."
        )
    if as_json:
        typer.echo(json.dumps({"pictures": len(ids), "missing": missing}))
    else:
        shown = f"; missing: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}" if missing else ""
        typer.echo(printable(f"{len(ids) - len(missing)} of {len(ids)} images are available{shown}"))


def _data_settings(data: Path, subject: str | None = None, **options: str) -> DataSettings:
    """Settings of a data set without a run."""
    from neurocanvas.config import load_settings

    return load_settings(None, data={"root": str(data), "subjects": read_subjects(subject), **options}).data


@app.command("export")
def export_files(
    output: OutputFolder,
    to: Annotated[Path, typer.Option("--to", help="Folder to write de_feat/ and output/ to.")],
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Write features, captions, embeddings and encoders of a run as files for the released code."""
    from neurocanvas.config import load_settings
    from neurocanvas.pipeline.exchange import export
    from neurocanvas.pipeline.run import RunFolder

    run = RunFolder(output, load_settings(output / "run.toml", data={"subjects": read_subjects(subject)}))
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
    """Import captions, embeddings, features and encoders of the released code into a run folder."""
    from neurocanvas.artifacts import lock_run
    from neurocanvas.config import load_settings, save_settings, used_verbs
    from neurocanvas.pipeline.exchange import import_files as take
    from neurocanvas.pipeline.run import RunFolder

    path = output / "run.toml"
    options = {"root": data, "granularity": granularity, "subjects": read_subjects(subject)}
    settings = load_settings(path if path.is_file() else None, data=options)
    with lock_run(output, "import"):
        paths = take(RunFolder(output, settings), source)
        save_settings(settings, path, [*used_verbs(path), "import"])
    _print_paths(paths, as_json)


def _print_paths(paths: list[Path], as_json: bool) -> None:
    """Print what was written."""
    typer.echo(json.dumps({"wrote": [str(path) for path in paths]}) if as_json else "\n".join(map(printable, paths)))


@app.command("doctor")
def doctor(
    family: Annotated[str, typer.Option("--family", help="bundled, sd14, or your own folder.")] = "bundled",
    data: Annotated[Path | None, typer.Option("-d", "--data", help="Data set whose images are looked for.")] = None,
    images: Images = "",
    as_json: Json = False,
) -> None:
    """List packages, devices, weights and missing images, without network access."""
    from neurocanvas.doctor import describe, examine

    report = examine(family, None if data is None else _data_settings(data, pictures=images))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        print_tables(*describe(report))


@app.command("audit")
def audit(
    path: Annotated[Path, typer.Argument(help="A run folder, a table of predictions, or a matrix (.npy, .pt, .csv).")],
    selection: Annotated[
        str, typer.Option(help="For a table: trials used for model selection: validation, final, test or unknown.")
    ] = "unknown",
    transductive: Annotated[
        list[str] | None, typer.Option(help="For a table: a step that used test trials jointly; may be repeated.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="For a table: folder of the files that its column image names.")
    ] = None,
    names: Annotated[Path | None, typer.Option(help="For a matrix: a file with one true name per row.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="For a matrix: a file with one name per column.")] = None,
    leaky: Annotated[
        Path | None, typer.Option(help="Results of the same subjects with leakage, to compare: a table or run folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check which conclusions are supported: overlap of the sets, model selection, chance, blocks."""
    from neurocanvas.pipeline.audit import audit as examine
    from neurocanvas.report.text import audited, verdict

    report = examine(
        path, selection=selection, transductive=transductive or (), pictures=images, names=names, gallery=gallery,
        leaky=leaky,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report))
    else:
        for line in verdict(report).splitlines():
            typer.echo(printable(line))
        print_tables(*audited(report))


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="A run folder, or another folder with artifacts.")],
    as_json: Json = False,
) -> None:
    """Compare every artifact with the sha256 in its sidecar, and list damaged ones."""
    from neurocanvas.artifacts import verify as compare
    from neurocanvas.errors import check_folder

    count, damaged = compare(check_folder(folder, "a run"))
    if not count and not damaged:
        raise NeuroCanvasError(f"{folder}: it holds no artifacts; name a run folder.")
    names = [path.relative_to(folder).as_posix() for path in damaged]
    if as_json:
        typer.echo(json.dumps({"artifacts": count, "damaged": names}))
    elif not damaged:
        typer.echo(printable(f"{folder}: {count} artifacts, none damaged (not checked: tables, scores, the data set)"))
    if damaged:
        raise NeuroCanvasError(
            f"{folder}: {len(damaged)} of {count} artifacts are damaged or missing: {', '.join(names)}; delete them "
            "and run their command again."
        )


@app.command("fork")
def fork(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    new: Annotated[Path, typer.Argument(help="Folder of the copy.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A changed setting, e.g. generate.steps=20; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a run with changed settings: valid artifacts are linked, the others are made by the next run."""
    from neurocanvas.workflow import changed_settings
    from neurocanvas.workflow import fork as copy_run

    linked, stale = copy_run(folder, new, changed_settings(folder / "run.toml", changes or ()))
    if as_json:
        typer.echo(json.dumps({"wrote": [str(new)], "linked": linked, "to_make": sorted(stale)}))
    else:
        left = f"to make: {', '.join(sorted(stale))}" if stale else "nothing to make"
        typer.echo(printable(f"{new}: {linked} files linked, {left}; continue with neurocanvas run -o {new}"))


@app.command("cache")
def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Delete entries.")] = False,
    days: Annotated[float, typer.Option("--days", min=0, help="With --prune: only entries older than this.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Show the shared cache of captions, embeddings and features, or delete old entries."""
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


# Option -> flags, the settings that it changes (the first one describes it), type; a list is written as a,b.
OPTIONS: Mapping[str, tuple[str, str, type]] = {
    "data": ("-d --data", "data.root", str),
    "unit": ("--unit", "data.unit", str),
    "images": ("--images", "data.pictures", str),
    "dataset": ("--dataset", "data.name", str),
    "missing": ("--on-missing", "data.on_missing", str),
    "granularity": ("-g --granularity", "data.granularity", str),
    "subject": ("-s --subject", "data.subjects", list),
    "method": ("--method", "features.method", str),
    "captions": ("--source", "caption.source", str),
    "decoding": ("--recipe", "caption.recipe", str),
    "target": ("--target", "embed.target", str),
    "model": ("-m --model", "encoder.name", str),
    "training": ("--recipe", "encoder.recipe", str),
    "seeds": ("--seeds", "encoder.seeds", int),
    "baselines": ("--baselines", "encoder.baselines", list),
    "device": ("--device", "execution.device", str),
    "precision": ("--precision", "execution.precision generate.precision", str),
    "batch": ("-b --batch", "encoder.batch_size", int),
    "classifiers": ("-m --model", "classify.models", list),
    "trials": ("-b --batch", "classify.batch_size", int),
    "recipe": ("--recipe", "classify.recipe", str),
    "diagnose": ("--diagnose-selection", "classify.diagnose_selection", bool),
    "pretrained": ("-p --pretrained", "classify.pretrained", str),
    "protocol": ("--protocol", "split.protocol", str),
    "protocols": ("--protocol", "benchmark.protocols", list),
    "granularities": ("-g --granularity", "benchmark.granularities", list),
    "accept": ("--accept-block-confound", "split.accept_block_confound", bool),
    "shard": ("-b --batch", "generate.shard", int),
    "arms": ("--arm", "generate.arms", list),
    "generator": ("--generator", "generate.generator", str),
    "scheduler": ("--scheduler", "generate.scheduler", str),
    "samples": ("--samples", "generate.samples", int),
    "size": ("--size", "generate.size", int),
    "preview": ("--preview/--no-preview", "generate.preview", bool),
    "steps": ("--steps", "generate.steps", int),
    "guidance": ("--guidance", "generate.guidance", float),
    "max_trials": ("--pictures --max-trials", "generate.max_trials", int),
    "against": ("--against", "evaluate.against", str),
    "pairs": ("--pairs", "evaluate.pairs", str),
    "variant": ("--variant", "evaluate.variant", str),
    "metrics": ("--metrics", "evaluate.metrics", list),
    "judge_anyway": ("--judge-anyway", "evaluate.judge_anyway", bool),
    "controls": ("--control", "controls.names", list),
    "family": ("--family", "family generate.family evaluate.judge", str),
}

DATA = "data images unit dataset granularity subject missing"
TRAINED = "model training seeds baselines batch protocol accept"
# Verb -> its help, and its options beside --config, --output, --json and those of `ENGINE`.
VERBS: Mapping[str, tuple[str, str]] = {
    "features": ("Compute the differential entropy of five bands for every trial.", f"{DATA} method protocol"),
    "caption": ("Describe every image in words (BLIP).", f"{DATA} family captions decoding protocol device"),
    "embed": (
        "Encode captions as (77, 768) (CLIP text encoder), or captions or images as one vector each.",
        f"{DATA} family target protocol device",
    ),
    "train": ("Train an encoder of embeddings on every subject and fold.", f"{DATA} {TRAINED} device precision"),
    "predict": ("Predict the embedding of every test trial.", f"{DATA} model protocol accept device precision"),
    "generate": (
        "Draw images from predictions and controls (Stable Diffusion).",
        f"{DATA} arms generator shard scheduler steps guidance samples size preview max_trials family device precision",
    ),
    "evaluate": (
        "Score the images, with chance, intervals and p-values.",
        f"{DATA} family against pairs variant metrics judge_anyway device",
    ),
    "controls": (
        "Test other explanations of the accuracy: block, drift, noise, repeated images.",
        f"{DATA} controls protocol accept",
    ),
    "report": ("Make report.html.", ""),
    "classify": (
        "Train classifiers of the seen concept.",
        f"{DATA} method classifiers trials recipe diagnose pretrained protocol accept device precision",
    ),
    "benchmark": (
        "Train every classifier on every granularity and subject; make the paper's table.",
        "data images unit dataset subject missing method granularities classifiers recipe diagnose protocols accept "
        "device precision",
    ),
    "run": (
        "Run every stage from data to report.",
        f"{DATA} method {TRAINED} steps guidance max_trials judge_anyway family device precision",
    ),
    "demo": ("Run every stage on simulated EEG with the bundled networks: minutes on a laptop.", "device precision"),
}
# Options of every verb that runs tasks.
ENGINE: Mapping[str, tuple[Any, Any]] = {
    "engine": (EngineName, "local"), "address": (Address, ""), "workers": (Workers, 0), "threads": (Threads, 0),
}  # fmt: skip
# Verb -> the file of scores whose content is printed.
SCORES: Mapping[str, str] = {
    **dict.fromkeys(("run", "demo", "evaluate"), "summary.json"),
    "classify": "classification.json", "benchmark": "benchmark.json", "controls": "controls.json",
}  # fmt: skip


@app.callback(invoke_without_command=True)
def _first(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="No network access; missing weights are an error.")
    ] = False,
) -> None:
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported, which is later
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _add_verb(verb: str) -> None:
    """Add a command whose options are those that `VERBS` lists."""
    settings_file = typer.Option(
        "-c", "--config", help="TOML file with settings (default: run.toml in the run folder)."
    )
    parameters: dict[str, tuple[Any, Any]] = {
        "config": (Annotated[Path | None, settings_file], None),
        "output": (OutputFolder, Path("runs/demo") if verb == "demo" else inspect.Parameter.empty),
        "as_json": (Json, False),
        **({} if verb == "report" else ENGINE),
    }
    text, options = VERBS[verb]
    describe: Callable[[str], str] = str
    if {verb, "--help"} <= {*sys.argv}:  # settings and registries are imported for this verb's help only
        from neurocanvas.config import help_text as describe
    for name in options.split():
        flags, settings, kind = OPTIONS[name]
        option = typer.Option(*flags.split(), help=describe(settings.split()[0]))
        parameters[name] = (Annotated[(str if kind is list else kind) | None, option], None)
    command: Any = partial(_call, verb)
    command.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
    command.__signature__ = inspect.Signature([
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in parameters.items()
    ])  # fmt: skip
    app.command(verb, help=text)(command)


def _call(verb: str, config: Path | None, output: Path, as_json: bool, **options: Any) -> None:
    """Load the settings, run the stages, print the scores."""
    from neurocanvas.config import DEMO, load_settings
    from neurocanvas.parallel import IN_PROCESS, make_engine
    from neurocanvas.pipeline.run import RunFolder
    from neurocanvas.workflow import run_all, run_stage

    if config is None:
        config = DEMO if verb == "demo" else output / "run.toml"
        config = config if config.is_file() else None
    engine = [options.pop(name) for name in ENGINE if name in options]
    changes: dict[str, Any] = {}
    flags = {}
    for name in (name for name, value in options.items() if value is not None):
        option, changed, kind = OPTIONS[name]
        read = read_subjects if name == "subject" else read_names
        value = read(options[name]) if kind is list else options[name]
        for setting in changed.split():
            flags[setting] = option.split()[-1]
            section, _, key = setting.partition(".")
            if key:
                changes.setdefault(section, {})[key] = value
            else:
                changes[section] = value
    settings = load_settings(config, flags, **changes)
    if verb in ("run", "demo") and options.get("baselines") is None and not settings.encoder.baselines:
        with_baselines = settings.encoder.model_copy(update={"baselines": ("ridge", "mean")})
        settings = settings.model_copy(update={"encoder": with_baselines})
    with progress_lines(quiet=as_json) as track, closing(make_engine(*engine) if engine else IN_PROCESS) as pool:
        run = RunFolder(output, settings, track, pool)
        paths = [run_all(run)] if verb in ("run", "demo") else run_stage(run, verb)
    scores = None
    if verb in SCORES:
        scores = json.loads((output / "scores" / SCORES[verb]).read_text(encoding="utf-8"))
    elif verb in ("train", "embed"):
        from neurocanvas.artifacts import read_sidecar
        from neurocanvas.findings import listed, read_findings
        from neurocanvas.pipeline.train import training_table

        sidecars = [read_sidecar(path) for path in paths]
        scores = training_table(sidecars)
        if verb == "embed":
            scores = {"findings": listed(row for of in sidecars for row in read_findings(of.get("findings", [])))}
    if as_json:
        typer.echo(json.dumps({"wrote": [str(path) for path in paths], "scores": scores}))
        return
    if scores is not None:
        from neurocanvas.report.text import decodability, shown, verdict

        tables, notes = shown(verb, scores)
        if verb in ("run", "demo"):
            audit = json.loads((output / "scores" / "audit.json").read_text(encoding="utf-8"))
            notes += [("Verdict", line) for line in verdict(audit).splitlines()]
            if settings.simulate:
                measured = json.loads((output / "data" / "decodability.json").read_text(encoding="utf-8"))
                notes += [("Simulation", line) for line in decodability(measured)]
        print_tables(tables, notes)
    _print_paths(paths, as_json)


for _verb in VERBS:
    _add_verb(_verb)


# Exit codes; the last one is a shell's after Ctrl-C.
BAD_INPUT, BUG, INTERRUPTED = 2, 1, 130

# What to do about an error of the operating system.
REMEDIES: Mapping[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space, or name another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or name another file or folder"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "rename the file in the way, or name another folder"),
}
NETWORK_ERRORS = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)  # of which Python makes no ConnectionError
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
        _end(INTERRUPTED, "interrupted; run the same command again to resume.")
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
        return f"network: {text or type(error).__name__}; check the connection, or use local weights (--offline)."
    if isinstance(error, OSError):
        remedy = REMEDIES.get(error.errno or 0, "check the file and its folder")
        return f"{error.filename or 'file'}: {error.strerror or text}; {remedy}."
    if hasattr(error, "format_message"):  # typer's, about options: from a click of its own, so not our class
        context = getattr(error, "ctx", None)
        usage = f"; see {context.command_path} --help" if context is not None else ""
        return f"{error.format_message().rstrip('.')}{usage}."
    return None


def is_network_error(error: BaseException | None) -> bool:
    """Whether a connection failed, not a disk: libraries derive both from OSError, or wrap one in the other."""
    while error is not None:
        kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.split(".")[0] in NETWORK_PACKAGES]
        failed = re.search("Connect|Timeout|Proxy|SSL|gaierror", " ".join(kinds))
        if failed or isinstance(error, ConnectionError | TimeoutError) or getattr(error, "errno", 0) in NETWORK_ERRORS:
            return True
        error = error.__cause__
    return False


def _end(code: int, message: str) -> None:
    """Print one line on stderr and exit."""
    sys.stderr.write(f"neurocanvas: {printable(' '.join(message.split()))}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
