"""Where samples come from: the recipe's `data` and `augment` sections, and what all data sets have in common.

A data set is a section (`DataConfig`) that opens into a source of samples and makes the pipeline that turns them into batches. Rigs of
cameras (data/nuscenes/section.py) and folders of images with label maps (data/images/section.py) are two kinds.
This module imports no torch, so that recipes can be described without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from frustum.config import TRAVELS, Config
from frustum.errors import ConfigError, DataError
from frustum.types.contract import Label, Reads

if TYPE_CHECKING:
    import numpy as np

    from frustum.data.sample import CameraFrame, Sample
    from frustum.geometry import VoxelGrid
    from frustum.types.batch import Batch
    from frustum.types.layers import Calibration
    from frustum.types.predictions import Prediction

Decoded = MutableMapping[Path, Any]
"""Decoded images by path."""


class Source(Protocol):
    """An opened data set. `sample(token)` returns an object with `token` and `scene`; what else it has depends on the kind."""

    root: Path

    def tokens(self, split: str = "all") -> list[str]:
        """Samples of a split, in order. Raises DataError for an unknown one."""

    def sample(self, token: str) -> Any:
        """One sample; its files are read later."""

    def neighbours(self, token: str) -> Sequence[str]:
        """The samples of the recording that a sample belongs to, itself among them, in time order; itself alone for single images."""


@runtime_checkable
class RigSource(Protocol):
    """A source whose samples are keyframes of a rig of calibrated cameras, such as `data.nuscenes.reader.NuScenes`."""

    root: Path

    def sample(self, token: str, *, with_boxes: bool = True, occupancy: Any = True, history: int = 0, camera_sweeps: int = 0) -> Sample:
        """One keyframe with its past, boxes and labels as the arguments say; `camera_sweeps` is given only to read such."""

    def count_boxes(self, tokens: Iterable[str], min_points: int = 1) -> int:
        """Boxes of the detection classes in these keyframes that hold at least `min_points` points."""


def as_rig_source(source: Any, what: str) -> RigSource:
    """The source, if its samples are keyframes of a rig. Raises DataError: `what` is read from such data sets only."""
    if not isinstance(source, RigSource):
        raise DataError(f"{what} need keyframes of a camera rig, but {source.root} is a {type(source).__name__}. Choose other data.")
    return source


def cameras_of(source: Source, split: str) -> int:
    """Images of a sample: the cameras of the first keyframe of a split; 1 for sources of single images, and for an empty split."""
    tokens = source.tokens(split)
    if not tokens or not isinstance(source, RigSource):
        return 1
    return len(source.sample(tokens[0], with_boxes=False, occupancy=False).cameras)


def labelled(source: Any, tokens: Sequence[str]) -> list[str]:
    """Samples whose voxel and map labels are not hidden (`data.labelled_share`)."""
    hides = getattr(source, "hides_labels", None)
    return [token for token in tokens if hides is None or not hides(token)]


def spread(tokens: Sequence[str], count: int) -> list[str]:
    """At most `count` of the tokens, at even steps, in order."""
    import numpy as np

    if len(tokens) <= count:
        return list(tokens)
    return [tokens[i] for i in np.linspace(0, len(tokens) - 1, count).round().astype(int)]


@dataclass(frozen=True)
class Loaded:
    """A decoded sample, small enough to be kept in memory. When images are never moved, they have the network's size already."""

    sample: Any
    images: dict[Path, np.ndarray]  # by file, (H, W, 3) uint8
    labels: tuple[Any, ...]  # what each kind of label read, None for a sample without one
    frames: tuple[tuple[CameraFrame, ...], ...] = ()  # of a rig: [time][camera], repeated where the scene does not have such a frame
    is_present: tuple[bool, ...] = ()  # [time]

    @property
    def num_bytes(self) -> int:
        """Memory that the arrays take; an image that is repeated counts once."""
        return _count_bytes((*self.images.values(), *self.labels))


def _count_bytes(value: Any) -> int:
    """Memory of the arrays in a tuple of arrays, tuples and other things."""
    return sum(map(_count_bytes, value)) if isinstance(value, tuple) else getattr(value, "nbytes", 0)


class Pipeline(Protocol):
    """From a sample on disk to network input, in two steps so that the first can be cached; and from samples to a batch."""

    @property
    def training(self) -> bool:
        """Whether `apply` draws at random."""

    def load(self, source: Any, token: str, decoded: Decoded | None = None) -> Loaded:
        """Read and decode; images that are in `decoded` already are taken from there, new ones are added."""

    def apply(self, loaded: Any, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Draw the augmentation, transform, normalise."""

    def collate(self, items: list[dict[str, Any]]) -> Batch:
        """Outputs of `apply` as a batch."""


def _ordered(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"a range is low,high, but {values[0]:g} is above {values[1]:g}")
    return values


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""(low, high), both included."""
Share = Annotated[float, Field(ge=0, lt=1)]


class AugmentConfig(Config):
    """Training-time augmentation (FlashOCC, input pipeline), and how images are fitted without (`augment.fit_image`)."""

    resize: Range = Field((-0.06, 0.11), description="range added to the base scale (output width / source width)")
    eval_resize: Annotated[float, TRAVELS] = Field(0.0, description="added to the base scale in evaluation; 3DPPE has 0.04")
    scale: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ordered)] | None = Field(
        None, description="range of the scale of the photograph itself, a window anywhere in it; replaces resize and crop_h in training"
    )
    rotate_deg: Range = (-5.4, 5.4)
    flip: bool = Field(True, description="mirror images with probability 0.5")
    shared: bool = Field(False, description="one draw of scale, crop, turn and mirror for all cameras of a sample, instead of one each")
    crop_h: Annotated[tuple[Share, Share], AfterValidator(_ordered), TRAVELS] = Field(
        (0.0, 0.0), description="range of the share of the image height cut off at the bottom; evaluation takes its middle"
    )
    window: Literal["auto", "bottom", "horizon"] = Field(
        "auto",
        description="which rows of a scaled image are kept: those at its bottom, or those that put the horizon where `horizon` says; auto "
        "takes the horizon for imported rigs and the bottom for data sets",
    )
    horizon: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the network's image above the horizon; training notes what it saw, None stands for nuScenes' cameras",
    )
    grid_mask: float = Field(0.0, ge=0, le=1, description="probability of a lattice of squares without image and depth (GridMask)")
    colour_jitter: float = Field(0.0, ge=0, description="brightness, contrast and saturation jitter, relative")
    bev_flip_x: float = Field(0.5, ge=0, le=1, description="probability of negating x of the ego frame")
    bev_flip_y: float = Field(0.5, ge=0, le=1)
    bev_rotate_deg: Range = (0.0, 0.0)
    bev_scale: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ordered)] = (1.0, 1.0)

    @property
    def moves_pixels(self) -> bool:
        """Whether training moves pixels away from where the plain fit to the network's size has them."""
        return bool(self.flip or self.scale or any((*self.resize, *self.rotate_deg, *self.crop_h)))

    def check(self, grid: VoxelGrid) -> None:
        """Raise ConfigError when a flip does not map the grid onto itself."""
        for axis, name, share in ((0, "x", self.bev_flip_x), (1, "y", self.bev_flip_y)):
            if share and abs(grid.lower[axis] + grid.upper[axis]) > 1e-6:
                raise ConfigError(
                    f"augment.bev_flip_{name} needs a grid that is symmetric in {name}, but it goes from {grid.lower[axis]} to "
                    f"{grid.upper[axis]} m. Set augment.bev_flip_{name}=0."
                )


class DataConfig(Config):
    """Base of every `data` section: what all data sets have in common. A subclass opens one kind of data set.

    Attributes:
        presets: settings that `data=NAME` on the command line stands for, by name.
        has_rigs: samples come from rigs of calibrated cameras; else they are single images.
    """

    first_class: ClassVar[str] = "frustum.data.nuscenes.section:NuScenesData"

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    has_rigs: ClassVar[bool] = True

    root: str = Field("data", description="folder of the data set")
    train_split: str = "train"
    val_split: str = "val"
    image_size: Annotated[tuple[PositiveInt, PositiveInt], TRAVELS] = Field(
        (256, 704), description="(height, width) of the network's image"
    )
    channel_order: Annotated[Literal["rgb", "bgr"], TRAVELS] = "rgb"
    mean: Annotated[tuple[float, float, float], TRAVELS] = (123.675, 116.28, 103.53)
    std: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], TRAVELS] = (58.395, 57.12, 57.375)
    cache: Literal["none", "memory"] = Field("none", description="keep decoded images and labels in memory")

    def open(self) -> Source:
        """The data set. Raises DataError for a wrong root."""
        raise TypeError(f"{type(self).__name__} must define open()")

    def training_tokens(self, source: Any, seed: int) -> list[str]:
        """The samples of an epoch of training, before they are shuffled: those of the training split, once each by default."""
        return list(source.tokens(self.train_split))

    def measured(self, source: Any, augment: AugmentConfig) -> AugmentConfig:
        """The `augment` section of a training, with what it does not state and the training samples show (`augment.horizon`)."""
        return augment

    def lacking(self, source: Any, tokens: Sequence[str]) -> list[str]:
        """Sentences about what of these samples is left out, or not there: whoever uses them is told once."""
        return []

    def rig_of(self, source: Any) -> list[dict[str, Any]]:
        """The cameras that a training on this data set learns from, as its weights keep them (`data.rig.likeness`); none of images."""
        return []

    def pipeline(self, reads: Reads, labels: Sequence[Label[Any]], augment: AugmentConfig, training: bool) -> Pipeline:
        """From samples of this data set to batches: with the labels, and augmented, for training."""
        raise TypeError(f"{type(self).__name__} must define pipeline()")

    def open_sample(self, source: Any, token: str, reads: Reads) -> Any:
        """One sample with the past that a model reads, without labels."""
        return source.sample(token)

    def infer(self, forward: Callable[[Batch], Any], batch: Batch, model: Config) -> Any:
        """The outputs of a network in evaluation, whose config is `model`; a data set may run it on parts of its images."""
        return forward(batch)

    def back_to_source(self, source: Any, prediction: Prediction, augment: AugmentConfig) -> Prediction:
        """A network's prediction with what it says of pixels brought from the network's image to the sample's own."""
        return prediction

    def show(self, source: Any, token: str) -> list[tuple[str, np.ndarray]]:
        """The photographs of a sample for display: (name, (H, W, 3) uint8 RGB)."""
        raise TypeError(f"{type(self).__name__} must define show()")

    def calibrations(self, source: Any, token: str) -> list[Calibration]:
        """What places the ego frame in each photograph of `show`; empty for single images."""
        return []
