"""Weights that come with frustum, trained on generated heads alone (docs/methods/heser.md): aligner, blender and face parser.

`python tools/ship_heads.py` writes them from runs.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "heads"
SEED = 0
"""Of the world whose people they were trained on."""


def shipped(network: str) -> Path | None:
    """The weights file of `parser`, `aligner` or `blender`; None where there is none."""
    path = FOLDER / f"{network}.safetensors"
    return path if path.is_file() else None
