"""Marks: what is written is read, after JPEG, halving and both; unmarked images have none; nobody sees it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from frustum.data.portraits.marks import find_mark, with_label, with_mark
from frustum.errors import DataError
from frustum.worlds.heads.draws import draw_identity, draw_motion, draw_scene
from frustum.worlds.heads.render import render


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    people = [draw_identity(seed) for seed in range(3)]
    return [render(person, draw_motion(seed), draw_scene(seed, person), 256).image for seed, person in enumerate(people)]


def jpeg(image: np.ndarray, quality: int = 75) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def halved(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2), Image.Resampling.LANCZOS))


def test_it_survives_jpeg_and_halving(heads):
    for number, image in enumerate(heads):
        marked = with_mark(image, 3_000_000_000 + number)
        for seen in (marked, jpeg(marked), halved(marked), halved(jpeg(marked)), jpeg(halved(marked))):
            assert find_mark(seen) == 3_000_000_000 + number
        assert find_mark(image) is None
        assert find_mark(jpeg(image)) is None


def test_it_is_hardly_seen(heads):
    for image in heads:
        difference = with_mark(image, 7).astype(float) - image
        assert np.mean(difference**2) < 1, "48 dB"
        assert np.abs(difference).max() <= 6


def test_other_shapes(heads):
    """Wide, tall and small ones, and one that is white for the most part."""
    white = np.full((96, 160, 3), 255, np.uint8)
    white[30:60, 40:90] = heads[0][100:130, 100:150]
    for image in (heads[0][:, 40:200], heads[1][60:200], halved(heads[2]), white):
        assert find_mark(with_mark(image, 12345)) == 12345
        assert find_mark(jpeg(with_mark(image, 12345))) == 12345
    with pytest.raises(DataError, match="cannot be marked"):
        with_mark(heads[0][:95], 1)
    assert find_mark(heads[0][:20, :20]) is None


def test_the_label_is_in_the_corner(heads):
    made = with_label(heads[0])
    changed = (made != heads[0]).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 220
    assert columns.max() < 140
    assert made[changed].max() > 200
    assert find_mark(with_mark(made, 99)) == 99
