"""What follows from a calibration alone is computed once and kept, on the device that needs it: plans of pooling, directions of rays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


class RigMemory(Generic[Value]):
    """Values of the rigs that were used last.

    A rig on the CPU is recognised by the exact content of its matrices, so that a new batch of the same cameras finds its value. Reading
    tensors on a GPU would wait for everything that it still has to do: these are recognised without, while they are the same tensors and
    nothing was written into them, and read where that fails.

    Args:
        max_rigs: how many values are kept.
    """

    def __init__(self, max_rigs: int = 16):
        self.max_rigs = max_rigs
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._known: OrderedDict[Hashable, tuple[Hashable, list[Tensor]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    @torch.compiler.disable
    def get(self, matrices: Sequence[Tensor], rest: Hashable, make: Callable[[], Value]) -> Value:
        """The value of these matrices and of `rest`, everything else that it depends on; made by `make` if it is not known."""
        key = rest, self._content(matrices)
        with torch.inference_mode(False), torch.no_grad():  # what is made in inference mode must serve a later training step, too
            value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        while len(self._values) > self.max_rigs:
            self._values.popitem(last=False)
        return value

    def _content(self, matrices: Sequence[Tensor]) -> Hashable:
        if all(m.device.type == "cpu" for m in matrices) or any(m.is_inference() for m in matrices):  # these do not count writes
            return _read(matrices)
        same = tuple((m.data_ptr(), m.shape, m.stride(), m.dtype, m.device, m._version) for m in matrices)
        if same not in self._known:
            # The tensors are kept with their content: while they are there, no other tensor can have their address.
            self._known[same] = _read(matrices), list(matrices)
            while len(self._known) > self.max_rigs:
                self._known.popitem(last=False)
        return self._known[same][0]

    def __getstate__(self) -> dict:
        return {"max_rigs": self.max_rigs, "_values": OrderedDict(), "_known": OrderedDict()}


def _read(matrices: Sequence[Tensor]) -> Hashable:
    return tuple(m.shape for m in matrices), torch.cat([m.detach().cpu().double().flatten() for m in matrices]).numpy().tobytes()
