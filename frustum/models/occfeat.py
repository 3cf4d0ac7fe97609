"""OccFeat (Sirko-Galouchenko et al., CVPR workshops 2024, arXiv:2404.14027): networks that see from above learn without a label.

images -> network (any of ours, without its heads) -> map -> VolumeHead -> voxels: is something in it, and what does it look like
LiDAR points -> occupied voxels; photographs -> frozen teacher -> features where occupied voxels project to

Cross-entropy of occupancy over all voxels, cosine distance of features over those that are occupied and seen by a camera. Then the head is
dropped and the network is trained with few labels: `frustum train simplebev-mini --init runs/occfeat-mini data.labelled_share=0.01`.

No code of the authors was published. What the paper leaves open is a setting here; docs/methods/occfeat.md says what we chose and why.
Shape letters: B batch, N cameras, C channels, D features, X Y Z voxels, P voxels that are occupied.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.config import Config
from frustum.data.labels.feature_maps import EXACT_FEATURES, TeacherMaps
from frustum.data.labels.lidar_points import LidarPoints
from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send, without_autocast
from frustum.losses.voxel_features import (
    feature_loss,
    feature_targets,
    occupancy_loss,
    occupied_voxels,
    over_unit_square,
    places_in_images,
)
from frustum.models.map_network import MapNetwork
from frustum.models.simplebev import SimpleBevConfig
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.frozen import Frozen
from frustum.nn.lift_sample import in_ego_frame
from frustum.nn.rig_memory import RigMemory
from frustum.nn.teachers import ABOUT, Teacher, require_weights
from frustum.nn.volume_head import PrincipalAxes, VolumeHead
from frustum.types.batch import Batch
from frustum.types.contract import Label, ModelConfig, Reads
from frustum.types.frame import keyframe_of
from frustum.types.predictions import PredictedVolume, Prediction


class TeacherConfig(Config):
    """Whose features are learned.

    Attributes:
        kind: `exact` is never wrong, and needs the truth images of a street world (data/labels/feature_maps.py).
        weights: of the others: true for those of a package, or a file.
        scale: it looks at images of this times the size of those of the network that learns, to the nearest size that it takes.
        folder: what `frustum data features` wrote with this teacher, in place of asking it in training.
    """

    kind: Literal["dinov2_vits14", "dinov2_vitb14", "resnet50", "efficientnet_lite0", "exact"] = "dinov2_vits14"
    weights: Pretrained = True
    scale: PositiveFloat = 1.0
    folder: str = ""

    @property
    def features(self) -> int:
        """D."""
        return EXACT_FEATURES if self.kind == "exact" else ABOUT[self.kind].features

    @property
    def is_asked(self) -> bool:
        """Whether it looks at images in training."""
        return self.kind != "exact" and not self.folder

    @property
    def origin(self) -> str:
        """Where its features come from, in words."""
        known: dict[object, str] = {True: " with the weights of a package", False: " with random weights"}
        return self.kind + known.get(self.weights, f" ({self.weights})")


class OccFeatConfig(ModelConfig):
    """Settings of OccFeat.

    Attributes:
        network: what is pretrained.
        heights: Z, layers of voxels.
        z_range: metres from the lowest to the highest of them; null: those of the network's own grid.
        channels: of a voxel.
        scans: LiDAR scans that are joined, see `LidarPoints`.
        teacher: whose features are learned.
        occupancy_weight, feature_weight: of the two losses. Without a weight a part is not there.
        positive_weight: of occupied voxels in the cross-entropy.
        focal: the exponent of a focal loss, see `occupancy_loss`; 0 for none.
        counted: which voxels count for occupancy: `all`, or those that a camera sees.
        expected: the share of voxels that the untrained network calls occupied.
        threshold: a voxel is predicted to be occupied where its probability is above.
    """

    held: ClassVar[str] = "network."

    network: MapNetwork = MapNetwork(simplebev=SimpleBevConfig())
    heights: PositiveInt = 8
    z_range: tuple[float, float] | None = None
    channels: PositiveInt = 32
    scans: PositiveInt = 1
    teacher: TeacherConfig = TeacherConfig()
    occupancy_weight: NonNegativeFloat = 1.0
    feature_weight: NonNegativeFloat = 1.0
    positive_weight: PositiveFloat = 1.0
    focal: NonNegativeFloat = 0.0
    counted: Literal["all", "seen"] = "all"
    expected: float = Field(0.02, gt=0, lt=1)
    threshold: float = Field(0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _learns(self) -> OccFeatConfig:
        if not (self.occupancy_weight or self.feature_weight or self.network.depth_loss):
            raise ValueError("nothing is learned: set model.occupancy_weight or model.feature_weight above 0")
        if self.z_range is not None and self.z_range[0] >= self.z_range[1]:
            raise ValueError(f"z_range goes from low to high, got {self.z_range[0]:g},{self.z_range[1]:g}")
        return self

    @property
    def image_multiple(self) -> int:  # type: ignore[override]
        """That of the network."""
        return self.network.config.image_multiple

    def reads(self) -> Reads:
        """What the network reads."""
        return self.network.reads()

    def learns_from(self) -> tuple[Label[Any], ...]:
        """LiDAR points, a teacher's features where they are not computed in training, and depth where the network learns it."""
        points = (self.network.learns_points(self.scans),) if self.occupancy_weight or self.feature_weight else ()
        teacher = self.teacher
        maps = (TeacherMaps(teacher.kind, teacher.folder, teacher.features),) if self.feature_weight and not teacher.is_asked else ()
        return (*points, *maps, *self.network.learns_depth())

    def build(self) -> OccFeat:
        """The network; its image encoder may start from trained weights."""
        return OccFeat(self)


class Taught(NamedTuple):
    """What a sample teaches: `voxels` (P, 3) places of occupied voxels that a camera sees, `features` (P, D) of the teacher there."""

    voxels: Tensor
    features: Tensor


class OccFeat(nn.Module):
    """`forward` returns, in the augmented frame of the map,

    bev: (B, C, Y, X) the map that is pretrained
    occupied: (B, X, Y, Z) logits: does a voxel hold a LiDAR point
    voxels: (B, X, Y, Z, channels) from which the features of single voxels are read, `head.features(voxels[...])`
    depth: (B * N, D, h, w) of networks that lift by depth
    teacher: (M, features, *, *) in training, what the teacher sees where it is asked

    Attributes:
        grid: the voxels.
        teacher: the frozen network that is asked in training; None where there is none.
        taught_by: which that is, for those who read where weights come from (engine/taught.py).
    """

    not_maps = ("occupied", "voxels", "teacher")

    def __init__(self, config: OccFeatConfig):
        super().__init__()
        self.config = config
        self.network: Any = config.network.build()
        cells: VoxelGrid = self.network.map_grid
        low, high = config.z_range or (cells.lower[2], cells.upper[2])
        lower, upper = (*cells.lower[:2], low), (*cells.upper[:2], high)
        self.grid = VoxelGrid(lower=lower, upper=upper, cell=(*cells.cell[:2], (high - low) / config.heights))
        features = config.teacher.features if config.feature_weight else 0
        bias = math.log(config.expected / (1 - config.expected))
        self.head = VolumeHead(self.network.map_channels, config.channels, config.heights, features, bias)
        self.colours = PrincipalAxes(features) if features else None
        self.head.requires_grad_(bool(config.occupancy_weight or features))
        self.head.occupancy.requires_grad_(config.occupancy_weight > 0)
        self.teacher: Frozen | None = None
        self.taught_by = ""
        if features and config.teacher.is_asked:
            teacher = config.teacher
            self.taught_by = teacher.origin
            self.teacher = Frozen(functools.partial(Teacher, teacher.kind, teacher.weights, teacher.scale))  # type: ignore[arg-type]
        self.sight: RigMemory[Tensor] = RigMemory()

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Ask the teacher in, so that missing weights are noticed ahead of the first step.

        Raises:
            ConfigError: weights that no package has. CheckpointError: a file of another network.
        """
        teacher = self.config.teacher
        if self.teacher is None:
            return
        without = "model.teacher.kind=efficientnet_lite0, or occupancy alone, model.feature_weight=0"
        require_weights(teacher.kind, teacher.weights, "model.teacher.weights=", without)
        self.teacher.on("cpu")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        found = self.network.to_map(batch)
        occupied, voxels = self.head(found["bev"])
        more = {name: found[name] for name in ("depth",) if name in found}
        if self.training and self.teacher is not None:
            images = batch.photographs().flatten(0, 1)
            more["teacher"] = self.teacher.on(images.device)(images)
        return more | {"bev": found["bev"].float(), "occupied": occupied, "voxels": voxels}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`occupancy` and `features`, each where it has a weight, and the network's own `depth`. Raises DataError without their labels."""
        config, losses = self.config, self.config.network.depth_losses(outputs, batch)
        if not (config.occupancy_weight or config.feature_weight):
            return losses
        logits, map2ego = outputs["occupied"], config.network.map2ego(batch, self.training)
        occupied = torch.stack([occupied_voxels(points, self.grid) for points in self._points(batch, map2ego)])
        if config.occupancy_weight:
            counted = send(self._seen(batch, map2ego), logits.device) if config.counted == "seen" else None
            found = occupancy_loss(logits, occupied, counted, config.positive_weight, config.focal)
            losses["occupancy"] = config.occupancy_weight * found
        if config.feature_weight and self.head.features is not None and self.colours is not None:
            taught = self.taught(outputs, batch, occupied, map2ego)
            voxels = [outputs["voxels"][b][one.voxels.unbind(-1)] for b, one in enumerate(taught)]
            predicted = self.head.features(torch.cat(voxels))
            if self.training:
                self.colours.update(predicted.detach())
            losses["features"] = config.feature_weight * feature_loss(predicted, torch.cat([one.features for one in taught]))
        return losses

    @torch.no_grad()
    def taught(self, outputs: dict[str, Tensor], batch: Batch, occupied: Tensor, map2ego: Tensor) -> list[Taught]:
        """What each sample teaches in its occupied voxels (B, X, Y, Z).

        Raises:
            DataError: the batch holds neither images for the teacher, which is asked in training, nor features of it.
        """
        is_asked = "teacher" in outputs
        maps = outputs["teacher"].unflatten(0, batch.images[:, 0].shape[:2]) if is_asked else batch.need(TeacherMaps)
        centres, found = self.grid.centres(torch.float64), []
        for b in range(len(batch)):
            voxels = occupied[b].nonzero()
            in_image, in_photograph, visible = self._places(batch, map2ego, b, centres[voxels.cpu().unbind(-1)])
            kept = visible.any(0)
            features = feature_targets(maps[b], (in_image if is_asked else in_photograph)[:, kept], visible[:, kept])
            found.append(Taught(voxels[send(kept, voxels.device)], features))
        return found

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """Which voxels are occupied, and the colours of their features; nothing where occupancy is not learned."""
        if not self.config.occupancy_weight:
            return [Prediction(token) for token in batch.tokens]
        occupied, map2ego = outputs["occupied"].sigmoid() > self.config.threshold, self.config.network.map2ego(batch, self.training)
        colours = outputs["voxels"].new_zeros((0, 3), dtype=torch.float32).split([0] * len(batch))
        if self.head.features is not None and self.colours is not None:
            with without_autocast(outputs["voxels"]):
                colours = self.colours(self.head.features(outputs["voxels"][occupied].float())).split(occupied.sum((1, 2, 3)).tolist())
        parts = [PredictedVolume(*part[:2], self.grid, part[2]) for part in zip(occupied, colours, map2ego, strict=True)]
        return [Prediction(token, volume=part) for token, part in zip(batch.tokens, parts, strict=True)]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Those of the network: `encoder`, the image encoder."""
        return self.network.parameter_groups()

    def _points(self, batch: Batch, map2ego: Tensor) -> list[Tensor]:
        """LiDAR points (P, 3) of each sample in the augmented frame of the map, from the augmented ego frame."""
        aug = batch.bev_aug.double().cpu()
        moves = (aug @ torch.linalg.inv(map2ego) @ torch.linalg.inv(aug)).float()
        pairs = zip(batch.need(LidarPoints).points, moves, strict=True)
        return [points @ send(move[:3, :3].T, points.device) + send(move[:3, 3], points.device) for points, move in pairs]

    def _places(self, batch: Batch, map2ego: Tensor, sample: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where points (P, 3) of a sample's map are: in its images and in its photographs, (N, P, 2) each, and whether both show them."""
        frame, sizes = keyframe_of(batch), torch.from_numpy(batch.need(LidarPoints).sizes[sample])
        rig, pose = frame.rig.to("cpu")[sample], frame.ego2global[sample].cpu()
        points = in_ego_frame(points, frame, map2ego, sample)
        image = over_unit_square(rig, rig.image_aug, torch.tensor(rig.image_size).expand(len(sizes), 2))
        photograph = over_unit_square(rig, torch.eye(3).expand_as(rig.image_aug), sizes)
        (first, seen), (second, there) = (places_in_images(points, one, pose) for one in (image, photograph))
        return first, second, seen & there

    def _seen(self, batch: Batch, map2ego: Tensor) -> Tensor:
        """(B, X, Y, Z) bool: voxels whose middle a camera sees. That of recent rigs is kept."""
        frame, sizes = keyframe_of(batch), batch.need(LidarPoints).sizes
        rig, shape = frame.rig, self.grid.shape

        def make() -> Tensor:
            centres = self.grid.centres(torch.float64).flatten(0, 2)
            return torch.stack([self._places(batch, map2ego, b, centres)[2].any(0).unflatten(0, shape) for b in range(len(batch))])

        matrices = (rig.image_aug, rig.intrinsics, rig.cam2ego, rig.ego2global, frame.ego2global, frame.bev_aug, map2ego)
        return self.sight.get(matrices, (rig.image_size, self.grid, tuple(one.tobytes() for one in sizes)), make)
