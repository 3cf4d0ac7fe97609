"""Roads around a keyframe as a fine raster in its ego frame, from the best map that a data set has: what labels of map classes are made of.

    maps/expansion/LOCATION.json    nuScenes' map expansion: all layers of `map_layers.LAYERS`
    maps/FILE.png                   the map mask: `drivable_area` alone; a blank one, as data sets have that know no map, does not count
    gts/                            voxel labels: `drivable_area` and `walkway` within their grid, where a column shows ground or a building

The first that is there is taken, for the whole location.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frustum.data.nuscenes.map_layers import LAYERS, VectorMap, map_patch
from frustum.data.nuscenes.tables import MAP_FILES, following_schema, load_table
from frustum.data.pixels import read_image
from frustum.errors import DataError, nearest_names
from frustum.files import inside
from frustum.geometry import VoxelGrid, pose, rotation_z, transform_points, yaw_of
from frustum.types.classes import FLAT_CLASSES, OCC3D_CLASSES

REACH, STEP = 70.0, 0.25
"""Metres from the ego vehicle to the border of a patch along its axes, and between its nodes: each cell of 0.5 m has its centre on one."""
NODES = round(2 * REACH / STEP) + 1

_PIXEL = 0.1  # metres of a map mask
_VOXEL_CLASSES = {"drivable_area": "driveable_surface", "walkway": "sidewalk"}
_STATIC = (*FLAT_CLASSES, "manmade", "vegetation")
_ADVICE = "Extract the map expansion pack of nuScenes (version 1.3) into maps/, or choose other classes."


class Patch(NamedTuple):
    """Layers around a keyframe, rows along y and columns along x of the ego frame, of which only the heading counts.

    Attributes:
        masks: (L, NODES, NODES) bool.
        known: (NODES, NODES) bool, where the data set says anything.
        origin: what it was read from, in words.
    """

    masks: np.ndarray
    known: np.ndarray
    origin: str


def read_patch(source: Any, token: str, layers: tuple[str, ...]) -> Patch:
    """The layers around a keyframe.

    Args:
        source: a database in the nuScenes format (data/nuscenes/reader.py).
        token: the keyframe.
        layers: L names of `map_layers.LAYERS`.

    Raises:
        DataError: an unknown layer, one that this data set does not have, or a damaged file.
    """
    if unknown := next((name for name in layers if name not in LAYERS), None):
        raise DataError(f"unknown map layer {unknown!r}; {nearest_names(unknown, LAYERS)}")
    if not hasattr(source, "scene") or not hasattr(source, "folder"):
        raise DataError(f"map classes are read from databases in the nuScenes format, but {source.root} is a {type(source).__name__}.")
    location, sample = source.scene(token).location, source.sample(token, with_boxes=False, occupancy=False)
    flat = pose(rotation_z(yaw_of(sample.ego2global[:3, :3])), sample.ego2global[:3, 3])
    if (Path(source.root) / "maps" / "expansion" / f"{location}.json").is_file():
        side = NODES * STEP
        centre = (float(flat[0, 3]), float(flat[1, 3]))
        masks = map_patch(_vector_map(source.root, location), layers, centre, (side, side), yaw_of(flat[:3, :3]), (NODES, NODES))
        return Patch(masks, np.ones((NODES, NODES), bool), "the map expansion")
    mask = _mask(_mask_path(source, location))
    if mask is not None:
        _require(layers, ("drivable_area",), f"the map mask of {location}")
        return Patch(*_from_mask(mask, flat, len(layers)), "the map mask")
    _require(layers, tuple(_VOXEL_CLASSES), f"the voxel labels of {source.root}, which has no map of {location},")
    return Patch(*_from_voxels(source, token, layers), "voxel labels")


def origins(source: Any, tokens: Iterable[str], layers: tuple[str, ...]) -> list[str]:
    """Where layers of these keyframes come from, from one keyframe of each location, as maps are. Raises DataError as `read_patch` does."""
    firsts: dict[str, str] = {}
    for token in tokens:
        firsts.setdefault(source.scene(token).location if hasattr(source, "scene") else "", token)
    return list(dict.fromkeys(read_patch(source, token, layers).origin for token in firsts.values()))


def _require(layers: tuple[str, ...], known: tuple[str, ...], what: str) -> None:
    if missing := [name for name in layers if name not in known]:
        raise DataError(f"{what} cannot say where {', '.join(missing)} is, only {' and '.join(known)}. {_ADVICE}")


@lru_cache(maxsize=4)
def _vector_map(root: Path, location: str) -> VectorMap:
    return VectorMap.load(root, location)


@lru_cache(maxsize=16)
def _mask_files(folder: Path) -> dict[str, str]:
    """File of the map mask by log."""
    with following_schema(folder):
        return {log: row["filename"] for row in load_table(folder, "map") for log in row.get("log_tokens", ())}


@lru_cache(maxsize=16)
def _logs(folder: Path) -> dict[str, str]:
    """A log of each location."""
    with following_schema(folder):
        return {row["location"]: row["token"] for row in load_table(folder, "log")}


def _mask_path(source: Any, location: str) -> Path:
    file = _mask_files(source.folder).get(_logs(source.folder).get(location, ""), MAP_FILES.get(location, "maps/none.png"))
    return inside(Path(source.root), file)


@lru_cache(maxsize=2)
def _mask(path: Path) -> np.ndarray | None:
    """(rows, columns) bool, row 0 in the north; None where there is none, or a blank one."""
    if not path.is_file():
        return None
    mask = read_image(path, lambda image: np.asarray(image.convert("L").point(lambda v: 255 * (v > 0))) > 0, _ADVICE)
    return mask if mask.any() else None


def _nodes() -> np.ndarray:
    """(NODES, NODES, 2): x and y of the nodes in the ego frame."""
    steps = np.arange(NODES) * STEP - REACH
    return np.stack(np.meshgrid(steps, steps, indexing="xy"), -1)


def _from_mask(mask: np.ndarray, flat: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    places = transform_points(flat, np.pad(_nodes(), ((0, 0), (0, 0), (0, 1))).reshape(-1, 3))[:, :2].reshape(NODES, NODES, 2)
    column, row = np.moveaxis(np.floor(places / _PIXEL).astype(np.int64), -1, 0)
    row = len(mask) - 1 - row
    known = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    found = np.zeros((NODES, NODES), bool)
    found[known] = mask[row[known], column[known]]
    return np.repeat(found[None], count, 0), known


def _from_voxels(source: Any, token: str, layers: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    labels, grid = source.sample(token, with_boxes=False, occupancy=True).occupancy, VoxelGrid.occ3d()
    if labels is None:
        raise DataError(f"keyframe {token} of {source.root} has neither a map nor voxel labels to say where roads are. {_ADVICE}")
    if labels.semantics.shape != grid.shape:
        raise DataError(f"the voxel labels of keyframe {token} have shape {labels.semantics.shape}, not Occ3D's {grid.shape}.")
    columns = np.stack([(labels.semantics == OCC3D_CLASSES.index(_VOXEL_CLASSES[name])).any(2).T for name in layers])  # (L, Y, X)
    static = np.any(np.isin(labels.semantics, [OCC3D_CLASSES.index(name) for name in _STATIC]), 2).T
    cell = np.floor((_nodes() - grid.lower[:2]) / grid.cell[:2] + 1e-9).astype(np.int64)
    inside = ((cell >= 0) & (cell < grid.shape[:2])).all(-1)
    x, y = np.moveaxis(np.where(inside[..., None], cell, 0), -1, 0)
    return columns[:, y, x] & inside, static[y, x] & inside
