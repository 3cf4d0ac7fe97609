"""frustum: camera-first 3D perception in plain PyTorch.

Importing the package imports no torch; the public names below load what they need when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frustum import kernel_cache
from frustum.version import __version__

kernel_cache.choose()

__all__ = ["Batch", "CameraRig", "Prediction", "VoxelGrid", "__version__", "list_recipes", "load"]

if TYPE_CHECKING:
    from frustum.geometry import CameraRig, VoxelGrid
    from frustum.recipes.finding import list_recipes
    from frustum.types.batch import Batch
    from frustum.types.predictions import Prediction
    from frustum.weights.loading import load

_HOMES = {
    "Batch": "frustum.types.batch",
    "Prediction": "frustum.types.predictions",
    "CameraRig": "frustum.geometry",
    "VoxelGrid": "frustum.geometry",
    "load": "frustum.weights.loading",
    "list_recipes": "frustum.recipes.finding",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'frustum' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
