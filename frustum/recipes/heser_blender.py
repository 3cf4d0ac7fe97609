"""HeSer's blender: a head that was put into a portrait gets its colours, and the gaps are filled (docs/methods/heser.md)."""

from __future__ import annotations

from frustum.data.portraits.section import PortraitData
from frustum.engine.recipe import EmaConfig, OptimConfig, Recipe, RuntimeConfig, TrainConfig
from frustum.models.heser_blender import HeserBlenderConfig
from frustum.recipes.heser_aligner import MIRRORED


def heser_blender() -> Recipe:
    """HeSer's blender at 512x512 with the widths, losses and rates of HeSer.Pytorch (portraits)."""
    return Recipe(
        name="heser-blender",
        model=HeserBlenderConfig(),
        data=PortraitData(root="data/portraits", val_split="val"),
        augment=MIRRORED,
        optim=OptimConfig(kind="adam", lr=1e-4, weight_decay=0, schedule="constant", lr_scale={"discriminator": 4.0}, warmup_steps=0),
        ema=EmaConfig(),
        train=TrainConfig(epochs=None, steps=200_000, batch_size=4),
        runtime=RuntimeConfig(precision="auto"),
    )


def heser_blender_mini() -> Recipe:
    """HeSer's blender at 64x64 for two CPU cores: narrow, and taught by true swaps, which only generated heads have (world of heads).

    Of half of them an aligner drew the head: first `frustum data aligned ALIGNER HEADS`.
    """
    return Recipe(
        name="heser-blender-mini",
        model=HeserBlenderConfig(
            width=16,
            feature_width=8,
            match_channels=32,
            temperature=0.05,
            aligned=0.5,
            stride=4,
            tone="coloured",
            sees_parts=True,
            flip=0,
            adversarial_weight=0,
            cycle_weight=0,
            features_weight=0.1,
        ),
        data=PortraitData(train_split="train_swaps", image_size=(64, 64), cache="memory"),
        augment=MIRRORED,
        optim=OptimConfig(kind="adam", lr=2e-3, betas=(0.5, 0.999), weight_decay=0, clip_norm=10.0, schedule="cosine", warmup_steps=100),
        ema=EmaConfig(decay=0.995, warmup=0.0, initial_updates=0),
        train=TrainConfig(epochs=None, steps=6_000, batch_size=16, num_workers=0),
        runtime=RuntimeConfig(precision="auto"),
    )
