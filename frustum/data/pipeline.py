"""From keyframes of a rig on disk to network input: images, calibration and labels, augmented together; and keyframes to a Batch.

Two steps, so that the first can be cached: `load` reads and decodes, `apply` draws the augmentation and normalises.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frustum.data.augment import Draw, anchor_of, draw, draw_colours, fit_image
from frustum.data.corruptions import Corrupter
from frustum.data.pixels import jitter_colours, normalise, upright
from frustum.data.sample import CameraFrame, Sample
from frustum.data.source import AugmentConfig, Decoded, Loaded, as_rig_source
from frustum.data.sweeps import draw_sweep, read_with_past
from frustum.errors import DataError
from frustum.geometry import CameraRig, invert
from frustum.types.batch import Batch, ImageScale
from frustum.types.contract import Label, Reads

if TYPE_CHECKING:
    from frustum.data.nuscenes.section import NuScenesData

Times = tuple[tuple[CameraFrame, ...], ...]


@dataclass(frozen=True)
class RigPipeline:
    """How keyframes become network input.

    Attributes:
        data: size and normalisation of the images, frame of the map.
        reads: past keyframes, or a moment between keyframes; where a scene does not have it, the keyframe is repeated (FlashOCC) and marked
            in `Batch.is_present`.
        labels: kinds of label, where a keyframe has some.
        augment: the random changes; what becomes of an image that is not augmented, `augment.fit_image` says.
        training: draw at random.
        corrupter: what is done to the photographs of an evaluation, those of the past too.

    Raises:
        ConfigError: a flip of the ego frame does not fit the grid of a label.
    """

    data: NuScenesData
    reads: Reads
    labels: tuple[Label[Any], ...]
    augment: AugmentConfig
    training: bool
    corrupter: Corrupter | None = None

    def __post_init__(self) -> None:
        for label in self.labels if self.training else ():
            if (grid := getattr(label, "grid", None)) is not None:
                self.augment.check(grid)

    def __call__(self, source: Any, token: str, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Network input of one keyframe, for `collate`. Raises DataError as `load` and `apply` do."""
        return self.apply(self.load(source, token), rng)

    def load(self, source: Any, token: str, decoded: Decoded | None = None) -> Loaded:
        """Read and decode everything that `apply` needs.

        Args:
            source: a rig source.
            token: the keyframe.
            decoded: images by path that this pipeline has decoded before; new ones are added.

        Raises:
            DataError: a file is unreadable, an image or a label has the wrong size, or a LiDAR scan that a label needs is missing.
        """
        sample = read_with_past(as_rig_source(source, "images of camera rigs"), token, self.reads, self.training)
        loaded = self._with_images(Loaded(sample, {}, ()), {} if decoded is None else decoded)
        fixed = None if self._moves_pixels else self._draw(None, sample)
        return replace(loaded, labels=tuple(label.read(source, token, fixed) for label in self.labels))

    def apply(self, loaded: Loaded, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Draw the augmentation, transform and normalise. Raises DataError when the calibration is singular, not finite or not rigid."""
        rng = rng if self.training else None
        if self.training and self.reads.sweeps is not None:  # which is drawn anew each time, so that it is decoded here
            loaded = self._with_images(replace(loaded, sample=draw_sweep(loaded.sample, self.reads.sweeps, rng)), dict(loaded.images))
        sample = loaded.sample
        drawn = self._draw(rng, sample)
        pairs = [(loaded.images[frame.path], t) for time in loaded.frames for frame, t in zip(time, drawn.images, strict=True)]
        images = np.stack([np.asarray(t.apply(Image.fromarray(i))) if self._moves_pixels else i for i, t in pairs])
        if rng is not None and self.augment.colour_jitter:
            factors = [draw_colours(self.augment, rng) for _ in drawn.images] * len(loaded.frames)
            images = np.stack([jitter_colours(image, *f) for image, f in zip(images, factors, strict=True)])
        images = normalise(images, self.data.mean, self.data.std, self.data.channel_order)
        if drawn.kept is not None:
            images *= drawn.kept
        poses = np.array([self._map_pose(loaded, t) for t in range(len(loaded.frames))], np.float64)
        if rng is not None:  # drawn last, so that it changes no other draw
            drawn = replace(drawn, seed=int(rng.integers(2**63)))
        moved = [None if found is None else label.apply(found, drawn) for label, found in zip(self.labels, loaded.labels, strict=True)]
        return {
            "token": sample.token,
            "scene": sample.scene,
            "images": torch.from_numpy(images).unflatten(0, (len(loaded.frames), len(drawn.images))),  # (T, N, 3, H, W)
            "rig": self._rig(loaded, drawn),
            "frame_ego2global": torch.from_numpy(poses),
            "bev_aug": torch.from_numpy(drawn.bev.matrix()),
            "is_present": torch.tensor(loaded.is_present),
            "has_poses": sample.has_poses,
            "lidar2ego": _lidar2ego(sample, poses[0]),
            "labels": moved,
        }

    def collate(self, items: list[dict[str, Any]]) -> Batch:
        """Stack pipeline outputs. Raises DataError when the samples have different numbers of cameras."""
        shapes = {tuple(item["images"].shape) for item in items}
        if len(shapes) > 1:
            raise DataError(f"a batch has different images {sorted(shapes)} (T, N, 3, H, W). Choose data.cameras that all have.")
        poses = torch.stack([item["frame_ego2global"] for item in items])
        lidars = [item["lidar2ego"] for item in items if item["lidar2ego"] is not None]
        return Batch(
            images=torch.stack([item["images"] for item in items]),
            calibration=CameraRig.stack([item["rig"] for item in items]),
            key_ego2global=poses[:, 0].clone(),
            bev_aug=torch.stack([item["bev_aug"] for item in items]),
            labels=collate_labels(self.labels, [item["labels"] for item in items]),
            tokens=[item["token"] for item in items],
            frame_ego2global=poses,
            is_present=torch.stack([item["is_present"] for item in items]),
            scenes=[item["scene"] for item in items],
            has_poses=all(item["has_poses"] for item in items),
            lidar2ego=torch.stack(lidars) if len(lidars) == len(items) else None,
            image_scale=ImageScale(self.data.mean, self.data.std, self.data.channel_order),
        )

    # ---- parts --------------------------------------------------------------------------------------------------------------

    @property
    def _moves_pixels(self) -> bool:
        return self.training and self.augment.moves_pixels

    def _draw(self, rng: np.random.Generator | None, sample: Sample) -> Draw:
        """Without `rng`, nothing but the fit to the network's size."""
        cameras = sample.cameras
        return draw(self.augment, rng, [c.size for c in cameras], self.data.image_size, [anchor_of(self.augment, c) for c in cameras])

    def _with_images(self, loaded: Loaded, decoded: Decoded) -> Loaded:
        """The sample with the images that are read of it; those that are not in `decoded` are read from disk and added."""
        frames, is_present = self._frames(loaded.sample)
        for frame in (f for time in frames for f in time if f.path not in decoded):
            decoded[frame.path] = np.asarray(self._decode(frame, [camera.channel for camera in loaded.sample.cameras]))
        images = {frame.path: decoded[frame.path] for time in frames for frame in time}
        return replace(loaded, images=images, frames=frames, is_present=is_present)

    def _frames(self, sample: Sample) -> tuple[Times, tuple[bool, ...]]:
        """Cameras of the keyframe and of its past, newest first, and which of them are really there: a past keyframe that the scene does
        not have, or in which a camera failed, is replaced by the keyframe itself.
        """
        channels = [f.channel for f in sample.cameras]
        past = [time if [f.channel for f in time] == channels else None for time in sample.history[: self.reads.past]]
        past += [None] * (self.reads.past - len(past))
        return (sample.cameras, *(p or sample.cameras for p in past)), (True, *(p is not None for p in past))

    def _decode(self, frame: CameraFrame, channels: list[str]) -> Image.Image:
        image = frame.open()
        if (image.height, image.width) != tuple(frame.size):
            raise DataError(
                f"the image {frame.path} has {image.height} x {image.width} pixels{upright(image)}, but sample_data.json says "
                f"{frame.size[0]} x {frame.size[1]}, to which the calibration belongs. Correct the table or restore the image."
            )
        if self.corrupter is not None:
            image = self.corrupter(image, frame.path.name, frame.channel, channels)
        if self._moves_pixels:
            return image
        return fit_image(self.augment, frame.size, self.data.image_size, anchor_of(self.augment, frame)).apply(image)

    def _map_pose(self, loaded: Loaded, time: int) -> np.ndarray:
        """Ego pose of the map at one time."""
        if self.data.map_frame == "camera0":
            return loaded.frames[time][0].ego2global
        sample = loaded.sample
        return sample.history_ego2global[time - 1] if time and loaded.is_present[time] else sample.ego2global

    def _rig(self, loaded: Loaded, draw: Draw) -> CameraRig:
        def stack(name: str) -> Tensor:
            return torch.from_numpy(np.array([[getattr(f, name) for f in time] for time in loaded.frames], np.float64))

        image_aug = torch.from_numpy(np.stack([t.matrix() for t in draw.images])).expand(len(loaded.frames), -1, -1, -1)
        size = self.data.image_size
        try:
            return CameraRig.create(
                stack("intrinsics"), stack("cam2ego"), size, stack("ego2global"), image_aug.contiguous(), stack("timestamp")
            )
        except DataError as error:
            names = ", ".join(f.channel for f in loaded.frames[0])
            raise DataError(f"keyframe {loaded.sample.token} (cameras {names}): {error}") from error


def _lidar2ego(sample: Sample, key_ego2global: np.ndarray) -> Tensor | None:
    """(4, 4) LIDAR_TOP at its time to the ego frame of the map; None without one."""
    lidar = sample.lidar
    return None if lidar is None else torch.from_numpy(invert(key_ego2global) @ lidar.ego2global @ lidar.lidar2ego)


def collate_labels(kinds: Collection[Label[Any]], rows: list[list[Any]]) -> dict[type[Label[Any]], Any]:
    """The labels of a batch from those of its samples, [sample][kind]; kinds that no sample has are left out."""
    values = {type(kind): kind.collate([row[i] for row in rows]) for i, kind in enumerate(kinds)}
    return {kind: value for kind, value in values.items() if value is not None}
