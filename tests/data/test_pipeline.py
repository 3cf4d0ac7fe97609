"""The pipeline: augmented LiDAR lands on augmented images, labels and boxes stay with them, and bad samples are explained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.pipeline import RigPipeline
from frustum.data.sample import Sample
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError, DataError
from frustum.geometry import VoxelGrid, invert, transform_points
from frustum.types.contract import Label, Reads
from tests.data.toy import CAM2EGO, INTRINSICS, LIDAR2EGO, SIZE, VERSION, ego2global, random_labels

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
STRONG = AugmentConfig(resize=(-0.1, 0.3), rotate_deg=(-8, 8), bev_rotate_deg=(-30, 30), bev_scale=(0.9, 1.1))
STILL = {"resize": (0.0, 0.0), "rotate_deg": (0.0, 0.0), "flip": False}
OCCUPANCY, DEPTH, BOXES = OccupancyLabels(VoxelGrid.occ3d()), DepthLabels(), BoxLabels()


def pipe(
    size: tuple[int, int] = (45, 80),
    *labels: Label[Any],
    past: int = 0,
    augment: AugmentConfig | None = None,
    crop_h: float = 0.0,
    eval_resize: float = 0.0,
    **data: Any,
) -> RigPipeline:
    """A pipeline; with `augment` one for training."""
    plain = AugmentConfig(crop_h=(crop_h, crop_h), eval_resize=eval_resize)
    return RigPipeline(NuScenesData(image_size=size, **data), Reads(past=past), labels, augment or plain, augment is not None)


class Changed:
    """A rig source whose keyframes are those of another one after a change."""

    def __init__(self, reader: NuScenes, change: Callable[[Sample], Sample]):
        self.root, self._reader, self._change = reader.root, reader, change

    def sample(self, token: str, **options: Any) -> Sample:
        return self._change(self._reader.sample(token, **options))

    def count_boxes(self, tokens: Iterable[str], min_points: int = 1) -> int:
        return self._reader.count_boxes(tokens, min_points)


@pytest.fixture(scope="module")
def reader(toy_root: Path) -> NuScenes:
    return NuScenes(toy_root, VERSION)


@pytest.fixture(scope="module")
def token(reader: NuScenes) -> str:
    return reader.tokens("train")[2]


@pytest.fixture(scope="module")
def sample(reader: NuScenes, token: str) -> Sample:
    return reader.sample(token, history=2)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [(64, 176), (45, 80)])
def test_augmented_lidar_lands_on_augmented_images(reader: NuScenes, token: str, seed: int, size: tuple[int, int]) -> None:
    """The images hold their own original coordinates: a point must find the colour of the pixel that it had in the original image."""
    pipeline = pipe(size, augment=STRONG, **PLAIN)
    item = pipeline(reader, token, np.random.default_rng(seed))
    batch = pipeline.collate([item])
    rng = np.random.default_rng(99)
    in_lidar = np.concatenate([rng.uniform(-15, 15, (20000, 2)), rng.uniform(-3, 3, (20000, 1))], 1)
    in_global = transform_points(ego2global(0, 1_000_000) @ LIDAR2EGO, in_lidar)
    augmented_ego = transform_points(item["bev_aug"].numpy() @ invert(batch.key_ego2global[0].numpy()), in_global)

    points = transform_points(torch.linalg.inv(batch.bev_aug), torch.from_numpy(augmented_ego)[None])
    pixels, depth, visible = batch.rig[:, 0].project(points, batch.key_ego2global)
    found = 0
    for i, channel in enumerate(CAM2EGO):
        local = transform_points(invert(ego2global(0, 1_000_000 + 8000 * (i + 1)) @ CAM2EGO[channel]), in_global)
        homogeneous = local @ INTRINSICS.T
        original = homogeneous[:, :2] / homogeneous[:, 2:]
        np.testing.assert_allclose(depth[0, i].numpy(), local[:, 2], atol=1e-9)
        within = ((original > 4) & (original < (SIZE[1] - 4, SIZE[0] - 4))).all(1) & visible[0, i].numpy()
        column, row = pixels[0, i].numpy()[within].astype(int).T
        colours = item["images"][0, i].numpy()[:, row, column]
        lit = colours[2] > 120  # not in the black corners that a turned image has
        colours, expected = colours[:, lit], original[within][lit]
        step = SIZE[1] / size[1] / (1 + STRONG.resize[0]) * 1.5  # how far a pixel of the output reaches in the original
        assert np.abs(colours[0] / 255 * SIZE[1] - expected[:, 0]).max() < step + 1.5
        assert np.abs(colours[1] / 255 * SIZE[0] - expected[:, 1]).max() < step + 1.5
        found += len(expected)
    assert found > 500


@pytest.mark.parametrize("augment", [None, STRONG, STRONG.model_copy(update=STILL)])
def test_depth_maps_agree_with_the_rig(reader: NuScenes, token: str, sample: Sample, augment: AugmentConfig | None) -> None:
    """Each depth, lifted through the augmented rig, is a LiDAR point."""
    pipeline = pipe((48, 96), DEPTH, augment=augment, **PLAIN)
    batch = pipeline.collate([pipeline(reader, token, np.random.default_rng(5))])
    maps = batch.need(DepthLabels)
    assert sample.lidar is not None
    lidar = transform_points(sample.lidar.lidar2ego, sample.lidar.load()[:, :3].astype(float))
    checked = 0
    for camera in range(2):
        row, column = torch.nonzero(maps[0, camera], as_tuple=True)
        pixels = torch.stack([column + 0.5, row + 0.5], -1).double().expand(1, 2, -1, 2)
        depth = maps[0, camera, row, column].double().expand(1, 2, -1)
        points = batch.rig[:, 0].unproject(pixels, depth, batch.key_ego2global)[0, camera].numpy()
        distance = np.linalg.norm(points[:, None] - lidar[None], axis=-1).min(1)
        assert (distance < 0.03 * depth[0, 0].numpy() + 0.01).all()  # half a pixel at focal lengths of 60 pixels
        checked += len(row)
    assert checked > 20


def test_the_published_test_time_input(reader: NuScenes, sample: Sample) -> None:
    frames = tuple(replace(c, size=(900, 1600)) for c in sample.cameras)
    big = replace(sample, cameras=frames, history=())
    pipeline = pipe((256, 704))
    rig = pipeline._rig(replace(pipeline.load(reader, sample.token), frames=(frames,)), pipeline._draw(None, big))
    np.testing.assert_allclose(rig.image_aug[0, 0].numpy(), [[0.44, 0, 0], [0, 0.44, -140], [0, 0, 1]], atol=1e-12)


def test_the_share_cut_off_at_the_bottom(reader: NuScenes, token: str) -> None:
    whole, cut = pipe(SIZE)(reader, token), pipe(SIZE, crop_h=0.25)(reader, token)
    rows = SIZE[0] - int(0.75 * SIZE[0])
    assert cut["rig"].image_aug[0, 0, 1, 2] - whole["rig"].image_aug[0, 0, 1, 2] == rows
    assert torch.equal(cut["images"][..., rows:, :], whole["images"][..., :-rows, :])


@pytest.mark.parametrize("extra", [0.0, 0.04, 0.5])
def test_evaluation_shows_what_its_matrix_says(reader: NuScenes, token: str, extra: float) -> None:
    """The images hold their own original coordinates, also when they are enlarged."""
    item = pipe((45, 80), eval_resize=extra, **PLAIN)(reader, token)
    matrix = item["rig"].image_aug[0, 0].numpy()
    assert matrix[0, 0] == pytest.approx(int(160 * (0.5 + extra) + 1e-6) / 160)
    rows, columns = (axis.ravel() for axis in np.indices((45, 80)))
    original = (np.linalg.inv(matrix) @ [columns + 0.5, rows + 0.5, np.ones(rows.size)])[:2]
    shown = item["images"][0, 0, :2].flatten(1).numpy() / 255 * [[SIZE[1]], [SIZE[0]]]
    assert np.abs(shown - original).max() < 1.0
    training = pipe((45, 80), augment=AugmentConfig(eval_resize=extra, **STILL), **PLAIN)(reader, token, np.random.default_rng(0))
    assert torch.equal(training["images"], item["images"]), "training that moves no pixel sees what evaluation sees"


def test_no_resampling_when_nothing_changes(reader: NuScenes, sample: Sample) -> None:
    item = pipe(SIZE, **PLAIN)(reader, sample.token)
    for i, camera in enumerate(sample.cameras):
        np.testing.assert_array_equal(item["images"][0, i].permute(1, 2, 0).numpy(), np.asarray(camera.open()))
    np.testing.assert_array_equal(item["rig"].image_aug.numpy(), np.broadcast_to(np.eye(3), (1, 2, 3, 3)))
    assert item["rig"].image_size == SIZE


def test_history_shares_the_augmentation_and_repeats_the_present(reader: NuScenes) -> None:
    pipeline = pipe(past=2, augment=AugmentConfig(), **PLAIN)
    item = pipeline(reader, reader.tokens("train")[1], np.random.default_rng(0))
    assert item["images"].shape == (3, 2, 3, 45, 80)
    assert torch.equal(item["images"][0], item["images"][1])  # the toy shows the same picture at all times
    assert torch.equal(item["rig"].image_aug[0], item["rig"].image_aug[1])
    times = item["rig"].timestamps
    assert (times[0] - times[1]).tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
    assert torch.equal(times[0], times[2])  # only one keyframe before this one: the present stands in
    assert torch.equal(item["rig"].ego2global[0], item["rig"].ego2global[2])


def test_labels_follow_the_flips(reader: NuScenes, token: str) -> None:
    pipeline = pipe((45, 80), replace(OCCUPANCY, instances=True), augment=AugmentConfig(bev_flip_x=1, bev_flip_y=0))
    batch = pipeline.collate([pipeline(reader, token, np.random.default_rng(0))])
    found, labels = batch.need(OccupancyLabels), random_labels(2)
    np.testing.assert_array_equal(found.semantics[0].numpy(), labels.semantics[::-1])
    np.testing.assert_array_equal(found.mask_camera[0].numpy(), labels.mask_camera[::-1].astype(bool))
    np.testing.assert_array_equal(found.mask_lidar[0].numpy(), labels.mask_lidar[::-1].astype(bool))
    assert found.instances is not None
    assert labels.instances is not None
    np.testing.assert_array_equal(found.instances[0].numpy(), labels.instances[::-1])
    assert batch.bev_aug[0].diagonal().tolist() == [-1, 1, 1, 1]
    assert found.mask_camera.dtype == torch.bool


def test_boxes_are_filtered_and_move(reader: NuScenes) -> None:
    token = reader.tokens("train")[0]
    sample = reader.sample(token)
    assert sample.boxes is not None

    def boxes(label: BoxLabels, augment: AugmentConfig | None = None, source: Any = reader) -> tuple[torch.Tensor, list[int]]:
        pipeline = pipe((45, 80), label, augment=augment)
        found = pipeline.collate([pipeline(source, token, np.random.default_rng(0))]).need(BoxLabels)
        return found.boxes[0], found.classes[0].tolist()

    plain, classes = boxes(BOXES)
    assert classes == [0]  # the cone has no points, the animal is none of the ten
    np.testing.assert_allclose(plain.numpy(), sample.boxes.boxes[:1], rtol=1e-6)
    assert boxes(BoxLabels(min_points=0))[1] == [0, 9]
    flipped, _ = boxes(BOXES, AugmentConfig(bev_flip_x=0, bev_flip_y=1))
    np.testing.assert_allclose(flipped[0, 1].item(), -sample.boxes.boxes[0, 1], rtol=1e-6)
    with pytest.raises(DataError, match="read without boxes"):
        boxes(BOXES, source=Changed(reader, lambda sample: replace(sample, boxes=None)))


def test_batches_mix_labelled_and_unlabelled_keyframes(reader: NuScenes) -> None:
    pipeline = pipe((45, 80), OCCUPANCY, BOXES, DEPTH)
    items = [pipeline(reader, reader.tokens(split)[0]) for split in ("train", "val")]
    batch = pipeline.collate(items)
    assert len(batch) == 2
    assert batch.images.shape == (2, 1, 2, 3, 45, 80)
    assert batch.rig.cam2ego.shape == (2, 1, 2, 4, 4)
    occupancy = batch.need(OccupancyLabels)
    assert (occupancy.semantics[1] == 255).all()
    assert not occupancy.mask_camera[1].any()
    assert occupancy.mask_camera[0].any()
    assert len(batch.need(BoxLabels).boxes) == 2
    assert batch.need(DepthLabels).shape == (2, 2, 45, 80)
    assert batch.tokens == [reader.tokens("train")[0], reader.tokens("val")[0]]
    alone = pipeline.collate(items[1:])
    assert set(alone.labels) == {BoxLabels, DepthLabels}
    with pytest.raises(DataError, match="needs occupancy labels in the batch, but there are none"):
        alone.need(OccupancyLabels)
    unlabelled = pipe()
    assert unlabelled.collate([unlabelled(reader, reader.tokens()[0])]).labels == {}


def test_same_seed_same_sample_and_jitter_changes_colours_only(reader: NuScenes, token: str) -> None:
    still = AugmentConfig(**STILL, bev_flip_x=0, bev_flip_y=0)
    jitter = pipe(augment=still.model_copy(update={"colour_jitter": 0.4}))
    a, b, c = (jitter(reader, token, np.random.default_rng(s)) for s in (1, 1, 2))
    plain = pipe(augment=still)(reader, token, np.random.default_rng(1))
    assert torch.equal(a["images"], b["images"])
    assert not torch.allclose(a["images"], c["images"])
    assert not torch.allclose(a["images"], plain["images"])
    assert torch.equal(a["rig"].image_aug, plain["rig"].image_aug)


def test_the_map_may_stand_in_the_first_cameras_frame(reader: NuScenes, sample: Sample) -> None:
    """Only the pose of the map changes: labels, boxes and cameras stay as they are."""
    pipelines = [pipe((45, 80), OCCUPANCY, BOXES, map_frame=frame, **PLAIN) for frame in ("lidar", "camera0")]
    default, moved = (pipeline.collate([pipeline(reader, sample.token)]) for pipeline in pipelines)
    first = sample.cameras[0]
    np.testing.assert_array_equal(default.key_ego2global[0].numpy(), sample.ego2global)
    np.testing.assert_array_equal(moved.key_ego2global[0].numpy(), first.ego2global)
    assert np.abs(first.ego2global - sample.ego2global).max() > 0.01  # the vehicle drove between LiDAR and camera
    for name in ("images", "bev_aug"):
        assert torch.equal(getattr(default, name), getattr(moved, name)), name
    for name in ("semantics", "mask_camera"):
        assert torch.equal(getattr(default.need(OccupancyLabels), name), getattr(moved.need(OccupancyLabels), name)), name
    assert torch.equal(default.need(BoxLabels).boxes[0], moved.need(BoxLabels).boxes[0])
    assert torch.equal(default.rig.ego2global, moved.rig.ego2global)
    in_first = moved.rig[:, 0].cam2key(moved.key_ego2global)[0, 0]  # the first camera sits in this frame as it is mounted
    np.testing.assert_allclose(in_first.numpy(), first.cam2ego, atol=1e-6)


def test_what_is_cached_is_small_when_pixels_stay(reader: NuScenes, token: str) -> None:
    still = pipe((45, 80), DEPTH, OCCUPANCY).load(reader, token)
    assert [i.shape for i in still.images.values()] == [(45, 80, 3)] * 2
    assert still.labels[0].points is None
    moving = pipe((45, 80), DEPTH, OCCUPANCY, augment=AugmentConfig()).load(reader, token)
    assert [i.shape for i in moving.images.values()] == [(*SIZE, 3)] * 2
    assert moving.labels[0].maps == ()
    assert still.num_bytes < moving.num_bytes
    assert still.sample.occupancy is None  # the labels are held once, packed
    alone = pipe().load(reader, token)
    held = sum(index.nbytes + metres.nbytes for index, metres in still.labels[0].maps)
    held += still.labels[1].semantics.nbytes + sum(mask.nbytes for mask in still.labels[1].masks)
    assert still.num_bytes == alone.num_bytes + held


# ---- bad input --------------------------------------------------------------------------------------------------------------


def test_bad_samples_are_explained(reader: NuScenes, token: str, tmp_path: Path) -> None:
    pipeline = pipe()

    def with_front(**change: object) -> Changed:
        return Changed(reader, lambda s: replace(s, cameras=(replace(s.cameras[0], **change), *s.cameras[1:])))  # type: ignore[arg-type]

    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cannot read the image .*broken.png"):
        pipeline(with_front(path=tmp_path / "broken.png"), token)
    Image.new("RGB", (32, 32)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"32 x 32 pixels, but sample_data.json says 90 x 160"):
        pipeline(with_front(path=tmp_path / "small.png"), token)
    with pytest.raises(DataError, match=f"keyframe {token} .*intrinsics cannot be right at camera 0 .*fx is 0"):
        pipeline(with_front(intrinsics=np.zeros((3, 3))), token)
    with pytest.raises(DataError, match="cam2ego holds NaN"):
        pipeline(with_front(cam2ego=np.full((4, 4), np.nan)), token)
    with pytest.raises(DataError, match="not a rigid transform"):
        pipeline(with_front(cam2ego=np.diag([2.0, 1, 1, 1])), token)
    small = VoxelGrid(lower=(-8, -8, -1), upper=(8, 8, 5.4), cell=(0.4, 0.4, 0.4))
    with pytest.raises(DataError, match=r"shape \(200, 200, 16\), but the recipe's grid has \(40, 40, 16\)"):
        pipe((45, 80), OccupancyLabels(small))(reader, token)
    ahead = OccupancyLabels(VoxelGrid(lower=(0, -8, -1), upper=(16, 8, 5.4), cell=(0.4, 0.4, 0.4)))
    with pytest.raises(ConfigError, match="symmetric"):
        pipe((45, 80), ahead, augment=AugmentConfig())
    pipe((45, 80), ahead)  # nothing is flipped in evaluation


def test_a_source_without_rigs_is_refused(tmp_path: Path) -> None:
    class Photographs:
        root = tmp_path

    with pytest.raises(DataError, match=r"images of camera rigs need keyframes of a camera rig, .* Choose other data"):
        pipe().load(Photographs(), "a")


def test_cameras_of_a_batch_must_agree(reader: NuScenes, token: str) -> None:
    pipeline = pipe()
    one = Changed(reader, lambda sample: replace(sample, cameras=sample.cameras[:1]))
    with pytest.raises(DataError, match="different images"):
        pipeline.collate([pipeline(reader, token), pipeline(one, token)])


def test_a_truncated_jpeg_is_found(reader: NuScenes, token: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match="truncated"):
        pipe()(Changed(reader, lambda sample: replace(sample, cameras=(replace(sample.cameras[0], path=path),))), token)


def _share_found(depth: np.ndarray, u: np.ndarray, v: np.ndarray, metres: np.ndarray) -> float:
    """Points whose depth is in the map within a pixel of (u, v)."""
    near = np.stack([depth[v + i, u + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    return float((np.abs(near - metres) < 0.01).any(0).mean())


def _likeness(image: np.ndarray, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> float:
    """Correlation of an image's colours (3, H, W) at (u, v) with the given ones (3, P)."""
    return float(np.corrcoef(image[:, v, u].ravel(), colours.ravel())[0, 1])


@pytest.mark.data
@pytest.mark.parametrize("seed", [0, 1])
def test_real_lidar_lands_on_real_images(shared: Path, seed: int) -> None:
    """Points and pictures of the six real cameras move together: where the rig says that a pixel went, its depth and its colour are."""
    root = shared / "data" / "nuscenes_keyframes"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    reader = NuScenes(root, "v1.0-mini")
    turning = AugmentConfig(rotate_deg=(4, 5.4))
    pipelines = [pipe((256, 704), DEPTH, BOXES, augment=a) for a in (None, turning)]
    plain, moved = (pipeline(reader, reader.tokens()[0], np.random.default_rng(seed)) for pipeline in pipelines)
    assert np.isfinite(moved["labels"][1].boxes[:, :7]).all()
    for camera in range(6):
        before, after = plain["images"][0, camera].numpy(), moved["images"][0, camera].numpy()
        old, new = plain["labels"][0][camera], moved["labels"][0][camera]
        row, column = old.nonzero()
        assert len(row) > 1500
        plain2moved = (moved["rig"].image_aug[0, camera] @ torch.linalg.inv(plain["rig"].image_aug[0, camera])).numpy()
        u, v = np.floor(plain2moved[:2] @ [column + 0.5, row + 0.5, np.ones(len(row))]).astype(int)
        inside = (u >= 10) & (u < 704 - 10) & (v >= 10) & (v < 256 - 10)
        row, column, u, v = (x[inside] for x in (row, column, u, v))
        assert len(u) > 700
        assert _share_found(new, u, v, old[row, column]) > 0.9
        assert max(_share_found(new, u + d, v, old[row, column]) for d in (-8, -4, 4, 8)) < 0.5
        colours = before[:, row, column]
        assert _likeness(after, u, v, colours) > 0.9
        assert _likeness(after, u, v, colours) > max(_likeness(after, u + d, v, colours) for d in (-8, -4, 4, 8))


def test_frames_of_the_past_bring_their_poses_and_say_whether_they_are_there(reader: NuScenes) -> None:
    tokens = reader.tokens("train")
    plain = [reader.sample(token) for token in tokens[:3]]
    for frame in ("lidar", "camera0"):
        pipeline = pipe(past=2, map_frame=frame)
        batch = pipeline.collate([pipeline(reader, token) for token in tokens[:3]])
        assert batch.is_present is not None
        assert batch.frame_ego2global is not None
        assert batch.is_present.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
        poses = [s.ego2global if frame == "lidar" else s.cameras[0].ego2global for s in plain]
        expected = [[poses[0]] * 3, [poses[1], poses[0], poses[1]], [poses[2], poses[1], poses[0]]]
        np.testing.assert_array_equal(batch.frame_ego2global.numpy(), np.array(expected))
        assert torch.equal(batch.frame_ego2global[:, 0], batch.key_ego2global)
    assert batch.scenes == [plain[0].scene] * 3
    assert batch.has_poses
    other = reader.tokens("all")[3]
    assert reader.sample(other).scene != plain[0].scene
    assert pipeline.collate([pipeline(reader, other)]).is_present.tolist() == [[True, False, False]]  # no history across scenes


def test_a_past_keyframe_in_which_a_camera_failed_counts_as_missing(reader: NuScenes) -> None:
    whole = reader.sample(reader.tokens("train")[2], history=2)
    failed = Changed(reader, lambda sample: replace(sample, history=(sample.history[0][:1], sample.history[1])))
    pipeline = pipe(past=2)
    batch = pipeline.collate([pipeline(failed, whole.token)])
    assert batch.is_present.tolist() == [[True, False, True]]
    assert torch.equal(batch.frame_ego2global[0, 1], batch.key_ego2global[0])
    np.testing.assert_array_equal(batch.frame_ego2global[0, 2].numpy(), whole.history_ego2global[1])
    assert batch.rig.timestamps[0, 2, 0] < batch.rig.timestamps[0, 1, 0] == batch.rig.timestamps[0, 0, 0]


@pytest.mark.parametrize("cameras", [None, ("CAM_FRONT", "CAM_BACK")])
def test_a_camera_that_failed_in_the_past_does_not_stop_the_keyframe(
    toy_root: Path, tmp_path: Path, cameras: tuple[str, ...] | None
) -> None:
    """Whether the cameras were asked for by name or not. Where it fails in the keyframe itself, names are taken at their word."""
    shutil.copytree(toy_root, tmp_path / "db")
    table = tmp_path / "db" / VERSION / "sample_data.json"
    rows, tokens = json.loads(table.read_text()), NuScenes(toy_root, VERSION).tokens("train")
    kept = [row for row in rows if not (row["sample_token"] == tokens[1] and row["is_key_frame"] and "CAM_BACK" in row["filename"])]
    assert len(kept) == len(rows) - 1
    table.write_text(json.dumps(kept))
    reader = NuScenes(tmp_path / "db", VERSION, cameras=cameras)
    sample = reader.sample(tokens[2], history=2)
    assert [len(time) for time in (sample.cameras, *sample.history)] == [2, 1, 2]
    pipeline = pipe(past=2)
    assert pipeline.collate([pipeline(reader, tokens[2])]).is_present.tolist() == [[True, False, True]]
    if cameras is not None:
        with pytest.raises(DataError, match="has no image of CAM_BACK"):
            reader.sample(tokens[1])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_batch_gives_its_photographs_back(reader: NuScenes, token: str, order: str) -> None:
    """Whatever the normalisation, as a teacher sees them: those of the file, fitted to the network's size."""
    made = pipe((45, 80), channel_order=order, mean=(10.0, 100.0, 200.0), std=(2.0, 30.0, 70.0))
    plain = pipe((45, 80), **PLAIN)
    photos, raw = (p.collate([p.apply(p.load(reader, token))]) for p in (made, plain))
    torch.testing.assert_close(photos.photographs(), raw.images[:, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(raw.photographs(), raw.images[:, 0])
    assert photos.photographs().std() > 1
