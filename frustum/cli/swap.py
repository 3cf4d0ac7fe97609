"""The verb that swaps heads in photographs, with the consent of those who are in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frustum.cli.common import JsonOption, command, optional, say, write_json
from frustum.errors import ConfigError
from frustum.weights.shipped import shipped

app = typer.Typer()


@command(
    app,
    "swap",
    "frustum swap --source a1.jpg a2.jpg --target b.jpg --out swapped.png --consent",
    "frustum swap --source a1.jpg a2.jpg --target b.jpg --aligner runs/heser-aligner-mini --consent",
    "frustum swap --verify swapped.png",
)
def swap(
    more: Annotated[list[Path] | None, typer.Argument(metavar="[PHOTO ...]", help="further photographs of the source")] = None,
    source: Annotated[list[Path] | None, optional("--source", help="photograph of the person whose head it is, or a folder")] = None,
    target: Annotated[Path | None, optional("--target", help="photograph that gets the head, or a folder of frames")] = None,
    aligner: Annotated[str, optional("--aligner", help="run or weights file of an aligner; by default that of frustum")] = "",
    blender: Annotated[str, optional("--blender", help="run or weights file of a blender; by default that of frustum")] = "",
    parser: Annotated[str, optional("--parser", help="run or weights file of a face parser; by default that of frustum")] = "",
    out: Annotated[Path, typer.Option("--out", help="the picture, or the folder of pictures for a folder of frames")] = Path("swapped.png"),
    masks: Annotated[Path | None, optional("--masks", help="folder of your own parsing maps NAME.png for the photographs")] = None,
    steps: Annotated[int, typer.Option("--steps", min=0, help="learn the person by at most so many steps; 0 takes the mean code")] = 0,
    consent: Annotated[bool, typer.Option("--consent", help="everybody in the pictures has agreed")] = False,
    no_label: Annotated[bool, typer.Option("--no-label", help="leave out the word in the corner; the invisible mark stays")] = False,
    verify: Annotated[Path | None, optional("--verify", metavar="FILE", help="say whether a picture carries the mark of a swap")] = None,
    json_file: JsonOption = None,
) -> None:
    """Put the head of a person onto a portrait of another one, in its pose and in its light.

    Needs the consent of those who are shown. The networks that come with frustum know generated heads alone, in 64 x 64 pixels: photographs
    of people look wrong (docs/methods/heser.md). The picture says that it is synthetic: by a label, by an invisible mark, and by a file
    FILE.json beside it.
    """
    if verify is not None:
        from frustum.cli.swapping import verify as look

        found = look(verify)
        beside = f"; {found['note']} belongs to it" if found["note"] else "; no note of it lies beside it"
        beside += ", but the picture was changed since then" if found["is_changed"] else ""
        said = f"carries the mark {found['mark']:08x}: it is a head swap" + beside if found["is_marked"] else "carries no mark of a swap"
        say(f"{verify} {said}.")
        write_json(json_file, found)
        return
    aligner, blender, parser = (
        given or str(shipped(name) or "") for name, given in (("aligner", aligner), ("blender", blender), ("parser", parser))
    )
    given = {"--source": source, "--target": target, "--aligner": aligner, "--blender": blender, "--parser": parser}
    if missing := [name for name, value in given.items() if not value]:
        raise ConfigError(f"{' and '.join(missing)} must be given; see frustum swap --help.")
    assert source is not None
    assert target is not None
    from frustum.cli.swapping import CONSENT, swap_heads
    from frustum.models.heser_fewshot import FewShot

    if not consent:
        raise ConfigError(CONSENT)
    networks = {"aligner": aligner, "blender": blender, "parser": parser}
    files = swap_heads([*source, *(more or ())], target, out, networks, masks, FewShot(steps=steps), has_label=not no_label)
    say(
        f"{len(files)} pictures are in {out}"
        if target.is_dir()
        else f"{files[0]} is written; {files[0].with_suffix('.json')} says what it is"
    )
    write_json(json_file, {"files": [str(file) for file in files]})
