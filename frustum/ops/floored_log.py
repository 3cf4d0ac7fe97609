"""A logarithm whose gradient goes on below a floor."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def floored_log(x: Tensor, least: float) -> Tensor:
    """log x of any x (*), float32: below `least` (> 0) it goes on as a straight line, so that what is too small still learns."""
    x = x.float()
    line = (x - least) / least + math.log(least)
    return torch.where(x > least, x.clamp(min=least).log(), line)
