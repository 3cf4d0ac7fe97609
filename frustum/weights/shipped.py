"""Weights that come with frustum: the small networks of head swapping, trained on generated heads alone (docs/methods/heser.md).

`python tools/ship_heads.py` writes them from runs.
"""

from __future__ import annotations

from pathlib import Path

from frustum.errors import DataError

FOLDER = Path(__file__).parent / "heads"
NETWORKS = ("aligner", "blender", "parser")
SEED = 0
"""Of the world whose people they were trained on."""


def shipped(network: str) -> Path:
    """The weights file of one of NETWORKS. Raises DataError where this installation lacks it."""
    path = FOLDER / f"{network}.safetensors"
    if network not in NETWORKS or not path.is_file():
        raise DataError(f"this installation of frustum has no weights of the {network}: {path} is missing. Install it again.")
    return path
