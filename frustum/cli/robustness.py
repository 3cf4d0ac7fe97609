"""Evaluate networks on clean and on corrupted images; every finished evaluation is kept, so that the same command goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from frustum.checkpoint.weights_file import digest
from frustum.cli.common import say, write_json
from frustum.cli.evaluation import print_table
from frustum.cli.resolve import is_run, open_data, open_network
from frustum.data.corruption_names import CORRUPTIONS, LEVELS, OF_RIGS, Corruption, check_name
from frustum.data.source import Source, cameras_of
from frustum.engine.evaluate import evaluate
from frustum.engine.recipe import Recipe
from frustum.engine.reports import ROBUSTNESS, EvalReport
from frustum.engine.robustness import CLEAN, difference_tables, robustness_tables, summary
from frustum.errors import ConfigError, DataError
from frustum.files import read_json
from frustum.locks import sole_owner
from frustum.version import __version__


def measure_robustness(
    runs: Sequence[str], overrides: Sequence[str] = (), corruptions: str = "", levels: str = "", code: Sequence[str] = ()
) -> dict[str, Any]:
    """What `frustum robustness` does; returns for each run what its file of figures holds.

    That is robustness.json; with settings it is one of those settings, so that a quick look replaces nothing.

    Args:
        runs: folders of runs, or weights files.
        overrides, code: as `open_network` takes them.
        corruptions, levels: separated by commas; by default all that the data set's cameras can have.

    Raises:
        ConfigError: an unknown corruption or level, `eval.corruption` among the settings, or one run given twice.
        DataError, CheckpointError: as in an evaluation. OutputError: another process measures this run with these settings.
    """
    asked, chosen = _names(corruptions), _levels(levels)
    if len(set(runs)) < len(runs):
        raise ConfigError(f"a run is given twice: {' '.join(runs)}. Give each once.")
    if any(word.startswith("eval.corruption=") for word in overrides):
        raise ConfigError("eval.corruption is set for each evaluation here. Choose with --corruptions fog,snow --levels 3.")
    opened = {name: open_network(name, overrides, code=code) for name in runs}
    sources = {name: open_data(recipe, name) for name, (recipe, _) in opened.items()}
    names = asked or [name for name in CORRUPTIONS if all(_possible(name, opened[run][0], sources[run]) for run in runs)]
    if left_out := [name for name in CORRUPTIONS if name not in names and not asked]:
        say(f"left out, as these are no rigs of several cameras: {', '.join(left_out)}")
    numbers, found = {}, {}
    for run, (recipe, network) in opened.items():
        name = f"robustness_{_settings(recipe)[:8]}.json" if overrides else ROBUSTNESS
        file = Path(run) / name if is_run(run) else Path(run).with_name(f"{Path(run).stem}-{name}")
        with sole_owner(file.parent, "frustum robustness", "or settings", file=f".{file.name}-lock"):
            numbers[run], found[run] = _measured(recipe, network, sources[run], file, names, chosen)
        say("")
        for table in robustness_tables(found[run], names, chosen, title=run):
            print_table(table)
        say(f"all figures of these evaluations are in {file}")
    for table in difference_tables(found, names, chosen) if len(runs) > 1 else ():
        print_table(table)
    return numbers


def _measured(
    recipe: Recipe, network: nn.Module, source: Source, file: Path, names: Sequence[str], levels: Sequence[int]
) -> tuple[dict[str, Any], dict[str, EvalReport]]:
    """What the file holds in the end, and the reports that were asked for; evaluations that it holds already are not made again."""
    wanted = [CLEAN, *(str(Corruption(name, level)) for name in names for level in levels)]
    head = {"name": recipe.name, "weights": digest(network), "settings": _settings(recipe), "frustum": __version__}
    kept = _kept(file, head)
    for number, name in enumerate(wanted, 1):
        if name in kept:
            continue
        say(f"[{number}/{len(wanted)}] {recipe.name}, {name}")
        corruption = None if name == CLEAN else name
        changed = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"corruption": corruption})})
        kept[name] = evaluate(changed, network, source)
        write_json(file, _content(head, kept))
    return _content(head, kept), {name: kept[name] for name in wanted}


def _content(head: dict[str, Any], kept: dict[str, EvalReport]) -> dict[str, Any]:
    return head | {"summary": summary(kept), "evaluations": {name: report.numbers() for name, report in kept.items()}}


def _kept(file: Path, head: dict[str, Any]) -> dict[str, EvalReport]:
    """The reports in a file that were made with these weights, settings and version; none if it is missing or damaged."""
    stored: Any = {}
    with suppress(DataError):
        stored = read_json(file, "figures on corrupted images")
    if not isinstance(stored, dict) or any(stored.get(key) != value for key, value in head.items()):
        return {}
    with suppress(DataError, AttributeError):
        kept = {name: EvalReport.from_numbers(numbers) for name, numbers in stored.get("evaluations", {}).items()}
        return {name: report for name, report in kept.items() if (report.corruption or CLEAN) == name}
    return {}


def _settings(recipe: Recipe) -> str:
    """Equal only for settings that give equal figures."""
    parts = recipe.model_dump(mode="json", include={"model", "data", "augment", "eval"}) | {"precision": recipe.runtime.precision}
    parts["eval"] = {key: value for key, value in parts["eval"].items() if key not in ("corruption", "batch_size")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _possible(name: str, recipe: Recipe, source: Source) -> bool:
    """Whether the cameras of a data set can have a corruption."""
    if name not in OF_RIGS:
        return True
    return recipe.data.has_rigs and (name != "camera_crash" or cameras_of(source, recipe.data.val_split) > 1)


def _names(words: str) -> list[str]:
    names = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        check_name(name)
    return names


def _levels(words: str) -> list[int]:
    given = [word.strip() for word in words.split(",") if word.strip()]
    if wrong := [word for word in given if word not in map(str, LEVELS)]:
        said = ", ".join(f"{number} ({word})" for number, word in LEVELS.items())
        raise ConfigError(f"--levels {wrong[0]}: the levels are {said}. Give some of them, as --levels 1,3.")
    return sorted({int(word) for word in given}) or list(LEVELS)
