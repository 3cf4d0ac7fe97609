"""BEVDepth's camera-aware depth net (Li et al., AAAI 2023), with the key names of BEVDet and FlashOCC.

A depth net that reads only pixels has to guess the focal length. This one also reads the calibration: 27 numbers per camera pass a small
MLP whose output scales the channels, once for the depth branch and once for the context branch.
Shape letters: B batch, N cameras, M = B * N images, D depth bins, C channels, h w feature map.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ShapeError
from frustum.geometry.transforms import send
from frustum.nn.conv import ConvNorm
from frustum.nn.encoders.resnet import BasicBlock
from frustum.nn.rig_memory import RigMemory
from frustum.types.frame import Frame

CAMERA_NUMBERS = 27


_known: RigMemory[Tensor] = RigMemory()  # so that nothing is copied to a GPU for a rig that was there before


def camera_vector(frame: Frame, cam2key: Tensor, device: torch.device | None = None) -> Tensor:
    """What the depth net reads of each camera: float32 (M, 27), on `device` (None: where the rig lies).

    fx, fy, cx, cy; the image augmentation as a00, a01, shift x, a10, a11, shift y; of the bird's-eye-view augmentation 00, 01, 10, 11, 22;
    and the first three rows of `cam2key`, (B, N, 4, 4) camera to the ego frame.
    """
    rig = frame.rig
    if device not in (None, cam2key.device):
        matrices = (rig.intrinsics, rig.image_aug, frame.bev_aug, cam2key)
        return _known.get(matrices, str(device), lambda: send(camera_vector(frame, cam2key), device))
    flip = frame.bev_aug[:, None].expand(*rig.intrinsics.shape[:2], 4, 4)
    numbers = [
        rig.intrinsics[..., [0, 1, 0, 1], [0, 1, 2, 2]],
        rig.image_aug[..., :2, :].flatten(-2),
        flip[..., [0, 0, 1, 1, 2], [0, 1, 0, 1, 2]],
        cam2key[..., :3, :].flatten(-2),
    ]
    return torch.cat([n.double() for n in numbers], -1).flatten(0, 1).float()


class DepthNet(nn.Module):
    """Depth and context of each pixel from image features and calibration.

    Args:
        in_channels: channels of the image features.
        channels: channels inside.
        context_channels: C.
        bins: D.
        extra_channels: channels of an `extra` map that joins the depth branch (a cost volume).
    """

    def __init__(self, in_channels: int, channels: int, context_channels: int, bins: int, extra_channels: int = 0):
        super().__init__()
        self.bins = bins
        self.reduce_conv = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.context_conv = nn.Conv2d(channels, context_channels, 1)
        self.bn = nn.BatchNorm1d(CAMERA_NUMBERS)
        self.depth_mlp = _mlp(channels)
        self.depth_se = _Gate(channels)
        self.context_mlp = _mlp(channels)
        self.context_se = _Gate(channels)
        shortcut = nn.Conv2d(channels + extra_channels, channels, 1) if extra_channels else None
        self.depth_conv = nn.Sequential(
            BasicBlock(channels + extra_channels, channels, 1, shortcut),
            BasicBlock(channels, channels),
            BasicBlock(channels, channels),
            Aspp(channels, 96),
            nn.Conv2d(channels, bins, 1),
        )

    def forward(self, features: Tensor, cameras: Tensor, extra: Tensor | None = None) -> Tensor:
        """Features (M, in_channels, h, w), cameras (M, 27), extra (M, extra_channels, h, w) -> (M, D + C, h, w), depth logits first.

        Raises:
            ShapeError: one image in training, whose batch normalisation needs two.
        """
        if self.training and len(features) < 2:
            raise ShapeError(
                "a camera-aware depth net needs at least two images to train on, as its batch normalisation is over images: "
                "use train.batch_size=2 or more cameras."
            )
        cameras = self.bn(cameras)
        x = self.reduce_conv(features)
        context = self.context_conv(self.context_se(x, self.context_mlp(cameras)))
        depth = self.depth_se(x, self.depth_mlp(cameras))
        depth = self.depth_conv(depth if extra is None else torch.cat([depth, extra], 1))
        return torch.cat([depth, context], 1)


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., 2017): four dilations and the global mean, joined."""

    def __init__(self, channels: int, middle: int):
        super().__init__()
        self.aspp1 = _atrous(channels, middle, 1)
        self.aspp2 = _atrous(channels, middle, 6)
        self.aspp3 = _atrous(channels, middle, 12)
        self.aspp4 = _atrous(channels, middle, 18)
        self.global_avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *ConvNorm(channels, middle, 1))
        self.conv1 = nn.Conv2d(middle * 5, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(M, channels, h, w) -> the same shape."""
        parts = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x), self.global_avg_pool(x).expand(-1, -1, *x.shape[-2:])]
        return self.dropout(F.relu(self.bn1(self.conv1(torch.cat(parts, 1)))))


def _atrous(in_channels: int, channels: int, dilation: int) -> nn.Sequential:
    kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
    conv = nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(OrderedDict(atrous_conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))


def _mlp(channels: int) -> nn.Sequential:
    """Camera numbers (M, 27) -> (M, channels, 1, 1)."""
    fc1, fc2 = nn.Linear(CAMERA_NUMBERS, channels), nn.Linear(channels, channels)
    return nn.Sequential(OrderedDict(fc1=fc1, relu=nn.ReLU(inplace=True), fc2=fc2, as_map=nn.Unflatten(1, (-1, 1, 1))))


class _Gate(nn.Module):
    """Scales the channels of a map by another vector (squeeze-and-excitation)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        return x * self.conv_expand(F.relu(self.conv_reduce(vector))).sigmoid()
