"""Map layers against masks of the official devkit, and on shapes by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from frustum.data.nuscenes.map_layers import CVT_ROAD, LAYERS, LINE_LAYERS, VectorMap, ego_map, map_patch
from frustum.errors import DataError, ShapeError
from frustum.geometry import pose, rotation_xyz, rotation_z

GOLDEN = Path(__file__).parents[1] / "metrics"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    (folder / "maps" / "expansion").mkdir(parents=True)
    shutil.copy(GOLDEN / "map_expansion.json", folder / "maps" / "expansion" / "boston-seaport.json")
    return folder


@pytest.fixture(scope="module")
def seaport(root) -> VectorMap:
    return VectorMap.load(root, "boston-seaport")


def one(layer: str, *rings: list[tuple[float, float]]) -> VectorMap:
    return VectorMap("here", {layer: [[np.array(ring, np.float64) for ring in rings]]})


def square(low: float, high: float) -> list[tuple[float, float]]:
    return [(low, low), (high, low), (high, high), (low, high)]


def test_masks_equal_the_official_devkit(seaport):
    with np.load(GOLDEN / "map_masks.npz") as golden:
        shape, layers = tuple(golden["shape"]), tuple(golden["layers"].tolist())
        expected = np.unpackbits(golden["mask"])[: np.prod(shape)].reshape(shape).astype(bool)
        x, y, height, width = golden["patch_box"]
        angle = np.deg2rad(float(golden["patch_angle"]))
    masks = map_patch(seaport, layers, (x, y), (height, width), angle, tuple(shape[1:]))
    for layer, mask, truth in zip(layers, masks, expected, strict=True):
        # A hole that crosses the border of the patch differs by one cell.
        assert (mask != truth).sum() <= (1 if layer == "drivable_area" else 0), layer
    assert masks.any((1, 2)).sum() == 8


def test_a_patch_by_hand():
    plus = map_patch(one("lane", square(2, 4)), ("lane", "walkway"), (5, 5), (10, 10), 0, (10, 10))
    expected = np.zeros((10, 10), bool)
    expected[2:5, 2:5] = True  # row 0 is the lower border, the outline belongs to the shape
    np.testing.assert_array_equal(plus[0], expected)
    assert not plus[1].any()
    turned = map_patch(one("lane", square(2, 4)), ("lane",), (5, 5), (10, 10), np.pi / 2, (10, 10))[0]
    assert turned[6:9, 2:5].all()  # seen from a patch that is turned to the left, the lower left corner is the upper left one
    assert turned.sum() == 9


def test_holes_are_cleared():
    mask = map_patch(one("drivable_area", square(1, 9), square(3, 6)), ("drivable_area",), (5, 5), (10, 10), 0, (10, 10))[0]
    assert not mask[3:7, 3:7].any()
    assert mask[1:3, 1:10].all()
    assert mask.sum() == 81 - 16


def test_lines_are_cut_at_the_border():
    road = VectorMap(
        "here", {"road_divider": [[np.array([(-50.0, 5.0), (5.0, 5.0), (5.0, 50.0)])], [np.array([(70.0, 0.0), (80.0, 9.0)])]]}
    )
    mask = map_patch(road, ("road_divider",), (5, 5), (10, 10), 0, (10, 10))[0]
    assert mask[5, :6].all()
    assert mask[5:, 5].all()
    assert not mask[:4].any()
    assert not mask[7:, :4].any()


def inside(ring: np.ndarray, points: np.ndarray) -> np.ndarray:
    result = np.zeros(len(points), bool)
    for a, b in zip(ring, np.roll(ring, -1, 0), strict=True):
        crosses = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            result ^= crosses & (points[:, 0] < a[0] + (points[:, 1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
    return result


@pytest.mark.parametrize("convention", ["cvt", "lss"])
def test_ego_map_shows_the_road_where_it_is(seaport, convention):
    ego2global = pose(rotation_z(0.7), np.array([110.0, 20.0, 3.0]))
    mask = ego_map(seaport, ("road_segment",), ego2global, convention)[0]
    rows, columns = np.mgrid[:200, :200]
    x, y = ((100 - rows) / 2, (100 - columns) / 2) if convention == "cvt" else (rows / 2 - 50, columns / 2 - 50)
    points = np.stack([x, y, 0 * x], -1).reshape(-1, 3) @ ego2global[:3, :3].T + ego2global[:3, 3]
    truth = np.zeros(40000, bool)
    for shape in seaport.shapes["road_segment"]:
        truth |= inside(shape[0], points[:, :2])
    truth = truth.reshape(200, 200)
    assert truth.any()
    assert (mask & truth).sum() / (mask | truth).sum() > 0.97
    assert not (truth & ~mask).sum() > 0.01 * truth.sum()


def test_ego_map_ignores_pitch_and_roll_and_draws_every_layer(seaport):
    level, tilted = (pose(rotation_xyz(r, p, 0.4), np.array([110.0, 20.0, 0.0])) for r, p in ((0, 0), (0.05, 0.1)))
    tilted[:3, :3] = rotation_z(0.4 - np.arctan2(tilted[1, 0], tilted[0, 0])) @ tilted[:3, :3]  # the same heading
    masks = ego_map(seaport, LAYERS, level)
    np.testing.assert_array_equal(masks, ego_map(seaport, LAYERS, tilted))
    drawn = {layer for layer, mask in zip(LAYERS, masks, strict=True) if mask.any()}
    assert {*CVT_ROAD, *LINE_LAYERS, "drivable_area", "ped_crossing", "walkway"} <= drawn
    far = ego_map(seaport, LAYERS, pose(rotation_z(0.0), np.array([9000.0, 9000.0, 0.0])))
    assert not far.any()


def test_bad_input(root, seaport, tmp_path):
    with pytest.raises(DataError, match=r"does not exist; known: boston-seaport"):
        VectorMap.load(root, "singapore-queenstown")
    with pytest.raises(DataError, match="known: none"):
        VectorMap.load(tmp_path, "boston-seaport")
    with pytest.raises(DataError, match="did you mean"):
        map_patch(seaport, ("lanes",), (0, 0), (10, 10), 0, (10, 10))
    with pytest.raises(ShapeError, match="positive size"):
        map_patch(seaport, ("lane",), (0, 0), (0, 10), 0, (10, 10))
    with pytest.raises(ShapeError, match="choose 'lss'"):
        ego_map(seaport, ("lane",), np.eye(4), "simplebev")
    with pytest.raises(ShapeError, match=r"\(4, 4\)"):
        ego_map(seaport, ("lane",), np.eye(3))
    content = json.loads((GOLDEN / "map_expansion.json").read_text())
    content["node"] = content["node"][:3]
    (tmp_path / "maps" / "expansion").mkdir(parents=True)
    (tmp_path / "maps" / "expansion" / "here.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="damaged"):
        VectorMap.load(tmp_path, "here")
