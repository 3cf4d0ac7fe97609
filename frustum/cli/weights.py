"""Verbs about published weights: `frustum weights list|inspect|convert`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from frustum.cli.common import JsonOption, examples, say, table, verb, write_json

app = typer.Typer(no_args_is_help=True, help="Published weights: what there is, what is in a file, and how it becomes one of ours.")
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="a .pth or .safetensors file")]


@app.command("list", epilog=examples("frustum weights list", "frustum weights list --markdown"))
@verb
def list_(
    markdown: Annotated[bool, typer.Option("--markdown", help="print the table of docs/weights.md")] = False,
    json_file: JsonOption = None,
) -> None:
    """List published weights: where their authors publish them, under which licence, and which recipe loads them. Nothing is downloaded."""
    from frustum.weights.catalogue import CATALOGUE

    if markdown:
        say(as_markdown())
    else:
        rows = [(e.name, e.recipe or "no recipe yet", e.published or "-", e.file, e.where, e.licence) for e in CATALOGUE]
        table("Published weights", ["name", "recipe", "published (%)", "file", "where", "licence"], rows, numbers=False)
        say(
            "None of the figures was measured here yet; --json FILE has their protocols and notes. Got a file? frustum weights inspect FILE"
        )
    write_json(json_file, {e.name: {key: value for key, value in e._asdict().items() if key != "name"} for e in CATALOGUE})


def as_markdown() -> str:
    """The catalogue as docs/weights.md shows it: a table, and the protocols that its figures were measured under."""
    from frustum.weights.catalogue import CATALOGUE, UNKNOWN

    protocols = list(dict.fromkeys(e.protocol for e in CATALOGUE if e.protocol))
    lines = ["| name | project, place | licence | file | published (%) | recipe | status |", "|---|---|---|---|---|---|---|"]
    for e in CATALOGUE:
        name = f"`{e.name}` ({e.note})" if e.note else f"`{e.name}`"
        size = f"{e.size:,} bytes" if isinstance(e.size, int) else f"size {e.size}"
        file = UNKNOWN if e.file == UNKNOWN else f"`{e.file}`, {size}"
        figure = f"{e.published} [{protocols.index(e.protocol) + 1}]" if e.published else "-"
        recipe = f"`{e.recipe}`" if e.recipe else "no recipe yet"
        lines.append(f"| {' | '.join((name, f'{e.project}: {e.where}', e.licence, file, figure, recipe, e.status))} |")
    notes = [f"- [{i}] {protocol}" for i, protocol in enumerate(protocols, 1)]
    return "\n".join([*lines, "", *notes])


@app.command(
    "inspect",
    epilog=examples("frustum weights inspect flashocc-r50-M0-256x704.pth", "frustum weights inspect FILE --recipe flashocc-r50"),
)
@verb
def inspect(
    file: FileArgument,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="also say what of the file fits this recipe's network", show_default=False)
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Say what is in a weights file: layout, parts, channel counts, and the recipe that it belongs to. No code in it is run."""
    found = inspect_file(file, recipe)
    shown = {key: value for key, value in found.items() if key not in ("parts", "file")}
    say(f"{file}: {found['entries']} entries, {found['values'] / 1e6:.3f} M values, {found['bytes']:,} bytes")
    for key, value in shown.items():
        if key not in ("entries", "values", "bytes", "channels") and value:
            say(f"{key:>14}  {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
    rows = [(part, str(count), f"{values / 1e6:.3f}") for part, (count, values) in found["parts"].items()]
    table("", ["part", "entries", "M values"], rows)
    write_json(json_file, found)


def inspect_file(file: Path, recipe: str | None = None) -> dict[str, Any]:
    """What `frustum weights inspect` shows. Raises CheckpointError for an unsafe or damaged file."""
    from frustum.engine.checkpoint import decode_header
    from frustum.engine.preprocessing import stored_in
    from frustum.nn.state_files import open_state
    from frustum.recipes.checkpoints import SOURCES, adapter_named, fit_of, sha256

    opened = open_state(file)
    header = decode_header(opened.metadata)
    parts, values = Counter(key.partition(".")[0] for key in opened.state), Counter[str]()
    for key, tensor in opened.state.items():
        values[key.partition(".")[0]] += tensor.numel()
    found: dict[str, Any] = {
        "file": str(file), "entries": len(opened.state), "values": sum(values.values()), "bytes": file.stat().st_size,
        "sha256": sha256(file), "layout": opened.layout, "details": opened.details,
    }  # fmt: skip
    if needs := stored_in(header, str(file)):
        recipe_name = header["recipe"].get("name", "") if isinstance(header.get("recipe"), dict) else ""
        found |= {"recipe": recipe_name, "preprocessing": needs, "upstream": header.get("upstream", {})}
    for source in SOURCES:
        adapter = adapter_named(source)
        layout = adapter.layout_of(opened.state)
        if layout is not None:
            found |= {"source": source, "channels": layout._asdict(), "about": adapter.describe(layout)}
    if recipe is not None:
        found["fit"] = f"with {recipe}: {fit_of(opened.state, recipe)}"
    return found | {"parts": {part: (count, values[part]) for part, count in parts.items()}}


@app.command(
    "convert",
    epilog=examples(
        "frustum weights convert flashocc-r50-M0-256x704.pth --source flashocc -o m0.safetensors",
        "frustum weights convert bevdet-r50-cbgs.pth --recipe flashocc-r50 --partial -o start.safetensors",
    ),
)
@verb
def convert(
    file: FileArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="file to write, .safetensors")],
    source: Annotated[str, typer.Option("--source", help="upstream project of the file")] = "flashocc",
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="recipe to convert for; by default the one that the file belongs to", show_default=False)
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="keep what fits the recipe, instead of refusing a file that differs")] = False,
    json_file: JsonOption = None,
) -> None:
    """Turn an official checkpoint into a weights file of ours, which knows how its images must be prepared. No code in it is run."""
    from frustum.recipes.checkpoints import convert as run

    done = run(file, out, source, recipe, partial)
    say(f"{out}: {done.fit}.")
    if done.fit.missing or done.fit.reshaped:
        say(f"It lacks a part of {done.recipe}. Next: frustum train {done.recipe} --init {out}")
    else:
        say(f"Next: frustum eval {done.recipe} --checkpoint {out} data.root=FOLDER")
    write_json(json_file, {"recipe": done.recipe, "upstream": done.upstream, **asdict(done.fit)})
