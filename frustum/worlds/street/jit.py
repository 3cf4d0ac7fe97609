"""How the street kernels are compiled.

Kernels take tuples of arrays and allocate nothing. Without `_nrt=False` numba counts references of every array that is looked up inside
such a tuple, with atomic operations: measured, that was three quarters of the time of a short ray.
"""

from __future__ import annotations

from typing import Any

KERNEL: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
INLINE: dict[str, Any] = {**KERNEL, "forceinline": True}
