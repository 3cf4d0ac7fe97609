"""Camera sweeps: which moments lie before a keyframe, which of them a network gets, where they stand, and what is said without them."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.pipeline import RigPipeline
from frustum.data.source import AugmentConfig
from frustum.data.sweeps import draw_sweep
from frustum.errors import DataError
from frustum.geometry import invert, transform_points
from frustum.types.contract import Reads, Sweeps
from tests.data.toy import APART, CAM2EGO, INTRINSICS, SIZE, START, VERSION, ego2global, scene_record, toy_database

KEYFRAMES, BETWEEN = 6, 5  # 12 images a second
SWEEPS = Sweeps(3, 27, 14, without="model.past_frame=keyframe")
STRONG = AugmentConfig(resize=(-0.1, 0.3), rotate_deg=(-8, 8), bev_rotate_deg=(-30, 30), colour_jitter=0.0)


def add_numbers(root: Path) -> None:
    """Replace all images by one colour that says when and by which camera they were taken: red is 8 x their number in the scene."""
    for path in root.glob("s*/CAM_*/*.png"):
        scene, channel, stamp = path.stem.split("__")
        number = (int(stamp) - START - (int(scene[-4:]) - 1) * APART) * 12 // 1_000_000
        Image.new("RGB", (SIZE[1], SIZE[0]), (8 * number, 100 * list(CAM2EGO).index(channel), 128)).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of six keyframes, with five sweeps between two of them: the last keyframe has 30 moments before it."""
    folder = toy_database(tmp_path_factory.mktemp("sweeps"), num_keyframes=KEYFRAMES, num_sweeps=BETWEEN)
    add_numbers(folder)
    return folder


@pytest.fixture(scope="module")
def reader(root: Path) -> NuScenes:
    return NuScenes(root, VERSION)


def pipe(augment: AugmentConfig | None = None, sweeps: Sweeps = SWEEPS) -> RigPipeline:
    """A pipeline of the pixels as they are; with `augment` one for training."""
    data = NuScenesData(image_size=(45, 80), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return RigPipeline(data, Reads(past=1, sweeps=sweeps), (), augment or AugmentConfig(), augment is not None)


def numbers(item: dict[str, Any]) -> list[list[int]]:
    """By frame and camera the number of the moment that the image shows (its middle, which is never black)."""
    return (item["images"][:, :, 0, 22, 40] / 8).round().int().tolist()


# ---- what lies before a keyframe ------------------------------------------------------------------------------------------------


def test_moments_go_back_in_time_with_the_keyframes_among_them(reader: NuScenes) -> None:
    sample = reader.sample(reader.scenes[1].tokens[-1], camera_sweeps=40)
    assert sample.camera_sweeps is not None
    assert len(sample.camera_sweeps) == 30
    for k, moment in enumerate(sample.camera_sweeps):
        assert [frame.channel for frame in moment] == list(CAM2EGO)
        assert {frame.path.parts[-3] for frame in moment} == {"samples" if k % 6 == 5 else "sweeps"}
        for i, frame in enumerate(moment):
            time = 500_000 * (29 - k) // 6 + 8000 * (i + 1)
            assert sample.cameras[i].timestamp - frame.timestamp == pytest.approx((k + 1) / 12, abs=1e-5)
            np.testing.assert_allclose(frame.ego2global, ego2global(1, time), atol=1e-9)
            np.testing.assert_array_equal(frame.intrinsics, INTRINSICS)
    fewer = reader.sample(reader.scenes[1].tokens[-1], camera_sweeps=8).camera_sweeps
    assert fewer is not None
    assert [f.path for m in fewer for f in m] == [f.path for m in sample.camera_sweeps[:8] for f in m]


def test_moments_stay_within_the_scene_and_are_read_on_request(reader: NuScenes) -> None:
    first, second = reader.scenes[1].tokens[:2]
    assert reader.sample(first, camera_sweeps=9).camera_sweeps == ()
    assert len(reader.sample(second, camera_sweeps=9).camera_sweeps or ()) == 6
    assert reader.sample(second).camera_sweeps is None
    chosen = NuScenes(reader.root, VERSION, cameras=["CAM_BACK"]).sample(second, camera_sweeps=1).camera_sweeps
    assert [[frame.channel for frame in moment] for moment in chosen or ()] == [["CAM_BACK"]]


def test_cameras_are_paired_from_keyframe_to_keyframe(tmp_path: Path) -> None:
    """One camera lost an image, and in one keyframe it failed: all others stay together."""
    record = scene_record(tmp_path, 0, 3, num_sweeps=2)
    times = [START + t + 16_000 for t in (166_666, 500_000)]  # of the rear camera: its first sweep, and the second keyframe
    lost = [r for r in (*record.sweeps, *(d for k in record.keyframes for d in k.data)) if r.channel == "CAM_BACK" and r.timestamp in times]
    assert len(lost) == 2
    keyframes = tuple(replace(k, data=tuple(d for d in k.data if d not in lost)) for k in record.keyframes)
    writer = DatabaseWriter(tmp_path, VERSION)
    writer.add_scene(replace(record, keyframes=keyframes, sweeps=tuple(s for s in record.sweeps if s not in lost)))
    writer.finish({})
    reader = NuScenes(tmp_path, VERSION)
    moments = reader.sample(reader.tokens()[2], camera_sweeps=9).camera_sweeps
    found = [[round((f.timestamp * 1e6 - START) / 1e3) for f in moment] for moment in moments or ()]
    assert found == [[841, 849], [675, 683], [341, 349], [8, 16]]  # without those at 500 and 167 ms


# ---- which of them a network gets -----------------------------------------------------------------------------------------------


def test_evaluation_reads_the_fifteenth_or_the_oldest(reader: NuScenes) -> None:
    pipeline, tokens = pipe(), reader.scenes[0].tokens
    last, second, first = (pipeline(reader, token) for token in (tokens[5], tokens[1], tokens[0]))
    assert numbers(last) == [[30, 30], [15, 15]]
    assert numbers(second) == [[6, 6], [0, 0]]
    assert numbers(first) == [[0, 0], [0, 0]]
    assert [item["is_present"].tolist() for item in (last, second, first)] == [[True, True], [True, True], [True, False]]
    batch = pipeline.collate([last, second])
    assert batch.images.shape == (2, 2, 2, 3, 45, 80)
    times = batch.rig.timestamps
    assert times is not None
    np.testing.assert_allclose(times[:, 0] - times[:, 1], [[1.25] * 2, [0.5] * 2], atol=1e-5)


def test_training_draws_evenly_from_the_range(reader: NuScenes) -> None:
    sample, rng = reader.sample(reader.scenes[0].tokens[5], camera_sweeps=27), np.random.default_rng(0)
    paths = [moment[0].path for moment in sample.camera_sweeps or ()]
    drawn = Counter(paths.index(draw_sweep(sample, SWEEPS, rng).history[0][0].path) for _ in range(2400))
    assert set(drawn) == set(range(3, 27))
    assert 60 < min(drawn.values()) <= max(drawn.values()) < 140  # 100 of each are expected
    third = reader.sample(reader.scenes[0].tokens[2], camera_sweeps=27)
    paths = [moment[0].path for moment in third.camera_sweeps or ()]
    short = Counter(paths.index(draw_sweep(third, SWEEPS, rng).history[0][0].path) for _ in range(300))
    assert set(short) == set(range(3, 12)), "only what the scene has"
    two = replace(third, camera_sweeps=(third.camera_sweeps or ())[:2])
    assert draw_sweep(two, SWEEPS, rng).history[0][0].path == paths[1], "the oldest"
    assert draw_sweep(replace(third, camera_sweeps=()), SWEEPS, rng).history == ()


def test_the_draw_is_that_of_the_sample_and_of_the_epoch(reader: NuScenes) -> None:
    """It comes from the generator that the pipeline is given, also for a sample that is kept in memory."""
    pipeline, token = pipe(STRONG), reader.scenes[0].tokens[5]
    loaded = pipeline.load(reader, token)
    assert len(loaded.images) == 2, "what is drawn anew each time is not kept"
    items = [pipeline.apply(loaded, np.random.default_rng(seed)) for seed in range(30)]
    again = pipeline(reader, token, np.random.default_rng(7))
    assert torch.equal(items[7]["images"], again["images"])
    assert torch.equal(items[7]["rig"].timestamps, again["rig"].timestamps)
    moments = [numbers(item)[1] for item in items]
    assert all(front == back for front, back in moments), "one draw for all cameras"
    assert len({front for front, _ in moments}) > 10
    assert pipeline.load(reader, token).images.keys() == loaded.images.keys()


def test_what_draws_no_sweep_draws_what_it_did(reader: NuScenes) -> None:
    """The draws of networks without sweeps do not move: a network that reads one keyframe before, and its augmentation."""
    data, token = NuScenesData(image_size=(45, 80)), reader.scenes[0].tokens[5]
    item = RigPipeline(data, Reads(past=1), (), STRONG, True)(reader, token, np.random.default_rng(3))
    alone = RigPipeline(data, Reads(), (), STRONG, True)(reader, token, np.random.default_rng(3))
    assert torch.equal(item["images"][0], alone["images"][0])
    assert torch.equal(item["bev_aug"], alone["bev_aug"])
    np.testing.assert_allclose(item["rig"].timestamps[0] - item["rig"].timestamps[1], 0.5, atol=1e-5)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_sweep_stands_where_the_vehicle_was(reader: NuScenes, seed: int | None) -> None:
    """Points of the world, given in the keyframe's (augmented) frame, are seen by the past cameras where these were and turned to."""
    pipeline = pipe(None if seed is None else STRONG)
    item = pipeline(reader, reader.scenes[1].tokens[5], None if seed is None else np.random.default_rng(seed))
    batch, (number, _) = pipeline.collate([item]), numbers(item)[1]
    assert batch.frame_ego2global is not None
    assert torch.equal(item["rig"].image_aug[0], item["rig"].image_aug[1]), "augmented as the keyframe is"
    points = np.random.default_rng(9).uniform(-20, 20, (500, 3))
    in_global = transform_points(ego2global(1, 2_500_000), points)
    augmented = transform_points(item["bev_aug"].numpy() @ invert(batch.key_ego2global[0].numpy()), in_global)
    in_key = transform_points(torch.linalg.inv(batch.bev_aug), torch.from_numpy(augmented)[None])
    pixels, depth, _ = batch.rig[:, 1].project(in_key, batch.key_ego2global)
    for i, channel in enumerate(CAM2EGO):
        then = ego2global(1, 500_000 * number // 6 + 8000 * (i + 1))
        local = transform_points(invert(then @ CAM2EGO[channel]), in_global)
        expected = local @ (item["rig"].image_aug[1, i].numpy() @ INTRINSICS).T
        ahead = local[:, 2] > 1
        np.testing.assert_allclose(depth[0, i].numpy(), local[:, 2], atol=1e-6)
        np.testing.assert_allclose(pixels[0, i].numpy()[ahead], (expected[:, :2] / expected[:, 2:])[ahead], atol=1e-3)
        assert np.linalg.norm(then[:3, 3] - ego2global(1, 2_500_000)[:3, 3]) > 2
    np.testing.assert_allclose(batch.frame_ego2global[0, 1].numpy(), ego2global(1, 500_000 * number // 6 + 8000), atol=1e-9)


def test_prediction_is_told_what_it_is_made_from(reader: NuScenes) -> None:
    """`frustum predict` goes on where it was if its input is the same: the sweep that is read belongs to it, all others do not."""
    sample = NuScenesData().open_sample(reader, reader.scenes[0].tokens[5], Reads(past=1, sweeps=SWEEPS))
    assert [[frame.path.parts[-3] for frame in moment] for moment in sample.history] == [["sweeps"] * 2]
    assert sample.cameras[0].timestamp - sample.history[0][0].timestamp == pytest.approx(1.25, abs=1e-5)
    assert sample.camera_sweeps is None


# ---- without sweeps -------------------------------------------------------------------------------------------------------------


def test_data_of_keyframes_alone_are_refused(tmp_path: Path) -> None:
    writer, record = DatabaseWriter(tmp_path, VERSION), scene_record(tmp_path, 0, 2)
    writer.add_scene(replace(record, sweeps=()))
    writer.finish({})
    reader = NuScenes(tmp_path, VERSION)
    words = r"reads an image between keyframes.*but .* holds images of keyframes alone\. .*sweeps=5.*read the keyframe before instead: "
    for token in reader.tokens():
        for pipeline in (pipe(), pipe(STRONG)):
            with pytest.raises(DataError, match=f"{words}model.past_frame=keyframe$"):
                pipeline.load(reader, token)


def test_images_that_were_not_fetched_are_refused(root: Path, tmp_path: Path) -> None:
    """The tables of nuScenes know all sweeps, but its archives of keyframes do not hold them."""
    shutil.copytree(root, tmp_path / "db", ignore=shutil.ignore_patterns("sweeps"))
    reader = NuScenes(tmp_path / "db", VERSION)
    for pipeline in (pipe(), pipe(STRONG, replace(SWEEPS, first=0, stop=5))):
        with pytest.raises(DataError, match=r"the image .*sweeps.* is not there\. .*model.past_frame=keyframe"):
            pipeline(reader, reader.scenes[0].tokens[5], np.random.default_rng(0))
