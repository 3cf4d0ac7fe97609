"""FlashOCC: the two published single-frame settings for nuScenes."""

from __future__ import annotations

from frustum.engine.recipe import AugmentConfig, DataConfig, EmaConfig, OptimConfig, PublishedNumber, Recipe, TrainConfig
from frustum.geometry.depth import DepthBins
from frustum.models.flashocc import FlashOccConfig

_PROTOCOL = "Occ3D-nuScenes validation, 6019 keyframes, inside the camera mask, mean over 17 classes, EMA weights"


def flashocc_r50_m0() -> Recipe:
    """FlashOCC M0: ResNet-50, 256x704 images, 44 depth bins, 128 map channels (nuScenes, 31.95 mIoU published)."""
    return _published("flashocc-r50-m0", FlashOccConfig(bev_channels=128, depth_bins=DepthBins(start=1, stop=45, step=1)), 31.95)


def flashocc_r50() -> Recipe:
    """FlashOCC M1: as M0 with 88 depth bins and 256 map channels (nuScenes, 32.08 mIoU published)."""
    return _published("flashocc-r50", FlashOccConfig(bev_channels=256, depth_bins=DepthBins(start=1, stop=45, step=0.5)), 32.08)


def _published(name: str, model: FlashOccConfig, miou: float) -> Recipe:
    """The published settings: AdamW 1e-4, 24 epochs, 16 samples a step (as 4 x 4 here; on four GPUs set train.accumulate=1)."""
    return Recipe(
        name=name,
        model=model,
        data=DataConfig(kind="nuscenes", root="data/nuscenes", image_size=(256, 704), channel_order="bgr"),
        augment=AugmentConfig(),
        optim=OptimConfig(
            lr=1e-4, weight_decay=1e-2, clip_norm=5.0, schedule="step", warmup_steps=200, warmup_ratio=1e-3, step_epochs=(24,)
        ),
        ema=EmaConfig(decay=0.999, warmup=2000.0, initial_updates=10560),
        train=TrainConfig(epochs=24, batch_size=4, accumulate=4),
        published=(PublishedNumber(metric="mIoU", value=miou, protocol=_PROTOCOL, source="FlashOCC repository, README and config"),),
    )
