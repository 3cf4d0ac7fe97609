"""FlashOCC small enough to learn a city in minutes on two CPU cores: the same idea with cheaper parts.

images -> EfficientNet-Lite0 (frozen start) -> depth and context at stride 8 -> pooled in Z/2 height bins -> 2D U-Net
       -> pixel shuffle to full resolution -> channel-to-height -> voxel logits

What differs from FlashOCC and why: height bins in the pooled map (a flat map learns height slowly), asinh of the pooled sums (near cells
collect hundreds of pixels, far cells a few), ray directions as input (a pixel below the horizon has a natural depth), the map at half the
label resolution (the head's last step doubles it).
Shape letters: B batch, N cameras, M = B * N images, H W image, h w feature map, C channels, D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.errors import DataError, ShapeError
from frustum.geometry import CameraRig, VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.losses.depth import depth_cross_entropy
from frustum.losses.occupancy import draw_columns, occupancy_losses
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.lift_splat import Splat, feature_pixels
from frustum.nn.unet import ConvNorm, UNet
from frustum.nn.voxel import LinearPerHeight
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import FLAT_CLASSES, OCC3D_CLASSES
from frustum.types.contract import ClassCounts, ClassNames, ModelConfig
from frustum.types.predictions import Prediction


class FlashOccTinyConfig(ModelConfig):
    """Settings of FlashOccTiny.

    Attributes:
        pretrained: start the encoder from ImageNet weights: those of the package (true, extra `pretrained`), or of a timm file (its path).
        frozen_blocks: blocks of the encoder that are not trained, 0 to 11.
        neck_channels: channels of the image features.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers along each axis.
        lift_channels: C, context channels per height bin.
        bev_channels: width of the U-Net at its finest level.
        voxel_channels: channels of a full-resolution cell before its heights and classes are read out.
        class_names: the K classes; the last one is free space.
        class_weight_power: classes weigh (frequency / frequency of free) ** -power.
        free_columns: columns of observed free space drawn per sample in training; columns with anything occupied are all used.
        occupied_iou_loss, standing_iou_loss: weights of the soft IoU of occupied space, and of what is in no flat class.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 16

    pretrained: Pretrained = True
    frozen_blocks: int = Field(5, ge=0, le=11)
    neck_channels: PositiveInt = 64
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=1)
    grid: VoxelGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 16
    bev_channels: PositiveInt = 32
    voxel_channels: PositiveInt = 32
    class_names: ClassNames = OCC3D_CLASSES
    class_weight_power: NonNegativeFloat = 0.35
    free_columns: PositiveInt = 3000
    occupied_iou_loss: NonNegativeFloat = 1.0
    standing_iou_loss: NonNegativeFloat = 1.0
    depth_loss: NonNegativeFloat = 0.3
    pool: Backend = "auto"

    @model_validator(mode="after")
    def _grid_can_be_halved(self) -> FlashOccTinyConfig:
        if any(count % 2 for count in self.grid.shape):
            cells = " x ".join(str(count) for count in self.grid.shape)
            raise ValueError(f"this network needs a grid with an even number of cells along each axis, got {cells}; set model.grid")
        return self

    def build(self) -> FlashOccTiny:
        """The network; only the encoder may start from trained weights."""
        return FlashOccTiny(self)


class TinyOccupancy(nn.Module):
    """Everything but the occupancy part: images to pooled features, what the loss needs, the decoding.

    A subclass adds the occupancy part with a last layer `head`, whose bias has Z * K entries, and `forward`.
    """

    class_weight: Tensor
    head: nn.Linear | LinearPerHeight

    def __init__(self, config: FlashOccTinyConfig):
        super().__init__()
        self.config = config
        classes, neck = len(config.class_names), config.neck_channels
        self.encoder = EfficientNetLite0((4, 10), frozen_blocks=config.frozen_blocks, pretrained=config.pretrained)
        self.fine = ConvNorm(self.encoder.out_channels[0], neck, 1)
        self.coarse = ConvNorm(self.encoder.out_channels[1], neck, 1)
        self.neck = ConvNorm(neck + 3, neck, 3)
        self.depth_net = nn.Conv2d(neck, config.depth_bins.count + config.lift_channels, 3, padding=1)
        self.splat = Splat(config.grid.scaled(2, 2, 2), config.depth_bins, backend=config.pool)
        self.free = classes - 1
        self.flat = tuple(i for i, name in enumerate(config.class_names) if name in FLAT_CLASSES)
        self.register_buffer("class_weight", torch.ones(classes))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, statistics: ClassCounts) -> None:
        """Start from what the labels look like: class weights, and the weighted log prior of each height as the last bias."""
        counts = torch.as_tensor(statistics.counts, dtype=torch.float64)
        expected = (self.config.grid.shape[2], len(self.config.class_names))
        if tuple(counts.shape) != expected:
            raise ShapeError(f"class counts must have shape (Z, K) = {expected}, got {tuple(counts.shape)}.")
        frequency = counts.sum(0) / counts.sum()
        weight = (frequency.clamp(min=1e-6) / frequency[-1]) ** -self.config.class_weight_power
        prior = (counts + 1) * weight
        prior = prior / prior.sum(1, keepdim=True)
        with torch.no_grad():
            self.class_weight.copy_(weight.float())  # before it reaches a device without float64
            self.head.bias.copy_(prior.log().flatten().float())
            self.head.weight.mul_(0.1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`: the image encoder."""
        return {"encoder": list(self.encoder.parameters())}

    def lift(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Depth (B * N, D, h, w), a probability, and pooled features (B, Z / 2 * C, Y / 2, X / 2) of the keyframe of each sample."""
        rig = batch.rig[:, 0]
        return self.spread(self.look(batch.images[:, 0], rig), rig, batch.key_ego2global, batch.bev_aug)

    def look(self, images: Tensor, rig: CameraRig) -> Tensor:
        """Depth logits and context (M, D + C, h, w) of images (B, N, 3, H, W)."""
        fine, coarse = self.encoder(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        size = (fine.shape[-2], fine.shape[-1])
        features = self.fine(fine) + F.interpolate(self.coarse(coarse), size=size, mode="nearest")
        return self.depth_net(self.neck(torch.cat([features, self._rays(rig, size).to(features)], 1)))

    def spread(self, lifted: Tensor, rig: CameraRig, key_ego2global: Tensor, bev_aug: Tensor) -> tuple[Tensor, Tensor]:
        """What `look` returned -> what `lift` returns, in the augmented ego frame of `key_ego2global`."""
        bins = self.config.depth_bins.count
        depth = lifted[:, :bins].float().softmax(1)
        plan = self.splat.plan(rig, key_ego2global, bev_aug, (lifted.shape[-2], lifted.shape[-1]), depth.device)
        return depth, torch.asinh(self.splat(depth, lifted[:, bins:], plan))

    def read_out(self, cells: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cells (B, Y, X, *) that `head` maps to (B, Y, X, Z * K) -> `occ_logits`, or in training the logits of some columns."""
        if not self.training or batch.semantics is None or batch.mask_camera is None:
            return {"occ_logits": self.logits_of(cells)}
        labels, mask = batch.semantics.transpose(1, 2), batch.mask_camera.transpose(1, 2)
        columns, share = draw_columns(labels, mask, self.free, self.config.free_columns * len(batch))
        return {"columns": columns, "column_share": share, "column_logits": self._logits(cells.flatten(0, 2)[columns])}

    def logits_of(self, cells: Tensor) -> Tensor:
        """Cells (B, Y, X, *) that `head` maps to (B, Y, X, Z * K) -> (B, X, Y, Z, K)."""
        return self._logits(cells).transpose(1, 2)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`occupancy` cross-entropy, `occupied_iou`, `standing_iou`, and `depth` where configured; needs semantics and mask_camera."""
        config = self.config
        if batch.semantics is None or batch.mask_camera is None:
            raise DataError("this model's loss needs occupancy labels with a camera mask in the batch; use a data set that has gts/ files.")
        labels, mask = (t.transpose(1, 2).flatten(0, 2) for t in (batch.semantics, batch.mask_camera))  # (B*Y*X, Z)
        share: Tensor | float = 1.0
        if "columns" in outputs:
            columns, logits, share = outputs["columns"], outputs["column_logits"], outputs["column_share"]
            labels, mask = labels[columns], mask[columns]
        else:
            logits = outputs["occ_logits"].transpose(1, 2).flatten(0, 2)
        occupancy, occupied, standing = occupancy_losses(logits, labels, mask, self.class_weight, self.free, share, self.flat)
        losses = {
            "occupancy": occupancy,
            "occupied_iou": config.occupied_iou_loss * occupied,
            "standing_iou": config.standing_iou_loss * standing,
        }
        if config.depth_loss:
            if batch.depth is None:
                raise DataError("depth supervision needs depth maps; set data.load_depth=true or model.depth_loss=0.")
            losses["depth"] = config.depth_loss * depth_cross_entropy(outputs["depth"], batch.depth.flatten(0, 1), config.depth_bins)
        return losses

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel."""
        semantics = outputs["occ_logits"].argmax(-1).to(torch.uint8)
        return [Prediction(token, s, self.config.grid, self.config.class_names) for token, s in zip(batch.tokens, semantics, strict=True)]

    def _logits(self, cells: Tensor) -> Tensor:
        """Full-resolution cells -> (*, Z, K)."""
        return self.head(cells).unflatten(-1, (-1, len(self.config.class_names)))

    def _rays(self, rig: CameraRig, size: tuple[int, int]) -> Tensor:
        """Direction of each feature's ray in the camera (M, 3, h, w): x / z, y / z and a guess of the inverse depth of the ground.

        Computed in float64 where the rig lies (see `Batch.to`); the result is float32.
        """
        height, width = rig.image_size
        device = rig.intrinsics.device
        u, v = feature_pixels(width, size[1], "centres", device), feature_pixels(height, size[0], "centres", device)
        grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
        pixels = torch.stack([grid_u, grid_v, torch.ones_like(grid_u)], -1)  # (h, w, 3)
        to_rays = torch.linalg.inv(rig.image_aug.double() @ rig.intrinsics.double()).flatten(0, 1)  # (M, 3, 3)
        rays = torch.einsum("mij,hwj->mihw", to_rays, pixels)
        return torch.cat([rays[:, :2], rays[:, 1:2].clamp(min=0.02).reciprocal() * 0.1], 1).float()


class FlashOccTiny(TinyOccupancy):
    """Single-frame occupancy for small machines.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8
        bev: (B, 2 * bev_channels, Y / 2, X / 2)
        occ_logits: (B, X, Y, Z, K)
    In training mode, when the batch has labels, the last is replaced by what the loss needs, for a fraction of the work:
        columns: (n,) int64 drawn columns, index into the flattened (B, Y, X)
        column_share: (n,) how many columns each one stands for
        column_logits: (n, Z, K)
    """

    def __init__(self, config: FlashOccTinyConfig):
        super().__init__(config)
        heights, classes = config.grid.shape[2], len(config.class_names)
        self.bev_net = UNet(heights // 2 * config.lift_channels, config.bev_channels)
        self.refine = nn.Conv2d(2 * config.bev_channels, 4 * config.voxel_channels, 1)
        self.head = nn.Linear(config.voxel_channels, heights * classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        depth, pooled = self.lift(batch)
        bev = self.bev_net(pooled)
        return {"depth": depth, "bev": bev} | self.read_out(self.cells_of(bev), batch)

    def cells_of(self, bev: Tensor) -> Tensor:
        """The map at full resolution, as `read_out` takes it."""
        return self._doubled(self.refine(bev)).relu()

    def _doubled(self, x: Tensor) -> Tensor:
        """(B, 4 * c, Y / 2, X / 2) -> (B, Y, X, c): a pixel shuffle for channels-last memory."""
        x = x.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))  # (B, Y/2, X/2, 2, 2, c)
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
