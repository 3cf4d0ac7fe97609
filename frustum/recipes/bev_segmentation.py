"""Maps from above: SimpleBEV, a BEVFormer without time, and Lift-Splat; published settings, and small ones for the street world."""

from __future__ import annotations

from typing import Any

from frustum.data.nuscenes.section import NuScenesData
from frustum.data.source import AugmentConfig
from frustum.engine.recipe import EmaConfig, ModelConfig, OptimConfig, PublishedNumber, Recipe, RuntimeConfig, TrainConfig
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.models.bev_segmentation import MapLoss, Maps
from frustum.models.bevformer_seg import BevFormerSegConfig
from frustum.models.lss_seg import LssSegConfig
from frustum.models.simplebev import SimpleBevConfig
from frustum.nn.encoders.efficientnet import MEAN, STD
from frustum.nn.image_features import Encoder
from frustum.recipes.published import published_for


def simplebev_r101() -> Recipe:
    """SimpleBEV: ResNet-101, 448x800 images, vehicles in the frame of CAM_FRONT (nuScenes, 47.6 vehicle IoU published)."""
    return _simplebev("simplebev-r101", "resnet101", published_for("simplebev-r101"))


def simplebev_r50() -> Recipe:
    """SimpleBEV with ResNet-50, 448x800 images (nuScenes)."""
    return _simplebev("simplebev-r50", "resnet50")


def simplebev_b4() -> Recipe:
    """SimpleBEV with EfficientNet-B4, 448x800 images (nuScenes)."""
    return _simplebev("simplebev-b4", "efficientnet_b4")


def simplebev_b0() -> Recipe:
    """SimpleBEV with EfficientNet-B0, 224x400 images, the network that OccFeat pretrains (nuScenes)."""
    base = _simplebev("simplebev-b0", "efficientnet_b0")
    augment = base.augment.model_copy(update={"resize": (-0.05, 0.05)})  # 0.8 to 1.2 of the width, as at 448x800
    return base.model_copy(update={"data": base.data.model_copy(update={"image_size": (224, 400)}), "augment": augment})


def bevformer_seg_b4() -> Recipe:
    """A BEVFormer without time: EfficientNet-B4, 448x800 images, vehicles (nuScenes, 45.5 vehicle IoU published)."""
    optim = OptimConfig(
        lr=3e-4, weight_decay=1e-7, clip_norm=5.0, schedule="one_cycle", anneal="linear", pct_start=0.05, div_factor=3, final_div_factor=20
    )
    return Recipe(
        name="bevformer-seg-b4",
        model=BevFormerSegConfig(),
        data=NuScenesData(root="data/nuscenes", image_size=(448, 800), labelled_only=True),
        augment=AugmentConfig(
            resize=(-0.005, 0.005), rotate_deg=(-2.5, 2.5), flip=False, crop_h=(0.0, 0.0), bev_flip_x=0.0, bev_flip_y=0.0,
            bev_rotate_deg=(-30.0, 30.0),
        ),
        optim=optim,
        ema=None,
        train=TrainConfig(epochs=100, batch_size=4),
        published=published_for("bevformer-seg-b4"),
    )  # fmt: skip


def lss_seg() -> Recipe:
    """Lift-Splat-Shoot: EfficientNet-B0, 128x352 images, vehicles (nuScenes, 32.07 vehicle IoU published)."""
    return Recipe(
        name="lss-seg",
        model=LssSegConfig(),
        data=NuScenesData(root="data/nuscenes", image_size=(128, 352), labelled_only=True),
        augment=AugmentConfig(resize=(-0.027, 0.005), crop_h=(0.0, 0.22), bev_flip_x=0.0, bev_flip_y=0.0),
        optim=OptimConfig(kind="adam", lr=1e-3, weight_decay=1e-7, clip_norm=5.0, schedule="constant", warmup_steps=0),
        ema=None,
        train=TrainConfig(epochs=50, batch_size=4),
        published=published_for("lss-seg"),
    )


def simplebev_mini() -> Recipe:
    """SimpleBEV for two CPU cores: EfficientNet-Lite0, 96x256 images, vehicles around the ego vehicle (street world)."""
    model = SimpleBevConfig(
        encoder="efficientnet_lite0", pretrained=True, frozen_blocks=5, channels=64, map_channels=(64, 96, 128), grid=_mini_grid(8, 1.25),
        fine=2, maps=_MINI_MAPS,
    )  # fmt: skip
    return _mini("simplebev-mini", model)


def bevformer_seg_mini() -> Recipe:
    """A BEVFormer without time for two CPU cores: three layers of 2,500 queries (street world)."""
    model = BevFormerSegConfig(
        encoder="efficientnet_lite0", pretrained=True, frozen_blocks=5, channels=64, layers=3, places=8, hidden=128, dropout=0.0,
        grid=_mini_grid(4, 2.5, cell=2), fine=4, maps=_MINI_MAPS, loss=MapLoss(),
    )  # fmt: skip
    return _mini("bevformer-seg-mini", model)


def lss_seg_mini() -> Recipe:
    """Lift-Splat-Shoot for two CPU cores: EfficientNet-Lite0, 96x256 images (street world).

    Cells of vehicles weigh 8, not 2.13: by the cross-entropy alone their probabilities stay below one half for thousands of steps else.
    """
    model = LssSegConfig(
        encoder="efficientnet_lite0", pretrained=True, frozen_blocks=5, image_channels=64, depth_bins=DepthBins(start=1, stop=51, step=1),
        channels=48, map_channels=(48, 72, 96), grid=_mini_grid(1, 10.0), fine=2, maps=_MINI_MAPS, positive_weight=8,
    )  # fmt: skip
    return _mini("lss-seg-mini", model)


_MINI_MAPS = Maps(rule="pointbev")


def _mini_grid(heights: int, height: float, cell: float = 1) -> VoxelGrid:
    """Cells of a metre or so; the map is predicted in cells of half a metre."""
    return VoxelGrid(lower=(-50, -50, -4), upper=(50, 50, -4 + heights * height), cell=(cell, cell, height))


def _mini(name: str, model: ModelConfig) -> Recipe:
    return Recipe(
        name=name,
        model=model,
        data=NuScenesData(root="data/street", image_size=(96, 256), mean=MEAN, std=STD, cache="memory", labelled_only=True),
        augment=AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0), flip=False, colour_jitter=0.2),
        optim=OptimConfig(
            lr=2e-3, weight_decay=1e-2, lr_scale={"encoder": 0.3}, clip_norm=5.0, schedule="cosine", warmup_steps=50, warmup_ratio=0.05
        ),
        ema=EmaConfig(decay=0.99, warmup=0.0, initial_updates=0),
        train=TrainConfig(epochs=None, steps=3000, batch_size=1, num_workers=0, checkpoint_every=500),
        runtime=RuntimeConfig(precision="auto"),
    )


def _simplebev(name: str, encoder: Encoder, published: tuple[PublishedNumber, ...] = (), **model: Any) -> Recipe:
    """The published settings: 25,000 steps of 40 samples, AdamW 5e-4, one cycle in lines; maps in the frame of a drawn camera."""
    maps, loss = Maps(rule="simplebev", draw_reference=True), MapLoss(doubled_offsets=True)
    return Recipe(
        name=name,
        model=SimpleBevConfig(encoder=encoder, sampling="reference", feature_head=True, maps=maps, loss=loss, **model),
        data=NuScenesData(root="data/nuscenes", image_size=(448, 800), labelled_only=True),
        augment=AugmentConfig(resize=(-0.1, 0.1), rotate_deg=(0.0, 0.0), crop_h=(0.0, 0.0)),
        optim=OptimConfig(lr=5e-4, weight_decay=1e-7, clip_norm=5.0, schedule="one_cycle", anneal="linear", pct_start=0.05),
        ema=None,
        train=TrainConfig(epochs=None, steps=25000, batch_size=8, accumulate=5),
        published=published,
    )
