"""A method from outside the package that answers another question: a small detector of objects on a bird's-eye-view map.

images -> convolutions -> LiftSplat -> U-Net over the map -> heat map per class, and a box at each peak

frustum data world data/street --scenes 20 --val-scenes 4 --frames 5
cd examples && frustum train bev_detector:bev_detector data.root=../data/street --out ../runs/detector
frustum eval ../runs/detector --code bev_detector

Shape letters: B batch, N cameras, C channels, K classes, Q peaks, S slots for boxes, X Y cells of the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.data.labels.boxes import BoxLabels
from frustum.data.nuscenes.section import NuScenesData
from frustum.engine.recipe import AugmentConfig, OptimConfig, Recipe, TrainConfig
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.losses.centres import centre_targets, gaussian_focal_loss
from frustum.nn.conv import ConvNorm
from frustum.nn.lift_splat import LiftSplat, Splat
from frustum.nn.unet import UNet
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.contract import ModelConfig
from frustum.types.frame import keyframe_of
from frustum.types.predictions import PredictedBoxes, Prediction


class BevDetectorConfig(ModelConfig):
    """Settings: `width` of the networks, the map, the depth bins, the number of boxes per sample."""

    width: int = 24
    grid: VoxelGrid = VoxelGrid(lower=(-40.0, -40.0, -1.0), upper=(40.0, 40.0, 5.4), cell=(0.8, 0.8, 6.4))
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=1)
    max_boxes: int = 100

    def learns_from(self) -> tuple[BoxLabels]:
        """Boxes."""
        return (BoxLabels(),)

    def build(self) -> BevDetector:
        """The network with random weights."""
        return BevDetector(self)


class BevDetector(nn.Module):
    """`forward` returns

    heatmap: (B, K, Y, X) logits of object centres
    boxes: (B, 8, Y, X) offset of the centre in its cell (2), z, log of length, width and height, sine and cosine of the yaw
    """

    def __init__(self, config: BevDetectorConfig):
        super().__init__()
        w = config.width
        self.config, self.num_classes = config, len(DETECTION_CLASSES)
        self.encoder = nn.Sequential(
            ConvNorm(3, w, stride=2), ConvNorm(w, 2 * w, stride=2), ConvNorm(2 * w, 4 * w, stride=2), ConvNorm(4 * w, 4 * w)
        )
        self.lift = LiftSplat(4 * w, w, Splat(config.grid, config.depth_bins))
        self.bev_net = UNet(w, w)
        self.head = nn.Conv2d(2 * w, self.num_classes + 8, 1)
        nn.init.constant_(self.head.bias[: self.num_classes], -3.0)  # most cells hold no centre

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        frame = keyframe_of(batch)
        pooled, _ = self.lift(self.encoder(frame.images.flatten(0, 1)), frame)  # (B, C, Y, X)
        heatmap, boxes = self.head(self.bev_net(torch.asinh(pooled))).float().split([self.num_classes, 8], 1)
        return {"heatmap": heatmap, "boxes": boxes}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`heat` of the centres, and `box`, the L1 distance of what is regressed at the true ones."""
        truth = batch.need(BoxLabels)
        targets = centre_targets(truth.boxes, truth.classes, self.config.grid, self.num_classes)
        found = outputs["boxes"].flatten(2).gather(2, targets.cells[:, None].expand(-1, 8, -1)).mT  # (B, S, 8)
        wanted = torch.zeros_like(found)
        for row, offset, box in zip(wanted, targets.offset, truth.boxes, strict=True):
            box = box[: len(row)]
            turn = torch.stack([box[:, 6].sin(), box[:, 6].cos()], 1)
            row[: len(box)] = torch.cat([offset[: len(box)], box[:, 2:3], box[:, 3:6].log(), turn], 1)
        error = ((found - wanted).abs() * targets.is_box[..., None]).sum() / targets.is_box.sum().clamp(min=1)
        return {"heat": gaussian_focal_loss(outputs["heatmap"], targets.heatmap), "box": 0.2 * error}

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The best peaks of the heat maps, with the box that is regressed there. Velocities are unknown: one frame has none."""
        grid, heat = self.config.grid, outputs["heatmap"].float().sigmoid()
        peaks = heat * (heat == F.max_pool2d(heat, 3, 1, 1))
        scores, place = peaks.flatten(1).topk(self.config.max_boxes)  # (B, Q)
        classes, cell = place // heat[0, 0].numel(), place % heat[0, 0].numel()
        dx, dy, z, *size, sine, cosine = outputs["boxes"].float().flatten(2).gather(2, cell[:, None].expand(-1, 8, -1)).unbind(1)
        x = grid.lower[0] + (cell % grid.shape[0] + dx) * grid.cell[0]
        y = grid.lower[1] + (cell // grid.shape[0] + dy) * grid.cell[1]
        unknown = torch.full_like(x, torch.nan)
        boxes = torch.stack([x, y, z, *(s.clamp(-3, 4).exp() for s in size), torch.atan2(sine, cosine), unknown, unknown], -1)  # (B, Q, 9)
        parts = [PredictedBoxes(*rows, DETECTION_CLASSES) for rows in zip(boxes, classes, scores, strict=True)]
        return [Prediction(token, boxes=part) for token, part in zip(batch.tokens, parts, strict=True)]


def bev_detector() -> Recipe:
    """A small detector on a bird's-eye-view map (example of a method from outside the package)."""
    return Recipe(
        name="bev-detector",
        model=BevDetectorConfig(),
        data=NuScenesData(root="data/street", image_size=(96, 256), cache="memory"),
        augment=AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0), flip=False),
        optim=OptimConfig(lr=2e-3, schedule="cosine", warmup_steps=50),
        train=TrainConfig(epochs=None, steps=1500, batch_size=2, num_workers=0),
    )
