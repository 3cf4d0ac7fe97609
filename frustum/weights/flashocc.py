"""Published checkpoints of FlashOCC (github.com/Yzichen/FlashOCC, Apache-2.0). Our modules carry their key names, so nothing is renamed.

What a file holds is read from the shapes of its tensors, never from a README: the repository's own figures disagree with what it ships.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from frustum.models.bevdet_occ import BevDetOccConfig
from frustum.models.flashocc import FlashOccConfig
from frustum.models.flashocc_stereo import FlashOccStereoConfig
from frustum.models.panoptic_flashocc import PanopticFlashOccConfig
from frustum.models.ultimatedo import UltimateDoConfig
from frustum.types.contract import ModelConfig
from frustum.weights.adapter import Found, Origin
from frustum.weights.catalogue import recipe_of

SOURCE = "flashocc"

BASES: dict[type[ModelConfig], str] = {
    FlashOccConfig: "flashocc-r50-m0",
    FlashOccStereoConfig: "flashocc-r50-4d-stereo",
    PanopticFlashOccConfig: "panoptic-flashocc-tiny",
    BevDetOccConfig: "bevdet-occ-r50",
    UltimateDoConfig: "bevdet-r50",
}
"""The networks whose weights are read, and the recipe of a file that is none of the published ones."""

# What the weights were trained with and must be run with, as settings that travel: voxel indices rounded towards zero; images whose
# channels reach the network as blue, green, red while mean and deviation are applied in the order red, green, blue; and a map in the
# ego frame at the time of the first camera. The last two are how the published figures were (probably) measured.
NEEDS: dict[str, Any] = {
    "image_size": [256, 704],
    "channel_order": "bgr",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "map_frame": "camera0",
    "crop_h": [0.0, 0.0],
    "eval_resize": 0.0,
    "voxel_rounding": "reference",
    "sampling": "corners",
    "align": "warp_reference",
    "label_map": "reference",
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

_DEPTH = (1.0, 45.0)  # metres: the range of every published setting of FlashOCC; the weights only know the number of bins
_DEPTHS: dict[type[ModelConfig], tuple[float, float]] = {UltimateDoConfig: (1.0, 60.0)}  # of others


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
        names = ("depth bins", "lifted (context) channels", "image feature channels", "map channels", "outputs (heights x classes)")
        counts = zip((*self.widths.values(), self.outputs), names, strict=True)
        return ", ".join([encoder, *(f"{count} {name}" for count, name in counts if count)])


_SWIN = "flashocc-stbase-4d-stereo-512x1408"

# depth net, centres, frames, D, C, neck, map -> name in the catalogue
_PUBLISHED: dict[tuple[str | int, ...], str] = {
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
    has_head, has_boxes = (any(key.startswith(name) for key in shapes) for name in ("occ_head.", "pts_bbox_head."))
    head = shapes.get(_HEAD, (0, 0))[1]
    simple, context = shapes.get(net + "weight"), shapes.get(net + "context_conv.weight")
    into_map = (shapes.get(entry + "weight") or shapes.get(entry + "conv.weight") or (0, 0))[1]
    if context is not None:
        lift = context[0]
        bins = max((s[0] for k, s in shapes.items() if re.fullmatch(re.escape(net) + r"depth_conv\.\d+\.weight", k)), default=0)
        kind = "stereo" if any(key.startswith(net + "cost_volumn_net.") for key in shapes) else "camera-aware"
    elif simple is not None:
        lift, kind = into_map or head, "conv"
        bins = simple[0] - lift
    else:
        return None
    return Layout(
        depth_net=kind,
        has_centres=any(key.startswith("aux_centerness_head.") for key in shapes),
        has_boxes=has_boxes,
        has_occupancy=has_head,
        is_volume=any(len(shape) == 5 for shape in shapes.values()),
        resnet=_resnet(shapes),
        frames=max(1, into_map // lift) if lift else 1,
        depth_bins=bins,
        lift_channels=lift,
        neck_channels=shapes.get(_NECK, shapes.get("img_neck.conv.0.weight", (0,)))[0],
        bev_channels=shapes.get(_MAP_NECK, (head,))[0] if has_head or has_boxes else 0,
        outputs=shapes.get("occ_head.predicter.2.weight", (0,))[0],
    )


def published_name(layout: Layout) -> str:
    """The catalogue's name of the published file with this layout; empty if there is none. The depth of the ResNet is not compared."""
    if not layout.has_occupancy or layout.is_volume or layout.has_boxes:
        return ""
    return _PUBLISHED.get((layout.depth_net, layout.has_centres, layout.frames, *layout.widths.values()), "")


def translated(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state dict as it is: our modules have these names."""
    return state


def reads(config: ModelConfig) -> bool:
    """Whether FlashOCC's repository has weights for networks of this kind, of whatever widths."""
    return type(config) in BASES


def needs(state: Mapping[str, Tensor] | None, origin: Origin | None = None) -> dict[str, Any]:
    """What the weights must be fed and run with: `NEEDS`, with the larger images of the Swin network."""
    layout = None if state is None else layout_of(state)
    larger = layout is not None and published_name(layout) == _SWIN
    return NEEDS | ({"image_size": [512, 1408]} if larger else {})


def identify(state: Mapping[str, Tensor]) -> Found:
    """What a state dict is, which recipe loads it, what in it contradicts itself, and what can be done with a part of a network."""
    layout, clashes = layout_of(state), contradictions(state)
    if layout is None:
        unknown = "not a network of FlashOCC or BEVDet, which have a depth net called img_view_transformer.depth_net."
        return Found(_encoder_alone(state) or unknown)
    about = describe(layout)
    if clashes:
        about = (
            f"the file has {layout}, but its widths contradict each other: {'; '.join(clashes)}. No network has these: the file was "
            "changed, or put together from two. Get it again; what fits can start a training: frustum train RECIPE --init FILE."
        )
    return Found(about, recipe_for(layout), published_name(layout), not clashes, layout._asdict())


def model_of(layout: Layout) -> type[ModelConfig] | None:
    """The config that builds this kind of network, of whatever widths; None if there is none."""
    if layout.has_boxes:
        is_bevdet = (
            layout.depth_net == "conv" and layout.frames == 1 and not (layout.has_occupancy or layout.has_centres or layout.is_volume)
        )
        return UltimateDoConfig if is_bevdet else None
    if not layout.has_occupancy:
        return None
    if layout.depth_net != "conv":
        return None if layout.is_volume else PanopticFlashOccConfig if layout.depth_net == "camera-aware" else FlashOccStereoConfig
    if layout.has_centres or layout.frames > 1:
        return None
    return BevDetOccConfig if layout.is_volume else FlashOccConfig


def recipe_for(layout: Layout) -> str:
    """The recipe to load a file with; empty when there is none."""
    name, kind = published_name(layout), model_of(layout)
    return recipe_of(name) if name else BASES[kind] if kind else ""


def widths(state: Mapping[str, Tensor], config: Any) -> list[str]:
    """Settings that a file needs which is of the same kind as the network of `config` and of other widths.

    None for a published file that has a recipe of its own: to load it under another one is a mistake, which strict loading names.
    """
    layout = layout_of(state)
    is_of_kind = layout is not None and model_of(layout) is type(config)  # in a name, so that mypy does not narrow `config`
    if layout is None or not is_of_kind:
        return []
    given = {name: count for name, count in layout.widths.items() if count}
    has = {name: config.depth_bins.count if name == "depth_bins" else getattr(config, name) for name in given}
    if given != has and published_name(layout) and recipe_for(layout):
        return []
    found = [f"model.{name}={count}" for name, count in given.items() if name != "depth_bins" and count != has[name]]
    if 0 < layout.depth_bins != has["depth_bins"]:
        start, stop = _DEPTHS.get(type(config), _DEPTH)
        found.append(f'model.depth_bins={{"start":{start},"stop":{stop},"step":{(stop - start) / layout.depth_bins!r}}}')
    if layout.resnet and layout.resnet != config.resnet:
        found.append(f"model.resnet={layout.resnet}")
    if "instances" in type(config).model_fields and layout.has_centres != (config.instances is not None):
        found.append(f"model.instances={'{}' if layout.has_centres else 'null'}")
    if "history" in type(config).model_fields and layout.frames - 1 != config.history.frames:
        found.append(f"model.history.frames={layout.frames - 1}")
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


def describe(layout: Layout) -> str:
    """What a file is, and which recipe loads it, or that none does."""
    name, recipe = published_name(layout), recipe_for(layout)
    if name:
        return f"the file has {layout}: the published {name}, that is the recipe {recipe!r}."
    if recipe:
        return f"the file has {layout}: no published file has these widths; the recipe {recipe!r} builds this kind of network."
    kind = f"a BEVDet {'detector' if layout.has_boxes else 'network'} without an occupancy head"
    if layout.has_occupancy:
        kind = f"an occupancy network with a {layout.depth_net} depth net{' and 3D convolutions' if layout.is_volume else ''}"
    return (
        f"the file has {layout}: {kind}, for which there is no recipe yet (`frustum list` shows those there are). "
        "What fits another network can start its training: frustum train RECIPE --init FILE."
    )


def _resnet(shapes: Mapping[str, tuple[int, ...]], prefix: str = "img_backbone.") -> int:
    """18, 34, 50 or 101, by the number of blocks in layer3 and their kind; 0 for another network."""
    blocks = {int(m[1]) for key in shapes if (m := re.match(re.escape(prefix) + r"layer3\.(\d+)\.", key))}
    is_deep = f"{prefix}layer3.0.conv3.weight" in shapes
    return {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101}.get((len(blocks), is_deep), 0)
