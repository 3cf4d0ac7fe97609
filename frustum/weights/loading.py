"""`frustum.load`: from a recipe's name and a file of weights to a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from frustum.config import Config
from frustum.engine.recipe import Recipe
from frustum.recipes.finding import get_recipe, is_run
from frustum.weights.checkpoints import build_network, open_checkpoint, settle


def load(
    recipe: str | Path | Recipe,
    checkpoint: str | Path | Mapping[str, Any] | None = None,
    source: Literal["frustum", "official", "flashocc"] = "frustum",
    strict: bool = True,
    **overrides: Any,
) -> nn.Module:
    """A network in eval mode that keeps the contract of docs/add_a_method.md: forward, loss, predict.

        model = frustum.load("runs/mine")                                                            # a run, with its weights
        model = frustum.load("flashocc-r50-m0", "flashocc-r50-M0-256x704.pth", source="official")
        outputs = model(frustum.Batch.from_arrays(images, intrinsics, cam2ego))

    Its attribute `preprocessing` says how images must be prepared: `model.preprocessing["data.channel_order"]` and so on.

    Args:
        recipe: a recipe's name, an import path `pkg.mod:function`, a Recipe, or the folder of a run, which is the recipe as it was run.
        checkpoint: a file or run folder of ours, a file of the upstream project, a state dict (tensors or numpy arrays), or None for the
            run's own weights, or the recipe's initial ones.
        source: `official` reads the layouts of the upstream project (mmcv, EMA, `module.` prefixes), takes the widths of the layers from
            the file and switches the network to the published behaviour where ours is another by default (FlashOCC: voxel indices
            rounded towards zero). The project's name (`flashocc`) means the same. Files that `frustum weights convert` wrote need no
            source: they carry all that.
        strict: refuse weights that do not fit exactly; off, what fits is taken, and a warning lists what was and what was not.
        overrides: settings of the model (`bev_channels=64`); other settings by their path: `**{"data.image_size": (96, 256)}`. They win
            over what the weights carry, with a warning.

    Raises:
        ConfigError: unknown recipe, setting or source, or a recipe without official weights.
        CheckpointError: missing, damaged or unsafe file; keys or shapes that differ, listed.
    """
    if not isinstance(recipe, Recipe):
        if checkpoint is None and is_run(recipe):
            checkpoint = recipe
        recipe = get_recipe(recipe)
    texts = [f"{_path(key)}={_text(value)}" for key, value in overrides.items()]
    opened = None if checkpoint is None else open_checkpoint(checkpoint, recipe, source)
    return build_network(settle(recipe, texts, source, opened), opened, strict)


def _path(key: str) -> str:
    return key if "." in key or key in Recipe.model_fields else f"model.{key}"


def _text(value: Any) -> str:
    if isinstance(value, Config):
        return value.model_dump_json()
    return value if isinstance(value, str) else json.dumps(value)
