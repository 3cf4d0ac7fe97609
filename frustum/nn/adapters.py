"""What lies between a student and its teacher when their features have other numbers of channels, or maps of another size.

Shape letters: B batch, C channels, * other dimensions.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ConfigError, ShapeError

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Adapter(nn.Module):
    """A linear map of the channels at each position (a 1x1 convolution) from the student's number to the teacher's; nothing if equal.

    It is trained with the student and not a part of it.

    Args:
        student_channels, teacher_channels: how many.
        axis: of the channels: 1 for maps (B, C, *), -1 for tokens or voxels (*, C).
        bias: as the mmsegmentation and mmdetection forks of CWD's co-author have it; CIRKD and TorchDistiller have none.
    """

    def __init__(self, student_channels: int, teacher_channels: int, axis: Literal[1, -1] = 1, bias: bool = True):
        super().__init__()
        if axis not in (1, -1) or min(student_channels, teacher_channels) < 1:
            given = f"{student_channels} and {teacher_channels} on axis {axis}"
            raise ConfigError(f"an adapter needs at least one channel on each side, on axis 1 or -1, got {given}.")
        self.axis, self.channels = axis, student_channels
        is_needed = student_channels != teacher_channels
        self.linear = nn.Linear(student_channels, teacher_channels, bias) if is_needed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *) or (*, C) of the student -> the same with the teacher's C. Raises ShapeError for another number of channels."""
        if x.dim() < 2 or x.shape[self.axis] != self.channels:
            raise ShapeError(f"the adapter was made for {self.channels} channels on axis {self.axis}, got {tuple(x.shape)}.")
        if isinstance(self.linear, nn.Identity):
            return x
        return self.linear(x.movedim(self.axis, -1)).movedim(-1, self.axis)


def to_same_size(student: Tensor, teacher: Tensor, resize: Literal["student", "teacher"] = "student") -> tuple[Tensor, Tensor]:
    """Both maps in the size of one of them, interpolated linearly without aligned corners, as PKD does.

    By default the student's map is resized: what it should imitate then stays exact, and its gradient is that of the resized map. A teacher
    with much larger maps is cheaper to compare when these are made smaller instead.

    Args:
        student, teacher: (B, C, *) with one to three spatial dimensions; C may differ.
        resize: whose map.

    Raises:
        ShapeError: another number of dimensions. ConfigError: neither of both is to be resized.
    """
    if student.dim() != teacher.dim() or student.dim() - 2 not in _MODES:
        given = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ShapeError(f"maps must both be (B, C, *) with one to three spatial dimensions to be resized, got {given}.")
    if resize not in ("student", "teacher"):
        raise ConfigError(f"resize must be 'student' or 'teacher', got {resize!r}.")
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    mode = _MODES[student.dim() - 2]
    if resize == "student":
        return F.interpolate(student, teacher.shape[2:], mode=mode, align_corners=False), teacher
    return student, F.interpolate(teacher, student.shape[2:], mode=mode, align_corners=False)
