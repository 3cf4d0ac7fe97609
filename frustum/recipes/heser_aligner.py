"""HeSer's aligner: a person's head in the pose and with the expression of another portrait (docs/methods/heser.md)."""

from __future__ import annotations

from frustum.data.portraits.section import PortraitData
from frustum.data.source import AugmentConfig
from frustum.engine.recipe import EmaConfig, OptimConfig, Recipe, RuntimeConfig, TrainConfig
from frustum.models.heser_aligner import HeserAlignerConfig

MIRRORED = AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0))
"""Portraits are mirrored at random, and nothing else."""


def heser_aligner() -> Recipe:
    """HeSer's aligner at 512x512 with the encoders and rates of HeSer.Pytorch (portraits; needs weights of IR-SE50)."""
    return Recipe(
        name="heser-aligner",
        model=HeserAlignerConfig(),
        data=PortraitData(root="data/portraits", val_split="val"),
        augment=MIRRORED,
        optim=OptimConfig(kind="adam", lr=1e-3, weight_decay=0, schedule="constant", lr_scale={"discriminator": 4.0}, warmup_steps=0),
        ema=EmaConfig(),
        train=TrainConfig(epochs=None, steps=200_000, batch_size=4),
        runtime=RuntimeConfig(precision="auto"),
    )


def heser_aligner_mini() -> Recipe:
    """HeSer's aligner at 64x64 for two CPU cores: small, and taught by true swaps, which only generated heads have (world of heads)."""
    model = HeserAlignerConfig(
        image_size=64,
        encoders="small",
        encoder_size=64,
        appearance_code=128,
        pose_code=32,
        expression_code=32,
        disguise="colours",
        recolour=0.2,
        pose_maps=True,
        frame_maps=True,
        sees_parts=True,
        draws_parts=True,
        spectral=False,
        channels=24,
        max_channels=128,
        adversarial_weight=0,
        features_weight=5.0,
    )
    return Recipe(
        name="heser-aligner-mini",
        model=model,
        data=PortraitData(train_split="train_swaps", image_size=(64, 64), cache="memory"),
        augment=AugmentConfig(scale=(1.0, 1.2), rotate_deg=(-10.0, 10.0)),  # people are few: else it learns them by heart
        optim=OptimConfig(kind="adam", lr=2e-3, betas=(0.5, 0.999), weight_decay=0, clip_norm=10.0, schedule="cosine", warmup_steps=100),
        ema=EmaConfig(decay=0.995, warmup=0.0, initial_updates=0),
        train=TrainConfig(epochs=None, steps=6_000, batch_size=16, num_workers=0),
        runtime=RuntimeConfig(precision="auto"),
    )
