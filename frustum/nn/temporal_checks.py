"""Refuses what cannot be aligned over time, and says why: a history of another scene, frames out of order, no ego poses, another rig."""

from __future__ import annotations

import torch
from torch import Tensor

from frustum.errors import DataError
from frustum.geometry import CameraRig
from frustum.nn.temporal_state import TemporalState
from frustum.types.batch import Batch
from frustum.types.frame import Frame

_FASTEST, _FARTHEST = 150.0, 500.0  # metres per second where times are known, else metres between two frames
_TOLERANCE = {"intrinsics": 0.5, "cam2ego": 5e-3, "image_aug": 1e-4}  # pixels; metres and radians; of an affine matrix


def check_poses(batch: Batch) -> None:
    """Raise DataError if the batch was made without ego poses."""
    if not batch.has_poses:
        raise DataError(
            "this network joins frames over time and needs the ego pose of each. In calibration.json of a rig folder, give each entry of "
            '"frames" its "ego2global", or write "stands_still": true if the rig does not move; then import it again. In Python, give '
            "Batch.from_arrays(..., ego2global=...), identities (numpy.eye(4)) for a rig that stands still."
        )


def check_frames(batch: Batch, count: int) -> None:
    """Raise DataError unless the first `count` frames of a batch are newest first, with poses, of one unchanging rig."""
    count = min(count, batch.images.shape[1])
    if count < 2:
        return
    check_poses(batch)
    is_present = torch.ones(len(batch), count, dtype=torch.bool) if batch.is_present is None else batch.is_present[:, :count].cpu()
    for t in range(1, count):
        if what := _difference(batch.rig[:, 0], batch.rig[:, t], is_present[:, t]):
            raise DataError(
                f"the rig of past frame {t} differs from the keyframe's in {what}. Frames that are joined must come from the same cameras "
                "with the same image augmentation; leave frames from before a change of the rig out (Batch.is_present)."
            )
        if jump := _jump(batch.rig[:, t - 1], batch.rig[:, t], is_present[:, t - 1] & is_present[:, t]):
            raise DataError(
                f"between past frames {t - 1} and {t} the vehicle moves {jump}: they are not of one drive, or their ego2global are in "
                "different frames. Leave frames of another scene out (Batch.is_present)."
            )
    times = batch.rig.timestamps
    if times is None:
        return
    seconds = times[..., 0].double()
    last = seconds[:, 0]  # of the frames newer than t, the oldest that is there
    for t in range(1, count):
        repeated = (seconds[:, t] == seconds[:, 0]) & (batch.rig.ego2global[:, t] == batch.rig.ego2global[:, 0]).all(-1).all(-1).all(-1)
        counts = is_present[:, t] & ~repeated
        wrong = counts & (seconds[:, t] >= last)
        last = torch.where(counts, seconds[:, t], last)
        if wrong.any():
            sample = int(wrong.nonzero()[0])
            order = ", ".join(f"{float(s):.3f}" for s in seconds[sample, :count])
            raise DataError(
                f"the frames of sample {sample} are out of order: their times are {order} s, but the keyframe must come first and the "
                "past after it, newest first. Sort the time axis of images and calibration."
            )


def check_next(state: TemporalState, frame: Frame, scenes: list[str], align: str) -> None:
    """Raise DataError unless `frame` can follow `state`."""
    last = state.last
    if len(frame.is_present) != len(last.is_present):
        raise DataError(
            f"the state belongs to {len(last.is_present)} streams, but the batch has {len(frame.is_present)}. "
            "Start with state=None when the number of streams changes."
        )
    if state.align != align:
        raise DataError(f"the state was made with align={state.align!r}, but the network now has {align!r}. Start with state=None.")
    alive = last.is_present
    if not alive.any():
        return
    if scenes and state.scenes:
        for stream, (now, then) in enumerate(zip(scenes, state.scenes, strict=True)):
            if now != then and alive[stream]:
                raise DataError(
                    f"stream {stream} is now in scene {now!r}, but its history is of {then!r}. Start with state=None at a new scene, or "
                    "drop the history of single streams: state.forget([True, ...]). frustum.nn.temporal.stream does this by itself."
                )
    if frame.rig.timestamps is not None and last.rig.timestamps is not None:
        times, earlier = frame.rig.timestamps[..., 0].double(), last.rig.timestamps[..., 0].double()
        wrong = alive & (times <= earlier)
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise DataError(
                f"the frame of stream {i} was taken at {float(times[i]):.3f} s, not after the previous one ({float(earlier[i]):.3f} s). "
                "Give frames in the order of time; leave a late one out."
            )
    if jump := _jump(frame.rig, last.rig, alive):
        raise DataError(
            f"since the last frame of the stream the vehicle moves {jump}: this is another drive, or ego2global is in another frame. "
            "Start with state=None at a new scene."
        )
    what = _difference(last.rig, frame.rig, alive)
    if not what and (last.bev_aug - frame.bev_aug).abs()[alive].max() > 1e-6:
        what = "bev_aug, the augmentation of the map"
    if what:
        raise DataError(
            f"the rig changed within a stream: {what} differs from the previous frame. Start with state=None after such a change."
        )


def _jump(one: CameraRig, other: CameraRig, where: Tensor) -> str:
    """What no vehicle moves between two frames (B,), in words; empty if all is plausible. A gap in time allows for more."""
    if not where.any():
        return ""
    metres = (one.ego2global[:, 0, :3, 3] - other.ego2global[:, 0, :3, 3]).double().norm(dim=-1)
    if one.timestamps is None or other.timestamps is None:
        wrong = where & (metres > _FARTHEST)
        return f"{float(metres[wrong][0]):.0f} m" if wrong.any() else ""
    seconds = (one.timestamps[..., 0] - other.timestamps[..., 0]).double().abs()
    wrong = where & (metres > 5 + _FASTEST * seconds)
    return f"{float(metres[wrong][0]):.0f} m in {float(seconds[wrong][0]):.2f} s" if wrong.any() else ""


def _difference(one: CameraRig, other: CameraRig, where: Tensor) -> str:
    """What differs between two rigs (B,) in the samples where `where` (B,) holds, in words; empty if nothing does."""
    if not where.any():
        return ""
    if one.num_cameras != other.num_cameras:
        return f"the number of cameras ({one.num_cameras} and {other.num_cameras})"
    if one.image_size != other.image_size:
        return f"the image size ({one.image_size} and {other.image_size})"
    for name, tolerance in _TOLERANCE.items():
        apart = (getattr(one, name) - getattr(other, name)).abs()[where].double()
        if name == "image_aug":
            apart = apart / torch.tensor([1.0, 1.0, 1e3], dtype=torch.float64, device=apart.device)  # shifts are in pixels
        if apart.max() > tolerance:
            return f"{name} of camera {int(apart.amax((0, 2, 3)).argmax())}"
    return ""
