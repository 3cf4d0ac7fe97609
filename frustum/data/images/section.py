"""The `data` section of folders of images with label maps (docs/data.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from frustum.data.source import AugmentConfig, DataConfig
from frustum.errors import ConfigError
from frustum.types.contract import Label, Reads

if TYPE_CHECKING:
    import numpy as np

    from frustum.data.images.folder import ImageFolder
    from frustum.data.images.pipeline import ImagePipeline
    from frustum.types.predictions import Prediction


class ImageFolderData(DataConfig):
    """Single images of uncalibrated cameras, with a class for each pixel."""

    has_rigs: ClassVar[bool] = False

    root: str = Field("data/images", description="folder that holds images/SPLIT/, labels/SPLIT/ and classes.json")

    def open(self) -> ImageFolder:
        """The data set. Raises DataError for a wrong root."""
        from frustum.data.images.folder import ImageFolder

        return ImageFolder(self.root)

    def pipeline(self, reads: Reads, labels: Sequence[Label[Any]], augment: AugmentConfig, training: bool) -> ImagePipeline:
        """See `DataConfig.pipeline`. Raises ConfigError for a network that reads the past."""
        from frustum.data.images.pipeline import ImagePipeline

        if reads.past:
            raise ConfigError(f"the network reads {reads.past} past frames, but single images have no past. Choose another data set.")
        return ImagePipeline(self, tuple(labels), augment, training)

    def back_to_source(self, source: ImageFolder, prediction: Prediction, augment: AugmentConfig) -> Prediction:
        """Label maps at the size of their image, nearest ids; IGNORE, which is scored as a miss, where the network's window ended."""
        import torch

        from frustum.data.augment import fit_image
        from frustum.types.classes import IGNORE

        part = prediction.segmentation
        if part is None or tuple(part.labels.shape) != self.image_size:
            return prediction
        fit = fit_image(augment, source.sample(prediction.token).size, self.image_size)
        labels = torch.from_numpy(fit.undo(part.labels.numpy(), IGNORE))
        return replace(prediction, segmentation=replace(part, labels=labels))

    def show(self, source: ImageFolder, token: str) -> list[tuple[str, np.ndarray]]:
        """The image."""
        import numpy as np

        return [("image", np.asarray(source.sample(token).open()))]
