"""The command line: `frustum VERB ...`. Verbs only; what they do lives in the packages below.

Importing this module imports no torch, so that `frustum --help` and `frustum list` answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from frustum.cli import benchmarking, data, inspecting, running, swap, weights
from frustum.cli.common import Settings, report

app = typer.Typer(
    name="frustum",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First time here? `frustum demo` needs no data and no GPU. A failing command prints one paragraph; --debug adds the traceback.",
)


def _version(asked: bool) -> None:
    if asked:
        from frustum.version import __version__

        typer.echo(f"frustum {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks; may stand anywhere on the line")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Camera-first 3D perception in plain PyTorch: what is occupied around a camera rig, and by what."""
    Settings.debug = Settings.debug or debug


for part in (running, inspecting, benchmarking, swap):
    app.registered_commands += part.app.registered_commands
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Entry point of the `frustum` command."""
    words = sys.argv[1:]
    if "--debug" in words:
        Settings.debug = True
        words = [word for word in words if word != "--debug"]
    try:
        app(words, prog_name="frustum")
    except Exception as error:
        sys.exit(report(error))


if __name__ == "__main__":
    main()
