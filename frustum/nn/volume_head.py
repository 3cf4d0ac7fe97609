"""OccFeat's head: a map from above becomes a volume, of which each voxel says whether something is in it and what it looks like.

Shape letters: B batch, C channels, X Y Z voxels, P voxels, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frustum.geometry.transforms import without_autocast
from frustum.nn.conv import ConvNorm


class VolumeHead(nn.Module):
    """Two 3x3 convolutions over the map, a linear layer from channels to heights, one 3D convolution, two linear layers.

    Args:
        in_channels: C of the map.
        channels: of a voxel.
        heights: Z.
        features: D; 0 for none.
        bias: of the last layer for occupancy: its logit before anything is learned.
    """

    def __init__(self, in_channels: int, channels: int, heights: int, features: int, bias: float = 0.0):
        super().__init__()
        self.heights = heights
        self.flat = nn.Sequential(ConvNorm(in_channels, in_channels), ConvNorm(in_channels, in_channels))
        self.unsplat = nn.Conv2d(in_channels, channels * heights, 1)
        self.volume = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels), nn.ReLU(inplace=True)
        )
        self.occupancy = nn.Conv3d(channels, 1, 1)
        nn.init.constant_(self.occupancy.bias, bias)  # type: ignore[arg-type]
        self.features = nn.Linear(channels, features) if features else None

    def forward(self, bev: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, Y, X) -> logits (B, X, Y, Z) float32 and voxels (B, X, Y, Z, channels)."""
        found = self.unsplat(self.flat(bev)).unflatten(1, (-1, self.heights))  # (B, channels, Z, Y, X)
        volume = self.volume(found)
        return self.occupancy(volume)[:, 0].float().permute(0, 3, 2, 1), volume.permute(0, 4, 3, 2, 1)


class PrincipalAxes(nn.Module):
    """The first three principal components of vectors of D numbers, learned while a network trains: colours for what cannot be named.

    One projection for all scenes, so that the same colour means the same. Nothing is trained in it and nothing learns from it.
    """

    def __init__(self, features: int, decay: float = 0.98, most: int = 256):
        super().__init__()
        self.decay, self.most = decay, most
        self.mean, self.moment = nn.Buffer(torch.zeros(features)), nn.Buffer(torch.zeros(features, features))
        self.weight = nn.Buffer(torch.zeros(()))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take vectors (P, D) into account, at most `most` of them, at even steps."""
        if not len(x):
            return
        with without_autocast(x):
            x = directions(x[:: -(-len(x) // self.most)])
            new = (x.mean(0), x.T @ x / len(x), x.new_ones(()))
        for kept, value in zip((self.mean, self.moment, self.weight), new, strict=True):
            kept.lerp_(value, 1 - self.decay)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(P, D) -> (P, 3), of which most lie between -1 and 1: one and a half standard deviations; zero before the first `update`."""
        weight = self.weight.clamp(min=1e-6)
        mean = self.mean / weight
        spread, axes = torch.linalg.eigh((self.moment / weight - mean[:, None] * mean).cpu().double())
        scaled = (axes[:, -3:] / (1.5 * spread[-3:].clamp(min=1e-12).sqrt())).flip(1).to(x.device, torch.float32)
        with without_autocast(x):
            return (directions(x) - mean) @ scaled * (self.weight > 0)


def directions(x: Tensor) -> Tensor:
    """Vectors (P, D) with length 1, float32: all that a cosine tells apart."""
    return nn.functional.normalize(x.float(), dim=-1)
