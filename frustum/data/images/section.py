"""The `data` section of folders of images with label maps (docs/data.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from frustum.config import TRAVELS, Config
from frustum.data.source import AugmentConfig, DataConfig
from frustum.errors import ConfigError
from frustum.types.contract import Label, Reads

if TYPE_CHECKING:
    import numpy as np

    from frustum.data.images.labelled import LabelledImages
    from frustum.data.images.pipeline import ImagePipeline
    from frustum.data.pixels import ImageTransform
    from frustum.types.batch import Batch
    from frustum.types.predictions import Prediction


class ImageFolderData(DataConfig):
    """Single images of uncalibrated cameras, with a class for each pixel."""

    has_rigs: ClassVar[bool] = False

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"root": f"data/{name}", "train_split": "train", "val_split": "val"}
        for name in ("images", "street_images", "camvid", "cityscapes", "voc", "ade20k")
    }

    root: str = Field("data/images", description="folder of images and label maps, or of CamVid, Cityscapes, VOC or ADE20K")
    evaluation: Annotated[Literal["fit", "whole", "windows"], TRAVELS] = Field(
        "fit",
        description="what the network sees in evaluation: the photograph fitted to image_size by its width, the whole photograph as large "
        "as it is, or windows of image_size all over it",
    )
    short_side: Annotated[int | None, Field(ge=1), TRAVELS] = Field(
        None,
        description="shorter side, in pixels, to which the photograph is scaled first, for `whole` and `windows`, and in training for "
        "augment.scale, which multiplies it; by default it keeps its size",
    )
    multiple_of: Annotated[int, Field(ge=1), TRAVELS] = Field(1, description="`whole` pads both sides to multiples of it")
    overlap: Annotated[float, Field(ge=0, lt=1), TRAVELS] = Field(1 / 3, description="share of a window that the next one covers again")
    mirror: Annotated[bool, TRAVELS] = Field(False, description="in evaluation, average the logits of the image and of its mirror image")

    def open(self) -> LabelledImages:
        """The data set. Raises DataError for a wrong root."""
        from frustum.data.images.opening import open_images

        return open_images(self.root)

    def pipeline(self, reads: Reads, labels: Sequence[Label[Any]], augment: AugmentConfig, training: bool) -> ImagePipeline:
        """See `DataConfig.pipeline`. Raises ConfigError for a network that reads the past."""
        from frustum.data.images.pipeline import ImagePipeline

        if reads.past:
            raise ConfigError(f"the network reads {reads.past} past frames, but single images have no past. Choose another data set.")
        return ImagePipeline(self, tuple(labels), augment, training)

    def evaluated(self, augment: AugmentConfig, source: tuple[int, int]) -> ImageTransform:
        """From a photograph of (height, width) `source` to what the network sees in evaluation."""
        from frustum.data.augment import fit_image
        from frustum.data.pixels import ImageTransform

        if self.evaluation == "fit":
            return fit_image(augment, source, self.image_size)
        height, width = (max(1, round(side * self._first_scale(source))) for side in source)
        if self.evaluation == "windows":
            size = max(height, self.image_size[0]), max(width, self.image_size[1])
        else:
            size = -(-height // self.multiple_of) * self.multiple_of, -(-width // self.multiple_of) * self.multiple_of
        return ImageTransform(source, (height, width), size)

    def trained(self, augment: AugmentConfig, source: tuple[int, int]) -> AugmentConfig:
        """`augment` for a photograph of (height, width) `source`: its scale multiplies that of `short_side`, as evaluation sees it."""
        if augment.scale is None or self.short_side is None:
            return augment
        first, (low, high) = self._first_scale(source), augment.scale
        return augment.model_copy(update={"scale": (first * low, first * high)})

    def infer(self, forward: Callable[[Batch], Any], batch: Batch, model: Config) -> Any:
        """See `DataConfig.infer`: all outputs, or `logits` at the size of the images if they are averaged."""
        from frustum.data.images.windows import mirrored, windowed

        is_aligned = bool(getattr(model, "is_aligned", False))
        if self.evaluation == "windows":
            forward = partial(windowed, forward, self.image_size, self.overlap, is_aligned)
        return mirrored(forward, is_aligned, batch) if self.mirror else forward(batch)

    def back_to_source(self, source: LabelledImages, prediction: Prediction, augment: AugmentConfig) -> Prediction:
        """Label maps at the size of their image, nearest ids; IGNORE, which is scored as a miss, where the network's window ended."""
        import torch

        from frustum.types.classes import IGNORE

        part = prediction.segmentation
        if part is None:
            return prediction
        fit = self.evaluated(augment, source.sample(prediction.token).size)
        if tuple(part.labels.shape) != fit.size:
            return prediction
        labels = torch.from_numpy(fit.undo(part.labels.numpy(), IGNORE))
        return replace(prediction, segmentation=replace(part, labels=labels))

    def show(self, source: LabelledImages, token: str) -> list[tuple[str, np.ndarray]]:
        """The image."""
        import numpy as np

        return [("image", np.asarray(source.sample(token).open()))]

    def _first_scale(self, source: tuple[int, int]) -> float:
        """Of a photograph of (height, width) `source`, ahead of everything else."""
        return 1.0 if self.short_side is None else self.short_side / min(source)
