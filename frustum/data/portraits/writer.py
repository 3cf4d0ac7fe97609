"""Writing portraits in the public layout, see folder.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frustum.data.portraits.swaps import MASK, SWAPS, Swap, swaps_file
from frustum.errors import DataError
from frustum.files import atomic_path, read_json, write_error, write_json
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
            _write(self.root / folder / person / clip / f"{frame}.png", pixels)

    def add_swap(self, name: str, swap: Swap, pictures: Mapping[str, np.ndarray], parsing: np.ndarray) -> None:
        """The pictures (H, W, 3) uint8 of a true swap by name, and the parts (H, W) of all of them; see swaps.py."""
        try:
            self._note(name).unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self._note(name), error) from error
        for picture, pixels in (*pictures.items(), (MASK, parsing)):
            _write(self.root / SWAPS / name / f"{picture}.png", pixels)
        write_json(self._note(name), swap._asdict())  # last: it says that the swap is complete, and of what it is

    def has_swap(self, name: str, swap: Swap) -> bool:
        """Whether a swap is complete, and of this source and target: with more people or clips the same name may stand for others."""
        note = self._note(name)
        return note.is_file() and read_json(note, "note of a swap") == swap._asdict()

    def finish_swaps(self, swaps: Mapping[str, Swap]) -> None:
        """Write the list of swaps."""
        write_json(swaps_file(self.root), {name: swap._asdict() for name, swap in swaps.items()})

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

    def _note(self, name: str) -> Path:
        return self.root / SWAPS / name / "swap.json"

    def _truth(self, person: str, clip: str) -> Path:
        return self.root / "truth" / person / f"{clip}.json"


def _write(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=4)
