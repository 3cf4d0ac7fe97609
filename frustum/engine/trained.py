"""A trained network of ours, from its run folder or its weights file; `frustum.load` also reads those of other projects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from frustum.checkpoint.fit import renamed
from frustum.checkpoint.weights_file import WEIGHTS, load_state, read_weights
from frustum.config import Config
from frustum.engine.recipe import Recipe
from frustum.engine.run import load_run
from frustum.engine.sections import check_resize, restored
from frustum.errors import CheckpointError


def open_trained(path: Path | str) -> tuple[Recipe, nn.Module]:
    """The recipe that weights were trained by, and their network in evaluation mode.

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
    recipe = load_run(path).recipe if has_own else restored(header, str(path))
    network = empty_network(recipe)
    load_state(network, renamed(state, recipe.model.renamed), str(path))
    return recipe, network.eval()


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
