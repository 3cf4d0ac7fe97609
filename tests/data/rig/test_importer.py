"""Import of one's own cameras: what is written, and every way calibration.json can be wrong."""

from __future__ import annotations

import copy
import json
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.lenses import Lens, undistort_image
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.pipeline import RigPipeline
from frustum.data.rig.importer import import_rig, read_rig
from frustum.data.source import AugmentConfig
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.nn.temporal import HistoryConfig
from frustum.recipes.finding import get_recipe
from frustum.types.contract import Reads

SIZE = (90, 120)  # height, width
FORWARD = [0.5, -0.5, 0.5, -0.5]  # camera x right, y down, z forward in the ego frame
LENS = [-0.2, 0.05, 0.001, 0.0, 0.0]


def calibration(names: tuple[str, ...] = ("front", "rear", "side")) -> dict[str, Any]:
    return {
        "cameras": [
            {
                "name": name, "images": f"{name}/*.png", "fx": 100.0 + i, "fy": 101.0, "cx": 59.5, "cy": 44.5, "width": 120, "height": 90,
                "cam2ego": {"translation": [1.0 + i, 0.1, 1.5], "rotation": FORWARD},
            }
            for i, name in enumerate(names)
        ]
    }  # fmt: skip


def write_rig(folder: Path, content: Any, names: tuple[str, ...] = ("front", "rear", "side"), frames: int = 2) -> Path:
    rng = np.random.default_rng(1)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(frames):
            coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
            coarse.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC).save(folder / name / f"{k:03d}.png")
    (folder / "calibration.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_any_number_of_cameras_becomes_a_database(tmp_path):
    folder = write_rig(tmp_path / "my_rig", calibration())
    summary = import_rig(folder, tmp_path / "out")
    cameras = ["CAM_FRONT", "CAM_REAR", "CAM_SIDE"]
    assert summary == {"scene": "my_rig", "cameras": cameras, "frames": 2, "undistorted_images": 0, "is_new": True}
    dataset = NuScenes(tmp_path / "out")
    assert len(dataset.tokens("test")) == 2
    sample = dataset.sample(dataset.tokens()[1])
    assert [c.channel for c in sample.cameras] == ["CAM_FRONT", "CAM_REAR", "CAM_SIDE"]
    front = sample.cameras[0]
    np.testing.assert_allclose(front.intrinsics, [[100, 0, 60], [0, 101, 45], [0, 0, 1]])  # OpenCV's centre origin became the corner's
    np.testing.assert_allclose(front.cam2ego[:3, :3], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    np.testing.assert_allclose(front.cam2ego[:3, 3], [1.0, 0.1, 1.5])
    assert front.size == SIZE
    np.testing.assert_array_equal(np.asarray(front.open()), np.asarray(Image.open(folder / "front" / "001.png")))
    assert sample.lidar is None
    assert sample.occupancy is None
    assert len(sample.boxes) == 0
    assert sample.timestamp - dataset.sample(dataset.tokens()[0]).timestamp == pytest.approx(0.5, abs=1e-5)


def pipe(*size: int, past: int = 0) -> RigPipeline:
    return RigPipeline(NuScenesData(image_size=size), Reads(past=past), (), AugmentConfig(), training=False)


def test_it_goes_through_the_pipeline(tmp_path):
    import_rig(write_rig(tmp_path / "rig", calibration()), tmp_path / "out")
    dataset = NuScenes(tmp_path / "out")
    labels = OccupancyLabels(VoxelGrid.occ3d())
    pipeline = replace(pipe(45, 60), labels=(labels,))
    batch = pipeline.collate([pipeline(dataset, token) for token in dataset.tokens()])
    assert batch.images.shape == (2, 1, 3, 3, 45, 60)
    assert batch.labels == {}


def test_matrices_corner_origin_and_single_images(tmp_path):
    content = calibration(("front",))
    camera = content["cameras"][0]
    for key in ("fx", "fy", "cx", "cy", "width", "height", "images"):
        del camera[key]
    camera |= {"intrinsics": [[100, 0, 60], [0, 100, 45], [0, 0, 1]], "image": "front/000.png", "cam2ego": np.eye(4).tolist()}
    content["pixel_origin"] = "corner"
    cameras, frames = read_rig(write_rig(tmp_path / "rig", content, ("front",)))
    np.testing.assert_allclose(cameras[0].intrinsics[:2, 2], [60, 45])
    np.testing.assert_allclose(cameras[0].cam2ego, np.eye(4))
    assert len(frames) == 1


def test_frames_carry_times_and_poses(tmp_path):
    content = calibration(("front",))
    del content["cameras"][0]["images"]
    pose = np.eye(4)
    pose[0, 3] = 3.5
    content["frames"] = [
        {"timestamp": 1.5e9 + 0.25, "ego2global": pose.tolist(), "images": {"front": "front/001.png"}},
        {"timestamp": 1.5e9, "images": {"front": "front/000.png"}},
    ]
    import_rig(write_rig(tmp_path / "rig", content, ("front",)), tmp_path / "out")
    dataset = NuScenes(tmp_path / "out")
    first, second = (dataset.sample(t) for t in dataset.tokens())
    assert (first.timestamp, second.timestamp) == (1.5e9, 1.5e9 + 0.25)
    np.testing.assert_allclose(second.ego2global, pose)
    assert not second.has_poses  # that of the first frame is unknown


def test_unknown_poses_are_known_to_be_unknown(tmp_path):
    """Images alone do not say whether the rig moved; single images need no poses, for nothing is joined."""
    still = calibration(("front",)) | {"stands_still": True}
    known = calibration(("front",))
    known["frames"] = [{"ego2global": np.eye(4).tolist(), "images": {"front": f"front/00{k}.png"}} for k in (0, 1)]
    for name, content, frames, has_poses in (
        ("unknown", calibration(("front",)), 2, False),
        ("still", still, 2, True),
        ("known", known, 2, True),
        ("single", calibration(("front",)), 1, True),
    ):
        import_rig(write_rig(tmp_path / name, content, ("front",), frames), tmp_path / "out")
        dataset = NuScenes(tmp_path / "out")
        pipeline = pipe(45, 60, past=1)
        batch = pipeline.collate([pipeline(dataset, token) for token in dataset.tokens(name)])
        assert batch.has_poses == has_poses, name
    network = get_recipe("panoptic-flashocc-mini").model
    network = type(network)(pretrained=False, bev_channels=8, history=HistoryConfig(frames=1)).build().eval()
    pipeline = pipe(96, 256, past=1)
    batch = pipeline.collate([pipeline(dataset, dataset.tokens("unknown")[1])])
    with pytest.raises(DataError, match=r'"frames" its "ego2global", or write "stands_still": true'):
        network(batch)


@pytest.mark.parametrize(("stands_still", "words"), [("yes", "must be true or false"), (True, "2 of its frames have an ego2global")])
def test_standing_still_is_said_once(tmp_path, stands_still, words):
    content = calibration(("front",)) | {"stands_still": stands_still}
    content["frames"] = [{"ego2global": np.eye(4).tolist(), "images": {"front": f"front/00{k}.png"}} for k in (0, 1)]
    with pytest.raises(DataError, match=words):
        import_rig(write_rig(tmp_path / "rig", content, ("front",)), tmp_path / "out")


def tree(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_several_rigs_share_a_database(tmp_path):
    """Both begin at time 0, which scenes of one database may not; the second leaves the first in its split."""
    relative = calibration(("front",))
    del relative["cameras"][0]["images"]
    relative["frames"] = [
        {"timestamp": 0.0, "images": {"front": "front/000.png"}},
        {"timestamp": 0.1, "images": {"front": "front/001.png"}},
    ]
    import_rig(write_rig(tmp_path / "one", calibration()), tmp_path / "out")
    (tmp_path / "out" / "v1.0-trainval" / "splits.json").write_text('{"test": ["one"], "mine": ["one"]}')
    import_rig(write_rig(tmp_path / "two", relative, ("front",)), tmp_path / "out")
    import_rig(write_rig(tmp_path / "two", relative, ("front",)), tmp_path / "out")  # again
    dataset = NuScenes(tmp_path / "out")
    assert len(dataset.tokens("test")) == 4
    assert len(dataset.tokens("mine")) == 2
    assert json.loads((tmp_path / "out" / "v1.0-trainval" / "splits.json").read_text()) == {"test": ["one", "two"], "mine": ["one"]}
    alone = tmp_path / "alone"
    import_rig(tmp_path / "two", alone)
    times = [[d.sample(t).timestamp for t in d.tokens("test")] for d in (dataset, NuScenes(alone))]
    assert times[0][-2:] == times[1] or times[0][:2] == times[1]  # the start follows from the name alone
    assert np.diff(times[1]) == pytest.approx([0.1], abs=1e-5)


def test_equal_dates_are_refused_before_anything_is_written(tmp_path):
    content = calibration(("front",))
    del content["cameras"][0]["images"]
    content["frames"] = [{"timestamp": 1.7e9, "images": {"front": "front/000.png"}}]
    import_rig(write_rig(tmp_path / "one", content, ("front",)), tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(DataError, match="one and two start together"):
        import_rig(write_rig(tmp_path / "two", content, ("front",)), tmp_path / "out")
    assert tree(tmp_path / "out") == before
    import_rig(tmp_path / "one", tmp_path / "out")  # the database still works
    assert len(NuScenes(tmp_path / "out").tokens("test")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_the_images_of_the_user_keep_their_modes(tmp_path):
    folder = write_rig(tmp_path / "rig", calibration(("front",)), ("front",))
    for path in (folder / "front").iterdir():
        path.chmod(0o440)
    import_rig(folder, tmp_path / "out")
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder / "front").iterdir()} == {0o440}


def test_distortion_is_undone(tmp_path):
    content = calibration(("front", "rear"))
    content["cameras"][0]["distortion"] = LENS
    content["cameras"][1]["distortion"] = []  # none, as zeros are
    folder = write_rig(tmp_path / "rig", content, ("front", "rear"))
    assert import_rig(folder, tmp_path / "out")["undistorted_images"] == 2
    dataset = NuScenes(tmp_path / "out")
    front, rear = dataset.sample(dataset.tokens()[0]).cameras
    original = np.asarray(Image.open(folder / "front" / "000.png"))
    np.testing.assert_array_equal(np.asarray(front.open()), undistort_image(original, front.intrinsics, Lens("plumb_bob", tuple(LENS))))
    np.testing.assert_array_equal(np.asarray(rear.open()), np.asarray(Image.open(folder / "rear" / "000.png")))


def _set(key: str, value: Any):
    return lambda c: c["cameras"][0].__setitem__(key, value)


def _drop(*keys: str):
    return lambda c: [c["cameras"][0].pop(k) for k in keys]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("fx", 0.0), "fx is 0 pixels"),
        (_set("fx", float("nan")), "finite number"),
        (_set("fx", "wide"), "must be numbers"),
        (_set("width", 0), "the width is 0 pixels"),
        (_set("height", 2**40), "the height is 1.0995"),
        (_set("fx", 10**400), "must be numbers"),
        (_set("images", "**a/*.png"), "cannot be a pattern"),
        (_set("distortion", [1e25, 0, 0, 0, 0]), "a coefficient is 1e"),
        (_drop("fy", "cx"), "lacks fy, cx"),
        (_set("focal", 3), r"unknown key 'focal'"),
        (_set("imges", "x"), r"unknown key 'imges'; did you mean 'images'"),
        (lambda c: c.__setitem__("camera", []), "did you mean 'cameras'"),
        (lambda c: c.__setitem__("cameras", []), "one entry per camera"),
        (_set("name", "front camera"), "letters, digits"),
        (_set("name", "rear"), "names a camera twice"),
        (_set("images", "nowhere/*.png"), "no file matches"),
        (_set("images", ["front/000.png", "front/999.png"]), r"front/999\.png, which does not exist"),
        (_set("images", ["front/000.png"]), "different numbers of images"),
        (_drop("images"), 'needs "images"'),
        (_drop("cam2ego"), "lacks cam2ego"),
        (_set("cam2ego", (np.eye(4) * 2).tolist()), "not a rigid transform"),
        (_set("cam2ego", np.diag([1.0, 1, -1, 1]).tolist()), "not a rigid transform"),
        (_set("cam2ego", np.eye(3).tolist()), r"shape \(4, 4\)"),
        (_set("cam2ego", {"translation": [0, 0, 0], "rotation": [1, 1, 1, 1]}), "unit quaternion"),
        (_set("cam2ego", {"translation": [0, 0], "rotation": FORWARD}), r"translation in cam2ego"),
        (_set("cam2ego", {"translation": [0, 0, 0], "quaternion": FORWARD}), "unknown key 'quaternion'"),
        (_set("distortion", [0.1, 0.2, 0.3]), "has 3 numbers"),
        (_set("distortion", [-2.0, 0, 0, 0, 0]), "folds the image"),
        (_set("width", 240), r"has 120x90 pixels, but camera front is calibrated for 240x90"),
        (_set("cx", 400.0), "principal point"),
        (lambda c: c.__setitem__("pixel_origin", "middle"), "pixel_origin"),
        (lambda c: c.__setitem__("frames", []), "one frame or more"),
        (lambda c: c.__setitem__("frames", [{"images": {"frnt": "front/000.png"}}]), "did you mean 'front'"),
        (lambda c: c.__setitem__("frames", [{"images": {"front": "front/000.png"}}]), "has no image of rear, side"),
        (lambda c: c.__setitem__("frames", [{"image": {}}]), "unknown key 'image'; did you mean 'images'"),
    ],
)
def test_bad_calibrations_are_explained(tmp_path, change, message):
    content = copy.deepcopy(calibration())
    change(content)
    folder = write_rig(tmp_path / "rig", content)
    with pytest.raises(DataError, match=message):
        import_rig(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "v1.0-trainval" / "scene.json").exists()


def test_missing_and_broken_files_are_explained(tmp_path):
    with pytest.raises(DataError, match=r"calibration\.json does not exist"):
        import_rig(tmp_path, tmp_path / "out")
    folder = write_rig(tmp_path / "rig", "{not json")
    with pytest.raises(DataError, match="not valid JSON"):
        import_rig(folder, tmp_path / "out")
    write_rig(folder, calibration())
    whole = (folder / "side" / "001.png").read_bytes()
    (folder / "side" / "001.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot read the image .*side/001\.png"):
        import_rig(folder, tmp_path / "out")


def test_output_folder_that_cannot_be_written(tmp_path):
    folder = write_rig(tmp_path / "rig", calibration())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        import_rig(folder, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("focal", "words"),
    [(4.0, "fx of camera front is 4 pixels, .* would show 172 degrees"), (0.8, "fx is 0.8 pixels, .*in pixels, not millimetres or shares")],
)
def test_focal_lengths_that_are_not_pixels_are_refused(tmp_path: Path, focal: float, words: str) -> None:
    """Millimetres, and shares of the image."""
    content = calibration(("front",))
    content["cameras"][0].update(fx=focal, fy=focal)
    with pytest.raises(DataError, match=words):
        import_rig(write_rig(tmp_path / "rig", content, ("front",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_intrinsics_stated_twice_are_refused(tmp_path: Path) -> None:
    content = calibration(("front",))
    content["cameras"][0] |= {"fx": 100, "fy": 100, "cx": 59.5, "cy": 44.5, "intrinsics": [[90, 0, 59.5], [0, 90, 44.5], [0, 0, 1]]}
    with pytest.raises(DataError, match="gives intrinsics and fx, fy, cx, cy, which say the same"):
        import_rig(write_rig(tmp_path / "rig", content, ("front",)), tmp_path / "out")
