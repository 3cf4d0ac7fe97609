"""Settings that make the networks of recipes small, so that every recipe runs in a moment."""

from __future__ import annotations

_SIZES = [
    "model.pretrained=false",
    "model.neck_channels=16",
    "model.lift_channels=8",
    "model.bev_channels=16",
    'model.depth_bins={"step": 2.0}',
    'model.grid={"lower": [-16, -16, -1], "upper": [16, 16, 5.4], "cell": [2, 2, 0.8]}',
]
RESNET = ["model.resnet=18", *_SIZES]
"""FlashOCC and its relatives."""
TRUNK = [*_SIZES, "model.voxel_channels=8"]
"""Networks on `nn.small_trunk.SmallTrunk`."""
SWIN = ['model.swin={"embed_channels": 8, "depths": [1, 1, 2, 1], "heads": [1, 2, 2, 2], "window": 4}', *_SIZES]
"""Networks with a Swin transformer."""
