"""Aligner and blender under the engine's own step: turns, optimisers, schedules, the average, half precision."""

from __future__ import annotations

import copy

import pytest
import torch

from frustum.engine.runtime import make_accelerator
from frustum.engine.step import Stepper
from frustum.models.heser_aligner import HeserAlignerConfig
from frustum.models.heser_blender import HeserBlenderConfig
from tests.engine import toy
from tests.models import test_heser_aligner, test_heser_blender
from tests.models.portrait_batches import batch_for

CONFIGS = {
    "aligner": (HeserAlignerConfig(**test_heser_aligner.TINY), 32, {"l1", "deceive", "mask", "judge"}),
    "blender": (HeserBlenderConfig(**test_heser_blender.TINY), 64, {"l1", "deceive", "cycle", "cycle_other", "judge"}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_engine_takes_steps(name):
    config, size, names = CONFIGS[name]
    recipe = toy.recipe("nowhere").model_copy(update={"model": config})
    recipe = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"lr": 1e-3, "lr_scale": {"discriminator": 4.0}})})
    network = config.build()
    stepper = Stepper(recipe, network, make_accelerator(recipe.runtime), 4, 4)
    batch = batch_for(config, size)
    for _ in range(2):
        result = stepper.step([batch])
    assert set(result.losses) == names
    rates = [optimiser.param_groups[0]["lr"] for optimiser in stepper.optimizers]
    assert rates[1] == pytest.approx(4 * rates[0]), "the discriminator's"
    average = copy.deepcopy(stepper.result())
    with torch.no_grad():
        assert all(value.isfinite().all() for value in average.eval()(batch).values())
    again = config.build()
    again.load_state_dict(average.state_dict())


@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_leaves_losses_finite(name):
    config, size, names = CONFIGS[name]
    network, batch = config.build().train(), batch_for(config, size)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(batch)
    assert all(value.dtype == torch.float32 for value in outputs.values())
    losses = {key: value for turn in network.turns() for key, value in turn.loss(outputs, batch).items()}
    assert set(losses) == names
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
