"""Sky pictures, the tone curve and the procedural textures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from frustum.worlds.street.kernels_shade import look_up_sky
from frustum.worlds.street.kernels_texture import hash2, hash3, smooth_noise, surface_tone
from frustum.worlds.street.materials import TEXTURES
from frustum.worlds.street.sky import SKY_SIZE, TONE_SCALE, TONE_SIZE, draw_sky, draw_tone
from tests.worlds.street.street_samples import LOOK


def test_sky_is_brightest_at_the_sun_and_blue_above():
    sky = draw_sky(LOOK)
    assert sky.shape == (SKY_SIZE, SKY_SIZE, 3)
    assert sky.dtype == np.float32
    assert np.isfinite(sky).all()
    assert (sky >= 0).all()
    sun = np.array(look_up_sky(sky, *LOOK.sun_direction))
    away = np.array(look_up_sky(sky, -LOOK.sun_direction[0], -LOOK.sun_direction[1], LOOK.sun_direction[2]))
    assert sun.mean() > 2 * away.mean()
    horizon = np.array(look_up_sky(sky, -0.8, -0.6, 0.01))
    np.testing.assert_allclose(horizon, LOOK.sky_horizon, rtol=0.25)  # clouds end above it


def test_sky_below_the_horizon_is_the_horizons():
    sky = draw_sky(LOOK)
    for angle in np.linspace(0, 6, 9):
        level = np.array(look_up_sky(sky, np.cos(angle), np.sin(angle), 0.0))
        below = np.array(look_up_sky(sky, 0.8 * np.cos(angle), 0.8 * np.sin(angle), -0.6))
        np.testing.assert_allclose(level, below, rtol=0.1, atol=0.02)


def test_sky_follows_its_seed():
    np.testing.assert_array_equal(draw_sky(LOOK), draw_sky(LOOK))
    assert (draw_sky(LOOK) != draw_sky(replace(LOOK, seed=6))).any()


def test_tone_curve():
    tone = draw_tone()
    assert tone.shape == (TONE_SIZE,)
    assert tone[0] == 0
    assert (np.diff(tone) >= 0).all()
    assert tone[-1] <= 255
    assert np.diff(tone).max() < 2  # no visible steps in the shadows
    grey = tone[int(np.sqrt(0.18) * TONE_SCALE)]
    assert 80 < grey < 160


def test_hashes_are_even_and_repeat():
    values = np.array([hash2(i, j) for i in range(-60, 60) for j in range(-40, 40)])
    assert ((values >= 0) & (values < 1)).all()
    assert values.mean() == pytest.approx(0.5, abs=0.02)
    assert np.histogram(values, 10, (0, 1))[0].min() > 0.07 * len(values)
    deep = np.array([hash3(i, j, k) for i in range(20) for j in range(20) for k in range(20)])
    assert deep.mean() == pytest.approx(0.5, abs=0.02)
    assert hash3(3, -4, 5) == hash3(3, -4, 5)
    grid = values.reshape(120, 80)
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.1  # neighbours are independent


def test_smooth_noise_is_continuous_and_meets_the_hash_at_corners():
    for i, j in ((0, 0), (-3, 5), (100, -7)):
        assert smooth_noise(float(i), float(j)) == pytest.approx(hash2(i, j))
    line = np.array([smooth_noise(x, 0.3) for x in np.linspace(-2, 3, 2001)])
    assert np.abs(np.diff(line)).max() < 0.01
    assert ((line >= 0) & (line <= 1)).all()


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_keep_the_mean_brightness_near_and_far(name):
    """Detail must fade into its own mean, or a surface would change colour with distance."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-40, 40, (3000, 2))

    def tones(foot: float) -> np.ndarray:
        return np.array([surface_tone(TEXTURES.index(name), a, b, foot, 4)[0] for a, b in places])

    near, far = tones(0.002), tones(2.0)
    assert near.mean() == pytest.approx(1.0, abs=0.16)
    assert far.mean() == pytest.approx(near.mean(), abs=0.09)
    assert far.std() <= near.std() + 0.01
    assert near.min() > 0.2
    assert near.max() < 1.8
