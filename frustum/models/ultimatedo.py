"""UltimateDO (Yu and Shu, 2024, arXiv:2409.11160): boxes and occupancy from one map by 2D convolutions alone; and BEVDet, its one half.

images -> ResNet -> CustomFPN -> LiftSplat -> CustomResNet + FpnLss over the map -> centre head -> boxes
                                                                                 -> channel-to-height -> voxel logits

Without its occupancy head the network is BEVDet (Huang et al., 2021, arXiv:2112.11790), without its detection head it is FlashOCC.
There is no public code. That the heads tell each other something, and how, is our reading of the paper's idea (docs/methods/ultimatedo.md).
Module names are those of published BEVDet checkpoints, which fill all but the occupancy head.
Shape letters: B batch, N cameras, C channels, D depth bins, K classes of voxels, X Y Z voxels, U V map cells along x and y.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.config import Config
from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.geometry.grids import Rounding
from frustum.losses.centre_boxes import box_losses
from frustum.losses.centres import centre_targets
from frustum.losses.occupancy import ClassBalance, flashocc_class_weights, masked_cross_entropy
from frustum.models.flashocc import depth_losses
from frustum.nn.bev import CustomResNet, FpnLss
from frustum.nn.centre_boxes import BoxDecoding, box_predictions
from frustum.nn.centre_head import BOXES, CentreHead
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.fpn import CustomFPN
from frustum.nn.lift_splat import LiftSplat, Sampling, Splat, VoxelRounding, rounding_of
from frustum.nn.occupancy_head import ChannelToHeight, occupancy_predictions
from frustum.nn.two_tasks import Exchange, Priority, Window, freeze
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, ModelConfig
from frustum.types.frame import keyframe_of
from frustum.types.predictions import Prediction


class DetectionConfig(Config):
    """Settings of the detection part.

    Attributes:
        loss: weight of its losses; 0 needs no boxes and leaves the head as it is.
        channels: width of the head.
        l1_loss, velocity_loss: weights of what is regressed, and of the velocity within it; as BEVDet.
        decoding: how boxes are read.
    """

    loss: NonNegativeFloat = 1.0
    channels: PositiveInt = 64
    l1_loss: NonNegativeFloat = 0.25
    velocity_loss: NonNegativeFloat = 0.2
    decoding: BoxDecoding = BoxDecoding()


class OccupancyConfig(Config):
    """Settings of the occupancy part.

    Attributes:
        loss: weight of its losses; 0 needs no occupancy labels and leaves the head as it is.
    """

    loss: NonNegativeFloat = 1.0


class TasksConfig(Config):
    """Which tasks a network has, which of them it learns, and what they tell each other.

    Attributes:
        detection: find boxes; null makes it a network for occupancy.
        occupancy: predict occupancy; null makes it a detector.
        priority: whose loss decides what the heads tell each other, see `nn.two_tasks.Exchange`; `none`: they share the map and no more.
        frozen_trunk: train the heads only; all below them stays as it is.
    """

    detection: DetectionConfig | None = DetectionConfig()
    occupancy: OccupancyConfig | None = OccupancyConfig()
    priority: Priority = "equal"
    frozen_trunk: bool = False

    @model_validator(mode="after")
    def _has_one(self) -> TasksConfig:
        if not (self.learns_boxes or self.learns_occupancy):
            raise ValueError("this network needs a task to learn: set model.tasks.detection.loss or model.tasks.occupancy.loss above 0")
        return self

    @property
    def learns_boxes(self) -> bool:
        """Whether the detection part is there and has a weight."""
        return self.detection is not None and self.detection.loss > 0

    @property
    def learns_occupancy(self) -> bool:
        """Whether the occupancy part is there and has a weight."""
        return self.occupancy is not None and self.occupancy.loss > 0

    @property
    def exchanges(self) -> bool:
        """Whether there are two heads that tell each other something."""
        return self.detection is not None and self.occupancy is not None and self.priority != "none"


class UltimateDoConfig(ModelConfig):
    """Settings of UltimateDo.

    Attributes:
        resnet: 18, 34, 50 or 101.
        pretrained: start the encoder from the weights of a package (true, ResNet-50) or of a torchvision or timm file (its path).
        neck_channels: channels of the image features.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe.
        map_ratio, map_margin: the shared map, on which boxes are found. Its cells are `map_ratio` voxels wide, and on each side it has
            `map_margin` cells more than voxels need: by default 0.8 m and 51.2 m around, as BEVDet's.
        map_z: the lowest and the highest z in metres of what the map collects; those of the voxels if null.
        lift_channels: C, channels of the pooled map.
        bev_channels: channels of the map that the heads read.
        tasks: boxes, occupancy, and how they are trained together.
        voxel_rounding: how a point finds its cell, see `FlashOccConfig`; also how true centres find theirs.
        sampling: where in the image a feature stands, see `nn.lift_splat.feature_pixels`; `corners` as published.
        class_names: the K classes of voxels; the last one is free space.
        camera_mask: train on voxels that a camera observed only.
        class_balance: weigh classes by FlashOCC's frequency table of Occ3D-nuScenes; needs its 18 classes.
        depth_loss: weight of the depth supervision; 0 needs no depth maps. A frozen trunk has none.
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 32

    resnet: int = 50
    pretrained: Pretrained = False
    neck_channels: PositiveInt = 256
    depth_bins: DepthBins = DepthBins(start=1, stop=60, step=1)
    grid: VoxelGrid = VoxelGrid.occ3d()
    map_ratio: PositiveInt = 2
    map_margin: NonNegativeInt = 14
    map_z: tuple[float, float] | None = (-5.0, 5.4)
    lift_channels: PositiveInt = 64
    bev_channels: PositiveInt = 256
    tasks: TasksConfig = TasksConfig()
    voxel_rounding: VoxelRounding = "floor"
    sampling: Sampling = "corners"
    class_names: ClassNames = OCC3D_CLASSES
    camera_mask: bool = True
    class_balance: ClassBalance = False
    depth_loss: NonNegativeFloat = 0.0
    pool: Backend = "auto"

    @model_validator(mode="after")
    def _grids_fit(self) -> UltimateDoConfig:
        self.window.check()
        return self

    @property
    def window(self) -> Window:
        """Where the voxels lie in the map."""
        return Window(self.grid, self.map_ratio, self.map_margin)

    @property
    def map_grid(self) -> VoxelGrid:
        """The cells of the map."""
        return self.window.map_grid(self.map_z or (self.grid.lower[2], self.grid.upper[2]))

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Occupancy, boxes and depth, each where it has a weight."""
        return task_labels(self.tasks, self.grid, self.class_names, self.depth_loss)

    def build(self) -> UltimateDo:
        """The network with random weights."""
        return UltimateDo(self)


class UltimateDo(nn.Module):
    """Detection and occupancy from one frame.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin
        bev: (B, bev_channels, V, U), rows along y
    with an occupancy part
        occ_logits: (B, X, Y, Z, K)
    and with a detection part, for the ten classes of DETECTION_CLASSES,
        heatmap: (B, 10, V, U) logits of object centres
        reg: (B, 2, V, U) x and y of the centre relative to its cell, in cells
        height: (B, 1, V, U) z of the centre in metres
        dim: (B, 3, V, U) logarithms of length, width and height in metres
        rot: (B, 2, V, U) sine and cosine of the yaw
        vel: (B, 2, V, U) velocity in m/s
    """

    head_names = ("pts_bbox_head", "occ_head", "exchange", "class_weight")
    class_weight: Tensor | None

    def __init__(self, config: UltimateDoConfig):
        super().__init__()
        self.map_channels, self.map_grid = config.bev_channels, config.map_grid
        self.config, self.window, self.rounding = config, config.window, rounding_of(config.voxel_rounding)
        c = config.lift_channels
        self.img_backbone = ResNet(config.resnet, outputs=(3, 4), pretrained=config.pretrained)
        self.img_neck = CustomFPN(self.img_backbone.out_channels, config.neck_channels)
        splat = Splat(config.map_grid, config.depth_bins, self.rounding, config.sampling, config.pool)
        self.img_view_transformer = LiftSplat(config.neck_channels, c, splat)
        self.img_bev_encoder_backbone = CustomResNet(c, (2 * c, 4 * c, 8 * c))
        self.img_bev_encoder_neck = FpnLss(2 * c + 8 * c, config.bev_channels)
        tasks = config.tasks
        self.pts_bbox_head, self.occ_head, self.exchange = None, None, None
        if tasks.detection is not None:
            self.pts_bbox_head = CentreHead(config.bev_channels, len(DETECTION_CLASSES), tasks.detection.channels, used=BOXES)
        if tasks.occupancy is not None:
            self.occ_head = ChannelToHeight(config.bev_channels, config.grid.shape[2], len(config.class_names))
        if tasks.detection is not None and tasks.exchanges:
            self.exchange = Exchange(tasks.detection.channels, config.bev_channels, tasks.priority)
        trunk = (self.img_backbone, self.img_neck, self.img_view_transformer, self.img_bev_encoder_backbone, self.img_bev_encoder_neck)
        self.frozen = freeze(frozen_parts(tasks, trunk, (self.pts_bbox_head,), (self.occ_head,), self.exchange))
        self.register_buffer("class_weight", flashocc_class_weights() if config.class_balance else None, persistent=False)

    def train(self, mode: bool = True) -> UltimateDo:
        """As in torch; what is frozen stays in eval mode, so that its running statistics are constant, too."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        found = self.to_map(batch)
        return found | self.heads(found["bev"])

    def to_map(self, batch: Batch) -> dict[str, Tensor]:
        """`depth` and `bev`."""
        frame = keyframe_of(batch)
        features = self.img_neck(self.img_backbone(frame.images.flatten(0, 1)))
        pooled, depth = self.img_view_transformer(features, frame)
        bev = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(pooled))
        return {"depth": depth, "bev": bev}

    def heads(self, bev: Tensor) -> dict[str, Tensor]:
        """Features of each head from the shared map, what they tell each other, and the answers."""
        outputs: dict[str, Tensor] = {}
        objects = None if self.pts_bbox_head is None else self.pts_bbox_head.shared_conv(bev)
        columns = None if self.occ_head is None else self.occ_head.final_conv(self.window.to_voxels(bev))
        if self.exchange is not None and objects is not None and columns is not None:
            for_objects, for_columns = self.exchange(objects, self.window.to_map(columns))
            objects, columns = objects + for_objects, columns + self.window.to_voxels(for_columns)
        if self.occ_head is not None and columns is not None:
            outputs["occ_logits"] = self.occ_head.read(columns)
        if self.pts_bbox_head is not None and objects is not None:
            outputs |= self.pts_bbox_head.read(objects)
        return outputs

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`occupancy` cross-entropy, `box_*`, and `depth`, each where it has a weight. Raises DataError where their labels are missing."""
        config = self.config
        losses = detection_losses(outputs, batch, config.tasks.detection, config.map_grid, self.rounding)
        if config.tasks.occupancy is not None and config.tasks.learns_occupancy:
            truth = batch.need(OccupancyLabels)
            mask = truth.mask_camera if config.camera_mask else None
            found = masked_cross_entropy(outputs["occ_logits"], truth.semantics, mask, self.class_weight)
            losses["occupancy"] = config.tasks.occupancy.loss * found
        return losses | depth_losses(outputs, batch, depth_weight(config.tasks, config.depth_loss), config.depth_bins)

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The boxes, and the most likely class of every voxel."""
        config = self.config
        return two_answers(outputs, batch, config.tasks, config.map_grid, config.grid, config.class_names)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.img_backbone.parameters())}


def depth_weight(tasks: TasksConfig, depth_loss: float) -> float:
    """The weight of the depth loss in effect: a frozen trunk learns no depth."""
    return 0.0 if tasks.frozen_trunk else depth_loss


def task_labels(
    tasks: TasksConfig, grid: VoxelGrid, class_names: tuple[str, ...], depth_loss: float, without_depth: str = "model.depth_loss=0"
) -> tuple[Label[Any], ...]:
    """Occupancy, boxes and depth, each where it has a weight. Unknown velocities of boxes are kept as such.

    `without_depth` is what a user without LiDAR has to set.
    """
    found: list[Label[Any]] = [OccupancyLabels(grid, class_names=class_names)] if tasks.learns_occupancy else []
    if tasks.learns_boxes:
        found.append(BoxLabels(without="model.tasks.detection=null or model.tasks.detection.loss=0"))
    if depth_weight(tasks, depth_loss):
        found.append(DepthLabels(without=without_depth))
    return tuple(found)


Parts = tuple[nn.Module | None, ...]


def frozen_parts(tasks: TasksConfig, trunk: Parts, detection: Parts, occupancy: Parts, exchange: Exchange | None) -> Parts:
    """What is not trained: the parts of a task without a loss, with what it is told by the other one, and the trunk where it is frozen."""
    parts: Parts = trunk if tasks.frozen_trunk else ()
    if not tasks.learns_boxes:
        parts += (*detection, exchange and exchange.to_detection)
    if not tasks.learns_occupancy:
        parts += (*occupancy, exchange and exchange.to_occupancy)
    return parts


def detection_losses(
    outputs: dict[str, Tensor], batch: Batch, config: DetectionConfig | None, map_grid: VoxelGrid, rounding: Rounding = "floor"
) -> dict[str, Tensor]:
    """`box_*` of a head of boxes over a map of `map_grid`; `rounding` finds the cell of a true centre.

    Nothing without a detection part or without a weight. Raises DataError if the batch has no boxes.
    """
    if config is None or not config.loss:
        return {}
    truth = batch.need(BoxLabels)
    targets = centre_targets(truth.boxes, truth.classes, map_grid, len(DETECTION_CLASSES), rounding)
    return box_losses(outputs, targets, config.loss, config.l1_loss, config.velocity_loss)


@torch.no_grad()
def two_answers(
    outputs: dict[str, Tensor], batch: Batch, tasks: TasksConfig, map_grid: VoxelGrid, grid: VoxelGrid, class_names: tuple[str, ...]
) -> list[Prediction]:
    """Boxes and occupancy of each sample in one prediction, or what there is of them."""
    found = [Prediction(token) for token in batch.tokens]
    if tasks.occupancy is not None:
        found = occupancy_predictions(outputs["occ_logits"], batch.tokens, grid, class_names)
    if tasks.detection is None:
        return found
    boxes = box_predictions(outputs, batch.tokens, map_grid, tasks.detection.decoding)
    return [replace(whole, boxes=part.boxes) for whole, part in zip(found, boxes, strict=True)]
