"""A network that is looked at but neither trained nor saved: a teacher, or one that a loss compares features of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Frozen:
    """A network in eval mode without gradients, built when it is first asked for.

    It is no module: a network that holds it does not train, save, average or copy it. A copy is the same object, and a pickled one is
    built again where it is next asked for. Gradients still flow through it to its input.

    Args:
        build: returns the network, with its weights. It is called once; what it raises passes through, and the next call tries again.
            To be pickled it must be a function of a module, or a `functools.partial` of one.
    """

    def __init__(self, build: Callable[[], nn.Module]):
        self._build = build
        self._network: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def on(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network, on a device. Building it leaves torch's random state as it was. Raises what `build` raises."""
        with torch.inference_mode(False):  # weights made or moved in inference mode could not be used in training later
            if self._network is None:
                with torch.random.fork_rng(devices=[]):  # a resumed run must draw what an uninterrupted one does
                    network = self._build()
                self._network = network.eval().requires_grad_(False)
            return self._network.to(device)
