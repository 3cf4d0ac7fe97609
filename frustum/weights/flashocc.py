"""Published checkpoints of FlashOCC (github.com/Yzichen/FlashOCC, Apache-2.0). Our modules carry their key names, so nothing is renamed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# What the weights were trained with and must be run with, as overrides of a recipe: voxel indices rounded towards zero; images whose
# channels reach the network as blue, green, red while mean and deviation are applied in the order red, green, blue; and a map in the
# ego frame at the time of the first camera.
REFERENCE: tuple[str, ...] = (
    "model.voxel_rounding=reference",
    "model.sampling=corners",
    "data.channel_order=bgr",
    "data.map_frame=camera0",
)

_RECIPES = {(108, 128): "flashocc-r50-m0", (152, 256): "flashocc-r50"}
_LIFT, _BEV = "img_view_transformer.depth_net.weight", "occ_head.final_conv.conv.weight"


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official state dict -> ours: the same keys."""
    return dict(state)


def hint(state: Mapping[str, Tensor]) -> str:
    """Which recipe a state dict looks like, judged by its channel counts; empty when it is none of ours."""
    if _LIFT not in state or _BEV not in state:
        return ""
    lifted, bev = state[_LIFT].shape[0], state[_BEV].shape[0]
    name = _RECIPES.get((lifted, bev))
    found = f"the file has {lifted} lifted channels (depth bins + context) and {bev} map channels"
    return f"{found}: that is the recipe {name!r}." if name else f"{found}; set model.depth_bins, lift_channels and bev_channels to match."
