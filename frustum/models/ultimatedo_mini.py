"""UltimateDO small enough for two CPU cores: FlashOccTiny with a detection head, on a map that looks farther than the voxels.

images -> SmallTrunk, as FlashOccTiny -> its U-Net over the map -> centre head -> boxes
                                                                -> pixel shuffle, channel-to-height -> voxel logits

Losses on voxels are FlashOccTiny's. What the heads tell each other is as in UltimateDo.
Shape letters: B batch, N cameras, D depth bins, K classes of voxels, X Y Z voxels, U V map cells along x and y.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.losses.depth import depth_cross_entropy
from frustum.losses.pixel_classes import pixel_class_loss, pixel_class_targets
from frustum.models.flashocc import depth_losses
from frustum.models.flashocc_tiny import column_losses, voxel_outputs
from frustum.models.ultimatedo import DetectionConfig, TasksConfig, depth_weight, detection_losses, frozen_parts, task_labels, two_answers
from frustum.nn.centre_boxes import BoxDecoding
from frustum.nn.centre_head import CompactCentreHead
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.occupancy_head import start_at_prior
from frustum.nn.point_encoding import pixel_points
from frustum.nn.small_trunk import EvenGrid, SmallTrunk, doubled
from frustum.nn.two_tasks import Exchange, Window, freeze
from frustum.nn.unet import UNet
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, ModelConfig
from frustum.types.frame import Frame, keyframe_of
from frustum.types.predictions import Prediction


class UltimateDoMiniConfig(ModelConfig):
    """Settings of UltimateDoMini.

    Attributes:
        pretrained: start the encoder from ImageNet weights: those of the package (true, extra `pretrained`), or of a timm file (its path).
        frozen_blocks: blocks of the encoder that are not trained, 0 to 11.
        neck_channels: channels of the image features.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers along each axis.
        map_margin: cells of the shared map, on which boxes are found, beyond the voxels on each side. They are two voxels wide.
        lift_channels: context channels per height bin.
        bev_channels: width of the U-Net at its finest level.
        voxel_channels: channels of a full-resolution cell before its heights and classes are read out.
        tasks: boxes, occupancy, and how they are trained together. The losses of boxes are far larger than those of voxels, hence the
            weight. Boxes are read at peaks and compared within a class: after a short training heat maps are blurred.
        class_names: the K classes of voxels; the last one is free space.
        class_weight_power: classes weigh (frequency / frequency of free) ** -power.
        free_columns: columns of observed free space drawn per sample in training; columns with anything occupied are all used.
        occupied_iou_loss, standing_iou_loss: weights of the soft IoU of occupied space, and of what is in no flat class.
        depth_loss: weight of the depth supervision; 0 needs no depth maps. A frozen trunk has none.
        pixel_loss: weight of telling the class of the object at each image feature, in training with boxes alone; 0 needs no depth maps.
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 16

    pretrained: Pretrained = True
    frozen_blocks: int = Field(5, ge=0, le=11)
    neck_channels: PositiveInt = 64
    depth_bins: DepthBins = DepthBins(start=1, stop=57, step=1)
    grid: EvenGrid = VoxelGrid.occ3d()
    map_margin: NonNegativeInt = 6
    lift_channels: PositiveInt = 16
    bev_channels: PositiveInt = 32
    voxel_channels: PositiveInt = 32
    tasks: TasksConfig = TasksConfig(
        detection=DetectionConfig(loss=0.2, channels=32, decoding=BoxDecoding(peaks=True, score_threshold=0.02, suppression="circle"))
    )
    class_names: ClassNames = OCC3D_CLASSES
    class_weight_power: NonNegativeFloat = 0.35
    free_columns: PositiveInt = 3000
    occupied_iou_loss: NonNegativeFloat = 1.0
    standing_iou_loss: NonNegativeFloat = 1.0
    depth_loss: NonNegativeFloat = 0.3
    pixel_loss: NonNegativeFloat = 0.5
    pool: Backend = "auto"

    @property
    def window(self) -> Window:
        """Where the voxels lie in the map."""
        return Window(self.grid, 2, self.map_margin)

    @property
    def map_grid(self) -> VoxelGrid:
        """The cells of the map, and along z the bins in which features are pooled."""
        return self.window.map_grid((self.grid.lower[2], self.grid.upper[2]), self.grid.shape[2] // 2)

    @property
    def learns_pixels(self) -> bool:
        """Whether image features learn the classes of objects: with boxes, and not in a frozen trunk."""
        return self.pixel_loss > 0 and self.tasks.learns_boxes and not self.tasks.frozen_trunk

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Occupancy, boxes and depth, each where it has a weight."""
        weight = max(self.depth_loss, self.learns_pixels)
        return task_labels(self.tasks, self.grid, self.class_names, weight, "model.depth_loss=0 model.pixel_loss=0")

    def build(self) -> UltimateDoMini:
        """The network; only the encoder may start from trained weights."""
        return UltimateDoMini(self)


class UltimateDoMini(nn.Module):
    """Detection and occupancy from one frame, for small machines.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8
        bev: (B, 2 * bev_channels, V, U), rows along y
    with an occupancy part
        occ_logits: (B, X, Y, Z, K)
    and in training on a CPU, when the batch has labels, in its place `columns`, `column_share` and `column_logits` as in FlashOccTiny;
    in training, where classes of pixels are learned,
        pixel_logits: (B * N, 11, h, w) of the ten classes and of nothing
    with a detection part, for the ten classes of DETECTION_CLASSES,
        heatmap: (B, 10, V, U) logits of object centres
        reg: (B, 2, V, U) x and y of the centre relative to its cell, in cells
        height: (B, 1, V, U) z of the centre in metres
        dim: (B, 3, V, U) logarithms of length, width and height in metres
        rot: (B, 2, V, U) sine and cosine of the yaw
        vel: (B, 2, V, U) velocity in m/s
    """

    head_names = ("centre_head", "refine", "head", "exchange", "pixel_head", "class_weight")
    all_outputs = False

    def __init__(self, config: UltimateDoMiniConfig):
        super().__init__()
        self.map_channels, self.map_grid = 2 * config.bev_channels, config.map_grid
        self.config, self.window = config, config.window
        width, classes = 2 * config.bev_channels, len(config.class_names)
        fine = config.map_grid.scaled(0.5, 0.5, 0.5)
        self.trunk = SmallTrunk(
            fine, config.depth_bins, config.neck_channels, config.lift_channels, config.pretrained, config.frozen_blocks, config.pool
        )
        self.bev_net = UNet(self.trunk.out_channels, config.bev_channels)
        self.centre_head, self.refine, self.head, self.exchange = None, None, None, None
        self.pixel_head = nn.Conv2d(config.lift_channels, len(DETECTION_CLASSES) + 1, 1) if config.learns_pixels else None
        tasks = config.tasks
        if tasks.detection is not None:
            self.centre_head = CompactCentreHead(width, len(DETECTION_CLASSES), tasks.detection.channels)
        if tasks.occupancy is not None:
            self.refine = nn.Conv2d(width, 4 * config.voxel_channels, 1)
            self.head = nn.Linear(config.voxel_channels, config.grid.shape[2] * classes)
        if tasks.detection is not None and tasks.exchanges:
            self.exchange = Exchange(tasks.detection.channels, 4 * config.voxel_channels, tasks.priority)
        trunk = (self.trunk, self.bev_net)
        self.frozen = freeze(frozen_parts(tasks, trunk, (self.centre_head,), (self.refine, self.head), self.exchange))
        self.class_weight = nn.Buffer(torch.ones(classes))

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Start from the statistics of the labels: class weights, and the weighted log prior of each height as the last bias."""
        if self.head is not None and OccupancyLabels in statistics:
            start_at_prior(self.head, self.class_weight, statistics[OccupancyLabels]["counts"], self.config.class_weight_power)

    def train(self, mode: bool = True) -> UltimateDoMini:
        """As in torch; what is frozen stays in eval mode, so that its running statistics are constant, too."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        frame = keyframe_of(batch)
        lifted = self.trunk.encode(frame)
        found = self._to_map(lifted, frame)
        outputs = found | self.heads(found["bev"], batch)
        if (self.training or self.all_outputs) and self.pixel_head is not None:
            outputs["pixel_logits"] = self.pixel_head(lifted[:, self.config.depth_bins.count :])
        return outputs

    def to_map(self, batch: Batch) -> dict[str, Tensor]:
        """`depth` and `bev`."""
        frame = keyframe_of(batch)
        return self._to_map(self.trunk.encode(frame), frame)

    def _to_map(self, lifted: Tensor, frame: Frame) -> dict[str, Tensor]:
        pooled, depth = self.trunk.lift_to_bev(lifted, frame)
        return {"depth": depth, "bev": self.bev_net(pooled.contiguous())}  # not in channels-last layout: see the recipe

    def heads(self, bev: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Features of each head from the shared map, what they tell each other, and the answers."""
        config = self.config
        outputs: dict[str, Tensor] = {}
        objects = None if self.centre_head is None else self.centre_head.shared_conv(bev)
        quads = None if self.refine is None else self.refine(self.window.cut(bev))  # (B, 4 * c, Y / 2, X / 2)
        if self.exchange is not None and objects is not None and quads is not None:
            for_objects, for_quads = self.exchange(objects, self.window.to_map(quads))
            objects, quads = objects + for_objects, quads + self.window.cut(for_quads)
        if quads is not None:
            cells = doubled(quads).relu()  # (B, Y, X, c)
            draws, free = self.training and not self.all_outputs, len(config.class_names) - 1
            labels = batch.labels.get(OccupancyLabels) if draws else None
            outputs |= voxel_outputs(cells, self.logits, labels, config.free_columns, free)
        if self.centre_head is not None and objects is not None:
            outputs |= self.centre_head.read(objects)
        return outputs

    def logits(self, cells: Tensor) -> Tensor:
        """Cells (*, voxel_channels) at full resolution -> (*, Z, K)."""
        assert self.head is not None
        return self.head(cells).unflatten(-1, (-1, len(self.config.class_names)))

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses of FlashOccTiny, `box_*` and `pixel`, each where it has a weight. Raises DataError where their labels are missing."""
        config, tasks = self.config, self.config.tasks
        losses = detection_losses(outputs, batch, tasks.detection, config.map_grid)
        if tasks.occupancy is not None and tasks.learns_occupancy:
            found = column_losses(outputs, batch, self.class_weight, config.class_names, config.occupied_iou_loss, config.standing_iou_loss)
            losses |= {name: tasks.occupancy.loss * loss for name, loss in found.items()}
        if "pixel_logits" in outputs:
            logits, depth, truth = outputs["pixel_logits"], batch.need(DepthLabels), batch.need(BoxLabels)
            points = pixel_points(depth, keyframe_of(batch))
            size = (logits.shape[-2], logits.shape[-1])
            target = pixel_class_targets(depth, points, truth.boxes, truth.classes, size, len(DETECTION_CLASSES))
            losses["pixel"] = config.pixel_loss * pixel_class_loss(logits, target)
        return losses | depth_losses(outputs, batch, depth_weight(tasks, config.depth_loss), config.depth_bins, depth_cross_entropy)

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The boxes, and the most likely class of every voxel."""
        config = self.config
        return two_answers(outputs, batch, config.tasks, config.map_grid, config.grid, config.class_names)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.trunk.encoder.parameters())}
