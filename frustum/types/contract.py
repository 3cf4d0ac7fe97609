"""What the rest of the package expects of a model: a frozen config that builds it, and three methods (docs/add_a_method.md).

    forward(batch) -> dict[str, Tensor]          keys and shapes documented in the model's class docstring
    loss(outputs, batch) -> dict[str, Tensor]    named scalars, already weighted; the total is their plain sum
    predict(outputs, batch) -> list[Prediction]  one per sample, keyframe ego frame, SI units

A model may also offer `prepare(statistics: ClassCounts)`, which the training loop calls once on fresh weights before the first step.
Its image encoder, if it has one, is the part called `encoder` (`img_backbone` in published layouts): `optim.encoder_lr_scale` acts on it.
This module imports no torch, so that recipes can be described without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

from pydantic import AfterValidator

from frustum.config import Config

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class ClassCounts(Protocol):
    """What `prepare` receives: `counts` (Z, K) training voxels of each class at each height, inside the camera mask."""

    @property
    def counts(self) -> np.ndarray: ...  # noqa: D102


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
        renamed: parts of the state dict that earlier versions called otherwise: old prefix of the keys, new prefix.
    """

    image_multiple: ClassVar[int] = 1
    renamed: ClassVar[dict[str, str]] = {}

    @property
    def frames_before(self) -> int:
        """Past keyframes that the network reads; `data.history` must bring as many."""
        return 0

    def build(self) -> nn.Module:
        """The network as an `nn.Module` that keeps the contract: forward, loss, predict."""
        raise TypeError(f"{type(self).__name__} must define build()")
