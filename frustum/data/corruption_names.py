"""Names of the image corruptions and their levels, for recipes; data/corruptions.py makes them. This module imports nothing heavy."""

from __future__ import annotations

from typing import NamedTuple

from frustum.errors import ConfigError, nearest_names

LEVELS = {1: "easy", 2: "mid", 3: "hard"}
OF_RIGS = ("camera_crash", "frame_lost")
"""Those in which cameras of a rig fail; single images do not have them."""
CORRUPTIONS = ("brightness", "dark", "fog", "motion_blur", "snow", "colour_quant", *OF_RIGS)


class Corruption(NamedTuple):
    """What is done to images, and how much of it. As text `fog:3`."""

    name: str
    level: int

    def __str__(self) -> str:
        return f"{self.name}:{self.level}"

    @classmethod
    def parse(cls, text: str) -> Corruption:
        """`fog:3`, in lower case. Raises ConfigError for an unknown name, with the nearest ones, or a level other than 1, 2 and 3."""
        name, _, level = text.partition(":")
        check_name(name)
        if level not in map(str, LEVELS):
            said = ", ".join(f"{number} ({word})" for number, word in LEVELS.items())
            raise ConfigError(f"{text!r} has the level {level!r}, but the levels are {said}. Write {name}:3.")
        return cls(name, int(level))


def check_name(name: str) -> None:
    """Raise ConfigError unless this is the name of a corruption."""
    if name not in CORRUPTIONS:
        raise ConfigError(f"there is no corruption {name!r}; {nearest_names(name, CORRUPTIONS)} They are written with a level, as fog:3.")
