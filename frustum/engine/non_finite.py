"""Where in a network numbers stop being finite: one more pass that looks at every layer, once training has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from frustum.types.batch import Batch

Loss = Callable[[Any, Batch], dict[str, Tensor]]


def origin(network: nn.Module, batch: Batch, loss: Loss) -> str:
    """Where NaN or infinity first appears on a batch, as part of a sentence: a weight, a layer's output, or the gradient of one.

    Empty where the layers are finite, so that the loss is to blame, or where it does not happen again: dropout draws anew. Gradients of
    the parameters stay as they are.
    """
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        if not tensor.isfinite().all():
            return f"{name} of the network is not finite"
    forward: list[str] = []
    backward: list[str] = []

    def watched(label: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            for tensor in _floats(output):
                if not (forward or tensor.isfinite().all()):
                    forward.append(label)
                if tensor.requires_grad:
                    tensor.register_hook(lambda grad: None if backward or grad.isfinite().all() else backward.append(label))

        return look

    named = [(name or "the network", module) for name, module in network.named_modules()]
    hooks = [module.register_forward_hook(watched(f"{name} ({type(module).__name__})")) for name, module in named]
    try:
        with torch.enable_grad():
            losses = loss(network.forward(batch), batch)  # not network(batch), which may be compiled as a whole
            if forward:
                return f"first in the output of {forward[0]}"
            wanted = [p for p in network.parameters() if p.requires_grad]
            torch.autograd.grad(torch.stack(list(losses.values())).sum(), wanted, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    return f"the gradient first at the output of {backward[0]}" if backward else ""


def _floats(value: Any) -> Iterator[Tensor]:
    """The tensors of numbers in what a layer returns."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_floats, value.values()))
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_floats, value))
    elif is_dataclass(value):
        yield from chain.from_iterable(_floats(getattr(value, field.name)) for field in fields(value))
