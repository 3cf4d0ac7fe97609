"""Frames of VoxCeleb2: PERSON/VIDEO/CLIP/FRAME.jpg, as `ffmpeg` makes them of the clips; in the folder itself, or its dev/, test/, mp4/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from frustum.data.images.labelled import images_in
from frustum.data.portraits.folder import Portraits, folders_in
from frustum.errors import DataError

_PERSON = re.compile(r"id\d+")
_EXTRACT = "Extract the frames first: ffmpeg -i ID/VIDEO/00001.mp4 ID/VIDEO/00001/%05d.png"


class VoxCeleb(Portraits):
    """Portraits in folders as VoxCeleb2 names them; the clip of a token is VIDEO-CLIP, or VIDEO if its frames lie there.

    Masks, where there are some, lie below mask/ in the same folders.

    Raises:
        DataError: no frame is found; says how to extract them where there are only videos.
    """

    def __init__(self, root: Path | str):
        root = Path(root)
        if not self.recognises(root):
            raise DataError(
                f"{root} does not hold VoxCeleb2: there is no folder of a person, such as id00012, in it or in its dev/, test/ or mp4/."
            )
        found = list(_vox_frames(root))
        if not found and any(root.rglob("*.mp4")):
            raise DataError(f"{root} holds videos, but portraits are read as single frames. {_EXTRACT}")
        super().__init__(root, iter(found))

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return any(True for _ in _vox_people(root))


def _vox_people(root: Path) -> Iterator[Path]:
    for place in ("", "mp4", "dev", "test", "dev/mp4", "test/mp4"):
        folder = root / place
        if folder.is_dir():
            yield from (path for path in folders_in(folder) if _PERSON.fullmatch(path.name))


def _vox_frames(root: Path) -> Iterator[tuple[str, str, Path, Path]]:
    for person in _vox_people(root):
        for video in folders_in(person):
            for clip in (video, *folders_in(video)):
                name = video.name if clip is video else f"{video.name}-{clip.name}"
                for image in images_in(clip):
                    yield person.name, name, image, (root / "mask" / image.relative_to(root)).with_suffix(".png")
