"""OccFeat: pretraining without a label, of maps, occupancy and detection; published networks, and small ones for the street world."""

from __future__ import annotations

from typing import Any

from frustum.engine.recipe import OptimConfig, Recipe, TrainConfig
from frustum.models.map_network import MapNetwork
from frustum.models.occfeat import OccFeatConfig, TeacherConfig
from frustum.recipes.bev_segmentation import bevformer_seg_b4, bevformer_seg_mini, simplebev_b0, simplebev_mini, simplebev_r50
from frustum.recipes.flashocc import flashocc_r50_m0, flashocc_tiny
from frustum.recipes.ultimatedo import ultimatedo_mini, ultimatedo_r50


def occfeat_b0() -> Recipe:
    """Pretrains simplebev-b0: LiDAR occupancy and features of DINOv2, 224x400 images (nuScenes)."""
    return _published("occfeat-b0", simplebev_b0(), "simplebev")


def occfeat_r50() -> Recipe:
    """Pretrains simplebev-r50: LiDAR occupancy and features of DINOv2, 448x800 images (nuScenes)."""
    return _published("occfeat-r50", simplebev_r50(), "simplebev")


def occfeat_bevformer_b4() -> Recipe:
    """Pretrains bevformer-seg-b4: LiDAR occupancy and features of DINOv2, 448x800 images (nuScenes)."""
    return _published("occfeat-bevformer-b4", bevformer_seg_b4(), "bevformer_seg")


def occfeat_flashocc_r50() -> Recipe:
    """Pretrains flashocc-r50-m0, beyond the paper: LiDAR occupancy and features of DINOv2 (nuScenes)."""
    return _published("occfeat-flashocc-r50", flashocc_r50_m0(), "flashocc")


def occfeat_ultimatedo_r50() -> Recipe:
    """Pretrains ultimatedo-r50, beyond the paper: LiDAR occupancy and features of DINOv2 (nuScenes)."""
    return _published("occfeat-ultimatedo-r50", ultimatedo_r50(), "ultimatedo")


def occfeat_mini() -> Recipe:
    """Pretrains simplebev-mini on two CPU cores: LiDAR occupancy and features of EfficientNet-Lite0 (street world)."""
    return _mini("occfeat-mini", simplebev_mini(), "simplebev")


def occfeat_bevformer_mini() -> Recipe:
    """Pretrains bevformer-seg-mini on two CPU cores (street world)."""
    return _mini("occfeat-bevformer-mini", bevformer_seg_mini(), "bevformer_seg")


def occfeat_flashocc_mini() -> Recipe:
    """Pretrains flashocc-tiny on two CPU cores, beyond the paper (street world)."""
    return _mini("occfeat-flashocc-mini", flashocc_tiny(), "flashocc_tiny")


def occfeat_ultimatedo_mini() -> Recipe:
    """Pretrains ultimatedo-mini on two CPU cores, beyond the paper (street world)."""
    return _mini("occfeat-ultimatedo-mini", ultimatedo_mini(), "ultimatedo_mini")


def _published(name: str, base: Recipe, network: str) -> Recipe:
    """SimpleBEV's schedule, 50 epochs: the paper's own is not known to us."""
    optim = OptimConfig(lr=3e-4, weight_decay=1e-7, clip_norm=5.0, schedule="one_cycle", anneal="linear", pct_start=0.05)
    train = TrainConfig(epochs=50, batch_size=8, accumulate=5)
    return _pretraining(name, base, network, TeacherConfig()).model_copy(update={"optim": optim, "train": train})


def _mini(name: str, base: Recipe, network: str) -> Recipe:
    teacher = TeacherConfig(kind="efficientnet_lite0", scale=2)
    made = _pretraining(name, base, network, teacher, feature_weight=0.1, channels=16)
    return made.model_copy(update={"train": base.train.model_copy(update={"steps": 2000})})


def _pretraining(name: str, base: Recipe, network: str, teacher: TeacherConfig, **model: Any) -> Recipe:
    """The network of a recipe, with its data, augmentation and optimiser."""
    held = MapNetwork.model_validate({network: base.model})
    data = base.data.model_copy(update={"labelled_only": False, "labelled_share": 1.0, "class_balanced": False})
    return base.model_copy(
        update={"name": name, "model": OccFeatConfig(network=held, teacher=teacher, **model), "data": data, "published": ()}
    )
