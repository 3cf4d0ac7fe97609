from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from frustum.engine.ema import build_ema, ema_decay
from frustum.engine.optim import build_optimizer, build_scheduler, lr_factor
from frustum.engine.recipe import EmaConfig, OptimConfig
from frustum.errors import ConfigError
from tests.engine import toy


def test_published_schedule():
    """AdamW 1e-4, linear warm-up over 200 steps from ratio 1e-3, step at epoch 24: never within 24 epochs."""
    config = OptimConfig()
    factors = [lr_factor(config, step, 24 * 1758, 1758) for step in (0, 100, 199, 200, 24 * 1758 - 1)]
    assert factors == pytest.approx([1e-3, 1 - (1 - 100 / 200) * (1 - 1e-3), 1 - (1 - 199 / 200) * (1 - 1e-3), 1, 1])
    assert lr_factor(config, 24 * 1758, 30 * 1758, 1758) == pytest.approx(0.1)


def test_cosine_ends_at_zero_and_is_halfway_in_the_middle():
    config = OptimConfig(schedule="cosine", warmup_steps=0)
    assert [lr_factor(config, s, 100, 10) for s in (0, 50, 100, 200)] == pytest.approx([1, 0.5, 0, 0])
    steps = [lr_factor(config, s, 100, 10) for s in range(101)]
    assert steps == sorted(steps, reverse=True)


def test_the_scheduler_follows_the_factor():
    config = OptimConfig(lr=0.2, schedule="step", step_epochs=(1, 2), warmup_steps=3, warmup_ratio=0.1)
    optimizer = build_optimizer(toy.ToyConfig().build(), config)
    scheduler = build_scheduler(optimizer, config, 30, 10)
    for step in range(30):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * lr_factor(config, step, 30, 10))
        optimizer.step()
        scheduler.step()


def test_the_encoder_has_its_own_rate():
    network = toy.ToyConfig().build()
    optimizer = build_optimizer(network, OptimConfig(lr=0.1, encoder_lr_scale=0.3, weight_decay=0.05))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in network.encoder.parameters()] == pytest.approx([0.03] * 2)
    assert [rates[id(p)] for p in network.head.parameters()] == pytest.approx([0.1] * 2)
    assert len(rates) == len(list(network.parameters()))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.05}


def test_frozen_parameters_are_left_out():
    network = toy.ToyConfig().build()
    network.encoder.requires_grad_(False)
    optimizer = build_optimizer(network, OptimConfig(encoder_lr_scale=0.5))
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in [network.place, *network.head.parameters()]}


def test_a_scale_without_an_encoder_and_nothing_to_train_are_refused():
    with pytest.raises(ConfigError, match="part called encoder or img_backbone"):
        build_optimizer(nn.Linear(2, 2), OptimConfig(encoder_lr_scale=0.5))
    with pytest.raises(ConfigError, match="no trainable"):
        build_optimizer(nn.ReLU(), OptimConfig())


def test_the_average_follows_the_published_rule():
    """ema = d * ema + (1 - d) * model on every float entry, d = 0.999 * (1 - exp(-updates / 2000)), updates from 10560."""
    torch.manual_seed(0)
    network = toy.ToyConfig(batch_norm=True).build()
    ema = build_ema(network, EmaConfig())
    expected = {key: value.clone().double() for key, value in network.state_dict().items()}
    for update in range(1, 6):
        with torch.no_grad():
            for value in network.state_dict().values():
                value.add_(torch.rand_like(value) if value.is_floating_point() else 1)
        ema.update_parameters(network)
        d = 0.999 * (1 - math.exp(-(10560 + update) / 2000))
        for key, value in network.state_dict().items():
            expected[key] = d * expected[key] + (1 - d) * value if value.is_floating_point() else value.clone()
    state = ema.module.state_dict()
    assert state["norm.num_batches_tracked"] == network.norm.num_batches_tracked
    for key, value in expected.items():
        torch.testing.assert_close(state[key].double(), value.double(), rtol=0, atol=1e-6)
    assert d == pytest.approx(0.9939, abs=1e-3)


def test_the_average_blends_from_the_first_update_and_keeps_constants():
    network = nn.BatchNorm1d(2)
    network.register_buffer("constant", torch.tensor([0.1, 1 / 3]))
    constant = network.constant.clone()
    ema = build_ema(network, EmaConfig(decay=0.5, warmup=0, initial_updates=0))
    with torch.no_grad():
        network.weight.fill_(3.0)
    for _ in range(3):
        ema.update_parameters(network)
    assert torch.equal(ema.module.weight, torch.tensor([2.75, 2.75]))
    assert torch.equal(ema.module.constant, constant)
    assert not any(p.requires_grad for p in ema.parameters())


def test_decay_without_warm_up_is_constant():
    assert ema_decay(EmaConfig(decay=0.99, warmup=0), 1) == 0.99
    assert ema_decay(EmaConfig(decay=0.99, warmup=10), 10) == pytest.approx(0.99 * (1 - math.exp(-1)))
