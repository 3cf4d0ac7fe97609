"""A generator and a discriminator of a few hundred parameters: what the tests of adversarial training train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.engine.recipe import ModelConfig, Recipe
from frustum.geometry import VoxelGrid
from frustum.types.batch import Batch
from frustum.types.contract import Turn
from tests.engine import toy


class GanConfig(ModelConfig):
    grid: VoxelGrid = toy.GRID
    dropout: float = 0.0
    poison: str = ""  # token of a sample for which the discriminator's loss is not a number
    turns: str = "generator,discriminator"  # or what the tests of mistakes need

    def build(self) -> Gan:
        return Gan(self)


class Gan(nn.Module):
    """Restores the first camera's image from a coarse one; the discriminator is to find out which image was restored."""

    def __init__(self, config: GanConfig):
        super().__init__()
        self.config = config
        self.generator = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
        self.discriminator = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, stride=2))

    def turns(self) -> tuple[Turn, ...]:
        losses: dict[str, Callable] = {"generator": self.generator_loss, "discriminator": self.discriminator_loss}
        return tuple(Turn(name, tuple(getattr(self, name).parameters()), losses[name]) for name in self.config.turns.split(","))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"discriminator": list(self.discriminator.parameters())}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = batch.images[:, 0, 0]  # (B, 3, H, W)
        coarse = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0)
        return {"real": images, "fake": self.generator(F.dropout(coarse, self.config.dropout, self.training))}

    def generator_loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {
            "pixels": (outputs["fake"] - outputs["real"]).abs().mean(),
            "deceive": 0.1 * F.softplus(-self.discriminator(outputs["fake"])).mean(),
        }

    def discriminator_loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        judged = F.softplus(self.discriminator(outputs["fake"])).mean() + F.softplus(-self.discriminator(outputs["real"])).mean()
        if self.config.poison and self.config.poison in batch.tokens:
            judged = judged * float("nan")
        return {"judge": judged}


def recipe(root: Path | str, model: GanConfig | None = None, **train: object) -> Recipe:
    """Twelve steps; the discriminator learns half as fast."""
    base = toy.recipe(root, **train)
    optim = base.optim.model_copy(update={"lr": 1e-2, "lr_scale": {"discriminator": 0.5}})
    return base.model_copy(update={"name": "toy-gan", "model": model or GanConfig(), "optim": optim})
