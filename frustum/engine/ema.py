"""Exponential moving average of a model, by the rule that FlashOCC trains with (its MEGVIIEMAHook)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from frustum.engine.recipe import EmaConfig

Tensors = tuple[Tensor, ...] | list[Tensor]


def ema_decay(config: EmaConfig, updates: int) -> float:
    """d of the `updates`-th update: decay * (1 - exp(-updates / warmup)), or decay when warmup is 0. The first update is number
    `initial_updates` + 1."""
    return config.decay * (1 - math.exp(-updates / config.warmup)) if config.warmup else config.decay


def build_ema(model: nn.Module, config: EmaConfig) -> AveragedModel:
    """A copy of `model` whose `update_parameters(model)` applies ema = d * ema + (1 - d) * model to every float entry of the state dict,
    BatchNorm statistics included. Whole numbers (step counters) are copied. The averaged network is `.module`.
    """

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            # lerp, because x + w * (y - x) leaves a constant entry exactly as it is
            torch._foreach_lerp_(averaged, current, 1 - ema_decay(config, int(updates)))
        else:
            torch._foreach_copy_(averaged, current)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    # torch counts finished updates and copies the model at number 0; the rule blends from the very first one.
    ema.n_averaged.fill_(config.initial_updates + 1)
    return ema.requires_grad_(False).eval()


def settled(averaged: nn.Module) -> nn.Module:
    """An averaged network, ready for use, in evaluation mode.

    What holds numbers that follow from others, of which the mean is not what follows from the mean, has a method `after_averaging`.
    """
    for module in averaged.modules():
        if callable(settle := getattr(module, "after_averaging", None)):
            settle()
    return averaged.eval()
