"""The turns of a step: whose parameters are trained by which loss, in which order, and what keeps one turn from the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from frustum.errors import ConfigError
from frustum.types.contract import Turn


def turns_of(network: nn.Module) -> tuple[Turn, ...]:
    """The model's `turns()`, or one turn with all its parameters and its `loss`. Parameters that need no gradient are left out.

    Raises:
        ConfigError: a turn without trainable parameters or with one that is not the model's, a trainable parameter in no turn, or a first
            turn that reuses outputs.
    """
    model = type(network).__name__
    if not hasattr(network, "turns"):
        trainable = tuple(p for p in network.parameters() if p.requires_grad)
        return (Turn("all", trainable, lambda outputs, batch: network.loss(outputs, batch)),)  # type: ignore[operator]
    turns: tuple[Turn, ...] = network.turns()  # type: ignore[operator]
    missing = {id(p): name for name, p in network.named_parameters() if p.requires_grad}
    own = {id(p) for p in network.parameters()}
    trained = []
    if turns[0].reuses:
        raise ConfigError(f"turn {turns[0].name!r} of {model} reuses the outputs of a turn before it, but it is the first one.")
    for turn in turns:
        if any(id(p) not in own for p in turn.parameters):
            raise ConfigError(f"turn {turn.name!r} of {model} trains a parameter that is not the model's: make its network an attribute.")
        parameters = tuple(p for p in turn.parameters if p.requires_grad)
        if not parameters:
            raise ConfigError(f"turn {turn.name!r} of {model} has no trainable parameter.")
        missing = {key: name for key, name in missing.items() if key not in {id(p) for p in parameters}}
        trained.append(replace(turn, parameters=parameters))
    if missing:
        names = _some(missing.values())
        raise ConfigError(f"{model} has parameters that no turn trains: {names}. Add them to a turn, or call requires_grad_(False).")
    return tuple(trained)


@contextmanager
def alone(turn: Turn, turns: Sequence[Turn]) -> Iterator[None]:
    """Within the context only the parameters of `turn` need a gradient."""
    own = {id(p) for p in turn.parameters}
    others = [p for other in turns for p in other.parameters if id(p) not in own]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def require_other_names(turn: Turn, names: Iterable[str], earlier: Iterable[str]) -> None:
    """Raise ConfigError if a loss of `turn` has the name of one of an `earlier` turn of the step."""
    both = sorted(set(names) & set(earlier))
    if both:
        why = f"turn {turn.name!r} returns a loss that an earlier turn also has: {_some(both)}"
        raise ConfigError(f"{why}. Rename it: the log shows the losses of all turns by their names.")


@torch.no_grad()
def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Give the tensors of this process the values that the first process has."""
    for tensor in tensors:
        tensor.copy_(broadcast(tensor.detach().clone(memory_format=torch.contiguous_format)))


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Replace each gradient by its mean over the processes, in one exchange. One that no process has stays None."""
    flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    has_gradient = flat[0].new_tensor([p.grad is not None for p in parameters])
    mean: Tensor = accelerator.reduce(torch.cat([*flat, has_gradient]), "mean")  # type: ignore[assignment]
    *parts, shares = mean.split([*(p.numel() for p in parameters), len(parameters)])
    for parameter, part, share in zip(parameters, parts, shares.tolist(), strict=True):
        if share > 0:
            parameter.grad = part.view_as(parameter) if parameter.grad is None else parameter.grad.copy_(part.view_as(parameter))


def _some(names: Iterable[str], max_names: int = 5) -> str:
    words = list(names)
    return ", ".join(words[:max_names]) + (f" and {len(words) - max_names} more" if len(words) > max_names else "")
