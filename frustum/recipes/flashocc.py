"""FlashOCC: the two published single-frame settings for nuScenes, and small ones for the street world and for KITTI."""

from __future__ import annotations

from frustum.data.nuscenes.section import NuScenesData
from frustum.data.source import AugmentConfig
from frustum.engine.recipe import EmaConfig, OptimConfig, Recipe, RuntimeConfig, TrainConfig
from frustum.geometry.depth import DepthBins
from frustum.models.flashocc import FlashOccConfig
from frustum.models.flashocc_tiny import FlashOccTinyConfig
from frustum.nn.encoders.efficientnet import MEAN, STD
from frustum.recipes.published import published_for


def flashocc_r50_m0() -> Recipe:
    """FlashOCC M0: ResNet-50, 256x704 images, 44 depth bins, 128 map channels (nuScenes, 31.95 mIoU published)."""
    return _published("flashocc-r50-m0", FlashOccConfig(bev_channels=128, depth_bins=DepthBins(start=1, stop=45, step=1)))


def flashocc_r50() -> Recipe:
    """FlashOCC M1: as M0 with 88 depth bins and 256 map channels (nuScenes, 32.08 mIoU published)."""
    return _published("flashocc-r50", FlashOccConfig(bev_channels=256, depth_bins=DepthBins(start=1, stop=45, step=0.5)))


def flashocc_tiny() -> Recipe:
    """FlashOCC for two CPU cores: EfficientNet-Lite0, 96x256 images, learns the street world in minutes."""
    return _small("flashocc-tiny", "data/street", (96, 256), steps=6000)


def flashocc_tiny_kitti() -> Recipe:
    """The same network for an imported KITTI raw drive: two forward cameras, 96x320 images."""
    return _small("flashocc-tiny-kitti", "data/kitti", (96, 320), steps=1500)


def _small(name: str, root: str, image_size: tuple[int, int], steps: int) -> Recipe:
    return Recipe(
        name=name,
        model=FlashOccTinyConfig(),
        data=NuScenesData(root=root, image_size=image_size, mean=MEAN, std=STD, cache="memory"),
        augment=AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0), flip=False, colour_jitter=0.2),
        optim=OptimConfig(
            lr=4e-3, weight_decay=1e-2, lr_scale={"encoder": 0.3}, clip_norm=5.0, schedule="cosine", warmup_steps=50, warmup_ratio=0.05
        ),
        ema=EmaConfig(decay=0.99, warmup=0.0, initial_updates=0),
        train=TrainConfig(epochs=None, steps=steps, batch_size=1, num_workers=0, checkpoint_every=500),
        runtime=RuntimeConfig(precision="auto"),
    )


def _published(name: str, model: FlashOccConfig) -> Recipe:
    """The published settings: AdamW 1e-4, 24 epochs, 16 samples a step (as 4 x 4 here; on four GPUs set train.accumulate=1).

    The published networks started from the detector bevdet-r50-cbgs (`--init bevdet-r50-cbgs.pth`); without it the recipe starts from
    random weights, or with model.pretrained=true or =FILE from a trained ResNet-50.
    """
    return Recipe(
        name=name,
        model=model,
        data=NuScenesData(root="data/nuscenes", image_size=(256, 704), channel_order="bgr"),
        augment=AugmentConfig(),
        optim=OptimConfig(
            lr=1e-4, weight_decay=1e-2, clip_norm=5.0, schedule="step", warmup_steps=200, warmup_ratio=1e-3, step_epochs=(24,)
        ),
        ema=EmaConfig(decay=0.999, warmup=2000.0, initial_updates=10560),
        train=TrainConfig(epochs=24, batch_size=4, accumulate=4),
        published=published_for(name),
    )
