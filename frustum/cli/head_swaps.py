"""Both networks of head swapping as one `Predictor`, so that whole swaps are scored as any other prediction is.

Shape letters: S side of a portrait.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from frustum.data.pixels import normalise
from frustum.data.source import spread
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError
from frustum.models.head_swap import HeadAligner, HeadSwapper, NoHeadError, Parse, Swapped
from frustum.models.heser_fewshot import FewShot, Learned
from frustum.tasks.task import Predictor
from frustum.types.batch import Batch, ImageScale
from frustum.types.predictions import PredictedPortrait, Prediction


class HeadSwaps(Predictor):
    """Swaps of a data set (`data.portraits.folder.Portraits`): the source's frames are learned, the head is aligned and blended.

    Args:
        source: the portraits, as large as the networks make them.
        swapper: trained networks.
        frames: how many frames of the source are seen, at even steps; 0 takes all.
        how: how the aligner learns the person; by default it does not.
        is_blended: False pastes the aligned head as it is, which shows what the blender is good for.

    Attributes:
        failed: tokens of swaps of which no head came out: their portraits stay as they are.
        policy: whose colours the heads get.
    """

    note = "heads by HeSer's two networks, from frames of the source"

    def __init__(self, source: Any, swapper: HeadSwapper, frames: int = 0, how: FewShot | None = None, is_blended: bool = True):
        self.name = "aligner and blender" if is_blended else "aligner, pasted"
        self._source, self._swapper, self._is_blended = source, swapper, is_blended
        self.people = People(source, swapper.heads, frames, how)
        self.failed: list[str] = []
        self.policy = swapper.blender.config.policy

    def answer(self, token: str) -> Prediction:
        """The prediction for a swap. Raises ConfigError for portraits of another size."""
        portrait = self._source.image(token)
        try:
            found = self.swapped(token)
        except NoHeadError:
            self.failed.append(token)
            image, head = portrait, np.zeros(portrait.shape[:2], bool)
        else:
            head = found.parts > 0
            image = found.image if self._is_blended else np.where(head[..., None], found.aligned, portrait)
        part = PredictedPortrait(torch.from_numpy(np.moveaxis(image, -1, 0).copy()), torch.from_numpy(head), self.policy)
        return Prediction(token, portrait=part)

    def swapped(self, token: str) -> Swapped:
        """A swap with what it came from. Raises NoHeadError, and what `answer` does."""
        person = self.people.learned(self._source.source_frames(token))
        return self._swapper.swap(person, self._source.image(token), self._source.parsing(token))


class People:
    """People of a data set as an aligner knows them; the last one is kept.

    Args:
        source: the portraits, as large as the aligner makes them.
        heads: the aligner.
        frames: how many frames of a person are seen, at even steps; 0 takes all.
        how: how the aligner learns the person; by default it does not.
    """

    def __init__(self, source: Any, heads: HeadAligner, frames: int = 0, how: FewShot | None = None):
        self._source, self._heads, self._frames, self._how = source, heads, frames, how or FewShot(steps=0)
        self._known: tuple[tuple[str, ...], Learned] | None = None

    def learned(self, tokens: list[str]) -> Learned:
        """The person in these frames. Raises ConfigError for portraits of another size."""
        seen = tuple(spread(tokens, self._frames or len(tokens)))
        if self._known is None or self._known[0] != seen:
            portraits, side = [self._source.image(frame) for frame in seen], self._heads.side
            if portraits[0].shape[:2] != (side, side):
                raise ConfigError(
                    f"the portraits in {self._source.root} have {len(portraits[0])} pixels, but the aligner makes {side}. Make heads of "
                    f"that size: frustum data heads OUT --size {side}."
                )
            self._known = seen, self._heads.learn(portraits, [self._source.parsing(frame) for frame in seen], self._how)
        return self._known[1]


def parse_with(recipe: Recipe, network: nn.Module) -> Parse:
    """A function that finds the parts of a head, by a network that labels them (`face-parser`), in any square image."""
    predictor, data = NetworkPredictor(network, recipe.runtime), recipe.data

    def parse(image: np.ndarray) -> np.ndarray:
        """(S, S, 3) uint8 -> (S, S) uint8."""
        square = Image.fromarray(image)
        pixels = normalise(np.asarray(square.resize(data.image_size[::-1])), data.mean, data.std, data.channel_order)
        batch = Batch.of_images(torch.from_numpy(pixels)[None])
        (found,) = predictor(Batch(**{**vars(batch), "image_scale": ImageScale(data.mean, data.std, data.channel_order)}))
        assert found.segmentation is not None
        return np.asarray(Image.fromarray(found.segmentation.labels.numpy()).resize(square.size, Image.Resampling.NEAREST))

    return parse
