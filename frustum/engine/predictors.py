"""What evaluation and prediction call: batch in, one Prediction per sample out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from frustum.engine.recipe import DataConfig, RuntimeConfig
from frustum.engine.runtime import pick_device, pick_precision, place
from frustum.nn.temporal import TemporalModel
from frustum.nn.temporal_stream import StreamedForward
from frustum.types.batch import Batch
from frustum.types.predictions import Prediction


class Predictor(Protocol):
    """Anything that answers batches. With `needs_images` False only `batch.tokens` is looked at, and no image is read for it."""

    @property
    def needs_images(self) -> bool:
        """Whether the batch must hold images."""
        ...

    def __call__(self, batch: Batch) -> Sequence[Prediction]:
        """One prediction per sample, in order."""
        ...


class NetworkPredictor:
    """A network in evaluation mode on the recipe's device and in its precision; networks over time see each image once where they can.

    Args:
        network: keeps the contract (forward, predict); it is moved to the device.
        runtime: device and precision.
        black: replace every image by one of black pixels (see `black_images`): what is predicted then is what the network knows without
            looking.
        data: tells what a black pixel is after normalisation; needed for `black` only.
    """

    needs_images = True

    def __init__(self, network: nn.Module, runtime: RuntimeConfig, *, black: bool = False, data: DataConfig | None = None):
        self.device = pick_device(runtime)
        self.network = place(network, runtime, self.device).eval()
        self.bf16 = pick_precision(runtime, self.device) == "bf16"
        self.black, self.data = black, data or DataConfig()
        # a compiled network is compiled as a whole, `step` is not
        streamed = StreamedForward(self.network) if isinstance(self.network, TemporalModel) and not runtime.compile else None
        self.forward: Callable[[Batch], Any] = streamed or self.network

    def __call__(self, batch: Batch) -> list[Prediction]:
        """Predict; tensors of the result are on the CPU."""
        if self.black:
            batch = black_images(batch, self.data)
        batch = batch.to(self.device)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            found = self.network.predict(self.forward(batch), batch)  # type: ignore[operator]
        return [replace(p, **{n: t.cpu() for n, t in vars(p).items() if isinstance(t, torch.Tensor)}) for p in found]


def black_images(batch: Batch, data: DataConfig) -> Batch:
    """The batch with all pixels black: raw value 0, then normalised as the recipe says."""
    pixel = -torch.tensor(data.mean) / torch.tensor(data.std)  # (3,)
    return replace(batch, images=pixel.to(batch.images)[:, None, None].expand_as(batch.images).contiguous())
