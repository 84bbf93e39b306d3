"""The verbs that are not stages of a run: data, files of the released code, audits, the machine."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.printing import progress_lines
from neurocanvas.safe_text import printable
from neurocanvas.store import hold

if TYPE_CHECKING:
    from neurocanvas.config import DataSettings

DataFolder = Annotated[Path, typer.Option("-d", "--data", help="Folder of the data set.")]
Unit = Annotated[str, typer.Option("--unit", help="Of the signal in the file: auto, V, mV or uV.")]
Images = Annotated[str, typer.Option("--images", help="Folder that holds imageNet_images, if not the data folder.")]
Subjects = Annotated[str | None, typer.Option("-s", "--subject", help="Subjects, e.g. 0 or 0,3,5; -1 = all.")]
EngineName = Annotated[str, typer.Option("--engine", help="local, or ray for a cluster.")]
Address = Annotated[str, typer.Option("--address", help="Of the cluster: auto, host:port or ray://host:port.")]
Workers = Annotated[
    int, typer.Option("--workers", envvar="NEUROCANVAS_WORKERS", help="Units at once; 0 = as many as there is room.")
]
Threads = Annotated[
    int, typer.Option("--threads", envvar="NEUROCANVAS_THREADS", help="Of each unit; 0 = as many as it needs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def read_subjects(text: str) -> list[int]:
    """Read the option --subject."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise NeuroCanvasError(f"--subject: a number, several as 0,3,5, or -1 for all; got {text!r}.") from error
    return [] if numbers == [-1] else numbers


def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Data folder to make.")],
    design: Annotated[
        str, typer.Option(help="rapid (random order) or block (50 trials of one concept in a row).")
    ] = "rapid",
    subjects: Annotated[int, typer.Option(help="How many.")] = 1,
    concepts: Annotated[int, typer.Option(help="2 to 80; the first 18 are drawn, the others have no pictures.")] = 18,
    trials: Annotated[int, typer.Option(help="Pictures per concept.")] = 50,
    repeats: Annotated[int, typer.Option(help="How often each picture is shown in a stage.")] = 1,
    stages: Annotated[int, typer.Option(help="2: subjects 0, 4, 6, 12 and 13 come back on another day.")] = 1,
    incomplete: Annotated[bool, typer.Option(help="Leave one block of the last subject out.")] = False,
    signal: Annotated[float, typer.Option(help="Single-trial explained variance; 0 = no brain response.")] = 0.05,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write EEG with known content in the layout of the released EEG-ImageNet."""
    from neurocanvas.config import load_settings
    from neurocanvas.datasets.simulated import simulate as write_simulation

    asked = {
        "design": design, "subjects": subjects, "concepts": concepts, "trials_per_concept": trials, "repeats": repeats,
        "stages": stages, "incomplete": incomplete, "explained_variance": signal, "seed": seed,
    }  # fmt: skip
    settings = load_settings(None, simulate=asked).simulate
    if settings is None:
        raise TypeError("load_settings gave no section simulate.")
    with progress_lines(quiet=as_json) as track, hold(output, "simulate"):
        path = write_simulation(settings, output, progress=track("simulate", settings.n_trials))
    typer.echo(json.dumps({"wrote": [str(path)]}) if as_json else printable(path))


def inspect_data(
    data: DataFolder, images: Images = "", unit: Unit = "auto", subject: Subjects = None, as_json: Json = False
) -> None:
    """Say what is in EEG-ImageNet files: subjects, sessions, blocks, concepts, unit, missing pictures."""
    from neurocanvas.datasets.inspection import inspect_dataset
    from neurocanvas.printing import print_inspection

    report = inspect_dataset(_data_settings(subject, root=str(data), pictures=images, unit=unit))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        print_inspection(report)


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
    """Write EEG-ImageNet files as one memory-mapped array and a table, which open in a moment."""
    from neurocanvas.datasets.converted import convert as write_store
    from neurocanvas.scale import NEEDS, make_engine

    settings = _data_settings(None, root=str(data), unit=unit)
    found = make_engine(engine, address, workers, threads)
    with progress_lines(quiet=as_json) as track, closing(found) as units, hold(output, "convert"):
        path = write_store(settings, output, spread=partial(units.map, needs=NEEDS["convert"]), track=track)
    typer.echo(json.dumps({"wrote": [str(path)]}) if as_json else printable(path))


def pictures(
    data: DataFolder,
    source: Annotated[Path, typer.Option("--from", help="ImageNet: a folder, a tar, or a folder of tars.")],
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Copy the pictures that the data set showed out of ImageNet, into imageNet_images."""
    from neurocanvas.datasets import open_dataset
    from neurocanvas.datasets.imagenet import import_pictures

    ids = open_dataset(_data_settings(subject, root=str(data)))[1].ids
    with progress_lines(quiet=as_json) as track:
        missing = import_pictures(source, data, ids, progress=track("pictures", len(ids)))
    if as_json:
        typer.echo(json.dumps({"pictures": len(ids), "missing": missing}))
    else:
        shown = f"; missing: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}" if missing else ""
        typer.echo(printable(f"{len(ids) - len(missing)} of {len(ids)} pictures are there{shown}"))


def _data_settings(subject: str | None, **asked: str) -> DataSettings:
    """Settings of a data set without a run."""
    from neurocanvas.config import load_settings

    return load_settings(None, data={**asked, **_asked_subjects(subject)}).data


def _asked_subjects(subject: str | None) -> dict[str, Any]:
    """The setting that the option changes, if it is given."""
    return {} if subject is None else {"subjects": read_subjects(subject)}


RunFolder = Annotated[Path, typer.Option("-o", "--output", help="Run folder.")]


def export_files(
    output: RunFolder,
    to: Annotated[Path, typer.Option("--to", help="Folder to write de_feat/ and output/ to.")],
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Write features, captions, embeddings and mappers of a run as the files that the released code reads."""
    from neurocanvas.config import load_settings
    from neurocanvas.stages.exchange import export
    from neurocanvas.stages.run import Run

    run = Run(output, load_settings(output / "run.toml", data=_asked_subjects(subject)))
    _print_paths(export(run, to, tell=lambda text: typer.echo(printable(text), err=True)), as_json)


def import_files(
    output: RunFolder,
    source: Annotated[Path, typer.Option("--from", help="Folder with files of the released code.")],
    data: Annotated[str | None, typer.Option("-d", "--data", help="Folder of the data set.")] = None,
    granularity: Annotated[str | None, typer.Option("-g", "--granularity", help="Of the trials.")] = None,
    subject: Subjects = None,
    as_json: Json = False,
) -> None:
    """Take captions, embeddings, features and mappers of the released code into a run folder."""
    from neurocanvas.config import load_settings, save_settings
    from neurocanvas.stages.exchange import import_files as take
    from neurocanvas.stages.run import Run

    there = output / "run.toml"
    asked = {name: value for name, value in (("root", data), ("granularity", granularity)) if value is not None}
    settings = load_settings(there if there.is_file() else None, data={**asked, **_asked_subjects(subject)})
    with hold(output, "import"):
        paths = take(Run(output, settings), source)
        save_settings(settings, there)
    _print_paths(paths, as_json)


def _print_paths(paths: list[Path], as_json: bool) -> None:
    """Say what was written."""
    typer.echo(json.dumps({"wrote": [str(path) for path in paths]}) if as_json else "\n".join(map(printable, paths)))


def doctor(
    family: Annotated[str, typer.Option("--family", help="bundled, sd14, or a folder of one's own.")] = "bundled",
    data: Annotated[Path | None, typer.Option("-d", "--data", help="Folder of a data set, for its pictures.")] = None,
    images: Images = "",
    as_json: Json = False,
) -> None:
    """List packages, devices, weights and missing pictures; no network."""
    from neurocanvas.config import load_settings
    from neurocanvas.doctor import describe, examine
    from neurocanvas.printing import print_tables

    settings = None if data is None else load_settings(None, data={"root": str(data), "pictures": images}).data
    report = examine(family, settings)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        print_tables(*describe(report))


def audit(
    path: Annotated[Path, typer.Argument(help="A run folder, or a .csv or .parquet table of predictions.")],
    selection: Annotated[
        str, typer.Option(help="Of a table: which trials selected epoch and model: validation, final, test or unknown.")
    ] = "unknown",
    transductive: Annotated[
        list[str] | None, typer.Option(help="Of a table: a step that used test trials together; may be repeated.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Of a table: folder of the files that its column picture names.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what can be concluded: what training and testing share, how weights were selected, chance, the block."""
    from neurocanvas.printing import print_tables
    from neurocanvas.stages.auditing import audit as examine
    from neurocanvas.stages.auditing import describe

    found = examine(path, selection=selection, transductive=transductive or (), pictures=images)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(printable(found["verdict"]))
        print_tables(*describe(found))


def verify(
    folder: Annotated[Path, typer.Argument(help="A run folder, or another folder with artifacts.")],
    as_json: Json = False,
) -> None:
    """Compare every artifact with the sha256 in its sidecar, and name those that are damaged; other verbs do not."""
    from neurocanvas.errors import check_folder
    from neurocanvas.store import verify as compare

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


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("simulate")(simulate)
    app.command("inspect")(inspect_data)
    app.command("convert")(convert)
    app.command("pictures")(pictures)
    app.command("export")(export_files)
    app.command("import")(import_files)
    app.command("doctor")(doctor)
    app.command("audit")(audit)
    app.command("verify")(verify)
