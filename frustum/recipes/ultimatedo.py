"""UltimateDO, and BEVDet, its detection alone: settings for nuScenes, and a small one for the street world."""

from __future__ import annotations

from frustum.data.source import AugmentConfig
from frustum.engine.recipe import Recipe
from frustum.geometry import VoxelGrid
from frustum.models.ultimatedo import TasksConfig, UltimateDoConfig
from frustum.models.ultimatedo_mini import UltimateDoMiniConfig
from frustum.recipes.flashocc import flashocc_r50_m0, flashocc_tiny
from frustum.recipes.published import published_for


def ultimatedo_r50() -> Recipe:
    """UltimateDO: ResNet-50, 256x704 images, boxes and occupancy from one map (nuScenes; the settings are ours, no figures at hand)."""
    return _nuscenes("ultimatedo-r50", UltimateDoConfig())


def bevdet_r50() -> Recipe:
    """BEVDet: ResNet-50, 256x704 images, 59 depth bins, boxes alone (nuScenes, 28.3 mAP, 35.0 NDS published)."""
    grid = VoxelGrid(lower=(-51.2, -51.2, -5.0), upper=(51.2, 51.2, 3.0), cell=(0.8, 0.8, 8.0))
    recipe = _nuscenes("bevdet-r50", UltimateDoConfig(grid=grid, map_ratio=1, map_margin=0, map_z=None, tasks=TasksConfig(occupancy=None)))
    augment = AugmentConfig(bev_rotate_deg=(-22.5, 22.5), bev_scale=(0.95, 1.05))  # what labelled voxels cannot follow
    return recipe.model_copy(update={"augment": augment, "published": published_for("bevdet-r50")})


def ultimatedo_mini() -> Recipe:
    """UltimateDO for two CPU cores: flashocc-tiny with a detection head, boxes and occupancy of the street world.

    Without channels-last layout (the image part has it in any case): in float32 on a CPU, 3x3 convolutions over a large map take twice as
    long backward in it.
    """
    base = flashocc_tiny()
    runtime = base.runtime.model_copy(update={"channels_last": False})
    return base.model_copy(update={"name": "ultimatedo-mini", "model": UltimateDoMiniConfig(), "runtime": runtime})


def _nuscenes(name: str, model: UltimateDoConfig) -> Recipe:
    """BEVDet's training settings: AdamW 2e-4, 20 epochs, 64 samples a step (as 8 x 8 here).

    They are those of its run with class-balanced sampling, which `data.class_balanced=true` adds.
    """
    base = flashocc_r50_m0()
    optim = base.optim.model_copy(update={"lr": 2e-4, "step_epochs": (20,)})
    train = base.train.model_copy(update={"epochs": 20, "batch_size": 8, "accumulate": 8})
    return base.model_copy(update={"name": name, "model": model, "optim": optim, "train": train, "published": ()})
