"""Convolutions and linear layers whose weight is divided by its largest singular value (Miyato et al., ICLR 2018).

Keys are those of torch.nn.utils.spectral_norm (weight_orig, weight_u, weight_v), which most published GANs were saved with. That one hangs
a tensor with a graph on the module, so that a network cannot be copied between two steps; here the weight is computed where it is needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.geometry.transforms import without_autocast

_ITERATIONS = 30  # of the power method, from vectors that are nearly right


class _Spectral(nn.Module):
    """A weight (C_out, *) and the vectors u, v of its largest singular value, which training improves by one power iteration per forward.

    The norm is computed in float32. `eps` is the least length that u and v are divided by.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, shape: tuple[int, ...], bias: bool, eps: float):
        super().__init__()
        self.eps = eps
        self.weight_orig = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        nn.init.kaiming_uniform_(self.weight_orig, a=5**0.5)  # as torch's layers
        matrix = self.weight_orig.detach().flatten(1)
        self.register_buffer("weight_u", F.normalize(torch.randn(len(matrix)), dim=0, eps=eps))
        self.register_buffer("weight_v", F.normalize(torch.randn(matrix.shape[1]), dim=0, eps=eps))

    def weight(self) -> Tensor:
        """The weight with a largest singular value of about 1, in float32."""
        with without_autocast(self.weight_orig):
            matrix = self.weight_orig.float().flatten(1)
            u, v = self.weight_u, self.weight_v
            if self.training:
                with torch.no_grad():
                    v = F.normalize(matrix.T @ u, dim=0, eps=self.eps)
                    u = F.normalize(matrix @ v, dim=0, eps=self.eps)
                    self.weight_u.copy_(u)
                    self.weight_v.copy_(v)
            return self.weight_orig / torch.dot(u, matrix @ v)

    @torch.no_grad()
    def after_averaging(self) -> None:
        """Make u and v those of a weight that is a mean of several: means of u and v are too short, and the weight would be too large."""
        with without_autocast(self.weight_orig):
            matrix, u = self.weight_orig.float().flatten(1), self.weight_u.float()
            for _ in range(_ITERATIONS):
                v = F.normalize(matrix.T @ u, dim=0, eps=self.eps)
                u = F.normalize(matrix @ v, dim=0, eps=self.eps)
            self.weight_u.copy_(u)
            self.weight_v.copy_(v)


class SpectralConv2d(_Spectral):
    """A convolution that pads by half its kernel, with a spectral norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, bias: bool = True, eps: float = 1e-12):
        super().__init__((out_channels, in_channels, kernel, kernel), bias, eps)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h / stride, w / stride)."""
        return F.conv2d(x, self.weight(), self.bias, self.stride, self.padding)


class SpectralLinear(_Spectral):
    """A linear layer with a spectral norm."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, eps: float = 1e-12):
        super().__init__((out_features, in_features), bias, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(*, in_features) -> (*, out_features)."""
        return F.linear(x, self.weight(), self.bias)
