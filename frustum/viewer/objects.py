"""Objects in colours of their own: their numbers as labels that `render_voxels` and `top_view` can draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frustum.errors import ShapeError
from frustum.types.layers import Colour, Legend, VoxelLayer, from_hsv

_PALE = 0.72
"""How far everything that does not belong to an object fades towards light grey."""
_SHADES = ((0.9, 0.95), (0.4, 0.95), (0.9, 0.5), (0.45, 0.62))
"""Saturation and value."""


def paint_objects(layer: VoxelLayer, reference: tuple[VoxelLayer, VoxelLayer] | None = None) -> VoxelLayer:
    """Voxels with an id and a colour of its own for every object, from the number of classes on, and pale colours for all else.

    Args:
        layer: voxels with `objects`.
        reference: the voxels of a second picture, and how they were painted: an object that matches one of them (the one with the
            largest overlap, at least a quarter of both together) gets the same colour, one that matches none a dull colour.

    Raises:
        ShapeError: the objects have another shape than the labels.
    """
    objects, names, colours = np.asarray(layer.objects), layer.legend.names, layer.legend.colours
    if layer.labels.shape != objects.shape:
        raise ShapeError(f"objects {objects.shape} must have the shape of the semantics {layer.labels.shape}.")
    count = len(colours)
    room = 256 - count  # colours repeat when there are more objects than ids
    numbers = np.unique(objects[objects > 0])
    slots, used = np.full(len(numbers), -1), 0
    if reference is not None:
        others, painted = reference
        used = len(painted.legend.colours) - count
        slots = _partners(objects, numbers, np.asarray(others.objects), painted.labels, count)
    is_new = slots < 0
    slots[is_new] = used + np.arange(np.count_nonzero(is_new))
    labels = layer.labels.astype(np.uint8)
    inside = objects > 0
    labels[inside] = count + slots[np.searchsorted(numbers, objects[inside])] % room
    pale = [tuple(round((1 - _PALE) * c + _PALE * 222) for c in colour) for colour in colours]
    highest = min(room, 1 + int(slots.max(initial=-1)))
    bright = highest if reference is None else min(used, highest)
    own = [object_colour(i) if i < bright else unmatched_colour(i - bright) for i in range(highest)]
    legend = Legend((*names, *(f"object {i + 1}" for i in range(highest))), (*pale, *own))  # type: ignore[arg-type]
    return replace(layer, labels=labels, legend=legend)


def object_colour(index: int) -> Colour:
    """Colour of the object at a position: steps of hue in four shades, any two of the first 24 are distinct."""
    return from_hsv(0.02 + 0.595 * index, *_SHADES[index // 5 % 4])


def unmatched_colour(index: int) -> Colour:
    """The same for objects that are in one of two pictures only: dull and dark, so that none resembles a matched one."""
    return from_hsv(0.06 + 0.42 * index, 0.28, (0.30, 0.46, 0.62)[index % 3])


def _partners(objects: np.ndarray, numbers: np.ndarray, others: np.ndarray, painted: np.ndarray, count: int) -> np.ndarray:
    """For each number the slot of the object in `others` that it overlaps most with, -1 for none; each slot is given away once."""
    both = (objects > 0) & (others > 0)
    pairs, shared = np.unique(np.stack([objects[both], others[both]]).astype(np.int64), axis=1, return_counts=True)
    size, other_size = (dict(zip(*(a.tolist() for a in np.unique(v, return_counts=True)), strict=True)) for v in (objects, others))
    slots = np.full(len(numbers), -1)
    overlap = [n / (size[a] + other_size[b] - n) for (a, b), n in zip(pairs.T.tolist(), shared.tolist(), strict=True)]
    for k in np.argsort(overlap)[::-1]:
        row, slot = int(np.searchsorted(numbers, pairs[0, k])), int(painted[others == pairs[1, k]][0]) - count
        if overlap[k] >= 0.25 and slots[row] < 0 and slot not in slots:
            slots[row] = slot
    return slots
