"""A run folder: the resolved recipe, what made it, the metrics line by line, checkpoints, the final weights.

recipe.json          the resolved recipe with its class paths, the overrides, versions, git commit and seed
metrics.jsonl        one JSON object per logged step
tensorboard/         the same for TensorBoard, where it is installed
statistics.npz       class counts of the training split
checkpoints/step_*/  full state for an exact resume; the newest ones are kept
weights.safetensors  the result: averaged weights, written when training ends
eval.json            figures of `frustum eval`, with the digest of the weights they belong to; baselines.json next to it
eval_fog-3.json      the same on corrupted images, a file for each corruption
robustness.json      figures of `frustum robustness`; with settings robustness_*.json
report/              pages of `frustum report`
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from frustum.config import differences, in_words
from frustum.engine.recipe import Recipe
from frustum.engine.reports import BASELINES, EVALUATION, ROBUSTNESS
from frustum.engine.sections import restored, stored
from frustum.errors import ConfigError
from frustum.files import read_json, write_error, write_json
from frustum.version import __version__

FREE_TO_CHANGE = (
    "name", "train.steps", "train.epochs", "train.num_workers", "train.checkpoint_every", "train.keep_checkpoints", "train.log_every",
    "data.cache", "data.val_split", "eval", "published", "runtime.device", "distill.teacher",
)  # fmt: skip
"""Settings that may differ between a run and its resumption: they do not change what a step computes from the state before it. Of a
teacher, whose folder may have been moved, the weights must be the same.

With the schedules cosine, poly and one_cycle another length (train.steps, train.epochs) changes the learning rates of all steps that are
still to come, since the curve then ends elsewhere; the steps already taken are not repeated, so the run is another one than a run of that
length from the start.
"""


@dataclass(frozen=True)
class Run:
    """What recipe.json says."""

    folder: Path
    recipe: Recipe
    source: str
    overrides: tuple[str, ...]
    version: str
    commit: str | None


def save_run(folder: Path | str, recipe: Recipe, *, source: str | None = None, overrides: Sequence[str] = ()) -> None:
    """Write recipe.json: everything that is needed to repeat the run. `source` is the recipe's name or import path.

    Raises:
        DataError: the folder is read-only or full.
    """
    called = {"source": source or recipe.name, "overrides": list(overrides)}
    versions = {"frustum": __version__, "torch": torch.__version__, "commit": git_commit()}
    content = called | stored(recipe) | {"seed": recipe.train.seed} | versions
    write_json(Path(folder) / "recipe.json", content, indent=2)


def load_run(folder: Path | str, code: Collection[str] = ()) -> Run:
    """The run that lives in `folder`; `code` names modules whose classes it may import (engine/sections.py).

    Raises:
        DataError: there is no readable recipe.json. ConfigError: this version cannot use it, or may not import what it names.
    """
    path = Path(folder) / "recipe.json"
    content = read_json(path, "description of the run")
    if not isinstance(content, dict):
        raise ConfigError(f"{path} does not describe a run: it holds a {type(content).__name__}, where a JSON object is needed.")
    recipe, overrides = restored(content, str(folder), code), content.get("overrides", [])
    if not isinstance(overrides, list) or not all(isinstance(word, str) for word in overrides):
        raise ConfigError(f"the overrides in {path} are {overrides!r:.200}, where a list of key=value is needed.")
    source, overrides = str(content.get("source", recipe.name)), tuple(overrides)
    return Run(Path(folder), recipe, source, overrides, str(content.get("frustum", "")), content.get("commit"))


def require_same(recipe: Recipe, folder: Path) -> None:
    """Raise ConfigError if the run in `folder` was made with other settings than `recipe`, naming each; see FREE_TO_CHANGE.

    The data may have been moved: another data.root is fine once the old one is gone. Other keyframes in it are found when it is opened.
    """
    previous = load_run(folder).recipe
    found = differences(previous.model_dump(mode="json"), recipe.model_dump(mode="json"))
    fixed = {path: pair for path, pair in found.items() if not any(path == free or path.startswith(free + ".") for free in FREE_TO_CHANGE)}
    if Path(recipe.data.root).exists() and not Path(previous.data.root).exists():
        fixed.pop("data.root", None)
    if recipe.augment.horizon is None:  # not stated, and measured by the run
        fixed.pop("augment.horizon", None)
    if fixed:
        advice = "Give the same settings to resume it, another --out FOLDER, or --fresh to delete it."
        raise ConfigError(f"{folder} holds a run with other settings: {in_words(fixed)}. {advice}")


def changed_length(recipe: Recipe, folder: Path) -> str:
    """A sentence about a run in `folder` that is resumed with another length, where that changes its learning rates; else ""."""
    names = {"steps", "epochs"}
    old, new = (r.train.model_dump(mode="json", include=names) for r in (load_run(folder).recipe, recipe))
    found = differences(old, new, "train")
    if not found or recipe.optim.schedule in ("constant", "step"):
        return ""
    return (
        f"{in_words(found)}: the {recipe.optim.schedule} schedule now ends elsewhere, so the learning rates of all steps to come differ "
        "from those of the earlier length, and this is not what a run of the new length from the start gives"
    )


def clear_run(folder: Path) -> None:
    """Remove what an earlier run left in `folder`, its numbers and report included; other files there stay. Raises DataError."""
    try:
        for name in ("checkpoints", "tensorboard", "report"):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
        made = ("metrics.jsonl", "recipe.json", "weights.safetensors", "statistics.npz", "speedtest.json")
        numbers = (EVALUATION, BASELINES, ROBUSTNESS)
        for path in (*(folder / name for name in made + numbers), *folder.glob("eval_*.json"), *folder.glob("robustness_*.json")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def git_commit() -> str | None:
    """Commit of the checkout that frustum is imported from, with `-dirty` when files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
