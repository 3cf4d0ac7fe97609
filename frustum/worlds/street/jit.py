"""How the street kernels are compiled.

Kernels take tuples of arrays and allocate nothing. Without `_nrt=False` numba counts references of every array that is looked up inside
such a tuple, with atomic operations: measured, that was three quarters of the time of a short ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Geometry never make or see NaN or infinity (directions are kept away from 0), so comparisons may be plain ones.
_FAST = {"nnan", "ninf", "nsz", "contract"}
KERNEL: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False, "fastmath": _FAST}
INLINE: dict[str, Any] = {**KERNEL, "forceinline": True}
SHADING: dict[str, Any] = {**KERNEL, "fastmath": True}  # colours may be rounded in any order
SHADING_INLINE: dict[str, Any] = {**SHADING, "forceinline": True}


def forget_stale(cache: Path, sources: Iterable[Path]) -> int:
    """Remove kernels of `sources` that were compiled before the last change of any of them; returns how many.

    numba's own cache looks only at the file of the outermost function, but kernels contain functions of each other's files. A folder that
    cannot be written to is left alone: nobody edits sources there either.
    """
    files = [file for file in sources if file.is_file()]
    newest = max((file.stat().st_mtime for file in files), default=0.0)
    names = tuple(f"{file.stem}." for file in files)
    removed = 0
    for index in cache.glob("*.nbi"):
        try:
            if index.name.startswith(names) and index.stat().st_mtime < newest:
                index.unlink()
                removed += 1
        except OSError:  # another process was faster, or the folder is read-only
            continue
    return removed
