"""Whether the memory that there is can hold a training step, where the model gives an estimate (`ModelConfig.memory`)."""

from __future__ import annotations

import contextlib
import math
import shlex
import warnings
from pathlib import Path

import torch
from torch import nn

from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError, FrustumWarning

_MOST = 0.95  # of a device's memory: the rest is never free
_MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}


def require_memory(recipe: Recipe, network: nn.Module, device: torch.device) -> list[str]:
    """Refuse a training that cannot fit, before its first step; returns a sentence about what it needs, where that is known.

    Nothing that may fit is refused: the estimate is a lower one, and counts against nearly all of the memory. If it is more than what is
    free now, a warning says so.

    Raises:
        ConfigError: more is needed than there is; the message says for what, and what to reduce.
    """
    parts = estimate(recipe, network, device)
    if not parts:
        return []
    needed, (free, total) = sum(parts.values()), device_memory(device)
    split = ", ".join(f"{_gib(size)} for {what}" for what, size in sorted(parts.items(), key=lambda part: -part[1]) if size >= 2**20)
    least = f"a training step needs at least {_gib(needed)} of memory ({split})"
    if needed <= free:
        return [least]
    place = f"the GPU {device}" if device.type == "cuda" else "this machine"
    advice = f"What makes it less: {'; '.join(_less(recipe, network, device))}."
    if needed > _MOST * total:
        raise ConfigError(f"{least}, but {place} has {_gib(total)}. {advice}")
    warnings.warn(f"{least}, but of the {_gib(total)} of {place} {_gib(free)} are free now. {advice}", FrustumWarning, stacklevel=3)
    return []


def estimate(recipe: Recipe, network: nn.Module, device: torch.device) -> dict[str, int]:
    """Bytes of a training step by what they are, rather too few than too many; empty where the model gives no estimate."""
    found = recipe.model.memory(recipe.train.batch_size, device.type)
    if found is None:
        return {}
    weights, trained = (sum(p.nbytes for p in network.parameters() if p.requires_grad or every) for every in (True, False))
    kept = _MOMENTS[recipe.optim.kind] + (recipe.train.accumulate > 1)  # the last micro-step's gradients come when the rest is gone
    return {**found.parts, "weights, their average and the optimiser": (1 + (recipe.ema is not None)) * weights + kept * trained}


def device_memory(device: torch.device) -> tuple[int, int]:
    """Bytes that are free now, and all that there are: of the GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    import psutil  # a dependency of accelerate

    state = psutil.virtual_memory()
    limit = _container_limit() or state.total
    return min(state.available, limit), min(state.total, limit)


def _container_limit() -> int | None:
    """Bytes that a container of ours may use; None without such a limit."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))  # "max" for none
    return None


def _less(recipe: Recipe, network: nn.Module, device: torch.device) -> list[str]:
    """Settings that need less, with what is needed then; first smaller batches, by which a step learns the same, then by effect."""
    known, train = recipe.model.memory(1, device.type), recipe.train
    now, fewer = sum(estimate(recipe, network, device).values()), max(1, train.batch_size // 2)
    batch = [f"train.batch_size={fewer}", f"train.accumulate={math.ceil(train.batch_size / fewer) * train.accumulate}"]
    found: list[tuple[int, str]] = []
    for words in (batch, *([f"model.{word}"] for word in (known.less if known else ()))):
        with contextlib.suppress(ConfigError):  # a network that cannot have this setting
            then = sum(estimate(apply(recipe, words), network, device).values())
            rank = 0 if words is batch else then
            found += [(rank, f"{' '.join(map(shlex.quote, words))} ({_gib(then)})")] if then < now else []
    return [text for _, text in sorted(found)]


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.0f} MiB"
