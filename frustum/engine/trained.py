"""A trained network of ours, from its run folder or its weights file; `frustum.load` also reads those of other projects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from frustum.checkpoint.fit import renamed
from frustum.checkpoint.weights_file import WEIGHTS, load_state, read_weights
from frustum.config import Config
from frustum.engine.recipe import Recipe
from frustum.engine.run import load_run
from frustum.engine.sections import check_resize, restored
from frustum.errors import CheckpointError

V = TypeVar("V")


def open_trained(path: Path | str, code: Collection[str] = ()) -> tuple[Recipe, nn.Module]:
    """The recipe that weights were trained by, and their network in evaluation mode; `code` names modules whose classes it may import.

    Raises:
        CheckpointError: no such file or run, a run that is not finished, a file of another project, or one that is damaged.
        ConfigError: it names classes that may not be imported, or its recipe is none of this version.
    """
    path = Path(path)
    if path.is_dir() and not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path} holds no {WEIGHTS}: give the folder of a training that is finished, or a weights file.")
    state, header = read_weights(path)
    has_own = (path / "recipe.json").is_file()
    if not has_own and "classes" not in header:
        raise CheckpointError(
            f"{path} does not say which network its weights are of. Convert it: frustum weights convert {path} --recipe NAME -o FILE."
        )
    check_resize(header, str(path))
    recipe = load_run(path, code).recipe if has_own else restored(header, str(path), code)
    network = empty_network(recipe)
    load_state(network, renamed(of_student(state, header), recipe.model.renamed), str(path))
    return recipe, network.eval()


def of_student(state: Mapping[str, V], header: Mapping[str, Any]) -> Mapping[str, V]:
    """Of a snapshot of a network beside its teacher (engine/distill.py) that network's weights, in its own names; others as they are."""
    recipe, prefix = header.get("recipe"), "student."
    is_beside = isinstance(recipe, Mapping) and recipe.get("distill") and all(key.startswith((prefix, "adapters.")) for key in state)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)} if is_beside else state


def empty_network(recipe: Recipe) -> nn.Module:
    """The recipe's network about to be filled: its encoder starts from no package's weights."""
    return _from_scratch(recipe.model).build()


def _from_scratch(config: Any) -> Any:
    """The config with `pretrained=false`, its own and that of networks that it holds."""
    changes: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name == "pretrained":
            changes[name] = False
        elif isinstance(value, Config):
            changes[name] = _from_scratch(value)
    return config.model_copy(update=changes)
