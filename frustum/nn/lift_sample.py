"""Lifting by sampling: each voxel takes the mean of the image features that its centre projects to. No parameters (SimpleBEV, 2022).

`reference` does what the published weights were trained with: the position of a point in the feature map is off by up to half a feature
(coordinates are scaled for one convention of `grid_sample` and sampled in the other), a camera counts for a channel where its feature is
not zero, and cameras stand still between their exposures. `clean` samples where a point projects to, counts the cameras that see it, and
knows how the vehicle moved.
Shape letters: B batch, N cameras, M = B * N images, C channels, h w feature map, X Y Z voxels, V = X * Y * Z.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from frustum.config import TRAVELS
from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send
from frustum.nn.rig_memory import RigMemory
from frustum.ops.sample_mean import SamplePlan, sample_mean
from frustum.types.frame import Frame

FeatureSampling = Annotated[Literal["clean", "reference"], TRAVELS]
"""How voxels find their features, see the module; as a setting it travels with the weights."""


class LiftSample(nn.Module):
    """Fills the voxels of `grid`. What recent rigs see is kept.

    Args:
        grid: the voxels, in the augmented frame of the map.
        sampling: see the module.
        rows_forward: give SimpleBEV's axes, (B, C, Z, X, Y) with heights downward, rows forward and columns to the right. To turn the
            voxels around afterwards would take as long as to fill them.
    """

    def __init__(self, grid: VoxelGrid, sampling: Literal["clean", "reference"] = "clean", rows_forward: bool = False):
        super().__init__()
        self.grid, self.sampling, self.rows_forward = grid, sampling, rows_forward
        self.plans: RigMemory[SamplePlan] = RigMemory()

    def forward(self, features: Tensor, frame: Frame, map2ego: Tensor) -> Tensor:
        """(M, C, h, w) -> (B, C, X, Y, Z), or as `rows_forward` says, float32; voxels that no camera sees are zero.

        Args:
            features: of the frame's cameras.
            frame: the cameras and the augmentation of the map.
            map2ego: (B, 4, 4) the frame of the map, before its augmentation, to the ego frame.
        """
        mean = sample_mean(features, self.plan(frame, map2ego, features), self.sampling == "reference")
        x, y, z = self.grid.shape
        return mean.unflatten(-1, (z, x, y) if self.rows_forward else (x, y, z))

    @torch.no_grad()
    def plan(self, frame: Frame, map2ego: Tensor, features: Tensor) -> SamplePlan:
        """What each of the M cameras sees, on the device of the features (M, C, h, w)."""
        rig = frame.rig
        device, size = features.device, (features.shape[-2], features.shape[-1])
        matrices = (rig.image_aug, rig.intrinsics, rig.cam2ego, rig.ego2global, frame.ego2global, frame.bev_aug, map2ego)
        rest = (str(device), rig.image_size, size, self.grid, self.sampling)

        def make() -> SamplePlan:
            pairs = [pair for sample in range(len(map2ego)) for pair in self._seen(frame, map2ego, sample, size)]
            voxels, places = ([send(t, device) for t in part] for part in zip(*pairs, strict=True))
            return SamplePlan.create(voxels, places, len(map2ego), self.grid.num_cells)

        return self.plans.get(matrices, rest, make)

    def _seen(self, frame: Frame, map2ego: Tensor, sample: int, size: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
        """Voxels and places of each camera of a sample, see `SamplePlan`; in float64 on the CPU, where geometry lies (see `Batch.to`)."""
        rig, (height, width), (h, w) = frame.rig.to("cpu")[sample : sample + 1], frame.rig.image_size, size
        is_reference = self.sampling == "reference"
        centres = self.grid.centres(torch.float64)  # (X, Y, Z, 3)
        if self.rows_forward:
            centres = centres.flip(1, 2).permute(2, 0, 1, 3)
        centres = in_ego_frame(centres.flatten(0, 2), frame, map2ego, sample)  # (V, 3)
        pixels, depth, visible = rig.project(centres[None], None if is_reference else frame.ego2global[sample : sample + 1].cpu())
        places = pixels[0] * pixels.new_tensor([w / width, h / height])  # (N, V, 2), in features
        spans = pixels.new_tensor([w, h])
        if is_reference:
            visible = (depth > 0) & ((places > -0.5) & (places < spans - 0.5)).all(-1)
            spans = spans - 1
        found = []
        for inside, at in zip(visible[0], 2 * places / spans - 1, strict=True):
            voxels = inside.nonzero()[:, 0]
            found.append((voxels, at[voxels].float()))
        return found


def in_ego_frame(points: Tensor, frame: Frame, map2ego: Tensor, sample: int) -> Tensor:
    """Points (P, 3) of the augmented map of a sample, in its ego frame: float64, on the CPU.

    Args:
        points: metres.
        frame: the augmentation of the map.
        map2ego: (B, 4, 4) the frame of the map, before its augmentation, to the ego frame.
        sample: which of the B.
    """
    to_ego = map2ego[sample].cpu().double() @ torch.linalg.inv(frame.bev_aug[sample].cpu().double())
    return points @ to_ego[:3, :3].T + to_ego[:3, 3]
