"""What the rest of the package expects of a model: a frozen config that builds it, and three methods (docs/add_a_method.md).

    forward(batch) -> dict[str, Tensor]          keys and shapes documented in the model's class docstring
    loss(outputs, batch) -> dict[str, Tensor]    named scalars, already weighted; the total is their plain sum
    predict(outputs, batch) -> list[Prediction]  one per sample, keyframe ego frame, SI units

A model may also offer `prepare(statistics: ClassCounts)`, which the training loop calls once on fresh weights before the first step.
Its image encoder, if it has one, is the part called `encoder` (`img_backbone` in published layouts): `optim.encoder_lr_scale` acts on it.
This module imports no torch, so that recipes can be described without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from frustum.config import Config

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class ClassCounts(Protocol):
    """What `prepare` receives: `counts` (Z, K) training voxels of each class at each height, inside the camera mask."""

    @property
    def counts(self) -> np.ndarray: ...  # noqa: D102


class ModelConfig(Config):
    """Base of every model's config. A subclass sits in the model's file and builds it."""

    def build(self) -> nn.Module:
        """The network as an `nn.Module` that keeps the contract: forward, loss, predict."""
        raise TypeError(f"{type(self).__name__} must define build()")
