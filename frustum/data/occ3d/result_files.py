"""Occupancy predictions as files, one npz per keyframe: the format of the Occ3D challenge, and three more that are read.

The challenge (CVPR 2023) takes `<sample token>.npz` with one unnamed uint8 array (200, 200, 16) of class ids, 17 = free,
written by `np.savez_compressed(path, semantics)`: numpy calls it `arr_0`. SparseOcc's RayIoU tool reads the same under the name `pred`,
and `frustum predict` writes `semantics`, with `instances` where it predicts them. FlashOCC's test script writes `pred` (beside the truth,
`gt`, which is not read) to `<scene>/<sample token>/pred.npz`.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from frustum.data.occ3d.label_files import read_arrays
from frustum.errors import DataError
from frustum.files import atomic_path
from frustum.geometry import VoxelGrid
from frustum.types.classes import OCC3D_FREE
from frustum.types.predictions import Prediction

SEMANTICS_KEYS = ("arr_0", "pred", "semantics")
"""Names under which a file may hold the class ids: the challenge's, SparseOcc's, ours."""
MAX_INSTANCES = 65536
_MOST_ARRAYS = 8  # of the size of the grid that a file may hold: its truth and masks, too
_OTHERS = 1 << 20  # bytes of what else is in it
_NESTED = "pred.npz"  # as FlashOCC names the file of every keyframe
_GRID = ("lower", "upper", "cell")  # `frustum predict` writes them
_OTHER_PARTS = {f".{field.name}" for field in fields(Prediction)}  # TOKEN.boxes.npz and so on, which `frustum predict` writes too


def result_files(folder: Path | str) -> dict[str, Path]:
    """The files of a folder by keyframe, in the order of their tokens: TOKEN.npz, or SCENE/TOKEN/pred.npz and TOKEN/pred.npz below it.

    Files of `frustum predict` that answer other questions are left out.

    Raises:
        DataError: two files are of one keyframe, or the folder is that of a single one.
    """
    if Path(folder, _NESTED).is_file():
        what = f"{folder} holds the prediction of a single keyframe"
        raise DataError(f"{what}: give the folder of all results, which has SCENE/TOKEN/{_NESTED} in it.")
    flat = (path for path in Path(folder).glob("*.npz") if not path.name.startswith("."))
    found = {path.stem: path for path in flat if Path(path.stem).suffix not in _OTHER_PARTS}
    for path in sorted(file for pattern in (f"*/{_NESTED}", f"*/*/{_NESTED}") for file in Path(folder).glob(pattern)):
        token = path.parent.name
        if token in found:
            raise DataError(f"{found[token]} and {path} are both predictions of the keyframe {token}: keep one of them.")
        found[token] = path
    return dict(sorted(found.items()))


def write_result(folder: Path | str, token: str, semantics: np.ndarray | torch.Tensor, grid: VoxelGrid | None = None) -> Path:
    """Write one file of a challenge submission, atomically.

    Args:
        folder: created if needed.
        token: sample token.
        semantics: (X, Y, Z) class ids of the 18 Occ3D classes.
        grid: the voxels; Occ3D's by default, which are those of the challenge.

    Raises:
        DataError: another shape, ids of unknown classes, or the place cannot be written to.
    """
    labels = semantics.cpu().numpy() if isinstance(semantics, torch.Tensor) else np.asarray(semantics)
    _require_labels(labels, grid or VoxelGrid.occ3d(), f"the prediction of {token}")
    path = Path(folder) / f"{token}.npz"
    with atomic_path(path, ".npz") as temporary:
        np.savez_compressed(temporary, labels.astype(np.uint8))
    return path


def read_result(path: Path | str, grid: VoxelGrid | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Class ids (X, Y, Z) uint8 of one file and, where it holds `instances`, those (X, Y, Z) int32.

    Raises:
        DataError: the file is missing or damaged, or holds no array of a known name, another shape, other types or ids.
    """
    path, grid = Path(path), grid or VoxelGrid.occ3d()
    arrays, names = read_arrays(
        path,
        (*SEMANTICS_KEYS, "instances", *_GRID),
        "prediction",
        "Write one npz per keyframe, named by its sample token.",
        _MOST_ARRAYS * 8 * int(np.prod(grid.shape)) + _OTHERS,
    )
    labels = next((arrays[name] for name in SEMANTICS_KEYS if name in arrays), None)
    if labels is None:
        raise DataError(
            f"the prediction {path} holds {', '.join(names) or 'nothing'}, but needs the class ids as {', '.join(SEMANTICS_KEYS[:-1])} "
            f"or {SEMANTICS_KEYS[-1]}. The challenge's form is np.savez_compressed(path, ids)."
        )
    bounds = [tuple(np.ravel(arrays[name]).tolist()) if name in arrays else getattr(grid, name) for name in _GRID]
    if not np.allclose(bounds, [getattr(grid, name) for name in _GRID]):
        raise DataError(f"the prediction {path} was made on the grid {dict(zip(_GRID, bounds, strict=True))}, but {grid} is scored.")
    labels = labels[0] if labels.ndim == 4 and labels.shape[0] == 1 else labels  # a batch of one
    _require_labels(labels, grid, f"the prediction {path}")
    instances = arrays.get("instances")
    if instances is not None:
        _require(instances, grid, f"instances in the prediction {path}")
        if instances.min(initial=0) < 0 or instances.max(initial=0) >= MAX_INSTANCES:
            raise DataError(f"instances in the prediction {path} must be from 0 to {MAX_INSTANCES - 1}.")
        instances = instances.astype(np.int32)
    return labels.astype(np.uint8, copy=False), instances


def _require(array: np.ndarray, grid: VoxelGrid, what: str) -> None:
    if array.shape != grid.shape or array.dtype.kind not in "ui":
        raise DataError(f"{what} has shape {array.shape} and type {array.dtype}, but must hold integers of shape {grid.shape}, [x, y, z].")


def _require_labels(labels: np.ndarray, grid: VoxelGrid, what: str) -> None:
    _require(labels, grid, what)
    wrong = labels[(labels < 0) | (labels > OCC3D_FREE)]
    if wrong.size:
        raise DataError(f"{what} holds the class id {wrong[0]}; Occ3D has 0 to {OCC3D_FREE}, and {OCC3D_FREE} is free.")
