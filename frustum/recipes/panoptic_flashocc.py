"""Panoptic-FlashOcc: the published settings for nuScenes, and a small one for the street world.

`model.instances=null` gives the semantic network of each; the published repository ships both.
"""

from __future__ import annotations

from frustum.engine.recipe import Recipe
from frustum.geometry.depth import DepthBins
from frustum.models.panoptic_flashocc import PanopticFlashOccConfig
from frustum.models.panoptic_flashocc_mini import PanopticFlashOccMiniConfig
from frustum.nn.temporal import HistoryConfig
from frustum.recipes.flashocc import flashocc_r50_m0, flashocc_tiny
from frustum.recipes.published import published_for


def panoptic_flashocc_tiny() -> Recipe:
    """Panoptic-FlashOcc tiny: ResNet-50, 256x704 images, 44 depth bins, one frame (nuScenes, RayPQ 12.9, RayIoU 34.81 published)."""
    model = PanopticFlashOccConfig(bev_channels=128, lift_channels=64, depth_bins=DepthBins(start=1, stop=45, step=1))
    return _published("panoptic-flashocc-tiny", model)


def panoptic_flashocc_depth() -> Recipe:
    """Panoptic-FlashOcc: as tiny with 88 depth bins and wider maps, one frame (nuScenes, RayPQ 13.2, RayIoU 35.22 published)."""
    return _published("panoptic-flashocc-depth", _wide())


def panoptic_flashocc_depth4d() -> Recipe:
    """Panoptic-FlashOcc with one past keyframe (nuScenes, RayPQ 14.5, RayIoU 36.76 published)."""
    return _published("panoptic-flashocc-depth4d", _wide(frames=1, neck_channels=512))


def panoptic_flashocc_longterm8f() -> Recipe:
    """Panoptic-FlashOcc with eight past keyframes, nine in all (nuScenes, RayPQ 16.0, RayIoU 38.50 published)."""
    return _published("panoptic-flashocc-longterm8f", _wide(frames=8, neck_channels=512))


def panoptic_flashocc_longterm16f() -> Recipe:
    """Panoptic-FlashOcc with sixteen past keyframes (nuScenes, RayIoU 38.31 published, of the network without instances)."""
    return _published("panoptic-flashocc-longterm16f", _wide(frames=16, neck_channels=512))


def panoptic_flashocc_mini() -> Recipe:
    """Panoptic-FlashOcc for two CPU cores: flashocc-tiny with instance centres, learns the street world in minutes."""
    return flashocc_tiny().model_copy(update={"name": "panoptic-flashocc-mini", "model": PanopticFlashOccMiniConfig()})


def _wide(frames: int = 0, neck_channels: int = 256) -> PanopticFlashOccConfig:
    bins, history = DepthBins(start=1, stop=45, step=0.5), HistoryConfig(frames=frames)
    return PanopticFlashOccConfig(bev_channels=256, lift_channels=80, depth_bins=bins, history=history, neck_channels=neck_channels)


def _published(name: str, model: PanopticFlashOccConfig) -> Recipe:
    """FlashOCC's training settings."""
    return flashocc_r50_m0().model_copy(update={"name": name, "model": model, "published": published_for(name)})
