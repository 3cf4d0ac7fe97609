"""Networks that segment maps from above: what their recipes declare, one set of axes, frames of cameras, hidden labels, the losses."""

from __future__ import annotations

_GRID = 'model.grid={"lower": [-50, -50, -4], "upper": [50, 50, 6], "cell": [2.5, 2.5, 5]}'
_SIZES = ["model.pretrained=false", "model.fine=5"]
_SIMPLEBEV = [*_SIZES, _GRID, "model.channels=16", "model.map_channels=8,8,16"]
_BEVFORMER = [
    *_SIZES,
    _GRID,
    "model.channels=16",
    "model.layers=2",
    "model.heads=2",
    "model.places=4",
    "model.hidden=16",
    "model.dropout=0",
]
_LSS = [
    *_SIZES, 'model.grid={"lower": [-50, -50, -10], "upper": [50, 50, 10], "cell": [2.5, 2.5, 20]}', "model.image_channels=16",
    "model.channels=8", "model.map_channels=8,8,16", 'model.depth_bins={"step": 4.0}',
]  # fmt: skip
_B0 = "model.encoder=efficientnet_b0"
SMALL = {
    "simplebev-r101": [*_SIMPLEBEV, "model.encoder=resnet50"],
    "simplebev-r50": [*_SIMPLEBEV, "model.encoder=resnet50"],
    "simplebev-b4": [*_SIMPLEBEV, _B0],
    "simplebev-b0": [*_SIMPLEBEV, _B0],
    "simplebev-mini": _SIMPLEBEV,
    "bevformer-seg-b4": [*_BEVFORMER, _B0],
    "bevformer-seg-mini": _BEVFORMER,
    "lss-seg": _LSS,
    "lss-seg-mini": _LSS,
}
