"""Speed and memory for the claims: timed in turn within one process, memory as the peak of a process that does one thing."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from frustum.benchmark import peak_rise, processor_name, take_turns
from frustum.engine.feed import TrainingFeed, evaluation_batches
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import computes_bf16, pick_precision
from frustum.models.bevdet_occ import BevDetOcc
from frustum.models.flashocc import FlashOcc
from frustum.nn.voxel import as_voxels
from frustum.types.batch import Batch

CPU = torch.device("cpu")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": processor_name(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "bf16": computes_bf16("cpu"),
    }


def precisions() -> list[str]:
    """fp32, and bf16 where the processor computes in it."""
    return ["fp32", "bf16"] if computes_bf16("cpu") else ["fp32"]


def mean_and_spread(values: list[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one value), and the values."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None, "values": values}


def in_turn(jobs: dict[str, Callable[[], object]], repeats: int, warm_up: int = 2) -> dict[str, float]:
    """Median milliseconds of each job; every round does all of them once, so that a busy machine slows all alike."""
    return {name: round(1e3 * timing.median, 2) for name, timing in take_turns(jobs, repeats, warm_up).items()}


def parameters(*modules: nn.Module) -> int:
    """Number of trainable and frozen weights."""
    return sum(p.numel() for module in modules for p in module.parameters())


# ---- the small networks, as they are trained and used ---------------------------------------------------------------------------


def _network(recipe: Recipe) -> nn.Module:
    torch.manual_seed(0)
    return recipe.model.build()


def training_step(network: nn.Module, recipe: Recipe, batch: Batch) -> Callable[[], object]:
    """Forward, loss, backward; no optimiser, which is the same for all."""

    def step() -> None:
        network.train()
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=pick_precision(recipe.runtime, CPU) == "bf16"):
            losses = network.loss(network(batch), batch)
        torch.stack(list(losses.values())).sum().backward()

    return step


def _batches(recipe: Recipe) -> tuple[Batch, Batch]:
    """A keyframe to predict, and one to train on."""
    database = recipe.data.open()
    token = database.tokens(recipe.data.val_split)[0]
    return next(evaluation_batches(recipe, database, [token], labels=False)), TrainingFeed(recipe, database).next_batches()[0]


def network_speed(recipes: dict[str, Recipe], repeats: int) -> dict[str, Any]:
    """Parameters, milliseconds of a prediction (images in memory -> class of every voxel) and of a training step, by recipe."""
    shown, labelled = _batches(next(iter(recipes.values())))
    networks = {name: _network(recipe) for name, recipe in recipes.items()}
    predictors = {name: NetworkPredictor(networks[name], recipe.runtime) for name, recipe in recipes.items()}
    latency = in_turn({name: lambda n=name: (networks[n].eval(), predictors[n](shown)) for name in recipes}, repeats)
    steps = in_turn({name: training_step(networks[name], recipe, labelled) for name, recipe in recipes.items()}, repeats)
    return {
        name: {
            "parameters": parameters(networks[name]),
            "occupancy_parameters": parameters(*(part for key, part in networks[name].named_children() if key != "trunk")),
            "latency_ms": latency[name],
            "training_step_ms": steps[name],
            "precision": pick_precision(recipe.runtime, CPU),
            "threads": torch.get_num_threads(),
            "repeats": repeats,
        }
        for name, recipe in recipes.items()
    }


def network_memory(recipe: Recipe, training: bool) -> dict[str, Any]:
    """Memory of the third prediction or training step in a process that did nothing else; the first two compile and plan."""
    shown, labelled = _batches(recipe)
    network = _network(recipe)
    predictor = NetworkPredictor(network, recipe.runtime)
    job = training_step(network, recipe, labelled) if training else lambda: predictor(shown)
    return peak_rise(lambda: [job() for _ in range(3)])


# ---- the occupancy part at the published sizes ------------------------------------------------------------------------------------


class OccupancyPart(nn.Module):
    """Encoder, neck and head of a published network: pooled features (1, Z * C, Y, X) -> logits."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        network = _network(recipe)
        assert isinstance(network, FlashOcc | BevDetOcc)
        self.config, self.is_flat = network.config, isinstance(network, FlashOcc)
        self.encoder, self.neck, self.head = network.img_bev_encoder_backbone, network.img_bev_encoder_neck, network.occ_head

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits (1, X, Y, Z, K)."""
        maps = pooled if self.is_flat else as_voxels(pooled, self.config.grid.shape[2])
        return self.head(self.neck(self.encoder(maps)))

    def example(self) -> Tensor:
        """Pooled features in the memory layout of `bev_pool`."""
        x, y, z = self.config.grid.shape
        channels = self.config.lift_channels * (1 if self.is_flat else z)
        return torch.randn(1, y, x, channels, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)


def _predict(part: OccupancyPart, pooled: Tensor, precision: str) -> Callable[[], Tensor]:
    def job() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return part(pooled)

    return job


def part_speed(recipes: dict[str, Recipe], precision: str, repeats: int) -> dict[str, Any]:
    """Parameters, multiply-adds and milliseconds of each occupancy part."""
    parts = {name: OccupancyPart(recipe).eval() for name, recipe in recipes.items()}
    latency = in_turn({name: _predict(part, part.example(), precision) for name, part in parts.items()}, repeats, warm_up=1)
    return {
        name: {
            "parameters": parameters(part),
            "gmacs": multiply_adds(part),
            "latency_ms": latency[name],
            "threads": torch.get_num_threads(),
            "repeats": repeats,
        }
        for name, part in parts.items()
    }


def multiply_adds(part: OccupancyPart) -> float:
    """10^9 multiply-adds of convolutions and linear layers, counted without computing."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        part.to("meta")(part.example().to("meta"))
    return round(counter.get_total_flops() / 2e9, 2)


def part_memory(recipe: Recipe, precision: str) -> dict[str, Any]:
    """Memory of two forward passes of an occupancy part in a process that did nothing else."""
    part = OccupancyPart(recipe).eval()
    job = _predict(part, part.example(), precision)
    return peak_rise(lambda: [job() for _ in range(2)])
