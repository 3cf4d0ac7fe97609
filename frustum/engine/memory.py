"""Whether the memory that there is can hold a training step, where the model gives an estimate (`ModelConfig.memory`)."""

from __future__ import annotations

import contextlib
import math
import shlex
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError, FrustumWarning

_MOST = 0.95  # of a device's memory: the rest is never free
_MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}


def require_memory(recipe: Recipe, network: nn.Module, device: torch.device, cameras: int = 1) -> list[str]:
    """Refuse a training that cannot fit, before its first step; returns a sentence about what it needs, where that is known.

    Nothing that may fit is refused: the estimate is a lower one, and counts against nearly all of the memory. If it is more than what is
    free now, a warning says so. `cameras` is how many images a keyframe has.

    Raises:
        ConfigError: more is needed than there is; the message says for what, and what to reduce.
    """
    parts = estimate(recipe, network, device, cameras)
    if not parts:
        return []
    needed, (free, total) = sum(parts.values()), device_memory(device)
    split = ", ".join(f"{_gib(size)} for {what}" for what, size in sorted(parts.items(), key=lambda part: -part[1]) if size >= 2**20)
    least = f"a training step needs at least {_gib(needed)} of memory ({split})"
    if needed <= free:
        return [least]
    place = f"the GPU {device}" if device.type == "cuda" else "this machine"
    advice = f"What makes it less: {'; '.join(_less(recipe, network, device, cameras))}."
    if needed > _MOST * total:
        raise ConfigError(f"{least}, but {place} has {_gib(total)}. {advice}")
    warnings.warn(f"{least}, but of the {_gib(total)} of {place} {_gib(free)} are free now. {advice}", FrustumWarning, stacklevel=3)
    return []


def estimate(recipe: Recipe, network: nn.Module, device: torch.device, cameras: int = 1) -> dict[str, int]:
    """Bytes of a training step by what they are, rather too few than too many; empty where the model gives no estimate."""
    found = recipe.model.memory(recipe.train.batch_size, device.type)
    if found is None:
        return {}
    weights, trained = (sum(p.nbytes for p in network.parameters() if p.requires_grad or every) for every in (True, False))
    kept = _MOMENTS[recipe.optim.kind] + (recipe.train.accumulate > 1)  # the last micro-step's gradients come when the rest is gone
    parts = {**found.parts, "weights, their average and the optimiser": (1 + (recipe.ema is not None)) * weights + kept * trained}
    if (encoder := image_encoder(network)) is not None:
        images = recipe.train.batch_size * cameras
        kept = kept_for_gradient(encoder, (images, 3, *recipe.data.image_size))
        parts["the image encoder"] = kept if recipe.runtime.precision == "fp32" else kept // 2  # it may be in bfloat16
    return parts


def image_encoder(network: nn.Module) -> nn.Module | None:
    """The part of a network whose weights are its parameter group `encoder`; None where there is none."""
    groups = network.parameter_groups() if hasattr(network, "parameter_groups") else {}  # type: ignore[operator]
    wanted = {id(weight) for weight in groups.get("encoder", ())}
    return next((part for part in network.modules() if wanted and {id(weight) for weight in part.parameters()} == wanted), None)


def kept_for_gradient(part: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes in float32 that a part keeps of an input of this shape for its gradient; nothing is computed or allocated for it.

    What is computed again in the backward pass is not counted. 0 for a part that has no such form.
    """
    weights = {name: torch.empty_like(t, device="meta").requires_grad_() for name, t in part.named_parameters()}
    state = weights | {name: torch.empty_like(t, device="meta") for name, t in part.named_buffers()}
    own = {t.untyped_storage()._cdata for t in state.values()}
    seen: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage()._cdata] = tensor  # the tensor, so that its storage stays, and its number with it
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            torch.func.functional_call(part, state, (torch.empty(shape, device="meta"),))
    except RuntimeError:  # an operator that has no form for shapes alone
        return 0
    return sum(t.untyped_storage().nbytes() for key, t in seen.items() if key not in own)


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


def _less(recipe: Recipe, network: nn.Module, device: torch.device, cameras: int) -> list[str]:
    """Settings that need less, with what is needed then; first smaller batches, by which a step learns the same, then by effect."""
    known, train = recipe.model.memory(1, device.type), recipe.train
    now, fewer = sum(estimate(recipe, network, device, cameras).values()), max(1, train.batch_size // 2)
    batch = [f"train.batch_size={fewer}", f"train.accumulate={math.ceil(train.batch_size / fewer) * train.accumulate}"]
    found: list[tuple[int, str]] = []
    for words in (batch, *([f"model.{word}" for word in less.split()] for less in (known.less if known else ()))):
        with contextlib.suppress(ConfigError):  # a network that cannot have this setting
            then = sum(estimate(apply(recipe, words), network, device, cameras).values())
            rank = 0 if words is batch else then
            found += [(rank, f"{' '.join(map(shlex.quote, words))} ({_gib(then)})")] if then < now else []
    return [text for _, text in sorted(found)]


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.0f} MiB"
