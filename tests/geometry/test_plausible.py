"""What numbers can be, kind by kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.errors import DataError
from frustum.geometry import pose, rotation_xyz
from frustum.geometry.plausible import (
    BOX,
    NEAR,
    WORLD,
    first_fault,
    intrinsics_fault,
    plausible_points,
    pose_fault,
    pose_row_fault,
)

NAN, INF = float("nan"), float("inf")
CAR = [10.0, -3.0, 1.0, 4.5, 1.9, 1.6, 0.3, 2.0, NAN]


@pytest.mark.parametrize(
    ("column", "values"),
    [(0, [NAN, INF, 2e4, -1e300]), (3, [0.0, -4.5, NAN, 1e-9, 201.0, INF]), (6, [NAN, INF]), (7, [INF, 301.0]), (8, [-INF])],
)
def test_of_a_box_velocities_alone_may_be_unknown(column: int, values: list[float]) -> None:
    assert first_fault(np.array([CAR, CAR]), BOX) is None
    assert first_fault(torch.tensor([CAR]), BOX) is None
    assert first_fault(np.zeros((0, 9)), BOX) is None
    for value in values:
        boxes = np.array([CAR, CAR])
        boxes[1, column] = value
        found = first_fault(boxes, BOX)
        assert found is not None
        assert found.place == (1,)
        assert found.words.startswith(f"{BOX[column].name} is {value:,.10g}")


def test_intrinsics() -> None:
    good = np.array([[910.0, 0.5, 640], [0, 908, 360], [0, 0, 1]])
    assert intrinsics_fault(np.stack([good, good])) is None
    for place, value, words in (
        ((0, 0), 1e300, "fx is 1e+300 pixels, which must be 1 to 1,000,000 pixels."),
        ((1, 1), -908, "fy is -908 pixels"),
        ((0, 0), 0.7, "fx is 0.7 pixels"),
        ((0, 2), INF, "cx is inf pixels"),
        ((1, 2), 1e9, "cy is 1,000,000,000 pixels"),
        ((2, 2), 2, "the last row's third entry is 2, which must be 1."),
        ((1, 0), NAN, "the entry below fx is nan, which must be 0."),
    ):
        bad = np.stack([good, good])
        bad[(1, *place)] = value
        found = intrinsics_fault(bad)
        assert found is not None
        assert (found.place, found.words[: len(words)]) == ((1,), words)


def test_poses() -> None:
    good = pose(rotation_xyz(0.1, 0.2, 3.0), np.array([5e5, 4.6e6, 50.0]))  # UTM
    assert pose_fault(np.stack([good] * 6).reshape(2, 3, 4, 4)) is None
    assert "x is 500,000 m, which must be -10,000 to 10,000 m" in (pose_fault(good, NEAR) or ("", ""))[1]
    for place, value, words in (
        ((0, 3), 1e300, "x is 1e+300 m"),
        ((2, 3), NAN, "z is nan m"),
        ((0, 0), NAN, "holds NaN or infinity"),
        ((0, 0), 1e300, "is not a rigid transform"),
        ((3, 3), 2.0, "its last row must be"),
    ):
        bad = np.stack([good] * 6).reshape(2, 3, 4, 4)
        bad[(1, 2, *place)] = value
        found = pose_fault(bad)
        assert found is not None
        assert found.place == (1, 2)
        assert words in found.words


def test_pose_rows() -> None:
    assert pose_row_fault([1, 2, 3, 1, 0, 0, 0]) is None
    assert pose_row_fault([WORLD, 2, 3, 0.995, 0, 0, 0]) is None
    for row in ([1, 2, 3, 2, 0, 0, 0], [1, 2, 3, 0, 0, 0, 0], [1, 2, 3, 1e300, 0, 0, 0], [1, 2, NAN, 1, 0, 0, 0], [1e8, 2, 3, 1, 0, 0, 0]):
        assert pose_row_fault(row) is not None, row


def test_a_scan_loses_the_points_that_cannot_be_unless_they_are_most() -> None:
    points = np.ones((10, 5), np.float32)
    points[:3, 0] = NAN, 1e38, 2e4
    points[3, 4] = INF
    assert plausible_points(points, Path("a.bin")).tolist() == [False] * 4 + [True] * 6
    points[4:6, 1] = NAN
    with pytest.raises(DataError, match=r"a\.bin cannot be a scan: 6 of its 10 points are not finite or over 10 km away"):
        plausible_points(points, Path("a.bin"))
    with pytest.raises(DataError, match="it is empty"):
        plausible_points(points[:0], Path("a.bin"))
    sky = np.full((1000, 5), NAN)  # an organised scan, most of which saw nothing
    sky[::50] = 1.0
    assert plausible_points(sky, Path("a.bin")).sum() == 20
    for wrong in (np.full((9, 5), NAN), np.where(np.isnan(sky), NAN, 1e38)):
        with pytest.raises(DataError, match="cannot be a scan"):
            plausible_points(wrong, Path("a.bin"))
