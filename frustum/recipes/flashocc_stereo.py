"""FlashOCC with stereo over time: the two published settings for nuScenes.

The published configurations do not run as shipped: that of the Swin network passes an argument which its head does not take, and the
evaluation of both calls a method that the head does not have. What is here is what they mean.
"""

from __future__ import annotations

from frustum.engine.recipe import PublishedNumber, Recipe
from frustum.geometry.depth import DepthBins
from frustum.models.flashocc_stereo import FlashOccStereoConfig
from frustum.nn.encoders.swin import SwinConfig
from frustum.recipes.flashocc import PROTOCOL, SOURCE, flashocc_r50_m0

_PROTOCOL = f"{PROTOCOL}; past maps most likely warped"
_M2 = (9.08, 46.32, 17.71, 42.7, 50.64, 23.72, 20.13, 22.34, 24.09, 30.26, 37.39, 81.68, 40.13, 52.34, 56.46, 47.69, 40.6)
_M3 = (13.42, 51.07, 27.68, 51.57, 56.22, 27.27, 29.98, 29.93, 29.8, 37.77, 43.52, 83.81, 46.55, 56.15, 59.56, 50.84, 44.67)
"""Published IoU of the classes, others to vegetation, from the comments of the published configurations."""


def flashocc_r50_4d_stereo() -> Recipe:
    """FlashOCC M2: ResNet-50, 256x704 images, one past keyframe, stereo depth (nuScenes, 37.84 mIoU published)."""
    return _published("flashocc-r50-4d-stereo", FlashOccStereoConfig(), (256, 704), 1e-4, 37.84, _M2)


def flashocc_swin_b_4d_stereo() -> Recipe:
    """FlashOCC M3: as M2 with a Swin-B transformer and 512x1408 images (nuScenes, 43.52 mIoU published)."""
    model = FlashOccStereoConfig(swin=SwinConfig(), neck_channels=512, depth_bins=DepthBins(start=1, stop=45, step=0.5))
    return _published("flashocc-swin-b-4d-stereo", model, (512, 1408), 2e-4, 43.52, _M3)


def _published(
    name: str, model: FlashOccStereoConfig, image_size: tuple[int, int], lr: float, miou: float, per_class: tuple[float, ...]
) -> Recipe:
    """FlashOCC's training settings."""
    base = flashocc_r50_m0()
    data = base.data.model_copy(update={"image_size": image_size})
    number = PublishedNumber(metric="mIoU", value=miou, protocol=_PROTOCOL, source=SOURCE, per_class=per_class)
    optim = base.optim.model_copy(update={"lr": lr})
    return base.model_copy(update={"name": name, "model": model, "data": data, "optim": optim, "published": (number,)})
