"""GSRender and RenderOcc: occupancy from 2D labels. The published stack, a FlashOCC trunk, and small ones for the street world."""

from __future__ import annotations

import math

from frustum.data.labels.view_points import Views
from frustum.data.source import AugmentConfig
from frustum.engine.recipe import OptimConfig, PublishedNumber, Recipe, TrainConfig
from frustum.geometry.depth import DepthBins
from frustum.losses.view_rendering import ViewLoss
from frustum.models.flashocc import FlashOccConfig
from frustum.models.flashocc_stereo import FlashOccStereoConfig
from frustum.models.flashocc_tiny import FlashOccTinyConfig
from frustum.models.gsrender import GsRenderConfig
from frustum.models.occupancy_trunk import Trunk
from frustum.models.renderocc import RenderOccConfig
from frustum.models.view_rendering import ClassWeights, RenderLoss
from frustum.nn.encoders.swin import SwinConfig
from frustum.nn.gaussians import GaussianHead
from frustum.recipes.flashocc import flashocc_r50_m0, flashocc_tiny
from frustum.recipes.published import published_for

# Points per class by which RenderOcc draws rays (its table, in the order of Occ3D's classes).
_POINTS = (
    2854504, 7291443, 141614, 4239939, 32248552, 1583610, 364372, 2346381, 582961, 4829021, 14073691, 191019309, 6249651, 55095657,
    58484771, 193834360, 131378779,
)  # fmt: skip
_MOVING = ("others", "barrier", "bus", "car", "construction_vehicle", "pedestrian", "trailer", "truck")
"""RenderOcc's list of what moves, as its code has it: numbers of another order of the classes."""


def renderocc_swin_b() -> Recipe:
    """RenderOcc: Swin-B, 512x1408 images, stereo depth, voxels, seven keyframes of labels (nuScenes, 24.46 mIoU published)."""
    rare = tuple(math.exp(0.005 * (max(_POINTS) / count - 1)) for count in _POINTS)
    views = Views(
        adjacent=(-3, -2, -1, 1, 2, 3), points=38400, class_weights=rare, adjacent_weight=0.3, moving_weight=0, max_depth=52,
        moving=_MOVING,
    )  # fmt: skip
    reference = {"renderer": "reference", "step": 0.5, "density_bias": 0.0, "entropy": 0.01, "distortion": 0.01, "threshold": 8.5}
    model = RenderOccConfig(trunk=_swin_b(), views=views, **reference)
    return _published("renderocc-swin-b", model, published_for("renderocc-swin-b"))


def gsrender_swin_b() -> Recipe:
    """GSRender on RenderOcc's network: Swin-B, 512x1408 images, stereo depth, voxels (nuScenes)."""
    return _published("gsrender-swin-b", GsRenderConfig(trunk=_swin_b()))


def gsrender_r50() -> Recipe:
    """GSRender on FlashOCC's two-dimensional trunk: ResNet-50, 256x704 images (nuScenes)."""
    base = flashocc_r50_m0()
    trunk = FlashOccConfig(bev_channels=256, depth_bins=DepthBins(start=1, stop=45, step=0.5), depth_loss=0.05)
    changes = {"name": "gsrender-r50", "model": GsRenderConfig(trunk=Trunk(flashocc=trunk)), "published": ()}
    return base.model_copy(update=changes)


def gsrender_mini() -> Recipe:
    """GSRender for two CPU cores: FlashOCC-tiny's trunk, learns the street world without a 3D label."""
    return _mini("gsrender-mini", _mini_gaussians(_mini_views()))


def renderocc_mini() -> Recipe:
    """Occupancy from 2D labels by exact traversal, for two CPU cores: FlashOCC-tiny's trunk (street world)."""
    model = RenderOccConfig(
        trunk=Trunk(flashocc_tiny=FlashOccTinyConfig()), views=_mini_views(), loss=_mini_loss(), density_bias=-4.5,
        class_weights=_MINI_WEIGHTS, shown_width=128,
    )  # fmt: skip
    return _mini("renderocc-mini", model)


def gsrender_mini_kitti() -> Recipe:
    """The same network for an imported KITTI raw drive, which has no point classes: learns shapes from depth alone, two cameras."""
    mini = _mini("gsrender-mini-kitti", _mini_gaussians(_mini_views().model_copy(update={"source": "lidar"})))
    return mini.model_copy(update={"data": mini.data.model_copy(update={"root": "data/kitti", "image_size": (96, 320)})})


def flashocc_mini_render() -> Recipe:
    """FlashOCC-tiny with 3D labels of a tenth of the scenes in half of its steps, and 2D labels of all (street world)."""
    tiny = flashocc_tiny()
    render = RenderLoss(weight=0.2, views=_mini_views(), loss=_mini_loss().model_copy(update={"sparsity": 0.0}))
    model = tiny.model.model_copy(update={"render": render})
    data = tiny.data.model_copy(update={"labelled_share": 0.1, "labelled_repeat": 9})
    return tiny.model_copy(update={"name": "flashocc-mini-render", "model": model, "data": data})


_MINI_WEIGHTS = ClassWeights(table="counted", power=0.5, depth_power=0.35)


def _mini_views() -> Views:
    return Views(points=4000, balance=0.35, hidden=0.5, moving_weight=0)


def _mini_gaussians(views: Views) -> GsRenderConfig:
    head = GaussianHead(opacity_bias=-4.5, mean_shift=0)
    return GsRenderConfig(
        trunk=Trunk(flashocc_tiny=FlashOccTinyConfig()), head=head, views=views, compensation="none", loss=_mini_loss(),
        class_weights=_MINI_WEIGHTS, readout="splat", threshold=0.12, shown_width=128,
    )  # fmt: skip


def _mini_loss() -> ViewLoss:
    return ViewLoss(depth="hit", normalise=True, window_share=0.1, free_weight=0.5, sparsity=3.0, moving_weight=0)


def _swin_b() -> Trunk:
    """RenderOcc's network: BEVStereo4D with voxels and 3D convolutions."""
    stereo = FlashOccStereoConfig(
        swin=SwinConfig(),
        neck_channels=512,
        depth_bins=DepthBins(start=1, stop=45, step=0.5),
        lift_channels=32,
        bev_channels=32,
        voxels=True,
    )
    return Trunk(flashocc_stereo=stereo)


def _published(name: str, model: RenderOccConfig | GsRenderConfig, published: tuple[PublishedNumber, ...] = ()) -> Recipe:
    """RenderOcc's settings: AdamW 1e-4, 12 epochs, 16 samples a step; it started from a detector (`--init`)."""
    base = flashocc_r50_m0()
    return Recipe(
        name=name,
        model=model,
        data=base.data.model_copy(update={"image_size": (512, 1408)}),
        augment=base.augment,
        optim=OptimConfig(
            lr=1e-4, weight_decay=1e-2, clip_norm=5.0, schedule="step", warmup_steps=200, warmup_ratio=1e-3, step_epochs=(100,)
        ),
        ema=base.ema,
        train=TrainConfig(epochs=12, batch_size=2, accumulate=8),
        published=published,
    )


def _mini(name: str, model: RenderOccConfig | GsRenderConfig) -> Recipe:
    tiny = flashocc_tiny()
    augment = AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0), flip=False, colour_jitter=0.2)
    train = tiny.train.model_copy(update={"steps": 3000})
    return tiny.model_copy(update={"name": name, "model": model, "augment": augment, "train": train})
