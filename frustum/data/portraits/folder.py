"""Portraits in the public layout of head swapping: img/PERSON/CLIP/FRAME.png and mask/PERSON/CLIP/FRAME.png.

The layout is that of HeSer's re-implementations, made from VoxCeleb2: a clip is VIDEO-NUMBER, a mask holds the 19 ids of CelebAMask-HQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.images.labelled import Entry, LabelledImages, images_in
from frustum.data.pixels import read_image
from frustum.data.portraits.swaps import ALIGNED, HEAD, MASK, SWAPS, TRAIN_SWAPS, Swap, read_swaps
from frustum.errors import DataError, nearest_names
from frustum.files import inside, read_json, read_object
from frustum.types.pixel_classes import FACE

_FARTHEST = 1e5  # pixels from the corner of a picture to a landmark, which may lie beside it
_LAYOUT = "It needs img/PERSON/CLIP/FRAME.png and mask/PERSON/CLIP/FRAME.png, see docs/heads_world.md."
_IDS = f"a mask holds the {len(FACE.names)} ids of CelebAMask-HQ, 0 to {len(FACE.names) - 1}, or 255 where nothing counts. Convert it"


class Portraits(LabelledImages):
    """Frames of people, by person and clip. A token is PERSON/CLIP/FRAME.

    Splits are those of splits.json, else all people are in `train`. Of generated heads there are two more, `swaps` and `train_swaps`: a
    token is the name of a swap (swaps.py), its image and mask are those of the portrait that gets another head.

    Args:
        root: the folder.
        files: (person, clip, image, mask) of every frame; read from the folder if it is None.

    Raises:
        DataError: the folder does not have the layout, or splits.json or swaps.json names what is not there.
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
        known = {entry.token: entry for row in entries.values() for entry in row}
        self._frames = list(dict.fromkeys(entry.token for row in splits.values() for entry in row))
        self._swaps = read_swaps(root, known, self._clips)
        trained = {entry.token for entry in splits.get("train", ())} if "val" in splits else ()
        for name, swap in self._swaps.items():
            split = TRAIN_SWAPS if swap.target in trained else SWAPS
            splits.setdefault(split, []).append(known[swap.target]._replace(token=name))
        super().__init__(
            root, FACE.names, splits, about_ids=_IDS, about_tokens="Tokens are PERSON/CLIP/FRAME, without the ending of the file."
        )

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return (root / "img").is_dir() and (root / "mask").is_dir()

    def tokens(self, split: str = "all") -> list[str]:
        """Frames of a split, or of all people, in order; names of swaps for `swaps`. Raises DataError for an unknown split."""
        if split in (SWAPS, TRAIN_SWAPS) and split not in self.splits():
            people, instead = (
                ("train", "learn from frames: data.train_split=train, and what else it takes (docs/methods/heser.md)")
                if split == TRAIN_SWAPS
                else ("val", "evaluate frames: data.val_split=val")
            )
            raise DataError(
                f"{self.root} has no true swaps of the split {people}, which are made of two and more people of it. Make a world with "
                f"them: frustum data heads OUT --size 64 --identities 20 --train-swaps 10 --swaps 3. Without swaps, {instead}."
            )
        return list(self._frames) if split == "all" else super().tokens(split)

    def people(self, split: str = "all") -> list[str]:
        """People of a split, or all; those who get another head for `swaps`. Raises DataError for an unknown split."""
        return list(dict.fromkeys(self._frame(token).split("/")[0] for token in self.tokens(split)))

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
        """What a generated world knows of a frame, or of that of a swap: landmarks (68, 2), is_visible (68,) and motion by name; None for
        photographs.

        Raises:
            DataError: the file of the clip is damaged, or does not name the frame.
        """
        person, clip, frame = self._frame(self._entry(token).token).split("/")
        path = self.root / "truth" / person / f"{clip}.json"
        if not path.is_file():
            return None
        known = read_json(inside(self.root, path), "truth of a clip")
        if not isinstance(known, dict) or frame not in known:
            raise DataError(f"{path} does not know the frame {frame}. Delete the clip, and generate it again.")
        row = known[frame]
        try:
            found = {name: np.array(row[name], np.float32) for name in ("landmarks", "is_visible")}
            if found["landmarks"].shape != (68, 2) or found["is_visible"].shape != (68,) or not isinstance(row["motion"], dict):
                raise ValueError(f"landmarks of shape {found['landmarks'].shape}")
            if not (np.abs(found["landmarks"]) <= _FARTHEST).all():
                raise ValueError("a landmark is no place in a picture")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{path} does not say where the landmarks of {frame} are: {error}. Delete the clip, generate it again."
            ) from error
        return found | {"is_visible": found["is_visible"] > 0, "motion": row["motion"]}

    def source_frames(self, token: str) -> list[str]:
        """Frames of the person whose head a portrait has or gets: the others of its own clip, those of a clip of the source for a swap."""
        if token in self._swaps:
            person, clip = self._swaps[token].source.split("/")
            return list(self._clips[person][clip])
        person, clip, _ = self._entry(token).token.split("/")
        return [other for other in self._clips[person][clip] if other != token] or [token]

    def placed_head(self, token: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The source's head of a swap in its place and pose, in its own colours and light: a picture (H, W, 3), and the parts (H, W) of the
        true swap. None for a frame, which is not a swap. Raises DataError for a missing or damaged file."""
        return self._true(token, HEAD) if token in self._swaps else None

    def swap(self, token: str) -> Swap | None:
        """Whose head goes onto which frame; None for a frame."""
        return self._swaps.get(self._entry(token).token)

    def aligned_head(self, token: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The head of a swap as an aligner drew it, (H, W, 3), and its parts (H, W); None for a frame, or where none was drawn of this swap
        (`frustum data aligned`). Raises DataError for a damaged file."""
        swap, folder = self.swap(token), self.root / SWAPS / token
        path = folder / f"{ALIGNED}.json"
        if swap is None or not path.is_file():
            return None
        about = read_object(inside(self.root, path), "note on a head that was drawn")
        if (about.get("source"), about.get("target")) != swap:
            return None  # of another swap, which had this name in a smaller world
        return tuple(read_image(inside(self.root, folder / f"{name}.png"), np.asarray) for name in (ALIGNED, f"{ALIGNED}_{MASK}"))  # type: ignore[return-value]

    def true_swap(self, token: str, policy: str) -> tuple[np.ndarray, np.ndarray]:
        """The portrait with the head of the source under a colour policy, (H, W, 3), and its parts (H, W): what a perfect swap gives. Of a
        frame, whose head is its own, the frame itself. Raises DataError for a missing or damaged file."""
        return self._true(token, policy) if token in self._swaps else (self.image(token), self.parsing(token))

    def _true(self, token: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        self._entry(token)
        folder = self.root / SWAPS / token
        return tuple(read_image(inside(self.root, folder / f"{n}.png"), np.asarray) for n in (name, MASK))  # type: ignore[return-value]

    def _frame(self, token: str) -> str:
        """The token of the frame that a token stands for."""
        return self._swaps[token].target if token in self._swaps else token

    def about(self, person: str) -> dict[str, Any]:
        """What people.json says of a person, such as the corner of a balanced set; nothing for photographs. Raises DataError."""
        self.clips(person)
        return self._described.get(person, {})

    @cached_property
    def _described(self) -> dict[str, Any]:
        path = self.root / "people.json"
        return read_object(path, "list of people") if path.is_file() else {}

    def _people(self, root: Path) -> dict[str, list[str]]:
        path = root / "splits.json"
        if not path.is_file():
            return {"train": list(self._clips)}
        splits = read_object(path, "list of splits")
        for name, people in splits.items():
            for person in people if isinstance(people, list) else (people,):
                if not isinstance(person, str) or person not in self._clips:
                    where = f"the folder {root / 'img'}/{person!s:.100} does not hold a portrait"
                    raise DataError(f"{path} has {person!r:.100} in the split {name!r}, but {where}.")
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
