"""From single images to network input: resized, cropped, mirrored and turned together with their labels; and images to a Batch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from frustum.data.augment import BevTransform, Draw, draw, draw_colours
from frustum.data.corruptions import Corrupter, refuse_failing_cameras
from frustum.data.images.labelled import LabelledImages
from frustum.data.labels.pixels import PixelLabels
from frustum.data.pipeline import collate_labels
from frustum.data.pixels import jitter_colours, normalise
from frustum.data.source import AugmentConfig, Decoded, Loaded
from frustum.errors import ConfigError, FrustumWarning
from frustum.types.batch import Batch, ImageScale
from frustum.types.classes import IGNORE
from frustum.types.contract import Label

if TYPE_CHECKING:
    from frustum.data.images.section import ImageFolderData
    from frustum.data.portraits.section import PortraitData


@dataclass(frozen=True)
class ImagePipeline:
    """How single images become network input.

    Attributes:
        data: size and normalisation.
        labels: kinds of label, where an image has some.
        augment: the random changes of the image; those of the ego frame do nothing here.
        training: draw at random.
        corrupter: what is done to the photographs of an evaluation.

    Raises:
        ConfigError: the corrupter makes cameras of a rig fail.
    """

    data: ImageFolderData | PortraitData
    labels: tuple[Label[Any], ...]
    augment: AugmentConfig
    training: bool
    corrupter: Corrupter | None = None

    def __post_init__(self) -> None:
        refuse_failing_cameras(self.corrupter)

    def __call__(self, source: LabelledImages, token: str, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Network input of one image, for `collate`. Raises DataError as `load` does."""
        return self.apply(self.load(source, token), rng)

    def load(self, source: LabelledImages, token: str, decoded: Decoded | None = None) -> Loaded:
        """Read and decode; see `source.Pipeline.load`. Raises DataError for damaged or wrong files."""
        sample, known = source.sample(token), {} if decoded is None else decoded
        if self.training:
            self._compare_scales(sample.size)
        fixed = None if self._moves_pixels else self._still(sample.size)
        if sample.path not in known:
            image = sample.open() if self.corrupter is None else self.corrupter(sample.open(), token)
            known[sample.path] = np.asarray(image if fixed is None else fixed.images[0].apply(image, outside=self._mean_colour))
        labels = tuple(label.read(source, token, fixed) for label in self.labels)
        return Loaded(sample, {sample.path: known[sample.path]}, labels)

    def apply(self, loaded: Loaded, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Draw the augmentation, transform and normalise: `image` (3, H, W), token and labels."""
        rng, image = rng if self.training else None, loaded.images[loaded.sample.path]
        size, drawn = loaded.sample.size, self._still(loaded.sample.size)
        if rng is not None:
            drawn = draw(self.data.trained(self.augment, size), rng, [size], self.data.image_size)
        if self._moves_pixels:
            image = np.asarray(drawn.images[0].apply(Image.fromarray(image), outside=self._mean_colour))
        if rng is not None and self.augment.colour_jitter:
            image = jitter_colours(image, *draw_colours(self.augment, rng))
        pixels = normalise(image, self.data.mean, self.data.std, self.data.channel_order)
        if drawn.kept is not None:
            pixels *= drawn.kept
        if rng is not None:  # drawn last, so that it changes no other draw
            drawn = replace(drawn, seed=int(rng.integers(2**63)))
        moved = [self._moved(label, found, drawn) for label, found in zip(self.labels, loaded.labels, strict=True)]
        return {"token": loaded.sample.token, "image": torch.from_numpy(pixels), "labels": moved}

    def collate(self, items: list[dict[str, Any]]) -> Batch:
        """Outputs of `apply` as a batch without calibration. Raises ConfigError for images of several sizes."""
        if len(sizes := {tuple(item["image"].shape[1:]) for item in items}) > 1:
            said = " and ".join(f"{height} x {width}" for height, width in sorted(sizes))
            raise ConfigError(
                f"photographs of {said} pixels do not fit in one batch at their own size. Set eval.batch_size=1 or data.evaluation=fit."
            )
        batch = Batch.of_images(torch.stack([item["image"] for item in items]), [item["token"] for item in items])
        batch = replace(batch, image_scale=ImageScale(self.data.mean, self.data.std, self.data.channel_order))
        return batch.with_labels(collate_labels(self.labels, [item["labels"] for item in items]))

    def _still(self, size: tuple[int, int]) -> Draw:
        """The draw of an image that is not augmented."""
        if self.training:
            return draw(self.augment, None, [size], self.data.image_size)
        seen = self.data.evaluated(self.augment, size)
        return Draw((seen,), BevTransform(), seen.size)

    def _moved(self, label: Label[Any], found: Any, drawn: Draw) -> Any:
        """A label as the network's image shows it. In training an image without a label map has one in which nothing counts: a batch of
        such images alone does not stop it."""
        if found is None:
            return np.full(drawn.size, IGNORE, np.uint8) if self.training and isinstance(label, PixelLabels) else None
        return label.apply(found, drawn)

    def _compare_scales(self, size: tuple[int, int]) -> None:
        """Warn if training never shows a photograph of this (height, width) as large as evaluation does."""
        scales, worker = self.data.trained(self.augment, size).scale, get_worker_info()
        if scales is None or (worker is not None and worker.id):  # one process says it
            return
        seen = self.data.evaluated(self.augment, size).resized[1] / size[1]
        if not 0.98 * scales[0] <= seen <= 1.02 * scales[1]:
            shown = getattr(self.data, "evaluation", "whole")  # portraits are
            warnings.warn(
                "training never shows photographs in the size in which evaluation shows them: augment.scale does not reach it "
                f"(data.evaluation={shown}). Set data.evaluation=whole, with data.short_side for large photographs, or "
                "another augment.scale.",
                FrustumWarning,
                stacklevel=2,
            )

    @property
    def _mean_colour(self) -> tuple[int, ...]:
        """RGB of what is not in the photograph: about 0 after normalisation, as published."""
        mean = tuple(round(value) for value in self.data.mean)
        return mean[::-1] if self.data.channel_order == "bgr" else mean

    @property
    def _moves_pixels(self) -> bool:
        return self.training and self.augment.moves_pixels
