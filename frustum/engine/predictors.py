"""A network that predicts: batch in, one Prediction per sample out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from frustum.data.source import DataConfig, Source
from frustum.engine.feed import evaluation_batches
from frustum.engine.recipe import Recipe, RuntimeConfig
from frustum.engine.runtime import pick_device, pick_precision, place
from frustum.errors import DataError, FrustumWarning
from frustum.types.batch import Batch
from frustum.types.predictions import Prediction


class NetworkPredictor:
    """A network in evaluation mode on the recipe's device and in its precision; networks over time encode each image once where they can.

    Args:
        network: keeps the contract (forward, predict); it is moved to the device.
        runtime: device and precision.
        black: replace every image by black pixels (`black_images`): the predictions then show what the network knows without images.
        data: says what a black pixel is after normalisation; needed for `black` only.
    """

    def __init__(self, network: nn.Module, runtime: RuntimeConfig, *, black: bool = False, data: DataConfig | None = None):
        self.device = pick_device(runtime)
        self.network = place(network, runtime, self.device).eval()
        self.bf16 = pick_precision(runtime, self.device) == "bf16"
        self.black, self.data = black, data or DataConfig()
        # a compiled network is compiled as a whole, a stream is not
        streamed = None if runtime.compile else getattr(self.network, "streamed", None)
        self.forward: Callable[[Batch], Any] = streamed() if streamed is not None else self.network

    def __call__(self, batch: Batch, infer: Callable[[Callable[[Batch], Any], Batch], Any] | None = None) -> list[Prediction]:
        """Predict; tensors of the result are on the CPU. `infer` may run the network on parts of the batch (`DataConfig.infer`).

        Raises:
            DataError: unless the network answers for every sample, in their order.
        """
        if self.black:
            batch = black_images(batch, self.data)
        batch = batch.to(self.device)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = self.forward(batch) if infer is None else infer(self.forward, batch)
            found = self.network.predict(outputs, batch)  # type: ignore[operator]
        tokens = [prediction.token for prediction in found]
        if tokens != list(batch.tokens):
            raise DataError(
                f"{type(self.network).__name__}.predict answered for the samples {', '.join(tokens) or 'none'}, but was given "
                f"{', '.join(batch.tokens)}. It must return one Prediction for each sample of the batch, in their order."
            )
        return [prediction.cpu() for prediction in found]


def network_predictions(
    predictor: NetworkPredictor, recipe: Recipe | None, source: Source, tokens: Sequence[str], corruption: str | None = None
) -> Iterator[Prediction]:
    """A network's predictions for samples of a data set, in order; what they say of pixels is at the size of the sample's own images.

    With a `corruption`, such as fog:3, of corrupted images. Without, `recipe.eval.corruption` has no effect, and a warning says so.
    """
    if recipe is None:
        raise TypeError("the predictions of a network need a recipe")
    if recipe.eval.corruption is not None and corruption is None and not predictor.black:
        warnings.warn(
            f"eval.corruption={recipe.eval.corruption} is for frustum eval: here the images are as they are.", FrustumWarning, stacklevel=2
        )
    for batch in evaluation_batches(recipe, source, tokens, corruption=corruption) if tokens else ():
        for prediction in predictor(batch, partial(recipe.data.infer, model=recipe.model)):
            yield recipe.data.back_to_source(source, prediction, recipe.augment)


def black_images(batch: Batch, data: DataConfig) -> Batch:
    """The batch with all pixels black: raw value 0, then normalised as the recipe says."""
    pixel = -torch.tensor(data.mean) / torch.tensor(data.std)  # (3,)
    return replace(batch, images=pixel.to(batch.images)[:, None, None].expand_as(batch.images).contiguous())
