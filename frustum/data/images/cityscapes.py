"""The label table of Cityscapes: ids of the label files, training ids and categories."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
