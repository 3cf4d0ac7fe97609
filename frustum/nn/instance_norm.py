"""Instance normalisation of maps, without weights and without kept statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frustum.geometry.transforms import without_autocast


class InstanceNorm(nn.Module):
    """Each channel of each map with mean 0 and variance 1, in training and in evaluation: nn.InstanceNorm2d with its defaults.

    That one has wrong gradients on a CPU for a single map whose gradient lies channels last (torch 2.13), which is what training with
    `runtime.channels_last` and one sample a step gives it. Written out, the gradient is right in any layout.
    """

    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w); statistics are float32."""
        with without_autocast(x):
            variance, mean = torch.var_mean(x.float(), (2, 3), correction=0, keepdim=True)
            scale = (variance + self.eps).rsqrt()
            return (x * scale - mean * scale).to(x.dtype)
