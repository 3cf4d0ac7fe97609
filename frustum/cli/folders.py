"""Output folders: results of one data set are not mixed with those of another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from frustum.errors import DataError


def require_own_files(folder: Path, source: Any, root: Path) -> None:
    """Raise DataError if `folder` holds predictions or pictures of other samples than those of the data set `source`, which is in `root`.

    They are known by their names: `<token>.*`, and of rigs `<scene>_<milliseconds>*.png`.
    """
    files = sorted(path.name for ending in ("npz", "png") for path in folder.glob(f"*.{ending}") if not path.name.startswith("."))
    if not files:
        return
    tokens, scenes = set(source.tokens("all")), {scene.name for scene in getattr(source, "scenes", ())}

    def is_own(name: str) -> bool:
        parts = name.replace("_augmented.", ".").split(".")
        of_scene = re.fullmatch(r"(.+)_\d+(_[a-z]+)?\.png", name)
        return (of_scene is not None and of_scene[1] in scenes) or any(".".join(parts[:k]) in tokens for k in range(1, len(parts)))

    others = [name for name in files if not is_own(name)]
    if others:
        raise DataError(
            f"{folder} holds {len(others)} files of other data, {others[0]} first, and new ones would be mixed with them. Give another "
            f"folder, for example --out {folder}_{root.resolve().name.replace(' ', '-')}, or remove them."
        )
