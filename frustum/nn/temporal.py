"""Time: one way for every network to use past frames, all at once in `forward` or one frame per call in `step`.

Every frame is seen by the image network alone and becomes a map; the maps of the past are brought into the keyframe's ego frame and joined
with its own along the channels. Three ways to align:
    lift            past features are lifted with their own cameras straight into the keyframe's grid: exact, but `step` lifts them again
    warp            past maps, made in their own ego frame, are looked up where the cells of the keyframe were then: one lift per frame
    warp_reference  as the code of BEVDet and FlashOCC warps: cells at their corners, motion of the first camera, and in `forward` past
                    features lifted as if the cameras of the keyframe had taken them
Published networks were trained with lift and, by their test script, evaluated with warp_reference.

A frame that is missing (start of a scene, fewer frames than the network asks for) is replaced by the keyframe's own map, which is what
repeating the keyframe's images gives. `step` after `step` equals `forward` over the same frames.
Shape letters: B batch, T time, N cameras, M = B * N images, H W image, h w feature map, D depth bins, C channels, X Y cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from frustum.errors import DataError
from frustum.geometry import CameraRig, VoxelGrid
from frustum.nn.bev_warp import key_to_past, key_to_past_by_camera, warp_map
from frustum.nn.temporal_checks import Frames, check_frames, check_next, check_poses

Align = Literal["lift", "warp", "warp_reference"]


class Frame(NamedTuple):
    """One moment of a batch: images (B, N, 3, H, W), rig (B,), ego pose of its map (B, 4, 4), bev_aug (B, 4, 4), is_present (B,) bool."""

    images: Tensor
    rig: CameraRig
    ego2global: Tensor
    bev_aug: Tensor
    is_present: Tensor


class Before(NamedTuple):
    """What a network that compares images needs of the frame before: features (M, c, h, w), its rig (B,), is_present (B,) bool."""

    features: Tensor
    rig: CameraRig
    is_present: Tensor


class Past(NamedTuple):
    """A past frame as a stream remembers it: its map (B, C, Y, X), or for `lift` what is lifted (M, D + C, h, w); rig, pose, is_present."""

    memory: Tensor
    rig: CameraRig
    ego2global: Tensor
    is_present: Tensor


@dataclass(frozen=True)
class TemporalState:
    """What `step` keeps: the past frames newest first, features of the newest one, and what the next frame must agree with.

    Attributes:
        past: at most as many as the network's history.
        before: see `Before`, or None for networks that compare no images.
        last: the newest frame without its images; its is_present is False where the scene was left.
        scenes: of the newest frame; empty where unknown.
        align: how the network aligned when these were made.
    """

    past: tuple[Past, ...]
    before: Before | None
    last: Frame
    scenes: list[str]
    align: Align

    def forget(self, which: Tensor | list[bool]) -> TemporalState:
        """The state with the history of some streams of the batch dropped; `which` (B,) is True there. For streams that change scene.

        Raises:
            DataError: `which` has not one entry per stream.
        """
        kept, count = ~torch.as_tensor(which, dtype=torch.bool).cpu(), len(self.last.is_present)
        if kept.shape != (count,):
            what = f"forget needs one entry for each of the {count} streams, got shape {tuple(kept.shape)}"
            raise DataError(f"{what}. All of them: state.forget([True] * {count}).")
        before = self.before and self.before._replace(is_present=self.before.is_present & kept)
        past = tuple(p._replace(is_present=p.is_present & kept) for p in self.past)
        return replace(self, past=past, before=before, last=self.last._replace(is_present=self.last.is_present & kept))

    def __repr__(self) -> str:
        """One line; the tensors themselves would fill screens."""
        counts = f"{len(self.last.is_present)} streams, {len(self.past)} past frames, align={self.align!r}"
        return f"TemporalState({counts}, scenes={self.scenes}, {self.num_bytes / 2**20:.1f} MiB)"

    @property
    def num_bytes(self) -> int:
        """Memory that the features take."""
        tensors = [p.memory for p in self.past] + ([self.before.features] if self.before else [])
        return sum(t.nbytes for t in tensors)


class TemporalModel(nn.Module):
    """A network that sees frames one by one. A subclass says how, by `see`, `place` and `read`; this class knows about time.

    Attributes:
        map_grid: cells of the maps.
        history: F, past frames that are joined with the keyframe; 0 makes a plain network for single frames.
        align: for evaluation and for `step`.
        train_align: for `forward` in training mode.
        newest_first: order in which maps are joined; else the keyframe is last.
        compares_images: `see` needs features of the frame before (`glance`), so that one frame more is read.
    """

    map_grid: VoxelGrid
    history: int = 0
    align: Align = "warp"
    train_align: Align = "lift"
    newest_first: bool = True
    compares_images: bool = False

    # ---- what a subclass defines --------------------------------------------------------------------------------------------

    def see(self, frame: Frame, told: Tensor, before: Before | None) -> dict[str, Tensor]:
        """One frame through the image network.

        Args:
            frame: the images and their cameras.
            told: (B, N, 4, 4) camera poses in the ego frame, for networks that are told their calibration.
            before: features of the frame before, None if it is missing in the whole batch or the network compares no images.

        Returns:
            `lifted` (M, D + C, h, w), depth logits and context; `compared` (M, c, h, w), own features that the next frame compares itself
            with, if it does; anything else is an output of the keyframe.
        """
        raise TypeError(f"{type(self).__name__} must define see()")

    def glance(self, frame: Frame) -> Tensor:
        """`compared` of a frame of which nothing else is needed."""
        raise TypeError(f"{type(self).__name__} must define glance()")

    def place(self, lifted: Tensor, rig: CameraRig, ego2global: Tensor, bev_aug: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What was seen, as a map (B, C, Y, X) in the augmented ego frame of `ego2global`; and outputs of the keyframe."""
        raise TypeError(f"{type(self).__name__} must define place()")

    def read(self, maps: Tensor) -> dict[str, Tensor]:
        """Outputs from the joined maps (B, (1 + F) * C, Y, X)."""
        raise TypeError(f"{type(self).__name__} must define read()")

    # ---- all frames at once -------------------------------------------------------------------------------------------------

    def forward(self, batch: Frames) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample, from all frames of the batch; see the class.

        Frames beyond the network's history are ignored, missing ones replaced (see the module). No gradient flows into the past.

        Raises:
            DataError: frames without ego poses, not newest first, or of cameras that differ between frames.
        """
        align = self.train_align if self.training else self.align
        frames = frames_of(batch, self.history + self.compares_images if self.history else 0)
        check_frames(batch, len(frames))
        key, past = frames[0], frames[1 : self.history + 1]
        before: Before | None = None
        aligned: list[Tensor | None] = []
        with torch.no_grad():
            if len(frames) > len(past) + 1:
                before = self._before(frames[-1], None)
            for frame in reversed(past):
                if not frame.is_present.any():
                    before = None
                    aligned.append(None)
                    continue
                like = _taken_by(key, frame) if align == "warp_reference" else frame
                seen = self._see(frame, before, like)
                before = self._before(frame, seen)
                memory = self._memory(align, seen, like)
                aligned += self._aligned(align, key, [Past(memory, frame.rig, frame.ego2global, frame.is_present)])
        if past and torch.is_grad_enabled():
            torch.clear_autocast_cache()  # torch may keep casts made without gradient; the keyframe's weights would learn nothing
        return self._finish(key, before, aligned[::-1], [frame.is_present for frame in past])[0]

    # ---- one frame per call -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, batch: Frames, state: TemporalState | None = None) -> tuple[dict[str, Tensor], TemporalState]:
        """Outputs for the newest frame, and the state for the next call; only frame 0 of the batch is read.

            state = None
            for batch in frames_of_one_scene:
                outputs, state = model.step(batch, state)

        Args:
            batch: B streams, one new frame each.
            state: of the call before, or None at the start of a scene. `TemporalState.forget` ends the history of single streams.

        Raises:
            DataError: the model is in training mode, `state` is no state, no ego poses, or the frame does not follow the state: another
                scene, not later, another number of streams, or other cameras.
        """
        if self.training:
            raise DataError("step() runs a trained network over a stream; call model.eval() first. Train with forward().")
        if state is not None and not isinstance(state, TemporalState):
            raise DataError(
                f"the state must be None or what the call before returned, got {type(state).__name__}: outputs, state = step(batch, state)."
            )
        frame = frames_of(batch, 0)[0]
        if self.history:
            check_poses(batch)
        if state is not None:
            check_next(state, frame, batch.scenes, self.align)
        past = () if state is None else state.past
        aligned = self._aligned(self.align, frame, past)
        none = torch.zeros_like(frame.is_present)
        slots = [*aligned, *[None] * (self.history - len(aligned))]
        present = [p.is_present for p in past] + [none] * (self.history - len(past))
        outputs, seen, own = self._finish(frame, None if state is None else state.before, slots, present)
        memory = seen["lifted"] if self.align == "lift" else own
        newest = Past(memory, frame.rig, frame.ego2global, torch.ones_like(none))
        return outputs, TemporalState(
            past=(newest, *past)[: self.history],
            before=self._before(frame, seen),
            last=frame._replace(images=frame.images.new_empty(0)),
            scenes=batch.scenes,
            align=self.align,
        )

    # ---- parts --------------------------------------------------------------------------------------------------------------

    def _see(self, frame: Frame, before: Before | None, like: Frame | None = None) -> dict[str, Tensor]:
        like = like or frame
        told = like.rig.cam2key(like.ego2global)
        return self.see(frame, told, before if before is not None and before.is_present.any() else None)

    def _before(self, frame: Frame, seen: dict[str, Tensor] | None) -> Before | None:
        """What the next frame may compare itself with."""
        if not self.compares_images or not frame.is_present.any():
            return None
        return Before(self.glance(frame) if seen is None else seen["compared"], frame.rig, frame.is_present)

    def _memory(self, align: Align, seen: dict[str, Tensor], frame: Frame) -> Tensor:
        return seen["lifted"] if align == "lift" else self.place(seen["lifted"], frame.rig, frame.ego2global, frame.bev_aug)[0]

    def _aligned(self, align: Align, key: Frame, past: Iterable[Past]) -> list[Tensor]:
        """Maps (B, C, Y, X) of past frames in the keyframe's ego frame."""
        if align == "lift":
            return [self.place(p.memory, p.rig, key.ego2global, key.bev_aug)[0] for p in past]
        moved = []
        for p in past:
            if align == "warp":
                motion = key_to_past(key.ego2global, p.ego2global, key.bev_aug)
            else:
                motion = key_to_past_by_camera(key.rig, p.rig, key.ego2global, key.bev_aug)
            moved.append(warp_map(p.memory, motion, self.map_grid, centres=align == "warp"))
        return moved

    def _finish(
        self, key: Frame, before: Before | None, slots: Sequence[Tensor | None], present: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Outputs, what was seen of the keyframe, and its map, given the aligned maps of the past, newest first."""
        seen = self._see(key, before)
        own, placed = self.place(seen["lifted"], key.rig, key.ego2global, key.bev_aug)
        stand_in = own.detach()
        maps = [own]
        for slot, is_present in zip(slots, present, strict=True):
            if slot is None:
                maps.append(stand_in)
            elif is_present.all():
                maps.append(slot.to(own.dtype))
            else:
                maps.append(torch.where(is_present.to(own.device)[:, None, None, None], slot.to(own.dtype), stand_in))
        joined = torch.cat(maps if self.newest_first else maps[::-1], 1)
        shown = {name: value for name, value in seen.items() if name not in ("lifted", "compared")}
        return shown | placed | self.read(joined), seen, own


def stream(model: TemporalModel, batches: Iterable[Frames]) -> Iterator[dict[str, Tensor]]:
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


def frames_of(batch: Frames, count: int) -> list[Frame]:
    """The keyframe and `count` past frames, newest first; those that the batch has not are the keyframe, marked as missing."""
    size, have = len(batch), batch.images.shape[1]
    frames = []
    for t in range(count + 1):
        index = t if t < have else 0
        if t == 0:
            pose, is_present = batch.key_ego2global, torch.ones(size, dtype=torch.bool)
        else:
            poses = batch.rig.ego2global[:, :, 0] if batch.frame_ego2global is None else batch.frame_ego2global
            pose = poses[:, index]
            is_present = torch.full((size,), t < have) if batch.is_present is None or t >= have else batch.is_present[:, t].cpu()
        frames.append(Frame(batch.images[:, index], batch.rig[:, index], pose, batch.bev_aug, is_present))
    return frames


def _taken_by(key: Frame, frame: Frame) -> Frame:
    """`frame` as if the cameras of `key` had taken its images where they are now."""
    rig = replace(frame.rig, cam2ego=key.rig.cam2ego, ego2global=key.rig.ego2global)
    return frame._replace(rig=rig, ego2global=key.ego2global)
