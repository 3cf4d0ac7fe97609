"""From a Sample on disk to network input: images, calibration, labels, depth, boxes, augmented together; and samples to a Batch.

Two steps, so that the first can be cached: `load` reads and decodes, `apply` draws the augmentation and normalises.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frustum.data.augment import Augmentation, BevTransform
from frustum.data.labels.depth import depth_map
from frustum.data.pixels import ImageTransform, jitter_colours, normalise
from frustum.data.sample import CameraFrame, Occupancy, Sample
from frustum.errors import DataError
from frustum.geometry import CameraRig, VoxelGrid
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, IGNORE

_CLASS_IDS = {name: i for i, name in enumerate(DETECTION_CLASSES)}


@dataclass(frozen=True)
class Loaded:
    """A decoded sample: what `Pipeline.apply` needs, small enough to be kept in memory.

    When the pipeline never moves pixels, images are at the network's size and `depth` is there instead of `points`; else all is as on disk.
    """

    sample: Sample  # without labels
    frames: tuple[tuple[CameraFrame, ...], ...]  # [time][camera]; where the scene has no such frame, those of the keyframe
    images: tuple[tuple[np.ndarray, ...], ...]  # [time][camera], (H, W, 3) uint8
    points: np.ndarray | None = None  # (P, 3) float32, LiDAR frame
    depth: tuple[tuple[np.ndarray, np.ndarray], ...] | None = None  # per camera: flat pixel index and metres
    semantics: np.ndarray | None = None  # (X, Y, Z) uint8
    masks: tuple[np.ndarray, np.ndarray] | None = None  # LiDAR and camera mask as packed bits
    instances: np.ndarray | None = None
    is_present: tuple[bool, ...] = (True,)  # [time]

    @property
    def num_bytes(self) -> int:
        """Memory that the arrays take; an image that stands in for missing ones counts once."""
        arrays = [*{id(i): i for images in self.images for i in images}.values(), *(a for pair in self.depth or () for a in pair)]
        arrays += [a for a in (self.points, self.semantics, self.instances, *(self.masks or ())) if a is not None]
        return sum(a.nbytes for a in arrays)


@dataclass(frozen=True)
class Pipeline:
    """How samples become network input.

    Attributes:
        image_size: (height, width) of the network's image.
        channel_order, mean, std: normalisation, see `images.normalise`.
        history: past keyframes; where a scene has fewer, the current one is repeated (FlashOCC) and marked in `Batch.is_present`.
        load_occupancy, load_instances: labels, where a keyframe has some.
        load_depth: depth maps of the keyframe's cameras from its LiDAR scan.
        load_boxes: boxes of the ten detection classes that hold at least `min_points` LiDAR or radar points; unknown velocities are 0.
        map_frame: the ego pose that `Batch.key_ego2global` holds, the frame of the network's map: `lidar` is the keyframe's, that of
            the labels; `camera0` the one at the time of the first camera, some milliseconds off, as FlashOCC's published weights were
            trained. Labels and boxes stay where they are.
        grid: the grid that labels must have.
        crop_h: share of the resized height that is cut off at the bottom of an image that is not augmented.
        augment: random changes for training, or None.

    Raises:
        ConfigError: a flip of the ego frame does not fit the grid.
    """

    image_size: tuple[int, int]
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    history: int = 0
    load_occupancy: bool = True
    load_instances: bool = False
    load_depth: bool = False
    load_boxes: bool = False
    min_points: int = 1
    map_frame: Literal["lidar", "camera0"] = "lidar"
    grid: VoxelGrid = field(default_factory=VoxelGrid.occ3d)
    crop_h: float = 0.0
    augment: Augmentation | None = None

    def __post_init__(self) -> None:
        if self.augment is not None:
            self.augment.check(self.grid)

    @property
    def read_options(self) -> dict[str, Any]:
        """Arguments for `NuScenes.sample`, so that nothing is read in vain."""
        occupancy = ("instances" if self.load_instances else True) if self.load_occupancy else False
        return {"history": self.history, "with_boxes": self.load_boxes, "occupancy": occupancy}

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Network input of one sample, for `collate`; `rng` draws the augmentation. Raises DataError as `load` and `apply` do."""
        return self.apply(self.load(sample), rng)

    def load(self, sample: Sample, decoded: MutableMapping[Path, np.ndarray] | None = None) -> Loaded:
        """Read and decode everything that `apply` needs.

        Args:
            sample: the keyframe and its past.
            decoded: images by path that this pipeline has decoded before; new ones are added. Keyframes of a scene share their past.

        Raises:
            DataError: a file is unreadable, an image or the labels have another size than announced, or a wanted LiDAR scan is missing.
        """
        frames, is_present = self._frames(sample)
        decoded = {} if decoded is None else decoded
        images = tuple(tuple(self._decoded(f, decoded) for f in time) for time in frames)
        points = depth = None
        if self.load_depth:
            if sample.lidar is None:
                raise DataError(f"keyframe {sample.token} has no LiDAR scan, which depth supervision needs. Set data.load_depth=false.")
            points = sample.lidar.load()[:, :3]
            if not self._moves_pixels:
                maps = [self._depth(sample, points, c, self._fit(c)) for c in sample.cameras]
                depth = tuple((np.flatnonzero(m).astype(np.int32), m[m > 0]) for m in maps)
                points = None
        labels = sample.occupancy if self.load_occupancy else None
        if labels is not None and labels.semantics.shape != self.grid.shape:
            raise DataError(
                f"the labels of keyframe {sample.token} have shape {labels.semantics.shape}, but the recipe's grid has {self.grid.shape} "
                f"cells. Set the recipe's grid to the labels' one, or regenerate the labels."
            )
        return Loaded(
            sample=replace(sample, occupancy=None),
            frames=frames,
            images=images,
            points=points,
            depth=depth,
            semantics=None if labels is None else labels.semantics,
            masks=None if labels is None else (np.packbits(labels.mask_lidar), np.packbits(labels.mask_camera)),
            instances=labels.instances if labels is not None and self.load_instances else None,
            is_present=is_present,
        )

    def apply(self, loaded: Loaded, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Draw the augmentation, transform and normalise. Raises DataError when the calibration is singular, not finite or not rigid."""
        sample = loaded.sample
        augment = self.augment if rng is not None else None
        transforms = [self._draw(augment, rng, camera) for camera in sample.cameras]  # the same for all times
        bev = BevTransform() if augment is None or rng is None else augment.draw_bev(rng)
        pixels = []
        for time in loaded.images:
            for image, transform in zip(time, transforms, strict=True):
                pixels.append(self._transform(image, transform))
        images = np.stack(pixels)
        if augment is not None and rng is not None and augment.colour_jitter:
            factors = [augment.draw_colours(rng) for _ in transforms] * len(loaded.images)
            images = np.stack([jitter_colours(image, *f) for image, f in zip(images, factors, strict=True)])
        images = normalise(images, self.mean, self.std, self.channel_order)
        item: dict[str, Any] = {
            "token": sample.token,
            "images": torch.from_numpy(images).unflatten(0, (len(loaded.images), len(transforms))),  # (T, N, 3, H, W)
            "rig": self._rig(loaded, transforms),
            "key_ego2global": torch.from_numpy(np.array(self._map_pose(loaded, 0), np.float64)),
            "frame_ego2global": torch.from_numpy(np.array([self._map_pose(loaded, t) for t in range(len(loaded.frames))], np.float64)),
            "is_present": torch.tensor(loaded.is_present),
            "scene": sample.scene,
            "has_poses": sample.has_poses,
            "bev_aug": torch.from_numpy(bev.matrix()),
        }
        if loaded.depth is not None or loaded.points is not None:
            item["depth"] = torch.from_numpy(np.stack(self._depth_maps(loaded, transforms)))
        if loaded.semantics is not None and loaded.masks is not None:
            shape, count = self.grid.shape, self.grid.num_cells
            lidar, camera = (np.unpackbits(m, count=count).reshape(shape) for m in loaded.masks)
            moved = bev.labels(Occupancy(loaded.semantics, lidar, camera, loaded.instances), self.grid)
            item["semantics"] = torch.from_numpy(moved.semantics)
            item["mask_lidar"], item["mask_camera"] = torch.from_numpy(moved.mask_lidar).bool(), torch.from_numpy(moved.mask_camera).bool()
            item["instances"] = None if moved.instances is None else torch.from_numpy(moved.instances)
        if self.load_boxes:
            item["boxes"], item["box_classes"] = self._boxes(sample, bev)
        return item

    # ---- parts --------------------------------------------------------------------------------------------------------------

    @property
    def _moves_pixels(self) -> bool:
        return self.augment is not None and self.augment.moves_pixels

    def _frames(self, sample: Sample) -> tuple[tuple[tuple[CameraFrame, ...], ...], tuple[bool, ...]]:
        """Cameras of the keyframe and of its past, newest first, and which of them are really there: a past keyframe that the scene has
        not, or in which a camera failed, is replaced by the keyframe itself.
        """
        channels = [f.channel for f in sample.cameras]
        past = [time if [f.channel for f in time] == channels else None for time in sample.history[: self.history]]
        past += [None] * (self.history - len(past))
        return (sample.cameras, *(p or sample.cameras for p in past)), (True, *(p is not None for p in past))

    def _decoded(self, frame: CameraFrame, known: MutableMapping[Path, np.ndarray]) -> np.ndarray:
        image = known.get(frame.path)
        if image is None:
            image = known[frame.path] = np.asarray(self._decode(frame))
        return image

    def _map_pose(self, loaded: Loaded, time: int) -> np.ndarray:
        """Ego pose of the map of one of the frames."""
        if self.map_frame == "camera0":
            return loaded.frames[time][0].ego2global
        sample = loaded.sample
        return sample.history_ego2global[time - 1] if time and loaded.is_present[time] else sample.ego2global

    def _fit(self, camera: CameraFrame) -> ImageTransform:
        return ImageTransform.fit(camera.size, self.image_size, self.crop_h)

    def _decode(self, frame: CameraFrame) -> Image.Image:
        image = frame.open()
        if (image.height, image.width) != tuple(frame.size):
            raise DataError(
                f"the image {frame.path} has {image.height} x {image.width} pixels, but sample_data.json says {frame.size[0]} x "
                f"{frame.size[1]}, to which the calibration belongs. Correct the table or restore the image."
            )
        return image if self._moves_pixels else self._fit(frame).apply(image)

    def _draw(self, augment: Augmentation | None, rng: np.random.Generator | None, camera: CameraFrame) -> ImageTransform:
        if augment is None or rng is None or not self._moves_pixels:
            return self._fit(camera)
        return augment.draw_image(rng, camera.size, self.image_size)

    def _transform(self, image: np.ndarray, transform: ImageTransform) -> np.ndarray:
        return np.asarray(transform.apply(Image.fromarray(image))) if self._moves_pixels else image

    def _rig(self, loaded: Loaded, transforms: list[ImageTransform]) -> CameraRig:
        def stack(name: str) -> Tensor:
            return torch.from_numpy(np.array([[getattr(f, name) for f in time] for time in loaded.frames], np.float64))

        image_aug = torch.from_numpy(np.stack([t.matrix() for t in transforms])).expand(len(loaded.frames), -1, -1, -1)
        try:
            return CameraRig.create(
                stack("intrinsics"), stack("cam2ego"), self.image_size, stack("ego2global"), image_aug.contiguous(), stack("timestamp")
            )
        except DataError as error:
            names = ", ".join(f.channel for f in loaded.frames[0])
            raise DataError(f"keyframe {loaded.sample.token} (cameras {names}): {error}") from error

    def _depth(self, sample: Sample, points: np.ndarray, camera: CameraFrame, transform: ImageTransform) -> np.ndarray:
        assert sample.lidar is not None
        return depth_map(points, sample.lidar, camera, transform.matrix(), self.image_size)

    def _depth_maps(self, loaded: Loaded, transforms: list[ImageTransform]) -> list[np.ndarray]:
        if loaded.points is not None:
            return [self._depth(loaded.sample, loaded.points, c, t) for c, t in zip(loaded.sample.cameras, transforms, strict=True)]
        maps = []
        for index, metres in loaded.depth or ():
            flat = np.zeros(self.image_size[0] * self.image_size[1], np.float32)
            flat[index] = metres
            maps.append(flat.reshape(self.image_size))
        return maps

    def _boxes(self, sample: Sample, bev: BevTransform) -> tuple[Tensor, Tensor]:
        if sample.boxes is None:
            raise DataError(f"keyframe {sample.token} was read without boxes; use Pipeline.read_options when reading.")
        points = sample.boxes.num_lidar_pts + sample.boxes.num_radar_pts
        keep = [i for i, name in enumerate(sample.boxes.names) if name in _CLASS_IDS and points[i] >= self.min_points]
        classes = torch.tensor([_CLASS_IDS[sample.boxes.names[i]] for i in keep], dtype=torch.int64)
        boxes = bev.boxes(np.nan_to_num(sample.boxes.boxes[keep].reshape(-1, 9)))
        return torch.from_numpy(boxes).float(), classes


def collate(items: list[dict[str, Any]]) -> Batch:
    """Stack pipeline outputs. A keyframe without labels among labelled ones gets ignored semantics and empty masks.

    Raises:
        DataError: the samples have different numbers of cameras.
    """
    shapes = {tuple(item["images"].shape) for item in items}
    if len(shapes) > 1:
        raise DataError(f"samples of one batch have different images {sorted(shapes)} (T, N, 3, H, W). Choose data.cameras that all have.")

    def stack(name: str, fill: int | None = None) -> Tensor | None:
        values = [item.get(name) for item in items]
        known = [v for v in values if v is not None]
        if not known or (fill is None and len(known) < len(values)):
            return None
        return torch.stack([torch.full_like(known[0], fill or 0) if v is None else v for v in values])

    return Batch(
        images=torch.stack([item["images"] for item in items]),
        rig=CameraRig.stack([item["rig"] for item in items]),
        key_ego2global=torch.stack([item["key_ego2global"] for item in items]),
        bev_aug=torch.stack([item["bev_aug"] for item in items]),
        semantics=stack("semantics", IGNORE),
        mask_camera=stack("mask_camera", 0),
        mask_lidar=stack("mask_lidar", 0),
        instances=stack("instances", 0),
        frame_ego2global=stack("frame_ego2global"),
        is_present=stack("is_present"),
        scenes=[item["scene"] for item in items] if all("scene" in item for item in items) else [],
        depth=stack("depth"),
        boxes=[item["boxes"] for item in items] if all("boxes" in item for item in items) else None,
        box_classes=[item["box_classes"] for item in items] if all("boxes" in item for item in items) else None,
        tokens=[item["token"] for item in items],
        has_poses=all(item.get("has_poses", True) for item in items),
    )
