"""Batches of made-up portraits, and a step of training turn by turn, for the tests of head swapping."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from frustum.data.labels.pixels import PixelLabels
from frustum.engine.turns import alone, turns_of
from frustum.nn.portrait_views import SIGNED
from frustum.types.batch import Batch
from frustum.types.contract import ModelConfig, Shapes
from tests.nn import golden_heser as gold


def batch_for(config: ModelConfig, size: int = 32, count: int = 2) -> Batch:
    """Random portraits from -1 to 1 whose parts are a face of ellipses, with an example of each other label."""
    rng, shapes = np.random.default_rng(0), Shapes(count, 1, (size, size))
    images = torch.from_numpy(rng.uniform(-1, 1, (count, 3, size, size))).float()
    labels = {type(label): label.example(rng, shapes) for label in config.learns_from()}
    labels[PixelLabels] = torch.from_numpy(gold.parsing(size, 0, 0.1, True)).expand(count, -1, -1).clone()
    made = Batch.of_images(images).with_labels(labels)
    return made.__class__(**{**vars(made), "image_scale": SIGNED})


def step(network: nn.Module, batch: Batch, rate: float = 1e-3) -> dict[str, Tensor]:
    """One step of every turn, as the engine takes it, with plain gradient descent; the losses."""
    losses: dict[str, Tensor] = {}
    turns = turns_of(network)
    for turn in turns:
        with alone(turn, turns):
            found = turn.loss(network(batch), batch)
            torch.stack(list(found.values())).sum().backward()
        with torch.no_grad():
            for parameter in turn.parameters:
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all()
                parameter -= rate * parameter.grad
                parameter.grad = None
        assert all(p.grad is None for p in network.parameters()), "a turn gives others no gradient"
        losses |= {name: value.detach() for name, value in found.items()}
    return losses
