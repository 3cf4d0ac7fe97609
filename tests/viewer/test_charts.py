"""Charts: round ticks, honest lines, valid SVG."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frustum.viewer.charts import HEIGHT, WIDTH, line_chart, nice_ticks, short_number, smooth


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 8))
def test_ticks_span_the_range_in_even_steps(low, extent, max_count):
    high = low + extent
    if high <= low:
        return
    ticks = nice_ticks(low, high, max_count)
    slack = 1e-6 * extent + 1e-9 * abs(low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= max_count + 2
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)


def test_ticks_of_one_value():
    assert nice_ticks(2.0, 2.0)[0] <= 2.0 <= nice_ticks(2.0, 2.0)[-1]
    assert nice_ticks(0, 4) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1500, "1.5k"), (2e6, "2M"), (2.5e-4, "2.5e-4"), (1e-5, "1e-5"), (12, "12")]
)
def test_short_numbers(value, text):
    assert short_number(value) == text


def test_smoothing_keeps_constants_and_calms_noise():
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)
    noise = np.random.default_rng(0).normal(size=500)
    assert np.std(smooth(list(noise))) < 0.5 * np.std(noise)
    assert smooth([]) == []


def test_a_chart_is_valid_svg_inside_its_frame():
    steps = list(range(1000))
    text = line_chart("A & B <loss>", steps, {"a": [math.exp(-s / 300) for s in steps], "b<": [math.nan] * 500 + [0.5] * 500})
    figure = ElementTree.fromstring(text)
    lines = figure.findall(".//polyline")
    assert len(lines) == 4
    for line in lines:
        points = np.array([p.split(",") for p in line.get("points").split()], float)
        assert len(points) <= 400
        assert (points >= 0).all()
        assert (points <= (WIDTH, HEIGHT)).all()
    falling = np.array([p.split(",") for p in lines[1].get("points").split()], float)
    assert (np.diff(falling[:, 0]) > 0).all()
    assert falling[0, 1] < falling[-1, 1]  # large values are high up
    assert "A & B <loss>" in "".join(figure.itertext())


def test_early_spikes_do_not_flatten_the_curve():
    values = [1000.0] + [1.0 + 0.001 * i for i in range(300)]
    figure = ElementTree.fromstring(line_chart("loss", range(301), {"loss": values}, smoothed=False))
    points = np.array([p.split(",") for p in figure.find(".//polyline").get("points").split()], float)
    assert np.ptp(points[10:, 1]) > 20


def test_nothing_to_draw_is_no_chart():
    assert line_chart("x", [], {}) == ""
    assert line_chart("x", [1.0], {"a": [2.0]}) == ""
    assert line_chart("x", [1.0, 2.0], {"a": [math.nan, math.inf]}) == ""
    assert line_chart("x", [1, None, "3"], {"a": [1.0, 2.0, 3.0], "b": [None, 1.0, "2"]}) == "", "not numbers"
