"""Verbs that look: check, list, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from frustum.cli.common import JsonOption, console, examples, say, table, verb, write_json
from frustum.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(
        "check",
        epilog=examples("frustum check data/world", "frustum check data/nuscenes --version v1.0-mini --samples 8 --augment --out check"),
    )(check)
    app.command("list", epilog=examples("frustum list", "frustum list --settings flashocc-tiny"))(list_)
    app.command("doctor", epilog=examples("frustum doctor", "frustum doctor --json doctor.json"))(doctor)


@verb
def check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="folder of a data set")],
) -> None:
    """x."""
    raise ConfigError("x")


@verb
def list_(
    settings: Annotated[
        str | None, typer.Option("--settings", metavar="RECIPE", help="all settings of a recipe", show_default=False)
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """List the recipes; with --settings, everything that can be set in one of them."""
    if settings is not None:
        _settings(settings, json_file)
        return
    from frustum.recipes.loading import list_recipes

    found = list_recipes()
    table("Recipes", ["name", "what it is"], [(info.name, info.help) for info in found], numbers=False)
    say("Train one: frustum train NAME. All of its settings: frustum list --settings NAME.")
    write_json(json_file, {info.name: info.help for info in found})


def _settings(name: str, json_file: Path | None) -> None:
    from rich.markup import escape

    from frustum.cli.resolve import describe, resolve_recipe

    rows = list(describe(resolve_recipe(name)))
    for key, value, about in rows:
        text = value if isinstance(value, str) else json.dumps(value)
        say(f"[bold]{key}[/]={escape(text)}" + (f"  [dim]{escape(about)}[/]" if about else ""))
    write_json(json_file, {key: value for key, value, _ in rows})


@verb
def doctor(
    folder: Annotated[Path, typer.Option("--folder", help="folder whose disk is checked")] = Path("."),
    json_file: JsonOption = None,
) -> None:
    """Look at the installation: one line per check, with the fix beside what is wrong. Paste its output into bug reports."""
    from frustum.cli.doctor import as_json, diagnose

    checks = diagnose(folder)
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    for item in checks:
        fix = f"\n{'':17}-> {item.fix}" if item.fix else ""
        console().print(f"[{colours[item.level]}]{item.level:4}[/] {item.name:11} {item.seen}{fix}", markup=True)
    write_json(json_file, as_json(checks))
    if any(item.level == "fail" for item in checks):
        raise typer.Exit(1)
