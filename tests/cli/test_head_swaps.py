"""Whole swaps as predictions: what is painted, which frames are seen, that a person is learned once. Networks are tiny and untrained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from frustum.cli.head_swaps import HeadSwaps, parse_with
from frustum.engine.overrides import apply
from frustum.errors import ConfigError
from frustum.models.head_swap import HeadAligner, HeadSwapper, NoHeadError
from frustum.models.heser_fewshot import FewShot
from frustum.nn.head_regions import LABELS, REGIONS
from frustum.recipes.finding import get_recipe
from frustum.tasks.portraits import PortraitTask
from tests.data.portraits.test_crop import with_heads
from tests.models import test_heser_aligner, test_heser_blender, test_segmentation

SIDE = 32


def parse(image: np.ndarray) -> np.ndarray:
    return with_heads((14, 10, 12), size=image.shape[:2])


@pytest.fixture(params=[True, False], ids=["aligner draws parts", "parser finds parts"])
def swapper(request: pytest.FixtureRequest) -> HeadSwapper:
    torch.manual_seed(0)
    small = {**test_heser_aligner.SMALL, **test_heser_blender.SMALL}
    words = {"heser-aligner-mini": [f"model.draws_parts={request.param}".lower()], "heser-blender-mini": []}
    networks = [apply(get_recipe(name), small[name] + more).model.build() for name, more in words.items()]
    return HeadSwapper(*networks, parse)  # type: ignore[arg-type]


class Source:
    """Five frames of one person, and two swaps onto others; what was read is counted."""

    root = "heads"

    def __init__(self, side: int):
        self.side, self.read = side, []

    def source_frames(self, token: str) -> list[str]:
        return [f"frame{i}" for i in range(5)]

    def image(self, token: str) -> np.ndarray:
        self.read.append(token)
        return np.random.default_rng(sum(map(ord, token))).integers(0, 255, (self.side, self.side, 3), dtype=np.uint8)

    def parsing(self, token: str) -> np.ndarray:
        return with_heads((12, 12, 14), size=(self.side, self.side))


def test_a_swap_is_what_the_networks_make(swapper: HeadSwapper) -> None:
    source: Any = Source(swapper.heads.side)
    way, pasted = HeadSwaps(source, swapper), HeadSwaps(source, swapper, is_blended=False)
    part, found = way.answer("a").portrait, way.swapped("a")
    assert part is not None
    assert np.array_equal(part.image.permute(1, 2, 0).numpy(), found.image)
    assert np.array_equal(part.head.numpy(), found.parts > 0)  # type: ignore[union-attr]
    portrait, alone = source.image("a"), pasted.answer("a").portrait
    assert np.array_equal(found.image[~found.where], portrait[~found.where])
    shown = alone.image.permute(1, 2, 0).numpy()  # type: ignore[union-attr]
    head = alone.head.numpy()  # type: ignore[union-attr]
    assert np.array_equal(shown[~head], portrait[~head])
    assert np.array_equal(shown[head], found.aligned[head])
    assert (way.name, pasted.name, part.policy) == ("aligner and blender", "aligner, pasted", "region")
    truth = {name: found.image for name in ("source", "skin", "region", "")}
    task = PortraitTask(("a",))
    task.truth = lambda *_: SimpleNamespace(pictures=truth, parsing=found.parts, scene=portrait, scene_parsing=source.parsing("a"))  # type: ignore[method-assign, assignment, return-value]
    task.add("a", part, task.truth(source, "a"))
    assert task.compute()["psnr_head"] is None, "equal: infinite"


def test_parts_are_those_that_the_aligner_draws() -> None:
    torch.manual_seed(0)
    network = apply(get_recipe("heser-aligner-mini"), test_heser_aligner.SMALL["heser-aligner-mini"]).model.build()
    last = network.generator.mask_head["2"]  # type: ignore[index, union-attr]
    torch.nn.init.zeros_(last.weight)
    heads, source = HeadAligner(network, lambda image: pytest.fail("no parser is asked")), Source(SIDE)  # type: ignore[arg-type, return-value]
    learned = heads.learn([source.image("a")], [source.parsing("a")], FewShot(steps=0))._replace(aligner=heads.aligner)
    for region, ids in REGIONS.items():
        torch.nn.init.zeros_(last.bias)
        torch.nn.init.constant_(last.bias[LABELS[region]], 5.0)
        assert (heads.align(learned, source.image("b"), source.parsing("b"))[1] == ids[0]).all()


def test_the_aligner_sees_the_parts_of_the_target_and_of_the_frames(swapper: HeadSwapper) -> None:
    source: Any = Source(swapper.heads.side)
    maps = source.parsing
    first = HeadSwaps(source, swapper).swapped("a").aligned
    for changed in ("a", "frame2"):
        source.parsing = lambda token, changed=changed: with_heads((16, 16, 8), size=(SIDE, SIDE)) if token == changed else maps(token)
        assert not np.array_equal(HeadSwaps(source, swapper).swapped("a").aligned, first), changed
    source.parsing = lambda token: with_heads((16, 16, 8), size=(SIDE, SIDE)) if token == "b" else maps(token)
    assert np.array_equal(HeadSwaps(source, swapper).swapped("a").aligned, first)


def test_a_person_is_learned_once_from_the_frames_that_are_seen(swapper: HeadSwapper) -> None:
    source: Any = Source(swapper.heads.side)
    way = HeadSwaps(source, swapper, frames=3)
    for token in ("a", "b"):
        way.answer(token)
    assert [token for token in source.read if token.startswith("frame")] == ["frame0", "frame2", "frame4"]


def test_where_no_head_comes_out_the_portrait_stays(swapper: HeadSwapper) -> None:
    nothing = HeadSwapper(swapper.heads.aligner, swapper.blender, lambda image: np.zeros(image.shape[:2], np.uint8))
    last = nothing.heads.aligner.generator.mask_head["2"]  # type: ignore[index]
    torch.nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    torch.nn.init.constant_(last.bias[0], 9.0)  # type: ignore[index]  # with parts this is what is beside the head
    source: Any = Source(swapper.heads.side)
    way = HeadSwaps(source, nothing)
    part = way.answer("a").portrait
    assert part is not None
    assert np.array_equal(part.image.permute(1, 2, 0).numpy(), source.image("a"))
    assert not part.head.any()  # type: ignore[union-attr]
    assert way.failed == ["a"]
    with pytest.raises(NoHeadError, match="no head is found"):
        way.swapped("a")


def test_portraits_of_another_size_are_refused(swapper: HeadSwapper) -> None:
    source: Any = Source(2 * swapper.heads.side)
    with pytest.raises(
        ConfigError,
        match=rf"have {2 * swapper.heads.side} pixels, but the aligner makes {swapper.heads.side}\. .*--size {swapper.heads.side}",
    ):
        HeadSwaps(source, swapper).answer("a")


def test_a_parser_sees_any_square() -> None:
    torch.manual_seed(0)
    recipe = apply(get_recipe("face-parser"), [*test_segmentation.SMALL["face-parser"], "data.image_size=32,32"])
    look = parse_with(recipe, recipe.model.build().eval())
    for side in (24, 32, 61):
        found = look(np.random.default_rng(1).integers(0, 255, (side, side, 3), dtype=np.uint8))
        assert found.shape == (side, side)
        assert found.dtype == np.uint8
        assert found.max() < 19
