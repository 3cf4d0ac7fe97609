"""What every metric is made of: arrays of counts that add up, so that any split of the data gives the same figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.sums import from_words
from frustum.types.classes import IGNORE

if TYPE_CHECKING:
    from typing_extensions import Self

Labels = np.ndarray | torch.Tensor


class CountMetric:
    """Base of metrics whose state is a dict of arrays. Sum the states of ranks or files, `load_state`, `compute`."""

    _dtype: ClassVar[type] = np.int64
    _free_settings: ClassVar[tuple[str, ...]] = ()  # those that do not change the counts
    _state: dict[str, np.ndarray]

    def _start(self, **shapes: int | tuple[int, ...]) -> None:
        """Begin with zeros of the given shapes."""
        self._state = {name: np.zeros(shape, self._dtype) for name, shape in shapes.items()}

    def _add(self, **counts: Any) -> None:
        """Add to the arrays of these names."""
        for name, value in counts.items():
            self._state[name] = self._state[name] + value

    def _mean(self, name: str, number: str) -> np.ndarray:
        """Mean of the exact sums (`metrics.sums`) called `name`; NaN where the count called `number` is 0."""
        return ratio(from_words(self._state[name]), self._state[number])

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Copies of the counts, int64 unless the class says otherwise; sums of states are states."""
        return {name: counts.copy() for name, counts in self._state.items()}

    def load_state(self, state: dict[str, Any]) -> Self:
        """Replace the counts by `state` (arrays, tensors or nested lists). Raises ConfigError for other names, shapes or types."""
        loaded = {name: self._counts(value, f"{name!r} in this state of {type(self).__name__}") for name, value in state.items()}
        got, need = ({n: a.shape for n, a in s.items()} for s in (loaded, self._state))
        if got != need:
            raise ConfigError(f"this state of {type(self).__name__} has counts {got}, but this metric needs {need}: evaluate anew.")
        self._state = loaded
        return self

    def settings(self) -> dict[str, Any]:
        """What must agree for two states to be of one kind."""
        return {name: value for name, value in vars(self).items() if name not in ("_state", *self._free_settings)}

    def merge(self, other: Self) -> Self:
        """Add the counts of `other`. Raises ConfigError unless both count the same thing."""
        if type(other) is not type(self) or self.settings() != other.settings():
            raise ConfigError(f"cannot merge {type(self).__name__}({self.settings()}) with {type(other).__name__}({other.settings()}).")
        self._add(**other._state)
        return self

    def _counts(self, value: Any, what: str) -> np.ndarray:
        """A new array of the state's type. Raises ConfigError for what is not an array of such numbers."""
        try:
            counts = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{what} is not an array of counts ({error}): evaluate anew.") from error
        if counts.dtype.kind not in ("biu" if self._dtype is np.int64 else "biuf"):
            raise ConfigError(f"{what} holds {counts.dtype}, but {np.dtype(self._dtype)} is needed: evaluate anew.")
        return counts.astype(self._dtype)


def to_numpy(labels: Labels, name: str) -> np.ndarray:
    """Labels as an integer or bool numpy array. Raises DataError for floats."""
    if isinstance(labels, torch.Tensor) and not labels.is_floating_point():  # numpy does not have bfloat16
        labels = labels.detach().cpu().numpy()
    given = labels if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if isinstance(given, torch.Tensor) or given.dtype.kind not in "biu":
        raise DataError(f"{name} must hold integer class ids, got {given.dtype}. Take the argmax of scores first.")
    return given


def to_float64(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Numbers of any kind and device as float64 numpy."""
    return values.detach().double().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, np.float64)


def same_shape(**arrays: np.ndarray) -> None:
    """Raise ShapeError unless all arrays have one shape."""
    shapes = {name: a.shape for name, a in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ShapeError("these must have one shape: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()) + ".")


def label_arrays(mask: Labels | None = None, **labels: Labels) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """The mask as bool (or None) and the labels as integers, numpy, of one shape. Raises ShapeError or DataError, with the names in it."""
    given = labels if mask is None else labels | {"mask": mask}
    arrays = {name: to_numpy(value, f"the {name.replace('_', ' ')}") for name, value in given.items()}
    same_shape(**arrays)
    inside = arrays.pop("mask", None)
    if inside is not None and ((inside != 0) & (inside != inside.max(initial=0))).any():
        raise DataError(f"the mask holds {np.unique(inside)[:4].tolist()}, but must be 1 where voxels count, else 0.")
    return None if inside is None else inside.astype(bool), arrays


def masked_pair(pred: Labels, target: Labels, mask: Labels | None) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true ids, flat, of the voxels inside the mask whose true label is not 255."""
    inside, arrays = label_arrays(mask, prediction=pred, target=target)
    keep = arrays["target"] != IGNORE
    where = np.flatnonzero(keep if inside is None else keep & inside)  # scattered masks make boolean indices ten times slower
    return arrays["prediction"].ravel()[where], arrays["target"].ravel()[where]


def require_choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise ConfigError unless the argument `name` has one of the allowed values."""
    if value not in allowed:
        raise ConfigError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}.")


def require_free(free: int, num_classes: int) -> None:
    """Raise ConfigError unless the free class is one of the classes."""
    if not 0 <= free < num_classes:
        raise ConfigError(f"free must be an id below num_classes = {num_classes}, got {free}.")


def flat_images(array: np.ndarray) -> np.ndarray:
    """One image (H, W) or a batch (B, ..., H, W) as one row per image, (1, P) or (B, P)."""
    batch = array[None] if array.ndim <= 2 else array
    return batch.reshape(len(batch), int(np.prod(batch.shape[1:])))


def mean_without_nan(values: np.ndarray) -> float:
    """Mean of the entries that are not NaN; NaN if there is none."""
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in float64, NaN for 0 / 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
