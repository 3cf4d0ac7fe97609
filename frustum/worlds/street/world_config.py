"""WorldConfig: what a generated data set consists of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field

import frustum
from frustum.config import Config
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.rigs import StreetRig


class WorldConfig(Config):
    """A street world on disk. The defaults are the demo's: 20 training and 6 validation scenes of 15 keyframes at 96 x 256."""

    train_scenes: int = Field(20, ge=0, description="scenes in the split `train`")
    val_scenes: int = Field(6, ge=0, description="scenes in the split `val`, with layouts of their own")
    frames: int = Field(15, ge=1, description="keyframes per scene")
    rate: float = Field(2.0, gt=0, description="keyframes per second")
    image_size: tuple[int, int] = Field(
        (96, 256), description="(height, width) in pixels; the rig's view is scaled to the width, the bottom is kept"
    )
    sweeps: int = Field(0, ge=0, description="LiDAR sweeps and camera frames between two keyframes")
    camera_spread: float = Field(0.0, ge=0, lt=0.4, description="seconds over which the cameras fire before the keyframe; 0 = all at once")
    annotation_range: float = Field(80.0, gt=0, description="metres from the ego vehicle within which objects are annotated")
    mask_neighbours: int = Field(4, ge=0, description="keyframes before and after whose LiDAR positions are accumulated for the masks")
    save: tuple[Literal["depth", "semantics", "instances"], ...] = Field((), description="exact per-pixel truth to write beside the images")
    jpeg_quality: int = Field(92, ge=1, le=100)
    seed: int = Field(0, ge=0)
    version: str = "v1.0-trainval"
    rig: StreetRig = Field(default_factory=StreetRig.nuscenes)
    scene: SceneConfig = SceneConfig()

    def scene_names(self) -> dict[str, list[str]]:
        """Scene names per split; `street_train` and `street_val` repeat the splits under names that the official devkit accepts."""
        train = [f"street-{self.seed:03d}-{i:04d}" for i in range(self.train_scenes)]
        val = [f"street-{self.seed:03d}-{5000 + i:04d}" for i in range(self.val_scenes)]
        return {"train": train, "val": val, "street_train": train, "street_val": val}

    def fingerprint(self) -> str:
        """Changes whenever a scene's files would change; how many scenes there are does not matter."""
        text = frustum.__version__ + self.model_dump_json(exclude={"train_scenes", "val_scenes"})
        return hashlib.sha256(text.encode()).hexdigest()

    def scene_config(self) -> SceneConfig:
        """The scene's settings, long enough for all keyframes."""
        return self.scene.model_copy(update={"duration": max(1.0, (self.frames - 1) / self.rate + 0.5)})

    @staticmethod
    def with_rig_file(path: Path | None) -> StreetRig:
        """nuScenes' rig, or the one in `path`."""
        return StreetRig.nuscenes() if path is None else StreetRig.from_json(path)
