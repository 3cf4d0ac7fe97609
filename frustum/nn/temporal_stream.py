"""Keyframes that come in order, each with its past, are run as a stream: each image is encoded once."""

from __future__ import annotations

import torch
from torch import Tensor

from frustum.nn.temporal import History, Stepping
from frustum.nn.temporal_state import Past, TemporalState
from frustum.types.batch import Batch
from frustum.types.frame import Frame, frames_of


class StreamedForward:
    """Gives what `model(batch)` gives. A keyframe that directly follows the previous one costs one `step`, others the full form.

    Streams begin at the start of a scene. Batches of several samples and those whose past has gaps take the full form. So does
    `warp_reference`, whose full form may differ from a stream (see nn/temporal.py) and is the one to be compared with published figures.

    Args:
        model: in evaluation mode, with weights that stay the same.
        history: that of the model.
    """

    def __init__(self, model: Stepping, history: History):
        self.model, self.history = model, history
        self.can_stream = history.config.frames > 0 and history.config.align != "warp_reference"
        self.state: TemporalState | None = None
        self.images: Tensor | None = None  # of the newest frame in `state`

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs of the network for the batch's keyframe. Raises as the model's `forward`."""
        past = frames_of(batch, self.history.num_read)[1:]
        starts = not any(bool(frame.is_present.any()) for frame in past)
        if not self.can_stream or len(batch) != 1 or not (starts or self._follows(batch.scenes, past)):
            self.state = self.images = None
            return self.model(batch)
        outputs, self.state = self.model.step(batch, None if starts else self.state)
        self.images = batch.images[:, 0]
        return outputs

    def _follows(self, scenes: list[str], past: list[Frame]) -> bool:
        """Whether `past` is what the state remembers."""
        if self.state is None or self.images is None or scenes != self.state.scenes:
            return False
        known = self.state.past
        joined = [bool(frame.is_present) for frame in past[: self.history.config.frames]]
        if joined != [True] * len(known) + [False] * (len(joined) - len(known)):
            return False
        return all(map(_is_same, past, known)) and torch.equal(past[0].images, self.images)


def _is_same(frame: Frame, past: Past) -> bool:
    """Whether `past` is what is remembered of `frame`: taken at the same place and time."""
    one, other = frame.rig, past.frame.rig
    same = torch.equal(frame.ego2global, past.frame.ego2global) and torch.equal(one.ego2global, other.ego2global)
    if one.timestamps is None or other.timestamps is None:
        return same and one.timestamps is other.timestamps
    return same and torch.equal(one.timestamps, other.timestamps)
