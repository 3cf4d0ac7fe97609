"""What of a given state dict fits a model, what it lacks and what it has too much, wherever weights are loaded."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from frustum.errors import CheckpointError

V = TypeVar("V")

_REPEATED = 1 << 26  # bytes that a tensor may have whose numbers are repeated (expanded) and not all stored

COUNTER = "num_batches_tracked"
"""A batch norm counts its updates in this entry, which nothing reads with a fixed momentum; old and converted files lack it."""


def as_tensors(state: Mapping[str, Tensor | np.ndarray], what: str) -> dict[str, Tensor]:
    """A state dict of tensors or numpy arrays as tensors; arrays are copied.

    Raises:
        CheckpointError: an entry of `what` is neither, or an array without numbers.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        try:
            found[key] = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))
            _require_real_size(found[key])
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{what} does not hold a state dict: {key} is a {type(value).__name__}, where a tensor or an array of numbers is needed "
                "that are all stored."
            ) from error
    return found


def _require_real_size(tensor: Tensor) -> None:
    """Raise ValueError for a tensor that would take far more memory than what is stored of it, or of numbers that no network has."""
    if (
        tensor.layout != torch.strided
        or tensor.is_complex()
        or (tensor.nbytes > _REPEATED and tensor.nbytes > tensor.untyped_storage().nbytes())
    ):
        raise ValueError("it is no plain tensor")


def complete(model_state: Mapping[str, Tensor], given_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`given_state` with a 0 for the counter of each of the model's batch norms whose statistics it has without their counter."""
    found = dict(given_state)
    for key, value in model_state.items():
        if key.endswith(COUNTER) and key not in found and key.removesuffix(COUNTER) + "running_mean" in found:
            found[key] = torch.zeros(value.shape, dtype=value.dtype)
    return found


def renamed(state: Mapping[str, V], prefixes: Mapping[str, str]) -> dict[str, V]:
    """A state dict of an earlier version in the names of this one (`ModelConfig.renamed`): each old prefix of a key becomes the new one."""
    found: dict[str, V] = {}
    for key, value in state.items():
        old = next((old for old, new in prefixes.items() if key.startswith(old) and not key.startswith(new)), "")
        found[prefixes[old] + key.removeprefix(old) if old else key] = value
    return found


def without_holder(state: Mapping[str, V], keys: Collection[str]) -> tuple[dict[str, V], str]:
    """The state dict of a network that another one held, in its own names, and the word that was in front of them.

    Nothing is done to a state dict of which some keys are known as they are, or below whose first words none are; the word is empty then.

    Args:
        state: of the network that held it.
        keys: of the network.
    """
    words = dict.fromkeys(map(_part, state))
    below = {word: sum(key.removeprefix(f"{word}.") in keys for key in state if _part(key) == word) for word in words}
    word = max(below, key=lambda name: below[name], default="")
    if any(key in keys for key in state) or not below.get(word):
        return dict(state), ""
    return {key.removeprefix(f"{word}.") if _part(key) == word else key: value for key, value in state.items()}, word


@dataclass(frozen=True)
class Fit:
    """Which entries of a state dict fit a model.

    Attributes:
        taken: in both, with equal shapes.
        missing: in the model only.
        unexpected: in the given weights only.
        reshaped: in both, with other shapes.
    """

    taken: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @classmethod
    def of(cls, model_state: Mapping[str, Tensor], given_state: Mapping[str, Tensor]) -> Fit:
        """Compare names and shapes; values are not read, so that tensors on the meta device will do."""
        both = [key for key in model_state if key in given_state]
        taken = tuple(key for key in both if model_state[key].shape == given_state[key].shape)
        missing = tuple(key for key in model_state if key not in given_state)
        unexpected = tuple(key for key in given_state if key not in model_state)
        return cls(taken, missing, unexpected, tuple(key for key in both if key not in set(taken)))

    def __str__(self) -> str:
        """What fits and what does not, by part of the network (the first word of a key)."""
        needed = Counter(_part(key) for key in (*self.taken, *self.missing, *self.reshaped))
        found = Counter(map(_part, self.taken))
        whole = [f"{part} {count}" for part, count in needed.items() if found[part] == count]
        some = [f"{part} {found[part]} of {count}" for part, count in needed.items() if 0 < found[part] < count]
        none = [f"{part} {count}" for part, count in needed.items() if not found[part]]
        extra = [f"{part} {count}" for part, count in Counter(map(_part, self.unexpected)).items()]
        lines = [f"{len(self.taken)} of {sum(needed.values())} entries fit"]
        lines += [f"{title}: {', '.join(parts)}" for title, parts in (
            ("wholly", whole), ("partly", some), ("not", none), ("other shape", _first(self.reshaped)), ("left over in the file", extra)
        ) if parts]  # fmt: skip
        return "; ".join(lines)


def _part(key: str) -> str:
    return key.partition(".")[0]


def _first(keys: Sequence[str], max_keys: int = 6) -> list[str]:
    return [*keys[:max_keys], *([f"... and {len(keys) - max_keys} more"] if len(keys) > max_keys else [])]


def describe_difference(model_state: Mapping[str, Tensor], given_state: Mapping[str, Tensor], max_keys: int = 8) -> str:
    """What does not match, one finding a line, at most `max_keys` of each kind; empty when the two fit exactly.

    Args:
        model_state: what the model needs, by key.
        given_state: what the file or the caller offers, by key.
    """
    fit = Fit.of(model_state, given_state)
    needed = {key: tuple(value.shape) for key, value in model_state.items()}
    given = {key: tuple(value.shape) for key, value in given_state.items()}
    known = len(needed) - len(fit.missing)
    is_another = 2 * known < len(needed)
    lines: list[str] = []
    if is_another:
        shared = f"only {known} of the model's {len(needed)} keys are" if known else f"not one of the model's {len(needed)} keys is"
        lines.append(f"{shared} in the given weights: they look like another network's")

    def hint(key: str) -> str:
        """A name among the unexpected keys of the same shape that is nearly the missing one."""
        alike = [] if is_another else [other for other in fit.unexpected if given[other] == needed[key]]
        close = difflib.get_close_matches(key, alike, n=1, cutoff=0.75)
        return f"  did you mean {close[0]!r}?" if close else ""

    for title, keys, detail in (
        ("missing", fit.missing, lambda key: f"{needed[key]}{hint(key)}"),
        ("not in the model", fit.unexpected, lambda key: given[key]),
        ("other shape", fit.reshaped, lambda key: f"needed {needed[key]}, given {given[key]}"),
    ):
        if keys:
            lines += [f"{title} ({len(keys)}):", *(f"  {key}  {detail(key)}" for key in keys[:max_keys])]
            lines += [f"  ... and {len(keys) - max_keys} more"] if len(keys) > max_keys else []
    return "\n".join(lines)
