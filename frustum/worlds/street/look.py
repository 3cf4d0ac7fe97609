"""Light, weather and camera response of a scene."""

from __future__ import annotations

import numpy as np

from frustum.worlds.street.types import Look

Colour = tuple[float, float, float]
Range = tuple[float, float]

# mood: weight, sun elevation (degrees), sun, ambient, zenith, horizon, haze (1/m)
_MOODS: dict[str, tuple[float, Range, Colour, Colour, Colour, Colour, Range]] = {
    "noon": (0.34, (42, 66), (2.30, 2.20, 2.00), (0.46, 0.54, 0.68), (0.16, 0.34, 0.72), (0.62, 0.76, 0.90), (0.0006, 0.0020)),
    "afternoon": (0.28, (24, 42), (2.45, 2.10, 1.60), (0.42, 0.48, 0.60), (0.20, 0.36, 0.68), (0.78, 0.80, 0.82), (0.0010, 0.0030)),
    "evening": (0.12, (11, 22), (2.40, 1.55, 0.85), (0.38, 0.40, 0.54), (0.22, 0.30, 0.56), (0.95, 0.72, 0.50), (0.0015, 0.0040)),
    "overcast": (0.18, (35, 60), (0.55, 0.55, 0.55), (1.05, 1.08, 1.12), (0.58, 0.63, 0.70), (0.80, 0.82, 0.84), (0.0020, 0.0050)),
    "hazy": (0.08, (28, 50), (1.30, 1.22, 1.05), (0.80, 0.82, 0.84), (0.52, 0.62, 0.74), (0.86, 0.86, 0.84), (0.0050, 0.0090)),
}


def random_look(rng: np.random.Generator, seed: int) -> tuple[Look, str]:
    """A look and the name of its mood; every value also varies a little within the mood."""
    names = list(_MOODS)
    weights = np.array([_MOODS[n][0] for n in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    _, elevation, sun, ambient, zenith, horizon, haze = _MOODS[name]
    up, around = np.radians(rng.uniform(*elevation)), rng.uniform(0, 2 * np.pi)

    def vary(colour: Colour, spread: float) -> Colour:
        r, g, b = np.asarray(colour) * rng.normal(1, spread, 3).clip(0.8, 1.2) * rng.uniform(0.92, 1.08)
        return float(r), float(g), float(b)

    look = Look(
        sun_direction=(float(np.cos(up) * np.cos(around)), float(np.cos(up) * np.sin(around)), float(np.sin(up))),
        sun_colour=vary(sun, 0.03),
        ambient=vary(ambient, 0.03),
        sky_zenith=vary(zenith, 0.05),
        sky_horizon=vary(horizon, 0.04),
        haze=float(rng.uniform(*haze)),
        exposure=float(rng.uniform(0.85, 1.15)),
        noise=float(rng.uniform(0.004, 0.016)),
        seed=seed,
    )
    return look, name
