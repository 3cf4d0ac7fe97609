"""Lens distortion: the image correction against the forward model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.data.rig.undistort import distort, undistort_image
from frustum.errors import DataError

INTRINSICS = np.array([[120.0, 0, 80.5], [0, 118.0, 60.2], [0, 0, 1]])
LENS = np.array([-0.28, 0.09, 0.001, -0.0015, -0.01])


def smooth_pattern(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A scene (*, 3), smooth, so that bilinear sampling is nearly exact; u, v in pixels of an ideal camera."""
    return np.stack([127 + 100 * np.sin(u / 17), 127 + 100 * np.cos(v / 13), 127 + 60 * np.sin((u + v) / 23)], -1)


def test_no_distortion_changes_nothing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    intrinsics = np.array([[60.0, 0, 25], [0, 60, 20], [0, 0, 1]])
    np.testing.assert_array_equal(undistort_image(image, intrinsics, np.zeros(5)), image)


def test_a_distorted_photograph_becomes_the_ideal_one():
    """Photograph an analytic scene through the lens with the forward model; undistortion must give the scene back."""
    height, width = 120, 160
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    target = np.stack([(u - INTRINSICS[0, 2]) / INTRINSICS[0, 0], (v - INTRINSICS[1, 2]) / INTRINSICS[1, 1]], -1)
    ideal = target.copy()
    for _ in range(60):  # invert the forward model by fixed-point iteration: an independent way
        ideal += 0.7 * (target - distort(ideal, LENS))
    assert np.abs(distort(ideal, LENS) - target).max() < 1e-6
    seen = ideal * [INTRINSICS[0, 0], INTRINSICS[1, 1]] + INTRINSICS[:2, 2]
    photograph = smooth_pattern(seen[..., 0], seen[..., 1]).round().astype(np.uint8)
    result = undistort_image(photograph, INTRINSICS, LENS)
    known = result.any(-1)
    expected = smooth_pattern(u, v)
    assert known.mean() > 0.95
    assert np.abs(result[known].astype(float) - expected[known]).max() < 4
    assert np.abs(photograph[known].astype(float) - expected[known]).max() > 30  # the lens did something


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.3, 0.3), st.floats(-0.1, 0.1), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01))
def test_distortion_formula(k1, k2, p1, p2):
    """Against the formula written out for one point."""
    x, y = 0.31, -0.22
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2
    expected = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2), y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y
    np.testing.assert_allclose(distort(np.array([x, y]), np.array([k1, k2, p1, p2, 0])), expected, rtol=1e-12)


def test_what_the_lens_did_not_see_is_black():
    image = np.full((80, 100, 3), 200, np.uint8)
    intrinsics = np.array([[60.0, 0, 50], [0, 60, 40], [0, 0, 1]])
    result = undistort_image(image, intrinsics, np.array([0.25, 0, 0, 0, 0]))  # pincushion: corners lie outside the photograph
    assert not result[0, 0].any()
    assert (result[40, 50] == 200).all()


def test_a_lens_that_folds_is_refused():
    image = np.zeros((80, 100, 3), np.uint8)
    intrinsics = np.array([[40.0, 0, 50], [0, 40, 40], [0, 0, 1]])
    with pytest.raises(DataError, match=r"folds the image.*k1, k2, p1, p2, k3"):
        undistort_image(image, intrinsics, np.array([-0.9, 0, 0, 0, 0]))
