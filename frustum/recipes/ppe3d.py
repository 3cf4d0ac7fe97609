"""3DPPE and PETR: the published settings for nuScenes. Which recipe is which row of the paper: docs/methods/ppe3d.md."""

from __future__ import annotations

from typing import Any

from frustum.data.nuscenes.section import NuScenesData
from frustum.data.source import AugmentConfig
from frustum.engine.recipe import EmaConfig, OptimConfig, Recipe, RuntimeConfig, TrainConfig
from frustum.losses.pixel_depth import PixelDepthLoss
from frustum.losses.set_prediction import SetLoss
from frustum.models.ppe3d import Ppe3dConfig
from frustum.nn.encoders.efficientnet import MEAN, STD
from frustum.nn.query_aids import QueryAids
from frustum.recipes.published import published_for

# PETR draws the scale itself, 0.47 to 0.625 of 1600 pixels, and evaluates at the width of the network's image
_PETR: dict[str, Any] = {"resize": (-0.03, 0.125), "eval_resize": 0.0, "grid_mask": 0.7}
_TWO_FRAMES = SetLoss(code_weights=(1.0,) * 10)  # velocities, which two frames show, count as much as the rest


def ppe3d_v299() -> Recipe:
    """3DPPE: V2-99, 320x800 images, hybrid depth, one embedding for pixels and queries (nuScenes, 39.8 mAP, 44.6 NDS published)."""
    return _nuscenes("ppe3d-v299", Ppe3dConfig(), (320, 800), lr=4e-4, batch_size=4)


def ppe3d_r50() -> Recipe:
    """3DPPE: ResNet-50 with deformable convolutions, 256x704 images, context encoder (nuScenes)."""
    return _nuscenes("ppe3d-r50", Ppe3dConfig(encoder="resnet50", context_blocks=3), (256, 704), lr=2e-4, batch_size=1)


def ppe3d_r50_512() -> Recipe:
    """3DPPE: ResNet-50, 512x1408 images (nuScenes, 37.0 mAP, 43.3 NDS published with class-balanced sampling)."""
    return _nuscenes("ppe3d-r50-512", Ppe3dConfig(encoder="resnet50"), (512, 1408), lr=4e-4, batch_size=4)


def ppe3d_r101_512() -> Recipe:
    """3DPPE: ResNet-101, 512x1408 images (nuScenes, 39.1 mAP, 45.8 NDS published with class-balanced sampling)."""
    return _nuscenes("ppe3d-r101-512", Ppe3dConfig(encoder="resnet101"), (512, 1408), lr=4e-4, batch_size=4)


def petr_v299() -> Recipe:
    """PETR, the baseline: V2-99, 320x800 images, camera rays as positions (nuScenes, 37.8 mAP, 42.6 NDS published)."""
    model = Ppe3dConfig(encoding="camera_ray", box_convention="mmdet3d<1.0")
    return _nuscenes("petr-v299", model, (320, 800), lr=2e-4, batch_size=1, **_PETR)


def petrv2_v299() -> Recipe:
    """PETRv2, the baseline of two frames: rays gated by the features (nuScenes with sweeps, 41.0 mAP, 50.3 NDS published)."""
    model = Ppe3dConfig(encoding="feature_guided", past=1, grouped_boxes=True, box_convention="mmdet3d<1.0", set_loss=_TWO_FRAMES)
    return _nuscenes("petrv2-v299", model, (320, 800), lr=2e-4, batch_size=1, **_PETR)


def ppe3d_2f_v299() -> Recipe:
    """3DPPE-v2: as ppe3d-v299 with a camera sweep (nuScenes with sweeps, 43.2 mAP, 51.9 NDS published)."""
    model = Ppe3dConfig(past=1, grouped_boxes=True, set_loss=_TWO_FRAMES)
    return _nuscenes("ppe3d-2f-v299", model, (320, 800), lr=4e-4, batch_size=4)


def ppe3d_mini() -> Recipe:
    """3DPPE for two CPU cores: EfficientNet-Lite0, 96x256 images, 196 queries (street world)."""
    aids = QueryAids(
        ray_input=True,
        light_depth=True,
        anchor_grid=True,
        metric_code=True,
        metric_offsets=True,
        position_in_values=True,
        votes=True,
        token_loss=4,
        denoising=1,
    )
    model = Ppe3dConfig(
        encoder="efficientnet_lite0", frozen_blocks=5, pretrained=True, depth_bins=32, depth_channels=64, camera_code=False, channels=128,
        queries=196, layers=3, heads=4, hidden=512, dropout=0.0, refine_boxes=True, suppression="circle", aids=aids,
        depth="direct", depth_loss=PixelDepthLoss(depth_weight=4, distribution_weight=0, logarithm=True, beta=0.1),
    )  # fmt: skip
    return Recipe(
        name="ppe3d-mini",
        model=model,
        data=NuScenesData(root="data/street", image_size=(96, 256), mean=MEAN, std=STD, cache="memory"),
        augment=AugmentConfig(
            resize=(0.0, 0.0), rotate_deg=(0.0, 0.0), flip=False, colour_jitter=0.2, bev_flip_x=0.0, bev_flip_y=0.0,
            bev_rotate_deg=(-22.5, 22.5),
        ),
        optim=OptimConfig(lr=1.2e-3, lr_scale={"encoder": 0.3}, clip_norm=10.0, schedule="cosine", warmup_steps=100, warmup_ratio=0.05),
        ema=EmaConfig(decay=0.99, warmup=0.0, initial_updates=0),
        train=TrainConfig(epochs=None, steps=4000, batch_size=1, num_workers=0, checkpoint_every=500),
        runtime=RuntimeConfig(precision="auto"),
    )  # fmt: skip


def ppe3d_mini_kitti() -> Recipe:
    """The same network for an imported KITTI raw drive: two forward cameras, 96x320 images."""
    mini = ppe3d_mini()
    data = NuScenesData(root="data/kitti", image_size=(96, 320), mean=MEAN, std=STD, cache="memory")
    # two samples a step, for the published depth net: see docs/methods/ppe3d.md, "Two samples a step"
    train = mini.train.model_copy(update={"steps": 600, "batch_size": 2})
    return mini.model_copy(update={"name": "ppe3d-mini-kitti", "data": data, "train": train})


def _nuscenes(name: str, model: Ppe3dConfig, image_size: tuple[int, int], lr: float, batch_size: int, **augment: Any) -> Recipe:
    """The published settings: AdamW, 24 epochs, half a cosine; eight processes' samples a step, here one after the other.

    Images of the evaluation are a little larger than the network's, as in 3DPPE, unless `augment` says otherwise. The published networks
    started from encoders that had learned detection or segmentation; give such a file as --init FILE.
    """
    return Recipe(
        name=name,
        model=model,
        data=NuScenesData(
            root="data/nuscenes", image_size=image_size, channel_order="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)
        ),
        augment=AugmentConfig(
            rotate_deg=(0.0, 0.0), bev_flip_x=0.0, bev_flip_y=0.0, bev_rotate_deg=(-22.5, 22.5), bev_scale=(0.95, 1.05),
            shared=True, **{"eval_resize": 0.04} | augment,
        ),
        optim=OptimConfig(
            lr=lr, weight_decay=1e-2, lr_scale={"encoder": 0.1}, clip_norm=35.0, schedule="cosine", min_lr_ratio=1e-3, warmup_steps=500,
            warmup_ratio=1 / 3,
        ),
        ema=None,
        train=TrainConfig(epochs=24, batch_size=batch_size, accumulate=8),
        published=published_for(name),
    )  # fmt: skip
