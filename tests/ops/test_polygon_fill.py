"""Polygons against masks that OpenCV 4.11 drew, against OpenCV itself where it is installed, and against plain geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import DataError, ShapeError
from frustum.ops.polygon_fill import draw_polylines, fill_convex_polygon, fill_polygons

GOLDEN = Path(__file__).parents[1] / "data" / "metrics" / "polygon_quads.npz"


def blank(height: int = 12, width: int = 12) -> np.ndarray:
    return np.zeros((height, width), np.uint8)


def picture(image: np.ndarray) -> list[str]:
    return ["".join(".#"[int(v > 0)] for v in row) for row in image]


def masks(packed: np.ndarray) -> np.ndarray:
    return np.unpackbits(packed)[: 300 * 32 * 32].reshape(300, 32, 32)


def test_quads_equal_the_masks_that_opencv_drew():
    with np.load(GOLDEN) as golden:
        quads = golden["quads"]
        filled, convex, thin, thick = (masks(golden[name]) for name in ("quad_masks", "convex_masks", "line_masks", "thick_line_masks"))
    assert any((q < 0).any() or (q > 31).any() for q in quads)  # some are clipped, some cross themselves
    for i, quad in enumerate(quads):
        np.testing.assert_array_equal(fill_polygons(blank(32, 32), [quad], 1), filled[i])
        np.testing.assert_array_equal(fill_convex_polygon(blank(32, 32), quad, 1), convex[i])
        np.testing.assert_array_equal(draw_polylines(blank(32, 32), [quad], 1), thin[i])
        np.testing.assert_array_equal(draw_polylines(blank(32, 32), [quad], 1, thickness=2), thick[i])


def random_polygons(rng: np.random.Generator, count: int):
    """Polygons of every kind: rectangles, many corners, several at once, half outside, far outside; small and large images."""
    for n in range(count):
        size = tuple(int(v) for v in rng.integers(1, 48, 2))
        low, high = ((0, 48), (-30, 80), (-5, 53), (-2000, 2000))[rng.integers(0, 4)]
        if n % 3 == 0:
            angle = rng.uniform(0, 7)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            half = rng.uniform(0, 25, 2) * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
            yield size, [np.round(rng.uniform(-10, 58, 2) + half @ turn.T).astype(np.int32)]
        else:
            shapes = rng.integers(1, 4) if n % 3 == 1 else 1
            yield size, [rng.integers(low, high, (rng.integers(1, 9), 2)).astype(np.int32) for _ in range(shapes)]


def test_equal_to_opencv_on_random_polygons():
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed; the golden quads were drawn by it")
    rng = np.random.default_rng(0)
    for size, polygons in random_polygons(rng, 6000):
        expected = cv2.fillPoly(blank(*size), polygons, 1)
        np.testing.assert_array_equal(fill_polygons(blank(*size), polygons, 1), expected, err_msg=f"{size} {polygons}")
        expected = cv2.fillConvexPoly(blank(*size), polygons[0], 1)
        np.testing.assert_array_equal(fill_convex_polygon(blank(*size), polygons[0], 1), expected, err_msg=f"{size} {polygons[0]}")
        for thickness in (1, 2) if cv2.__version__.startswith("4.") else (1,):
            expected = cv2.polylines(blank(*size), [polygons[0]], False, 1, thickness)
            drawn = draw_polylines(blank(*size), polygons[:1], 1, thickness)
            if len(polygons[0]) > 1:
                np.testing.assert_array_equal(drawn, expected, err_msg=f"{size} {polygons[0]} {thickness}")


@pytest.mark.parametrize("fill", [lambda i, p: fill_polygons(i, [p], 1), lambda i, p: fill_convex_polygon(i, p, 1)])
def test_rectangles_own_their_boundary(fill):
    image = fill(blank(), np.array([[2, 3], [6, 3], [6, 8], [2, 8]]))
    expected = blank()
    expected[3:9, 2:7] = 1
    np.testing.assert_array_equal(image, expected)


def test_shapes_by_hand():
    diamond = np.array([[3, 0], [6, 3], [3, 6], [0, 3]])
    assert picture(fill_polygons(blank(7, 7), [diamond], 1)) == [
        "...#...",
        "..###..",
        ".#####.",
        "#######",
        ".#####.",
        "..###..",
        "...#...",
    ]
    bow_tie = np.array([[0, 0], [6, 0], [0, 6], [6, 6]])  # the left and the right quarter are outside
    assert picture(fill_polygons(blank(7, 7), [bow_tie], 1)) == [
        "#######",
        ".#####.",
        "..###..",
        "...#...",
        "..###..",
        ".#####.",
        "#######",
    ]
    frame = [np.array([[0, 0], [6, 0], [6, 6], [0, 6]]), np.array([[2, 2], [4, 2], [4, 4], [2, 4]])]
    assert picture(fill_polygons(blank(7, 7), frame, 1))[2:5] == ["#######", "###.###", "#######"]  # the hole's outline is drawn
    assert picture(fill_polygons(blank(3, 3), [np.array([[1, 1]])], 1)) == ["...", ".#.", "..."]


def test_lines_by_hand():
    assert picture(draw_polylines(blank(3, 6), [np.array([[0, 0], [5, 2]])], 1)) == ["##....", "..##..", "....##"]
    thick = draw_polylines(blank(5, 8), [np.array([[1, 2], [6, 2]])], 1, thickness=2)
    assert picture(thick) == ["........", ".######.", "########", ".######.", "........"]


def test_values_overwrite_and_other_pixels_stay():
    image = np.full((6, 6), 9, np.uint8)
    fill_polygons(image, [np.array([[0, 0], [3, 0], [3, 3], [0, 3]])], 200)
    fill_convex_polygon(image, np.array([[2, 2], [5, 2], [5, 5], [2, 5]]), 2)
    assert (image[0, 0], image[2, 2], image[0, 5]) == (200, 2, 9)
    before = image.copy()
    np.testing.assert_array_equal(fill_polygons(image, [], 1), before)
    np.testing.assert_array_equal(fill_polygons(image, [np.zeros((0, 2), int)], 1), before)
    np.testing.assert_array_equal(fill_polygons(image, [np.array([[50, 50], [60, 50], [55, 70]])], 1), before)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), min_size=3, max_size=7))
def test_every_pixel_well_inside_is_set_and_none_well_outside(corners):
    polygon = np.array(corners)
    mask = fill_polygons(blank(20, 20), [polygon], 1).astype(bool)
    pixels = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2).astype(float)
    inside, near = np.zeros(len(pixels), bool), np.full(len(pixels), np.inf)
    for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        span = b - a
        along = np.clip(((pixels - a) @ span) / max(span @ span, 1), 0, 1)
        near = np.minimum(near, np.linalg.norm(pixels - a - along[:, None] * span, axis=1))
        crosses = (a[1] > pixels[:, 1]) != (b[1] > pixels[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (pixels[:, 0] < a[0] + (pixels[:, 1] - a[1]) / span[1] * span[0])
    sure = near > 0.75  # the outline strays from the edge by half a pixel along one axis
    np.testing.assert_array_equal(mask.reshape(-1)[sure], inside[sure])


def test_bad_input():
    square = np.array([[0, 0], [3, 0], [3, 3]])
    with pytest.raises(ShapeError, match="uint8, got float64"):
        fill_polygons(np.zeros((4, 4)), [square], 1)
    with pytest.raises(ShapeError, match=r"got uint8 \(1, 4, 4\)"):
        fill_convex_polygon(np.zeros((1, 4, 4), np.uint8), square, 1)
    with pytest.raises(ShapeError, match=r"vertices \(P, 2\)"):
        fill_polygons(blank(), [np.zeros((3, 3), int)], 1)
    with pytest.raises(DataError, match="whole pixels, got float64"):
        fill_polygons(blank(), [square * 0.5], 1)
    with pytest.raises(DataError, match="the limit is"):
        fill_polygons(blank(), [square + 2**31], 1)
    with pytest.raises(DataError, match="1 or 2 pixels thick, got 3"):
        draw_polylines(blank(), [square], 1, thickness=3)
