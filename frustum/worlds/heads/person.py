"""Who a head belongs to: shape, colours, hair and what it wears, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

Colour = tuple[float, float, float]
"""RGB in 0..1, as on a screen (sRGB)."""


class Shape(NamedTuple):
    """The form of a head. Factors are 1 for the standard head, the others are 0 for it.

    Attributes:
        width, height, depth: factors of the skull.
        face_length: factor of everything below the eyes.
        jaw_width: factor at the jaw's height.
        chin: how far the chin juts out, centimetres.
        cheekbones, fullness: centimetres of bone, and of flesh below it.
        brow_ridge: centimetres.
        eye_spacing, eye_width, eye_height: factors. eye_tilt: centimetres that the outer corner is above the inner one.
        nose_length, nose_width, nose_height: factors. nose_bridge: centimetres of a bump (a dent below 0).
        mouth_width, upper_lip, lower_lip: factors.
        ears: factor.
        brow_thickness: factor. brow_arch, brow_height: centimetres.
        age: 0 smooth skin .. 1 deep wrinkles.
    """

    width: float = 1.0
    height: float = 1.0
    depth: float = 1.0
    face_length: float = 1.0
    jaw_width: float = 1.0
    chin: float = 0.0
    cheekbones: float = 0.0
    fullness: float = 0.0
    brow_ridge: float = 0.0
    eye_spacing: float = 1.0
    eye_width: float = 1.0
    eye_height: float = 1.0
    eye_tilt: float = 0.0
    nose_length: float = 1.0
    nose_width: float = 1.0
    nose_height: float = 1.0
    nose_bridge: float = 0.0
    mouth_width: float = 1.0
    upper_lip: float = 1.0
    lower_lip: float = 1.0
    ears: float = 1.0
    brow_thickness: float = 1.0
    brow_arch: float = 0.0
    brow_height: float = 0.0
    age: float = 0.0


class Paint(NamedTuple):
    """Colours (sRGB) and strengths (0..1) of a head. `lens` is how dark the glasses are; `seed` makes the skin's texture."""

    skin: Colour = (0.55, 0.30, 0.20)
    lip: Colour = (0.45, 0.13, 0.11)
    iris: Colour = (0.10, 0.16, 0.22)
    brow: Colour = (0.05, 0.03, 0.02)
    hair: Colour = (0.06, 0.03, 0.02)
    beard: Colour = (0.05, 0.03, 0.02)
    hat: Colour = (0.2, 0.05, 0.05)
    frame: Colour = (0.02, 0.02, 0.02)
    metal: Colour = (0.8, 0.6, 0.3)
    eyeshadow: Colour = (0.2, 0.1, 0.2)
    shadow_strength: float = 0.0
    liner: float = 0.0
    lipstick: float = 0.0
    blush: float = 0.0
    freckles: float = 0.0
    stubble: float = 0.0
    redness: float = 0.4
    oil: float = 0.3
    has_hair: float = 1.0
    lens: float = 0.0
    seed: float = 0.0


class HairStyle(NamedTuple):
    """How hair is worn.

    Attributes:
        length, volume: centimetres; no hair at length 0.
        curl: 0 straight .. 1 tight curls.
        fringe: 0 none .. 1 the forehead is covered.
        part: X of the parting, centimetres. back: 0 falls to the sides .. 1 combed back.
        recession: centimetres that the hairline moved up. bald: 0 .. 1 the crown is bare.
        bun: 0 or 1, tied up on the crown.
        seed: of the locks.
    """

    length: float = 6.0
    volume: float = 1.0
    curl: float = 0.0
    fringe: float = 0.0
    part: float = -2.0
    back: float = 0.2
    recession: float = 0.0
    bald: float = 0.0
    bun: float = 0.0
    seed: int = 0


HATS = ("beanie", "cap", "brim")


class Glasses(NamedTuple):
    """A pair of glasses: 0 square .. 1 round, a factor of the lenses' size, and the frame's thickness in centimetres."""

    roundness: float = 0.6
    size: float = 1.0
    thickness: float = 0.28


@dataclass(frozen=True)
class Identity:
    """Whose head it is.

    Attributes:
        shape, paint, hair: see their types.
        beard: length, centimetres; 0 for none (stubble is painted).
        hat: "", "beanie", "cap" or "brim".
        glasses: None without.
        earring: radius of the hoops, centimetres; 0 for none.
    """

    shape: Shape = field(default_factory=Shape)
    paint: Paint = field(default_factory=Paint)
    hair: HairStyle = field(default_factory=HairStyle)
    beard: float = 0.0
    hat: str = ""
    glasses: Glasses | None = None
    earring: float = 0.0

    @property
    def hat_rim(self) -> float | None:
        """Height of the hat's rim on the standard head, None without a hat."""
        return {"beanie": 2.2, "cap": 3.2, "brim": 3.0}.get(self.hat)
