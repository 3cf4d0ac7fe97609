"""Recipe: everything that a run needs, in one frozen, typed, serialisable object.

A recipe is a plain function that returns a complete `Recipe`; recipes/ holds ours, and code outside the package joins by import path
(`my_pkg.my_file:my_recipe`) or by the entry-point group `frustum.recipes`. This module imports no torch, so that the command line
answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from frustum.config import Config
from frustum.data.corruption_names import Corruption
from frustum.data.source import AugmentConfig as AugmentConfig
from frustum.data.source import DataConfig
from frustum.errors import ConfigError
from frustum.types.contract import ModelConfig as ModelConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Config):
    """The optimiser and its schedule. A model with several turns has one of each per turn, all with these settings."""

    kind: Literal["adamw", "sgd", "adam"] = Field("adamw", description="adamw decouples weight decay; adam and sgd add it to the gradient")
    lr: float = Field(1e-4, gt=0, description="learning rate; the highest one of a schedule")
    weight_decay: float = Field(1e-2, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="of adamw and adam")
    lr_scale: dict[str, Annotated[float, Field(ge=0)]] = Field({}, description="factor on lr by parameter group, as lr_scale.encoder=0.3")
    clip_norm: float = Field(5.0, gt=0)
    schedule: Literal["constant", "step", "cosine", "poly", "one_cycle"] = "step"
    warmup_steps: int = Field(200, ge=0, description="of every schedule but one_cycle")
    warmup_ratio: float = Field(1e-3, gt=0, le=1, description="first learning rate relative to lr")
    step_epochs: tuple[int, ...] = Field((24,), description="epochs after which a step schedule divides lr by 10")
    min_lr_ratio: float = Field(0.0, ge=0, le=1, description="where cosine and poly end, relative to lr")
    poly_power: float = Field(0.9, gt=0, description="of (1 - step / steps) in a poly schedule")
    anneal: Literal["cosine", "linear"] = Field("cosine", description="how one_cycle rises and falls")
    pct_start: float = Field(0.3, gt=0, lt=1, description="share of the steps in which one_cycle rises")
    div_factor: float = Field(25.0, ge=1, description="one_cycle begins at lr / div_factor")
    final_div_factor: float = Field(1e4, ge=1, description="one_cycle ends at its first learning rate / final_div_factor")

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Before November 2026 `encoder_lr_scale` was what is now the entry `encoder` of `lr_scale`."""
        stored = dict(stored)
        scale = stored.pop("encoder_lr_scale", 1.0)
        return stored if scale == 1 else {**stored, "lr_scale": {"encoder": scale}}


class EmaConfig(Config):
    """Exponential moving average of all float entries of the state dict."""

    decay: float = Field(0.999, gt=0, lt=1)
    warmup: float = Field(2000.0, ge=0, description="d = decay * (1 - exp(-updates / warmup)); 0 keeps d = decay")
    initial_updates: int = Field(10560, ge=0)


class TrainConfig(Config):
    """Length and batch."""

    epochs: int | None = Field(24, ge=1, description="passes over the training split; setting it clears steps")
    steps: int | None = Field(None, ge=1, description="optimiser steps, used instead of epochs; setting it clears epochs")
    init: str | None = Field(None, description="weights to start from, of ours or of an upstream project: what fits is taken (--init FILE)")
    batch_size: int = Field(4, ge=1, description="samples per process and micro-step")
    accumulate: int = Field(1, ge=1, description="micro-steps per optimiser step")
    num_workers: int = Field(4, ge=0, description="loading processes, at most one per core; 0 loads in the main process")
    seed: int = 0
    checkpoint_every: int = Field(500, ge=1, description="optimiser steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _has_a_length(self) -> TrainConfig:
        if self.epochs is None and self.steps is None:
            raise ValueError("training needs a length: set train.epochs=N or train.steps=N, the one replaces the other")
        return self


class RuntimeConfig(Config):
    """Where and in which precision."""

    device: str = Field("auto", description="auto, cpu, cuda, mps")
    precision: Literal["auto", "fp32", "bf16"] = Field("fp32", description="auto takes bf16 where the processor computes in it")
    channels_last: bool = True
    compile: bool = False


DistillationLoss = Literal["cwd", "kd", "pixel", "pair", "at", "ifvd", "pkd", "dist"]
"""Losses between a student and its teacher (losses/dense_distillation.py)."""


class DistillConfig(Config):
    """A trained network, the teacher, that this one imitates beside what it learns from labels (engine/distill.py)."""

    teacher: str = Field("", description="run folder or weights file of the trained network")
    at: tuple[str, ...] = Field((), description="outputs that are compared, as bev,occ_logits; STUDENT:TEACHER where the names differ")
    loss: tuple[DistillationLoss, ...] = Field(("cwd",), min_length=1, description="one for all outputs of distill.at, or one for each")
    form: tuple[str, ...] = Field((), description="a reference whose normalisation is used, as cirkd; in the same way; `usual` is ours")
    weight: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), description="one for all, or one for each; published ones if empty"
    )
    tau: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), description="temperature of cwd, kd and dist, in the same way"
    )
    voxels: Literal["class", "class_height"] = Field(
        "class", description="occ_logits as a map for each class, or for each class and height"
    )
    visible: bool = Field(False, description="compare occ_logits where a camera sees the voxel alone; with cwd, kd and pixel")


class EvalConfig(Config):
    """Which numbers, on which frames."""

    batch_size: int = Field(1, ge=1)
    slow_figures: bool = Field(True, description="also compute figures that take much longer than the others")
    every: int = Field(1, ge=1, description="evaluate every n-th frame of the split")
    use_ema: bool = Field(True, description="read when training ends: weights.safetensors holds the average, not the last weights")
    corruption: str | None = Field(
        None, description="what `frustum eval` does to the images: the name of a corruption and its level 1, 2 or 3, as fog:3"
    )

    @field_validator("corruption")
    @classmethod
    def _is_known(cls, text: str | None) -> str | None:
        try:
            return None if text is None else str(Corruption.parse(text))
        except ConfigError as error:
            raise ValueError(str(error).removesuffix(".")) from error

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Before November 2026 `slow_figures` was called after the one figure that there was of the kind."""
        return {"slow_figures" if name == "ray_iou" else name: value for name, value in stored.items()}


class PublishedNumber(Config):
    """A figure that the authors published, with the protocol it was measured under."""

    metric: str = Field(description="as the figure of its task is published (docs/metrics.md)")
    value: float = Field(description="percent")
    protocol: str
    source: str
    per_class: tuple[float, ...] = Field((), description="percent, one for each class in the order of the metric's table, where published")


class Recipe(Config):
    """A complete description of a run. `frustum train <recipe> key=value` overrides any field by its dotted path."""

    name: str
    model: SerializeAsAny[ModelConfig]
    data: SerializeAsAny[DataConfig]
    augment: SerializeAsAny[AugmentConfig] = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig | None = EmaConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    eval: EvalConfig = EvalConfig()
    distill: DistillConfig | None = None
    published: tuple[PublishedNumber, ...] = ()

    @model_validator(mode="after")
    def _image_fits_the_model(self) -> Recipe:
        multiple, size = self.model.image_multiple, self.data.image_size
        if any(side % multiple for side in size):
            near = ",".join(str(max(1, round(side / multiple)) * multiple) for side in size)
            raise ValueError(
                f"{type(self.model).__name__} needs images whose sides are multiples of {multiple}, not {size[0]} x {size[1]}; "
                f"try data.image_size={near}"
            )
        return self
