"""The past that a network reads of a rig: past keyframes, or one moment between keyframes (camera sweeps), as PETRv2 does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frustum.data.sample import Sample
from frustum.data.source import RigSource
from frustum.errors import DataError
from frustum.types.contract import Reads, Sweeps


def read_with_past(source: RigSource, token: str, reads: Reads, training: bool = False) -> Sample:
    """One keyframe and its past, without boxes and voxel labels; in training with all moments that `draw_sweep` draws from.

    Raises:
        DataError: a network that reads camera sweeps, and there are none.
    """
    if reads.sweeps is None:
        return source.sample(token, with_boxes=False, occupancy=False, history=reads.past)
    count = max(reads.sweeps.stop, reads.sweeps.evaluation + 1)
    sample = source.sample(token, with_boxes=False, occupancy=False, camera_sweeps=count)
    if sample.camera_sweeps is None:
        raise _no_sweeps(f"{source.root} holds images of keyframes alone", reads.sweeps)
    return sample if training else draw_sweep(sample, reads.sweeps, None)


def draw_sweep(sample: Sample, sweeps: Sweeps, rng: np.random.Generator | None) -> Sample:
    """The sample with one of its moments as its past, in place of all: a random one, without `rng` that of evaluation.

    Where a scene has fewer, the oldest; at its start there is no past.

    Raises:
        DataError: an image of that moment is not on disk.
    """
    moments = sample.camera_sweeps or ()
    index, stop = sweeps.evaluation, min(sweeps.stop, len(moments))
    if rng is not None:
        index = int(rng.integers(sweeps.first, max(stop, sweeps.first + 1)))
    past = moments[: index + 1][-1:]
    if gone := [frame.path for moment in past for frame in moment if not frame.path.is_file()]:
        raise _no_sweeps(f"the image {gone[0]} is not there", sweeps)
    return replace(sample, history=past, history_ego2global=tuple(moment[0].ego2global for moment in past), camera_sweeps=None)


def _no_sweeps(what: str, sweeps: Sweeps) -> DataError:
    return DataError(
        f"this network reads an image between keyframes (a camera sweep) of each camera, but {what}. Use data with sweeps (nuScenes: all "
        "of its sensor archives; a street world: `frustum data world ROOT sweeps=5`), or read the keyframe before instead: "
        f"{sweeps.without}"
    )
