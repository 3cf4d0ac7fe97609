"""Check pictures: that marks land where geometry says, and that all files appear."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.augment import BevTransform, draw_image
from frustum.data.labels.view_points import CLASSES, ImagePoints
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.pixels import ImageTransform
from frustum.data.source import AugmentConfig
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.types.classes import IGNORE, colour_of
from frustum.viewer.boxes import line_colour
from frustum.viewer.overlay import (
    above_picture,
    camera_picture,
    class_picture,
    depth_colours,
    draw_check,
    first_voxels,
    project_points,
    voxel_picture,
)
from tests.data.consistent import CAM2EGO, INTRINSICS, SIZE, VERSION, objects, photograph, write_consistent

PLAIN = ImageTransform.fit(SIZE, SIZE)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    root = write_consistent(tmp_path_factory.mktemp("overlay"), frames=1)
    dataset = NuScenes(root, VERSION)
    return dataset.sample(dataset.tokens()[0])


def test_all_pictures_are_written(sample, tmp_path):
    files = draw_check(sample, tmp_path / "new", augment=AugmentConfig(), image_size=(64, 176), width=200)
    assert [f.stem.rsplit("_", 1)[1] for f in files] == ["stitched", "points", "voxels", "above", "augmented"]
    sizes = [Image.open(f).size for f in files]
    assert sizes[0][0] == 800
    assert sizes[1] == sizes[2] == (200 * 2 + 4, 100)
    assert sizes[3] == (800 * 2 + 4, 800)
    again = draw_check(sample, tmp_path / "again", augment=AugmentConfig(), image_size=(64, 176), width=200)
    assert [a.read_bytes() for a in again] == [f.read_bytes() for f in files]  # the same seed, the same draw
    assert not list(tmp_path.rglob("*.tmp*"))


def test_what_grid_mask_hides_is_hidden(sample, tmp_path):
    """Pixels and points have the colour that is 0 for the network; boxes are learned all the same, and drawn."""
    still = {"resize": (0, 0), "rotate_deg": (0, 0), "flip": False, "bev_flip_x": 0, "bev_flip_y": 0}
    (bare, masked), blank = (
        [
            np.asarray(Image.open(draw_check(sample, tmp_path / f"{p}", augment=AugmentConfig(grid_mask=p, **still), image_size=SIZE,
                                             blank=(11, 22, 33))[-1]))[: SIZE[0], : SIZE[1]]
            for p in (0.0, 1.0)
        ],
        np.array([11, 22, 33]),
    )  # fmt: skip
    is_blank = (masked == blank).all(-1)
    assert 0.1 < is_blank.mean() < 0.6
    np.testing.assert_array_equal(masked[~is_blank], bare[~is_blank])
    assert not (bare == blank).all(-1).any()
    lines = line_colour(colour_of("car"))
    is_line = (bare == np.array(lines)).all(-1)
    assert is_line.sum() > 100
    assert (masked[is_line] == np.array(lines)).all()


def test_a_sample_with_images_only(sample, tmp_path):
    bare = dataclasses.replace(sample, lidar=None, boxes=None, occupancy=None)
    files = draw_check(bare, tmp_path, width=200)
    assert [f.stem.rsplit("_", 1)[1] for f in files] == ["stitched", "ground", "above"]
    with_labels = draw_check(dataclasses.replace(sample, lidar=None), tmp_path / "labels", width=200)
    assert Image.open(with_labels[-1]).size == (800 * 2 + 4, 800), "labels, and the fields of view beside them"


def test_an_unreadable_image_does_not_stop_the_rest(sample, tmp_path):
    broken = dataclasses.replace(sample.cameras[0], path=tmp_path / "gone.png")
    files = draw_check(dataclasses.replace(sample, cameras=(broken, sample.cameras[1])), tmp_path / "out", width=200)
    assert len(files) == 4


def test_a_folder_that_cannot_be_written(sample, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        draw_check(sample, tmp_path / "file" / "out")


def test_points_lie_on_their_objects(sample):
    """Each object has its own grey, so a projected point must meet the grey of the object that it was measured on."""
    points = sample.lidar.load()
    for camera in sample.cameras:
        pixels, depth = project_points(points, sample.lidar, camera, camera.intrinsics, SIZE)
        assert len(pixels) > 1000
        assert (np.diff(depth) <= 0).all()  # far ones first: near ones are drawn over them
        image = photograph(0, camera.channel)[..., 0]
        column, row = np.floor(pixels).astype(int).T
        near_object = depth < 20
        grey = image[row, column]
        is_object = grey < 100
        edge = np.zeros(SIZE, bool)
        edge[:, 1:] |= image[:, 1:] != image[:, :-1]
        edge[1:] |= image[1:] != image[:-1]
        inner = ~edge[row, column] & near_object
        rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(INTRINSICS).T * depth[:, None]
        ego = rays @ camera.cam2ego[:3, :3].T + camera.cam2ego[:3, 3]
        on_ground = np.abs(ego[:, 2]) < 0.03
        assert (is_object[inner & ~on_ground]).mean() > 0.95
        assert (~is_object[inner & on_ground]).mean() > 0.95  # the camera sees other things in front of some


def test_points_follow_an_augmented_image(sample):
    transform = draw_image(AugmentConfig(), np.random.default_rng(3), SIZE, (96, 192))
    camera = sample.cameras[0]
    points = sample.lidar.load()
    plain, depth = project_points(points, sample.lidar, camera, camera.intrinsics, SIZE)
    moved, moved_depth = project_points(points, sample.lidar, camera, transform.matrix() @ camera.intrinsics, transform.size)
    expected = plain @ transform.matrix()[:2, :2].T + transform.matrix()[:2, 2]
    inside = ((expected >= 0) & (expected < [192, 96])).all(1)
    np.testing.assert_allclose(expected[inside][:50], moved[np.isin(moved_depth, depth[inside])][:50], atol=1e-6)


def test_voxels_are_what_the_pixel_looks_at(sample):
    camera = sample.cameras[0]
    labels, coords = first_voxels(sample.occupancy.layer(VoxelGrid.occ3d()), sample, camera, camera.intrinsics, SIZE)
    assert labels.shape == SIZE
    assert labels[5, 5] == 17  # sky
    assert labels[-2, SIZE[1] // 2] == 11  # road at the feet
    hit = labels != 17
    assert (sample.occupancy.semantics[tuple(coords[hit].T)] == labels[hit]).all()
    grey = photograph(0, camera.channel)[..., 0]
    agree = (labels == 4) == (grey < 100)
    assert agree.mean() > 0.9
    centres = np.array(VoxelGrid.occ3d().lower) + (coords[labels == 4] + 0.5) * 0.4
    distance = np.abs(centres[:, None] - objects()[None, :, :3]) - objects()[None, :, 3:] / 2
    assert (distance.max(-1).min(1) < 1e-6).all()  # every red pixel looks at a voxel inside an object


def test_a_camera_inside_a_voxel_is_not_blind(sample):
    semantics = sample.occupancy.semantics.copy()
    cell = np.floor((CAM2EGO["CAM_FRONT"][:3, 3] - VoxelGrid.occ3d().lower) / 0.4).astype(int)
    semantics[tuple(cell)] = 15
    voxels = dataclasses.replace(sample.occupancy, semantics=semantics).layer(VoxelGrid.occ3d())
    labels, _ = first_voxels(voxels, sample, sample.cameras[0], INTRINSICS, SIZE)
    assert not (labels == 15).any()


def test_sky_keeps_its_pixels(sample):
    camera = sample.cameras[0]
    drawn = np.asarray(voxel_picture(sample.occupancy.layer(VoxelGrid.occ3d()), sample, camera, PLAIN))
    original = photograph(0, camera.channel)
    np.testing.assert_array_equal(drawn[3, 3], original[3, 3])
    assert (drawn[-3, 100] != original[-3, 100]).any()


def test_labels_are_squares_of_their_class_over_a_darkened_image(sample):
    """In an image of twice the size; the nearer one lies over the farther, which is smaller."""
    camera, (height, width) = sample.cameras[0], SIZE
    twice = ImageTransform.scaled(SIZE, (2 * height, 2 * width), 2.0)
    car, road = (CLASSES.index(name) for name in ("car", "driveable_surface"))
    rows = [(20.25, 10.25, 5, car), (20.75, 10.25, 60, road), (60.25, 30.25, 60, road), (90.25, 40.25, 10, IGNORE)]
    pixels, depth, classes = (
        np.array([row[part] for row in rows], kind) for part, kind in ((slice(0, 2), np.float32), (2, np.float32), (3, np.uint8))
    )
    drawn = np.asarray(class_picture(camera, twice, ImagePoints(pixels, depth, classes)))
    dark = np.asarray(class_picture(camera, twice, ImagePoints(pixels[:0], depth[:0], classes[:0])))
    original = np.asarray(Image.fromarray(photograph(0, camera.channel)).resize((2 * width, 2 * height), Image.Resampling.BILINEAR))
    assert np.abs(dark.astype(int) - original // 2).mean() < 1
    assert drawn.shape == (2 * height, 2 * width, 3)
    wanted = dark.copy()
    wanted[60, 120] = line_colour(colour_of("driveable_surface"))
    wanted[19:22, 39:42] = line_colour(colour_of("car"))
    wanted[79:82, 179:182] = 255
    np.testing.assert_array_equal(drawn, wanted)


def test_pictures_of_2d_labels_are_written(sample, tmp_path):
    none = ImagePoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8))
    files = draw_check(sample, tmp_path, width=200, labels=[none] * len(sample.cameras))
    assert [f.stem.rsplit("_", 1)[1] for f in files] == ["stitched", "points", "classes", "voxels", "above"]


def test_boxes_frame_their_objects(sample):
    """Without points, what changes in the picture are the boxes' lines: near the contour of the objects, not in the sky."""
    camera = sample.cameras[0]
    drawn = np.asarray(camera_picture(dataclasses.replace(sample, lidar=None), camera, PLAIN, None)).astype(int)
    changed = np.abs(drawn - photograph(0, camera.channel)).sum(-1) > 0
    assert 0.01 < changed.mean() < 0.5
    assert not changed[:25].any()


def test_the_view_from_above_has_forward_up(sample):
    """A box ahead on the left is drawn in the upper left quarter; after a flip of y in the upper right one."""
    one = dataclasses.replace(
        sample.boxes, boxes=np.array([[20.0, 15, 1, 6, 3, 2, 0.3, 0, 0]]), box2ego=sample.boxes.box2ego[:1], names=["car"]
    )
    scene = dataclasses.replace(sample, lidar=None, occupancy=None, boxes=one)

    def quarter(bev: BevTransform) -> tuple[bool, bool]:
        pixels = np.asarray(above_picture(scene, None, VoxelGrid.occ3d(), bev)).astype(int)
        rows, columns = np.nonzero(pixels[..., 2] - pixels[..., 0] > 60)
        return bool(rows.mean() < 400), bool(columns.mean() < 400)

    assert quarter(BevTransform()) == (True, True)
    assert quarter(BevTransform(flip_y=True)) == (True, False)
    assert quarter(BevTransform(flip_x=True)) == (False, True)


def test_depth_colours_go_from_red_to_blue():
    near, middle, far = depth_colours(np.array([2.0, 10.0, 60.0])).astype(int)
    assert near[0] > near[2]
    assert middle[1] > 150
    assert far[2] >= far[0]


@pytest.mark.data
def test_real_keyframe(shared, tmp_path):
    dataset = NuScenes(shared / "data" / "nuscenes_keyframes", "v1.0-mini")
    files = draw_check(dataset.sample(dataset.tokens()[0]), Path(tmp_path), width=320)
    assert [f.stem.rsplit("_", 1)[1] for f in files] == ["stitched", "points", "above"]
    colours = np.asarray(Image.open(files[1]))
    assert colours.shape == (180 * 2 + 4, 320 * 3 + 8, 3)
