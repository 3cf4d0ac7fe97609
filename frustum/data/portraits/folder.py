"""Portraits in the public layout of head swapping: img/PERSON/CLIP/FRAME.png and mask/PERSON/CLIP/FRAME.png.

The layout is that of HeSer's re-implementations, made from VoxCeleb2: a clip is VIDEO-NUMBER, a mask holds the 19 ids of CelebAMask-HQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.images.labelled import Entry, LabelledImages, images_in
from frustum.errors import DataError, nearest_names
from frustum.files import inside, read_json
from frustum.types.pixel_classes import FACE

_LAYOUT = "It needs img/PERSON/CLIP/FRAME.png and mask/PERSON/CLIP/FRAME.png, see docs/heads_world.md."
_IDS = f"a mask holds the {len(FACE.names)} ids of CelebAMask-HQ, 0 to {len(FACE.names) - 1}, or 255 where nothing counts. Convert it"


class Portraits(LabelledImages):
    """Frames of people, by person and clip. A token is PERSON/CLIP/FRAME.

    Args:
        root: the folder.
        files: (person, clip, image, mask) of every frame; read from the folder if it is None.
        splits: people of each split; from splits.json, else all people are in `train`.

    Raises:
        DataError: the folder does not have the layout, or splits.json names a person who is not there.
    """

    def __init__(self, root: Path | str, files: Iterator[tuple[str, str, Path, Path]] | None = None):
        root = Path(root)
        found = list(_frames(root) if files is None else files)
        if not found:
            raise DataError(f"{root} does not hold a portrait. {_LAYOUT}")
        self._clips: dict[str, dict[str, list[str]]] = {}
        entries: dict[str, list[Entry]] = {}
        for person, clip, image, mask in found:
            token = f"{person}/{clip}/{image.stem}"
            self._clips.setdefault(person, {}).setdefault(clip, []).append(token)
            entries.setdefault(person, []).append(Entry(token, image, mask))
        splits = {name: [entry for person in people for entry in entries[person]] for name, people in self._people(root).items()}
        super().__init__(
            root, FACE.names, splits, about_ids=_IDS, about_tokens="Tokens are PERSON/CLIP/FRAME, without the ending of the file."
        )

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return (root / "img").is_dir() and (root / "mask").is_dir()

    def people(self, split: str = "all") -> list[str]:
        """People of a split, or all. Raises DataError for an unknown split."""
        return list(dict.fromkeys(token.split("/")[0] for token in self.tokens(split)))

    def clips(self, person: str) -> dict[str, list[str]]:
        """Tokens of each clip of a person, frames in order. Raises DataError for an unknown person."""
        if person not in self._clips:
            raise DataError(f"{self.root} does not have a person {person!r}; {nearest_names(person, self._clips)}")
        return {clip: list(tokens) for clip, tokens in self._clips[person].items()}

    def image(self, token: str) -> np.ndarray:
        """The frame (H, W, 3) uint8 RGB. Raises DataError for an unknown token or a damaged file."""
        return np.asarray(self.sample(token).open())

    def parsing(self, token: str) -> np.ndarray:
        """The mask (H, W) uint8 of a frame, with the ids of CelebAMask-HQ; 255 where nothing counts.

        Raises:
            DataError: the mask is missing or damaged, has another size than the frame, or holds another id.
        """
        found = self.labels(token)
        if found is None:
            raise DataError(
                f"the mask {self._entry(token).labels} of a portrait does not exist. Make it with a face parser, or leave out the frame."
            )
        return found

    def truth(self, token: str) -> dict[str, Any] | None:
        """What a generated world knows of a frame: landmarks (68, 2), is_visible (68,) and motion by name; None for photographs.

        Raises:
            DataError: the file of the clip is damaged, or does not name the frame.
        """
        person, clip, frame = self._entry(token).token.split("/")
        path = self.root / "truth" / person / f"{clip}.json"
        if not path.is_file():
            return None
        known = read_json(inside(self.root, path), "truth of a clip")
        if not isinstance(known, dict) or frame not in known:
            raise DataError(f"{path} does not know the frame {frame}. Delete the clip, and generate it again.")
        row = known[frame]
        return {
            "landmarks": np.array(row["landmarks"], np.float32),
            "is_visible": np.array(row["is_visible"], bool),
            "motion": row["motion"],
        }

    def about(self, person: str) -> dict[str, Any]:
        """What people.json says of a person, such as the corner of a balanced set; nothing for photographs. Raises DataError."""
        self.clips(person)
        path = self.root / "people.json"
        return read_json(path, "list of people").get(person, {}) if path.is_file() else {}

    def _people(self, root: Path) -> dict[str, list[str]]:
        path = root / "splits.json"
        if not path.is_file():
            return {"train": list(self._clips)}
        splits = read_json(path, "list of splits")
        for name, people in splits.items():
            for person in people:
                if person not in self._clips:
                    raise DataError(
                        f"{path} has {person!r} in the split {name!r}, but the folder {root / 'img' / person} does not hold a portrait."
                    )
        return splits


def _frames(root: Path) -> Iterator[tuple[str, str, Path, Path]]:
    images, masks = root / "img", root / "mask"
    if not images.is_dir():
        raise DataError(f"{root} is not a folder of portraits: the folder {images} is missing. {_LAYOUT}")
    for person in folders_in(images):
        for clip in folders_in(person):
            for image in images_in(clip):
                yield person.name, clip.name, image, masks / person.name / clip.name / f"{image.stem}.png"


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
