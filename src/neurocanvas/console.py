"""Console output: progress, tables, and sentences below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from neurocanvas.errors import printable

# A sentence, or a heading (printed in bold) and a sentence.
Note = str | tuple[str, str]

# Cells with more characters are wrapped.
SENTENCE = 40


@contextmanager
def progress_lines(quiet: bool) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show one progress line per stage if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    title = TextColumn("{task.description:10}", markup=False)
    columns = (title, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
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
    from rich.text import Text

    # Text, because in strings rich reads "[red]" as a colour and ":cat:" as an emoji
    console = Console(width=max(120, Console().width))
    for title, header, lines in tables:
        heading = Text(printable(title), "table.title")
        table = Table(title=heading, box=SIMPLE, padding=(0, 0, 0, 1), title_justify="left")
        for index, word in enumerate(header):
            words = index == 0 or any(line[index][:1].isalpha() for line in lines)
            sentences = any(len(line[index]) > SENTENCE for line in lines)
            justify: Any = "left" if words else "right"
            table.add_column(Text(printable(word)), justify=justify, no_wrap=len(header) > 2 and not sentences)
        for line in lines:
            table.add_row(*(Text(printable(cell)) for cell in line))
        console.print(table)
    for note in notes:
        if isinstance(note, str):
            console.print(Text(printable(note)))
        else:
            console.print(Text.assemble((printable(f"{note[0]}:"), "bold"), printable(f" {note[1]}")))
