"""The label table of Cityscapes: ids of the label files, training ids, categories, and which classes have instances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class CityscapesLabel(NamedTuple):
    """One label. `train_id` is 255 for labels that are not evaluated."""

    name: str
    id: int
    train_id: int
    category: str
    has_instances: bool


_VOID, _FLAT, _BUILT, _OBJECT, _NATURE = "void", "flat", "construction", "object", "nature"
LABELS: tuple[CityscapesLabel, ...] = tuple(
    CityscapesLabel(*row)
    for row in (
        ("unlabeled", 0, 255, _VOID, False),
        ("ego vehicle", 1, 255, _VOID, False),
        ("rectification border", 2, 255, _VOID, False),
        ("out of roi", 3, 255, _VOID, False),
        ("static", 4, 255, _VOID, False),
        ("dynamic", 5, 255, _VOID, False),
        ("ground", 6, 255, _VOID, False),
        ("road", 7, 0, _FLAT, False),
        ("sidewalk", 8, 1, _FLAT, False),
        ("parking", 9, 255, _FLAT, False),
        ("rail track", 10, 255, _FLAT, False),
        ("building", 11, 2, _BUILT, False),
        ("wall", 12, 3, _BUILT, False),
        ("fence", 13, 4, _BUILT, False),
        ("guard rail", 14, 255, _BUILT, False),
        ("bridge", 15, 255, _BUILT, False),
        ("tunnel", 16, 255, _BUILT, False),
        ("pole", 17, 5, _OBJECT, False),
        ("polegroup", 18, 255, _OBJECT, False),
        ("traffic light", 19, 6, _OBJECT, False),
        ("traffic sign", 20, 7, _OBJECT, False),
        ("vegetation", 21, 8, _NATURE, False),
        ("terrain", 22, 9, _NATURE, False),
        ("sky", 23, 10, "sky", False),
        ("person", 24, 11, "human", True),
        ("rider", 25, 12, "human", True),
        ("car", 26, 13, "vehicle", True),
        ("truck", 27, 14, "vehicle", True),
        ("bus", 28, 15, "vehicle", True),
        ("caravan", 29, 255, "vehicle", True),
        ("trailer", 30, 255, "vehicle", True),
        ("train", 31, 16, "vehicle", True),
        ("motorcycle", 32, 17, "vehicle", True),
        ("bicycle", 33, 18, "vehicle", True),
    )
)
"""The labels 0 to 33 (the table also knows -1, licence plate, which belongs to void for evaluation)."""

EVALUATED: tuple[CityscapesLabel, ...] = tuple(sorted((x for x in LABELS if x.train_id != 255), key=lambda x: x.train_id))
"""The 19 evaluated labels in the order of their training ids."""

CLASS_NAMES: tuple[str, ...] = tuple(x.name for x in EVALUATED)
CATEGORY_NAMES: tuple[str, ...] = (_FLAT, _BUILT, _OBJECT, _NATURE, "sky", "human", "vehicle")
CATEGORY_OF_CLASS: tuple[int, ...] = tuple(CATEGORY_NAMES.index(x.category) for x in EVALUATED)
"""Index into CATEGORY_NAMES for each training id."""

INSTANCE_CLASSES: tuple[int, ...] = tuple(x.train_id for x in EVALUATED if x.has_instances)
"""Training ids of the classes whose objects are told apart: person, rider, car, truck, bus, train, motorcycle, bicycle."""


def train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Training ids uint8 (*) of label ids (*) of any integer type; -1 and unknown ids become 255."""
    table = np.full(256, 255, np.uint8)
    for label in EVALUATED:
        table[label.id] = label.train_id
    ids = np.asarray(label_ids)
    return np.where((ids >= 0) & (ids < 256), table[ids.astype(np.int64) & 255], np.uint8(255))
