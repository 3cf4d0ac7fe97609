"""What the small networks have in common: images of one moment to pooled features, cheap enough for two CPU cores.

images -> EfficientNet-Lite0 (frozen start) -> depth and context at stride 8 -> pooled in Z/2 height bins at half the grid's resolution

What differs from FlashOCC and why: height bins in the pooled map (a flat map learns height slowly), asinh of the pooled sums (near cells
collect hundreds of pixels, far cells a few), ray directions as input (a pixel below the horizon has a natural depth).
Shape letters: B batch, N cameras, M = B * N images, H W image, h w feature map, C channels, D depth bins, X Y Z voxels.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.geometry import CameraRig, VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.geometry.transforms import send
from frustum.nn.bev import even_cells
from frustum.nn.conv import ConvNorm
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.lift_splat import Splat, pixel_grid
from frustum.nn.rig_memory import RigMemory
from frustum.ops.bev_pool import Backend
from frustum.types.frame import Frame

RENAMED = {f"{name}.": f"trunk.{name}." for name in ("encoder", "fine", "coarse", "neck", "depth_net")}
"""Prefixes of a state dict of the first version, whose networks held the parts of the trunk themselves: {old: new}."""


EvenGrid = Annotated[VoxelGrid, even_cells(3, "x, y and z")]
"""A grid that the trunk can pool into at half the resolution."""


class SmallTrunk(nn.Module):
    """Images of one frame to pooled features, with channels-last memory.

    Args:
        grid: the labelled voxels; even numbers along each axis.
        bins: D candidate depths.
        neck_channels: channels of the image features.
        channels: C, context channels per height bin.
        pretrained, frozen_blocks: of the encoder, see `EfficientNetLite0`.
        pool: backend of the pooling.

    Attributes:
        out_channels: Z / 2 * C, of the pooled map.
    """

    def __init__(
        self, grid: VoxelGrid, bins: DepthBins, neck_channels: int, channels: int, pretrained: Pretrained, frozen_blocks: int, pool: Backend
    ):
        super().__init__()
        self.out_channels = grid.shape[2] // 2 * channels
        self.encoder = EfficientNetLite0((4, 10), frozen_blocks=frozen_blocks, pretrained=pretrained)
        self.fine = ConvNorm(self.encoder.out_channels[0], neck_channels, 1)
        self.coarse = ConvNorm(self.encoder.out_channels[1], neck_channels, 1)
        self.neck = ConvNorm(neck_channels + 3, neck_channels, 3)
        self.depth_net = nn.Conv2d(neck_channels, bins.count + channels, 3, padding=1)
        self.splat = Splat(grid.scaled(2, 2, 2), bins, backend=pool)
        self.directions: RigMemory[Tensor] = RigMemory()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """Pooled features (B, Z / 2 * C, Y / 2, X / 2) and depth (M, D, h, w), a probability."""
        return self.lift_to_bev(self.encode(frame), frame)

    def encode(self, frame: Frame) -> Tensor:
        """Depth logits and context (M, D + C, h, w)."""
        fine, coarse = self.encoder(frame.images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        size = (fine.shape[-2], fine.shape[-1])
        features = self.fine(fine) + F.interpolate(self.coarse(coarse), size=size, mode="nearest")
        rig, like = frame.rig, (features.device, features.dtype)
        rest = (*map(str, like), rig.image_size, size)
        rays = self.directions.get((rig.image_aug, rig.intrinsics), rest, lambda: send(ray_directions(rig, size), *like))
        return self.depth_net(self.neck(torch.cat([features, rays], 1)))

    def lift_to_bev(self, lifted: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """What `encode` returned -> what `forward` returns, in the augmented ego frame of `frame`."""
        pooled, depth = self.splat.lift(lifted, frame)
        return torch.asinh(pooled), depth


def ray_directions(rig: CameraRig, size: tuple[int, int]) -> Tensor:
    """Direction of each feature's ray in the camera (M, 3, h, w): x / z, y / z and a guess of the inverse depth of the ground.

    Computed in float64 where the rig lies (see `Batch.to`); the result is float32.
    """
    pixels = F.pad(pixel_grid(rig.image_size, size, "centres", rig.intrinsics.device), (0, 1), value=1.0)  # (h, w, 3)
    to_rays = torch.linalg.inv(rig.image_aug.double() @ rig.intrinsics.double()).flatten(0, 1)  # (M, 3, 3)
    rays = torch.einsum("mij,hwj->mihw", to_rays, pixels)
    return torch.cat([rays[:, :2], rays[:, 1:2].clamp(min=0.02).reciprocal() * 0.1], 1).float()


def doubled(x: Tensor) -> Tensor:
    """(B, 4 * c, Y / 2, X / 2) -> (B, Y, X, c): a pixel shuffle for channels-last memory."""
    x = x.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))  # (B, Y/2, X/2, 2, 2, c)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
