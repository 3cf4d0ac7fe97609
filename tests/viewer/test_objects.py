"""Objects in colours of their own, the same in both pictures where they match, and pages that show them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ShapeError
from frustum.types.classes import OCC3D_COLOURS, OCC3D_FREE
from frustum.types.layers import Legend
from frustum.viewer.drawing import draw_panel
from frustum.viewer.objects import object_colour, paint_objects, unmatched_colour
from frustum.viewer.pictures import sample_picture
from frustum.viewer.report import report_html
from frustum.viewer.report_data import Question, ReportData, SamplePanel
from tests.viewer.volumes import layer

COUNT = len(OCC3D_COLOURS)


def scene(numbers=(5, 9)):
    semantics = np.full((20, 20, 4), OCC3D_FREE, np.uint8)
    semantics[..., 0] = 11
    semantics[4:8, 3:6, 1:3] = semantics[12:16, 3:6, 1:3] = 4
    objects = np.zeros(semantics.shape, np.int32)
    objects[4:8, 3:6, 1:3], objects[12:16, 3:6, 1:3] = numbers
    return semantics, objects


def paint(semantics, objects, reference=None):
    return paint_objects(layer(semantics, objects=objects), reference)


def test_objects_differ_and_the_rest_keeps_its_class():
    semantics, objects = scene()
    painted = paint(semantics, objects)
    assert painted.labels.dtype == np.uint8
    np.testing.assert_array_equal(painted.labels[objects == 0], semantics[objects == 0])
    first, second = (np.unique(painted.labels[objects == n]) for n in (5, 9))
    assert [*first, *second] == [COUNT, COUNT + 1]
    assert len(painted.legend.colours) == COUNT + 2
    assert painted.legend.colours[COUNT] != painted.legend.colours[COUNT + 1]
    brightness = np.array(painted.legend.colours[:17]).min(1)
    assert (brightness > np.array(OCC3D_COLOURS[:17]).min(1)).all(), "what does not belong to an object is pale"


def test_the_same_object_has_the_same_colour_in_both_pictures():
    semantics, truth = scene((3, 4))
    guess = np.zeros_like(truth)
    guess[12:17, 3:6, 1:3] = 30  # mostly true object 4
    guess[0:2, 15:18, 1:3] = 40  # nothing there
    true = paint(semantics, truth)
    found = paint(semantics, guess, (layer(semantics, objects=truth), true))
    colour_of = lambda painted, where: painted.legend.colours[int(painted.labels[where][0])]  # noqa: E731
    assert colour_of(found, guess == 30) == colour_of(true, truth == 4)
    assert colour_of(found, guess == 40) == unmatched_colour(0)


def test_two_halves_of_one_object_are_distinct():
    semantics, truth = scene((3, 4))
    halves = truth.copy()
    halves[4:6][truth[4:6] == 3] = 7
    found = paint(semantics, halves, (layer(semantics, objects=truth), paint(semantics, truth)))
    assert len(np.unique(found.labels[halves > 0])) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 300))
def test_any_number_of_objects_fits_a_byte(seed, max_number):
    draw = np.random.default_rng(seed)
    semantics, objects = draw.integers(0, 18, (8, 8, 8)), draw.integers(0, max_number, (8, 8, 8))
    others = draw.integers(0, max_number, (8, 8, 8))
    reference = layer(semantics, objects=others), paint(semantics, others)
    for painted in (reference[1], paint(semantics, objects, reference)):
        assert len(painted.legend.colours) <= 256
        assert painted.labels.max() < len(painted.legend.colours)
    if max_number <= 100:
        labels = paint(semantics, objects, reference).labels
        pairs = {(int(n), int(v)) for n, v in zip(objects[objects > 0], labels[objects > 0], strict=True)}
        assert len({n for n, _ in pairs}) == len({v for _, v in pairs}) == len(pairs)


def _lab(colours: list[tuple[int, int, int]]) -> np.ndarray:
    """CIE L*a*b*, in which 2.3 is the smallest difference people see."""
    c = np.array(colours) / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = c @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


def _min_distance(one: np.ndarray, other: np.ndarray) -> float:
    distance = np.linalg.norm(one[:, None] - other, axis=-1)
    return float(distance[distance > 0].min())


def test_colours_are_distinct():
    bright, dull = (_lab([colour(i) for i in range(24)]) for colour in (object_colour, unmatched_colour))
    assert _min_distance(bright[:8], bright[:8]) > 40
    assert _min_distance(bright, bright) > 20
    assert _min_distance(dull[:6], dull[:6]) > 8
    assert _min_distance(bright, dull) > 10


def test_no_objects_and_wrong_shapes():
    semantics, objects = scene()
    painted = paint(semantics, np.zeros_like(objects))
    np.testing.assert_array_equal(painted.labels, semantics)
    assert len(painted.legend.colours) == COUNT
    with pytest.raises(ShapeError, match="shape of the semantics"):
        paint(semantics, objects[:5])


def test_pictures_and_pages_show_objects():
    semantics, objects = scene()
    mask = np.ones_like(semantics)

    def panel(with_objects, truth=True):
        prediction = layer(semantics, objects=objects if with_objects else None)
        true = [layer(semantics, mask, objects if with_objects else None)] if truth else []
        return SamplePanel("street", questions=[Question("Occupancy", [prediction], true)])

    drawn = draw_panel(panel(True), (60, 90))
    pictures = {picture.name: picture.image for row in drawn[0].tabs[0][1] for picture in row}
    assert pictures["predicted objects"].shape == (60, 90, 3)
    assert pictures["true objects from above"].shape == (60, 60, 3)
    assert np.array_equal(pictures["predicted objects"], pictures["true objects"])
    assert not np.array_equal(pictures["predicted objects"], pictures["prediction"])
    without = draw_panel(panel(False), (60, 90))
    assert not any("objects" in picture.name for row in without[0].tabs[0][1] for picture in row)
    assert sample_picture(panel(True), drawn=drawn).height > sample_picture(panel(False), drawn=without).height
    page = report_html(ReportData("a run", panels=[panel(True)], picture_size=(60, 90)))
    assert "Predicted objects from above" in page
    assert "True objects, in the same colour" in page
    assert "objects from above" not in report_html(ReportData("a run", panels=[panel(False)], picture_size=(60, 90)))
    alone = report_html(ReportData("a run", panels=[panel(True, truth=False)], picture_size=(60, 90)))
    assert "Predicted objects" in alone
    assert "True objects" not in alone


def test_objects_of_other_classes_are_not_matched():
    """Objects are compared where prediction and truth mean the same by an id; else each picture has its own colours."""
    semantics, objects = scene()
    other = layer(semantics, objects=objects)
    other = replace(other, legend=Legend(("thing", *other.legend.names[1:]), other.legend.colours))
    drawn = draw_panel(SamplePanel("street", questions=[Question("Occupancy", [layer(semantics, objects=objects)], [other])]), (60, 90))
    names = [picture.name for row in drawn[0].tabs[0][1] for picture in row]
    assert "agreement" not in names
    assert names.count("predicted objects") == names.count("true objects") == 1
