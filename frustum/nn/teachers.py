"""Image encoders whose features others learn from. They see photographs, and are neither trained nor saved with those that learn.

Shape letters: M images, H W image, D features, h w feature map.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ConfigError
from frustum.nn.encoders import efficientnet
from frustum.nn.encoders.dinov2 import PATCH, DinoV2
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.pretrained import Pretrained, to_install
from frustum.nn.encoders.resnet import ResNet

TeacherKind = Literal["dinov2_vits14", "dinov2_vitb14", "resnet50", "efficientnet_lite0"]


class About(NamedTuple):
    """D, what the sides of an image are multiples of, and how images are normalised."""

    features: int
    multiple: int = 1
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)


ABOUT: dict[str, About] = {
    "dinov2_vits14": About(384, PATCH),
    "dinov2_vitb14": About(768, PATCH),
    "resnet50": About(1024),
    "efficientnet_lite0": About(320, 1, efficientnet.MEAN, efficientnet.STD),
}


_PACKAGED = {"resnet50": "ResNet-50", "efficientnet_lite0": "EfficientNet-Lite0"}


def require_weights(kind: str, weights: Pretrained, setting: str, without: str) -> None:
    """Raise ConfigError where a teacher is to have the weights of a package (`true`) and there is none.

    Args:
        kind, weights: see `Teacher`.
        setting: what is put in front of a file's name to choose it, as it is typed.
        without: what can be done without DINOv2's weights, as it is typed.
    """
    if weights is not True:
        return
    if kind not in _PACKAGED:
        file = f"{setting}{kind}_pretrain.pth (of facebookresearch/dinov2)"
        raise ConfigError(f"the teacher {kind} needs a file of weights: {file}. Without it: {without}.")
    if command := to_install(_PACKAGED[kind]):
        raise ConfigError(f"the weights of the teacher {kind} are not installed. Type: {command}  (or give a file, {setting}FILE).")


class Teacher(nn.Module):
    """Photographs (M, 3, H, W), RGB 0..255 -> features (M, D, h, w): of DINOv2's patches, ResNet-50's third stage (stride 16), or
    EfficientNet-Lite0's last block (stride 32).

    Args:
        kind: which network.
        weights: see encoders/pretrained.py; false is a random network of a fixed seed, for tests.
        scale: photographs are resized to this times their size, to the nearest multiples that the network takes.
        image_size: height and width that they are resized to in place of that.
    """

    def __init__(self, kind: TeacherKind, weights: Pretrained, scale: float = 1.0, image_size: tuple[int, int] | None = None):
        super().__init__()
        self.about, self.scale, self.image_size = ABOUT[kind], scale, image_size
        if not weights:
            torch.manual_seed(0)
        self.encoder: nn.Module
        if kind == "resnet50":
            self.encoder = ResNet(50, (3,), weights)
        elif kind == "efficientnet_lite0":
            self.encoder = EfficientNetLite0((15,), pretrained=weights)
        else:
            self.encoder = DinoV2(kind.removeprefix("dinov2_"), weights)  # type: ignore[arg-type]
        self.started_from: str = self.encoder.started_from  # type: ignore[assignment]
        for name, values in (("mean", self.about.mean), ("std", self.about.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, photographs: Tensor) -> Tensor:
        """See the class; float32, computed in the precision around it."""
        wanted = self.image_size or tuple(side * self.scale for side in photographs.shape[-2:])
        size = [max(1, round(side / self.about.multiple)) * self.about.multiple for side in wanted]
        images = photographs.float()
        if size != list(images.shape[-2:]):
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 255)
        found = self.encoder((images - self.get_buffer("mean")) / self.get_buffer("std"))
        return (found[0] if isinstance(found, list) else found).float()
