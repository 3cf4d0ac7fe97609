"""Balanced sets of people: as many of every skin tone with every look, so that a method's results can be told apart by corner."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from frustum.worlds.heads.draws import Look, draw_identity
from frustum.worlds.heads.person import Identity

TONES: dict[str, tuple[float, float]] = {"light skin": (0.0, 0.25), "medium skin": (0.4, 0.6), "dark skin": (0.78, 1.0)}
"""Ranges of the skin tone, 0 light .. 1 dark."""
_PLAIN = Look(age=0.2, style="short", glasses=False, beard=False, make_up=False, hat="")
LOOKS: dict[str, Look] = {
    "short hair": _PLAIN,
    "long hair": _PLAIN._replace(style="long"),
    "tight curls": _PLAIN._replace(style="afro"),
    "bald": _PLAIN._replace(style="bald"),
    "aged, white hair": _PLAIN._replace(age=0.95, hair="white"),
    "glasses": _PLAIN._replace(glasses=True),
    "beard": _PLAIN._replace(beard=True),
    "make-up": _PLAIN._replace(style="bob", make_up=True),
    "hat": _PLAIN._replace(hat="beanie"),
}
"""Most looks differ from the first in one thing; age brings white hair, make-up a longer cut."""


class Corner(NamedTuple):
    """A cell of the table: a key of TONES and a key of LOOKS."""

    tone: str
    look: str


CORNERS: tuple[Corner, ...] = tuple(Corner(tone, look) for look in LOOKS for tone in TONES)
"""All 27 cells. Any run of people that is a multiple of 27 long is balanced."""


def corner_identity(index: int, seed: int) -> tuple[Corner, Identity]:
    """Person `index` of a balanced set: corners take turns."""
    corner = CORNERS[index % len(CORNERS)]
    low, high = TONES[corner.tone]
    tone = float(np.random.default_rng([seed, 23]).uniform(low, high))
    return corner, draw_identity(seed, LOOKS[corner.look]._replace(tone=tone))
