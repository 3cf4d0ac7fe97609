"""Reads pickles of numpy arrays that a package brings: nothing but arrays is made of them, and no code of theirs is run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from frustum.errors import CheckpointError

_RECONSTRUCT = np.empty(0).__reduce__()[0]  # type: ignore[index]  # how numpy builds an array; older versions call its module otherwise
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _ALLOWED[module, name]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled dict of dicts, by their names joined with `/`.

    Raises:
        CheckpointError: the file is missing or damaged, or holds anything but dicts of numeric arrays. Nothing in it was run.
    """
    try:
        with open(path, "rb") as file:
            content = _ArraysOnly(file).load()
    except Exception as error:  # whatever bytes are in the file: the reader stumbles over them in many ways
        raise CheckpointError(f"{path} cannot be read as a pickle of numpy arrays: {error}. Install its package again.") from error
    found = dict(_flat(content)) if isinstance(content, Mapping) else {}
    if not found or not all(isinstance(value, np.ndarray) and value.dtype.kind in "fiu" for value in found.values()):
        raise CheckpointError(f"{path} does not hold numeric arrays with names. Install its package again.")
    return found


def _flat(content: Mapping[Any, Any], start: str = "") -> list[tuple[str, Any]]:
    parts = [_flat(v, f"{start}{k}/") if isinstance(v, Mapping) else [(f"{start}{k}", v)] for k, v in content.items()]
    return [pair for part in parts for pair in part]
