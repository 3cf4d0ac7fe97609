"""Stereo over time: the camera has moved since the previous frame, so that matching the two gives the depth.

After BEVStereo (Li et al., AAAI 2023) as BEVDet and FlashOCC use it: a plane sweep over the depth bins, its soft-max as extra input of
the depth net. Key names are those of the published checkpoints.
Shape letters: B batch, N cameras, M = B * N images, H W image, h w feature map, C channels, D depth bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frustum.geometry import CameraRig
from frustum.geometry.transforms import send, without_autocast
from frustum.nn.depth_net import DepthNet
from frustum.nn.lift_splat import Device, Sampling, Size, pixel_grid
from frustum.ops.cost_volume import cost_volume

_UNSEEN = 5.0  # cost of a depth at which the place lies outside the previous frame: `bias` of the published configurations
_NEAREST = 1e-3  # metres before the camera


class StereoDepthNet(DepthNet):
    """A `DepthNet` that also reads the matching probability of each depth at four times its resolution.

    Args:
        in_channels, channels, context_channels, bins: see `DepthNet`.
    """

    def __init__(self, in_channels: int, channels: int, context_channels: int, bins: int):
        super().__init__(in_channels, channels, context_channels, bins, extra_channels=bins)
        self.cost_volumn_net = nn.Sequential(  # the upstream spelling: it is part of the checkpoints' key names
            nn.Conv2d(bins, bins, 3, 2, 1), nn.BatchNorm2d(bins), nn.Conv2d(bins, bins, 3, 2, 1), nn.BatchNorm2d(bins)
        )

    def forward(self, features: Tensor, cameras: Tensor, extra: Tensor | None = None) -> Tensor:
        """As `DepthNet`; `extra` (M, D, 4 h, 4 w) is the matching probability, None where there is nothing to match."""
        if extra is None:
            height, width = features.shape[-2:]
            extra = features.new_zeros(len(features), self.bins, 4 * height, 4 * width)
        return super().forward(features, cameras, self.cost_volumn_net(extra))


@torch.no_grad()
def matching(
    current: Tensor, previous: Tensor, now: CameraRig, then: CameraRig, depths: Tensor, sampling: Sampling, as_reference: bool = False
) -> Tensor:
    """Probability (M, D, h, w), float32, of each depth of each pixel from its likeness to the previous frame.

    Args:
        current, previous: (M, C, h, w) features.
        now, then: rigs (B,) of the two frames; camera i is matched with camera i.
        depths: (D,) metres.
        sampling: where in the image a feature stands, see `lift_splat.feature_pixels`.
        as_reference: round as the published code does, see `reference_sweep`.
    """
    find = reference_sweep if as_reference else sweep
    with without_autocast(current):  # places in bfloat16 would be pixels off
        lookup = find(now, then, depths, (current.shape[-2], current.shape[-1]), sampling, current.device)
    return (-cost_volume(current, previous, lookup, _UNSEEN)).softmax(1)


def sweep(now: CameraRig, then: CameraRig, depths: Tensor, size: Size, sampling: Sampling, device: Device = None) -> Tensor:
    """Where pixels at given depths lay in the previous frame: (M, D, h, w, 2), float32, as `ops.cost_volume` needs it.

    The matrices are multiplied in float64 where the rigs lie; the points are computed in float32 on `device`.
    """
    device = device or now.intrinsics.device
    to_pixels, to_rays = then.image_aug.double() @ then.intrinsics.double(), now.image_aug.double() @ now.intrinsics.double()
    cam2global = [rig.ego2global.double() @ rig.cam2ego.double() for rig in (then, now)]
    motion = torch.linalg.inv(cam2global[0]) @ cam2global[1]  # camera now to camera then
    turn = (to_pixels @ motion[..., :3, :3] @ torch.linalg.inv(to_rays)).flatten(0, 1)  # (M, 3, 3)
    shift = (to_pixels @ motion[..., :3, 3:])[..., 0].flatten(0, 1)  # (M, 3)
    turn, shift = send(turn, device, torch.float32), send(shift, device, torch.float32)
    pixels = send(pixel_grid(now.image_size, size, sampling), device, torch.float32)
    rays = nn.functional.pad(pixels, (0, 1), value=1.0) @ turn[:, None].mT  # (M, h, w, 3)
    points = rays[:, None] * send(depths, device, torch.float32)[:, None, None, None] + shift[:, None, None, None]  # (M, D, h, w, 3)
    pixels = points[..., :2] / points[..., 2:].clamp(min=_NEAREST)
    return _lookup(pixels, points[..., 2:] < _NEAREST, size, now.image_size, sampling)


def reference_sweep(now: CameraRig, then: CameraRig, depths: Tensor, size: Size, sampling: Sampling, device: Device = None) -> Tensor:
    """As `sweep`, but with the operations of BEVDet and FlashOCC in their order, in float32: undo the augmentation, lift, move, project.

    The places differ by 3e-5 of the image; this changes costs, which are sums over hundreds of channels before a soft-max.
    """
    device = torch.device(device or now.intrinsics.device)

    def of_images(matrix: Tensor) -> Tensor:
        return matrix.flatten(0, 1).float()[:, None, None]  # (M, 1, 1, *, *), where the rigs lie, as all small matrices here

    (undo, augment), (unproject, project) = ([of_images(getattr(r, name)) for r in (now, then)] for name in ("image_aug", "intrinsics"))
    cam2global = [rig.ego2global.double() @ rig.cam2ego.double() for rig in (then, now)]
    # Poses in float32 are not quite rigid: a kilometre from the origin, their general inverse is 1e-4 m off that of a rigid transform.
    motion = of_images(torch.linalg.inv(cam2global[0]) @ cam2global[1])
    pixels = pixel_grid(now.image_size, size, sampling, device, torch.float32)
    pixels = (pixels - send(undo[..., :2, 2], device)) @ send(torch.inverse(undo[:, 0, ..., :2, :2]), device).mT  # (M, h, w, 2)
    depth = send(depths, device, torch.float32)[:, None, None, None]
    points = pixels[:, None] * depth
    points = torch.cat([points, depth.expand(*points.shape[:-1], 1)], -1)  # (M, D, h, w, 3)
    turn, shift = motion[..., :3, :3] @ torch.inverse(unproject), motion[:, None, ..., :3, 3]
    points = points @ send(turn, device).mT + send(shift, device)
    behind = points[..., 2:] < _NEAREST
    points = points @ send(project, device).mT
    pixels = points[..., :2] / points[..., 2:]
    augment = send(augment, device)
    pixels = pixels @ augment[..., :2, :2].mT + augment[:, None, ..., :2, 2]
    return _lookup(pixels, behind, size, now.image_size, sampling)


def _lookup(pixels: Tensor, behind: Tensor, size: Size, image_size: Size, sampling: Sampling) -> Tensor:
    """Pixels (M, D, h, w, 2) of an image as -1 to 1 from the first feature to the last; -2 for points `behind` the camera."""
    height, width = image_size
    if sampling == "corners":
        lookup = pixels / _constant([width - 1.0, height - 1.0], pixels) * 2 - 1
    else:
        cells = pixels * _constant([size[1] / width, size[0] / height], pixels) - 0.5
        lookup = cells / _constant([max(size[1] - 1, 1), max(size[0] - 1, 1)], cells) * 2 - 1
    return lookup.masked_fill_(behind, -2.0)


def _constant(values: list[float], like: Tensor) -> Tensor:
    return send(torch.tensor(values, dtype=like.dtype), like.device)
