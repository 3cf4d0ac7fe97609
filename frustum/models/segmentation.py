"""What PSPNet and DeepLabV3 share: encoder, auxiliary head, loss, and the label maps that come of logits.

image -> encoder -> the head of a method: features and logits -> label map at the size of the image

Shape letters: B batch, C channels, K classes, H W image, h w feature map.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from frustum.config import TRAVELS
from frustum.data.images.cityscapes import CLASS_NAMES
from frustum.data.labels.pixels import PixelLabels
from frustum.losses.label_maps import label_map_loss
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.label_maps import AuxiliaryHead, Conventions, PixelEncoder, Stem, pixel_encoder
from frustum.types.batch import Batch
from frustum.types.contract import ModelConfig
from frustum.types.predictions import PredictedSegmentation, Prediction


class SegmentorConfig(ModelConfig):
    """Settings of networks that label pixels.

    Attributes:
        encoder: of the images.
        pretrained: weights that the encoder starts from: a package's (true) or a file's.
        stem: how a ResNet begins; torchvision's weights need "7x7".
        conventions: published weights of torch 0.4 need "reference" (nn/label_maps.py).
        class_names: K; ids in label maps count them.
        channels: C, of the parts of the head and of the map that the classes are read from.
        auxiliary_channels: of the auxiliary head.
        auxiliary_weight: of its loss; 0 has no such head.
        dropout: probability that a channel is left out ahead of the classes.
        balance: of the loss (losses/label_maps.py): how much more a pixel of a rare class counts; published is 0.
    """

    encoder: PixelEncoder = "resnet101"
    pretrained: Pretrained = False
    stem: Stem = "7x7"
    conventions: Annotated[Conventions, TRAVELS] = "clean"
    class_names: tuple[str, ...] = Field(CLASS_NAMES, min_length=1, max_length=255)
    channels: PositiveInt = 512
    auxiliary_channels: PositiveInt = 512
    auxiliary_weight: NonNegativeFloat = 0.4
    dropout: float = Field(0.1, ge=0, lt=1)
    balance: float = Field(0.0, ge=0, le=1)

    @property
    def is_aligned(self) -> bool:
        """Whether maps are stretched with aligned corners."""
        return self.conventions == "reference"

    def learns_from(self) -> tuple[PixelLabels]:
        """Label maps."""
        return (PixelLabels(self.class_names),)


class Segmentor(nn.Module):
    """An encoder, the auxiliary head, and loss and predictions; a method adds `decode_head`, from the encoder's last map to features
    (B, C, h, w) and logits (B, K, h, w)."""

    decode_head: nn.Module
    all_outputs = False

    def __init__(self, config: SegmentorConfig):
        super().__init__()
        self.config = config
        self.backbone = pixel_encoder(config.encoder, config.pretrained, config.stem, config.conventions)
        self.auxiliary_head = None
        if config.auxiliary_weight:
            channels, classes = (self.backbone.out_channels[0], config.auxiliary_channels), len(config.class_names)
            self.auxiliary_head = AuxiliaryHead(*channels, classes, config.dropout, config.conventions)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the image of each sample; see the class of the method."""
        early, late = self.backbone(batch.images[:, 0, 0])
        features, logits = self.decode_head(late)
        outputs = {"features": features.float(), "logits": logits.float()}
        if (self.training or self.all_outputs) and self.auxiliary_head is not None:
            outputs["aux_logits"] = self.auxiliary_head(early).float()
        return outputs

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`cross_entropy`, and in training `auxiliary`: that of the auxiliary head times its weight."""
        labels, how = batch.need(PixelLabels), (self.config.is_aligned, self.config.balance)
        losses = {"cross_entropy": label_map_loss(outputs["logits"], labels, *how)}
        if "aux_logits" in outputs:
            losses["auxiliary"] = self.config.auxiliary_weight * label_map_loss(outputs["aux_logits"], labels, *how)
        return losses

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The class of the highest logit at each pixel of the network's image."""
        return predicted_labels(outputs["logits"], batch, self.config.class_names, self.config.is_aligned)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.backbone.parameters())}


def predicted_labels(logits: Tensor, batch: Batch, class_names: tuple[str, ...], align_corners: bool = False) -> list[Prediction]:
    """The class of the highest of the logits (B, K, h, w), stretched over the images of the batch, at each of their pixels."""
    logits = F.interpolate(logits.float(), batch.images.shape[-2:], mode="bilinear", align_corners=align_corners)
    parts = (PredictedSegmentation(found, class_names) for found in logits.argmax(1).to(torch.uint8))
    return [Prediction(token, segmentation=part) for token, part in zip(batch.tokens, parts, strict=True)]
