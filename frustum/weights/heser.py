"""Checkpoints of head swapping: HeSer.Pytorch and HeadSwap (github.com/LeslieZhoa), GHOST 2.0 (github.com/ai-forever/ghost-2.0).

Names and shapes of HeSer.Pytorch's networks and of GHOST 2.0's generator and discriminator are those of their code (golden/heser). No such
file was opened here: the names of the networks in the files (G, D, Epor, Epose, Eexp, Eid; gen., disc.) are read from the code, too, and
that HeadSwap's blender has the names of HeSer.Pytorch's is assumed. Strict loading lists what differs.

GHOST 2.0 reads identity and appearance by networks of its own, which are not built here; of its aligner the generator and the discriminator
are taken (`frustum weights convert --partial`). It works on BGR images: the first and last convolutions are turned to RGB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from frustum.errors import CheckpointError
from frustum.models.heser_aligner import HeserAlignerConfig
from frustum.models.heser_blender import HeserBlenderConfig
from frustum.types.contract import ModelConfig
from frustum.weights.adapter import Found, Origin

SOURCE = "heser"

# the start of upstream names, and of ours
_HESER = {
    "G.": "generator.", "D.": "discriminator.", "Epor.": "", "Epose.": "", "Eexp.": "", "Eid.facenet.": "id_encoder.",
}  # fmt: skip
_GHOST = {"gen.": "generator.", "disc.": "discriminator."}
_CONSTANT, _UNET = "constant.constant", "decoder.conv1_2.weight"
_POSE = "pose_encoder.classifier.1.weight"
# GHOST 2.0's parts that end in, or begin with, the three channels of an image
_FROM_IMAGE = ("discriminator.down_block.0.", "discriminator.skip.0.")
_TO_IMAGE = "generator.rgb_head.2."


def translated(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict of these projects in the names of our networks, without the layers that no result depends on; any other as it is."""
    if f"gen.{_CONSTANT}" in state:
        return {key: _as_rgb(key, value) for key, value in _renamed(state, _GHOST).items()}
    if f"G.{_CONSTANT}" not in state and f"G.{_UNET}" not in state:
        return state
    return {key: value for key, value in _renamed(state, _HESER).items() if ".feature_ext.conv5_" not in key}


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        start = next((start for start in names if key.startswith(start)), "")
        found[names.get(start, "") + key.removeprefix(start)] = value
    return found


def _as_rgb(key: str, value: Tensor) -> Tensor:
    """The entry with the channels of images the other way round."""
    if key.startswith(_TO_IMAGE) and not key.endswith("weight_v"):
        return value.flip(0)
    if key.startswith(_FROM_IMAGE) and key.endswith("weight_orig"):
        return value.flip(1)
    if key.startswith(_FROM_IMAGE) and key.endswith("weight_v"):
        return value.view(3, -1).flip(0).flatten()
    return value


def settings_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of `HeserAlignerConfig` or of `HeserBlenderConfig` that a state dict shows; empty if it is neither network."""
    state = translated(state)
    if f"generator.{_UNET}" in state and "generator.phi.weight" in state and "generator.feature_ext.conv1_1.weight" in state:
        parts = {"width": _UNET, "feature_width": "feature_ext.conv1_1.weight", "match_channels": "phi.weight"}
        return {name: state[f"generator.{key}"].shape[0] for name, key in parts.items()}
    if f"generator.{_CONSTANT}" not in state:
        return {}
    blocks = {int(block[1]) for key in state if (block := re.match(r"generator\.decoder_blocks\.(\d+)\.block\.", key))}
    has_mask = "generator.mask_head.2.weight_orig" in state
    last = state.get("generator.rgb_head.2.weight_orig" if has_mask else f"generator.decoder_blocks.{len(blocks) + 2}.weight_orig")
    if last is None or len(blocks) < 3:
        return {}
    found: dict[str, Any] = {"image_size": 4 * 2 ** (len(blocks) - 2), "channels": last.shape[1]}
    found |= {"max_channels": state[f"generator.{_CONSTANT}"].shape[1], "has_mask": has_mask}
    codes = {"appearance_code": "por_encoder.fc.weight", "pose_code": _POSE, "expression_code": "exp_encoder.classifier.1.weight"}
    found |= {name: state[key].shape[0] for name, key in codes.items() if key in state}
    if "discriminator.linear.weight_orig" in state:
        found |= {"discriminator": "residual", "expression_code": 0}
    return found


def reads(config: ModelConfig) -> bool:
    """Whether the projects have weights for networks of this kind: not for the aligner with small encoders."""
    return isinstance(config, HeserBlenderConfig) or (isinstance(config, HeserAlignerConfig) and config.encoders == "published")


def identify(state: Mapping[str, Tensor]) -> Found:
    """What a state dict is. No recipe is named: the user names one of the network's kind."""
    state, settings = translated(state), settings_of(state)
    if not settings:
        return Found("not a network of head swapping, which has an AdaIN generator or a blending U-Net.")
    shown = ", ".join(f"{name} {value}" for name, value in settings.items())
    if "match_channels" in settings:
        about = f"the blender of HeSer.Pytorch or HeadSwap ({shown}). Which of both is not in the file: {_CONVENTIONS}."
        return Found(about, channels=settings)
    if "discriminator" in settings:
        about = f"the aligner of GHOST 2.0 ({shown}), of which the generator and the discriminator are read. Keep them with --partial."
        return Found(about, channels=settings)
    if _POSE not in state:
        return Found(f"an aligner ({shown}). {_NO_POSE}", is_consistent=False, channels=settings)
    about = f"the aligner of HeSer.Pytorch ({shown}). Its published file is overfitted to one person."
    return Found(about, channels=settings)


_CONVENTIONS = "say model.conventions=heser for one of HeSer.Pytorch, model.conventions=clean for one of HeadSwap"
_NO_POSE = (
    "It does not hold the pose encoder (Epose), without which a head gets a random pose. HeSer.Pytorch saves it, though its inference "
    "script does not load it: get the whole file."
)


def widths(state: Mapping[str, Tensor], config: Any) -> list[str]:
    """Settings that a file needs in addition to those of `config`; none for the other kind of network."""
    settings = settings_of(state)
    if not reads(config) or isinstance(config, HeserBlenderConfig) != ("match_channels" in settings):
        return []
    if "match_channels" in settings:
        settings["sees_parts"] = False
    return [f"model.{name}={str(value).lower()}" for name, value in settings.items() if getattr(config, name) != value]


def needs(state: Mapping[str, Tensor] | None, origin: Origin | None = None) -> dict[str, Any]:
    """Nothing beside the widths: images of any scale are brought to -1 to 1 by the networks.

    Raises:
        CheckpointError: with an `origin`, an aligner of HeSer.Pytorch without its pose encoder, or a blender of which the user does not say
            whose conventions it was trained with.
    """
    if state is None or origin is None:
        return {}
    settings = settings_of(state)
    if "match_channels" in settings and "model.conventions" not in origin.said:
        raise CheckpointError(f"{origin.what} is a blender of HeSer.Pytorch or of HeadSwap, which compute otherwise: {_CONVENTIONS}.")
    if "image_size" in settings and "discriminator" not in settings and _POSE not in translated(state):
        raise CheckpointError(f"{origin.what} is an aligner. {_NO_POSE}")
    return {}
