"""How the command line ends: every failure is one line, and of one that is nobody's fault but ours a log is kept."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import typer

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.safe_text import printable

# Exit codes; the last is what a shell gives where Ctrl-C ends a program.
BAD_INPUT, BUG, INTERRUPTED = 2, 1, 130

PACKAGE = "neurocanvas"


def guarded(call: Callable[[], object]) -> None:
    """Call what the command line does; however it fails, one line on stderr says so, and the exit code."""
    try:
        code = call()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            sys.exit(int(str(code)))
    except NeuroCanvasError as error:
        _end(BAD_INPUT, str(error))
    except UnicodeEncodeError as error:  # of an argument that is not UTF-8
        _end(BAD_INPUT, f"{error.object!r:.200}: names and paths must be UTF-8; got another byte.")
    except KeyboardInterrupt:
        _end(INTERRUPTED, "interrupted; the same command goes on from what is finished.")
    except BrokenPipeError:  # who reads has enough, as `head` has; what is still in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BUG)
    except OSError as error:  # a full disk, a folder that may not be written, a file where a folder belongs
        _end(BAD_INPUT, f"{error.filename or 'file'}: {error.strerror or error}; free space, or name another folder.")
    except Exception as error:
        if _is_out_of_memory(error):
            _end(BAD_INPUT, "not enough memory; take smaller batches (-b) or fewer --workers, or close other programs.")
        _end_of_typer(error)
        # typer takes the end of any file for an answer that was refused
        _end(BUG, report(error.__cause__ or error if isinstance(error, typer.Abort) else error, sys.argv))


def report(error: BaseException, argv: Sequence[str]) -> str:
    """Keep a log of an error that should not have happened."""
    said = f"unexpected {type(error).__name__}: {str(error)[:200]}; this is a bug in NeuroCanvas."
    try:
        log = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}-")) / "crash.log"
        log.write_text(_details(error, argv), encoding="utf-8", errors="backslashreplace")
    except OSError as failed:
        return printable(f"{said} Report it to {_tracker()}; no log could be written ({failed.strerror}).")
    return printable(f"{said} Report it to {_tracker()}, with the log {log}")


def _details(error: BaseException, argv: Sequence[str]) -> str:
    """What the log holds."""
    lines = [f"command: {list(argv)}", f"platform: {platform.platform()}, Python {platform.python_version()}"]
    lines += [f"{package}: {_version(package)}" for package in (PACKAGE, *_required())]
    return "\n".join([*lines, "", "".join(traceback.format_exception(error))])


def _required() -> list[str]:
    """The packages that always belong to this one."""
    try:
        wanted = requires(PACKAGE) or []
    except PackageNotFoundError:
        wanted = []
    return [re.split(r"[^\w.-]", one)[0] for one in wanted if "extra ==" not in one]


def _version(package: str) -> str:
    """The version that is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _tracker() -> str:
    """Where bugs are reported."""
    try:
        links = [link.partition(",") for link in metadata(PACKAGE).get_all("Project-URL") or []]
    except PackageNotFoundError:
        links = []
    return next((url.strip() for label, _, url in links if "issue" in label.lower()), "the project's issue tracker")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, the GPU or PyTorch on the CPU had no memory left; the latter two are told by name."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or named


def _end_of_typer(error: Exception) -> None:
    """End if it is what typer says of options; its exceptions are told by what they have: it brings its own click."""
    if hasattr(error, "format_message"):
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(str(error))  # the help, unless that was printed in colours before
            sys.exit(BAD_INPUT)
        context = getattr(error, "ctx", None)
        usage = f"; see {context.command_path} --help" if context is not None else ""
        _end(BAD_INPUT, f"{error.format_message().rstrip('.')}{usage}.")


def _end(code: int, message: str) -> None:
    """Say it in one line, and end."""
    sys.stderr.write(f"{PACKAGE}: {printable(' '.join(message.split()))}\n")
    sys.exit(code)
