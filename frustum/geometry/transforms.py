"""4x4 rigid transforms and rotations, for numpy arrays and torch tensors alike.

A transform is named `a2b` and maps points of frame a to frame b: `p_b = a2b @ p_a`. Chains read right to left:
`a2c = b2c @ a2b`. Quaternions are (w, x, y, z) as in nuScenes. All functions take any leading dimensions, keep the dtype and
the device (but for `send`, and `without_autocast`, a context), and return the kind of array that they were given.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def send(tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The tensor on a device, and of another dtype if one is given. A copy to a GPU with CUDA does not wait for what the GPU does.

    Copies to the CPU wait, because their values may be read at once. Pinned memory must not be written to until the copy is done.
    """
    return tensor.to(device, dtype or tensor.dtype, non_blocking=torch.device(device).type not in ("cpu", "mps"))


def without_autocast(like: torch.Tensor) -> torch.autocast:
    """A context in which float32 stays float32 on the device of `like`."""
    return torch.autocast(like.device.type if like.device.type != "meta" else "cpu", enabled=False)


def _xp(array):
    """The namespace of an array: torch for tensors, numpy for everything else."""
    return torch if isinstance(array, torch.Tensor) else np


def _as_array(value):
    return value if isinstance(value, torch.Tensor) else np.asarray(value, dtype=getattr(value, "dtype", np.float64))


def invert(a2b: Array) -> Array:
    """Inverse of rigid transforms (*, 4, 4), by transposing the rotation: exact where a general inverse is not.

    Poses that were rounded to float32 are rigid to 5e-8 only; chains of them need `torch.linalg.inv(a2b.double())`.
    """
    xp = _xp(a2b)
    rotation = xp.swapaxes(a2b[..., :3, :3], -1, -2)
    translation = -(rotation @ a2b[..., :3, 3:])
    return pose(rotation, translation[..., 0])


def pose(rotation: Array, translation: Array) -> Array:
    """Transforms (*, 4, 4) from rotations (*, 3, 3) and translations (*, 3)."""
    xp = _xp(rotation)
    top = xp.concatenate([rotation, translation[..., None]], -1)
    bottom = xp.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return xp.concatenate([top, bottom], -2)


def transform_points(a2b: Array, points: Array) -> Array:
    """Apply transforms (*, 4, 4) to points (*, P, 3)."""
    return points @ _xp(a2b).swapaxes(a2b[..., :3, :3], -1, -2) + a2b[..., None, :3, 3]


def rotation_z(angle: Array | float) -> Array:
    """Rotations (*, 3, 3) by `angle` (*) radians about z, counter-clockwise seen from above."""
    theta: Any = _as_array(angle)
    xp = _xp(theta)
    c, s, zero, one = xp.cos(theta), xp.sin(theta), xp.zeros_like(theta), xp.ones_like(theta)
    return xp.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(*theta.shape, 3, 3)


def rotation_xyz(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Rotation (3, 3), float64, `Rz(yaw) @ Ry(pitch) @ Rx(roll)` in radians; positive pitch points the nose down."""
    cr, sr, cp, sp = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return rotation_z(float(yaw)) @ about_y @ about_x


def yaw_of(rotation: Array) -> Array:
    """Heading (*) in radians of rotations (*, 3, 3): the direction of the rotated x axis seen from above, as nuScenes measures it."""
    xp = _xp(rotation)
    return xp.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])


def quaternion_to_matrix(quaternion: Array) -> Array:
    """Rotations (*, 3, 3) of quaternions (*, 4) in (w, x, y, z) order, normalised first."""
    q = _as_array(quaternion)
    xp = _xp(q)
    q = q / xp.sqrt((q * q).sum(-1))[..., None]
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return xp.stack(rows, -1).reshape(*q.shape[:-1], 3, 3)


def matrix_to_quaternion(rotation: np.ndarray) -> np.ndarray:
    """Quaternions (*, 4), (w, x, y, z) with w >= 0, of rotations (*, 3, 3); numpy, float64."""
    r = np.asarray(rotation, np.float64)
    trace = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    # q q^T up to scale (Bar-Itzhack): its column with the largest diagonal entry is the stable one.
    k = np.empty((*r.shape[:-2], 4, 4))
    k[..., 0, 0] = 1 + trace
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        k[..., 0, i + 1] = k[..., i + 1, 0] = r[..., b, a] - r[..., a, b]
        for j in range(3):
            k[..., i + 1, j + 1] = r[..., i, j] + r[..., j, i] if i != j else 1 - trace + 2 * r[..., i, i]
    best = np.diagonal(k, axis1=-2, axis2=-1).argmax(-1)
    q = np.take_along_axis(k, best[..., None, None], -1)[..., 0]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)
