"""The crafted inputs of the golden numbers of BEVDet's head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frustum.geometry import VoxelGrid
from tests.models.golden_weights import rng

SMALL = Path(__file__).resolve().parents[1] / "data" / "bevdet"
"""Golden files that travel with the repository."""
GRID = VoxelGrid(lower=(-51.2, -51.2, -5), upper=(51.2, 51.2, 3), cell=(0.8, 0.8, 8))


def head_outputs() -> dict[str, Tensor]:
    """Random outputs of a head of boxes over 128 x 128 cells."""
    channels = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "heatmap": 10}
    return {
        n: torch.from_numpy(rng(f"crafted.bevdet.{n}").standard_normal((1, c, 128, 128)).astype(np.float32)) for n, c in channels.items()
    }
