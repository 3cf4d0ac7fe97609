"""3DPPE's depth net and the depth of each feature that follows from it (Shu et al., ICCV 2023, section 3.2), with its key names.

A depth is predicted twice: directly, in metres, and as the mean of a distribution over D depths (soft-argmax); the hybrid depth is a blend
of both whose weight is learned. The features that the detector reads pass here as well: the calibration gates their channels.
Shape letters: B batch, N cameras, M = B * N images, D candidate depths, C channels, h w feature map.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ShapeError
from frustum.geometry.transforms import send, without_autocast
from frustum.nn.conv import ConvModule
from frustum.nn.deform import DeformConv
from frustum.nn.depth_net import Aspp
from frustum.nn.encoders.resnet import BasicBlock
from frustum.nn.rig_memory import RigMemory
from frustum.ops.floored_log import floored_log
from frustum.types.frame import Frame

DepthKind = Literal["direct", "probabilistic", "hybrid"]
"""`direct`: one number, the logarithm of the depth. `probabilistic`: a distribution. `hybrid`: a blend of a distribution and metres."""

_USUAL = 10.0  # metres

_known: RigMemory[Tensor] = RigMemory()  # so that nothing is copied to a GPU for a rig that was there before


class RayDepth(NamedTuple):
    """What the depth net says of M feature maps.

    Attributes:
        context: (M, C, h, w) features whose channels the calibration has gated; of LightDepthNet those that it was given.
        logits: (M, D, h, w) of the candidate depths; of a `direct` depth (M, 1, h, w), the logarithm of metres.
        metres: (M, h, w) the second, direct prediction of a hybrid depth, else None.
    """

    context: Tensor
    logits: Tensor
    metres: Tensor | None


class RayDepthNet(nn.Module):
    """Depth and context of each feature from features and calibration (the reference's CameraAwareDepthNet).

    Args:
        in_channels: channels of the image features.
        channels: width inside.
        context_channels: C.
        kind: see DepthKind.
        bins: D, for all but a direct depth.
        context_blocks: residual blocks in the context branch: 0, or 3 with the "context encoder".
    """

    def __init__(self, in_channels: int, channels: int, context_channels: int, kind: DepthKind, bins: int = 16, context_blocks: int = 0):
        super().__init__()
        self.reduce_conv = ConvModule(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.bn1, self.context_mlp, self.context_se = nn.BatchNorm1d(18), _mlp(18, channels), MapGate(channels)
        out = nn.Conv2d(channels, context_channels, 1)
        blocks = [BasicBlock(channels, channels) for _ in range(context_blocks)]
        self.context_conv = nn.Sequential(*blocks, out) if blocks else out
        self.bn2, self.depth_mlp, self.depth_se = nn.BatchNorm1d(6), _mlp(6, channels), MapGate(channels)
        self.depth_stem = nn.Sequential(*[BasicBlock(channels, channels) for _ in range(3)], Aspp(channels, channels))
        answers = 1 if kind == "direct" else bins
        # The published network has no ReLU in this branch, but in the other.
        self.depth_prob_conv = nn.Sequential(*_deformable(channels), nn.Conv2d(channels, answers, 1))
        if kind == "hybrid":
            self.depth_direct_conv = nn.Sequential(*_deformable(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, 1, 1))
            self.fuse_lambda = nn.Parameter(torch.tensor(1e-4))
        self.kind = kind

    def forward(self, features: Tensor, cameras: Tensor) -> RayDepth:
        """features (M, in_channels, h, w), cameras (M, 18), see `camera_numbers`.

        Raises:
            ShapeError: one image in training, whose batch normalisation needs two.
        """
        if self.training and len(features) < 2:
            raise ShapeError(
                "a camera-aware depth net needs at least two images to train on, as its batch normalisation is over images: "
                "use train.batch_size=2 or more cameras."
            )
        x = self.reduce_conv(features)
        context = self.context_conv(self.context_se(x, self.context_mlp(self.bn1(cameras))))
        depth = self.depth_stem(self.depth_se(x, self.depth_mlp(self.bn2(cameras[:, :6]))))
        metres = self.depth_direct_conv(depth)[:, 0] if self.kind == "hybrid" else None
        return RayDepth(context, self.depth_prob_conv(depth), metres)

    def depth(self, found: RayDepth, candidates: Tensor | None = None) -> Tensor:
        """The depth of each feature (M, h, w) in metres, float32. That of a hybrid may be negative early in training.

        `candidates` (D,) are those of the logits in metres; a direct depth has none.
        """
        return _depth(found, self.kind, candidates, self.fuse_lambda if self.kind == "hybrid" else None)


class LightDepthNet(nn.Module):
    """Depth by two convolutions, of features that hold the direction of their ray; not in the paper, for small networks.

    What is predicted directly is linear in the inverse of the depth, as the row of an image is where a thing stands on the ground. The
    features that the detector reads are those that it is given. Arguments as those of RayDepthNet.
    """

    def __init__(self, in_channels: int, channels: int, kind: DepthKind, bins: int = 16):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()
        )
        self.direct = nn.Conv2d(channels, 1, 1) if kind != "probabilistic" else None
        self.bins = nn.Conv2d(channels, bins, 1) if kind != "direct" else None
        if self.direct is not None:
            nn.init.constant_(self.direct.bias, 0.5)  # type: ignore[arg-type]  # about 10 m
        if kind == "hybrid":
            self.fuse_lambda = nn.Parameter(torch.tensor(1e-4))
        self.kind = kind

    def forward(self, features: Tensor, cameras: Tensor | None = None) -> RayDepth:
        """features (M, in_channels, h, w); the numbers of the cameras are not read."""
        x, log = self.stem(features), None
        with without_autocast(x):
            if self.direct is not None:
                inverse = self.direct(x.to(self.direct.weight.dtype))[:, 0].float()
                log = math.log(_USUAL) - floored_log(F.softplus(inverse), 1e-3)
        if self.bins is None:
            assert log is not None
            return RayDepth(features, log[:, None], None)
        return RayDepth(features, self.bins(x), None if log is None else log.exp())

    def depth(self, found: RayDepth, candidates: Tensor | None = None) -> Tensor:
        """As that of RayDepthNet, but always positive."""
        return _depth(found, self.kind, candidates, self.fuse_lambda if self.kind == "hybrid" else None)


class MapGate(nn.Module):
    """Scales the channels of a map by what another map, or a vector, says (squeeze-and-excitation).

    Args:
        channels: C of the scaled map.
        in_channels: of the other; C by default.
    """

    def __init__(self, channels: int, in_channels: int | None = None):
        super().__init__()
        self.conv_reduce = nn.Conv2d(in_channels or channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """x (M, C, h, w), other (M, in_channels, h or 1, w or 1) -> x with its channels scaled."""
        return x * self.conv_expand(F.relu(self.conv_reduce(other))).sigmoid()


def camera_numbers(frame: Frame, device: torch.device | None = None) -> Tensor:
    """What the depth net reads of each camera: float32 (M, 18), on `device` (None: where the rig lies).

    The first two rows of the intrinsics of the network's image, in pixels, and the first three of the transform from the augmented ego
    frame of `frame` to the camera; row by row.
    """
    rig = frame.rig
    if device not in (None, rig.intrinsics.device):
        matrices = (rig.image_aug, rig.intrinsics, rig.cam2ego, rig.ego2global, frame.ego2global, frame.bev_aug)
        with torch.inference_mode(False):  # what is kept may be needed for gradients later
            return _known.get(matrices, str(device), lambda: send(camera_numbers(frame), device))
    seen = rig.image_aug.double() @ rig.intrinsics.double()
    cam2map = frame.bev_aug[:, None].double() @ rig.cam2key(frame.ego2global).double()
    map2cam = torch.linalg.inv(cam2map)  # the augmentation may scale
    return torch.cat([seen[..., :2, :].flatten(2), map2cam[..., :3, :].flatten(2)], -1).flatten(0, 1).float()


def _depth(found: RayDepth, kind: DepthKind, candidates: Tensor | None, share: Tensor | None) -> Tensor:
    """See RayDepthNet.depth; the sigmoid of `share` is that of the metres of a hybrid."""
    with without_autocast(found.logits):
        if kind == "direct":
            return found.logits[:, 0].float().exp()
        assert candidates is not None
        mean = torch.einsum("mdhw,d->mhw", found.logits.float().softmax(1), candidates.float())
        if found.metres is None or share is None:
            return mean
        return share.sigmoid() * found.metres.float() + (1 - share.sigmoid()) * mean  # one half each at the start


def _deformable(channels: int) -> list[nn.Module]:
    return [DeformConv(channels, channels, groups=4), nn.BatchNorm2d(channels)]


def _mlp(numbers: int, channels: int) -> nn.Sequential:
    """Camera numbers (M, numbers) -> (M, channels, 1, 1)."""
    fc1, fc2 = nn.Linear(numbers, channels), nn.Linear(channels, channels)
    return nn.Sequential(OrderedDict(fc1=fc1, relu=nn.ReLU(inplace=True), fc2=fc2, as_map=nn.Unflatten(1, (-1, 1, 1))))
