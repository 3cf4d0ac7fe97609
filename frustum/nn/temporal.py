"""Time: one way for every network to use past frames, all at once in `forward` or one frame per call in `step`.

The image network encodes every frame alone; each becomes a map. The maps of the past are brought into the keyframe's ego frame and joined
with its own along the channels. Three ways to align:
    lift            past features are lifted with their own cameras straight into the keyframe's grid: exact, but `step` lifts them again
    warp            past maps, made in their own ego frame, are looked up where the cells of the keyframe were then: one lift per frame
    warp_reference  as the code of BEVDet and FlashOCC warps: cells at their corners, motion of the first camera, and in `forward` past
                    features lifted as if the cameras of the keyframe had taken them
Published networks were trained with lift and, by their test script, evaluated with warp_reference.

A frame that is missing (start of a scene, fewer frames than the network asks for) is replaced by the keyframe's own map, which is what
repeating the keyframe's images gives. `step` after `step` equals `forward` over the same frames with lift and warp; with warp_reference
only where the cameras of a frame fire together and keep their places, because a stream cannot know the cameras of a later keyframe.
Shape letters: B batch, T time, N cameras, M = B * N images, H W image, h w feature map, D depth bins, C channels, X Y cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Protocol

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from frustum.config import TRAVELS, Config, into_section
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send
from frustum.nn.bev_warp import key_to_past, key_to_past_by_camera, warp_map
from frustum.nn.temporal_checks import check_frames, check_next, check_poses
from frustum.nn.temporal_state import Align, Past, Previous, TemporalState
from frustum.types.batch import Batch
from frustum.types.frame import Frame, frames_of

Encode = Callable[[Frame, Tensor, Previous | None], dict[str, Tensor]]
"""`encode(frame, cam2key, previous)`: one frame through the image network.

cam2key is (B, N, 4, 4), the camera poses in the ego frame, for depth nets that read the calibration; previous is None if it is missing in
the whole batch or the network compares no images. Returns `lifted` (M, D + C, h, w), depth logits and context; `compared` (M, c, h, w), own
features that the next frame compares itself with, if it does; anything else is an output of the keyframe.
"""
LiftToBev = Callable[[Tensor, Frame], tuple[Tensor, dict[str, Tensor]]]
"""`lift_to_bev(lifted, frame)`: a map (B, C, Y, X) in the augmented ego frame of `frame`, and outputs of the keyframe."""

Matching = Callable[[Frame], Tensor]
"""`matching_features(frame)`: `compared` of a frame of which nothing else is needed."""


class HistoryConfig(Config):
    """How past keyframes are used.

    Attributes:
        frames: F, past keyframes whose maps are joined with the keyframe's; 0 for a single frame.
        align: how past maps are brought into the keyframe's ego frame in evaluation and streaming.
        train_align: the same in training; null for the same way as in evaluation.
    """

    frames: NonNegativeInt = 0
    align: Annotated[Align, TRAVELS] = "warp"
    train_align: Align | None = "lift"


def upgraded_history(stored: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model as the first version stored them, flat, with `history` as a section."""
    if not isinstance(stored.get("history"), int):
        return stored
    return into_section(stored, "history", {"history": "frames", "align": "align", "train_align": "train_align"})


class History:
    """Joins the maps of the keyframe and of F past frames. A network over time holds one and hands it its own functions.

    Args:
        config: how many frames, and how they are aligned.
        map_grid: cells of the maps.
        newest_first: order in which maps are joined; else the keyframe is last.
        compares_images: `encode` needs features of the previous frame, so that one frame more is read.
    """

    def __init__(self, config: HistoryConfig, map_grid: VoxelGrid, *, newest_first: bool = True, compares_images: bool = False):
        self.config, self.map_grid, self.newest_first, self.compares_images = config, map_grid, newest_first, compares_images

    @property
    def num_read(self) -> int:
        """Past keyframes that are read."""
        return self.config.frames + self.compares_images if self.config.frames else 0

    def __call__(
        self, batch: Batch, encode: Encode, lift_to_bev: LiftToBev, matching_features: Matching | None = None, *, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Joined maps (B, (1 + F) * C, Y, X) of all frames of the batch, and the outputs of the keyframe.

        Frames beyond the network's history are ignored, missing ones replaced (see the module). No gradient flows into the past.

        Args:
            batch: keyframes and their past.
            encode, lift_to_bev: of the network, see `Encode` and `LiftToBev`.
            matching_features: `compared` of a frame of which nothing else is needed, for networks that compare images.
            training: align as in training.

        Raises:
            DataError: frames without ego poses, not newest first, or of cameras that differ between frames.
        """
        align = (self.config.train_align if training else None) or self.config.align
        frames = frames_of(batch, self.num_read)
        check_frames(batch, len(frames))
        key, past = frames[0], frames[1 : self.config.frames + 1]
        previous: Previous | None = None
        aligned: list[Tensor | None] = []
        with torch.no_grad():
            for frame in frames[len(past) + 1 :]:  # the one that serves the matching alone
                assert matching_features is not None
                if frame.is_present.any():
                    previous = Previous(matching_features(frame), frame.rig, frame.is_present)
            for frame in reversed(past):
                if not frame.is_present.any():
                    previous = None
                    aligned.append(None)
                    continue
                like = _with_cameras_of(key, frame) if align == "warp_reference" else frame
                encoded = encode(frame, like.rig.cam2key(like.ego2global), previous)
                previous = self._previous(frame, encoded)
                memory = encoded["lifted"] if align == "lift" else lift_to_bev(encoded["lifted"], like)[0]
                aligned += self._aligned(align, key, [Past(memory, frame)], lift_to_bev)
        if past and torch.is_grad_enabled():
            torch.clear_autocast_cache()  # torch may keep casts made without gradient; the keyframe's weights would learn nothing
        _, own, outputs = _current(key, previous, encode, lift_to_bev)
        return self._join(own, aligned[::-1], [frame.is_present for frame in past]), outputs

    @torch.no_grad()
    def step(
        self, batch: Batch, state: TemporalState | None, encode: Encode, lift_to_bev: LiftToBev, *, training: bool
    ) -> tuple[Tensor, dict[str, Tensor], TemporalState]:
        """Joined maps and outputs of the newest frame, and the state for the next call; only frame 0 of the batch is read.

        Args:
            batch: B streams, one new frame each.
            state: of the previous call, or None at the start of a scene. `TemporalState.forget` ends the history of single streams.
            encode, lift_to_bev: see `__call__`.
            training: whether the network is in training mode, which is refused.

        Raises:
            DataError: training mode, a `state` of another type, missing ego poses, or the frame does not follow the state: another scene,
                not later, another number of streams, or other cameras.
        """
        if training:
            raise DataError("step() runs a trained network over a stream; call model.eval() first. Train with forward().")
        if state is not None and not isinstance(state, TemporalState):
            given = f"the state must be None or what the previous call returned, got {type(state).__name__}"
            raise DataError(f"{given}: outputs, state = step(batch, state).")
        frame, count = frames_of(batch)[0], self.config.frames
        if count:
            check_poses(batch)
        if state is not None:
            check_next(state, frame, batch.scenes, self.config.align)
        past = () if state is None else state.past
        aligned = self._aligned(self.config.align, frame, past, lift_to_bev)
        missing = count - len(past)
        present = [p.frame.is_present for p in past] + [torch.zeros_like(frame.is_present)] * missing
        previous = state.previous if state and state.previous and state.previous.is_present.any() else None
        encoded, own, outputs = _current(frame, previous, encode, lift_to_bev)
        joined = self._join(own, [*aligned, *[None] * missing], present)
        last = frame._replace(images=frame.images.new_empty(0))
        newest = Past(encoded["lifted"] if self.config.align == "lift" else own, last)
        kept = (newest, *past)[:count]
        return joined, outputs, TemporalState(kept, self._previous(frame, encoded), last, batch.scenes, self.config.align)

    def _previous(self, frame: Frame, encoded: dict[str, Tensor]) -> Previous | None:
        """What the next frame may compare itself with."""
        return Previous(encoded["compared"], frame.rig, frame.is_present) if self.compares_images else None

    def _aligned(self, align: Align, key: Frame, past: Iterable[Past], lift_to_bev: LiftToBev) -> list[Tensor]:
        """Maps (B, C, Y, X) of past frames in the keyframe's ego frame."""
        if align == "lift":
            return [lift_to_bev(p.memory, p.frame._replace(ego2global=key.ego2global, bev_aug=key.bev_aug))[0] for p in past]
        motion = key_to_past if align == "warp" else key_to_past_by_camera
        return [warp_map(p.memory, motion(key, p.frame), self.map_grid, centres=align == "warp") for p in past]

    def _join(self, own: Tensor, slots: Sequence[Tensor | None], present: Sequence[Tensor]) -> Tensor:
        """The keyframe's map and the aligned ones of the past, newest first, along the channels; its own stands in for missing ones."""
        stand_in = own.detach()
        maps = [own]
        for slot, is_present in zip(slots, present, strict=True):
            if slot is None:
                maps.append(stand_in)
            elif is_present.all():
                maps.append(slot.to(own.dtype))
            else:
                maps.append(torch.where(send(is_present, own.device)[:, None, None, None], slot.to(own.dtype), stand_in))
        return torch.cat(maps if self.newest_first else maps[::-1], 1)


class Stepping(Protocol):
    """A network over time: `forward` for all frames at once, `step` for one."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample."""

    def step(self, batch: Batch, state: TemporalState | None = None) -> tuple[dict[str, Tensor], TemporalState]:
        """Outputs for the newest frame, and the state for the next call."""


def stream(model: Stepping, batches: Iterable[Batch]) -> Iterator[dict[str, Tensor]]:
    """Outputs of `model.step` over batches in time order; a stream whose scene changes starts afresh. Raises DataError as `step`."""
    state: TemporalState | None = None
    for batch in batches:
        if state is not None:
            if len(batch) != len(state.last.is_present):
                state = None
            elif batch.scenes and state.scenes and batch.scenes != state.scenes:
                state = state.forget([a != b for a, b in zip(batch.scenes, state.scenes, strict=True)])
        outputs, state = model.step(batch, state)
        yield outputs


def _current(
    frame: Frame, previous: Previous | None, encode: Encode, lift_to_bev: LiftToBev
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Of the newest frame: what `encode` returned, its map (B, C, Y, X), and its outputs."""
    encoded = encode(frame, frame.rig.cam2key(frame.ego2global), previous)
    own, placed = lift_to_bev(encoded["lifted"], frame)
    return encoded, own, {name: value for name, value in encoded.items() if name not in ("lifted", "compared")} | placed


def _with_cameras_of(key: Frame, frame: Frame) -> Frame:
    """`frame` as if the cameras of `key` had taken its images where they are now."""
    rig = replace(frame.rig, cam2ego=key.rig.cam2ego, ego2global=key.rig.ego2global)
    return frame._replace(rig=rig, ego2global=key.ego2global)
