"""What the rest of the package expects of a model: a frozen config that builds it, and three methods (docs/add_a_method.md).

    forward(batch) -> dict[str, Tensor]          keys and shapes documented in the model's class docstring
    loss(outputs, batch) -> dict[str, Tensor]    named scalars, already weighted; the total is their plain sum
    predict(outputs, batch) -> list[Prediction]  one per sample, keyframe ego frame, SI units

A model may also define

    prepare(statistics: ClassCounts) -> None                  called once on fresh weights, before the first step
    parameter_groups() -> dict[str, list[Parameter]]          names for `optim.lr_scale`; an image encoder is called "encoder"
    turns() -> tuple[Turn, ...]                               who is trained by which loss, in which order

This module imports no torch, so that recipes can be described without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

from pydantic import AfterValidator

from frustum.config import Config

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from frustum.types.batch import Batch


class ClassCounts(Protocol):
    """What `prepare` receives: `counts` (Z, K) training voxels of each class at each height, inside the camera mask."""

    @property
    def counts(self) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True)
class Turn:
    """A part of a training step: one forward pass, the step of one optimiser. A model without `turns` has one, with `loss`.

    Attributes:
        name: for messages.
        parameters: what is trained in this turn. All others get no gradient meanwhile; one may be trained in several turns.
        loss: from the outputs of `forward` and the batch to named scalars. The names of different turns must differ. Networks that it
            calls itself, such as a discriminator, compute in float32 whatever `runtime.precision` is.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    loss: Callable[[dict[str, Tensor], Batch], dict[str, Tensor]]


def _classes(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2 or names[-1] != "free" or len(set(names)) < len(names):
        raise ValueError("class names are at least two different words, the last one is 'free'")
    return names


ClassNames = Annotated[tuple[str, ...], AfterValidator(_classes)]
"""The K classes of an occupancy head; the last one is free space."""


class ModelConfig(Config):
    """Base of every model's config. A subclass sits in the model's file and builds it.

    Attributes:
        image_multiple: the sides of the network's image must be multiples of this: the stride of its coarsest feature map.
    """

    image_multiple: ClassVar[int] = 1

    @property
    def frames_before(self) -> int:
        """Past keyframes that the network reads; `data.history` must bring as many."""
        return 0

    def build(self) -> nn.Module:
        """The network as an `nn.Module` that keeps the contract: forward, loss, predict."""
        raise TypeError(f"{type(self).__name__} must define build()")
