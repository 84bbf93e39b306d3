"""What the command line prints: progress, scores, benchmark tables, what is in a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neurocanvas.errors import printable

if TYPE_CHECKING:
    from rich.text import Text

# A sentence, or a word that announces one and is printed in bold, and the sentence.
Note = str | tuple[str, str]

# Cells of more letters are wrapped.
SENTENCE = 40


@contextmanager
def progress_lines(quiet: bool) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show one progress line per stage on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:

        def track(title: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(printable(title), total=total)
            return lambda count: progress.advance(task, count)

        yield track


def print_tables(tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]], notes: Sequence[Note]) -> None:
    """Print tables, and sentences below them."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(120, Console().width))
    for title, header, lines in tables:
        table = Table(title=_text(title, "table.title"), box=SIMPLE, padding=(0, 0, 0, 1), title_justify="left")
        for place, word in enumerate(header):
            words = place == 0 or any(line[place][:1].isalpha() for line in lines)
            sentences = any(len(line[place]) > SENTENCE for line in lines)
            justify: Any = "left" if words else "right"
            table.add_column(_text(word), justify=justify, no_wrap=len(header) > 2 and not sentences)
        for line in lines:
            table.add_row(*map(_text, line))
        console.print(table)
    for note in notes:
        console.print(_note(note))


def _text(words: object, style: str = "") -> Text:
    """Words as they are: in rich's strings "[red]" is a colour and ":cat:" a picture."""
    from rich.text import Text

    return Text(printable(words), style)


def _note(note: Note) -> Text:
    """A sentence, with what announces it in bold."""
    from rich.text import Text

    if isinstance(note, str):
        return _text(note)
    return Text.assemble((printable(f"{note[0]}:"), "bold"), printable(f" {note[1]}"))


def print_benchmark(found: Mapping[str, Any]) -> None:
    """Print what `benchmark` or `classify` found: for every protocol its scores, then what selection does."""
    for table in found["tables"]:
        print_table(table)
    print_tables([], [found["explanation"]])


def print_table(table: Mapping[str, Any]) -> None:
    """Print one table and its warnings."""
    warnings = [("Warning", warning) for warning in table["warnings"]]
    print_tables([(table["title"], table["header"], table["lines"])], warnings)


def print_controls(found: Mapping[str, Any]) -> None:
    """Print the controls, and what they come to."""
    lines = []
    for row in found["rows"]:
        numbers = [_places(row[name]) for name in ("effect", "low", "high", "p", "p_holm")]
        fired = {True: "fired", False: "silent", None: "–"}[row["fired"]]
        note = f". {row['note']}" if row.get("note") else ""
        lines.append([row["control"], fired, *numbers, f"{row['verdict']}{note}"])
    header = ["control", "", "effect", "low", "high", "p", "Holm", "what it says"]
    notes: list[Note] = [
        "The decoder is a shrinkage LDA on the features of single trials, under the split of the settings.",
        ("Verdict", found["verdict"]),
    ]
    print_tables([(f"Controls, {found['protocol']}", header, lines)], notes)


def _places(value: float | None) -> str:
    """A number with three decimals."""
    return "–" if value is None else f"{value:.3f}"


def print_scores(summary: Mapping[str, Any], notes: Iterable[Note] = ()) -> None:
    """Print metrics by arms, the warnings and the verdict."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(100, Console().width))  # narrower, the table would lose digits
    arms = summary["arms"]
    first = next(iter(arms))
    title = (
        f"{summary['n_trials']} test trials of {summary['n_pictures']} pictures; "
        f"95 % intervals over {summary['unit']}, p of {first} by permuting {summary['exchanged']}"
    )
    table = Table(title=_text(title, "table.title"), box=SIMPLE, padding=(0, 0, 0, 1), title_justify="left")
    table.add_column("score", no_wrap=True)
    for name in (*arms, "chance", "p"):
        table.add_column(_text(name), justify="right", no_wrap=True)
    for metric, score in arms[first].items():
        cells = [_interval(scores[metric]) for scores in arms.values()]
        p = "–" if score["p"] is None else f"{score['p']:.4f}"
        table.add_row(_text(metric), *cells, "–" if score["chance"] is None else short(score["chance"]), p)
    console.print(table)
    for note in notes:
        console.print(_note(note))


def _interval(score: Mapping[str, Any]) -> Text:
    """A value with its interval."""
    value = _text(short(score["value"]))
    if score["low"] is None:
        return value
    return value.append_text(_text(f" {short(score['low'])} {short(score['high'])}", "dim"))


def short(value: float) -> str:
    """Two decimals without the zero before the point: the table fits into 80 columns."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"
