"""Plain arrays to the tensors of a Batch: types, shapes and values are checked, and a complaint names the argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frustum.errors import DataError, ShapeError
from frustum.geometry.plausible import pose_fault

Array = np.ndarray | Tensor


def as_tensor(value: Any, name: str) -> Tensor:
    """`value` as a tensor that holds no NaN or infinity. Raises DataError."""
    try:
        tensor = torch.as_tensor(np.require(value, requirements=["C", "W"]) if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} cannot be read as an array of numbers: {error}. Give a numpy array or a tensor.") from error
    if not torch.isfinite(tensor).all():
        raise DataError(f"{name} holds NaN or infinity. Check where the array comes from.")
    return tensor


def network_images(value: Any) -> Tensor:
    """Images as float32 (B, T, N, 3, H, W), with missing leading dimensions added. Raises ShapeError or DataError."""
    images = as_tensor(value, "images")
    if not images.is_floating_point():
        raise DataError(f"images must be float and normalised, got {images.dtype}. Use data.pipeline for raw 8-bit images.")
    if images.dim() not in (4, 5, 6) or images.shape[-3] != 3 or not images.numel():
        raise ShapeError(f"images must have shape (N, 3, H, W), (B, N, 3, H, W) or (B, T, N, 3, H, W), got {tuple(images.shape)}.")
    images = images[None] if images.dim() == 4 else images
    return (images[:, None] if images.dim() == 5 else images).float()


@dataclass(frozen=True)
class ArrayReader:
    """Reads the calibration of images of a known shape.

    Attributes:
        lead: (B, T, N) of the images. Calibration goes to the CPU as float64, wherever the images are.
    """

    lead: tuple[int, int, int]

    def per_camera(self, value: Any, size: int, name: str) -> Tensor:
        """Matrices (B, T, N, size, size) from (N, ., .), (B, N, ., .) or (B, T, N, ., .); B and T broadcast."""
        batch, time, cameras = self.lead
        matrix = self._matrix(value, name)
        matrix = matrix[:, None] if matrix.dim() == 4 else matrix
        matrix = matrix[None, None] if matrix.dim() == 3 else matrix
        if matrix.dim() != 5 or matrix.shape[2:] != (cameras, size, size) or not _broadcasts(matrix.shape[:2], (batch, time)):
            needed = f"(N, {size}, {size}), (B, N, {size}, {size}) or (B, T, N, {size}, {size}) with B, T, N = {batch}, {time}, {cameras}"
            raise ShapeError(f"{name} must have shape {needed}, got {tuple(np.shape(value))}.")
        _check_last_row(matrix, name)
        return matrix.expand(batch, time, cameras, size, size)

    def pose(self, value: Any, name: str) -> Tensor:
        """Rigid transforms (B, 4, 4) from (4, 4) or (B, 4, 4)."""
        pose = self._per_sample(value, (4,), name)
        if (found := pose_fault(pose)) is not None:
            raise DataError(f"{name} cannot be right: {found.words}")
        return pose

    def transform(self, value: Any, name: str) -> Tensor:
        """Transforms (B, 4, 4) that can be inverted, from (3, 3), (4, 4), (B, 3, 3) or (B, 4, 4)."""
        matrix = self._per_sample(value, (3, 4), name)
        if (torch.linalg.det(matrix).abs() < 1e-9).any():
            raise DataError(f"{name} is singular: it must be possible to undo the augmentation.")
        return matrix

    def times(self, value: Any) -> Tensor:
        """Seconds (B, T, N), float64, from (T,) or (B, T)."""
        batch, time, cameras = self.lead
        seconds = as_tensor(value, "timestamps")
        seconds = seconds[None] if seconds.dim() == 1 else seconds
        if seconds.dim() != 2 or not _broadcasts(seconds.shape, (batch, time)) or seconds.shape[1] != time:
            raise ShapeError(f"timestamps must have shape ({time},) or (B, {time}) with B = {batch}, got {tuple(np.shape(value))}.")
        return seconds.cpu().double().expand(batch, time)[..., None].expand(batch, time, cameras)

    def _per_sample(self, value: Any, sizes: tuple[int, ...], name: str) -> Tensor:
        matrix = self._matrix(value, name)
        matrix = matrix[None] if matrix.dim() == 2 else matrix
        shapes = [(s, s) for s in sizes]
        if matrix.dim() != 3 or tuple(matrix.shape[1:]) not in shapes or not _broadcasts(matrix.shape[:1], self.lead[:1]):
            needed = ", ".join(f"({s}, {s}) or (B, {s}, {s})" for s in sizes)
            raise ShapeError(f"{name} must have shape {needed} with B = {self.lead[0]}, got {tuple(np.shape(value))}.")
        if matrix.shape[-1] == 4:
            _check_last_row(matrix, name)
        full = torch.eye(4, dtype=torch.float64).repeat(len(matrix), 1, 1)
        full[:, : matrix.shape[1], : matrix.shape[2]] = matrix
        return full.expand(self.lead[0], 4, 4)

    def _matrix(self, value: Any, name: str) -> Tensor:
        matrix = as_tensor(value, name)
        if matrix.is_complex():
            raise DataError(f"{name} must be real, got {matrix.dtype}.")
        return matrix.cpu().double()


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return all(size in (1, needed) for size, needed in zip(shape, target, strict=True))


def _check_last_row(matrix: Tensor, name: str) -> None:
    size = matrix.shape[-1]
    if (matrix[..., -1, :] - torch.eye(size, dtype=matrix.dtype)[-1]).abs().max() > 1e-6:
        text = "0, " * (size - 1) + "1"
        raise DataError(f"the last row of every matrix in {name} must be ({text}). Is it transposed?")
