"""Lift-Splat: give every pixel a distribution over depth, and add its feature up in the bird's-eye-view cells it may lie in.

After Lift-Splat-Shoot (Philion and Fidler, 2020) as BEVDet and FlashOCC use it.
Shape letters: B batch, N cameras, M = B * N, D depth bins, h w feature map, C channels, X Y Z cells.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from frustum.config import TRAVELS
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.geometry.grids import Rounding
from frustum.geometry.transforms import send, without_autocast
from frustum.nn.rig_memory import RigMemory
from frustum.ops.bev_pool import Backend, bev_pool
from frustum.ops.pool_plan import PoolPlan
from frustum.types.frame import Frame

Sampling = Annotated[Literal["corners", "centres"], TRAVELS]
"""Where in the image a feature stands, see `feature_pixels`; as a setting it travels with the weights."""
VoxelRounding = Annotated[Literal["floor", "reference"], TRAVELS]
"""How a point finds its cell, in settings. `floor` is correct; `reference` rounds towards zero as the code of BEVDet and FlashOCC."""

Size = tuple[int, int]
"""Height and width."""
Device = torch.device | str | None

_HAVE_FLOAT64 = ("cpu", "cuda")  # Apple's GPUs (mps) and others do not


def rounding_of(setting: VoxelRounding) -> Rounding:
    """As `VoxelGrid.indices` calls it."""
    return "truncate" if setting == "reference" else "floor"


def feature_pixels(size: int, count: int, sampling: Sampling, device: Device = None, dtype: torch.dtype = torch.float64) -> Tensor:
    """Pixel coordinate (count,) in an image `size` pixels wide that each of `count` feature columns stands for.

    `centres` is the middle of the `size / count` pixels a feature covers. `corners` spreads the features from coordinate 0 to
    `size - 1` as LSS, BEVDet and FlashOCC do, and as their published weights expect.
    """
    if sampling == "corners":
        return torch.linspace(0, size - 1, count, dtype=dtype, device=device)
    return ((torch.arange(count, dtype=torch.float64, device=device) + 0.5) * (size / count)).to(dtype)


def pixel_grid(
    image_size: Size, feature_size: Size, sampling: Sampling, device: Device = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Pixel coordinates u, v of every feature (h, w, 2) in an image; `corners` are computed in `dtype`."""
    v, u = (feature_pixels(side, n, sampling, device, dtype) for side, n in zip(image_size, feature_size, strict=True))
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), -1)


class Splat(nn.Module):
    """Pools (M, C, h, w) features along the rays of a rig into `grid`, without parameters. Plans of recent rigs are kept.

    Args:
        grid: cells to pool into.
        bins: depths along each ray.
        rounding: see `VoxelGrid.indices`.
        sampling: see `feature_pixels`.
        backend: see `bev_pool`.

    Attributes:
        plans: those of recent rigs.
    """

    def __init__(
        self, grid: VoxelGrid, bins: DepthBins, rounding: Rounding = "floor", sampling: Sampling = "centres", backend: Backend = "auto"
    ):
        super().__init__()
        self.grid, self.bins, self.rounding, self.sampling, self.backend = grid, bins, rounding, sampling, backend
        self.plans: RigMemory[PoolPlan] = RigMemory()

    def points(self, frame: Frame, feature_size: Size, device: Device = None) -> Tensor:
        """Frustum points (B, N, D, h, w, 3) in the augmented ego frame of `frame`, float64 metres, on `device` (None: where the rig lies).

        Matrices are multiplied and inverted where the rig lies: on a GPU an inverse waits for its result.
        """
        rig, device = frame.rig, torch.device(device or frame.rig.intrinsics.device)
        v, u = (feature_pixels(side, n, self.sampling, device) for side, n in zip(rig.image_size, feature_size, strict=True))
        points = rig.frustum_points(u, v, self.bins.values(device).double(), frame.ego2global)
        augment = send(frame.bev_aug, device, points.dtype)[:, None, None, None]
        return points @ augment[..., :3, :3].mT + augment[..., None, :3, 3]

    def reference_points(self, frame: Frame, feature_size: Size, device: Device = None) -> Tensor:
        """As `points`, float32 in the order of operations of BEVDet and FlashOCC: a handful of points within 1e-5 m of a cell's border
        fall on its other side, which at full resolution shows in the outputs.
        """
        rig, lead = frame.rig, frame.rig.intrinsics.shape[:2]
        home = rig.intrinsics.device
        device = torch.device(device or home)
        wide = (*lead, 1, 1, 1)
        pixels = pixel_grid(rig.image_size, feature_size, self.sampling, device, torch.float32)
        depths = self.bins.values(device)
        frustum = torch.cat([a.expand(len(depths), *feature_size, -1) for a in (pixels, depths[:, None, None, None])], -1)  # (D, h, w, 3)
        turn, shift = rig.image_aug.float().clone(), rig.image_aug.new_zeros(*lead, 3, dtype=torch.float32)
        shift[..., :2], turn[..., :2, 2] = turn[..., :2, 2], 0
        turn, shift = send(torch.inverse(turn), device), send(shift, device)
        points = turn.view(*wide, 3, 3) @ (frustum - shift.view(*wide, 3))[..., None]
        points = torch.cat([points[..., :2, :] * points[..., 2:, :], points[..., 2:, :]], -2)
        cam2key = rig.cam2key(frame.ego2global.to(home)).float()
        turn, shift = cam2key[..., :3, :3] @ torch.inverse(rig.intrinsics.float()), cam2key[..., :3, 3]
        points = (send(turn, device).view(*wide, 3, 3) @ points)[..., 0] + send(shift, device).reshape(*wide, 3)
        augment = send(frame.bev_aug, device, torch.float32).view(-1, 1, 1, 1, 1, 4, 4)
        return (augment[..., :3, :3] @ points[..., None])[..., 0] + augment[..., :3, 3]

    @torch.no_grad()
    def plan(self, frame: Frame, feature_size: Size, device: Device = None) -> PoolPlan:
        """Where the points of a frame's rig fall, on `device` (None: the rig's), from memory when the same calibration was there before.

        Points are computed in float64, on the device itself if it has that type, else on the CPU; with the reference's rounding (truncate)
        in float32 as the reference does.
        """
        rig = frame.rig
        device = rig.intrinsics.device if device is None else torch.device(device)
        matrices = (rig.image_aug, rig.intrinsics, rig.cam2ego, rig.ego2global, frame.ego2global, frame.bev_aug)

        def make() -> PoolPlan:
            home = device if device.type in _HAVE_FLOAT64 else torch.device("cpu")
            where = self.reference_points if self.rounding == "truncate" else self.points
            with without_autocast(torch.empty(0, device=home)):  # float32 products in bfloat16 would move a fifth of the points
                return PoolPlan.create(where(frame, feature_size, home), self.grid, self.rounding).to(device)

        rest = (str(device), rig.image_size, feature_size, self.grid, self.bins, self.rounding, self.sampling)
        return self.plans.get(matrices, rest, make)

    def forward(self, depth: Tensor, features: Tensor, plan: PoolPlan) -> Tensor:
        """Depth (M, D, h, w), features (M, C, h, w) -> (B, Z * C, Y, X), the heights of a cell side by side in its channels."""
        pooled = bev_pool(depth, features, plan, self.backend)  # (B, C, Z, Y, X)
        return pooled.transpose(1, 2).flatten(1, 2)

    def lift(self, lifted: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """Depth logits and context (M, D + C, h, w) of the frame's cameras -> pooled (B, Z * C, Y, X), depth probabilities (M, D, h, w)."""
        depth = lifted[:, : self.bins.count].float().softmax(1)
        plan = self.plan(frame, (lifted.shape[-2], lifted.shape[-1]), lifted.device)
        return self(depth, lifted[:, self.bins.count :], plan), depth


class LiftSplat(nn.Module):
    """A 1x1 convolution, or another module, that predicts depth and context of each pixel, and the splat.

    Args:
        in_channels: channels of the image features.
        channels: C, channels of the lifted context.
        splat: the geometry.
        depth_net: what maps (M, in_channels, h, w) to D + C channels; by default the convolution.
    """

    def __init__(self, in_channels: int, channels: int, splat: Splat, depth_net: nn.Module | None = None):
        super().__init__()
        self.splat = splat
        self.depth_net = depth_net or nn.Conv2d(in_channels, splat.bins.count + channels, 1)

    def forward(self, features: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """Features (M, in_channels, h, w) -> pooled (B, Z * C, Y, X) and depth probabilities (M, D, h, w), both float32."""
        return self.splat.lift(self.depth_net(features), frame)
