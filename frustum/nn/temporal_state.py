"""What a network over time remembers between two frames. Shape letters: B batch, M images, C c channels, D depth bins, h w, X Y cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from frustum.errors import DataError
from frustum.geometry import CameraRig
from frustum.types.frame import Frame

Align = Literal["lift", "warp", "warp_reference"]


class Previous(NamedTuple):
    """What a network that compares images needs of the previous frame: features (M, c, h, w), its rig (B,), is_present (B,) bool."""

    features: Tensor
    rig: CameraRig
    is_present: Tensor


class Past(NamedTuple):
    """A past frame, its images left out, and its map (B, C, Y, X), or for `lift` what is lifted (M, D + C, h, w)."""

    memory: Tensor
    frame: Frame


@dataclass(frozen=True)
class TemporalState:
    """What `step` keeps: the past frames newest first, features of the newest one, and what the next frame must agree with.

    Attributes:
        past: at most as many as the network's history.
        previous: see `Previous`, or None for networks that compare no images.
        last: the newest frame without its images; its is_present is False where the scene was left.
        scenes: of the newest frame; empty where unknown.
        align: how the network aligned when these were made.
    """

    past: tuple[Past, ...]
    previous: Previous | None
    last: Frame
    scenes: list[str]
    align: Align

    def forget(self, which: Tensor | list[bool]) -> TemporalState:
        """The state with the history of some streams of the batch dropped; `which` (B,) is True there. For streams that change scene.

        Raises:
            DataError: `which` must have one entry per stream.
        """
        kept, count = ~torch.as_tensor(which, dtype=torch.bool).cpu(), len(self.last.is_present)
        if kept.shape != (count,):
            what = f"forget needs one entry for each of the {count} streams, got shape {tuple(kept.shape)}"
            raise DataError(f"{what}. All of them: state.forget([True] * {count}).")

        def without(frame: Frame) -> Frame:
            return frame._replace(is_present=frame.is_present & kept)

        previous = self.previous and self.previous._replace(is_present=self.previous.is_present & kept)
        past = tuple(p._replace(frame=without(p.frame)) for p in self.past)
        return replace(self, past=past, previous=previous, last=without(self.last))

    def __repr__(self) -> str:
        """One line; the tensors themselves would fill screens."""
        counts = f"{len(self.last.is_present)} streams, {len(self.past)} past frames, align={self.align!r}"
        return f"TemporalState({counts}, scenes={self.scenes}, {self.num_bytes / 2**20:.1f} MiB)"

    @property
    def num_bytes(self) -> int:
        """Memory that the features take."""
        tensors = [p.memory for p in self.past] + ([self.previous.features] if self.previous else [])
        return sum(t.nbytes for t in tensors)
