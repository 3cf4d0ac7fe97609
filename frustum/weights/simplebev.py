"""Published checkpoints of SimpleBEV (github.com/aharley/simple_bev). Our modules carry their key names, so nothing is renamed.

What they need that is not in the file: features sampled as its code samples them, maps in the frame of CAM_FRONT, and offsets to centres
that are twice as large as they should be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from frustum.models.simplebev import SimpleBevConfig
from frustum.types.contract import ModelConfig
from frustum.weights.adapter import Found, Origin

SOURCE = "simplebev"

RECIPES = {
    "resnet101": "simplebev-r101", "resnet50": "simplebev-r50", "efficientnet_b4": "simplebev-b4", "efficientnet_b0": "simplebev-b0",
}  # fmt: skip
"""The recipe of each encoder."""

NEEDS: dict[str, Any] = {
    "channel_order": "rgb",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "map_frame": "lidar",
    "crop_h": [0.0, 0.0],
    "eval_resize": 0.0,
    "sampling": "reference",
    "rule": "simplebev",
    "doubled_offsets": True,
}

_LAST, _JOIN, _CLASSES = "encoder.depth_layer.weight", "bev_compressor.0.weight", "decoder.segmentation_head.3.weight"
_BLOCKS = {(23, 0): "resnet101", (6, 0): "resnet50", (0, 22): "efficientnet_b4", (0, 11): "efficientnet_b0"}


def settings_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of `SimpleBevConfig` that a state dict shows; empty if it is not a network of this project."""
    if any(key not in state for key in (_LAST, _JOIN, _CLASSES)):
        return {}
    counts = (_count(state, r"encoder\.layer3\.(\d+)\."), _count(state, r"encoder\.backbone\._blocks\.(\d+)\."))
    channels = state[_LAST].shape[0]
    found = {"encoder": _BLOCKS.get(counts, "unknown"), "channels": channels, "heights": state[_JOIN].shape[1] / channels}
    return found | {"feature_head": "decoder.feat_head.0.weight" in state, "classes": state[_CLASSES].shape[0]}


def translated(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state dict as it is: our modules have these names."""
    return state


def reads(config: ModelConfig) -> bool:
    """Whether the project has weights for networks of this kind: those whose encoder is one of its own."""
    return isinstance(config, SimpleBevConfig) and config.encoder in RECIPES


def identify(state: Mapping[str, Tensor]) -> Found:
    """What a state dict is, and which recipe loads it."""
    settings = settings_of(state)
    if not settings:
        return Found("not a network of SimpleBEV, which has a bev_compressor and a decoder.segmentation_head.")
    shown = f"the file has encoder {settings['encoder']}, {settings['channels']} channels, {settings['classes']} classes"
    if settings["encoder"] not in RECIPES or settings["heights"] != int(settings["heights"]):
        about = f"{shown}, and reads {settings['heights']:g} heights of image features: with radar, LiDAR, or another encoder"
        return Found(f"{about}. Only networks of images alone are built here.", is_consistent=False, channels=settings)
    recipe = RECIPES[settings["encoder"]]
    doubled = "It predicts doubled offsets to centres (model.loss.doubled_offsets)."
    return Found(f"{shown}, {settings['heights']:g} heights: that is the recipe {recipe!r}. {doubled}", recipe, "", True, settings)


def widths(state: Mapping[str, Tensor], config: Any) -> list[str]:
    """Settings that a file needs in addition to those of `config`; none for another encoder: strict loading says what differs."""
    settings = settings_of(state)
    if not settings or not reads(config) or settings["encoder"] != config.encoder:
        return []
    names = ("channels", "feature_head")
    return [f"model.{name}={str(settings[name]).lower()}" for name in names if getattr(config, name) != settings[name]]


def needs(state: Mapping[str, Tensor] | None, origin: Origin | None = None) -> dict[str, Any]:
    """`NEEDS`."""
    return NEEDS


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers the group of the pattern takes at the start of keys."""
    return len({found[1] for key in state if (found := re.match(pattern, key))})
