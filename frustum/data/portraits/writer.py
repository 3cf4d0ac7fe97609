"""Writing portraits in the public layout, see folder.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frustum.errors import DataError
from frustum.files import atomic_path, write_json
from frustum.types.pixel_classes import FACE


class PortraitWriter:
    """Writes frames, masks and truth below a folder. Every method raises DataError when it cannot be written to."""

    def __init__(self, root: Path):
        self.root = root

    def add_frame(self, person: str, clip: str, frame: str, image: np.ndarray, parsing: np.ndarray) -> None:
        """A frame (H, W, 3) uint8 and its mask (H, W) uint8 of CelebAMask-HQ ids. Raises DataError if they do not fit each other."""
        if image.shape[:2] != parsing.shape or parsing.max() >= len(FACE.names):
            raise DataError(
                f"a mask of {parsing.shape} pixels with ids up to {parsing.max()} does not fit a portrait of {image.shape[:2]} pixels "
                f"and the ids 0 to {len(FACE.names) - 1}."
            )
        for folder, pixels in (("img", image), ("mask", parsing)):
            with atomic_path(self.root / folder / person / clip / f"{frame}.png") as temporary:
                Image.fromarray(pixels).save(temporary, "PNG", compress_level=4)

    def add_truth(self, person: str, clip: str, frames: Mapping[str, Any]) -> None:
        """What is known of a clip's frames, JSON values by the frame's name. Written last: it says that the clip is complete."""
        write_json(self._truth(person, clip), frames)

    def has_clip(self, person: str, clip: str) -> bool:
        """Whether a clip is complete."""
        return self._truth(person, clip).is_file()

    def finish(self, splits: Mapping[str, Sequence[str]], people: Mapping[str, Any]) -> None:
        """Write which people each split has, and what is known of each of them."""
        write_json(self.root / "splits.json", splits)
        write_json(self.root / "people.json", people)

    def _truth(self, person: str, clip: str) -> Path:
        return self.root / "truth" / person / f"{clip}.json"
