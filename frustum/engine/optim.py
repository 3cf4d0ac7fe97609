"""The optimiser, with a rate of its own for each scaled parameter group, and the learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from frustum.engine.recipe import OptimConfig
from frustum.errors import ConfigError, nearest_names


def build_optimizer(model: nn.Module, config: OptimConfig, parameters: Iterable[nn.Parameter] | None = None) -> Optimizer:
    """The optimiser of `parameters` (default: of the whole model); those that need no gradient are left out.

    What is in no scaled group comes first, then the groups in the order of `lr_scale`, each with lr * scale.

    Raises:
        ConfigError: nothing to train, a scale for a group that the model does not have, or a parameter in two scaled groups.
    """
    trainable = [p for p in (model.parameters() if parameters is None else parameters) if p.requires_grad]
    if not trainable:
        raise ConfigError(f"{type(model).__name__} has no trainable parameter.")
    params: list[Any] = _scaled_groups(model, config, trainable) if config.lr_scale else trainable
    # One kernel for all parameters where every one is on a processor that has it: a third of the time on a CPU.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trainable)
    if config.kind == "sgd":
        return SGD(params, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused)
    kind = AdamW if config.kind == "adamw" else Adam
    return kind(params, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)


def _scaled_groups(model: nn.Module, config: OptimConfig, trainable: list[nn.Parameter]) -> list[dict[str, Any]]:
    known: dict[str, list[nn.Parameter]] = model.parameter_groups() if hasattr(model, "parameter_groups") else {}  # type: ignore[operator]
    group_of: dict[int, str] = {}
    for name in config.lr_scale:
        if name not in known:
            hint = nearest_names(name, known) if known else "it names none. Set optim.lr_scale={}."
            raise ConfigError(f"optim.lr_scale.{name}: {type(model).__name__} does not have a parameter group {name!r}; {hint}")
        for parameter in known[name]:
            first = group_of.setdefault(id(parameter), name)
            if first != name:
                raise ConfigError(f"the parameter groups {first!r} and {name!r} overlap: give only one of them an entry in optim.lr_scale.")
    scales = {"": 1.0, **config.lr_scale}
    groups = [
        {"params": [p for p in trainable if group_of.get(id(p), "") == name], "lr": config.lr * scale} for name, scale in scales.items()
    ]
    return [group for group in groups if group["params"]]


def lr_factor(config: OptimConfig, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Factor on the learning rate of the optimiser step with number `step`, counted from 0.

    `constant` is 1; `step` divides by 10 after each of `step_epochs`; `cosine` and `poly`, (1 - step / total_steps)^poly_power, fall from
    1 to `min_lr_ratio` over all steps. During the first `warmup_steps` the result is multiplied by a line from `warmup_ratio` to 1.
    `one_cycle` is torch's OneCycleLR, without warm-up.
    """
    if config.schedule == "one_cycle":
        return _one_cycle(config, step, total_steps)
    factor, done = 1.0, min(1.0, step / max(1, total_steps))
    if config.schedule == "step":
        factor = 0.1 ** sum(step >= epoch * steps_per_epoch for epoch in config.step_epochs)
    elif config.schedule == "cosine":
        factor = _from_to(1, config.min_lr_ratio, 0.5 * (1 + math.cos(math.pi * done)))
    elif config.schedule == "poly":
        factor = _from_to(1, config.min_lr_ratio, (1 - done) ** config.poly_power)
    if step < config.warmup_steps:
        factor *= config.warmup_ratio + (1 - config.warmup_ratio) * step / config.warmup_steps
    return factor


def _one_cycle(config: OptimConfig, step: int, total_steps: int) -> float:
    """From 1 / div_factor to 1, then to 1 / (div_factor * final_div_factor) in the last step: half a cosine each, or a line."""
    first, last = 1 / config.div_factor, total_steps - 1
    top = config.pct_start * total_steps - 1  # the highest step; torch lets it lie between two
    if step < top:
        return _from_to(first, 1, _left(config, step / top))
    done = min(1.0, (step - top) / (last - top))
    return _from_to(1, first / config.final_div_factor, _left(config, done))


def _left(config: OptimConfig, done: float) -> float:
    """How much of the first value is left when a share of the way is done."""
    return 1 - done if config.anneal == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def _from_to(first: float, last: float, share: float) -> float:
    """`first` where `share` is 1, `last` where it is 0."""
    return last + (first - last) * share


def build_scheduler(optimizer: Optimizer, config: OptimConfig, total_steps: int, steps_per_epoch: int) -> LambdaLR:
    """`lr_factor` as a torch scheduler; call `step()` once per optimiser step."""
    return LambdaLR(optimizer, lambda step: lr_factor(config, step, total_steps, steps_per_epoch))
