"""Checkpoints of PSPNet: those of TorchDistiller (github.com/irfanICMLL/TorchDistiller, SemSeg-distill) and of OpenMMLab (pspnet_r101-d8).

No such file was opened here. TorchDistiller's networks, and that their norms are InPlaceABN, are read from its code; the names in the files
of both projects, and how their images are prepared, are recalled. Strict loading lists what differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from frustum.models.pspnet import PspNetConfig
from frustum.types.contract import ModelConfig
from frustum.weights.adapter import Found, Origin

SOURCE = "pspnet"

# By the stem: three convolutions of 64, 64, 128 channels are TorchDistiller's, of 32, 32, 64 OpenMMLab's.
NEEDS: dict[str, dict[str, Any]] = {
    "3x3_wide": {
        "conventions": "reference", "channel_order": "bgr", "mean": [104.00698793, 116.66876762, 122.67891434], "std": [1.0, 1.0, 1.0],
    },
    "3x3": {"conventions": "clean", "channel_order": "rgb", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
}  # fmt: skip

_EPS = 1e-5  # InPlaceABN's norms multiply by |weight| + this
_PSP, _JOINED, _CLASSES = "decode_head.psp_modules.0.1.conv.weight", "decode_head.bottleneck.conv.weight", "decode_head.conv_seg.weight"
_AUXILIARY = "auxiliary_head.convs.0.conv.weight"
_ENCODERS = {(2, False): "resnet18", (6, True): "resnet50", (23, True): "resnet101"}  # blocks of layer3, which are bottlenecks
_STEMS: dict[tuple[int, ...], str] = {(64, 3, 7, 7): "7x7", (32, 3, 3, 3): "3x3", (64, 3, 3, 3): "3x3_wide"}  # by the first convolution
_RECIPES = {"resnet18": "pspnet-r18-cityscapes", "resnet50": "pspnet-r101-cityscapes", "resnet101": "pspnet-r101-cityscapes"}
_ALIKE = {(encoder, encoder) for encoder in _RECIPES} | {("resnet50", "resnet101")}  # of a file, and of the recipe that loads it

_OPENMMLAB_STEM = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
# TorchDistiller's names in ours; its head may hold the pyramid (`head.0`) or stand beside it (`pspmodule`).
_TORCHDISTILLER = (
    (r"((?:conv|bn)[1-3]|layer[1-4])\.", r"backbone.\1."),
    (r"(?:pspmodule|head\.0)\.stages\.(\d)\.1\.", r"decode_head.psp_modules.\1.1.conv."),
    (r"(?:pspmodule|head\.0)\.stages\.(\d)\.2\.", r"decode_head.psp_modules.\1.1.bn."),
    (r"(?:pspmodule|head\.0)\.bottleneck\.0\.", "decode_head.bottleneck.conv."),
    (r"(?:pspmodule|head\.0)\.bottleneck\.1\.", "decode_head.bottleneck.bn."),
    (r"head\.(?:1\.)?(weight|bias)", r"decode_head.conv_seg.\1"),
    (r"dsn\.0\.", "auxiliary_head.convs.0.conv."),
    (r"dsn\.1\.", "auxiliary_head.convs.0.bn."),
    (r"dsn\.3\.", "auxiliary_head.conv_seg."),
)


def translated(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict of either project in the names and conventions of our network; any other one as it is.

    Of TorchDistiller: weights of norms become |weight| + 1e-5; the means, which its pyramid puts ahead of the map, come behind it; and the
    bias of the convolution ahead of the auxiliary head's norm is taken from that norm's mean.
    """
    if any(re.match(r"(?:pspmodule|head\.0)\.stages\.", key) for key in state):
        return _from_torchdistiller(state)
    if _PSP not in state:
        return state
    found = {}
    for key, value in state.items():
        stem = re.fullmatch(r"backbone\.stem\.([013467])\.(\w+)", key)
        found[f"backbone.{_OPENMMLAB_STEM[stem[1]]}.{stem[2]}" if stem else key] = value
    return found


def _from_torchdistiller(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        pattern, name = next((pair for pair in _TORCHDISTILLER if re.match(pair[0], key)), ("", ""))
        is_norm = value.ndim == 1 and key.endswith(".weight")
        found[re.sub(f"^{pattern}", name, key)] = value.abs() + _EPS if is_norm else value
    if (joined := found.get(_JOINED)) is not None:
        means = sum(value.shape[0] for key, value in found.items() if re.fullmatch(r"decode_head\.psp_modules\.\d\.1\.conv\.weight", key))
        found[_JOINED] = torch.cat((joined[:, means:], joined[:, :means]), 1)
    bias, mean = "auxiliary_head.convs.0.conv.bias", "auxiliary_head.convs.0.bn.running_mean"
    if bias in found and mean in found:
        found[mean] = found[mean] - found.pop(bias)
    return found


def settings_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of `PspNetConfig` that a state dict shows, and its number of `classes`; empty if it is not such a network."""
    state = translated(state)
    if any(key not in state for key in (_PSP, _JOINED, _CLASSES, "backbone.conv1.weight")):
        return {}
    blocks = {block[1] for key in state if (block := re.match(r"backbone\.layer3\.(\d+)\.", key))}
    found: dict[str, Any] = {
        "encoder": _ENCODERS.get((len(blocks), "backbone.layer3.0.conv3.weight" in state), "unknown"),
        "stem": _STEMS.get(tuple(state["backbone.conv1.weight"].shape), "unknown"),
        "channels": state[_JOINED].shape[0],
        "classes": state[_CLASSES].shape[0],
    }
    return found | ({"auxiliary_channels": state[_AUXILIARY].shape[0]} if _AUXILIARY in state else {"auxiliary_weight": 0.0})


def reads(config: ModelConfig) -> bool:
    """Whether the projects have weights for networks of this kind: not for those with the small encoder."""
    return isinstance(config, PspNetConfig) and config.encoder != "efficientnet_lite0"


def identify(state: Mapping[str, Tensor]) -> Found:
    """What a state dict is, and which recipe loads it."""
    settings = settings_of(state)
    if not settings:
        return Found("not a PSPNet, which has pspmodule.stages (TorchDistiller) or decode_head.psp_modules (OpenMMLab).")
    shown = f"the file has {', '.join(f'{name} {value}' for name, value in settings.items())}"
    if "unknown" in settings.values() or (settings["encoder"], settings["stem"]) == ("resnet18", "3x3"):
        about = f"{shown}: only ResNet-50 and 101 of both projects and ResNet-18 of TorchDistiller are read."
        return Found(about, is_consistent=False, channels=settings)
    recipe = _RECIPES[settings["encoder"]]
    other = "" if settings["classes"] == 19 else " The names of its classes are not in it: model.class_names."
    return Found(f"{shown}: that is the recipe {recipe!r} with these settings.{other}", recipe, "", True, settings)


def widths(state: Mapping[str, Tensor], config: Any) -> list[str]:
    """Settings that a file needs in addition to those of `config`; none for another encoder than its recipe has."""
    settings = settings_of(state)
    if not settings or not reads(config) or (settings["encoder"], config.encoder) not in _ALIKE:
        return []
    return [f"model.{key}={value}" for key, value in settings.items() if key != "classes" and getattr(config, key) != value]


def needs(state: Mapping[str, Tensor] | None, origin: Origin | None = None) -> dict[str, Any]:
    """The entry of `NEEDS` for the stem of a file; nothing where it is neither project's."""
    return NEEDS.get(settings_of(state).get("stem", ""), {}) if state else {}
