"""Crops of heads: where they lie, there and back, and what is said of images without a usable head."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.portraits.crop import PORTRAIT, Crop, FaceBox, crop_around, face_box
from frustum.errors import DataError

RNG = np.random.default_rng(0)


def with_heads(*places: tuple[int, int, int], size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A map with heads: (top, left, side) of a face of skin with eyes below hair that is a third as high."""
    parsing = np.zeros(size, np.uint8)
    for top, left, side in places:
        parsing[top : top + side, left : left + side] = 1
        parsing[top + side // 3, left + side // 4], parsing[top + side // 3, left + 3 * side // 4] = 5, 4
        parsing[top - side // 3 : top, left : left + side] = 17
    return parsing


def test_the_face_is_found() -> None:
    box = face_box(with_heads((40, 60, 30), (100, 10, 8)))
    assert box.x == pytest.approx(75)
    assert box.y == pytest.approx(55, abs=0.6)
    assert box.height == pytest.approx(30, abs=1)
    crop = crop_around(box)
    assert crop.side == pytest.approx(30 / PORTRAIT.height, abs=2)
    again = face_box(crop.cut(np.repeat(with_heads((40, 60, 30))[..., None], 3, 2), crop.side)[..., 0])
    assert (again.x / crop.side, again.y / crop.side) == pytest.approx((PORTRAIT.x, PORTRAIT.y), abs=0.02)


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="no head is found in photo"):
        face_box(np.zeros((60, 60), np.uint8), "photo")
    with pytest.raises(DataError, match="no head is found"):
        face_box(with_heads((40, 60, 2)))
    with pytest.raises(DataError, match="two heads are found"):
        face_box(with_heads((40, 10, 30), (40, 90, 26)))
    hair = np.zeros((60, 60), np.uint8)
    hair[10:40, 10:40] = 17
    with pytest.raises(DataError, match="seen from behind"):
        face_box(hair)


def test_a_crop_of_its_own_size_is_the_image() -> None:
    image = RNG.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert np.array_equal(Crop(10, 5, 30).cut(image, 30), image[5:35, 10:40])
    beyond = Crop(-5, -8, 40).cut(image, 40)
    assert np.array_equal(beyond[8:, 5:], image[:32, :35])
    assert (beyond[:8, 5:] == image[0, :35]).all()


def test_there_and_back() -> None:
    """What is not painted stays to the bit; inside, far from the border, the portrait is there; the border lies between."""
    image = RNG.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for crop in (Crop(10, 5, 32), Crop(-6, 30, 32), Crop(50, -4, 32)):
        where = np.zeros((32, 32), bool)
        where[6:28, 5:29] = True
        made = crop.paste(image, np.full((32, 32, 3), 200, np.uint8), where, feather=1.0)
        whole = np.zeros((130, 150), bool)
        whole[40 + crop.top + 6 : 40 + crop.top + 28, 40 + crop.left + 5 : 40 + crop.left + 29] = True
        inside = whole[40:90, 40:110]
        assert np.array_equal(made[~inside], image[~inside])
        deep = np.zeros_like(whole)
        deep[40 + crop.top + 11 : 40 + crop.top + 23, 40 + crop.left + 10 : 40 + crop.left + 24] = True
        assert (made[deep[40:90, 40:110]] == 200).all()
    smooth = np.broadcast_to(np.linspace(0, 255, 70)[None, :, None], (50, 70, 3)).astype(np.uint8)
    crop = Crop(8, 4, 40)
    back = crop.paste(smooth, crop.cut(smooth, 20), np.ones((20, 20), bool))
    assert np.abs(back.astype(int) - smooth).max() <= 4


def test_generated_portraits_are_like_the_standard() -> None:
    from frustum.worlds.heads.draws import draw_identity, draw_motion, draw_scene
    from frustum.worlds.heads.render import render

    found = []
    for seed in range(8):
        person = draw_identity(seed)
        found.append(face_box(render(person, draw_motion(seed), draw_scene(seed, person), 64).parsing))
    mean = FaceBox(*(np.mean(values) / 64 for values in zip(*found, strict=True)))
    assert mean == pytest.approx(PORTRAIT, abs=0.06)
