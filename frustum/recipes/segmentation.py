"""The class of every pixel of an image: PSPNet and DeepLabV3 on Cityscapes and CamVid, small ones for a CPU, and one for faces.

On Cityscapes: crops and steps of TorchDistiller's training, in which CWD was published (docs/methods/segmentation.md). Training cuts
windows anywhere in the scaled photograph; evaluation sees all of it.
"""

from __future__ import annotations

from typing import Any

from frustum.data.images.section import ImageFolderData
from frustum.data.portraits.section import PortraitData
from frustum.data.source import AugmentConfig
from frustum.engine.recipe import EmaConfig, ModelConfig, OptimConfig, PublishedNumber, Recipe, RuntimeConfig, TrainConfig
from frustum.models.deeplabv3 import DeepLabV3Config
from frustum.models.pspnet import PspNetConfig
from frustum.models.unet_seg import UnetConfig
from frustum.nn.encoders.efficientnet import MEAN, STD
from frustum.recipes.published import published_for
from frustum.types.pixel_classes import CAMVID, FACE


def pspnet_r101_cityscapes() -> Recipe:
    """PSPNet with ResNet-101, the teacher of CWD (Cityscapes, 78.56 mIoU published)."""
    model = PspNetConfig(stem="3x3_wide", conventions="reference")
    return _cityscapes("pspnet-r101-cityscapes", model, published_for("pspnet-r101-cityscapes"))


def pspnet_r18_cityscapes() -> Recipe:
    """PSPNet with ResNet-18, the student of CWD (Cityscapes, 69.10 mIoU published without a teacher)."""
    model = PspNetConfig(encoder="resnet18", stem="3x3_wide", conventions="reference", channels=128, auxiliary_channels=128)
    return _cityscapes("pspnet-r18-cityscapes", model, published_for("pspnet-r18-cityscapes"))


def deeplabv3_r101_cityscapes() -> Recipe:
    """DeepLabV3 with ResNet-101 (Cityscapes)."""
    return _cityscapes("deeplabv3-r101-cityscapes", DeepLabV3Config())


def pspnet_r18_camvid() -> Recipe:
    """PSPNet with ResNet-18 (CamVid, 360x480)."""
    model = PspNetConfig(encoder="resnet18", class_names=CAMVID.names, channels=128, auxiliary_channels=128)
    return Recipe(
        name="pspnet-r18-camvid",
        model=model,
        data=ImageFolderData(root="data/camvid", image_size=(360, 480), evaluation="whole", short_side=360),
        augment=_augment(0.5, 2.0),
        optim=_poly(),
        ema=None,
        train=TrainConfig(epochs=None, steps=10000, batch_size=8),
    )


def pspnet_lite() -> Recipe:
    """PSPNet for two CPU cores: EfficientNet-Lite0 at stride 4, images 180 pixels high (CamVid)."""
    model = PspNetConfig(
        encoder="efficientnet_lite0", pretrained=True, class_names=CAMVID.names, channels=48, auxiliary_channels=32, balance=0.5
    )
    return _on_a_cpu("pspnet-lite", model, lr=2e-3, lr_scale={"encoder": 0.3})


def pspnet_small() -> Recipe:
    """PSPNet of an eighth the size of pspnet-lite, from random weights: a student for two CPU cores (CamVid)."""
    model = PspNetConfig(encoder="small", class_names=CAMVID.names, channels=32, auxiliary_weight=0, dropout=0, balance=0.5)
    return _on_a_cpu("pspnet-small", model, lr=8e-3)


def face_parser() -> Recipe:
    """A small U-Net for the 19 parts of a portrait, which head swapping needs (world of heads, 128x128)."""
    model = UnetConfig(class_names=FACE.names, widths=(16, 32, 48, 64, 96), balance=0.5)
    return Recipe(
        name="face-parser",
        model=model,
        data=PortraitData(image_size=(128, 128), val_split="val", cache="memory"),
        augment=AugmentConfig(scale=(0.5, 1.2), rotate_deg=(-15.0, 15.0), flip=False, colour_jitter=0.2),  # left and right have own ids
        optim=OptimConfig(lr=4e-3, schedule="one_cycle", pct_start=0.15, clip_norm=1.0),
        ema=EmaConfig(decay=0.99, warmup=0.0, initial_updates=0),
        train=TrainConfig(epochs=None, steps=2000, batch_size=8, num_workers=0),
        runtime=RuntimeConfig(precision="auto"),
    )


def _on_a_cpu(name: str, model: ModelConfig, **optim: Any) -> Recipe:
    """1,500 steps of 8 windows of 144x192, from photographs that are 180 pixels high and kept in memory."""
    return Recipe(
        name=name,
        model=model,
        data=ImageFolderData(
            root="data/camvid", image_size=(144, 192), evaluation="whole", short_side=180, mean=MEAN, std=STD, cache="memory"
        ),
        augment=_augment(0.8, 1.25, colour_jitter=0.2),
        optim=OptimConfig(weight_decay=1e-2, clip_norm=5.0, schedule="cosine", warmup_steps=50, warmup_ratio=0.05, **optim),
        ema=EmaConfig(decay=0.99, warmup=0.0, initial_updates=0),
        train=TrainConfig(epochs=None, steps=1500, batch_size=8, num_workers=0),
        runtime=RuntimeConfig(precision="auto"),
    )


def _cityscapes(name: str, model: ModelConfig, published: tuple[PublishedNumber, ...] = ()) -> Recipe:
    """40,000 steps of 8 windows of 512 x 512, from photographs of 0.5 to 2 times their size."""
    return Recipe(
        name=name,
        model=model,
        data=ImageFolderData(root="data/cityscapes", image_size=(512, 512), evaluation="whole"),
        augment=_augment(0.5, 2.0),
        optim=_poly(),
        ema=None,
        train=TrainConfig(epochs=None, steps=40000, batch_size=8),
        published=published,
    )


def _augment(low: float, high: float, colour_jitter: float = 0.0) -> AugmentConfig:
    """Scaled, cut out and mirrored at random, not turned."""
    return AugmentConfig(scale=(low, high), rotate_deg=(0.0, 0.0), colour_jitter=colour_jitter)


def _poly() -> OptimConfig:
    """As TorchDistiller trains: SGD, poly schedule, without warm-up or clipping, which a norm of 1000 never is."""
    return OptimConfig(
        kind="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, clip_norm=1000.0, schedule="poly", poly_power=0.9, warmup_steps=0
    )
