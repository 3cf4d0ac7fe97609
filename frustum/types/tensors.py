"""Values that hold tensors: moved to a device, cut into samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from frustum.geometry.transforms import send

T = TypeVar("T")


def moved(value: T, device: torch.device | str) -> T:
    """The value with every tensor on `device`; those in dataclasses and lists, too."""
    return _mapped(value, lambda tensor: send(tensor, device), lambda entries: entries)


def pinned(value: T) -> T:
    """The value with every tensor in page-locked memory, from which copies to a GPU run beside other work."""
    return _mapped(value, lambda tensor: tensor.pin_memory(), lambda entries: entries)


def part(value: T, samples: slice) -> T:
    """Some samples of a batched value: the tensors and lists of it and of its fields are cut along their first dimension."""
    return _mapped(value, lambda tensor: tensor[samples], lambda entries: entries[samples])


def count_samples(value: Any) -> int | None:
    """Number of samples of a batched value, by the first tensor or list in it; None if there is neither."""
    if isinstance(value, Tensor | list):
        return len(value)
    entries = [getattr(value, f.name) for f in fields(value)] if is_dataclass(value) else []
    return next((count for entry in entries if (count := count_samples(entry)) is not None), None)


def _mapped(value: Any, on_tensor: Callable[[Tensor], Tensor], on_list: Callable[[list[Any]], list[Any]]) -> Any:
    if isinstance(value, Tensor):
        return on_tensor(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _mapped(getattr(value, f.name), on_tensor, on_list) for f in fields(value) if f.init})
    if isinstance(value, list):
        entries = on_list(value)
        return entries if entries is not value or not value else [_mapped(entry, on_tensor, on_list) for entry in value]
    return value
