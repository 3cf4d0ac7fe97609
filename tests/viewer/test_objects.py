"""Objects in colours of their own, the same in both pictures where they match, and pages that show them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ShapeError
from frustum.types.classes import OCC3D_COLOURS, OCC3D_FREE
from frustum.viewer.objects import object_colour, objects_of, paint_objects, unmatched_colour
from frustum.viewer.pictures import occupancy_pictures, sample_picture
from frustum.viewer.report import report_html
from frustum.viewer.report_data import ReportData, SamplePanel

COUNT = len(OCC3D_COLOURS)


def scene(numbers=(5, 9)):
    semantics = np.full((20, 20, 4), OCC3D_FREE, np.uint8)
    semantics[..., 0] = 11
    semantics[4:8, 3:6, 1:3] = semantics[12:16, 3:6, 1:3] = 4
    objects = np.zeros(semantics.shape, np.int32)
    objects[4:8, 3:6, 1:3], objects[12:16, 3:6, 1:3] = numbers
    return semantics, objects


def test_objects_differ_and_the_rest_keeps_its_class():
    semantics, objects = scene()
    painted = paint_objects(semantics, objects, OCC3D_COLOURS)
    assert painted.labels.dtype == np.uint8
    np.testing.assert_array_equal(painted.labels[objects == 0], semantics[objects == 0])
    first, second = (np.unique(painted.labels[objects == n]) for n in (5, 9))
    assert [*first, *second] == [COUNT, COUNT + 1]
    assert len(painted.colours) == COUNT + 2
    assert painted.colours[COUNT] != painted.colours[COUNT + 1]
    brightness = np.array(painted.colours[:17]).min(1)
    assert (brightness > np.array(OCC3D_COLOURS[:17]).min(1)).all(), "what is no object is pale"


def test_the_same_object_has_the_same_colour_in_both_pictures():
    semantics, truth = scene((3, 4))
    guess = np.zeros_like(truth)
    guess[12:17, 3:6, 1:3] = 30  # mostly true object 4
    guess[0:2, 15:18, 1:3] = 40  # nothing there
    true = paint_objects(semantics, truth, OCC3D_COLOURS)
    found = paint_objects(semantics, guess, OCC3D_COLOURS, (truth, true))
    colour_of = lambda painted, where: painted.colours[int(painted.labels[where][0])]  # noqa: E731
    assert colour_of(found, guess == 30) == colour_of(true, truth == 4)
    assert colour_of(found, guess == 40) == unmatched_colour(0)


def test_two_halves_of_one_object_are_told_apart():
    semantics, truth = scene((3, 4))
    halves = truth.copy()
    halves[4:6][truth[4:6] == 3] = 7
    found = paint_objects(semantics, halves, OCC3D_COLOURS, (truth, paint_objects(semantics, truth, OCC3D_COLOURS)))
    assert len(np.unique(found.labels[halves > 0])) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 300))
def test_any_number_of_objects_fits_a_byte(seed, most):
    draw = np.random.default_rng(seed)
    semantics, objects = draw.integers(0, 18, (8, 8, 8)), draw.integers(0, most, (8, 8, 8))
    others = draw.integers(0, most, (8, 8, 8))
    beside = others, paint_objects(semantics, others, OCC3D_COLOURS)
    for painted in (beside[1], paint_objects(semantics, objects, OCC3D_COLOURS, beside)):
        assert len(painted.colours) <= 256
        assert painted.labels.max() < len(painted.colours)
    if most <= 100:
        labels = paint_objects(semantics, objects, OCC3D_COLOURS, beside).labels
        pairs = {(int(n), int(v)) for n, v in zip(objects[objects > 0], labels[objects > 0], strict=True)}
        assert len({n for n, _ in pairs}) == len({v for _, v in pairs}) == len(pairs)


def _lab(colours: list[tuple[int, int, int]]) -> np.ndarray:
    """CIE L*a*b*, in which 2.3 is the smallest difference people see."""
    c = np.array(colours) / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = c @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


def _least_distance(one: np.ndarray, other: np.ndarray) -> float:
    distance = np.linalg.norm(one[:, None] - other, axis=-1)
    return float(distance[distance > 0].min())


def test_colours_are_told_apart():
    bright, dull = (_lab([colour(i) for i in range(24)]) for colour in (object_colour, unmatched_colour))
    assert _least_distance(bright[:8], bright[:8]) > 40
    assert _least_distance(bright, bright) > 20
    assert _least_distance(dull[:6], dull[:6]) > 8
    assert _least_distance(bright, dull) > 10


def test_no_objects_and_wrong_shapes():
    semantics, objects = scene()
    painted = paint_objects(semantics, np.zeros_like(objects), OCC3D_COLOURS)
    np.testing.assert_array_equal(painted.labels, semantics)
    assert len(painted.colours) == COUNT
    with pytest.raises(ShapeError, match="shape of the semantics"):
        paint_objects(semantics, objects[:5], OCC3D_COLOURS)
    np.testing.assert_array_equal(objects_of(objects, [9]), np.where(objects == 9, 9, 0))


def test_pictures_and_pages_show_objects():
    semantics, objects = scene()
    plain = SamplePanel("street", prediction=semantics, truth=semantics, mask_camera=np.ones_like(semantics))
    panel = replace(plain, prediction_objects=objects, truth_objects=objects)
    pictures = occupancy_pictures(panel, size=(60, 90))
    assert pictures.prediction_objects.shape == (60, 90, 3)
    assert pictures.truth_objects_top.shape == (60, 60, 3)
    assert np.array_equal(pictures.prediction_objects, pictures.truth_objects)
    assert not np.array_equal(pictures.prediction_objects, pictures.prediction)
    without = occupancy_pictures(plain, size=(60, 90))
    assert without.prediction_objects is None
    assert sample_picture(panel, pictures=pictures).height > sample_picture(plain, pictures=without).height
    page = report_html(ReportData("a run", panels=[panel], picture_size=(60, 90)))
    assert "Predicted objects from above" in page
    assert "True objects, in the same colour" in page
    assert "objects from above" not in report_html(ReportData("a run", panels=[plain], picture_size=(60, 90)))
    alone = report_html(ReportData("a run", panels=[replace(panel, truth=None, truth_objects=None)], picture_size=(60, 90)))
    assert "Predicted objects" in alone
    assert "True objects" not in alone
