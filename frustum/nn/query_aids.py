"""What lets a small DETR-style detector learn in minutes. The published networks have none of it.

Small networks on few samples do not find out by themselves where a query should look, nor where what it sees lies relative to it. Each aid
is one setting, so that its effect can be measured (docs/methods/ppe3d.md).
Shape letters: B batch, Q queries, G denoising groups, M boxes of a sample, S image tokens, C channels, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from frustum.config import Config
from frustum.geometry.transforms import send
from frustum.nn.point_encoding import Bounds

_HEIGHT = 0.8  # metres above the ground: about the centre of a vehicle


class QueryAids(Config):
    """All off, as in the published networks.

    Attributes:
        ray_input: features also hold the direction of their ray in the camera, from which the depth of the ground follows.
        light_depth: depth comes from two convolutions beside what tokens read (`nn.ray_depth.LightDepthNet`), instead of the published
            depth net, through which all that tokens read passes. Needs `ray_input`, as it does not read the cameras.
        anchor_grid: queries begin on a grid over the ground, denser in the middle, instead of at random places.
        metric_code: waves of the sine code are 12 to 100 m long, instead of fractions of a logarithm of odds: of queries, and of
            positions by one point or by `ray_mean`.
        metric_offsets: a query answers where the centre is in metres from its place, instead of by a logarithm of odds.
        position_in_values: what attention reads of a token holds its position, too; the position is normalised; queries begin as their own
            position instead of as zero; what queries and keys multiply by begins equal, so that near things match.
        memory_norm: what tokens are is normalised, and half as long as the norm of where they are, so that at first positions decide where
            attention looks. Without it, and without votes, content soon outweighs them, and each query looks at one token anywhere.
        votes: attention prefers tokens that see an object whose centre they take to be near the query, reads how far away that is in
            metres, and moves the query there (after Qi et al., ICCV 2019). Needs points as positions, and `token_loss`.
        token_loss: weight of a loss of each token whose LiDAR point lies in a box: its class, and where the centre is from that point, or
            with `votes` from where the token stands by its predicted depth.
        denoising: groups of queries that begin near true boxes and must find those (DN-DETR, Li et al., CVPR 2022).
        denoising_metres: how far from the true centre they begin at most, along x and y.
    """

    ray_input: bool = False
    light_depth: bool = False
    anchor_grid: bool = False
    metric_code: bool = False
    metric_offsets: bool = False
    position_in_values: bool = False
    memory_norm: bool = False
    votes: bool = False
    token_loss: NonNegativeFloat = 0.0
    denoising: NonNegativeInt = 0
    denoising_metres: PositiveFloat = 3.0


def grid_anchors(queries: int, limits: Bounds) -> Tensor:
    """Places (Q, 3) of a grid over the range as seen from above, as shares of it, 0.8 m above the ground; denser in the middle.

    Of the next square number of places those nearest to the middle.
    """
    side = math.ceil(math.sqrt(queries))
    even = (2 * torch.arange(side) + 1) / side - 1  # -1..1
    places = torch.cartesian_prod(even, even)
    places = places[places.norm(dim=1).argsort(stable=True)[:queries].sort().values]
    height = torch.tensor((_HEIGHT - limits[2]) / (limits[5] - limits[2])).clamp(0, 1)
    return torch.cat([(places.sign() * places.abs() ** 1.5 + 1) / 2, height.expand(queries, 1)], 1)


def noisy_places(boxes: Sequence[Tensor], learned: Sequence[Tensor], aids: QueryAids, limits: Bounds, device: torch.device) -> Tensor:
    """Places (B, G * max M, 3) near the centres of boxes (M, 9) of B samples, as shares of the range.

    They are 0 where a sample has fewer boxes, and for boxes that are not `learned` (M,), so that no device is asked how many these are.
    """
    low, high, reach = (
        send(torch.tensor(row), device) for row in (limits[:3], limits[3:], (aids.denoising_metres, aids.denoising_metres, 0.5))
    )
    most = max(map(len, boxes), default=0)
    places = torch.zeros(len(boxes), aids.denoising, most, 3, device=device)
    for row, found, kept in zip(places, boxes, learned, strict=True):
        noise = torch.rand(aids.denoising, len(found), 3, device=device) * 2 - 1
        row[:, : len(found)] = ((found[:, :3] + noise * reach - low) / (high - low)).clamp(0, 1) * kept[:, None]
    return places.flatten(1, 2)


def denoising_mask(queries: int, noisy: int, groups: int, device: torch.device) -> Tensor:
    """(Q + G * M, Q + G * M) bool, True where a query may look at another: real queries at each other, a denoising group at itself."""
    of_noisy = torch.arange(1, groups + 1).repeat_interleave(noisy // max(groups, 1))
    group = send(torch.cat([torch.zeros(queries, dtype=torch.long), of_noisy]), device)
    return group[:, None] == group
