"""Short drives of small rigs, for the tests of networks over time."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from frustum.geometry import VoxelGrid, rotation_z
from frustum.models.panoptic_flashocc import PanopticFlashOcc, PanopticFlashOccConfig
from frustum.types.batch import Batch
from tests.models import golden_weights as gold

GRID = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 5.4), cell=(2, 2, 1.6))
SIZE = (32, 64)
SIZES = {"resnet": 18, "neck_channels": 16, "lift_channels": 8, "bev_channels": 8, "grid": GRID}


class Drive:
    """`streams` vehicles with two cameras that turn and move 3 m per frame; frame 0 is the first.

    Args:
        frames: number of moments.
        streams: B.
        spread: seconds between the shots of two cameras of one frame.
    """

    def __init__(self, frames: int = 5, streams: int = 2, seed: int = 0, spread: float = 0.0):
        draw = np.random.default_rng(seed)
        forward = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
        self.cam2ego = np.tile(np.eye(4), (2, 1, 1))
        self.cam2ego[:, :3, :3] = rotation_z(np.array([0.0, np.pi])) @ forward
        self.cam2ego[:, 2, 3] = 1.5
        self.intrinsics = np.tile(np.array([[40.0, 0, 32], [0, 40, 16], [0, 0, 1]]), (2, 1, 1))
        self.images = draw.standard_normal((frames, streams, 2, 3, *SIZE)).astype(np.float32)
        self.poses = np.tile(np.eye(4), (frames, streams, 2, 1, 1))
        for f in range(frames):
            for b in range(streams):
                for camera in range(2):
                    time = f + 2 * spread * camera
                    self.poses[f, b, camera, :3, :3] = rotation_z(0.06 * time * (1 + b))
                    self.poses[f, b, camera, :3, 3] = 600 + 3 * time, 1600 + 0.5 * time * b, 0
        self.streams = streams

    def batch(self, now: int, history: int = 0, streams: slice = slice(None), **changes) -> Batch:
        """The frame `now` and as much of `history` as there is before it."""
        frames = [now - i for i in range(history + 1) if now >= i]
        images, poses = (np.stack([a[f][streams] for f in frames], 1) for a in (self.images, self.poses))
        given = {
            "intrinsics": self.intrinsics,
            "cam2ego": self.cam2ego,
            "ego2global": poses,
            "timestamps": np.array([0.5 * f for f in frames]),
            "scenes": [f"scene-{b}" for b in range(self.streams)][streams],
        }
        return Batch.from_arrays(images, **{**given, **changes})


def lively(model: nn.Module) -> nn.Module:
    """The network with weights that keep its activations near one, so that what comes from the past can be seen in the outputs."""
    model.load_state_dict(
        gold.state_dict({key: list(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}), strict=False
    )
    return model.eval()


def over_time(frames: int = 2, align: str = "warp", **changes) -> PanopticFlashOcc:
    """A small network that joins maps of past frames: that of Panoptic-FlashOcc, without instances."""
    settings = {**SIZES, "instances": None, "history": {"frames": frames, "align": align}, **changes}
    return lively(PanopticFlashOccConfig(**settings).build())


def farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of the voxel logits."""
    return (one["occ_logits"] - other["occ_logits"]).detach().abs().max().item()
