"""CameraRig: N pinhole cameras on one body, with the image augmentation that lies between lens and network.

Frames (docs/conventions.md): camera x right, y down, z forward; ego x forward, y left, z up. Pixel coordinates are continuous with the
origin at the top-left corner of the image: pixel (row i, column j) covers [j, j+1) x [i, i+1) and its centre is (j + 0.5, i + 0.5).
In these coordinates scaling an image by r is exactly `u' = r u` and a flip is exactly `u' = W - u`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from frustum.errors import DataError, ShapeError
from frustum.geometry.plausible import NEAR, WORLD, intrinsics_fault, pose_fault
from frustum.geometry.transforms import send


@dataclass(frozen=True)
class CameraRig:
    """Calibration of N cameras with any leading dimensions (*): a sample, a batch, a batch of sequences.

    Attributes:
        intrinsics: (*, N, 3, 3) of the original image, pixels.
        cam2ego: (*, N, 4, 4) camera to ego.
        ego2global: (*, N, 4, 4) ego pose at each camera's own timestamp.
        image_aug: (*, N, 3, 3) from original pixels (u, v, 1) to pixels of the network's image; affine.
        image_size: (H, W) of the network's image, after the augmentation.
        timestamps: (*, N) seconds, or None.
    """

    intrinsics: Tensor
    cam2ego: Tensor
    ego2global: Tensor
    image_aug: Tensor
    image_size: tuple[int, int]
    timestamps: Tensor | None = None

    @classmethod
    def create(
        cls,
        intrinsics: Tensor,
        cam2ego: Tensor,
        image_size: tuple[int, int],
        ego2global: Tensor | None = None,
        image_aug: Tensor | None = None,
        timestamps: Tensor | None = None,
    ) -> CameraRig:
        """Build and validate a rig; missing poses and augmentations are identities.

        Raises:
            ShapeError: a matrix has another shape than the class documents.
            DataError: a matrix is not finite, intrinsics or a pose cannot be (geometry.plausible), or an augmentation is singular.
        """
        lead = intrinsics.shape[:-2]
        eye = lambda n: torch.eye(n, dtype=intrinsics.dtype, device=intrinsics.device).expand(*lead, n, n)  # noqa: E731
        poses, changes = eye(4) if ego2global is None else ego2global, eye(3) if image_aug is None else image_aug
        rig = cls(intrinsics, cam2ego, poses, changes, (int(image_size[0]), int(image_size[1])), timestamps)
        rig.validate()
        return rig

    def validate(self) -> None:
        """Raise unless shapes agree and every matrix is what it can be (see `create`)."""
        lead = tuple(self.intrinsics.shape[:-2])
        for name, size in _MATRICES.items():
            matrix = getattr(self, name)
            if tuple(matrix.shape) != (*lead, size, size) or not lead:
                raise ShapeError(f"{name} must have shape (*, N, {size}, {size}) with (*, N) = {lead}, got {tuple(matrix.shape)}.")
            if not torch.isfinite(matrix).all():
                where = _first_bad(~torch.isfinite(matrix).flatten(-2).all(-1))
                raise DataError(f"{name} holds NaN or infinity at {where}. Check the calibration file.")
            if name == "image_aug":
                if (bad := torch.linalg.det(matrix.double()).abs() < 1e-9).any():
                    raise DataError(
                        f"{name} is singular at {_first_bad(bad)}: no pixel of the network's image has a place in the original."
                    )
                continue
            found = intrinsics_fault(matrix) if size == 3 else pose_fault(matrix, NEAR if name == "cam2ego" else WORLD)
            if found is not None:
                raise DataError(f"{name} cannot be right at {_camera(found.place)}: {found.words}")

    @property
    def num_cameras(self) -> int:
        """N."""
        return self.intrinsics.shape[-3]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> CameraRig:
        """The rig on another device or in another float type; a device without float64 (mps) needs `dtype=torch.float32`."""
        return self._map(lambda x: x.to(device=device, dtype=dtype or x.dtype))

    def __getitem__(self, index) -> CameraRig:
        """Index the leading dimensions (*); use `select` for cameras."""
        if self.intrinsics.dim() < 4:
            raise ShapeError("this rig has no leading dimension to index; use select(...) to choose cameras.")
        return self._map(lambda x: x[index])

    def select(self, cameras: list[int] | slice) -> CameraRig:
        """The rig with only the given cameras, in the given order."""
        dim = self.intrinsics.dim() - 3
        return self._map(lambda x: x.transpose(0, dim)[cameras].transpose(0, dim))

    @staticmethod
    def stack(rigs: list[CameraRig]) -> CameraRig:
        """Stack rigs of equal shape along a new first dimension."""
        known = [r.timestamps for r in rigs if r.timestamps is not None]
        stamps = torch.stack(known) if len(known) == len(rigs) else None
        matrices: dict[str, Any] = {n: torch.stack([getattr(r, n) for r in rigs]) for n in _MATRICES}
        return replace(rigs[0], timestamps=stamps, **matrices)

    def _map(self, fn) -> CameraRig:
        stamps = None if self.timestamps is None else fn(self.timestamps)
        return replace(self, timestamps=stamps, **{n: fn(getattr(self, n)) for n in _MATRICES})

    # ---- frames -------------------------------------------------------------------------------------------------------------

    def cam2key(self, key_ego2global: Tensor | None = None) -> Tensor:
        """Camera to the ego frame of the keyframe (*, N, 4, 4), through the global frame in float64.

        `key_ego2global` (*, 4, 4) is the ego pose that defines the frame; None takes each camera's own pose (a static rig). A camera whose
        own pose is this one gets its `cam2ego` to the last bit, so that cells do not depend on where a standing vehicle heads.
        """
        if key_ego2global is None:
            return self.cam2ego
        key, poses, cam2ego = key_ego2global.double()[..., None, :, :], self.ego2global.double(), self.cam2ego.double()
        # Poses in float32 are rigid to 5e-8 only: their transpose is not their inverse, and single points would change their cell.
        chain = torch.linalg.inv(key) @ poses @ cam2ego
        return torch.where((poses == key).flatten(-2).all(-1)[..., None, None], cam2ego, chain).to(self.cam2ego.dtype)

    # ---- pixels and points --------------------------------------------------------------------------------------------------

    def project(self, points: Tensor, key_ego2global: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Project ego points (*, P, 3) into every camera.

        Returns:
            pixels (*, N, P, 2) in the network's image, depth (*, N, P) in metres along the optical axis, and visible (*, N, P), bool:
            in front of the camera and inside the image.
        """
        ego2cam = torch.linalg.inv(self.cam2key(key_ego2global).double()).to(points.dtype)
        local = points[..., None, :, :] @ ego2cam[..., :3, :3].mT + ego2cam[..., None, :3, 3]  # (*, N, P, 3)
        depth = local[..., 2]
        pixel_matrix = (self.image_aug @ self.intrinsics).to(points.dtype)
        homogeneous = local @ pixel_matrix.mT
        in_front = depth > 1e-6
        pixels = homogeneous[..., :2] / torch.where(in_front, homogeneous[..., 2], 1.0)[..., None]
        height, width = self.image_size
        u, v = pixels.unbind(-1)
        return pixels, depth, in_front & (u >= 0) & (u < width) & (v >= 0) & (v < height)

    def unproject(self, pixels: Tensor, depth: Tensor, key_ego2global: Tensor | None = None) -> Tensor:
        """Ego points (*, N, P, 3) of pixels (*, N, P, 2) of the network's image at `depth` (*, N, P) metres along the optical axis."""
        return self._lift(pixels, depth, self.cam2key(key_ego2global))

    def rays(self, pixels: Tensor, key_ego2global: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ray origins (*, N, 3) and directions (*, N, P, 3) in the ego frame; directions have depth 1 along the optical axis."""
        cam2key = self.cam2key(key_ego2global)
        points = self._lift(pixels, torch.ones_like(pixels[..., 0]), cam2key)
        origins = send(cam2key[..., :3, 3], pixels.device, pixels.dtype)
        return origins, points - origins[..., None, :]

    def _lift(self, pixels: Tensor, depth: Tensor, cam2key: Tensor) -> Tensor:
        to_rays = send(torch.linalg.inv(self.image_aug.double() @ self.intrinsics.double()), pixels.device, pixels.dtype)
        homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
        local = (homogeneous @ to_rays.mT) * depth[..., None]
        cam2key = send(cam2key, pixels.device, pixels.dtype)
        return local @ cam2key[..., :3, :3].mT + cam2key[..., None, :3, 3]

    def frustum_points(self, u: Tensor, v: Tensor, depth: Tensor, key_ego2global: Tensor | None = None) -> Tensor:
        """Ego points (*, N, D, h, w, 3) at the crossings of image columns u (w), rows v (h) and depths (D)."""
        grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
        pixels = torch.stack([grid_u, grid_v], -1).reshape(-1, 2)  # (h*w, 2)
        origins, directions = self.rays(pixels.expand(*self.intrinsics.shape[:-2], -1, 2), key_ego2global)
        points = origins[..., None, None, :] + depth[:, None, None] * directions[..., None, :, :]  # (*, N, D, h*w, 3)
        return points.unflatten(-2, (len(v), len(u)))

    # ---- image changes that keep the matrices true --------------------------------------------------------------------------

    def augmented(self, matrix: Tensor, image_size: tuple[int, int]) -> CameraRig:
        """Compose a pixel transform (3, 3) or (*, N, 3, 3) after the present augmentation; `image_size` is the new (H, W)."""
        matrix = matrix.to(self.image_aug)
        return replace(self, image_aug=matrix @ self.image_aug, image_size=image_size)

    def resized(self, height: int, width: int) -> CameraRig:
        """Scale the image to `height` x `width`."""
        scale = torch.diag(torch.tensor([width / self.image_size[1], height / self.image_size[0], 1.0], dtype=torch.float64))
        return self.augmented(scale, (height, width))

    def cropped(self, left: int, top: int, height: int, width: int) -> CameraRig:
        """Cut out a window; it may reach beyond the image, where pixels are padding."""
        shift = torch.eye(3, dtype=torch.float64)
        shift[0, 2], shift[1, 2] = -left, -top
        return self.augmented(shift, (height, width))

    def flipped(self) -> CameraRig:
        """Mirror the image left to right."""
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
        mirror[0, 2] = self.image_size[1]
        return self.augmented(mirror, self.image_size)


_MATRICES = {"intrinsics": 3, "cam2ego": 4, "ego2global": 4, "image_aug": 3}  # their sizes


def _first_bad(bad: Tensor) -> str:
    """Readable index of the first True entry of (*, N)."""
    return _camera(tuple(bad.nonzero()[0].tolist()))


def _camera(index: tuple[int, ...]) -> str:
    """An index into (*, N) in words."""
    return f"camera {index[-1]}" + (f" of entry {index[:-1]}" if len(index) > 1 else "")
