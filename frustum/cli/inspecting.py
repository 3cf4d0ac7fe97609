"""Verbs that inspect: check, list, doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from frustum.cli.common import JsonOption, VersionOption, command, optional, say, table, write_json
from frustum.errors import DataError
from frustum.recipes.finding import CHECKED

app = typer.Typer()


@command(
    app,
    "check",
    "frustum check data/street",
    "frustum check data/nuscenes --version v1.0-mini --samples 8 --augment --out check",
    "frustum check data/camvid --samples 0 --augment --recipe pspnet-lite",
)
def check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="folder of a data set, or a rig folder with calibration.json")],
    version: VersionOption = None,
    split: Annotated[str, typer.Option("--split", help="split or scene to check")] = "all",
    samples: Annotated[int, typer.Option("--samples", min=0, help="keyframes or images to check, evenly spread; 0 checks all")] = 20,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="keyframes or images to draw")] = 4,
    out: Annotated[Path, typer.Option("--out", help="folder for the pictures")] = Path("check"),
    augment: Annotated[
        bool, typer.Option("--augment", help="draw what training reads: after random resize, crop, flip, rotation, GridMask")
    ] = False,
    recipe: Annotated[
        str, typer.Option("--recipe", help="recipe whose part of each image is named, and whose augmentation --augment draws")
    ] = CHECKED,
    json_file: JsonOption = None,
) -> None:
    """Find what is inconsistent in a data set, and draw LiDAR, boxes and voxels over the images and from above.

    Of images with label maps it also says how often each class occurs, and draws the classes over the images. Exits with 3 if an error was
    found: the pictures show which calibration is wrong.
    """
    from frustum.cli.checking import check_data

    found = check_data(root, version, split, samples, pictures, out, recipe if augment else None, recipe)
    write_json(json_file, found)
    if found["errors"]:
        raise typer.Exit(DataError.exit_code)


@command(app, "list", "frustum list", "frustum list --settings flashocc-tiny")
def list_(
    settings: Annotated[str | None, optional("--settings", metavar="RECIPE", help="all settings of a recipe")] = None,
    json_file: JsonOption = None,
) -> None:
    """List the recipes; with --settings, everything that can be set in one of them."""
    from frustum.recipes.finding import list_recipes

    if settings is not None:
        _settings(settings, json_file)
        return
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
        say(f"[bold]{key}[/]={escape(text)}" + (f"  [dim]{escape(about)}[/]" if about else ""), markup=True)
    write_json(json_file, {key: value for key, value, _ in rows})


@command(app, "doctor", "frustum doctor", "frustum doctor --json doctor.json")
def doctor(
    folder: Annotated[Path, typer.Option("--folder", help="folder whose disk is checked")] = Path("."),
    json_file: JsonOption = None,
) -> None:
    """Check the installation: one line per check, with the fix for what is wrong. Paste its output into bug reports."""
    from rich.markup import escape

    from frustum.cli.doctor import diagnose

    checks = diagnose(folder)
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    for item in checks:
        fix = f"\n{'':17}-> {item.fix}" if item.fix else ""
        say(f"[{colours[item.level]}]{item.level:4}[/] " + escape(f"{item.name:11} {item.seen}{fix}"), markup=True)
    ok = all(item.level != "fail" for item in checks)
    write_json(json_file, {"ok": ok, "checks": list(map(asdict, checks))})
    if not ok:
        raise typer.Exit(1)
