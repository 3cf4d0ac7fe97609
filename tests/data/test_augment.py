"""Bird's-eye-view augmentation: boxes, labels and the matrix move together."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.data.augment import BevTransform, draw, draw_bev, draw_colours, draw_image, fit_image
from frustum.data.pixels import ImageTransform
from frustum.data.sample import Occupancy
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid, box_corners, box_poses, transform_points
from frustum.recipes.finding import get_recipe
from tests.data.toy import random_labels

GRID = VoxelGrid.occ3d()
SMALL = VoxelGrid(lower=(-8, -8, -1), upper=(8, 8, 5.4), cell=(0.4, 0.4, 0.4))

transforms = st.builds(BevTransform, st.floats(-3.1, 3.1), st.floats(0.9, 1.1), st.booleans(), st.booleans())


def test_published_composition() -> None:
    bev = BevTransform(0.3, 1.05, flip_x=True, flip_y=False)
    c, s = math.cos(0.3), math.sin(0.3)
    expected = np.diag([-1, 1, 1]) @ (1.05 * np.eye(3) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]))
    np.testing.assert_allclose(bev.matrix()[:3, :3], expected, atol=1e-12)
    assert np.array_equal(BevTransform().matrix(), np.eye(4))


@settings(max_examples=50, deadline=None)
@given(transforms, st.integers(0, 1000))
def test_boxes_move_like_their_corners(bev: BevTransform, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.concatenate(
        [rng.uniform(-20, 20, (5, 3)), rng.uniform(0.5, 5, (5, 3)), rng.uniform(-4, 4, (5, 1)), rng.normal(size=(5, 2))], 1
    )
    moved = bev.boxes(boxes)
    corners = transform_points(bev.matrix(), box_corners(box_poses(boxes), boxes[:, 3:6]))
    again = box_corners(box_poses(moved), moved[:, 3:6])
    for a, b in zip(corners, again, strict=True):  # a mirrored box lists its corners in another order
        np.testing.assert_allclose(a[np.lexsort(a.round(6).T)], b[np.lexsort(b.round(6).T)], atol=1e-6)
    front = transform_points(bev.matrix(), transform_points(box_poses(boxes), np.array([[[1.0, 0, 0]]])))[:, 0] - moved[:, :3]
    heading = np.stack([np.cos(moved[:, 6]), np.sin(moved[:, 6])], -1) * bev.scale
    np.testing.assert_allclose(front[:, :2], heading, atol=1e-9)
    later = boxes.copy()
    later[:, :2] += boxes[:, 7:9]  # one second on
    np.testing.assert_allclose(bev.boxes(later)[:, :2] - moved[:, :2], moved[:, 7:9], atol=1e-9)
    assert (abs(moved[:, 6]) <= math.pi).all()


@pytest.mark.parametrize(("flip_x", "flip_y"), [(True, False), (False, True), (True, True)])
def test_flips_of_labels_are_exact(flip_x: bool, flip_y: bool) -> None:
    labels = random_labels(0)
    bev = BevTransform(flip_x=flip_x, flip_y=flip_y)
    moved = bev.labels(labels, GRID)
    centres = GRID.centres(torch.float64)
    where, inside = GRID.indices(torch.from_numpy(transform_points(bev.matrix(), centres.reshape(-1, 3).numpy())))
    assert inside.all()
    x, y, z = where.T.numpy()
    for name in ("semantics", "mask_lidar", "mask_camera", "instances"):
        np.testing.assert_array_equal(getattr(moved, name)[x, y, z], getattr(labels, name).ravel())
        assert getattr(moved, name).flags.c_contiguous
    assert bev.labels(replace(labels, instances=None), GRID).instances is None
    again = bev.labels(moved, GRID)
    np.testing.assert_array_equal(again.semantics, labels.semantics)


def test_turning_by_a_quarter_is_exact() -> None:
    labels = random_labels(1, SMALL.shape)
    moved = BevTransform(rotate=math.pi / 2).labels(labels, SMALL)
    np.testing.assert_array_equal(moved.semantics, np.rot90(labels.semantics, axes=(0, 1)))
    flipped = BevTransform(rotate=math.pi / 2, flip_x=True).labels(labels, SMALL)
    np.testing.assert_array_equal(flipped.semantics, np.rot90(labels.semantics, axes=(0, 1))[::-1])


@settings(max_examples=20, deadline=None)
@given(transforms)
def test_turned_and_scaled_labels_follow_the_matrix(bev: BevTransform) -> None:
    solid = np.full(SMALL.shape, 17, np.uint8)
    solid[25:33, 10:18, 4:8] = 4  # a block of 3.2 x 3.2 x 1.6 m
    seen = np.ones(SMALL.shape, np.uint8)
    moved = bev.labels(Occupancy(solid, seen, seen), SMALL)
    inside = transform_points(np.linalg.inv(bev.matrix()), SMALL.centres(torch.float64).numpy().reshape(-1, 3)).reshape(*SMALL.shape, 3)
    low, high = np.array([2.0, -4.0, 0.6]), np.array([5.2, -0.8, 2.2])
    deep = ((inside > low + 0.01) & (inside < high - 0.01)).all(-1)
    away = ((inside < low - 0.01) | (inside > high + 0.01)).any(-1)
    assert (moved.semantics[deep] == 4).all()
    assert (moved.semantics[away] != 4).all()
    outside = ((inside < np.array(SMALL.lower) - 0.01) | (inside > np.array(SMALL.upper) + 0.01)).any(-1)
    if bev.rotate or bev.scale != 1:
        assert (moved.semantics[outside] == 255).all()
        assert not moved.mask_camera[outside].any()
        assert moved.mask_camera[deep].all()


def test_flips_need_a_symmetric_grid() -> None:
    ahead = VoxelGrid(lower=(0, -8, -1), upper=(16, 8, 5.4), cell=(0.4, 0.4, 0.4))
    with pytest.raises(ConfigError, match=r"augment.bev_flip_x=0"):
        AugmentConfig().check(ahead)
    AugmentConfig(bev_flip_x=0).check(ahead)
    AugmentConfig().check(GRID)


def test_draws_stay_in_their_ranges_and_repeat() -> None:
    augment = AugmentConfig(bev_rotate_deg=(-20, 20), bev_scale=(0.95, 1.05), colour_jitter=0.2)
    images, bevs = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        images.append(draw_image(augment, rng, (900, 1600), (256, 704)))
        bevs.append(draw_bev(augment, rng))
        assert all(0.8 <= f <= 1.2 for f in draw_colours(augment, rng))
    assert draw_image(augment, np.random.default_rng(7), (900, 1600), (256, 704)) == images[7]
    scales = np.array([i.resized[1] / 1600 for i in images])
    assert 0.379 < scales.min() < 0.4 < 0.53 < scales.max() < 0.551
    assert all(i.top == i.resized[0] - 256 and 0 <= i.left <= max(0, i.resized[1] - 704) for i in images)
    assert all(abs(i.rotate_deg) <= 5.4 for i in images)
    for share in (np.mean([i.flip for i in images]), np.mean([b.flip_x for b in bevs]), np.mean([b.flip_y for b in bevs])):
        assert 0.35 < share < 0.65
    assert all(abs(b.rotate) <= math.radians(20) and 0.95 <= b.scale <= 1.05 for b in bevs)


def test_cameras_share_a_draw_if_asked() -> None:
    """PETR and 3DPPE draw once for all cameras of a sample, BEVDet once for each."""
    sources, published = [(900, 1600)] * 3, get_recipe("ppe3d-r50").augment
    for augment, count in ((AugmentConfig(), 3), (AugmentConfig(shared=True), 1), (published, 1)):
        drawn, again = (draw(augment, np.random.default_rng(seed), sources, (256, 704)).images for seed in (0, 1))
        assert len({image.matrix().tobytes() for image in drawn}) == count
        assert not np.array_equal(again[0].matrix(), drawn[0].matrix())


def test_whether_pixels_move() -> None:
    still = AugmentConfig(resize=(0, 0), rotate_deg=(0, 0), flip=False)
    assert not still.moves_pixels
    assert draw_image(still, np.random.default_rng(0), (96, 256), (96, 256)).matrix().tolist() == np.eye(3).tolist()
    for change in ({"resize": (0, 0.1)}, {"rotate_deg": (-1, 1)}, {"flip": True}, {"crop_h": (0, 0.1)}, {"crop_h": (0.1, 0.1)}):
        assert still.model_copy(update=change).moves_pixels


def test_the_published_evaluation_of_3dppe() -> None:
    """0.54 of 1600 pixels: 864 x 486, of which the bottom and the middle are kept."""
    fit = fit_image(AugmentConfig(eval_resize=0.04), (900, 1600), (320, 800))
    assert (fit.resized, fit.left, fit.top, fit.flip, fit.rotate_deg) == ((486, 864), 32, 166, False, 0)
    np.testing.assert_allclose(fit.matrix(), [[0.54, 0, -32], [0, 0.54, -166], [0, 0, 1]], atol=1e-12)
    assert fit_image(AugmentConfig(), (900, 1600), (320, 800)) == ImageTransform.fit((900, 1600), (320, 800))
    assert fit_image(AugmentConfig(eval_resize=0.04, crop_h=(0.1, 0.3)), (900, 1600), (320, 800)).top == int(0.8 * 486) - 320
    with pytest.raises(ConfigError, match=r"cannot be scaled by -0\.5"):
        fit_image(AugmentConfig(eval_resize=-1.0), (900, 1600), (320, 800))


@pytest.mark.parametrize(("tag", "extra"), [("testV2", 0.04), ("testV1", 0.0)])
def test_evaluation_fits_images_as_the_reference(shared: Path, tag: str, extra: float) -> None:
    """V2 is 3DPPE's fit, V1 that of PETR, whose larger ratio of the sides is that of the widths here."""
    with np.load(shared / "golden" / "3dppe" / "misc.npz") as misc:
        scale, *window, flip, rotate = misc[f"ida_{tag}_params"]
        intrinsics, expected = misc["rig_cam2img"], misc[f"ida_{tag}_intr"][:, :3, :3]
    fit = fit_image(AugmentConfig(eval_resize=extra), (900, 1600), (320, 800))
    assert (fit.left, fit.top, fit.left + 800, fit.top + 320, fit.flip, fit.rotate_deg) == (*window, bool(flip), rotate)
    assert fit.resized == (int(900 * scale), int(1600 * scale))
    np.testing.assert_allclose(fit.matrix() @ intrinsics, expected, atol=1e-4)  # pixels: the reference computes in float32


@pytest.mark.parametrize("tag", ["trainV2_s3", "trainV2_s6", "trainV2_s8", "trainV1_s6"])
def test_training_crops_images_as_the_reference(shared: Path, tag: str) -> None:
    """With what it drew. Resized sides are whole pixels, which our matrix knows; and the origin of a mirror is half a pixel elsewhere."""
    with np.load(shared / "golden" / "3dppe" / "misc.npz") as misc:
        scale, left, top, right, bottom, flip, _ = misc[f"ida_{tag}_params"]
        intrinsics, expected = misc["rig_cam2img"], misc[f"ida_{tag}_intr"][:, :3, :3]
    share = (left + 0.5) / (int(1600 * scale) - 800)
    fit = ImageTransform.scaled((900, 1600), (320, 800), scale, crop_w=share, flip=bool(flip))
    assert (fit.left, fit.top, fit.left + 800, fit.top + 320) == (left, top, right, bottom)
    augment = AugmentConfig(resize=(-0.06, 0.11) if "V2" in tag else (-0.03, 0.125))
    assert augment.resize[0] <= scale - 0.5 <= augment.resize[1]
    expected = expected + np.array([[0.0, 0, float(flip)], [0, 0, 0], [0, 0, 0]])
    for corner in ([0, 0, 1], [1600, 0, 1], [0, 900, 1], [1600, 900, 1]):
        rays = np.linalg.inv(intrinsics) @ np.array(corner)
        ours, theirs = ((m @ rays[..., None])[..., 0] for m in (fit.matrix() @ intrinsics, expected))
        assert np.abs(ours[:, :2] / ours[:, 2:] - theirs[:, :2] / theirs[:, 2:]).max() < 1
