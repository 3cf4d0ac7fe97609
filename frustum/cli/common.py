"""What every verb shares: its place in the command line, one readable paragraph on failure, JSON output, tables.

Imports nothing heavy: rich is loaded when something is printed.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from frustum.errors import CheckpointError, ConfigError, DataError, FrustumError, FrustumWarning
from frustum.locks import is_first_process

if TYPE_CHECKING:
    from pydantic import ValidationError
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
GOES_ON = "the same command goes on from the last saved state"
STARTS_AGAIN = "the same command starts again from the beginning"

optional = functools.partial(typer.Option, show_default=False)
"""An option without a default, or whose help describes it."""

JsonOption = Annotated[Path | None, optional("--json", metavar="FILE", help="also write the numbers to FILE as JSON")]
VersionOption = Annotated[str | None, optional("--version", help="folder with the tables, if there are several")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="settings, by their dotted path", show_default=False)
]


class Settings:
    """Options that hold for every verb."""

    debug: bool = bool(os.environ.get("FRUSTUM_DEBUG"))


def console(stderr: bool = False) -> Console:
    """A rich console; colours only where there is a terminal. Of several processes all report errors, but one does the talking."""
    from rich.console import Console

    stream, quiet = sys.stderr if stderr else sys.stdout, not (stderr or is_first_process())
    if stream.isatty():
        return Console(stderr=stderr, highlight=False, quiet=quiet)
    width = int(os.environ.get("COLUMNS", 140))
    return Console(stderr=stderr, highlight=False, quiet=quiet, soft_wrap=True, width=width)  # a log: lines stay whole


def say(text: str, markup: bool = False) -> None:
    """Print to standard output, exactly as it stands; with `markup`, `[bold]` and the like have an effect, and the rest must be escaped."""
    console().print(text, markup=markup, emoji=False)


def explain(error: BaseException) -> tuple[str, int]:
    """The paragraph to print for an error and the exit code that goes with it."""
    from pydantic import ValidationError

    if isinstance(error, FrustumError):
        return str(error), error.exit_code
    if isinstance(error, ValidationError):
        return f"{invalid(error)} Run the command again with --debug for its traceback.", ConfigError.exit_code
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        reason = error.strerror or str(error)
        text = f"cannot read or write{where}: {reason}. Check the path, its permissions and the free space on the disk."
        return text, DataError.exit_code
    if isinstance(error, MemoryError):
        return "out of memory. Use a smaller batch (train.batch_size=1) or image (data.image_size=96,256).", 1
    kind = type(error).__name__
    return f"unexpected {kind}: {error}. This is a bug in frustum; run the command again with --debug and report the traceback.", 1


def invalid(error: ValidationError) -> str:
    """Pydantic's findings as one sentence: `seed=-1 is not allowed: input should be greater than or equal to 0.`"""
    found = []
    for item in error.errors():
        where, message = ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")
        given = f"{where}={item['input']}" if where else error.title
        found.append(f"{given} is not allowed: {message[:1].lower() + message[1:]}")
    return "; ".join(found) + "."


def report(error: BaseException) -> int:
    """Print an error to standard error, as one paragraph or, with --debug, as a traceback; return the exit code.

    What does not fit in a checkpoint is a list: that keeps its lines.
    """
    text, code = explain(error)
    if not isinstance(error, CheckpointError):
        text = " ".join(text.split())
    if Settings.debug:
        traceback.print_exception(error)
    from rich.markup import escape

    console(stderr=True).print(f"[bold red]error:[/] {escape(text)}")
    return code


def verb(function: F, after_interrupt: str = STARTS_AGAIN) -> F:
    """Decorator: turn errors and Ctrl-C into a message, which says what comes after Ctrl-C, and an exit code."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _notes():
                _require_places(kwargs)
                return function(*args, **kwargs)
        except KeyboardInterrupt:
            console(stderr=True).print(f"\ninterrupted: nothing was damaged; {after_interrupt}.")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):
                raise  # typer.Exit, and usage errors, which the parser prints itself
            raise typer.Exit(report(error)) from None

    return wrapped  # type: ignore[return-value]


def _require_places(options: dict[str, Any]) -> None:
    """Fail before the work, not after it, where the file of --json cannot be written."""
    path = options.get("json_file")
    if path is not None and is_first_process():
        from frustum import files

        files.require_place(path)


def command(app: typer.Typer, name: str, *shown: str, after_interrupt: str = STARTS_AGAIN) -> Callable[[F], F]:
    """Decorator: add a function to `app` as the `verb` called `name`, with examples in its help."""
    return lambda function: app.command(name, epilog=examples(*shown))(verb(function, after_interrupt))


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Print our own warnings as one line each, and each once; those of others as Python does."""
    printed = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", FrustumWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, FrustumWarning):
                if str(message) not in printed and is_first_process():
                    console(stderr=True).print(f"note: {message}", markup=False, emoji=False)
                printed.add(str(message))
            else:
                others(message, category, *rest, **options)

        warnings.showwarning = show
        yield


def split_overrides(words: Iterable[str] | None) -> list[str]:
    """The trailing `key=value` words; raises ConfigError for anything else."""
    words = list(words or ())
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{word!r} is neither an option nor key=value. Settings are written as key=value, for example optim.lr=1e-4.")
    return words


def write_json(path: Path | None, numbers: Any) -> None:
    """Write numbers to `path` (nothing if None), completely or not at all. Raises DataError."""
    if path is not None and is_first_process():
        from frustum import files

        files.write_json(path, plain(numbers), indent=2)


def plain(value: Any) -> Any:
    """Numbers as JSON knows them: numpy scalars and arrays become lists and numbers, NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def examples(*commands: str) -> str:
    """The epilog of a verb's help: commands that can be typed as they stand."""
    escaped = [command.replace("[", r"\[") for command in commands]
    return "\n\n".join(["[bold]Example[/]" if len(commands) == 1 else "[bold]Examples[/]", *(f"[green]$ {c}[/]" for c in escaped)])


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> None:
    """Print a table of plain text; the first column is left-aligned, the others are right-aligned if they are numbers."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title) if title else None, title_justify="left", header_style="bold", title_style="bold")
    for i, column in enumerate(columns):
        drawn.add_column(Text(column), justify="right" if i and numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    console().print(drawn)
