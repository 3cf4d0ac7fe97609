"""frustum: camera-first 3D perception in plain PyTorch.

Importing the package imports no torch; the public names below load what they need when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Batch", "CameraRig", "Prediction", "VoxelGrid", "__version__", "list_recipes", "load"]

if TYPE_CHECKING:
    from frustum.data.types import Batch, Prediction
    from frustum.geometry import CameraRig, VoxelGrid
    from frustum.recipes.loading import list_recipes, load

_HOMES = {
    "Batch": "frustum.data.types",
    "Prediction": "frustum.data.types",
    "CameraRig": "frustum.geometry",
    "VoxelGrid": "frustum.geometry",
    "load": "frustum.recipes.loading",
    "list_recipes": "frustum.recipes.loading",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'frustum' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
