"""Settings of a street scene."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from frustum.config import Config

LayoutStyle = Literal["any", "downtown", "suburb", "park", "industrial"]


class SceneConfig(Config):
    """What a scene should be like; everything else follows from the seed."""

    duration: float = Field(20.0, ge=1.0, le=60.0, description="seconds that the ego vehicle drives")
    style: LayoutStyle = Field("any", description="kind of district; 'any' draws one from the seed")
    density: float = Field(1.0, ge=0.0, le=2.0, description="traffic and people relative to the default of roughly 60 actors")
    greenery: float = Field(1.0, ge=0.0, le=2.0, description="trees and bushes relative to the default")
    hilliness: float = Field(1.0, ge=0.0, le=1.2, description="1 allows grades up to about 5 %, 0 is a flat world")
    tilt: float = Field(1.0, ge=0.0, le=2.0, description="scale of the ego vehicle's own pitch and roll (load and braking)")
    ego_speed: tuple[float, float] = Field((3.0, 12.0), description="range of the ego vehicle's speed, m/s")
    margin: float = Field(62.0, ge=45.0, le=90.0, description="metres of world around the ego path")
