"""Time: streaming equals the full recomputation in every alignment, missing frames, scene ends, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.errors import DataError
from frustum.models.flashocc_stereo import FlashOccStereoConfig
from frustum.nn.temporal import HistoryConfig, stream, upgraded_history
from frustum.types.batch import Batch
from frustum.types.frame import keyframe_of
from tests.models.moving import SIZES, Drive, farthest, lively, over_time

ALIGNMENTS = ("lift", "warp", "warp_reference")


def _stereo(frames: int = 1, align: str = "warp") -> torch.nn.Module:
    sizes = {**SIZES, "depth_bins": {"step": 4.0, "spacing": "sid"}}
    return lively(FlashOccStereoConfig(**sizes, history={"frames": frames, "align": align}).build())


def _run(model, drive: Drive, frames: range) -> list[dict[str, torch.Tensor]]:
    """Outputs of the stream."""
    outputs, state = [], None
    for now in frames:
        found, state = model.step(drive.batch(now), state)
        outputs.append(found)
    return outputs


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("build", [over_time, _stereo])
def test_streaming_equals_the_full_recomputation(build, align):
    model, drive = build(align=align), Drive()
    reads = model.config.reads().past
    streamed = _run(model, drive, range(5))
    with torch.no_grad():
        for now, outputs in enumerate(streamed):
            full = model(drive.batch(now, reads))
            assert full.keys() == outputs.keys()
            for name, value in full.items():
                torch.testing.assert_close(outputs[name], value, rtol=1e-4, atol=1e-4)
        alone = model(drive.batch(4))
    assert farthest(alone, streamed[4]) > 0.05  # the past shows in the result


@pytest.mark.parametrize("align", ["lift", "warp"])
@pytest.mark.parametrize("build", [over_time, _stereo])
def test_streaming_equals_with_cameras_that_fire_one_after_the_other(build, align):
    """Each camera has its own ego pose; the reference warp is exact for cameras that fire together only."""
    model, drive = build(align=align), Drive(spread=0.04)
    streamed = _run(model, drive, range(4))
    with torch.no_grad():
        assert farthest(model(drive.batch(3, model.config.reads().past)), streamed[3]) < 1e-4


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("build", [over_time, _stereo])
def test_streaming_equals_with_poses_that_are_not_exactly_rigid(build, align):
    """Poses rounded to four digits, as people write them down: rigid to 1e-4."""
    model, drive = build(align=align), Drive()
    drive.poses[..., :3, :3] = drive.poses[..., :3, :3].round(4)
    streamed = _run(model, drive, range(4))
    with torch.no_grad():
        assert farthest(model(drive.batch(3, model.config.reads().past)), streamed[3]) < 1e-4


def test_the_reference_warp_differs_for_cameras_that_fire_one_after_the_other():
    """In full it pretends that the keyframe's cameras took the past images; a stream cannot know them. Small, but not float error."""
    model, drive = over_time(align="warp_reference"), Drive(spread=0.04)
    streamed = _run(model, drive, range(4))
    with torch.no_grad():
        assert farthest(model(drive.batch(3, 2)), streamed[3]) > 1e-4


def test_alignments_differ_and_agree_when_nothing_moves():
    moving, still = Drive(), Drive()
    still.poses[:] = still.poses[:1]
    outputs = {align: over_time(align=align)(moving.batch(4, 2)) for align in ALIGNMENTS}
    assert min(farthest(outputs[a], outputs[b]) for a, b in [("lift", "warp"), ("warp", "warp_reference")]) > 0.01
    parked = {align: over_time(align=align)(still.batch(4, 2)) for align in ALIGNMENTS}
    assert max(farthest(parked["lift"], parked[a]) for a in ALIGNMENTS) < 1e-3


def test_lift_puts_past_features_where_the_cameras_stood():
    """A past frame is the same as cameras mounted elsewhere on the vehicle now."""
    model, drive = over_time(frames=1, align="lift"), Drive(frames=2)
    batch = drive.batch(1, 1)
    key, past = batch.rig[:, 0], batch.rig[:, 1]
    lifted = torch.randn(4, model.config.depth_bins.count + 8, 2, 4)
    moved, _ = model.lift_to_bev(lifted, keyframe_of(batch)._replace(rig=past))
    elsewhere = replace(past, cam2ego=past.cam2key(batch.key_ego2global), ego2global=key.ego2global)
    torch.testing.assert_close(moved, model.lift_to_bev(lifted, keyframe_of(batch)._replace(rig=elsewhere))[0])


def test_training_lifts_and_keeps_the_past_out_of_the_gradient():
    model = over_time(align="warp").train()
    batch = Drive().batch(4, 2)
    batch.images.requires_grad_()
    model.img_view_transformer.depth_net.depth_conv[3].dropout.p = 0.0
    trained = model(batch)
    trained["occ_logits"].square().mean().backward()
    reach = batch.images.grad.abs().amax((0, 2, 3, 4, 5))
    assert reach[0] > 0
    assert not reach[1:].any()
    for same in (HistoryConfig(frames=2, train_align="warp"), HistoryConfig(frames=2, train_align=None)):
        model.history.config = same
        assert farthest(model(batch), trained) > 1e-3


def test_a_missing_frame_is_the_keyframe_again():
    """What repeating the keyframe's images and poses gives, as the data pipeline does at the start of a scene."""
    model, drive = over_time(frames=2), Drive()
    short = drive.batch(1, 2)
    assert short.images.shape[1] == 2

    def longer(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x[:, :1]], 1)

    rig = replace(
        short.rig, **{n: longer(getattr(short.rig, n)) for n in ("intrinsics", "cam2ego", "ego2global", "image_aug", "timestamps")}
    )
    repeated = replace(short, images=longer(short.images), calibration=rig)
    marked = replace(repeated, is_present=torch.tensor([[True, True, False]] * 2))
    with torch.no_grad():
        wanted = model(repeated)
        assert farthest(model(short), wanted) < 1e-4
        assert farthest(model(marked), wanted) < 1e-4


def test_frames_that_are_missing_in_some_samples_only():
    model, drive = _stereo(), Drive()
    both = drive.batch(4, 2)
    mixed = replace(both, is_present=torch.tensor([[True, True, True], [True, False, False]]))
    with torch.no_grad():
        outputs = model(mixed)
        first, second = model(drive.batch(4, 2, slice(0, 1))), model(drive.batch(4, 0, slice(1, 2)))
    torch.testing.assert_close(outputs["occ_logits"], torch.cat([first["occ_logits"], second["occ_logits"]]), rtol=1e-4, atol=1e-4)


def test_the_state_stays_small_and_says_how_large_it_is():
    drive = Drive(frames=5)
    for align, each in (("lift", 4 * (22 + 8) * 2 * 4 * 4), ("warp", 2 * 8 * 16 * 16 * 4)):
        model, state, sizes = over_time(frames=3, align=align, depth_bins={"step": 2.0}), None, []
        for now in range(5):
            _, state = model.step(drive.batch(now), state)
            sizes.append(state.num_bytes)
        assert sizes == [each, 2 * each, 3 * each, 3 * each, 3 * each]
    _, state = _stereo().step(drive.batch(0))
    assert state.num_bytes == 2 * 8 * 16 * 16 * 4 + 4 * 64 * 8 * 16 * 4  # one map, one stride-4 feature map
    assert not state.last.images.numel()


def test_a_network_without_history_streams_too():
    model, drive = over_time(frames=0), Drive(frames=2)
    outputs, state = model.step(drive.batch(0))
    assert state.num_bytes == 0
    with torch.no_grad():
        assert farthest(model(drive.batch(0)), outputs) == 0
    assert model.pre_process_net is None


def test_streams_that_change_scene_one_by_one():
    model, drive = _stereo(), Drive()
    batches = [drive.batch(now) for now in range(4)]
    batches[3] = replace(batches[3], scenes=["another", "scene-1"])
    *_, last = stream(model, batches)
    *_, fresh = stream(model, batches[3:])
    *_, whole = stream(model, [drive.batch(now) for now in range(4)])
    torch.testing.assert_close(last["occ_logits"][0], fresh["occ_logits"][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last["occ_logits"][1], whole["occ_logits"][1], rtol=1e-4, atol=1e-4)
    assert (last["occ_logits"][0] - whole["occ_logits"][0]).abs().max() > 0.05
    sizes = [len(out["occ_logits"]) for out in stream(model, [drive.batch(0), drive.batch(1, streams=slice(0, 1))])]
    assert sizes == [2, 1]


def test_a_stream_goes_on_where_the_scene_is_not_known():
    model, drive = over_time(), Drive()
    batches = [drive.batch(now) for now in range(3)]
    *_, named = stream(model, batches)
    batches[1] = replace(batches[1], scenes=[])
    *_, last = stream(model, batches)
    assert farthest(last, named) == 0


def test_half_precision_trains_the_weights_that_the_past_has_used():
    """Casts to half precision are kept for reuse; those of the past, made without gradient, must not serve the keyframe."""
    model, batch = over_time(frames=1).train(), Drive().batch(3, 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch)["occ_logits"].float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in model.named_parameters() if name.endswith("weight"))


def test_casts_of_the_past_are_dropped_before_the_keyframe_is_encoded(monkeypatch):
    """Which versions of torch reuse them differs, so the order of events is looked at."""
    model, events = over_time(frames=1).train(), []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: events.append("dropped"))
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *given: events.append(torch.is_grad_enabled()) or encode(*given))
    with torch.autocast("cpu", torch.bfloat16):  # whose own end drops them, too
        model(Drive().batch(3, 1))
        assert events == [False, "dropped", True]


def _state(drive: Drive):
    return over_time().step(drive.batch(1))[1]


def test_a_history_of_another_scene_is_refused():
    drive = Drive()
    with pytest.raises(DataError, match=r"stream 1 is now in scene 'other', but its history is of 'scene-1'.*state=None"):
        over_time().step(replace(drive.batch(2), scenes=["scene-0", "other"]), _state(drive))
    unknown = replace(drive.batch(2), scenes=[])
    over_time().step(unknown, _state(drive))  # nothing is known about it


@pytest.mark.parametrize("times", [True, False])
def test_a_past_of_another_drive_is_noticed_by_its_place(times):
    drive, model = Drive(streams=1), over_time()
    known = {} if times else {"timestamps": None}
    state = model.step(drive.batch(2, scenes=None, **known))[1]
    model.step(drive.batch(3, scenes=None, **known), state)
    drive.poses[:3, :, :, 0, 3] += 900
    said = r"moves 89\d m in 0.50 s" if times else r"moves 89\d m"
    with pytest.raises(DataError, match=f"between past frames 0 and 1 the vehicle {said}.*not of one drive"), torch.no_grad():
        model(drive.batch(3, 2, scenes=None, **known))
    state = model.step(drive.batch(2, scenes=None, **known))[1]
    with pytest.raises(DataError, match=f"the vehicle {said}.*state=None"):
        model.step(drive.batch(3, scenes=None, **known), state)
    model.step(drive.batch(3, scenes=None, **known), state.forget([True]))


def test_frames_out_of_order_are_refused():
    drive, model = Drive(), over_time()
    for now in (0, 1):
        with pytest.raises(DataError, match=r"stream 0 was taken at .* not after the previous one \(0.500 s\)"):
            model.step(drive.batch(now), _state(drive))
    batch = drive.batch(4, 2)
    for order in ([0, 2, 1], [2, 1, 0], [1, 0, 2]):
        images, rig = batch.images[:, order], batch.rig[:, order]
        with pytest.raises(DataError, match=r"out of order: their times are .* newest first"):
            model(replace(batch, images=images, calibration=rig))


def test_times_of_frames_that_are_missing_do_not_matter():
    drive, model = Drive(), over_time()
    batch = replace(drive.batch(4, 2), is_present=torch.tensor([[True, False, True]] * 2))
    times = batch.rig.timestamps.clone()
    times[:, 1] = 0.0
    padded = replace(batch, calibration=replace(batch.rig, timestamps=times))
    with torch.no_grad():
        assert farthest(model(padded), model(batch)) == 0
    times = times.clone()
    times[:, 2] = 7.0  # there, and later than the keyframe
    with pytest.raises(DataError, match="out of order"):
        model(replace(padded, calibration=replace(batch.rig, timestamps=times)))


def test_missing_ego_poses_are_refused():
    drive, model = Drive(), over_time()
    with pytest.raises(DataError, match="ego2global"):
        model.step(drive.batch(0, ego2global=None))
    with pytest.raises(DataError, match="ego2global"):
        model(drive.batch(2, 2, ego2global=None))
    with torch.no_grad():
        model(drive.batch(2, ego2global=None))  # one frame needs none
        model(drive.batch(2, 2, ego2global=np.eye(4)[None].repeat(2, 0)))  # a rig that stands still, said so
    over_time(frames=0).step(drive.batch(0, ego2global=None))


@pytest.mark.parametrize(
    ("name", "what"), [("intrinsics", "intrinsics of camera 1"), ("cam2ego", "cam2ego of camera 1"), ("image_aug", "image_aug of camera 1")]
)
def test_a_rig_that_changes_is_refused(name, what):
    drive, model = Drive(), over_time()
    changed = {"intrinsics": 3.0, "cam2ego": 0.05, "image_aug": 2.0}[name]

    def bent(batch: Batch, time: int) -> Batch:
        matrices = getattr(batch.rig, name).clone()
        matrices[:, time, 1, 0, -1] += changed
        return replace(batch, calibration=replace(batch.rig, **{name: matrices}))

    with pytest.raises(DataError, match=f"rig changed.*{what}"):
        model.step(bent(drive.batch(2), 0), _state(drive))
    with pytest.raises(DataError, match=f"past frame 2 differs.*{what}"):
        model(bent(drive.batch(4, 2), 2))
    absent = replace(bent(drive.batch(4, 2), 2), is_present=torch.tensor([[True, True, False]] * 2))
    with torch.no_grad():
        model(absent)  # what is missing is not looked at


def test_other_changes_between_steps_are_refused():
    drive, model = Drive(), over_time()
    state = _state(drive)
    with pytest.raises(DataError, match="2 streams, but the batch has 1"):
        model.step(drive.batch(2, streams=slice(0, 1)), state)
    with pytest.raises(DataError, match="bev_aug"):
        model.step(drive.batch(2, bev_aug=np.diag([-1.0, 1, 1])), state)
    batch = drive.batch(2)
    narrow = replace(batch, images=batch.images[..., :32], calibration=replace(batch.rig, image_size=(32, 32)))
    with pytest.raises(DataError, match="image size"):
        model.step(narrow, state)
    with pytest.raises(DataError, match="number of cameras"):
        model.step(replace(batch, images=batch.images[:, :, :1], calibration=batch.rig.select([0])), state)
    with pytest.raises(DataError, match="align='warp'"):
        over_time(align="lift").step(drive.batch(2), state)
    with pytest.raises(DataError, match=r"model\.eval\(\)"):
        model.train().step(drive.batch(2), state)


def test_forgetting_lets_anything_follow():
    drive, model = Drive(), over_time()
    with pytest.raises(DataError, match=r"each of the 2 streams, got shape \(1,\)"):
        _state(drive).forget([True])
    with pytest.raises(DataError, match=r"got shape \(\)\. All of them: state\.forget\(\[True\] \* 2\)"):
        _state(drive).forget(True)
    state = _state(drive).forget([True, True])
    outputs, _ = model.step(replace(drive.batch(0), scenes=["new", "new"]), state)
    with torch.no_grad():
        assert farthest(model(drive.batch(0)), outputs) < 1e-4


def test_a_state_prints_as_a_line_and_nothing_else_passes_for_one():
    drive, model = Drive(), over_time()
    state = _state(drive)
    scenes = drive.batch(1).scenes
    line = f"TemporalState(2 streams, {len(state.past)} past frames, align='warp', scenes={scenes}, {state.num_bytes / 2**20:.1f} MiB)"
    assert repr(state) == str(state) == line
    for wrong in ({}, model.step(drive.batch(2), state)):
        with pytest.raises(DataError, match=f"what the previous call returned, got {type(wrong).__name__}"):
            model.step(drive.batch(3), wrong)


def test_settings_of_the_first_version():
    stored = {"bev_channels": 8, "history": 3, "align": "lift", "train_align": "warp"}
    section = {"frames": 3, "align": "lift", "train_align": "warp"}
    assert upgraded_history(stored) == {"bev_channels": 8, "history": section}
    assert HistoryConfig(**section).frames == 3
    for now in ({"history": section}, {"bev_channels": 8}):
        assert upgraded_history(now) == now
