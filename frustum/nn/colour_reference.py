"""Which colours a head should have: those that the same regions have in another image (HeSer's semantic-guided colour reference).

Every place of one map looks at all places of the other map with its own label, and takes the mean of their colours, weighed by a softmax of
how alike the features are. Labels part the map, so one softmax that is masked by equal labels does what the published code does in nine
loops, for a whole batch.

Shape letters: B batch, C channels, h w and h' w' the two maps, P and Q their places.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast

Normalisation = Literal["clean", "heser"]
"""How features get length 1: `clean` divides what is left of them without their mean by its own length, as HeadSwap does; `heser` by the
length that they had with their mean, as HeSer.Pytorch does: then they are shorter than 1."""

NOWHERE = 0
"""The label of places that take no part."""


def normalised(features: Tensor, how: Normalisation = "clean") -> Tensor:
    """(B, C, *) -> the same shape in float32, without the mean over channels, and divided by a length (see `Normalisation`)."""
    features = features.float()
    centred = features - features.mean(1, keepdim=True)
    length = (features if how == "heser" else centred).norm(dim=1, keepdim=True)
    return centred / (length + 1e-8)


def colour_reference(
    queries: Tensor,
    keys: Tensor,
    query_labels: Tensor,
    key_labels: Tensor,
    colours: Tensor,
    temperature: float = 0.001,
    rows: int | None = None,
) -> Tensor:
    """Colours (B, D, h, w) of each place, from the places of the other map with the same label; 0 where there is none, or the label is 0.

    Everything is computed in float32: at a temperature of 0.001 half precision would decide between neighbours by rounding.

    Args:
        queries, keys: (B, C, h, w) and (B, C, h', w') normalised features.
        query_labels, key_labels: (B, h, w) and (B, h', w') integers; NOWHERE is compared with nothing.
        colours: (B, D, h', w') of the places of the other map.
        temperature: what the products of features are divided by; 0.001 takes the most similar place almost alone.
        rows: places that are looked at at once, for less memory: P * Q numbers each sample else.

    Raises:
        ShapeError: maps that do not fit. ConfigError: a temperature that is not positive.
    """
    if not temperature > 0:
        raise ConfigError(f"the temperature of the colour reference must be positive, got {temperature}.")
    wanted = {"queries": (queries, query_labels), "keys": (keys, key_labels), "colours": (colours, key_labels)}
    for name, (values, labels) in wanted.items():
        if values.ndim != 4 or (len(values), *values.shape[2:]) != tuple(labels.shape):
            raise ShapeError(f"{name} {tuple(values.shape)} do not lie on labels {tuple(labels.shape)}: both need the same (B, h, w).")
    if queries.shape[:2] != keys.shape[:2]:
        raise ShapeError(f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)} differ in samples or channels.")
    with without_autocast(queries):
        q, k, values = queries.float().flatten(2).mT, keys.float().flatten(2), colours.float().flatten(2).mT
        ours, theirs = query_labels.flatten(1)[:, :, None], key_labels.flatten(1)[:, None]
        step = rows or q.shape[1]
        parts = [_weighed(q[:, i : i + step], k, ours[:, i : i + step], theirs, values, temperature) for i in range(0, q.shape[1], step)]
        return torch.cat(parts, 1).mT.unflatten(2, query_labels.shape[1:])


def _weighed(q: Tensor, k: Tensor, ours: Tensor, theirs: Tensor, values: Tensor, temperature: float) -> Tensor:
    is_alike = (ours == theirs) & (ours != NOWHERE)  # (B, P, Q)
    logits = (q @ k / temperature).masked_fill(~is_alike, -torch.inf)
    is_alone = ~is_alike.any(2, keepdim=True)  # a softmax over nothing is not a number
    return logits.masked_fill(is_alone, 0.0).softmax(2).masked_fill(is_alone, 0.0) @ values
