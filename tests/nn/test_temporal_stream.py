"""Keyframes in order are run as a stream, and nothing but the time it takes differs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from frustum.models.flashocc_stereo import FlashOccStereoConfig
from frustum.types.batch import Batch
from tests.models.moving import SIZES, Drive, lively, over_time

ONE = slice(0, 1)


class Counted:
    """A network over time that counts how often it encodes images."""

    def __init__(self, align: str, stereo: bool = False):
        if stereo:
            sizes = {**SIZES, "depth_bins": {"step": 4.0, "spacing": "sid"}, "history": {"frames": 1, "align": align}}
            self.model = lively(FlashOccStereoConfig(**sizes).build())
        else:
            self.model = over_time(3, align)
        self.encoded, encode = 0, self.model.encode

        def counted(*args):
            self.encoded += 1
            return encode(*args)

        self.model.encode = counted
        self.streamed = self.model.streamed()

    @torch.no_grad()
    def compare(self, batch: Batch) -> int:
        """Frames that the streamed form encodes; its outputs are those of the full form."""
        earlier = self.encoded
        outputs = self.streamed(batch)
        encoded = self.encoded - earlier
        full = self.model(batch)
        assert full.keys() == outputs.keys()
        for name, value in full.items():
            torch.testing.assert_close(outputs[name], value, rtol=1e-4, atol=1e-4)
        return encoded


@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("align", ["lift", "warp"])
def test_each_frame_of_a_scene_is_encoded_once(align, stereo):
    net, drive = Counted(align, stereo), Drive(spread=0.04)
    assert [net.compare(drive.batch(now, net.model.config.reads().past, ONE)) for now in range(5)] == [1] * 5


def test_the_reference_warp_is_never_streamed():
    net, drive = Counted("warp_reference"), Drive()
    assert [net.compare(drive.batch(now, 3, ONE)) for now in range(4)] == [1, 2, 3, 4]


def test_every_second_keyframe_and_a_start_within_a_scene_take_the_full_form():
    net, drive = Counted("warp"), Drive(frames=6)
    assert [net.compare(drive.batch(now, 3, ONE)) for now in (0, 2, 4, 5)] == [1, 3, 4, 4]
    assert net.compare(drive.batch(2, 3, ONE)) == 3


def test_several_samples_take_the_full_form():
    net, drive = Counted("warp"), Drive()
    assert [net.compare(drive.batch(now, 3)) for now in range(3)] == [1, 2, 3]


def test_a_new_scene_starts_a_new_stream():
    net, drive = Counted("warp"), Drive()
    other = slice(1, 2)
    counts = [net.compare(drive.batch(now, 3, which)) for which in (ONE, other) for now in range(3)]
    assert counts == [1] * 6
    net.compare(drive.batch(0, 3, ONE))
    assert net.compare(drive.batch(1, 3, other)) == 2  # the state is of another scene


def test_a_gap_in_the_past_takes_the_full_form():
    net, drive = Counted("warp"), Drive()
    for now in range(3):
        net.compare(drive.batch(now, 3, ONE))
    gap = replace(drive.batch(3, 3, ONE), is_present=torch.tensor([[True, True, False, True]]))
    assert net.compare(gap) == 3
    assert net.compare(drive.batch(4, 3, ONE)) == 4


@pytest.mark.parametrize("what", ["image", "pose", "time"])
def test_a_past_that_is_not_the_remembered_one_takes_the_full_form(what):
    net, drive = Counted("warp"), Drive()
    for now in range(3):
        net.compare(drive.batch(now, 3, ONE))
    batch = drive.batch(3, 3, ONE)
    if what == "image":
        batch.images[0, 1, 0, 0, 0, 0] += 1
    elif what == "pose":
        batch.rig.ego2global[0, 2, :, 0, 3] += 0.5
    else:
        times = batch.rig.timestamps.clone()
        times[0, 3] -= 0.1
        batch = replace(batch, calibration=replace(batch.rig, timestamps=times))
    assert net.compare(batch) == 4
