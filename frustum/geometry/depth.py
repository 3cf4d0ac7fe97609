"""Depth bins: how a camera ray is cut into candidate distances."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from frustum.config import Config


class DepthBins(Config):
    """D candidate depths in metres along the optical axis.

    `uniform`: bin i stands at `start + i * step` and owns depths from there to the next (LSS). `sid` (spacing-increasing
    discretisation): the same number of bins, placed evenly in log depth from `start` to `stop - 1` (FlashOCC's stereo variants).
    """

    start: float = 1.0
    stop: float = 45.0
    step: float = 1.0
    spacing: Literal["uniform", "sid"] = "uniform"

    @model_validator(mode="after")
    def _check(self) -> DepthBins:
        if not (self.step > 0 and self.start > 0 and self.stop > self.start):
            raise ValueError(f"depth bins need 0 < start < stop and step > 0, got start {self.start}, stop {self.stop}, step {self.step}")
        if self.spacing == "sid" and self.stop - 1 <= self.start:
            raise ValueError("sid depth bins need stop > start + 1")
        return self

    @property
    def count(self) -> int:
        """D."""
        return math.ceil(round((self.stop - self.start) / self.step, 6))

    def values(self, device: torch.device | str | None = None) -> Tensor:
        """Depth of every bin (D,), float32 metres."""
        index = torch.arange(self.count, dtype=torch.float32, device=device)
        if self.spacing == "uniform":
            return self.start + index * self.step
        return self.start * torch.exp(index / (self.count - 1) * math.log((self.stop - 1) / self.start))

    def index(self, depth: Tensor) -> Tensor:
        """Bin (*), int64, of depths (*) in metres; -1 where a depth lies before the first or behind the last bin, or is 0 (unknown)."""
        if self.spacing == "uniform":
            position = (depth - self.start) / self.step
        else:
            position = torch.log(depth.clamp(min=1e-6) / self.start) * ((self.count - 1) / math.log((self.stop - 1) / self.start))
        index = position.floor().long()
        return torch.where((index >= 0) & (index < self.count) & (depth > 0), index, -1)
