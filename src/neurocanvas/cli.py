"""The command line: it parses and calls. One verb per stage, `run` for all of them, `demo` for the bundled run."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from neurocanvas import __version__
from neurocanvas.errors import NeuroCanvasError

app = typer.Typer(
    name="neurocanvas", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="EEG recorded while a person looks at pictures, turned into pictures, with honest scores.",
)  # fmt: skip

OPTIONS: Mapping[str, tuple[type, tuple[str, ...], tuple[str, ...], str]] = {
    "data": (str, ("-d", "--data"), ("data.root",), "Folder of the data set."),
    "dataset": (str, ("--dataset",), ("data.name",), "eeg-imagenet or recordings."),
    "granularity": (str, ("-g", "--granularity"), ("data.granularity",), "coarse, fine0 ... fine4, or all."),
    "subject": (str, ("-s", "--subject"), ("data.subjects",), "Subjects, e.g. 0 or 0,3,5; -1 = all."),
    "method": (str, ("--method",), ("features.method",), "gaussian, or eeg-imagenet for the released formula."),
    "model": (str, ("-m", "--model"), ("mapper.name",), "mlp_sd, ridge or mean."),
    "batch": (int, ("-b", "--batch"), ("mapper.batch_size",), "Trials per training batch."),
    "protocol": (str, ("--protocol",), ("split.protocol",), "by-stimulus, leave-run-out or released."),
    "accept": (
        bool, ("--accept-block-confound",), ("split.accept_block_confound",),
        "Go on where the split cannot tell brain from block.",
    ),
    "shard": (int, ("-b", "--batch"), ("generate.shard",), "Pictures per batch."),
    "steps": (int, ("--steps",), ("generate.steps",), "Denoising steps."),
    "guidance": (float, ("--guidance",), ("generate.guidance",), "Classifier-free guidance scale."),
    "pictures": (int, ("--pictures",), ("generate.max_trials",), "At most so many test trials per subject."),
    "family": (
        str, ("--family",), ("family", "generate.family", "evaluate.judge"),
        "bundled, sd14, or a folder with blip, stable-diffusion, clip.",
    ),
}  # fmt: skip
"""Name -> type, flags, the settings that it changes, help."""

DATA = ("data", "dataset", "granularity", "subject")
VERBS: Mapping[str, tuple[str, ...]] = {
    "features": (*DATA, "method"),
    "caption": (*DATA, "family"),
    "embed": (*DATA, "family"),
    "train": (*DATA, "model", "batch", "protocol", "accept"),
    "predict": (*DATA, "model", "protocol", "accept"),
    "generate": (*DATA, "shard", "steps", "guidance", "pictures", "family"),
    "evaluate": (*DATA, "family"),
    "report": (),
    "run": tuple(name for name in OPTIONS if name != "shard"),
    "demo": (),
}
"""Verb -> its options beside --config, --output and --json."""

HELP: Mapping[str, str] = {
    "features": "Differential entropy of five bands, for every trial.",
    "caption": "Describe every picture in words (BLIP).",
    "embed": "Encode every caption as (77, 768) (CLIP text encoder).",
    "train": "Train the mapper from features to embeddings, beside its baselines.",
    "predict": "Predict the embedding of every test trial.",
    "generate": "Draw pictures from predictions and controls (Stable Diffusion).",
    "evaluate": "Score the pictures, with chance, intervals and p-values.",
    "report": "Make report.html.",
    "run": "Do everything that the settings say, from data to report.",
    "demo": "Do everything on simulated EEG with the bundled networks; a few minutes on a laptop.",
}


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Data folder to make.")],
    design: Annotated[
        str, typer.Option(help="rapid (random order) or block (50 trials of one concept in a row).")
    ] = "rapid",
    subjects: Annotated[int, typer.Option(help="How many.")] = 1,
    concepts: Annotated[int, typer.Option(help="2 to 80; the first 18 are drawn, the others have no pictures.")] = 18,
    trials: Annotated[int, typer.Option(help="Pictures per concept.")] = 50,
    repeats: Annotated[int, typer.Option(help="How often each picture is shown in a stage.")] = 1,
    stages: Annotated[int, typer.Option(help="1, or 2 for a second day.")] = 1,
    signal: Annotated[float, typer.Option(help="Single-trial explained variance; 0 = no brain response.")] = 0.05,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write EEG with known content in the layout of the released EEG-ImageNet."""
    from pydantic import ValidationError

    from neurocanvas.config import SimulateSettings
    from neurocanvas.datasets.simulated import simulate as write_simulation

    try:
        settings = SimulateSettings(
            design=design, subjects=subjects, concepts=concepts, trials_per_concept=trials, repeats=repeats,
            stages=stages, explained_variance=signal, seed=seed,
        )  # type: ignore[arg-type]  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise NeuroCanvasError(f"simulate: {first['loc'][0]}: {first['msg']}; got {first['input']!r}.") from error
    with _progress(quiet=as_json) as track:
        path = write_simulation(settings, output, progress=track("simulate", settings.n_trials))
    typer.echo(json.dumps({"wrote": [str(path)]}) if as_json else path)


def _add_verb(verb: str) -> None:
    """Give the app a command whose options are those that `VERBS` lists."""

    def command(**given: Any) -> None:
        _call(verb, given.pop("config"), given.pop("output"), given.pop("as_json"), given)

    default_folder: Any = Path("runs/demo") if verb == "demo" else ...
    fixed: dict[str, tuple[Any, Any]] = {
        "config": (
            Annotated[Path | None, typer.Option("-c", "--config", help="Settings as TOML; else run.toml.")],
            None,
        ),
        "output": (Annotated[Path, typer.Option("-o", "--output", help="Run folder.")], default_folder),
        "as_json": (Annotated[bool, typer.Option("--json", help="Print the result as JSON.")], False),
    }  # fmt: skip
    for name in VERBS[verb]:
        kind, flags, _, text = OPTIONS[name]
        fixed[name] = (Annotated[kind | None, typer.Option(*flags, help=text)], None)  # type: ignore[operator]
    command.__annotations__ = {name: annotation for name, (annotation, _) in fixed.items()}
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
            if default is ...
            else inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in fixed.items()
        ]
    )
    app.command(verb, help=HELP[verb])(command)


for _verb in VERBS:
    _add_verb(_verb)


def _call(verb: str, config: Path | None, folder: Path, as_json: bool, options: Mapping[str, Any]) -> None:
    """Resolve the settings, run the stages, print what came out."""
    from neurocanvas.config import DEMO, load_settings
    from neurocanvas.stages import run_all, run_stage
    from neurocanvas.stages.run import Run

    if verb == "demo":
        config = config or DEMO
    elif config is None and (folder / "run.toml").is_file():
        config = folder / "run.toml"
    settings = load_settings(config, **_changes(options))
    with _progress(quiet=as_json) as track:
        run = Run(folder, settings, track)
        paths = [run_all(run)] if verb in ("run", "demo") else run_stage(run, verb)
    summary = folder / "scores" / "summary.json"
    scored = verb in ("run", "demo", "evaluate")
    if as_json:
        scores = json.loads(summary.read_text(encoding="utf-8")) if scored else None
        typer.echo(json.dumps({"wrote": [str(path) for path in paths], "scores": scores}))
        return
    if scored:
        _print_scores(json.loads(summary.read_text(encoding="utf-8")))
    for path in paths:
        typer.echo(path)


def _changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sort what was given on the command line into the sections of the settings."""
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        for where in OPTIONS[name][2]:
            section, _, key = where.partition(".")
            if key:
                changes.setdefault(section, {})[key] = _subjects(value) if name == "subject" else value
            else:
                changes[section] = value
    return changes


def _subjects(text: str) -> list[int]:
    """Read "-1" (all), "3" or "0,3,5"."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise NeuroCanvasError(f"--subject: a number, several as 0,3,5, or -1 for all; got {text!r}.") from error
    return [] if numbers == [-1] else numbers


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show one progress line per stage on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:

        def track(title: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(title, total=total)
            return lambda count: progress.advance(task, count)

        yield track


def _print_scores(summary: Mapping[str, Any]) -> None:
    """Print metrics by arms, the warnings and the verdict."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from neurocanvas.report.words import verdict

    console = Console(width=max(100, Console().width))  # narrower, the table would lose digits
    arms = summary["arms"]
    first = next(iter(arms))
    table = Table(
        title=f"{summary['n_trials']} test trials of {summary['n_pictures']} pictures; "
        f"95 % intervals over {summary['unit']}, p of {first} by permuting {summary['exchanged']}",
        box=SIMPLE,
        padding=(0, 0, 0, 1),
        title_justify="left",
    )
    table.add_column("score", no_wrap=True)
    for arm in arms:
        table.add_column(arm, justify="right", no_wrap=True)
    table.add_column("chance", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    for metric, score in arms[first].items():
        cells = [_interval(scores[metric]) for scores in arms.values()]
        table.add_row(metric, *cells, _short(score["chance"]), f"{score['p']:.4f}")
    console.print(table)
    for warning in summary["warnings"]:
        console.print(f"[bold]Warning:[/bold] {warning}")
    console.print(f"[bold]Verdict:[/bold] {verdict(summary)['text']}")


def _interval(score: Mapping[str, Any]) -> str:
    """A value with its interval."""
    if score["low"] is None:
        return _short(score["value"])
    return f"{_short(score['value'])} [dim]{_short(score['low'])} {_short(score['high'])}[/dim]"


def _short(value: float) -> str:
    """Two decimals without the zero before the point: the table fits into 80 columns."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for library in ("TRANSFORMERS", "DIFFUSERS"):  # they warn while they are imported
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except NeuroCanvasError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:  # a full disk, a folder that may not be written, a file where a folder belongs
        _fail(f"{error.filename or 'file'}: {error.strerror or error}; free space, or name another folder.")


def _fail(message: str) -> None:
    """One line on stderr, exit code 2."""
    sys.stderr.write(f"neurocanvas: {message}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
