"""True head swaps of generated people, against which methods are judged, and from which they may learn.

They are in swaps.json, and in a folder swaps/NAME for each.

swaps.json     {NAME: {"source": PERSON/CLIP, "target": PERSON/CLIP/FRAME}}
swaps/NAME/    head.png: the source's head in the place and pose of the target's, in its own colours and light
               source.png, skin.png, region.png: the target with that head, under each colour policy
               mask.png: parts of all of these; swap.json: the entry of swaps.json, written last
               aligned.png, aligned_mask.png: the head as an aligner drew it, and its parts, where that was asked for; aligned.json: which
               aligner, of which swap, written last
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from frustum.errors import DataError
from frustum.files import read_json

SWAPS, HEAD, MASK, ALIGNED = "swaps", "head", "mask", "aligned"
"""Name of the file, of the folder and of the split; and names of pictures."""
TRAIN_SWAPS = "train_swaps"
"""The split of swaps onto people of the split train, to learn from; those of SWAPS judge."""


class Swap(NamedTuple):
    """Whose head (PERSON/CLIP) goes onto which portrait (PERSON/CLIP/FRAME)."""

    source: str
    target: str


def swaps_file(root: Path) -> Path:
    """The list of swaps of a data set."""
    return root / f"{SWAPS}.json"


def read_swaps(root: Path, frames: Collection[str], clips: Mapping[str, Collection[str]]) -> dict[str, Swap]:
    """The swaps of a data set by name; none if it does not have any. Raises DataError if a clip or a frame is not there."""
    path, found = swaps_file(root), {}
    rows = read_json(path, "list of swaps") if path.is_file() else {}
    if not isinstance(rows, dict) or not all(isinstance(row, dict) and {"source", "target"} <= row.keys() for row in rows.values()):
        raise DataError(f'{path} needs {{NAME: {{"source": PERSON/CLIP, "target": PERSON/CLIP/FRAME}}}}. Generate the heads again.')
    for name, row in rows.items():
        found[name] = swap = Swap(str(row["source"]), str(row["target"]))
        person, _, clip = swap.source.partition("/")
        if clip not in clips.get(person, ()) or swap.target not in frames:
            raise DataError(f"{path} names {swap.source} and {swap.target}, of which one is not there. Generate the heads again.")
    return found
