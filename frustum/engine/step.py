"""One optimiser step: forward, loss, backward over the micro-steps, clip, AdamW, schedule, average. Names no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from frustum.engine.ema import build_ema
from frustum.engine.optim import build_optimizer, build_scheduler
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import place
from frustum.errors import TrainingError
from frustum.types.batch import Batch


@dataclass(frozen=True)
class StepResult:
    """Figures of one step: means over micro-steps and processes; `stop` if any process was asked to stop."""

    losses: dict[str, float]
    grad_norm: float
    lr: float
    stop: bool

    @property
    def loss(self) -> float:
        """The total: the sum of the named losses."""
        return sum(self.losses.values())


class Stepper:
    """A model with its optimiser, schedule and average.

    The gradient of a step is the mean over its micro-steps and over all processes, so two processes with one micro-step each and one
    process with two compute the same step.

    Attributes:
        network: the bare model, on its device.
        ema: its running average, or None.
        step_number: finished optimiser steps.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, accelerator: Accelerator, total_steps: int, steps_per_epoch: int):
        self.recipe, self.accelerator = recipe, accelerator
        self.network = place(network, recipe.runtime, accelerator.device)
        self.ema: AveragedModel | None = build_ema(self.network, recipe.ema) if recipe.ema else None
        optimizer = build_optimizer(self.network, recipe.optim)
        self.scheduler = build_scheduler(optimizer, recipe.optim, total_steps, steps_per_epoch)
        self.model, self.optimizer = accelerator.prepare(self.network, optimizer)
        self.model.train()
        self.step_number = 0

    def step(self, batches: Sequence[Batch], stop: bool = False) -> StepResult:
        """Train on `train.accumulate` micro-batches. `stop` is shared between the processes, so that all of them stop together.

        Raises:
            TrainingError: a loss or the gradient is not finite; nothing was changed by this step but BatchNorm's running statistics.
        """
        lr = self.scheduler.get_last_lr()[0]
        history: list[dict[str, Tensor]] = []
        means: dict[str, float] = {}
        grad_norm, stopping = 0.0, stop
        for batch in batches:
            with self.accelerator.accumulate(self.model):
                batch = batch.to(self.accelerator.device)
                losses = self.network.loss(self.model(batch), batch)  # type: ignore[operator]
                history.append({name: value.detach() for name, value in losses.items()})
                self.accelerator.backward(torch.stack(list(losses.values())).sum())
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
                    means, grad_norm, stopping = self._share(history, norm, stop)
                    if not (math.isfinite(grad_norm) and all(math.isfinite(v) for v in means.values())):
                        raise TrainingError(self._blame(batches, history, grad_norm))
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        self.step_number += 1
        return StepResult(means, grad_norm, float(lr), stopping)

    def _share(self, history: list[dict[str, Tensor]], norm: Tensor, stop: bool) -> tuple[dict[str, float], float, bool]:
        """Mean losses over micro-steps and processes, the gradient's norm, and whether anyone wants to stop: one exchange, one wait."""
        names = list(history[0])
        means = [torch.stack([entry[name].float() for entry in history]).mean() for name in names]
        vector = torch.stack([*means, norm.float().to(means[0].device), means[0].new_tensor(float(stop), dtype=torch.float32)])
        summed: Any = self.accelerator.reduce(vector, "sum")
        *values, norm_sum, stops = summed.tolist()
        count = self.accelerator.num_processes
        return {n: v / count for n, v in zip(names, values, strict=True)}, norm_sum / count, stops > 0

    def _blame(self, batches: Sequence[Batch], history: list[dict[str, Tensor]], grad_norm: float) -> str:
        found: list[tuple[str, list[str]]] = []
        for batch, losses in zip(batches, history, strict=True):
            bad = [f"{name} = {float(value):g}" for name, value in losses.items() if not math.isfinite(float(value))]
            found += [(", ".join(bad), list(batch.tokens))] if bad else []
        found = gather_object(found)
        if not found:
            tokens = gather_object([token for batch in batches for token in batch.tokens])
            found = [(f"all losses are finite, but the gradient's norm is {grad_norm:g}", tokens)]
        where = "; ".join(f"{what} on {', '.join(tokens)}" for what, tokens in found)
        return f"training became non-finite in step {self.step_number + 1}: {where}."

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, schedule and counters; the weights are saved beside it."""
        updates = int(self.ema.n_averaged) if self.ema is not None else 0
        return {
            "optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(),
            "step": self.step_number, "ema_updates": updates,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step_number = int(state["step"])
        if self.ema is not None:
            self.ema.n_averaged.fill_(state["ema_updates"])

    def result(self) -> nn.Module:
        """The network to use after training, in evaluation mode: the average where there is one and `eval.use_ema` is on."""
        network = (
            self.ema.module
            if self.ema is not None and self.recipe.eval.use_ema
            else self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        )
        return network.eval()
