"""WorldConfig: what a generated data set consists of."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field

from frustum.config import Config
from frustum.version import __version__
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.rigs import StreetRig

NUMBERS = {"train_scenes", "val_scenes"}
"""Settings that change no scene."""

_START = 1_600_000_000_000_000  # microseconds since 1970
_DAYS, _SLOT = 20_000, 8_640_000  # days for seeds; microseconds, 10000 to a day


class WorldConfig(Config):
    """A street world on disk. The defaults are the demo's: 140 training and 18 validation scenes of 5 keyframes at 96 x 256."""

    train_scenes: int = Field(140, ge=0, le=5000, description="scenes in the split `train`")
    val_scenes: int = Field(18, ge=0, le=5000, description="scenes in the split `val`, with layouts of their own")
    frames: int = Field(5, ge=1, description="keyframes per scene")
    rate: float = Field(2.0, gt=0, description="keyframes per second")
    image_size: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = Field(
        (96, 256), description="(height, width) in pixels; the rig's view is scaled to the width, the bottom is kept"
    )
    sweeps: int = Field(0, ge=0, description="LiDAR sweeps and camera frames between two keyframes")
    camera_spread: float = Field(0.0, ge=0, lt=0.4, description="seconds over which the cameras fire before the keyframe; 0 = all at once")
    annotation_range: float = Field(80.0, gt=0, description="metres from the ego vehicle within which objects are annotated")
    mask_neighbours: int = Field(4, ge=0, description="keyframes before and after whose LiDAR positions are accumulated for the masks")
    save: tuple[Literal["depth", "semantics", "instances"], ...] = Field((), description="exact per-pixel truth to write beside the images")
    jpeg_quality: int = Field(92, ge=1, le=100)
    seed: int = Field(0, ge=0)
    version: str = Field("v1.0-trainval", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the folder with the tables")
    rig: StreetRig = Field(default_factory=StreetRig.nuscenes)
    scene: SceneConfig = SceneConfig()

    @property
    def scene_prefix(self) -> str:
        """How the names of this world's scenes begin."""
        return f"street-{self.seed:03d}-"

    def scene_names(self) -> dict[str, list[str]]:
        """Scene names per split; `street_train` and `street_val` repeat the splits under names that the official devkit accepts."""
        train = [f"{self.scene_prefix}{i:04d}" for i in range(self.train_scenes)]
        val = [f"{self.scene_prefix}{5000 + i:04d}" for i in range(self.val_scenes)]
        return {"train": train, "val": val, "street_train": train, "street_val": val}

    def start_stamp(self, number: int) -> int:
        """Timestamp at which the clock of scene `number` (below 10000) starts, microseconds: a day per seed, a slot of it per scene.

        So the scenes of all worlds start at different times, and several worlds may share a data root: the devkit sorts scenes by start.
        """
        again, day = divmod(self.seed, _DAYS)  # after 54 years of seeds the same days come again, a millisecond later
        return _START + day * 86_400_000_000 + number * _SLOT + again * 1000 % _SLOT

    def fingerprint(self) -> str:
        """Changes whenever a scene's files would change; how many scenes there are does not matter."""
        text = __version__ + self.model_dump_json(exclude=NUMBERS)
        return hashlib.sha256(text.encode()).hexdigest()

    def scene_config(self) -> SceneConfig:
        """The scene's settings, long enough for all keyframes."""
        return self.scene.model_copy(update={"duration": max(1.0, self.camera_spread + (self.frames - 1) / self.rate + 0.5)})
