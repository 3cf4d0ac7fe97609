"""One training step: in each turn forward, loss, backward over the micro-steps, clip, optimiser; then schedules and average."""

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

from frustum.checkpoint.integrity import not_finite
from frustum.engine.ema import build_ema, settled
from frustum.engine.non_finite import origin
from frustum.engine.optim import build_optimizer, build_scheduler
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import place
from frustum.engine.turns import alone, average_gradients, copy_from_first, require_other_names, turns_of
from frustum.errors import TrainingError
from frustum.types.batch import Batch
from frustum.types.contract import Turn


@dataclass(frozen=True)
class StepResult:
    """Figures of one step: means over micro-steps and processes; `stop` if any process was asked to stop.

    With several turns `losses` are those of all, `grad_norm` is that of their gradients taken together, `lr` the first turn's.
    """

    losses: dict[str, float]
    grad_norm: float
    lr: float
    stop: bool

    @property
    def loss(self) -> float:
        """The total: the sum of the named losses."""
        return sum(self.losses.values())


class Stepper:
    """A model with its average, and the optimiser and schedule of each of its turns.

    The gradient of a turn is the mean over its micro-steps and over all processes, so two processes with one micro-step each and one
    process with two compute the same step.

    Attributes:
        network: the bare model, on its device.
        ema: its running average, or None.
        turns, optimizers, schedulers: one each per turn.
        step_number: finished steps.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, accelerator: Accelerator, total_steps: int, steps_per_epoch: int):
        self.recipe, self.accelerator = recipe, accelerator
        self.network = place(network, recipe.runtime, accelerator.device)
        self.ema: AveragedModel | None = build_ema(self.network, recipe.ema) if recipe.ema else None
        self.turns = turns_of(self.network)
        optimizers = [build_optimizer(self.network, recipe.optim, turn.parameters) for turn in self.turns]
        self.schedulers = [build_scheduler(optimizer, recipe.optim, total_steps, steps_per_epoch) for optimizer in optimizers]
        # DDP waits for the gradients of all parameters that the forward pass used, so it cannot serve a turn that trains some of them.
        self._by_hand = len(self.turns) > 1 and accelerator.num_processes > 1
        self.model = accelerator.prepare_model(self.network, evaluation_mode=self._by_hand)
        self.optimizers = [accelerator.prepare_optimizer(optimizer) for optimizer in optimizers]
        if self._by_hand:
            copy_from_first([*self.network.parameters(), *self.network.buffers()])
        self.model.train()
        self.step_number = 0

    def step(self, batches: Sequence[Batch], stop: bool = False) -> StepResult:
        """Train on `train.accumulate` micro-batches. `stop` is shared between the processes, so that all of them stop together.

        Raises:
            TrainingError: a loss or the gradient is not finite; nothing was changed by this step but BatchNorm's running statistics and
                what earlier turns trained.
            ConfigError: two turns have a loss of the same name.
        """
        lr = self.schedulers[0].get_last_lr()[0]
        losses: dict[str, float] = {}
        outputs: list[dict[str, Tensor]] = []
        norms, stopping = [], stop
        for turn, optimizer in zip(self.turns, self.optimizers, strict=True):
            with alone(turn, self.turns):
                means, norm, asked = self._take(turn, optimizer, batches, stop, outputs)
            require_other_names(turn, means, losses)
            losses |= means
            norms.append(norm)
            stopping = stopping or asked
        for scheduler in self.schedulers:
            scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        self.step_number += 1
        return StepResult(losses, math.hypot(*norms), float(lr), stopping)

    def _take(
        self, turn: Turn, optimizer: Any, batches: Sequence[Batch], stop: bool, last: list[dict[str, Tensor]]
    ) -> tuple[dict[str, float], float, bool]:
        """One turn: its mean losses, its gradient's norm, and whether any process was asked to stop.

        `last` holds the outputs of the turn before for each micro-step, and those of this one in the end, where a later turn reuses them.
        """
        if self._by_hand:
            copy_from_first(self.network.buffers())  # as DDP does before a forward pass
        history: list[dict[str, Tensor]] = []
        kept: list[dict[str, Tensor]] = []
        for number, batch in enumerate(batches):
            with self.accelerator.accumulate(self.model):
                batch = batch.to(self.accelerator.device)
                outputs = last[number] if turn.reuses else self._outputs(turn, batch)
                if any(other.reuses for other in self.turns):
                    kept.append({name: value.detach() for name, value in outputs.items()})
                losses = turn.loss(outputs, batch)
                history.append({name: value.detach() for name, value in losses.items()})
                self.accelerator.backward(torch.stack(list(losses.values())).sum())
        last[:] = kept
        if self._by_hand:
            average_gradients(turn.parameters, self.accelerator)
        norm = self.accelerator.clip_grad_norm_(turn.parameters, self.recipe.optim.clip_norm)
        means, grad_norm, stopping = self._share(history, norm, stop)
        if not (math.isfinite(grad_norm) and all(math.isfinite(v) for v in means.values())):
            raise TrainingError(self._non_finite_message(turn, batches, history, grad_norm))
        optimizer.step()
        optimizer.zero_grad()
        return means, grad_norm, stopping

    def _outputs(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        if turn.forward is None:
            return self.model(batch)
        with self.accelerator.autocast():
            return turn.forward(batch)

    def _share(self, history: list[dict[str, Tensor]], norm: Tensor, stop: bool) -> tuple[dict[str, float], float, bool]:
        """Mean losses over micro-steps and processes, the gradient's norm, and whether any process was asked to stop, in one exchange."""
        names = list(history[0])
        means = [torch.stack([entry[name].float() for entry in history]).mean() for name in names]
        vector = torch.stack([*means, norm.float().to(means[0].device), means[0].new_tensor(float(stop), dtype=torch.float32)])
        summed: Any = self.accelerator.reduce(vector, "sum")
        *values, norm_sum, stops = summed.tolist()
        count = self.accelerator.num_processes
        return {n: v / count for n, v in zip(names, values, strict=True)}, norm_sum / count, stops > 0

    def _non_finite_message(self, turn: Turn, batches: Sequence[Batch], history: list[dict[str, Tensor]], grad_norm: float) -> str:
        found: list[tuple[str, list[str]]] = []
        layer = ""
        for batch, losses in zip(batches, history, strict=True):
            bad = [f"{name} = {float(value):g}" for name, value in losses.items() if not math.isfinite(float(value))]
            found += [(", ".join(bad), list(batch.tokens))] if bad else []
            layer = layer or (origin(self.network, batch.to(self.accelerator.device), turn.loss) if bad else "")
        found = gather_object(found)
        if not found:
            tokens = gather_object([token for batch in batches for token in batch.tokens])
            found = [(f"all losses are finite, but the gradient's norm is {grad_norm:g}", tokens)]
            asked = (origin(self.network, batch.to(self.accelerator.device), turn.loss) for batch in batches)
            layer = next((place for place in asked if place), "")
        where = "; ".join(f"{what} on {', '.join(tokens)}" for what, tokens in found)
        name = f", turn {turn.name!r}" if len(self.turns) > 1 else ""
        layers = [place for place in gather_object([layer]) if place]
        return f"training became non-finite in step {self.step_number + 1}{name}: {where}{f'; {layers[0]}' if layers else ''}."

    def require_finite(self) -> None:
        """What is saved must be good: every process calls this before that, and all of them raise if one has to.

        Raises:
            TrainingError: a parameter or running statistic of the network or of its average, or a moment of an optimiser, is not finite.
        """
        held: dict[str, Tensor] = {f"{name} of the network": value for name, value in self.network.state_dict().items()}
        if self.ema is not None:
            held |= {f"{name} of the averaged network": value for name, value in self.ema.module.state_dict().items()}
        states = [state for optimizer in self.optimizers for state in optimizer.state.values()]
        held |= {
            f"{name} of the optimiser ({i})": v for i, state in enumerate(states) for name, v in state.items() if isinstance(v, Tensor)
        }
        found = [name for name in gather_object([next(iter(not_finite(held)), "")]) if name]
        if found:
            raise TrainingError(f"after step {self.step_number} {found[0]} is not finite (NaN or infinite), and was not saved.")

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, schedules and counters; the weights are saved apart."""
        states = {name: [part.state_dict() for part in getattr(self, name)] for name in ("optimizers", "schedulers")}
        return {**states, "step": self.step_number, "ema_updates": int(self.ema.n_averaged) if self.ema is not None else 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Raises ValueError if the state is that of other turns."""
        if "optimizer" in state:  # saved before November 2026, when every model had one turn
            state = {**state, "optimizers": [state["optimizer"]], "schedulers": [state["scheduler"]]}
        saved, needed = len(state["optimizers"]), len(self.turns)
        if saved != needed:
            raise ValueError(f"the optimisers of {saved} turns, where the model has {needed}")
        for part, entry in zip((*self.optimizers, *self.schedulers), (*state["optimizers"], *state["schedulers"]), strict=True):
            part.load_state_dict(entry)
        self.step_number = int(state["step"])
        if self.ema is not None:
            self.ema.n_averaged.fill_(state["ema_updates"])

    def result(self) -> nn.Module:
        """The network to use after training, in evaluation mode: the average where there is one and `eval.use_ema` is on."""
        if self.ema is not None and self.recipe.eval.use_ema:
            return settled(self.ema.module)
        return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False).eval()
