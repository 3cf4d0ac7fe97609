"""BEVDetOCC, the 3D baseline of FlashOCC: the published setting, and a small one that differs from `flashocc-tiny` in nothing else."""

from __future__ import annotations

from frustum.engine.recipe import Recipe
from frustum.models.bevdet_occ import BevDetOccConfig
from frustum.models.bevdet_occ_tiny import BevDetOccTinyConfig
from frustum.recipes.flashocc import flashocc_r50, flashocc_tiny
from frustum.recipes.published import published_for


def bevdet_occ_r50() -> Recipe:
    """BEVDetOCC: ResNet-50, 256x704 images, 88 depth bins, 3D convolutions over 200x200x16 voxels (nuScenes, 31.60 mIoU published)."""
    name = "bevdet-occ-r50"
    return flashocc_r50().model_copy(update={"name": name, "model": BevDetOccConfig(), "published": published_for(name)})


def bevdet_occ_tiny() -> Recipe:
    """`flashocc-tiny` with 3D convolutions in place of its 2D ones, everything else equal: what FlashOCC is compared with."""
    return flashocc_tiny().model_copy(update={"name": "bevdet-occ-tiny", "model": BevDetOccTinyConfig()})
