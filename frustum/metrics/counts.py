"""The shape of every counting metric: integer arrays that add up, so that any split of the data gives the same figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.types.classes import IGNORE

if TYPE_CHECKING:
    from typing_extensions import Self

Labels = np.ndarray | torch.Tensor


class CountMetric:
    """Base of metrics whose state is a dict of int64 arrays. Sum the states of ranks or files, `load_state`, `compute`."""

    _state: dict[str, np.ndarray]
    _free_settings: ClassVar[tuple[str, ...]] = ()  # those that do not change the counts

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Copies of the counts, int64; sums of states are states."""
        return {name: counts.copy() for name, counts in self._state.items()}

    def load_state(self, state: dict[str, Any]) -> Self:
        """Replace the counts by `state` (arrays, tensors or nested lists). Raises ConfigError for other names, shapes or floats."""
        loaded = {name: _counts(value, f"{name!r} in this state of {type(self).__name__}") for name, value in state.items()}
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
        for name, counts in other._state.items():
            self._state[name] = self._state[name] + counts
        return self


def _counts(value: Any, what: str) -> np.ndarray:
    """A new int64 array. Raises ConfigError for what is not an array of integers."""
    try:
        counts = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} is no array of counts ({error}): evaluate anew.") from error
    if counts.dtype.kind not in "biu":
        raise ConfigError(f"{what} holds {counts.dtype}, but counts are integers: evaluate anew.")
    return counts.astype(np.int64)


def to_numpy(labels: Labels, name: str) -> np.ndarray:
    """Labels as an integer or bool numpy array. Raises DataError for floats."""
    given = labels.detach().cpu() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    is_float = given.is_floating_point() if isinstance(given, torch.Tensor) else given.dtype.kind not in "biu"
    if is_float:  # asked before the conversion: numpy has no bfloat16
        raise DataError(f"{name} must hold integer class ids, got {given.dtype}. Take the argmax of scores first.")
    return given.numpy() if isinstance(given, torch.Tensor) else given


def to_float64(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Numbers of any kind and device as float64 numpy."""
    return values.detach().double().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, np.float64)


def same_shape(**arrays: np.ndarray) -> None:
    """Raise ShapeError unless all arrays have one shape."""
    shapes = {name: a.shape for name, a in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ShapeError("these must have one shape: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()) + ".")


def masked_pair(pred: Labels, target: Labels, mask: Labels | None) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true ids, flat, of the voxels inside the mask whose true label is not 255."""
    pred, target = to_numpy(pred, "the prediction"), to_numpy(target, "the target")
    same_shape(prediction=pred, target=target)
    keep = target != IGNORE
    if mask is not None:
        seen = to_numpy(mask, "the mask")
        same_shape(mask=seen, target=target)
        keep &= seen.astype(bool)
    where = np.flatnonzero(keep)  # masks without coherence make boolean indices ten times slower
    return pred.ravel()[where], target.ravel()[where]


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
