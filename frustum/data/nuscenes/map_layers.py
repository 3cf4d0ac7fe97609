"""Roads and lanes from nuScenes' map expansion (maps/expansion/<location>.json), drawn from above on any grid.

Two ways to draw exist in the field and both are here: `map_patch`, the `get_map_mask` of the official devkit (a rotated patch of the map,
shapes cut off at its border), and `ego_map`, which cross_view_transformers uses for its labels (shapes projected whole into the ego
frame). Polygons are filled one after the other, so the hole of a polygon also erases what an earlier one had filled there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.labels.bev_map import BevConvention, bev_cells
from frustum.errors import DataError, ShapeError, nearest_names
from frustum.files import inside, read_json
from frustum.geometry import invert, pose, rotation_z, transform_points, yaw_of
from frustum.geometry.plausible import PLACE, first_fault
from frustum.ops.polygon_fill import draw_polylines, fill_polygons

POLYGON_LAYERS: tuple[str, ...] = (
    "drivable_area", "road_segment", "road_block", "lane", "lane_connector", "ped_crossing", "walkway", "stop_line", "carpark_area",
)  # fmt: skip
LINE_LAYERS: tuple[str, ...] = ("road_divider", "lane_divider")
LAYERS: tuple[str, ...] = POLYGON_LAYERS + LINE_LAYERS
CVT_ROAD: tuple[str, ...] = ("lane", "road_segment")
"""What cross_view_transformers calls road: the union of these."""

Shape = list[np.ndarray]  # exterior and holes of a polygon, or one line: vertices (P, 2) in metres


@dataclass(frozen=True)
class VectorMap:
    """The shapes of one location, by layer, in metres of the global frame (x east, y north)."""

    location: str
    shapes: dict[str, list[Shape]]

    @classmethod
    def load(cls, root: Path | str, location: str) -> VectorMap:
        """Read the map expansion of a location below a nuScenes root. Raises DataError when it is missing or damaged."""
        folder = Path(root) / "maps" / "expansion"
        path = folder / f"{location}.json"
        if not path.is_file():
            held = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
            advice = f"Extract the map expansion pack of nuScenes (version 1.3) into {folder.parent}."
            raise DataError(f"the map expansion {path} does not exist; known: {held}. {advice}")
        content = read_json(inside(Path(root), path), "map expansion")
        try:
            return cls(location, _shapes(content))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"the map expansion {path} is damaged ({type(error).__name__}: {error}). Restore it.") from error


def _shapes(content: dict[str, Any]) -> dict[str, list[Shape]]:
    nodes = {row["token"]: (float(row["x"]), float(row["y"])) for row in content["node"]}
    if (found := first_fault([*nodes.values()] or np.zeros((0, 2)), PLACE)) is not None:
        raise ValueError(f"of the node {[*nodes][found.place[0]]} {found.words}")

    def vertices(tokens: list[str]) -> np.ndarray:
        return np.array([nodes[t] for t in tokens], np.float64).reshape(-1, 2)

    def rings(row: dict[str, Any]) -> Shape:
        holes = [hole["node_tokens"] for hole in row["holes"]]
        return [vertices(tokens) for tokens in (row["exterior_node_tokens"], *holes)]

    polygons = {row["token"]: rings(row) for row in content["polygon"]}
    lines = {row["token"]: [vertices(row["node_tokens"])] for row in content["line"]}
    shapes: dict[str, list[Shape]] = {}
    for layer in POLYGON_LAYERS:
        rows = content[layer]
        tokens = [t for row in rows for t in (row["polygon_tokens"] if layer == "drivable_area" else [row["polygon_token"]])]
        shapes[layer] = [polygons[t] for t in tokens if t]
    for layer in LINE_LAYERS:
        shapes[layer] = [lines[row["line_token"]] for row in content[layer] if row["line_token"]]
    return shapes


def map_patch(
    vector_map: VectorMap,
    layers: tuple[str, ...],
    centre: tuple[float, float],
    size: tuple[float, float],
    angle: float,
    cells: tuple[int, int],
) -> np.ndarray:
    """Masks (L, rows, columns) bool of a patch, as the devkit's `get_map_mask`; row 0 is the patch's lower border.

    One difference is known: a concave shape, or a hole, that leaves the patch and comes back stays one ring, joined along the border, where
    the devkit gets several. That is a line of one cell on the border.

    Args:
        vector_map: the map.
        layers: L names of LAYERS.
        centre: x, y in metres, global frame.
        size: height and width of the patch in metres.
        angle: radians, counter-clockwise, by which the patch's width is turned against the global x axis.
        cells: rows and columns.

    Raises:
        DataError: unknown layer. ShapeError: a size is not positive.
    """
    if min(*size, *cells) <= 0:
        raise ShapeError(f"a map patch needs a positive size and number of cells, got {size} m and {cells} cells.")
    turn = rotation_z(-angle)[:2, :2]
    extent = np.array([size[1], size[0]])
    scale = np.array([cells[1], cells[0]]) / extent
    masks = np.zeros((len(layers), *cells), np.uint8)
    for mask, layer in zip(masks, layers, strict=True):
        for shape in _layer(vector_map, layer):
            local = [(ring - np.asarray(centre)) @ turn.T + extent / 2 for ring in shape]
            if layer in LINE_LAYERS:
                _draw(mask, layer, [(piece * scale).astype(np.int32) for line in local for piece in _cut_line(line, extent)])
            else:
                _draw(mask, layer, [np.round(_cut_polygon(ring, extent) * scale).astype(np.int32) for ring in local])
    return masks.astype(bool)


def ego_map(vector_map: VectorMap, layers: tuple[str, ...], ego2global: np.ndarray, convention: BevConvention = "cvt") -> np.ndarray:
    """Masks (L, 200, 200) bool of 100 m x 100 m around the ego vehicle, on the grid of a convention of `data.labels.bev_map`.

    "cvt" is what cross_view_transformers draws (its road is the union of CVT_ROAD); "lss" and "pointbev" put the same shapes on their
    grids. Only the heading of the ego pose counts. Lines are drawn two cells thick, rounded like the polygons' corners.

    Raises:
        DataError: unknown layer. ShapeError: ego2global is not (4, 4), or the convention draws in a camera's frame.
    """
    if convention == "simplebev":
        raise ShapeError("map layers are flat and 'simplebev' is a camera's frame: choose 'lss', 'pointbev' or 'cvt'.")
    if np.shape(ego2global) != (4, 4):
        raise ShapeError(f"ego2global must be (4, 4), got {np.shape(ego2global)}.")
    global2flat = invert(pose(rotation_z(yaw_of(ego2global[:3, :3])), ego2global[:3, 3]))
    masks = np.zeros((len(layers), 200, 200), np.uint8)
    for mask, layer in zip(masks, layers, strict=True):
        for shape in _layer(vector_map, layer):
            local = [transform_points(global2flat, np.pad(ring, ((0, 0), (0, 1)))) for ring in shape]
            _draw(mask, layer, [bev_cells(ring, convention) for ring in local])
    return masks.astype(bool)


def _layer(vector_map: VectorMap, layer: str) -> list[Shape]:
    if layer not in LAYERS:
        raise DataError(f"unknown map layer {layer!r}; {nearest_names(layer, LAYERS)}")
    return vector_map.shapes.get(layer, [])


def _draw(mask: np.ndarray, layer: str, cells: list[np.ndarray]) -> None:
    """Draw lines, or fill a polygon and clear its holes, whose outlines are cleared too."""
    if layer in LINE_LAYERS:
        draw_polylines(mask, cells, 1, thickness=2)
    elif len(cells[0]):
        fill_polygons(mask, cells[:1], 1)
        fill_polygons(mask, cells[1:], 0)


def _cut_polygon(ring: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """The part of a ring (P, 2) in [0, extent], border after border (Sutherland and Hodgman, 1974); (0, 2) when nothing is inside."""
    for axis in (0, 1):
        for sign, bound in ((1.0, 0.0), (-1.0, -float(extent[axis]))):
            kept = []
            for a, b in zip(np.roll(ring, 1, 0), ring, strict=True):
                da, db = sign * a[axis] - bound, sign * b[axis] - bound
                if (da < 0) != (db < 0):
                    crossing = a + (b - a) * (da / (da - db))
                    crossing[axis] = sign * bound
                    kept.append(crossing)
                if db >= 0:
                    kept.append(b)
            ring = np.array(kept, np.float64).reshape(-1, 2)
    return ring


def _cut_line(line: np.ndarray, extent: np.ndarray) -> list[np.ndarray]:
    """The pieces of a line (P, 2) in [0, extent] (Liang and Barsky, 1984)."""
    pieces: list[list[np.ndarray]] = []
    for a, b in pairwise(line):
        step = b - a
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.sort(np.stack([-a / step, (extent - a) / step]), 0)
        still = step == 0
        if (still & ((a < 0) | (a > extent))).any():
            continue
        enter, leave = max(0.0, *low[~still]), min(1.0, *high[~still])
        if enter > leave:
            continue
        start, end = a + step * enter, a + step * leave
        if not (pieces and enter == 0 and np.array_equal(pieces[-1][-1], start)):
            pieces.append([start])
        pieces[-1].append(end)
    return [np.stack(piece) for piece in pieces]
