"""VGG-19 (Simonyan and Zisserman, ICLR 2015) without its classifier: maps of an image that losses and correspondences compare."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.checkpoint.upstream_file import open_state
from frustum.nn.encoders.pretrained import fill

# channels and convolutions of the five stages
_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class Vgg19Features(nn.Module):
    """The map after relu4_4, at stride 8 as published: 3x3 convolutions called `conv1_1` to `conv5_4`, maxima of 2 x 2 between the stages.

    The names are those of the blender of HeSer.Pytorch. Its files hold conv5_1 to conv5_4 too, which no result depends on.

    Args:
        width: channels of the first stage, 64 in VGG-19; those of the others are as many times more as there.
        stride: 8, or 4, 2, 1: without the last, the last two, all three maxima between the stages.

    Attributes:
        out_channels: of the map, 8 * width.
    """

    def __init__(self, width: int = 64, stride: int = 8):
        super().__init__()
        self.out_channels, self.stride = 8 * width, stride
        inside = 3
        for i, (channels, count) in enumerate(_STAGES[:4], start=1):
            for j in range(1, count + 1):
                wide = channels * width // 64
                self.add_module(f"conv{i}_{j}", nn.Conv2d(inside, wide, 3, padding=1))
                inside = wide

    def forward(self, images: Tensor) -> Tensor:
        """Images (M, 3, H, W) -> (M, out_channels, H / stride, W / stride)."""
        x = images
        for i, (_, count) in enumerate(_STAGES[:4], start=1):
            x = F.max_pool2d(x, 2) if 1 < 2 ** (i - 1) <= self.stride else x
            for j in range(1, count + 1):
                x = self.get_submodule(f"conv{i}_{j}")(x).relu()
        return x


class Vgg19Maps(nn.Module):
    """The maps after every ReLU up to relu5_1, with torchvision's key names (`features.0` to `features.28`).

    Means of 2 x 2 take the place of the maxima between the stages, as in the perceptual loss of LPD and HeSer.Pytorch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        inside, index = 3, 0
        for stage, (channels, count) in enumerate(_STAGES):
            for _ in range(count if stage < 4 else 1):
                self.features[str(index)] = nn.Conv2d(inside, channels, 3, padding=1)
                inside, index = channels, index + 2
            index += 1  # the pooling

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (M, 3, H, W), normalised as the weights need -> 13 maps, finest first."""
        x, maps, last = images, [], -2
        for name, conv in self.features.items():
            if int(name) - last > 2:
                x = F.avg_pool2d(x, 2)
            x, last = conv(x).relu(), int(name)
            maps.append(x)
        return maps


def vgg19_maps(file: str) -> Vgg19Maps:
    """The network with the weights of a file of VGG-19: torchvision's `vgg19-*.pth`, or Caffe's in the same names.

    Raises:
        CheckpointError: the file is unreadable, or does not hold such weights.
    """
    network = Vgg19Maps()
    wanted = network.state_dict()
    fill(network, {key: value for key, value in open_state(file).state.items() if key in wanted}, f"VGG-19 in {file}")
    return network
