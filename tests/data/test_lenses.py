"""Lenses: each model against its formula, the image correction against the forward model, and what calibrations may state."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.data.lenses import Lens, field_of_view_of, lens_of, pinhole_of, undistort_image
from frustum.errors import DataError, FrustumWarning

INTRINSICS = np.array([[120.0, 0, 80.5], [0, 118.0, 60.2], [0, 0, 1]])
LENS = Lens("plumb_bob", (-0.28, 0.09, 0.001, -0.0015, -0.01))
FISHEYE = Lens("equidistant", (-0.012, 0.021, -0.018, 0.004))


def smooth_pattern(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A scene (*, 3), smooth, so that bilinear sampling is nearly exact; u, v in pixels of an ideal camera."""
    return np.stack([127 + 100 * np.sin(u / 17), 127 + 100 * np.cos(v / 13), 127 + 60 * np.sin((u + v) / 23)], -1)


def test_no_distortion_changes_nothing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    intrinsics = np.array([[60.0, 0, 25], [0, 60, 20], [0, 0, 1]])
    np.testing.assert_array_equal(undistort_image(image, intrinsics, Lens("plumb_bob", (0.0,) * 5)), image)


def test_a_distorted_photograph_becomes_the_ideal_one():
    """Photograph an analytic scene through the lens with the forward model; undistortion must give the scene back."""
    height, width = 120, 160
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    target = np.stack([(u - INTRINSICS[0, 2]) / INTRINSICS[0, 0], (v - INTRINSICS[1, 2]) / INTRINSICS[1, 1]], -1)
    ideal = target.copy()
    for _ in range(60):  # invert the forward model by fixed-point iteration: an independent way
        ideal += 0.7 * (target - LENS.distort(ideal))
    assert np.abs(LENS.distort(ideal) - target).max() < 1e-6
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
    np.testing.assert_allclose(Lens("plumb_bob", (k1, k2, p1, p2, 0)).distort(np.array([x, y])), expected, rtol=1e-12)


def test_what_the_lens_did_not_see_is_black():
    image = np.full((80, 100, 3), 200, np.uint8)
    intrinsics = np.array([[60.0, 0, 50], [0, 60, 40], [0, 0, 1]])
    result = undistort_image(image, intrinsics, Lens("plumb_bob", (0.25, 0, 0, 0, 0)))  # pincushion: corners lie outside the photograph
    assert not result[0, 0].any()
    assert (result[40, 50] == 200).all()


def test_a_lens_that_folds_is_refused():
    image = np.zeros((80, 100, 3), np.uint8)
    intrinsics = np.array([[40.0, 0, 50], [0, 40, 40], [0, 0, 1]])
    with pytest.raises(DataError, match=r"folds the image.*k1, k2, p1, p2, k3"):
        undistort_image(image, intrinsics, Lens("plumb_bob", (-0.9, 0, 0, 0, 0)))


def test_a_fisheye_ray_lands_where_it_belongs() -> None:
    """f 190 px: a ray at 45 degrees is 148.8 px from the centre of the photograph, and 190.0 px from that of the pinhole image."""
    angle = np.pi / 4
    expected = angle * (1 - 0.012 * angle**2 + 0.021 * angle**4 - 0.018 * angle**6 + 0.004 * angle**8)
    assert 190 * FISHEYE.distort(np.array([1.0, 0.0]))[0] == pytest.approx(190 * expected)
    intrinsics = np.array([[190.0, 0, 320], [0, 190, 240], [0, 0, 1]])
    photograph = np.zeros((480, 640, 3), np.uint8)
    at = 320 + 190 * expected
    photograph[:, round(at) - 3 : round(at) + 3] = 250
    row = undistort_image(photograph, intrinsics, FISHEYE)[240, :, 0].astype(float)
    centre = (row * (np.arange(640) + 0.5)).sum() / row.sum() - 320
    assert centre == pytest.approx(190.0, abs=0.7)
    wrong = undistort_image(photograph, intrinsics, Lens("plumb_bob", (*FISHEYE.coefficients, 0.0)))[240, :, 0].astype(float)
    assert abs((wrong * (np.arange(640) + 0.5)).sum() / wrong.sum() - 320 - 190) > 30


@pytest.mark.parametrize("field_of_view", [None, 70.0, 100.0])
def test_a_fisheye_photograph_becomes_the_ideal_one(field_of_view: float | None) -> None:
    """Photograph an analytic scene on a plane through the fisheye lens; the pinhole image shows it as its intrinsics say."""
    size, intrinsics = (200, 320), np.array([[110.0, 0, 158], [0, 108, 97], [0, 0, 1]])
    v, u = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    seen = np.stack([(u - 158) / 110, (v - 97) / 108], -1)
    bent = np.linalg.norm(seen, axis=-1)
    angles = np.linspace(0, 1.5, 20000)  # invert the polynomial by a table: an independent way
    k = FISHEYE.coefficients
    mapped = angles * (1 + sum(k[i] * angles ** (2 * i + 2) for i in range(4)))
    radius = np.tan(np.interp(bent, mapped, angles))
    plane = seen / np.maximum(bent, 1e-12)[..., None] * radius[..., None]
    photograph = smooth_pattern(60 * plane[..., 0], 60 * plane[..., 1]).round().astype(np.uint8)
    pinhole = pinhole_of(intrinsics, size, field_of_view)
    if field_of_view is not None:
        assert field_of_view_of(pinhole, size) == pytest.approx(field_of_view, abs=0.3)
    result = undistort_image(photograph, intrinsics, FISHEYE, pinhole)
    ideal = np.stack([(u - pinhole[0, 2]) / pinhole[0, 0], (v - pinhole[1, 2]) / pinhole[1, 1]], -1)
    expected = smooth_pattern(60 * ideal[..., 0], 60 * ideal[..., 1])
    middle = np.s_[60:140, 60:260]  # farther out the pattern is finer than the photograph
    assert np.abs(result[middle].astype(float) - expected[middle]).max() < 6


def test_the_rational_model() -> None:
    """OpenCV's formula for one point; with zeros in its denominator it is plumb_bob."""
    k1, k2, p1, p2, k3, k4, k5, k6 = given = (0.2, -0.1, 0.001, 0.002, 0.03, 0.3, -0.05, 0.01)
    x, y = 0.4, -0.3
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    expected = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    np.testing.assert_allclose(Lens("rational", given).distort(np.array([x, y])), expected)
    np.testing.assert_allclose(
        Lens("rational", (*given[:5], 0, 0, 0)).distort(np.array([x, y])), Lens("plumb_bob", given[:5]).distort(np.array([x, y]))
    )


@pytest.mark.parametrize(
    ("model", "numbers", "lens"),
    [
        (None, None, None), (None, [], None), (None, [0, 0, 0, 0], None), ("plumb_bob", [], None), ("radtan", [0] * 5, None),
        ("pinhole", None, None), ("none", [], None), ("pinhole", [0, 0, 0, 0, 0], None), (None, [0.0] * 8, None),
        (None, [0.1, 0, 0, 0, 0], Lens("plumb_bob", (0.1, 0, 0, 0, 0))), ("radtan", [0.1, 0, 0, 0], Lens("plumb_bob", (0.1, 0, 0, 0, 0))),
        (None, [0.1] * 8, Lens("rational", (0.1,) * 8)), ("rational_polynomial", [0.1] * 8 + [0] * 6, Lens("rational", (0.1,) * 8)),
        ("Kannala-Brandt", [0.1] * 4, Lens("equidistant", (0.1,) * 4)), ("fisheye", [0] * 4, Lens("equidistant", (0.0,) * 4)),
    ],
)  # fmt: skip
def test_what_calibrations_state(model: Any, numbers: Any, lens: Lens | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lens_of(model, numbers, "camera front") == lens


def test_four_numbers_without_a_model_are_noted() -> None:
    with pytest.warns(FrustumWarning, match=r'camera front has four numbers and no distortion_model.*"equidistant"'):
        assert lens_of(None, [-0.012, 0.021, -0.018, 0.004], "camera front") == Lens("plumb_bob", (-0.012, 0.021, -0.018, 0.004, 0.0))


@pytest.mark.parametrize(
    ("model", "numbers", "words"),
    [
        ("pinhole", [0.1, 0, 0, 0, 0], "said to be a pinhole camera"), ("equidistant", [0.1] * 5, "has 5 numbers; an equidistant"),
        ("equidistant", None, "has 0 numbers; an equidistant"), ("fisheye", [], "Zeros are a lens"),
        (None, [0.1] * 3, "has 3 numbers. Give"),
        ("plumb_bob", [0.1] * 8, "has 8 numbers for the distortion_model 'plumb_bob'"), (None, [0.1] * 14, "has 14 numbers"),
        ("double_sphere", [0.1] * 4, "not known; it may be pinhole, none, plumb_bob"), ("plumb_bob", None, r"\[\] stands for none"),
        (None, "no", "must be a list of numbers"), (None, [float("nan")] * 5, "must be finite"), (None, {"k1": 1}, "must be a list"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(model: Any, numbers: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        lens_of(model, numbers, "camera front")
