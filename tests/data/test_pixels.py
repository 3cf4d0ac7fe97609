"""Image transforms: the matrix is the published composition, and the pixels went where it says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from frustum.data.pixels import ImageTransform, jitter_colours, normalise, read_image
from frustum.errors import ConfigError, DataError
from tests.data.toy import coordinate_image


def composed(resize: float, crop: tuple[int, int], size: tuple[int, int], flip: bool, rotate_deg: float) -> np.ndarray:
    """post_rot and post_tran step by step, as FlashOCC's loader composes them."""
    height, width = size
    rotation, shift = np.eye(2) * resize, -np.array(crop, np.float64)
    if flip:
        mirror = np.diag([-1.0, 1.0])
        rotation, shift = mirror @ rotation, mirror @ shift + (width, 0)
    h = rotate_deg / 180 * math.pi
    turn = np.array([[math.cos(h), math.sin(h)], [-math.sin(h), math.cos(h)]])
    centre = turn @ (-width / 2, -height / 2) + (width / 2, height / 2)
    rotation, shift = turn @ rotation, turn @ shift + centre
    return np.block([[rotation, shift[:, None]], [0, 0, 1]])


def test_test_time_matrix_of_nuscenes() -> None:
    transform = ImageTransform.fit((900, 1600), (256, 704))
    assert transform.resized == (396, 704)
    np.testing.assert_allclose(transform.matrix(), [[0.44, 0, 0], [0, 0.44, -140], [0, 0, 1]], atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.38, 0.55), st.floats(0, 1), st.booleans(), st.floats(-5.4, 5.4))
def test_matrix_is_the_published_composition(scale: float, crop_w: float, flip: bool, rotate: float) -> None:
    transform = ImageTransform.scaled((900, 1600), (256, 704), scale, 0.0, crop_w, flip, rotate)
    reference = composed(scale, (transform.left, transform.top), (256, 704), flip, rotate)
    # The reference ignores that sizes are truncated to whole pixels: up to one pixel over the whole image.
    corners = np.array([[0, 0, 1], [1600, 0, 1], [0, 900, 1], [1600, 900, 1]]).T
    assert abs(transform.matrix() @ corners - reference @ corners).max() <= 1.5
    exact = composed(1.0, (transform.left, transform.top), (256, 704), flip, rotate)
    sizes = np.diag([transform.resized[1] / 1600, transform.resized[0] / 900, 1])
    np.testing.assert_allclose(transform.matrix(), exact @ sizes, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 1.3), st.floats(-0.3, 0.3), st.floats(0, 1), st.booleans(), st.just(0.0) | st.floats(-10, -0.5) | st.floats(0.5, 10))
@example(0.625, -0.25, 0.0, True, 0.5)
@example(1.0078125, -0.07421875, 0.0, False, 0.0)
def test_pixels_are_where_the_matrix_says(scale: float, crop_h: float, crop_w: float, flip: bool, rotate: float) -> None:
    source, size = (180, 320), (64, 176)
    transform = ImageTransform.scaled(source, size, scale, crop_h, crop_w, flip, rotate)
    result = np.asarray(transform.apply(Image.fromarray(coordinate_image(source)))).astype(float)
    assert result.shape == (*size, 3)
    rows, columns = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    back = np.linalg.inv(transform.matrix()) @ np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    u, v = back[:2].reshape(2, *size)
    margin = 4 / scale  # the bicubic filter mirrors nothing: values bend near the border
    inside = (u > margin) & (u < source[1] - margin) & (v > margin) & (v < source[0] - margin)
    upright = replace(transform, rotate_deg=0.0).matrix() @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    x, y = upright[:2].reshape(2, *size)
    inside &= (x > 1) & (x < size[1] - 1) & (y > 1) & (y < size[0] - 1)  # turning brings in black corners
    errors = [(result[..., 0] / 255 * source[1] - u)[inside], (result[..., 1] / 255 * source[0] - v)[inside]]
    for error, level in zip(errors, (320 / 255, 180 / 255), strict=True):
        assert abs(error).max(initial=0) < 2 * level  # rounded once when made and once or twice when resampled
        # no shift, not even of half a pixel (0.4 levels along rows, 0.7 across); but Pillow's bilinear filter truncates, half a level on
        # average where the turn brings pixels to all places between others, and 0.2 to 0.8 (measured) where a turn of half a degree moves
        # a few rows by a third of a pixel
        if min(len(np.unique(where)) for where in np.nonzero(inside)) > 30:  # of few rows rounding does not average out: all columns agree
            assert (-0.8 if rotate else -0.25) < error.mean() / level < 0.25
    outside = (u < -margin) | (u > source[1] + margin) | (v < -margin) | (v > source[0] + margin)
    assert result[outside].max(initial=0) == 0


def test_resampling_the_window_equals_resampling_the_image() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (90, 160, 3), dtype=np.uint8))
    for scale in (0.44, 0.5, 0.9, 1.2):
        transform = ImageTransform.scaled((90, 160), (30, 60), scale, crop_w=0.3)
        whole = image.resize(transform.resized[::-1], Image.Resampling.BICUBIC)
        window = whole.crop((transform.left, transform.top, transform.left + 60, transform.top + 30))
        assert abs(np.asarray(window).astype(int) - np.asarray(transform.apply(image))).max() <= 1


def test_an_image_that_fits_is_not_touched() -> None:
    image = Image.fromarray(coordinate_image((64, 176)))
    assert ImageTransform.fit((64, 176), (64, 176)).apply(image) is image
    np.testing.assert_array_equal(ImageTransform.fit((64, 176), (64, 176)).matrix(), np.eye(3))


@pytest.mark.parametrize("source", [(375, 1242), (370, 1226), (600, 400), (1080, 1920)])
def test_other_cameras_keep_the_bottom_and_the_full_width(source: tuple[int, int]) -> None:
    transform = ImageTransform.fit(source, (96, 256))
    matrix = transform.matrix()
    np.testing.assert_allclose(matrix @ (0, source[0], 1), (0, 96, 1), atol=1e-9)
    np.testing.assert_allclose(matrix @ (source[1], source[0], 1), (256, 96, 1), atol=1e-9)


def test_windows_beyond_the_image_are_black() -> None:
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    wide = ImageTransform.fit((20, 40), (30, 40))
    assert wide.top == -10
    pixels = np.asarray(wide.apply(image))
    assert pixels[:10].max() == 0
    assert pixels[10:].min() == 255
    away = ImageTransform((20, 40), (20, 40), (10, 10), left=100)
    assert np.asarray(away.apply(image)).max() == 0


def test_nonsense_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be scaled"):
        ImageTransform.scaled((90, 160), (30, 60), -0.1)


def test_normalisation_and_channel_orders() -> None:
    image = np.array([[[10, 20, 30]]], np.uint8)
    mean, std = (1.0, 2.0, 3.0), (2.0, 4.0, 8.0)
    np.testing.assert_allclose(normalise(image, mean, std)[:, 0, 0], [(10 - 1) / 2, (20 - 2) / 4, (30 - 3) / 8])
    np.testing.assert_allclose(normalise(image, mean, std, "bgr")[:, 0, 0], [(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8])
    assert normalise(np.zeros((2, 3, 8, 9, 3), np.uint8), mean, std).shape == (2, 3, 3, 8, 9)
    assert normalise(image, mean, std).dtype == np.float32


def test_colour_jitter() -> None:
    image = np.random.default_rng(0).integers(60, 120, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_allclose(jitter_colours(image, 1, 1, 1), image, atol=1e-3)
    np.testing.assert_allclose(jitter_colours(image, 1.5, 1, 1), image * 1.5, rtol=1e-5)
    grey = jitter_colours(image, 1, 1, 0)
    assert np.ptp(grey, axis=-1).max() < 1e-3
    assert np.ptp(jitter_colours(image, 1, 0, 0)) < 1e-3
    assert jitter_colours(image, 100, 1, 1).max() == 255


@pytest.mark.parametrize(("scale", "crop_w", "flip", "rotate"), [(0.5, 0.3, True, 0.0), (0.9, 0.8, False, 7.0), (2.3, 0.5, True, -12.0)])
def test_label_maps_take_the_nearest_pixel(scale: float, crop_w: float, flip: bool, rotate: float) -> None:
    """Each pixel of the output holds the id that the matrix says, and IGNORE where the source shows nothing."""
    source, size = (60, 90), (48, 64)
    ids = np.random.default_rng(0).integers(0, 30, (20, 30), dtype=np.uint8).repeat(3, 0).repeat(3, 1)  # blocks of 3 x 3
    transform = ImageTransform.scaled(source, size, scale, 0.0, crop_w, flip, rotate)
    moved = np.asarray(transform.apply(Image.fromarray(ids), ignore=255))
    assert moved.dtype == np.uint8
    assert set(np.unique(moved)) <= {*range(30), 255}
    rows, columns = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    back = np.linalg.inv(transform.matrix()) @ np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    u, v = back[:2].reshape(2, *size)
    margin = 1.1 / scale  # turning rounds once more
    inside = (u > margin) & (u < source[1] - margin) & (v > margin) & (v < source[0] - margin)
    upright = replace(transform, rotate_deg=0.0).matrix() @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    x, y = upright[:2].reshape(2, *size)
    inside &= (x > 1) & (x < size[1] - 1) & (y > 1) & (y < size[0] - 1)
    assert inside.sum() > 300

    def found(du: float, dv: float) -> np.ndarray:
        return ids[np.clip(v + dv, 0, 59).astype(int), np.clip(u + du, 0, 89).astype(int)]

    steps = (-margin, 0.0, margin)
    assert np.any([found(du, dv) == moved for du in steps for dv in steps], axis=0)[inside].all()
    assert (found(0, 0) == moved)[inside].mean() > (0.75 if rotate else 0.999)
    outside = (u < -margin) | (u > source[1] + margin) | (v < -margin) | (v > source[0] + margin)
    assert (moved[outside] == 255).all()


def test_label_maps_are_ignored_beyond_the_image() -> None:
    ids = Image.fromarray(np.full((10, 20), 3, np.uint8))
    low = ImageTransform((10, 20), (10, 20), (14, 20), top=-4)
    assert np.asarray(low.apply(ids, ignore=255))[:, 0].tolist() == [255] * 4 + [3] * 10
    away = ImageTransform((10, 20), (10, 20), (14, 20), left=30)
    assert (np.asarray(away.apply(ids, ignore=255)) == 255).all()


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "huge.png")
    assert read_image(tmp_path / "huge.png", lambda image: image.size) == (40, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # 1200 pixels are more than twice that
    with pytest.raises(DataError, match="cannot read the image"):
        read_image(tmp_path / "huge.png", lambda image: image.size)


def test_one_flipped_bit_of_a_png_is_noticed(tmp_path: Path) -> None:
    """Pillow alone reads most of them as other pixels: it does not look at the checksums of these."""
    path, rng = tmp_path / "a.png", np.random.default_rng(0)
    Image.fromarray(coordinate_image((9, 16))).save(path)
    sound, pixels = path.read_bytes(), read_image(path, np.asarray)
    for _ in range(100):
        data = bytearray(sound)
        data[rng.integers(8, len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot read the image"):
            read_image(path, np.asarray)
    path.write_bytes(sound + b"what some tools append")
    np.testing.assert_array_equal(read_image(path, np.asarray), pixels)
