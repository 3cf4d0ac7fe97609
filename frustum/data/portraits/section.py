"""The `data` section of folders of portraits (docs/heads_world.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from frustum.config import TRAVELS
from frustum.data.source import AugmentConfig, DataConfig
from frustum.errors import ConfigError, DataError
from frustum.types.contract import Label, Reads

if TYPE_CHECKING:
    import numpy as np

    from frustum.data.images.pipeline import ImagePipeline
    from frustum.data.pixels import ImageTransform
    from frustum.data.portraits.folder import Portraits
    from frustum.types.predictions import Prediction


class PortraitData(DataConfig):
    """Portraits of people in clips. They are square, and are scaled to the network's image as a whole."""

    has_rigs: ClassVar[bool] = False

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "heads": {"root": "data/heads", "val_split": "swaps"},
        "portraits": {"root": "data/portraits", "val_split": "val"},
    }

    root: str = Field("data/heads", description="folder of portraits: img/PERSON/CLIP/ and mask/PERSON/CLIP/, or of VoxCeleb2's frames")
    val_split: str = Field("swaps", description="swaps: true swaps of generated heads; else a split of people, whose own heads are judged")
    image_size: Annotated[tuple[PositiveInt, PositiveInt], TRAVELS] = Field((512, 512), description="(height, width), equal")
    mean: Annotated[tuple[float, float, float], TRAVELS] = (127.5, 127.5, 127.5)
    std: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], TRAVELS] = (127.5, 127.5, 127.5)

    def open(self) -> Portraits:
        """The portraits. Raises DataError for a wrong root."""
        from frustum.data.portraits.opening import open_portraits

        return open_portraits(self.root)

    def pipeline(self, reads: Reads, labels: Sequence[Label[Any]], augment: AugmentConfig, training: bool) -> ImagePipeline:
        """See `DataConfig.pipeline`. Raises ConfigError for a network that reads the past."""
        from frustum.data.images.pipeline import ImagePipeline

        if reads.past:
            raise ConfigError(f"the network reads {reads.past} past frames, but portraits are read one by one. Choose another data set.")
        return ImagePipeline(self, tuple(labels), augment, training)

    def evaluated(self, augment: AugmentConfig, source: tuple[int, int]) -> ImageTransform:
        """From a portrait of (height, width) `source` to the network's image. Raises DataError for one that is not square."""
        from frustum.data.pixels import ImageTransform

        if source[0] != source[1]:
            raise DataError(f"a portrait has {source[0]} x {source[1]} pixels, but portraits are square. Cut out the head as a square.")
        return ImageTransform(source, self.image_size, self.image_size)

    def trained(self, augment: AugmentConfig, source: tuple[int, int]) -> AugmentConfig:
        """`augment`, for a portrait of (height, width) `source`. Raises DataError for one that is not square."""
        self.evaluated(augment, source)
        return augment

    def back_to_source(self, source: Portraits, prediction: Prediction, augment: AugmentConfig) -> Prediction:
        """Pictures and label maps at the size of their portrait; pictures are stretched smoothly."""
        import torch
        import torch.nn.functional as F

        from frustum.types.classes import IGNORE

        size = source.sample(prediction.token).size
        fit, part, maps = self.evaluated(augment, size), prediction.portrait, prediction.segmentation
        if size == self.image_size:
            return prediction
        if part is not None:
            image = F.interpolate(part.image[None].float(), size, mode="bilinear", antialias=True)[0].round().clamp(0, 255)
            head = None if part.head is None else torch.from_numpy(fit.undo(part.head.numpy(), 0))
            prediction = replace(prediction, portrait=replace(part, image=image.to(torch.uint8), head=head))
        if maps is not None:
            labels = torch.from_numpy(fit.undo(maps.labels.numpy(), IGNORE))
            prediction = replace(prediction, segmentation=replace(maps, labels=labels))
        return prediction

    def show(self, source: Portraits, token: str) -> list[tuple[str, np.ndarray]]:
        """The portrait, and of a swap the first frame of the person whose head it gets."""
        shown = [("portrait", source.image(token))]
        first = source.source_frames(token)[0]
        return shown if source.placed_head(token) is None else [*shown, ("source", source.image(first))]
