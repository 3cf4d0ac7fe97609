import numpy as np
import pytest

from frustum.worlds.street.look import _MOODS, random_look


@pytest.mark.parametrize("seed", range(12))
def test_looks_are_physical(seed):
    look, mood = random_look(np.random.default_rng(seed), 7)
    assert np.linalg.norm(look.sun_direction) == pytest.approx(1)
    elevation = np.degrees(np.arcsin(look.sun_direction[2]))
    low, high = _MOODS[mood][1]
    assert low - 1e-6 <= elevation <= high + 1e-6
    for colour in (look.sun_colour, look.ambient, look.sky_zenith, look.sky_horizon):
        assert len(colour) == 3
        assert min(colour) > 0
    assert 0 < look.haze < 0.01
    assert 0 < look.noise < 0.03
    assert 0.5 < look.exposure < 2
    assert look.seed == 7


def test_all_moods_occur_and_suns_differ():
    looks = [random_look(np.random.default_rng(s), 0) for s in range(150)]
    assert {mood for _, mood in looks} == set(_MOODS)
    assert len({look.sun_direction for look, _ in looks}) == 150


def test_overcast_light_is_soft():
    by_mood = {mood: look for look, mood in (random_look(np.random.default_rng(s), 0) for s in range(150))}
    ratio = lambda look: sum(look.sun_colour) / sum(look.ambient)  # noqa: E731
    assert ratio(by_mood["overcast"]) < 1 < ratio(by_mood["noon"])
