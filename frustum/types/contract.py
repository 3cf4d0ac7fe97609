"""What a method brings: a frozen config that says what the network reads and learns from, and builds it (docs/add_a_method.md).

The network has three methods:

    forward(batch) -> dict[str, Tensor]          keys and shapes documented in the model's class docstring
    loss(outputs, batch) -> dict[str, Tensor]    named scalars, already weighted; the total is their plain sum
    predict(outputs, batch) -> list[Prediction]  one per sample, keyframe ego frame, SI units

and, where it needs them,

    turns() -> tuple[Turn, ...]                               who is trained by which loss, in which order
    parameter_groups() -> dict[str, list[Parameter]]          names for `optim.lr_scale`; an image encoder is called "encoder"
    prepare(statistics) -> None                               called once on fresh weights with label statistics, ahead of the first step
    streamed() -> Callable[[Batch], dict[str, Tensor]]        a form of `forward` that may remember past frames
    to_map(batch) -> dict[str, Tensor]                        what comes ahead of the heads, `bev` among it: it can be pretrained
    all_outputs: bool                                         set it, and `forward` returns all that is documented, in training, too
    not_maps: tuple[str, ...]                                 outputs that are not (B, C, *) over space; of `occ_logits` that is known

This module imports no torch, so that recipes can be described without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator

from frustum.config import Config

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from frustum.types.batch import Batch

Value = TypeVar("Value")


@dataclass(frozen=True)
class Sweeps:
    """Which of the moments before a keyframe, newest first and counted from 0, is read: images between keyframes, and keyframes.

    Attributes:
        first, stop: training draws one from `first` to `stop` - 1.
        evaluation: the one that evaluation reads. Where a scene has fewer, the oldest is read.
        without: what to type to read the keyframe before instead, for errors.
    """

    first: int
    stop: int
    evaluation: int
    without: str


@dataclass(frozen=True)
class Reads:
    """What a network reads in addition to the images of the keyframe.

    Attributes:
        past: past keyframes.
        sweeps: instead of one past keyframe (`past` is 1), a moment between keyframes.
        labels: labels that it needs to predict, too, and not only to learn: an oracle reads what it would otherwise have to find.
        front: the place of CAM_FRONT among the cameras, where what it predicts is in that camera's frame; else -1.
        front_setting: what chooses that place, as it is typed.
    """

    past: int = 0
    sweeps: Sweeps | None = None
    labels: tuple[Label[Any], ...] = ()
    front: int = -1
    front_setting: str = "model.maps.reference"


@dataclass(frozen=True)
class Shapes:
    """Sizes of the batch that `Label.example` makes labels for: B samples, N cameras, (height, width) of the images."""

    batch: int
    cameras: int
    image_size: tuple[int, int]


class Label(ABC, Generic[Value]):
    """A kind of label that a network learns from. A subclass is a small frozen dataclass of its settings, one file in data/labels.

    A label is read from a source, moved by the same random draw as the images, and joined to a `Value` in the batch, where
    `batch.need(TheLabel)` finds it.

    Attributes:
        what: what is missing where there is none, in words.
        advice: how to get it.
        can_be_hidden: `data.labelled_share` hides it in the samples of which it leaves no labels.
    """

    what: ClassVar[str]
    advice: ClassVar[str] = ""
    can_be_hidden: ClassVar[bool] = False

    @abstractmethod
    def read(self, source: Any, token: str, fixed: Any = None) -> Any | None:
        """The label of a sample as numpy arrays, small enough to be kept in memory; None if the sample has none.

        Args:
            source: a data source (data/source.py).
            token: the sample.
            fixed: the draw that will always be applied, if images are never moved: what depends on it alone can be done here, once.
        """

    @abstractmethod
    def apply(self, found: Any, draw: Any) -> Any:
        """What `read` found, moved by a draw (data/augment.py)."""

    @abstractmethod
    def collate(self, moved: Sequence[Any | None]) -> Value | None:
        """The value of a batch from what `apply` returned for its samples, None where a sample has no label; None without any label."""

    @classmethod
    def check(cls, value: Value) -> None:
        """Raise DataError for values of a batch that cannot be; for arrays from anybody. Typed values may check themselves instead."""

    @abstractmethod
    def example(self, rng: np.random.Generator, shapes: Shapes) -> Value:
        """A made-up value of a batch, for tests."""

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if nothing can be learned from these training samples."""

    def statistics(self, source: Any, tokens: Sequence[str]) -> dict[str, np.ndarray]:
        """What a network's `prepare` needs of the labels of these samples, as named arrays. Empty by default."""
        return {}

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """What is learned from, in a phrase for those who read a result; by default `what`. Nothing slow is read for it.

        Args:
            source: the opened data set.
            tokens: the training samples.
            statistics: what `statistics` found, where a network asked for it; else empty.
        """
        return self.what


@dataclass(frozen=True)
class Turn:
    """A part of a training step: one forward pass, the step of one optimiser. A model without `turns` has one, with `loss`.

    Attributes:
        name: for messages.
        parameters: what is trained in this turn. All others get no gradient meanwhile; one may be trained in several turns.
        loss: from the outputs of `forward` and the batch to named scalars. The names of different turns must differ. Networks that it
            calls itself, such as a discriminator, compute in float32 whatever `runtime.precision` is.
        forward: gives the outputs that the loss needs where these are less than the network's `forward` makes.
        reuses: the loss gets the outputs of the turn before, without their gradients, and no forward pass is made. Not for the first turn.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    loss: Callable[[dict[str, Tensor], Batch], dict[str, Tensor]]
    forward: Callable[[Batch], dict[str, Tensor]] | None = None
    reuses: bool = False


def _classes(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2 or names[-1] != "free" or len(set(names)) < len(names):
        raise ValueError("class names are at least two different words, the last one is 'free'")
    return names


@dataclass(frozen=True)
class Memory:
    """What a training step needs beside the weights and the optimiser: a careful estimate, which is too low rather than too high.

    Attributes:
        parts: bytes, by what they are, in words.
        less: settings of the model that make it less, as they are typed below `model.`, with spaces between those that belong
            together; those that save nothing are not shown.
    """

    parts: Mapping[str, int]
    less: tuple[str, ...] = ()


ClassNames = Annotated[tuple[str, ...], AfterValidator(_classes)]
"""The K classes of an occupancy head; the last one is free space."""


class ModelConfig(Config):
    """Base of every model's config. A subclass is in the model's file and builds it.

    Attributes:
        image_multiple: the sides of the network's image must be multiples of this: the stride of its coarsest feature map.
        renamed: prefixes of the state dict that earlier versions called otherwise, {old: new}, so that their weights still load.
        held: prefix of the state dict under which it holds another network of ours: a training starts from that one's weights, too.
    """

    image_multiple: ClassVar[int] = 1
    renamed: ClassVar[dict[str, str]] = {}
    held: ClassVar[str] = ""

    def reads(self) -> Reads:
        """What the network reads; by default the keyframe alone."""
        return Reads()

    def learns_from(self) -> tuple[Label[Any], ...]:
        """The labels that the loss needs."""
        return ()

    def check_start(self, taken: Collection[str], trained: Mapping[str, Any] | None, around: Mapping[str, Any], what: str) -> list[str]:
        """Whether a training may start from weights (`--init`), and sentences about what is otherwise in it. By default it may.

        Args:
            taken: keys of the state dict that were taken from them.
            trained: settings of the network that they are of; None in a file of another project.
            around: plain facts around the weights in such a file (`StateFile.details`).
            what: the file, for messages.

        Raises:
            CheckpointError: the weights mean something else than this network.
        """
        return []

    def memory(self, batch_size: int, device: str) -> Memory | None:
        """The least memory of a training step, where a setting may make it larger than a machine has; None where nothing is known.

        Args:
            batch_size: samples of a micro-step.
            device: `cpu`, `cuda` or `mps`; what is kept for a gradient may depend on the backend.
        """
        return None

    def build(self) -> nn.Module:
        """The network as an `nn.Module` that keeps the contract: forward, loss, predict."""
        raise TypeError(f"{type(self).__name__} must define build()")
