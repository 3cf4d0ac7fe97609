"""Occupancy label files as in Occ3D-nuScenes: `labels.npz` with semantics, mask_lidar and mask_camera, uint8 (X, Y, Z)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frustum.data.sample import Occupancy
from frustum.errors import DataError
from frustum.files import check_is_file, write_bytes
from frustum.npz import DAMAGED, LARGEST, open_npz
from frustum.types.classes import IGNORE, OCC3D_FREE

_UINT8 = 255  # the greatest
_MOST_VOXELS = 1 << 22  # six times those of Occ3D
_ARRAYS = ("semantics", "mask_lidar", "mask_camera")


def labels_path(root: Path | str, scene: str, token: str, panoptic: bool = False) -> Path:
    """Path of the labels of a keyframe: `gts/<scene>/<token>/labels.npz`, or `occ3d_panoptic/...` for the variant with instances."""
    return Path(root) / ("occ3d_panoptic" if panoptic else "gts") / scene / token / "labels.npz"


def read_labels(path: Path | str) -> Occupancy:
    """Read one label file: an npz with semantics, mask_lidar, mask_camera and optionally instances.

    Raises:
        DataError: the file is missing or damaged, an array is missing or has another shape, a label is above 17 and not 255, or an
            instance is negative.
    """
    path = Path(path)
    arrays, names = read_arrays(
        path,
        (*_ARRAYS, "instances"),
        "label file",
        "Extract the Occ3D labels there, or run `frustum data status` on the root.",
        _MOST_VOXELS * 4 * 8,
    )
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise DataError(f"the label file {path} lacks {', '.join(missing)}; it holds {', '.join(names) or 'nothing'}. Write it again.")
    needed = arrays["semantics"].shape
    for name, array in arrays.items():
        if array.shape != needed or array.ndim != 3 or array.dtype.kind not in "uib":
            raise DataError(f"{name} in {path} has {array.dtype} of shape {array.shape}, not integers of shape {needed}. Restore it.")
    semantics = arrays["semantics"]
    wrong = (semantics > OCC3D_FREE) & (semantics != IGNORE)
    if wrong.any() or semantics.min(initial=0) < 0:
        value = int(semantics[wrong][0]) if wrong.any() else int(semantics.min())
        raise DataError(f"semantics in {path} holds the label {value}; Occ3D has 0 to {OCC3D_FREE}, and {IGNORE} for ignored voxels.")
    for name in ("mask_lidar", "mask_camera"):
        mask, high = arrays[name], arrays[name].max(initial=0)
        if high not in (0, 1, 255) or mask.min(initial=0) < 0 or ((mask != 0) & (mask != high)).any():
            raise DataError(f"{name} in {path} holds {np.unique(mask)[:4].tolist()}; a mask is 1 where something was observed, else 0.")
    return Occupancy(
        semantics.astype(np.uint8, copy=False),
        (arrays["mask_lidar"] != 0).view(np.uint8),
        (arrays["mask_camera"] != 0).view(np.uint8),
        _numbered(arrays["instances"], path) if "instances" in arrays else None,
    )


def _numbered(instances: np.ndarray, path: Path) -> np.ndarray:
    """Instance numbers as uint8. Those of a file with a greater one are renumbered in their order; int32 where that is not enough.

    Raises:
        DataError: a number is negative.
    """
    if instances.min(initial=0) < 0:
        raise DataError(
            f"instances in {path} holds the number {int(instances.min())}; objects are numbered from 1, and 0 means none. Write none as 0."
        )
    if instances.max(initial=0) > _UINT8:
        there, places = np.unique(np.append(0, instances.ravel()), return_inverse=True)
        return places[1:].reshape(instances.shape).astype(np.uint8 if len(there) <= _UINT8 + 1 else np.int32)
    return instances.astype(np.uint8, copy=False)


def write_labels(path: Path | str, labels: Occupancy) -> None:
    """Write one label file atomically; equal labels give equal bytes.

    Args:
        path: target; folders are created.
        labels: integer (X, Y, Z) arrays; `instances` is written when there, as uint16 if a number is above 255.

    Raises:
        DataError: the arrays do not fit together, a value does not fit into the file, or the place is full or read-only.
    """
    plain, panoptic = _archives(labels)
    write_bytes(path, panoptic or plain)


def write_both_labels(root: Path | str, scene: str, token: str, labels: Occupancy) -> None:
    """Write the two label files of a keyframe, where `labels_path` says: the plain one and the one with instances. As `write_labels`."""
    plain, panoptic = _archives(labels)
    write_bytes(labels_path(root, scene, token), plain)
    write_bytes(labels_path(root, scene, token, panoptic=True), panoptic)


def _archives(labels: Occupancy) -> tuple[bytes, bytes]:
    """Contents of a label file without and with instances; the latter is empty if there are none."""
    arrays = {name: _stored(name, np.asarray(array)) for name, array in vars(labels).items() if array is not None}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or arrays["semantics"].ndim != 3:
        raise DataError(f"labels must be three-dimensional and of one shape, got {sorted(shapes)}.")
    instances = arrays.pop("instances", None)
    content = io.BytesIO()
    append_arrays(content, arrays)
    plain = content.getvalue()
    if instances is None:
        return plain, b""
    append_arrays(content, {"instances": instances})
    return plain, content.getvalue()


def _stored(name: str, array: np.ndarray) -> np.ndarray:
    """The array in the type of its file. Raises DataError for what would not come back as it is."""
    limit = 2**16 - 1 if name == "instances" else _UINT8
    if array.dtype.kind not in "uib" or array.min(initial=0) < 0 or array.max(initial=0) > limit:
        raise DataError(f"{name} of labels must be integers from 0 to {limit}, got {array.dtype} from {array.min()} to {array.max()}.")
    return np.ascontiguousarray(array, np.uint8 if array.max(initial=0) <= _UINT8 else np.uint16)


def append_arrays(file: io.BytesIO, arrays: dict[str, np.ndarray]) -> None:
    """Add arrays to an npz file; equal arrays give equal bytes."""
    with zipfile.ZipFile(file, "a") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # with the time stamp 1980-01-01, whenever it is written
            member.external_attr = 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)


def read_arrays(
    path: Path, names: Sequence[str] | None, what: str, advice: str, largest: int = LARGEST
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those of the named arrays that an npz file holds (all of them without `names`), and the names of all that it holds.

    `largest` is how many bytes they may take together.

    Raises:
        DataError: the file is missing or damaged; `what` names it in the message, and `advice` says what to do if it does not exist.
    """
    check_is_file(path, what)
    try:
        with open_npz(path, largest) as archive:
            return {name: archive[name] for name in names or archive.files if name in archive.files}, archive.files
    except FileNotFoundError as error:
        raise DataError(f"the {what} {path} does not exist. {advice}") from error
    except DAMAGED as error:
        raise DataError(f"the {what} {path} is damaged or not an npz archive ({error}). Write or extract it again.") from error
