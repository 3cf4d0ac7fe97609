"""What a model says about one sample: a token and typed parts, one for each question that it answers. Ego frame, SI units."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frustum.geometry import VoxelGrid
from frustum.types.boxes import DetectionBoxes
from frustum.types.tensors import moved


@dataclass(frozen=True)
class Objects:
    """I objects of a panoptic prediction.

    Attributes:
        ids: (I,) the numbers in `PredictedOccupancy.instances` that are objects.
        classes: (I,) int64 class ids.
        centres: (I, 3) metres.
        scores: (I,) confidence, 0..1.
    """

    ids: Tensor
    classes: Tensor
    centres: Tensor
    scores: Tensor


@dataclass(frozen=True)
class PredictedOccupancy:
    """What is occupied, by which class.

    Attributes:
        semantics: (X, Y, Z) uint8 class ids.
        grid, class_names: what the voxels and ids mean; the last class is free space.
        instances: (X, Y, Z) integers from 0 to 65535, or None. Voxels of one class that share a number are one segment; so all voxels of a
            class without objects, such as driveable_surface, share one.
        objects: which of these segments are objects, or None where objects are not separated.
    """

    semantics: Tensor
    grid: VoxelGrid
    class_names: tuple[str, ...]
    instances: Tensor | None = None
    objects: Objects | None = None


@dataclass(frozen=True)
class PredictedBoxes:
    """M detected objects in the ego frame of the keyframe.

    Attributes:
        boxes: (M, 9), `geometry.BOX_FIELDS`: x, y, z of the centre, length, width, height, yaw, vx, vy; velocity NaN where unknown.
        classes: (M,) int64 ids.
        scores: (M,) confidence, 0..1.
        class_names: what the ids mean.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class PredictedMap:
    """Classes seen from above, each a map of its own.

    Attributes:
        logits: (K, Y, X) float, before the sigmoid; rows along y, columns along x.
        grid: the cells, one layer high.
        class_names: the K classes.
        rule: by which published rule the truth is drawn that it was made for (data/labels/bev_map.py). Under "simplebev" the map is in the
            frame of CAM_FRONT, x forward and y left, else in the ego frame.
    """

    logits: Tensor
    grid: VoxelGrid
    class_names: tuple[str, ...]
    rule: str = "lss"


@dataclass(frozen=True)
class PredictedSegmentation:
    """The class of every pixel of an image.

    Attributes:
        labels: (H, W) uint8 class ids.
        class_names: what the ids mean.
    """

    labels: Tensor
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class PredictedViews:
    """What N cameras see of a prediction, rendered.

    Attributes:
        labels: (N, H, W) uint8 class ids, 255 where less than half of the light ends.
        depth: (N, H, W) metres along the optical axis, 0 there.
        intrinsics: (N, 3, 3) of these pixels.
        cam2ego: (N, 4, 4) to the ego frame of the keyframe.
        class_names: what the ids mean.
        grid: beyond which nothing can be seen.
    """

    labels: Tensor
    depth: Tensor
    intrinsics: Tensor
    cam2ego: Tensor
    class_names: tuple[str, ...]
    grid: VoxelGrid


@dataclass(frozen=True)
class PredictedVolume:
    """Which voxels hold a LiDAR point, and features of those, of which three numbers are shown as colours.

    Attributes:
        occupied: (X, Y, Z) bool.
        colours: (P, 3) float, from -1 to 1 for most, of the P occupied voxels in their order; or (0, 3) where there are no features.
        grid: the voxels.
        grid2ego: (4, 4) float64 to the ego frame.
    """

    occupied: Tensor
    colours: Tensor
    grid: VoxelGrid
    grid2ego: Tensor


@dataclass(frozen=True)
class PredictedPortrait:
    """An image of a person that was generated.

    Attributes:
        image: (3, H, W) uint8 RGB.
        head: (H, W) bool, where the head is; None where that is not known.
        policy: of a portrait that got a head, whose colours this has (nn/head_regions.py); empty where the image is of the head alone.
    """

    image: Tensor
    head: Tensor | None = None
    policy: str = ""


@dataclass(frozen=True)
class Prediction:
    """One sample. A part is None where the model does not answer that question.

    Attributes:
        token: sample token.
        boxes: those of a network in the ego frame; those of a submission file as the file states them, in the global frame.
    """

    token: str
    occupancy: PredictedOccupancy | None = None
    boxes: PredictedBoxes | DetectionBoxes | None = None
    bev_map: PredictedMap | None = None
    segmentation: PredictedSegmentation | None = None
    views: PredictedViews | None = None
    volume: PredictedVolume | None = None
    portrait: PredictedPortrait | None = None

    def cpu(self) -> Prediction:
        """The prediction with all tensors on the CPU."""
        return moved(self, "cpu")
