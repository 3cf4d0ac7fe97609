"""The lattice that blacks out parts of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frustum.data.augment import draw, draw_bev, draw_image
from frustum.data.grid_mask import draw_grid_mask, grid_mask
from frustum.data.labels.depth import DepthLabels
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.pipeline import RigPipeline
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError
from frustum.types.contract import Reads
from tests.data.toy import VERSION


def painted(size: tuple[int, int], period: int, start: tuple[int, int]) -> np.ndarray:
    """Bar by bar on the larger canvas."""
    rows, columns = int(1.5 * size[0]), int(1.5 * size[1])
    canvas, width = np.zeros((rows, columns), bool), min(max(int(period * 0.5 + 0.5), 1), period - 1)
    for i in range(rows // period):
        canvas[start[0] + i * period : start[0] + i * period + width] = True
    for i in range(columns // period):
        canvas[:, start[1] + i * period : start[1] + i * period + width] = True
    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    return canvas[top : top + size[0], left : left + size[1]]


def test_bars_are_where_they_are_painted():
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = int(rng.integers(3, 40)), int(rng.integers(3, 60))
        period = int(rng.integers(2, size[0]))
        start = int(rng.integers(period)), int(rng.integers(period))
        found = grid_mask(size, period, start)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, painted(size, period, start))


def test_a_mask_of_the_reference(shared):
    path = shared / "golden/3dppe/misc.npz"
    if not path.is_file():
        pytest.skip("no golden numbers of 3DPPE")
    numbers = np.random.RandomState(11)
    numbers.rand()  # whether there is a mask at all
    period = numbers.randint(2, 64)
    start = numbers.randint(period), numbers.randint(period)
    with np.load(path) as misc:
        expected = np.unpackbits(misc["gridmask_s11"]).reshape(64, 160).astype(bool)
    np.testing.assert_array_equal(grid_mask((64, 160), period, start), expected)


def test_draws():
    """As often as asked for, one in four pixels black, and the same from the same generator."""
    masks = [draw_grid_mask(np.random.default_rng(seed), (64, 160)) for seed in range(400)]
    used = [mask for mask in masks if mask is not None]
    assert len(used) / len(masks) == pytest.approx(0.7, abs=0.06)
    assert np.mean([mask.mean() for mask in used]) == pytest.approx(0.75, abs=0.05)
    assert len({mask.tobytes() for mask in used}) > 0.9 * len(used)
    again = draw_grid_mask(np.random.default_rng(5), (64, 160), probability=1)
    np.testing.assert_array_equal(again, draw_grid_mask(np.random.default_rng(5), (64, 160), probability=1))
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    assert draw_grid_mask(rng, (64, 160), probability=0) is None
    assert draw_grid_mask(other, (64, 160), probability=1) is not None
    assert rng.random() == other.random(), "what is drawn next does not depend on it"


@pytest.mark.parametrize(("size", "probability"), [((2, 9), 0.5), ((9, 9), 1.5), ((9, 9), -0.1)])
def test_impossible_masks_are_refused(size, probability):
    with pytest.raises(ConfigError, match="a grid mask needs"):
        draw_grid_mask(np.random.default_rng(0), size, probability)


STILL = {"resize": (0.0, 0.0), "rotate_deg": (0.0, 0.0), "flip": False}


@pytest.mark.parametrize("moves", [{}, STILL], ids=["moving", "still"])
@pytest.mark.parametrize("seed", range(3))
def test_in_training_it_hides_images_and_depth_of_the_whole_sample(toy_root: Path, moves: dict[str, Any], seed: int) -> None:
    """All cameras and times have the same mask, and where it hides them the mean colour and no depth; the rest is as without it."""
    reader = NuScenes(toy_root, VERSION)
    token, data = reader.tokens("train")[2], NuScenesData(image_size=(64, 176))
    masked, plain = (AugmentConfig(grid_mask=p, **moves) for p in (1.0, 0.0))

    def item(augment: AugmentConfig, training: bool = True) -> dict[str, Any]:
        return RigPipeline(data, Reads(past=1), (DepthLabels(),), augment, training)(reader, token, np.random.default_rng(seed))

    found, whole = item(masked), item(plain)
    kept = draw(masked, np.random.default_rng(seed), [(90, 160)] * 2, (64, 176)).kept
    assert kept is not None
    assert 0.1 < (~kept).mean() < 0.6
    images, expected = found["images"].numpy(), whole["images"].numpy()
    assert images.shape == (2, 2, 3, 64, 176)
    assert not images[..., ~kept].any()
    np.testing.assert_array_equal(images[..., kept], expected[..., kept])
    assert np.abs(expected[..., ~kept]).max() > 0.5
    (depth,), (full,) = found["labels"], whole["labels"]
    assert (full[:, ~kept] > 0).any()
    assert not depth[:, ~kept].any()
    np.testing.assert_array_equal(depth[:, kept], full[:, kept])
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(item(masked, training=False)["images"], item(plain, training=False)["images"])


def test_without_it_nothing_is_drawn() -> None:
    """Recipes without it draw what they drew before it was there."""
    rng, other = np.random.default_rng(4), np.random.default_rng(4)
    assert draw(AugmentConfig(), rng, [(90, 160)], (64, 176)).kept is None
    draw_image(AugmentConfig(), other, (90, 160), (64, 176))
    draw_bev(AugmentConfig(), other)
    assert rng.bit_generator.state == other.bit_generator.state
    sizes, augment = [(90, 160)] * 2, AugmentConfig(grid_mask=0.7)
    share = np.mean([draw(augment, np.random.default_rng(s), sizes, (64, 176)).kept is not None for s in range(400)])
    assert 0.6 < share < 0.8
    assert draw(augment, None, sizes, (64, 176)).kept is None
