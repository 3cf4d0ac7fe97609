"""Cityscapes: its label table (ids of the label files, training ids and categories), and a reader of its folders."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from frustum.data.images.labelled import Entry, LabelledImages, images_in
from frustum.types.classes import IGNORE


class CityscapesLabel(NamedTuple):
    """One label. `train_id` is 255 for labels that are not evaluated."""

    name: str
    id: int
    train_id: int
    category: str


# Labels by category, in the order of their ids, which are 0 to 33. A star marks those that are evaluated: training ids count them.
_TABLE = {
    "void": "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground",
    "flat": "road*, sidewalk*, parking, rail track",
    "construction": "building*, wall*, fence*, guard rail, bridge, tunnel",
    "object": "pole*, polegroup, traffic light*, traffic sign*",
    "nature": "vegetation*, terrain*",
    "sky": "sky*",
    "human": "person*, rider*",
    "vehicle": "car*, truck*, bus*, caravan, trailer, train*, motorcycle*, bicycle*",
}
CATEGORY_NAMES: tuple[str, ...] = tuple(_TABLE)[1:]
_ROWS = [(name, category) for category, names in _TABLE.items() for name in names.split(", ")]
_STARRED = [name for name, _ in _ROWS if name.endswith("*")]
LABELS: tuple[CityscapesLabel, ...] = tuple(
    CityscapesLabel(name.rstrip("*"), i, _STARRED.index(name) if name in _STARRED else IGNORE, category)
    for i, (name, category) in enumerate(_ROWS)
)
"""The labels 0 to 33 (the table also has -1, licence plate, which belongs to void for evaluation)."""

EVALUATED: tuple[CityscapesLabel, ...] = tuple(x for x in LABELS if x.train_id != IGNORE)
"""The 19 evaluated labels in the order of their training ids."""

CLASS_NAMES: tuple[str, ...] = tuple(x.name for x in EVALUATED)
CATEGORY_OF_CLASS: tuple[int, ...] = tuple(CATEGORY_NAMES.index(x.category) for x in EVALUATED)
"""Index into CATEGORY_NAMES for each training id."""


def train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Training ids uint8 (*) of label ids (*) of any integer type; -1 and unknown ids become 255."""
    ids = np.asarray(label_ids)
    table = np.array([*(label.train_id for label in LABELS), IGNORE], np.uint8)
    return table[np.where((ids >= 0) & (ids < len(LABELS)), ids, len(LABELS)).astype(np.int64)]


class Cityscapes(LabelledImages):
    """Cityscapes: leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png, or _labelTrainIds.png.

    2,975 images for training, 500 for validation and 1,525 for a test without labels. A token is NAME, such as aachen_000000_000019.
    """

    def __init__(self, root: Path | str):
        root = Path(root)
        # labelIds come with the data set, labelTrainIds are made from them; where both are there they say the same.
        kind = next((k for k in ("labelIds", "labelTrainIds") if next(root.glob(f"gtFine/*/*/*_gtFine_{k}.png"), None)), "labelIds")
        splits = {folder.name: _entries(root, folder, kind) for folder in sorted((root / "leftImg8bit").iterdir()) if folder.is_dir()}
        ids = {label.id: label.train_id for label in LABELS} if kind == "labelIds" else None
        about = f"{kind} of Cityscapes are 0 to {len(LABELS if ids else EVALUATED) - 1}, and {IGNORE} where nothing counts"
        super().__init__(root, CLASS_NAMES, splits, ids, about)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return (root / "leftImg8bit").is_dir()


def _entries(root: Path, folder: Path, kind: str) -> list[Entry]:
    files = [path for city in sorted(folder.iterdir()) for path in images_in(city)]
    names = [path.stem.removesuffix("_leftImg8bit") for path in files]
    where = root / "gtFine" / folder.name
    return [Entry(n, p, where / p.parent.name / f"{n}_gtFine_{kind}.png") for n, p in zip(names, files, strict=True)]
