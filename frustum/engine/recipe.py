"""Recipe: everything that a run needs, in one frozen, typed, serialisable object.

A recipe is a plain function that returns a complete `Recipe`; recipes/ holds ours, and code outside the package joins by import path
(`my_pkg.my_file:my_recipe`) or by the entry-point group `frustum.recipes`. This module imports no torch, so that the command line
answers at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator

from frustum.config import TRAVELS, Config
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.contract import ModelConfig as ModelConfig


class DataConfig(Config):
    """Where samples come from and how they become network input. All data sets share one format."""

    root: str = Field("data/nuscenes", description="folder that holds <version>/*.json and samples/")
    version: str = Field("v1.0-trainval", description="name of the folder with the tables")
    train_split: str = "train"
    val_split: str = "val"
    cameras: tuple[str, ...] | None = Field(None, description="camera channels in order; None takes all, FlashOCC's order first")
    image_size: Annotated[tuple[PositiveInt, PositiveInt], TRAVELS] = Field(
        (256, 704), description="(height, width) of the network's image"
    )
    channel_order: Annotated[Literal["rgb", "bgr"], TRAVELS] = "rgb"
    mean: Annotated[tuple[float, float, float], TRAVELS] = (123.675, 116.28, 103.53)
    std: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], TRAVELS] = (58.395, 57.12, 57.375)
    history: int = Field(0, ge=0, description="past keyframes per sample")
    load_depth: bool = Field(False, description="LiDAR depth maps for depth supervision")
    load_boxes: bool = False
    map_frame: Annotated[Literal["lidar", "camera0"], TRAVELS] = Field(
        "lidar", description="ego pose of the network's map: the keyframe's, or as published FlashOCC the one at the first camera's time"
    )
    cache: Literal["none", "memory"] = Field("none", description="keep decoded images and labels in memory")


class OptimConfig(Config):
    """AdamW and its schedule."""

    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    encoder_lr_scale: float = Field(1.0, ge=0, description="factor on the learning rate of the image encoder")
    clip_norm: float = Field(5.0, gt=0)
    schedule: Literal["constant", "step", "cosine"] = "step"
    warmup_steps: int = Field(200, ge=0)
    warmup_ratio: float = Field(1e-3, gt=0, le=1, description="first learning rate relative to lr")
    step_epochs: tuple[int, ...] = Field((24,), description="epochs after which a step schedule divides lr by 10")


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


class EvalConfig(Config):
    """Which numbers, on which frames."""

    batch_size: int = Field(1, ge=1)
    ray_iou: bool = True
    every: int = Field(1, ge=1, description="evaluate every n-th frame of the split")
    use_ema: bool = Field(
        True,
        description="read when training ends: weights.safetensors, which is what gets evaluated, holds the average, not the last weights",
    )


class PublishedNumber(Config):
    """A figure that the authors published, with the protocol it was measured under."""

    metric: str = Field(description="as `frustum eval` names it: mIoU (camera mask), RayIoU, RayIoU@1, RayPQ, ...")
    value: float = Field(description="percent")
    protocol: str
    source: str
    per_class: tuple[float, ...] = Field((), description="percent, one for each occupied class in Occ3D's order, where published")

    @model_validator(mode="after")
    def _names_every_class(self) -> PublishedNumber:
        if len(self.per_class) not in (0, len(OCC3D_CLASSES) - 1):
            raise ValueError(f"per_class needs {len(OCC3D_CLASSES) - 1} figures or none, got {len(self.per_class)}")
        return self


class Recipe(Config):
    """A complete description of a run. `frustum train <recipe> key=value` overrides any field by its dotted path."""

    name: str
    model: SerializeAsAny[ModelConfig]
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig | None = EmaConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    eval: EvalConfig = EvalConfig()
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
