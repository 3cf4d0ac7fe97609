"""KITTI import: a tiny synthetic drive with known truth, and the real drive where it is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.check.inspection import inspect
from frustum.data.check.projection import EdgeFit
from frustum.data.kitti.importer import import_kitti_raw, split_frames
from frustum.data.kitti.occupancy import level
from frustum.data.kitti.raw import open_drive
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.tables import TABLES
from frustum.errors import ConfigError, DataError
from frustum.files import ALSO_READ
from frustum.geometry import VoxelGrid, invert, points_in_boxes, transform_points
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE
from tests.data.kitti_drive import CAR_SIZE, CAR_STEP, FRAMES, SIZE, STEP, WALL_Y, car_in_lidar, write_drive

CAR = OCC3D_CLASSES.index("car")


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Path:
    return write_drive(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def imported(drive, tmp_path_factory):
    root = tmp_path_factory.mktemp("imported")
    shown: list[str] = []

    def progress(title, items):
        shown.append(title)
        yield from items

    summary = import_kitti_raw(drive, root, splits={"train": "0-7", "val": (8, 11)}, progress=progress)
    return root, summary, shown


@pytest.fixture
def dataset(imported) -> NuScenes:
    return NuScenes(imported[0])


def test_boxes_are_counted_in_the_imported_frames_only(drive, tmp_path):
    summary = import_kitti_raw(drive, tmp_path, splits={"train": "2-4"})
    assert (summary["frames"], summary["boxes"]) == (3, 3)


def test_summary_and_progress(imported):
    _, summary, shown = imported
    assert summary["frames"] == summary["new_frames"] == FRAMES
    assert summary["boxes"] == FRAMES
    assert summary["splits"] == {"train": ["2011_01_01_drive_0001-train"], "val": ["2011_01_01_drive_0001-val"]}
    assert 0 < summary["mask_camera_share"] < summary["mask_lidar_share"] < 1
    assert len(shown) == 4  # heights, gathering, two scenes of labels
    json.dumps(summary)


def test_the_reader_finds_everything(imported, dataset):
    assert all((imported[0] / "v1.0-trainval" / f"{name}.json").is_file() for name in TABLES)
    assert len(dataset.tokens("train")) == 8
    assert len(dataset.tokens("val")) == 4
    sample = dataset.sample(dataset.tokens("val")[0], occupancy="instances")
    assert [c.channel for c in sample.cameras] == ["CAM_02", "CAM_03"]
    assert [c.path.suffix for c in sample.cameras] == [".png", ".jpg"]
    assert all(c.size == SIZE and c.open().size == SIZE[::-1] for c in sample.cameras)
    assert sample.occupancy is not None
    assert sample.occupancy.instances is not None
    assert (sample.occupancy.instances[sample.occupancy.semantics != OCC3D_FREE] > 0).all()


def test_ego_stands_on_the_road_and_heights_are_corrected(drive):
    """The synthetic road is flat although the recorded altitude swings by 25 cm."""
    recording = open_drive(drive)
    assert np.ptp(recording.imu2global[:, 2, 3]) > 0.2
    ego = level(recording, range(len(recording)))
    assert np.ptp(ego.ego2global[:, 2, 3]) < 0.01
    np.testing.assert_allclose(ego.imu2ego[:3, :3], np.eye(3), atol=1e-3)
    assert abs(ego.imu2ego[2, 3] - 0.93) < 0.01
    points = transform_points(ego.lidar2ego, recording.scan(4)[:, :3].astype(float))
    assert abs(np.percentile(points[:, 2], 5)) < 0.01


def test_lidar_file_has_our_columns(dataset):
    sample = dataset.sample(dataset.tokens("train")[2])
    points = sample.lidar.load()
    assert points.shape[1] == 5
    np.testing.assert_allclose(points[:, 3], 0.3 * 255, rtol=1e-6)
    assert set(np.unique(points[:, 4])) <= set(range(64))


def test_boxes_are_the_tracklets(dataset):
    for index in (0, 5):
        sample = dataset.sample(dataset.tokens("train")[index])
        assert sample.boxes.names == ["car"]
        assert sample.boxes.attributes == ["vehicle.moving"]
        np.testing.assert_allclose(sample.boxes.boxes[0, 3:6], CAR_SIZE)
        expected = transform_points(sample.lidar.lidar2ego, (car_in_lidar(index) + [0, 0, CAR_SIZE[2] / 2])[None])[0]
        np.testing.assert_allclose(sample.boxes.box2ego[0, :3, 3], expected, atol=1e-6)
        points = transform_points(sample.lidar.lidar2ego, sample.lidar.load()[:, :3].astype(float))
        counted = points_in_boxes(points, sample.boxes.box2ego, sample.boxes.boxes[:, 3:6]).sum()
        assert counted == sample.boxes.num_lidar_pts[0] > 20
    speed = np.hypot(*sample.boxes.boxes[0, 7:9])
    assert abs(speed - CAR_STEP / 0.1) < 0.1
    assert STEP != CAR_STEP


def test_the_car_is_cut_out_and_put_back(dataset):
    """Its voxels lie in its box in every frame, and nothing of it is left where it was before or after."""
    for token in (dataset.tokens("train")[0], dataset.tokens("val")[3]):
        sample = dataset.sample(token)
        centres = VoxelGrid.occ3d().centres().double().numpy()
        semantics = sample.occupancy.semantics
        cars = centres[semantics == CAR]
        assert len(cars) > 15
        assert points_in_boxes(cars, sample.boxes.box2ego, sample.boxes.boxes[:, 3:6] + 0.8).all()
        start = sample.boxes.box2ego[0, 0, 3]
        lane = (
            (np.abs(centres[..., 1] - sample.boxes.box2ego[0, 1, 3]) < 1.2)
            & (centres[..., 2] > 0.3)
            & (np.abs(centres[..., 0] - start) > 3)
        )
        assert (semantics[lane & (np.abs(centres[..., 0]) < 30)] == OCC3D_FREE).all()


def test_ground_and_wall_have_their_classes(dataset):
    sample = dataset.sample(dataset.tokens("train")[4])
    semantics, grid = sample.occupancy.semantics, VoxelGrid.occ3d()
    x, y, z = np.moveaxis(grid.centres().double().numpy(), -1, 0)
    road = (np.abs(y) < 3) & (np.abs(x) < 8) & (np.abs(z) < 0.2)
    assert (semantics[road] == OCC3D_CLASSES.index("driveable_surface")).mean() > 0.8
    lateral = sample.lidar.lidar2ego[1, 3] + WALL_Y
    wall = (np.abs(y - lateral) < 0.2) & (np.abs(x) < 8) & (z > 0.4) & (z < 1.7)
    assert (semantics[wall] == OCC3D_CLASSES.index("manmade")).mean() > 0.9
    assert (semantics[(y > lateral + 0.8) & (z > 0.4)] == OCC3D_FREE).all()


def test_masks_say_what_was_seen(dataset):
    sample = dataset.sample(dataset.tokens("train")[4])
    labels, grid = sample.occupancy, VoxelGrid.occ3d()
    assert not ((labels.mask_camera == 1) & (labels.mask_lidar == 0)).any()
    x, y, _ = np.moveaxis(grid.centres().double().numpy(), -1, 0)
    lateral = sample.lidar.lidar2ego[1, 3] + WALL_Y
    assert not labels.mask_lidar[y > lateral + 1.0].any()  # behind the wall
    assert not labels.mask_camera[x < 0].any()  # behind both cameras
    occupied = labels.semantics != OCC3D_FREE
    assert (labels.mask_lidar[occupied & (np.hypot(x, y) < 15)] == 1).mean() > 0.8
    seen = transform_points(invert(sample.cameras[0].cam2ego), grid.centres().double().numpy()[labels.mask_camera == 1])
    assert (seen[:, 2] > 0).all()


def test_nothing_inconsistent_is_found(dataset):
    findings = inspect(dataset, dataset.tokens()[::4])
    assert [f for f in findings if f.severity == "error"] == []
    assert [f.what for f in findings if "boxes" in f.what or "voxels" in f.what] == []


def test_second_run_keeps_what_is_there(drive, imported):
    root = imported[0]
    before = {p: p.stat().st_mtime_ns for p in (root / "gts").rglob("*.npz")}
    summary = import_kitti_raw(drive, root, splits={"train": "0-7", "val": (8, 11)})
    assert summary["new_frames"] == 0
    assert {p: p.stat().st_mtime_ns for p in (root / "gts").rglob("*.npz")} == before


def test_an_interrupted_import_goes_on(drive, tmp_path):
    splits = {"train": "0-1", "val": "2-3"}

    def interrupt(title, items):
        if "val" in title:
            raise KeyboardInterrupt
        yield from items

    with pytest.raises(KeyboardInterrupt):
        import_kitti_raw(drive, tmp_path, splits=splits, progress=interrupt)
    assert import_kitti_raw(drive, tmp_path, splits=splits)["new_frames"] == 2  # only the part that was missing
    assert len(NuScenes(tmp_path).tokens()) == 4
    assert not list(tmp_path.rglob("*.tmp*"))


def test_a_later_import_joins_the_splits_and_no_frame_is_in_two_scenes(drive, tmp_path):
    """One split after the other; then other splits of the same frames, which replace those they overlap; then the first ones again."""
    name, splits = "2011_01_01_drive_0001", tmp_path / "v1.0-trainval" / "splits.json"
    import_kitti_raw(drive, tmp_path, splits={"train": "0-1"})
    import_kitti_raw(drive, tmp_path, splits={"val": "2-2"})
    assert json.loads(splits.read_text()) == {"train": [f"{name}-train"], "val": [f"{name}-val"]}
    import_kitti_raw(drive, tmp_path, splits={"test": "0-0"})
    assert json.loads(splits.read_text()) == {"test": [f"{name}-test"], "val": [f"{name}-val"]}
    assert len(NuScenes(tmp_path).tokens()) == 2
    assert import_kitti_raw(drive, tmp_path, splits={"train": "0-1"})["new_frames"] == 0
    assert json.loads(splits.read_text()) == {"train": [f"{name}-train"], "val": [f"{name}-val"]}


def test_a_corrected_calibration_makes_the_scene_anew(drive, tmp_path):
    """The same frames again are recognised; with another calibration they are other keyframes."""
    day = shutil.copytree(drive.parent, tmp_path / drive.parent.name)
    copied, splits = day / drive.name, {"train": "0-1"}
    import_kitti_raw(copied, tmp_path / "out", splits=splits)
    assert import_kitti_raw(copied, tmp_path / "out", splits=splits)["new_frames"] == 0
    before = NuScenes(tmp_path / "out").sample(NuScenes(tmp_path / "out").tokens()[0]).cameras[0].intrinsics
    lens = day / "calib_cam_to_cam.txt"
    lines = [
        f"{line.split()[0]} {float(line.split()[1]) + 3} {' '.join(line.split()[2:])}" if line.startswith("P_rect_02:") else line
        for line in lens.read_text().splitlines()
    ]
    lens.write_text("\n".join(lines) + "\n")
    assert import_kitti_raw(copied, tmp_path / "out", splits=splits)["new_frames"] == 2
    after = NuScenes(tmp_path / "out").sample(NuScenes(tmp_path / "out").tokens()[0]).cameras[0].intrinsics
    assert after[0, 0] == pytest.approx(before[0, 0] + 3)


def test_default_split_and_bad_splits():
    assert {k: len(v) for k, v in split_frames(range(154), None).items()} == {"train": 120, "val": 34}
    assert split_frames(range(1), None) == {"train": range(1)}
    assert split_frames([0, 2, 5, 6], {"train": "0-2", "val": "4-9"}) == {"train": range(0, 2), "val": range(2, 4)}
    with pytest.raises(ConfigError, match="first and the last"):
        split_frames(range(10), {"train": "first half"})
    with pytest.raises(ConfigError, match="the drive has 0 to 9"):
        split_frames(range(10), {"train": "20-30"})
    with pytest.raises(ConfigError, match="share frames"):
        split_frames(range(10), {"train": "0-5", "val": "5-9"})


def test_unknown_drive_and_broken_image_are_named(tmp_path):
    folder = write_drive(tmp_path / "raw", frames=2)
    with pytest.raises(DataError, match="no drive '0007'"):
        import_kitti_raw(folder, tmp_path / "out", drive="0007")
    (folder / "image_02" / "data" / "0000000000.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cannot read the image .*0000000000\.png"):
        import_kitti_raw(folder, tmp_path / "out")


def test_a_drive_without_tracklets_has_no_boxes(tmp_path):
    folder = write_drive(tmp_path / "raw", frames=3, tracklets=False)
    summary = import_kitti_raw(folder, tmp_path / "out")
    assert summary["boxes"] == 0
    dataset = NuScenes(tmp_path / "out")
    assert len(dataset.sample(dataset.tokens()[0]).boxes) == 0


@pytest.mark.data
def test_real_drive(shared, tmp_path, monkeypatch):
    """Six real frames: the LiDAR sits on the images and the labels hold what the street holds."""
    packed = shared / "data" / "kitti_raw_0005"
    monkeypatch.setenv(ALSO_READ, str(packed))  # the tree links to its images
    subprocess.run([sys.executable, packed / "unpack_velodyne.py", tmp_path / "raw", "--tree", "--frames", "130:136"], check=True)
    summary = import_kitti_raw(tmp_path / "raw", tmp_path / "out", splits={"val": "130-135"})
    assert summary["new_frames"] == 6
    assert summary["voxels"]["driveable_surface"] > 6 * 3000
    assert summary["voxels"]["car"] > 6 * 200
    assert summary["voxels"]["bicycle"] > 0
    assert 0.01 < summary["mask_camera_share"] < 0.1
    dataset = NuScenes(tmp_path / "out")
    fit = EdgeFit()
    for token in dataset.tokens():
        sample = dataset.sample(token)
        fit.add(sample.cameras[0], Image.open(sample.cameras[0].path), sample.lidar, sample.lidar.load())
    right, down, _ = fit.best_shift()
    assert max(abs(right), abs(down)) <= 0.5
    assert fit.contrast() > 3
    assert [f for f in inspect(dataset) if f.severity == "error"] == []
