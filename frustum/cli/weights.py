"""Verbs about published weights: `frustum weights list|inspect|convert`."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from frustum.cli.common import JsonOption, OverridesArgument, command, optional, say, split_overrides, table, write_json
from frustum.errors import ConfigError, FrustumError, nearest_names
from frustum.weights.catalogue import CATALOGUE, SOURCES, UNKNOWN, Entry, entries

app = typer.Typer(no_args_is_help=True, help="Published weights: what there is, what is in a file, and how it becomes one of ours.")
INSPECT = "For a file: frustum weights inspect FILE"
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="a .pth or .safetensors file")]


@command(app, "list", "frustum weights list panoptic", "frustum weights list flashocc-r50-M0", "frustum weights list --markdown")
def list_(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="an entry, with all that is known of it; or a part of its name, for all that have it", show_default=False
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the table of docs/weights.md")] = False,
    json_file: JsonOption = None,
) -> None:
    """List published weights: where their authors publish them, under which licence, and which recipe loads them. Nothing is downloaded."""
    listed = entries(name or "")
    if name and not listed:
        hint = nearest_names(name, [e.name for e in CATALOGUE])
        raise ConfigError(f"the catalogue has no entry {name!r}; {hint} `frustum weights list` shows all. {INSPECT}")
    if name and markdown:
        raise ConfigError("--markdown prints the whole table: leave out NAME.")
    if markdown:
        say(as_markdown())
    elif len(listed) == 1:
        say(details_of(listed[0]))
    else:
        for e in listed:
            recipe = f"recipe {e.recipe}" if e.recipe else "no recipe yet"
            say(f"{e.name}\n    {'; '.join(filter(None, (recipe, e.published, e.status)))}")
        advice = "the figures (%) are the authors'. Where to get one, and its licence: frustum weights list NAME."
        say(f"\n{len(listed)} entries; {advice} {INSPECT}")
    write_json(json_file, {e.name: {key: value for key, value in e._asdict().items() if key != "name"} for e in listed})


def details_of(e: Entry) -> str:
    """All that is known of an entry, a fact per line so that each can be copied whole."""
    size = f"{e.size:,} bytes" if isinstance(e.size, int) else e.size
    figure = f"{e.published} (%)" if e.published else "no figure"
    rows = e._asdict() | {"name": "", "size": size, "published": figure, "recipe": e.recipe or "no recipe yet", "source": ""}
    lines = [e.name, *(f"  {key:<10} {value}" for key, value in rows.items() if value)]
    file = "FILE" if e.file == UNKNOWN or "," in e.file else e.file
    if e.recipe and e.source:
        lines.append(f"Next: frustum weights convert {file} --source {e.source} -o {e.recipe}.safetensors")
    return "\n".join(lines)


def as_markdown() -> str:
    """The catalogue as docs/weights.md shows it: a table, and the protocols that its figures were measured under."""
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


@command(app, "inspect", "frustum weights inspect flashocc-r50-M0-256x704.pth", "frustum weights inspect FILE --recipe flashocc-r50")
def inspect(
    file: FileArgument,
    recipe: Annotated[str | None, optional("--recipe", help="also say what of the file fits this recipe's network")] = None,
    json_file: JsonOption = None,
) -> None:
    """Say what is in a weights file: layout, parts, channel counts, the recipe that it belongs to, and what does not fit that one.

    No code in it is run. FILE may also be the folder of a run.
    """
    found = inspect_file(file, recipe)
    say(f"{file}: {found['entries']} entries, {found['values'] / 1e6:.3f} M values, {found['bytes']:,} bytes")
    for key, value in found.items():
        if key not in ("file", "entries", "values", "bytes", "channels", "parts") and value:
            text = value
            if isinstance(value, dict):
                text = ", ".join(f"{k} {v}" for k, v in value.items())
            elif isinstance(value, list):
                text = f"{len(value)}: {', '.join(value[:6])}{', ...' if value[6:] else ''}"
            say(f"{key:>14}  {text}")
    rows = [(part, str(count), f"{values / 1e6:.3f}") for part, (count, values) in found["parts"].items()]
    table("", ["part", "entries", "M values"], rows)
    write_json(json_file, found)


def inspect_file(file: Path, recipe: str | None = None) -> dict[str, Any]:
    """What `frustum weights inspect` shows. Raises CheckpointError for an unsafe or damaged file, ConfigError for an unknown recipe."""
    from frustum.checkpoint.integrity import not_finite, sha256
    from frustum.checkpoint.upstream_file import open_state
    from frustum.checkpoint.weights_file import WEIGHTS, decode_header
    from frustum.engine.taught import in_sentences, taught_of
    from frustum.recipes.finding import get_recipe
    from frustum.weights.conversion import diagnose, fit_of, kind_of
    from frustum.weights.upstream import adapter_of, has_official_weights

    if recipe is not None:
        get_recipe(recipe)  # a misspelt name is an error before a large file is read
    file = file / WEIGHTS if (file / WEIGHTS).is_file() else file
    opened = open_state(file)
    header = decode_header(opened.metadata)
    parts, values = Counter(key.partition(".")[0] for key in opened.state), Counter[str]()
    for key, tensor in opened.state.items():
        values[key.partition(".")[0]] += tensor.numel()
    found: dict[str, Any] = {
        "file": str(file), "entries": len(opened.state), "values": sum(values.values()), "bytes": file.stat().st_size,
        "sha256": sha256(file), "layout": opened.layout, "details": opened.details,
        "numbers": dict(Counter(map(kind_of, opened.state.values()))), "not finite": not_finite(opened.state),
    }  # fmt: skip
    is_ours = "recipe" in header
    if is_ours:
        found |= _trained(header, str(file)) | {"upstream": header.get("upstream", {})}
        found |= dict(line.split(": ", 1) for line in in_sentences(taught_of(header)))
    fit, compared = None, recipe
    adapter = adapter_of(opened.state)
    if channels := dict(adapter.identify(opened.state).channels):
        found |= {"source": adapter.SOURCE, "channels": channels}
    if not is_ours:  # ours say what they are
        upstream, fit = diagnose(opened.state, adapter)
        found["about"], compared = upstream.about, recipe or upstream.recipe
        if recipe is not None and not has_official_weights(get_recipe(recipe).model):
            del found["about"]  # which says only what is of upstream
    if recipe is not None:
        fit = fit_of(opened.state, recipe)
    if fit is not None:
        found["fit"] = f"with {compared}: {fit}"
        found |= {"missing": list(fit.missing), "unexpected": list(fit.unexpected), "other shape": list(fit.reshaped)}
    return found | {"parts": {part: (count, values[part]) for part, count in parts.items()}}


def _trained(header: dict[str, Any], what: str) -> dict[str, Any]:
    """What the header of a file of ours says: the recipe, what was changed of its network, and what travels with the weights."""
    from frustum.config import differences, travelling
    from frustum.engine.sections import as_words
    from frustum.recipes.finding import get_recipe, list_recipes
    from frustum.weights.loading import recipe_of

    try:
        trained = recipe_of(header, what)
    except FrustumError as error:  # a class that is not imported: the rest of the file can be shown
        return {"recipe": str(error)}
    known = get_recipe(trained.name) if any(info.name == trained.name for info in list_recipes()) else trained
    changed = differences(known.model.model_dump(mode="json"), trained.model.model_dump(mode="json"), "model")
    words = " ".join(shlex.quote(word) for word in as_words({path: new for path, (_, new) in changed.items()}))
    return {"recipe": trained.name, "trained with": words, "travels": travelling(trained)}


@command(
    app,
    "convert",
    "frustum weights convert flashocc-r50-M0-256x704.pth --source flashocc -o m0.safetensors",
    "frustum weights convert bevdet-r50-cbgs.pth --recipe flashocc-r50 --partial -o start.safetensors",
    "frustum weights convert mine.pth --recipe flashocc-tiny model.bev_channels=64 -o mine.safetensors",
)
def convert(
    file: FileArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="file to write, .safetensors")],
    overrides: OverridesArgument = None,
    source: Annotated[
        str | None,
        optional(
            "--source",
            help=f"upstream project of the file: {', '.join(SOURCES)}; or official, whichever it is; or frustum: a state dict that was "
            "trained here. By default frustum for a recipe without official weights, else official",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        optional("--recipe", help="recipe to convert for, or a run's folder; by default the one that the file belongs to"),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="keep what fits the recipe, instead of refusing a file that differs")] = False,
    json_file: JsonOption = None,
) -> None:
    """Turn an official checkpoint, or a state dict of yours, into a weights file that holds its recipe.

    No code in it is run. Images are prepared as the official code does, or, for weights that were trained here, as the recipe says.
    Half precision becomes float32, the networks' own type. Widths that contradict each other, and NaN, are refused.
    """
    from frustum.weights.conversion import convert as run

    words = split_overrides(overrides)
    done = run(file, out, source, recipe, partial, words)
    say(f"{out}: {done.fit}.")
    if done.source == "frustum":
        say(f"Its images are prepared as {done.recipe} says; what was otherwise in its training, add as KEY=VALUE.")
    else:
        say(f"Its images are prepared as {done.source}'s code does. A network trained here needs --source frustum --recipe NAME.")
    if done.fit.missing or done.fit.reshaped:
        say(f"It lacks a part of {done.recipe}. Next: frustum train {done.recipe} --init {out}")
    else:
        say(f"Next: frustum eval {out} data.root=FOLDER")
    write_json(json_file, {"recipe": done.recipe, "source": done.source, "upstream": done.upstream, **asdict(done.fit)})
