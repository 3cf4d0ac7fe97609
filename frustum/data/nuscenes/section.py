"""The `data` section of rigs of cameras in the nuScenes format: real, generated or imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from frustum.config import TRAVELS
from frustum.data.source import AugmentConfig, DataConfig, RigSource, spread
from frustum.types.contract import Label, Reads

if TYPE_CHECKING:
    import numpy as np

    from frustum.data.nuscenes.reader import NuScenes
    from frustum.data.pipeline import RigPipeline
    from frustum.data.sample import Sample
    from frustum.types.layers import Calibration

_LAYOUT = {"version": "v1.0-trainval", "train_split": "train", "val_split": "val"}


class NuScenesData(DataConfig):
    """Keyframes of camera rigs. Past keyframes and labels are loaded as the model declares them."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {name: {"root": f"data/{name}", **_LAYOUT} for name in ("street", "nuscenes", "kitti")}

    root: str = Field("data/nuscenes", description="folder that holds <version>/*.json and samples/")
    version: str = Field("v1.0-trainval", description="name of the folder with the tables")
    cameras: tuple[str, ...] | None = Field(None, description="camera channels in order; None takes all, FlashOCC's order first")
    map_frame: Annotated[Literal["lidar", "camera0"], TRAVELS] = Field(
        "lidar", description="ego pose of the network's map: the keyframe's, or as published FlashOCC the one at the first camera's time"
    )
    class_balanced: bool = Field(
        False, description="in training, repeat keyframes so that every class comes in as many of them (CBGS); an epoch becomes longer"
    )

    labelled_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the training split whose voxel and map labels are learned from; those of the rest are hidden",
    )
    labelled_by: Literal["scene", "keyframe"] = Field("scene", description="what labelled_share is a share of")
    labelled_seed: int = Field(0, description="draws them; of one seed, a larger share holds a smaller one")
    labelled_only: bool = Field(False, description="train on the keyframes alone whose voxel and map labels are not hidden")
    labelled_repeat: int = Field(1, ge=1, description="how often a pass goes over keyframes with labels, where those of others are hidden")

    @model_validator(mode="after")
    def _repeats(self) -> NuScenesData:
        if self.labelled_repeat > 1 and (self.labelled_share == 1 or self.labelled_only):
            raise ValueError(
                "labelled_repeat says how often keyframes with labels come in beside those whose labels are hidden, of which there are "
                "none: set labelled_share below 1 and labelled_only=false, or labelled_repeat=1"
            )
        return self

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Settings of the first version: what to load is now declared by the model."""
        return {name: value for name, value in stored.items() if name not in ("history", "load_depth", "load_boxes")}

    def open(self) -> NuScenes:
        """The data set. Raises DataError for a wrong root, version or camera."""
        from frustum.data.nuscenes.reader import NuScenes

        found = NuScenes(self.root, self.version, self.cameras)
        if self.labelled_share < 1:
            found.hide_labels(self.train_split, self.labelled_share, self.labelled_seed, self.labelled_by)
        return found

    def training_tokens(self, source: NuScenes, seed: int) -> list[str]:
        """See `DataConfig.training_tokens`, and `class_balanced`. Raises DataError if that is set and there are no boxes."""
        from frustum.data.nuscenes.balance import balanced_positions

        tokens = super().training_tokens(source, seed)
        if self.labelled_share < 1:
            times = {True: 0 if self.labelled_only else 1, False: self.labelled_repeat}
            tokens = [token for token in tokens for _ in range(times[source.hides_labels(token)])]
        return [tokens[i] for i in balanced_positions(source.class_counts(tokens) > 0, seed)] if self.class_balanced else tokens

    def measured(self, source: NuScenes, augment: AugmentConfig) -> AugmentConfig:
        """With the share of the network's images above the horizon in training, where it is not stated; of imported rigs none is known."""
        import numpy as np

        from frustum.data.framing import framings

        tokens = spread(source.tokens(self.train_split), 20)
        samples = [source.sample(token, with_boxes=False, occupancy=False) for token in tokens]
        found = framings((camera for sample in samples for camera in sample.cameras), augment, self.image_size)
        shares = [one.share for one in found if one.share is not None and not one.is_placed]
        if augment.horizon is not None or not shares:
            return augment
        return augment.model_copy(update={"horizon": float(np.clip(np.median(shares), 0, 1).round(3))})

    def lacking(self, source: NuScenes, tokens: Sequence[str]) -> list[str]:
        """See `DataConfig.lacking`: files that are marked as invalid, and cameras that keyframes do not have."""
        from frustum.data.nuscenes.lacking import lacking

        return lacking(source, tokens)

    def rig_of(self, source: NuScenes) -> list[dict[str, Any]]:
        """See `DataConfig.rig_of`; those of the first training keyframe."""
        from frustum.data.rig.likeness import described

        return described(source.sample(source.tokens(self.train_split)[0], with_boxes=False, occupancy=False).cameras)

    def pipeline(self, reads: Reads, labels: Sequence[Label[Any]], augment: AugmentConfig, training: bool) -> RigPipeline:
        """See `DataConfig.pipeline`. Raises ConfigError when a flip of the ego frame does not fit the grid of a label."""
        from frustum.data.pipeline import RigPipeline

        return RigPipeline(self, reads, tuple(labels), augment, training)

    def open_sample(self, source: RigSource, token: str, reads: Reads) -> Sample:
        """One keyframe and its past, without boxes and voxel labels. Raises DataError for camera sweeps that are not there."""
        from frustum.data.sweeps import read_with_past

        return read_with_past(source, token, reads)

    def show(self, source: NuScenes, token: str) -> list[tuple[str, np.ndarray]]:
        """The images of all cameras, by channel."""
        import numpy as np

        return [(camera.channel, np.asarray(camera.open())) for camera in self.open_sample(source, token, Reads()).cameras]

    def calibrations(self, source: NuScenes, token: str) -> list[Calibration]:
        """Those of all cameras at the time of their images, for the ego frame of the keyframe."""
        from frustum.geometry import invert
        from frustum.types.layers import Calibration

        sample = self.open_sample(source, token, Reads())
        return [Calibration(c.intrinsics, invert(c.ego2global @ c.cam2ego) @ sample.ego2global) for c in sample.cameras]
