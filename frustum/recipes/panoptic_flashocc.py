"""Panoptic-FlashOcc: the published settings for nuScenes, and a small one for the street world.

`model.instances=null` gives the semantic network of each; the published repository ships both.
"""

from __future__ import annotations

from frustum.engine.recipe import PublishedNumber, Recipe
from frustum.geometry.depth import DepthBins
from frustum.models.panoptic_flashocc import PanopticFlashOccConfig
from frustum.models.panoptic_flashocc_mini import PanopticFlashOccMiniConfig
from frustum.nn.temporal import HistoryConfig
from frustum.recipes.flashocc import SOURCE, flashocc_r50_m0, flashocc_tiny

_MIOU = "Occ3D-nuScenes validation, 6019 keyframes, inside the camera mask, mean over 17 classes, trained without the mask, EMA weights"
_RAYS = "Occ3D-nuScenes validation, 6019 keyframes, mean over 1, 2 and 4 m, EMA weights"
_TINY = (10.33, 41.02, 22.16, 39.75, 42.63, 20.53, 24.01, 23.71, 24.65, 25.58, 30.63, 58.0, 32.12, 33.78, 31.02, 17.67, 17.74)
_DEPTH = (10.21, 42.14, 22.82, 40.13, 42.86, 20.69, 24.58, 23.7, 24.02, 25.48, 30.9, 58.65, 32.04, 34.27, 31.12, 18.26, 17.79)
_DEPTH4D = (10.89, 43.92, 24.42, 41.91, 45.18, 18.73, 25.59, 25.67, 25.86, 25.29, 31.84, 59.03, 31.53, 34.67, 31.49, 19.91, 19.31)
_LONG8 = (11.51, 45.87, 24.65, 41.75, 46.15, 20.96, 26.82, 26.77, 29.66, 24.65, 32.75, 60.39, 32.87, 36.49, 33.16, 21.3, 20.92)
"""Published IoU of the classes, others to vegetation, from the comments of the published configurations."""


def panoptic_flashocc_tiny() -> Recipe:
    """Panoptic-FlashOcc tiny: ResNet-50, 256x704 images, 44 depth bins, one frame (nuScenes, RayPQ 12.9, RayIoU 34.81 published)."""
    model = PanopticFlashOccConfig(bev_channels=128, lift_channels=64, depth_bins=DepthBins(start=1, stop=45, step=1))
    rays, quality = (34.81, 29.1, 35.7, 39.7), (12.9, 8.8, 13.4, 16.5)
    return _published("panoptic-flashocc-tiny", model, 29.14, _TINY, rays, quality)


def panoptic_flashocc_depth() -> Recipe:
    """Panoptic-FlashOcc: as tiny with 88 depth bins and wider maps, one frame (nuScenes, RayPQ 13.2, RayIoU 35.22 published)."""
    rays, quality = (35.22, 29.5, 36.1, 40.1), (13.2, 9.2, 13.5, 16.8)
    return _published("panoptic-flashocc-depth", _wide(), 29.39, _DEPTH, rays, quality)


def panoptic_flashocc_depth4d() -> Recipe:
    """Panoptic-FlashOcc with one past keyframe (nuScenes, RayPQ 14.5, RayIoU 36.76 published)."""
    rays, quality = (36.76, 31.2, 37.6, 41.5), (14.5, 10.6, 15.0, 18.0)
    return _published("panoptic-flashocc-depth4d", _wide(frames=1, neck_channels=512), 30.31, _DEPTH4D, rays, quality)


def panoptic_flashocc_longterm8f() -> Recipe:
    """Panoptic-FlashOcc with eight past keyframes, nine in all (nuScenes, RayPQ 16.0, RayIoU 38.50 published)."""
    rays, quality = (38.50, 32.9, 39.3, 43.3), (16.0, 11.9, 16.3, 19.7)
    return _published("panoptic-flashocc-longterm8f", _wide(frames=8, neck_channels=512), 31.57, _LONG8, rays, quality)


def panoptic_flashocc_longterm16f() -> Recipe:
    """Panoptic-FlashOcc with sixteen past keyframes (nuScenes, RayIoU 38.31 published, of the network without instances)."""
    rays = (38.31, 32.8, 39.1, 43.0)
    return _published("panoptic-flashocc-longterm16f", _wide(frames=16, neck_channels=512), 31.55, (), rays, ())


def panoptic_flashocc_mini() -> Recipe:
    """Panoptic-FlashOcc for two CPU cores: flashocc-tiny with instance centres, learns the street world in minutes."""
    return flashocc_tiny().model_copy(update={"name": "panoptic-flashocc-mini", "model": PanopticFlashOccMiniConfig()})


def _wide(frames: int = 0, neck_channels: int = 256) -> PanopticFlashOccConfig:
    bins, history = DepthBins(start=1, stop=45, step=0.5), HistoryConfig(frames=frames)
    return PanopticFlashOccConfig(bev_channels=256, lift_channels=80, depth_bins=bins, history=history, neck_channels=neck_channels)


def _published(
    name: str, model: PanopticFlashOccConfig, miou: float, per_class: tuple[float, ...], rays: tuple[float, ...], quality: tuple[float, ...]
) -> Recipe:
    """FlashOCC's training settings; `rays` and `quality` are RayIoU and RayPQ: the mean, then at 1, 2, 4 m."""
    base = flashocc_r50_m0()
    numbers = [PublishedNumber(metric="mIoU", value=miou, protocol=_MIOU, source=SOURCE, per_class=per_class)]
    for metric, values in (("RayIoU", rays), ("RayPQ", quality)):
        names = (metric, *(f"{metric}@{metres}" for metres in (1, 2, 4))) if values else ()
        numbers += [PublishedNumber(metric=n, value=v, protocol=_RAYS, source=SOURCE) for n, v in zip(names, values, strict=True)]
    return base.model_copy(update={"name": name, "model": model, "published": tuple(numbers)})
