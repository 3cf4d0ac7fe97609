"""From features to the class of every voxel: channel-to-height (FlashOCC, section 3), the start of a last layer, the decoding.

Shape letters: B batch, C channels, K classes, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from frustum.errors import DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.nn.conv import ConvModule
from frustum.nn.voxel import LinearPerHeight, predicter
from frustum.types.predictions import PredictedOccupancy, Prediction


class ChannelToHeight(nn.Module):
    """FlashOCC's occupancy head: a 3x3 convolution, then two linear layers per cell whose output is height-major, class-minor.

    Args:
        channels: channels of the map.
        heights: Z.
        num_classes: K.
    """

    def __init__(self, channels: int, heights: int, num_classes: int):
        super().__init__()
        self.heights, self.num_classes = heights, num_classes
        self.final_conv = ConvModule(nn.Conv2d(channels, channels, 3, padding=1))
        self.predicter = predicter(channels, heights * num_classes)  # the upstream spelling, as in `VoxelHead`

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> voxel logits (B, X, Y, Z, K), a transposed view of (B, Y, X, Z, K) memory."""
        return self.read(self.final_conv(bev))

    def read(self, features: Tensor) -> Tensor:
        """What `forward` returns, from the features of `final_conv`."""
        rows = features.permute(0, 2, 3, 1)  # (B, Y, X, C)
        return self.predicter(rows).unflatten(-1, (self.heights, self.num_classes)).transpose(1, 2)


@torch.no_grad()
def occupancy_predictions(logits: Tensor, tokens: Sequence[str], grid: VoxelGrid, class_names: tuple[str, ...]) -> list[Prediction]:
    """The most likely class of every voxel, from logits (B, X, Y, Z, K)."""
    semantics = logits.argmax(-1).to(torch.uint8)
    return [Prediction(token, PredictedOccupancy(s, grid, class_names)) for token, s in zip(tokens, semantics, strict=True)]


@torch.no_grad()
def start_at_prior(head: nn.Linear | LinearPerHeight, class_weight: Tensor, counts: np.ndarray, power: float) -> None:
    """Fill class weights and a last layer from the statistics of labels: its bias becomes the weighted log prior of each height.

    Args:
        head: its bias (Z * K,) is replaced, its weight shrinks to a tenth.
        class_weight: (K,), becomes (frequency / frequency of free) ** -power; the last class is free space.
        counts: (Z, K) voxels of each class at each height.
        power: see `class_weight`.

    Raises:
        ShapeError: counts of other heights or classes. DataError: nothing was counted.
    """
    table = torch.as_tensor(counts, dtype=torch.float64)
    if table.numel() and not table.sum() > 0:
        raise DataError("the labels of the training split hold no voxel that a camera observed, so that nothing can be learned from them.")
    expected = (len(head.bias) // len(class_weight), len(class_weight))
    if tuple(table.shape) != expected:
        raise ShapeError(f"class counts must have shape (Z, K) = {expected}, got {tuple(table.shape)}.")
    frequency = table.sum(0) / table.sum()
    weight = (frequency.clamp(min=1e-6) / frequency[-1]) ** -power
    prior = (table + 1) * weight
    prior = prior / prior.sum(1, keepdim=True)
    class_weight.copy_(weight.float())  # cast here: the device may be one without float64
    head.bias.copy_(prior.log().flatten().float())
    head.weight.mul_(0.1)
