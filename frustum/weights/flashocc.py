"""Published checkpoints of FlashOCC (github.com/Yzichen/FlashOCC, Apache-2.0). Our modules carry their key names, so nothing is renamed.

What a file holds is read from the shapes of its tensors, never from a README: the repository's own figures disagree with what it ships.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from frustum.weights.catalogue import recipe_of

BASES = {
    "flashocc": "flashocc-r50-m0",
    "flashocc_stereo": "flashocc-r50-4d-stereo",
    "panoptic_flashocc": "panoptic-flashocc-tiny",
    "bevdet_occ": "bevdet-occ-r50",
}
"""Files of models/ whose networks this module reads weights for, and the recipe of a file that is none of the published ones."""

MODELS: tuple[str, ...] = tuple(BASES)

# What the weights were trained with and must be run with, as settings of a recipe: voxel indices rounded towards zero; images whose
# channels reach the network as blue, green, red while mean and deviation are applied in the order red, green, blue; and a map in the
# ego frame at the time of the first camera. The last two are how the published figures were (most likely) measured.
PREPROCESSING: dict[str, Any] = {
    "data.image_size": [256, 704],
    "data.channel_order": "bgr",
    "data.mean": [123.675, 116.28, 103.53],
    "data.std": [58.395, 57.12, 57.375],
    "data.map_frame": "camera0",
    "augment.crop_h": [0.0, 0.0],
    "model.voxel_rounding": "reference",
    "model.sampling": "corners",
    "model.align": "warp_reference",
    "model.label_map": "reference",
}

_HEAD, _MAP_NECK, _NECK = "occ_head.final_conv.conv.weight", "img_bev_encoder_neck.up2.4.weight", "img_neck.fpn_convs.0.conv.weight"
_NET = "img_view_transformer.depth_net."
# layers that follow each other: what the first gives, the second takes
_JOINTS = (
    (_NECK, f"{_NET}weight"),
    (_NECK, f"{_NET}reduce_conv.0.weight"),
    ("img_bev_encoder_neck.up2.1.weight", _MAP_NECK),
    (_MAP_NECK, _HEAD),
    (_HEAD, "occ_head.predicter.0.weight"),
    ("occ_head.predicter.0.weight", "occ_head.predicter.2.weight"),
)

_DEPTH = (1.0, 45.0)  # metres: the range of every published setting; the weights only know the number of bins


class Layout(NamedTuple):
    """What the shapes of a state dict say. Channel counts are 0 where the part is not there.

    Attributes:
        depth_net: "conv" (one convolution), "camera-aware" (BEVDepth's), "stereo" (with a cost volume), or "".
        has_centres: an instance-centre head (panoptic).
        has_boxes: a detection head.
        has_occupancy: a channel-to-height head.
        is_volume: 3D convolutions over the voxels.
        resnet: depth of the image encoder; 0 for another kind.
        frames: maps that are concatenated: 1, or the key frame and its past.
        depth_bins, lift_channels, neck_channels, bev_channels: D, C, and channels of the image features and of the head's map.
        outputs: of the occupancy head: heights x classes.
    """

    depth_net: str = ""
    has_centres: bool = False
    has_boxes: bool = False
    has_occupancy: bool = False
    is_volume: bool = False
    resnet: int = 0
    frames: int = 1
    depth_bins: int = 0
    lift_channels: int = 0
    neck_channels: int = 0
    bev_channels: int = 0
    outputs: int = 0

    @property
    def widths(self) -> dict[str, int]:
        """The channel counts by the names of `FlashOccConfig`."""
        names = ("depth_bins", "lift_channels", "neck_channels", "bev_channels")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        """The counts in words."""
        encoder = f"ResNet-{self.resnet}" if self.resnet else "another image encoder than a ResNet"
        counts = {
            "depth bins": self.depth_bins,
            "lifted (context) channels": self.lift_channels,
            "image feature channels": self.neck_channels,
            "map channels": self.bev_channels,
            "outputs (heights x classes)": self.outputs,
        }
        return ", ".join([encoder, *(f"{count} {what}" for what, count in counts.items() if count)])


_SWIN = "flashocc-stbase-4d-stereo-512x1408"

# depth net, centres, frames, D, C, neck, map -> name in the catalogue
_PUBLISHED = {
    ("conv", False, 1, 44, 64, 256, 128): "flashocc-r50-M0",
    ("conv", False, 1, 88, 64, 256, 256): "flashocc-r50",
    ("stereo", False, 2, 88, 80, 256, 256): "flashocc-r50-4d-stereo",
    ("stereo", False, 2, 88, 80, 512, 256): _SWIN,
    ("camera-aware", False, 1, 44, 64, 256, 128): "panoptic-flashocc-r50-depth-tiny",
    ("camera-aware", True, 1, 44, 64, 256, 128): "panoptic-flashocc-r50-depth-tiny-pano",
    ("camera-aware", True, 1, 88, 80, 256, 256): "panoptic-flashocc-r50-depth-pano",  # the file called `depth` has the centre head, too
    ("camera-aware", False, 2, 88, 80, 512, 256): "panoptic-flashocc-r50-depth4d",
    ("camera-aware", True, 2, 88, 80, 512, 256): "panoptic-flashocc-r50-depth4d-pano",
    ("camera-aware", False, 9, 88, 80, 512, 256): "panoptic-flashocc-r50-depth4d-longterm8f",
    ("camera-aware", True, 9, 88, 80, 512, 256): "panoptic-flashocc-r50-depth4d-longterm8f-pano",
    ("camera-aware", False, 17, 88, 80, 512, 256): "panoptic-flashocc-r50-depth4d-longterm16f",
}


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """What a state dict holds; None if it is nothing of this project or of BEVDet, from which it descends."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    net, entry = _NET, "img_bev_encoder_backbone.layers.0.0.conv1."
    has_head = any(key.startswith("occ_head.") for key in shapes)
    head = shapes.get(_HEAD, (0, 0))[1] if has_head else 0
    simple, context = shapes.get(net + "weight"), shapes.get(net + "context_conv.weight")
    if simple is None and context is None:
        return None
    into_map = (shapes.get(entry + "weight") or shapes.get(entry + "conv.weight") or (0, 0))[1]
    if context is not None:
        lift = context[0]
        bins = max((s[0] for k, s in shapes.items() if re.fullmatch(re.escape(net) + r"depth_conv\.\d+\.weight", k)), default=0)
        kind = "stereo" if any(key.startswith(net + "cost_volumn_net.") for key in shapes) else "camera-aware"
    else:
        assert simple is not None
        lift, kind = into_map or shapes.get(_HEAD, (0, 0))[1], "conv"
        bins = simple[0] - lift
    return Layout(
        depth_net=kind,
        has_centres=any(key.startswith("aux_centerness_head.") for key in shapes),
        has_boxes=any(key.startswith("pts_bbox_head.") for key in shapes),
        has_occupancy=has_head,
        is_volume=any(len(shape) == 5 for shape in shapes.values()),
        resnet=_resnet(shapes),
        frames=max(1, into_map // lift) if lift else 1,
        depth_bins=bins,
        lift_channels=lift,
        neck_channels=shapes.get("img_neck.fpn_convs.0.conv.weight", shapes.get("img_neck.conv.0.weight", (0,)))[0],
        bev_channels=shapes.get(_MAP_NECK, (head,))[0] if has_head else 0,
        outputs=shapes.get("occ_head.predicter.2.weight", (0,))[0],
    )


def published_name(layout: Layout) -> str:
    """The catalogue's name of the published file with this layout; empty if there is none. The depth of the ResNet is not compared."""
    if not layout.has_occupancy or layout.is_volume or layout.has_boxes:
        return ""
    kind, counts = (layout.depth_net, layout.has_centres, layout.frames), tuple(layout.widths.values())
    return next((name for key, name in _PUBLISHED.items() if key == (*kind, *counts)), "")


def preprocessing_for(layout: Layout | None) -> dict[str, Any]:
    """What weights of this layout must be run with: `PREPROCESSING`, with the larger images of the Swin network."""
    larger = layout is not None and published_name(layout) == _SWIN
    return PREPROCESSING | ({"data.image_size": [512, 1408]} if larger else {})


def model_of(layout: Layout | None) -> str:
    """The file of models/ that builds this kind of network, of whatever widths; empty if there is none."""
    if layout is None or not layout.has_occupancy or layout.has_boxes:
        return ""
    if layout.depth_net != "conv":
        kinds = {"camera-aware": "panoptic_flashocc", "stereo": "flashocc_stereo"}
        return "" if layout.is_volume else kinds[layout.depth_net]
    if layout.has_centres or layout.frames > 1:
        return ""
    return "bevdet_occ" if layout.is_volume else "flashocc"


def recipe_for(layout: Layout | None) -> str:
    """The recipe to load a file with; empty when there is none."""
    if layout is None:
        return ""
    name = published_name(layout)
    return recipe_of(name) if name else BASES.get(model_of(layout), "")


def settings_for(layout: Layout | None, config: Any) -> list[str]:
    """Settings that a file needs which is of the same kind as the network of `config` and of other widths.

    None for a published file that has a recipe of its own: to load it under another one is a mistake, which strict loading names.
    """
    if layout is None or model_of(layout) != type(config).__module__.rpartition(".")[2]:
        return []
    widths = {name: count for name, count in layout.widths.items() if count}
    has = {name: config.depth_bins.count if name == "depth_bins" else getattr(config, name) for name in widths}
    if widths != has and published_name(layout) and recipe_for(layout):
        return []
    found = [f"model.{name}={count}" for name, count in widths.items() if name != "depth_bins" and count != has[name]]
    if 0 < layout.depth_bins != has["depth_bins"]:
        start, stop = _DEPTH
        found.append(f'model.depth_bins={{"start":{start},"stop":{stop},"step":{(stop - start) / layout.depth_bins!r}}}')
    if layout.resnet and layout.resnet != config.resnet:
        found.append(f"model.resnet={layout.resnet}")
    if "instances" in type(config).model_fields and layout.has_centres != config.instances:
        found.append(f"model.instances={str(layout.has_centres).lower()}")
    if "history" in type(config).model_fields and layout.frames - 1 != config.history:
        # a cost volume compares the oldest of the joined frames with one more
        found += [f"model.history={layout.frames - 1}", f"data.history={layout.frames - (layout.depth_net != 'stereo')}"]
    return found


def contradictions(state: Mapping[str, Tensor]) -> list[str]:
    """Widths in a file that cannot belong to one network, in words; empty for every file that a training wrote."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    joints = [(a, shapes[a][0], b, shapes[b][1]) for a, b in _JOINTS if shapes.get(a) and len(shapes.get(b, ())) > 1]
    found = [f"{a} gives {gives} channels and {b} takes {takes}" for a, gives, b, takes in joints if gives != takes]
    layout = layout_of(state)
    if layout is not None and layout.depth_net == "conv" and layout.lift_channels and layout.depth_bins < 1:
        given = shapes[f"{_NET}weight"][0]
        found.append(f"{_NET}weight gives {given} channels, of which {layout.lift_channels} are lifted: none are left for depth bins")
    return found


def about(state: Mapping[str, Tensor]) -> str:
    """What a file is, which recipe loads it, what in it contradicts itself, and what can be done with a part of a network."""
    layout = layout_of(state)
    if clashes := contradictions(state):
        return (
            f"the file has {layout}, but its widths contradict each other: {'; '.join(clashes)}. No network is like that: the file was "
            "changed, or put together from two. Get it again; what fits can start a training: frustum train RECIPE --init FILE."
        )
    return describe(layout) if layout is not None else _encoder_alone(state) or describe(None)


def _encoder_alone(state: Mapping[str, Tensor]) -> str:
    """What to do with a file that holds an image encoder and nothing else; empty for other files."""
    if "conv_stem.weight" in state or "_conv_stem.weight" in state:
        return "only an image encoder (EfficientNet-Lite0?). A training starts from it: frustum train flashocc-tiny model.pretrained=FILE"
    stems = [key for key, value in state.items() if re.search(r"(^|\.)conv1\.weight$", key) and tuple(value.shape) == (64, 3, 7, 7)]
    prefix = stems[0].removesuffix("conv1.weight") if len(stems) == 1 else ""
    if not stems or not all(re.match(re.escape(prefix) + r"(conv1|bn1|layer[1-4]|fc)\.", key) for key in state):
        return ""
    depth = _resnet({key: tuple(value.shape) for key, value in state.items()}, prefix)
    if not depth:
        return "only an image encoder, a residual network that no recipe has, so there is nothing to convert."
    settings = "" if depth == 50 else f" model.resnet={depth}"
    order = "" if prefix else " data.channel_order=rgb"
    init = " (or --init FILE)" if prefix == "img_backbone." else ""
    return (
        f"only an image encoder (ResNet-{depth}), so there is nothing to convert. A training starts from it: "
        f"frustum train flashocc-r50{settings} model.pretrained=FILE{order} data.root=FOLDER{init}"
    )


def describe(layout: Layout | None) -> str:
    """What a file is, and which recipe loads it, or which one is missing."""
    if layout is None:
        return "no network of FlashOCC or BEVDet, which have a depth net called img_view_transformer.depth_net."
    name, recipe = published_name(layout), recipe_for(layout)
    if recipe:
        if name:
            return f"the file has {layout}: the published {name}, that is the recipe {recipe!r}."
        return f"the file has {layout}: no published file has these widths; the recipe {recipe!r} builds this kind of network."
    if name:
        kind = name
    elif layout.is_volume:
        kind = "an occupancy network with 3D convolutions (of BEVDetOCC's kind)"
    elif not layout.has_occupancy:
        kind = f"a BEVDet {'detector' if layout.has_boxes else 'network'} without an occupancy head"
    else:
        past = f", {layout.frames} frames" if layout.frames > 1 else ""
        kind = f"a FlashOCC with a {layout.depth_net} depth net{past}{', instance centres' if layout.has_centres else ''}"
    return (
        f"the file has {layout}: {kind}, for which there is no recipe yet (`frustum list` shows those there are). "
        "What fits another network can start its training: frustum train RECIPE --init FILE."
    )


def _resnet(shapes: Mapping[str, tuple[int, ...]], prefix: str = "img_backbone.") -> int:
    """18, 34, 50 or 101, by the number of blocks in layer3 and their kind; 0 where there is no ResNet of ours."""
    blocks = {int(m[1]) for key in shapes if (m := re.match(re.escape(prefix) + r"layer3\.(\d+)\.", key))}
    is_deep = f"{prefix}layer3.0.conv3.weight" in shapes
    return {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101}.get((len(blocks), is_deep), 0)
