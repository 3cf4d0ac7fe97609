from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

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
    optimizer = build_optimizer(network, OptimConfig(lr=0.1, lr_scale={"encoder": 0.3}, weight_decay=0.05))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in network.encoder.parameters()] == pytest.approx([0.03] * 2)
    assert [rates[id(p)] for p in network.head.parameters()] == pytest.approx([0.1] * 2)
    assert len(rates) == len(list(network.parameters()))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.05}


def test_frozen_parameters_are_left_out():
    network = toy.ToyConfig().build()
    network.encoder.requires_grad_(False)
    optimizer = build_optimizer(network, OptimConfig(lr_scale={"encoder": 0.5}))
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in [network.place, *network.head.parameters()]}


def test_groups_come_in_the_order_of_their_scales_after_all_other_parameters():
    network = toy.ToyConfig().build()
    for names in (("encoder", "head"), ("head", "encoder")):
        config = OptimConfig(lr=1.0, lr_scale=dict(zip(names, (0.5, 0.25), strict=True)))
        groups = build_optimizer(network, config).param_groups
        assert [group["lr"] for group in groups] == [1.0, 0.5, 0.25]
        assert [[id(p) for p in group["params"]] for group in groups] == [
            [id(network.place)],
            *([id(p) for p in getattr(network, name).parameters()] for name in names),
        ]


def test_a_scale_without_such_a_group_and_nothing_to_train_are_refused():
    toys = toy.ToyConfig().build()
    with pytest.raises(ConfigError, match=r"lr_scale\.encodr: Toy does not have a parameter group 'encodr'; did you mean 'encoder'\?"):
        build_optimizer(toys, OptimConfig(lr_scale={"encodr": 0.5}))
    with pytest.raises(ConfigError, match=r"Linear does not have a parameter group 'encoder'; it names none\. Set optim\.lr_scale=\{\}"):
        build_optimizer(nn.Linear(2, 2), OptimConfig(lr_scale={"encoder": 0.5}))
    toys.parameter_groups = lambda: {"all": list(toys.parameters()), "head": list(toys.head.parameters())}
    with pytest.raises(ConfigError, match="parameter groups 'all' and 'head' overlap: give only one"):
        build_optimizer(toys, OptimConfig(lr_scale={"all": 0.5, "head": 2}))
    with pytest.raises(ConfigError, match="no trainable"):
        build_optimizer(nn.ReLU(), OptimConfig())


def test_settings_of_before_lr_scale_are_understood():
    assert OptimConfig.upgraded({"lr": 0.1, "encoder_lr_scale": 1.0}) == {"lr": 0.1}
    assert OptimConfig.upgraded({"encoder_lr_scale": 0.3}) == {"lr_scale": {"encoder": 0.3}}
    ours = OptimConfig(lr_scale={"head": 2}).model_dump(mode="json")
    assert OptimConfig.upgraded(ours) == ours


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        (
            {"kind": "sgd", "momentum": 0.8},
            lambda params: SGD(params, lr=0.05, momentum=0.8, weight_decay=0.02, nesterov=False),
        ),
        ({"kind": "adam", "betas": (0.8, 0.95)}, lambda params: torch.optim.Adam(params, lr=0.05, betas=(0.8, 0.95), weight_decay=0.02)),
        ({"betas": (0.8, 0.95)}, lambda params: torch.optim.AdamW(params, lr=0.05, betas=(0.8, 0.95), weight_decay=0.02)),
        ({}, lambda params: torch.optim.AdamW(params, lr=0.05, weight_decay=0.02)),
    ],
)
def test_optimisers_equal_those_of_torch(settings, reference):
    first, second = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    network = nn.Module()
    network.weight = first
    pairs = ((first, build_optimizer(network, OptimConfig(lr=0.05, weight_decay=0.02, **settings))), (second, reference([second])))
    for step in range(5):
        for weight, optimizer in pairs:
            optimizer.zero_grad()
            ((weight - step) ** 3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)


def test_sgd_by_hand():
    """v = momentum * v + g + decay * w; w = w - lr * v."""
    network = nn.Linear(1, 1, bias=False)
    weight, velocity = float(network.weight.detach()), 0.0
    optimizer = build_optimizer(network, OptimConfig(kind="sgd", lr=0.1, momentum=0.9, weight_decay=0.01))
    for _ in range(4):
        optimizer.zero_grad()
        network.weight.square().sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + 2 * weight + 0.01 * weight
        weight -= 0.1 * velocity
        assert float(network.weight.detach()) == pytest.approx(weight, rel=1e-5)


def test_poly_and_the_floor():
    poly = OptimConfig(schedule="poly", poly_power=0.9, warmup_steps=0)
    assert [lr_factor(poly, t, 40, 10) for t in range(60)] == pytest.approx([max(0.0, 1 - t / 40) ** 0.9 for t in range(60)])
    for schedule in ("cosine", "poly"):
        plain, floored = (OptimConfig(schedule=schedule, warmup_steps=0, min_lr_ratio=ratio) for ratio in (0.0, 0.1))
        factors = [lr_factor(floored, t, 40, 10) for t in range(60)]
        assert factors == pytest.approx([0.1 + 0.9 * lr_factor(plain, t, 40, 10) for t in range(60)])
        assert min(factors) == factors[40] == factors[-1] == pytest.approx(0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 40, eta_min=0.1)
    config = OptimConfig(schedule="cosine", warmup_steps=0, min_lr_ratio=0.1)
    for step in range(40):
        assert lr_factor(config, step, 40, 10) == pytest.approx(reference.get_last_lr()[0])
        reference.optimizer.step()
        reference.step()


def test_warm_up_multiplies_a_poly_schedule_and_leaves_one_cycle_alone():
    with_warm_up, without = (OptimConfig(schedule="poly", warmup_steps=w, warmup_ratio=0.5) for w in (4, 0))
    for step in range(8):
        ramp = min(1.0, 0.5 + 0.5 * step / 4)
        assert lr_factor(with_warm_up, step, 40, 10) == pytest.approx(ramp * lr_factor(without, step, 40, 10))
    cycle = [OptimConfig(schedule="one_cycle", warmup_steps=w) for w in (4, 0)]
    assert all(len({lr_factor(config, step, 40, 10) for config in cycle}) == 1 for step in range(40))


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize(("total", "share"), [(100, 0.3), (37, 0.4), (10, 0.25), (10, 0.1), (3, 0.1), (1, 0.5)])
def test_one_cycle_equals_torch(total, share, anneal):
    config = OptimConfig(lr=0.2, schedule="one_cycle", anneal=anneal, pct_start=share, div_factor=10, final_div_factor=100)
    network = nn.Linear(1, 1)
    optimizer = build_optimizer(network, config)
    ours = build_scheduler(optimizer, config, total, 10)
    theirs = None
    if share * total != 1:  # torch divides by zero there
        cycle = {
            "pct_start": share,
            "div_factor": 10,
            "final_div_factor": 100,
            "cycle_momentum": False,
            "anneal_strategy": {"cosine": "cos"}.get(anneal, anneal),
        }
        theirs = torch.optim.lr_scheduler.OneCycleLR(SGD(network.parameters(), lr=1.0), 0.2, total_steps=total, **cycle)
    seen = []
    for step in range(total):
        seen.append(ours.get_last_lr()[0])
        if theirs is not None:
            assert seen[-1] == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        ours.step()
        if theirs is not None and step < total - 1:
            theirs.optimizer.step()
            theirs.step()
    assert seen[-1] == pytest.approx(0.2 / 10 / 100)
    assert ours.get_last_lr()[0] == pytest.approx(seen[-1]), "a longer run stays at the end of the curve"


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
