"""Published checkpoints of PETR and PETRv2 (github.com/megvii-research/PETR) and of 3DPPE (github.com/drilistbox/3DPPE), made of it.

Our modules carry their key names, so nothing is renamed. What network a file holds is read from the names and shapes in it. The convention
of its boxes is not in them, only in its `meta`; where that is missing the user says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from frustum.errors import CheckpointError
from frustum.models.ppe3d import Ppe3dConfig
from frustum.nn.box_code import stated_convention, unstated_convention
from frustum.recipes.finding import get_recipe
from frustum.types.contract import ModelConfig
from frustum.weights.adapter import Found, Origin
from frustum.weights.catalogue import CATALOGUE

SOURCE = "petr"

RECIPES = ("ppe3d-v299", "ppe3d-2f-v299", "petr-v299", "petrv2-v299", "ppe3d-r50", "ppe3d-r50-512", "ppe3d-r101-512")
"""The recipes whose networks are recognised exactly."""

# All files: blue, green, red, with mean and deviation in this order; no rows cut off at the bottom; the frame of the keyframe's LIDAR_TOP.
NEEDS: dict[str, Any] = {
    "channel_order": "bgr",
    "mean": [103.53, 116.28, 123.675],
    "std": [1.0, 1.0, 1.0],
    "map_frame": "lidar",
    "crop_h": [0.0, 0.0],
    "frame": "lidar",
}

_HEAD, _NET, _LAYERS = "pts_bbox_head.", "pts_bbox_head.depth_net.", "pts_bbox_head.transformer.decoder.layers."
_STEM = "img_backbone.stem.stem_1/conv.weight"
_ENCODERS = {6: "resnet50", 23: "resnet101"}  # by the blocks of layer3


def settings_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of `Ppe3dConfig` that a state dict needs; empty if it is not a network of these projects."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    position, reference = shapes.get(f"{_HEAD}position_encoder.0.weight"), shapes.get(f"{_HEAD}reference_points.weight")
    hidden, proj = shapes.get(f"{_LAYERS}0.ffns.0.layers.0.0.weight"), shapes.get(f"{_HEAD}input_proj.weight")
    encoder = _encoder(shapes)
    if position is None or reference is None or hidden is None or proj is None or not encoder:
        return {}

    def has(start: str) -> bool:
        return any(key.startswith(_HEAD + start) for key in shapes)

    found: dict[str, Any] = {"encoder": encoder, "channels": proj[0], "queries": reference[0], "hidden": hidden[0]}
    found["layers"] = _count(shapes, re.escape(_LAYERS) + r"(\d+)\.")
    found |= {"camera_code": has("adapt_pos3d."), "grouped_boxes": has("reg_branches.0.reg_branch."), "refine_boxes": False}
    found["past"] = int(found["grouped_boxes"])  # both published networks of two frames have these branches, and no others
    is_point, points = len(position) == 2, position[1] // 3
    if is_point:
        found["refine_boxes"] = not has("transformer.decoder.post_norm.")
        found["shared_embedding"] = _are_equal(state, f"{_HEAD}query_embedding.", f"{_HEAD}position_encoder.")
    if not has("depth_net."):
        kind = "feature_guided" if has("fpe.") else "camera_ray"
        return found | ({"encoding": "point3d_lidar"} if is_point else {"encoding": kind, "ray_depths": points})
    answers = shapes.get(f"{_NET}depth_prob_conv.2.weight", (0,))[0]
    found["depth_channels"] = shapes.get(f"{_NET}reduce_conv.conv.weight", (0,))[0]
    found["context_blocks"] = _count(shapes, re.escape(_NET) + r"context_conv\.(\d+)\.conv1\.")
    if is_point:
        kind = "direct" if answers == 1 else "hybrid" if has("depth_net.depth_direct_conv.") else "probabilistic"
        return found | {"encoding": "point3d", "depth": kind} | ({} if kind == "direct" else {"depth_bins": answers})
    found["depth_bins"] = answers
    return found | (
        {"encoding": "depth_guided_feature"} if has("dpe.") else {"encoding": "topk", "top_depths": points, "ray_spacing": "ud"}
    )


def translated(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state dict as it is: our modules have these names."""
    return state


def reads(config: ModelConfig) -> bool:
    """Whether these projects have weights for networks of this kind, of whatever widths: not for those with the small encoder."""
    return isinstance(config, Ppe3dConfig) and config.encoder != "efficientnet_lite0"


def needs(state: Mapping[str, Tensor] | None, origin: Origin | None = None) -> dict[str, Any]:
    """`NEEDS`, how images are fitted in evaluation, and of weights with an origin the convention of the boxes.

    Raises CheckpointError as `Adapter.needs` does, or if entries that are one and the same in our network differ.
    """
    if state is None:
        return NEEDS
    settings = settings_of(state)
    fit = {"eval_resize": 0.0 if _is_fitted_plainly(settings) else 0.04} if settings else {}
    if origin is None:
        return NEEDS | fit
    if clashes := contradictions(state):
        raise CheckpointError(f"{origin.what} cannot be run: {'; '.join(clashes)}.")
    convention = stated_convention(origin.around) or origin.said.get("model.box_convention")
    if convention is None:
        raise unstated_convention(origin.what, "add")
    return NEEDS | fit | {"box_convention": convention}


def identify(state: Mapping[str, Tensor]) -> Found:
    """What a state dict is, which recipe loads it, what in it contradicts itself, and what can be done with a part of a network."""
    settings = settings_of(state)
    if not settings:
        if _STEM in state:
            about = "only an image encoder (V2-99), so there is nothing to convert. A training starts from it: "
            return Found(f"{about}frustum train ppe3d-v299 --init FILE data.root=FOLDER", channels={"encoder": "vovnet99"})
        return Found("not a network of PETR or 3DPPE, which have queries called pts_bbox_head.reference_points.")
    shown = f"the file has {', '.join(f'{name} {value}' for name, value in settings.items())}"
    if clashes := contradictions(state):
        about = f"{shown}, but {'; '.join(clashes)}: no recipe builds such a network. What fits can start a training: frustum train RECIPE"
        return Found(f"{about} --init FILE.", recipe_for(settings), is_consistent=False, channels=settings)
    exact, recipe = _exact(settings), recipe_for(settings)
    name = next((entry.name for entry in CATALOGUE if entry.source == SOURCE and entry.recipe == exact), "") if exact else ""
    if exact:
        about = f"{shown}: {f'the published {name}, ' if name else ''}that is the recipe {recipe!r}."
    else:
        about = f"{shown}: no recipe has just these; {recipe!r} does with them. The size of its images is not in it: data.image_size."
    return Found(f"{about} Its boxes are coded as its version of mmdet3d has them (model.box_convention).", recipe, name, True, settings)


def recipe_for(settings: Mapping[str, Any]) -> str:
    """The recipe to load a file with: the one with these settings, else the nearest with this encoder."""
    if exact := _exact(settings):
        return exact
    if settings["encoder"] == "vovnet99":
        is_ray = settings["encoding"] in ("camera_ray", "feature_guided")
        two, one = ("petrv2-v299", "petr-v299") if is_ray else ("ppe3d-2f-v299", "ppe3d-v299")
        return two if settings["past"] else one
    return "ppe3d-r101-512" if settings["encoder"] == "resnet101" else "ppe3d-r50"


def widths(state: Mapping[str, Tensor], config: Any) -> list[str]:
    """Settings that a file needs which is not just the network of `config`.

    None for a file that has a recipe of its own: to load it under another one is a mistake, which strict loading names.
    """
    settings = settings_of(state)
    if not settings or not reads(config) or (_exact(settings) and not _is(config, settings)):
        return []
    return [f"model.{name}={str(value).lower()}" for name, value in settings.items() if getattr(config, name) != value]


def contradictions(state: Mapping[str, Tensor]) -> list[str]:
    """What no network of ours can hold, in words: branches of the layers that differ where they are one, or widths that do not fit."""
    settings, found = settings_of(state), []
    if settings and not (settings["refine_boxes"] or settings["grouped_boxes"]):
        for branch in ("cls", "reg"):
            own = [i for i in range(1, settings["layers"]) if not _are_equal(state, *(f"{_HEAD}{branch}_branches.{j}." for j in (0, i)))]
            found += [f"its {branch}_branches of layer {own[0]} differ from those of layer 0, which this network shares"] if own else []
    return found


def _is_fitted_plainly(settings: Mapping[str, Any]) -> bool:
    """Whether PETR's pipeline fits the images in evaluation, to the network's width; 3DPPE's scales by 4 % of the original width more."""
    is_guided = settings["encoding"] == "feature_guided" and bool(settings["past"])
    return is_guided or settings["encoding"] in ("camera_ray", "point3d_lidar")


def _exact(settings: Mapping[str, Any]) -> str:
    return next((name for name in RECIPES if _is(get_recipe(name).model, settings)), "")


def _is(config: Any, settings: Mapping[str, Any]) -> bool:
    return all(getattr(config, name) == value for name, value in settings.items())


def _encoder(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of the image encoder, or empty for one that is not built here."""
    if _STEM in shapes:
        return "vovnet99"
    is_deformable = "img_backbone.layer3.0.conv2.conv_offset.weight" in shapes
    name = _ENCODERS.get(_count(shapes, r"img_backbone\.layer3\.(\d+)\.conv3\."), "") if is_deformable else ""
    return name if any(key.startswith("img_neck.") for key in shapes) else "resnet50_c5" if name == "resnet50" else ""


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    """How many numbers the group of the pattern takes at the start of keys."""
    return len({found[1] for key in shapes if (found := re.match(pattern, key))})


def _are_equal(state: Mapping[str, Tensor], one: str, other: str) -> bool:
    """Whether the entries under two prefixes have equal values, as far as these are known."""
    pairs = [(value, state.get(other + key.removeprefix(one))) for key, value in state.items() if key.startswith(one)]
    return all(b is not None and (a.is_meta or b.is_meta or torch.equal(a, b)) for a, b in pairs)
