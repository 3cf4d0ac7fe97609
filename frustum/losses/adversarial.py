"""Losses of networks that are trained against each other, and of generated images of people.

Everything is computed in float32 at least, and is a mean, so that it does not grow with the batch or the image. Weights are the model's.
Shape letters: B batch, C channels, H W image, * any shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast

Adversarial = Literal["lsgan", "hinge"]
"""Least squares towards 1 and 0 (Mao et al., ICCV 2017; HeSer.Pytorch), or hinge (Lim and Ye, 2017; LPD and GHOST 2.0)."""


def discriminator_loss(fake: Tensor, real: Tensor, kind: Adversarial = "lsgan") -> Tensor:
    """What a discriminator minimises: `lsgan` mean (real - 1)^2 + mean fake^2; `hinge` mean relu(1 - real) + mean relu(1 + fake).

    HeSer.Pytorch's and GHOST 2.0's both add the two means without a factor of 1/2.

    Args:
        fake, real: scores (*) of generated and true images.
        kind: see `Adversarial`.

    Raises:
        ConfigError: an unknown kind.
    """
    with without_autocast(fake):
        fake, real = fake.float(), real.float()
        if _checked(kind) == "lsgan":
            return (real - 1).square().mean() + fake.square().mean()
        return (1 - real).relu().mean() + (1 + fake).relu().mean()


def generator_loss(fake: Tensor, kind: Adversarial = "lsgan") -> Tensor:
    """What a generator minimises: `lsgan` mean (fake - 1)^2, `hinge` -mean fake. Raises ConfigError for an unknown kind."""
    with without_autocast(fake):
        fake = fake.float()
        return (fake - 1).square().mean() if _checked(kind) == "lsgan" else -fake.mean()


def _checked(kind: Adversarial) -> Adversarial:
    if kind not in ("lsgan", "hinge"):
        raise ConfigError(f"an adversarial loss is 'lsgan' or 'hinge', not {kind!r}.")
    return kind


def identity_loss(codes: Tensor, others: Tensor) -> Tensor:
    """1 - cosine of identity codes (B, D), each sample's: (B,), from 0 to 2. Raises ShapeError if the codes do not fit each other."""
    _same(codes, others, "codes")
    with without_autocast(codes):
        return 1 - F.cosine_similarity(codes.float(), others.float(), dim=1)


def perceptual_loss(maps: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference of feature maps. Others get no gradient; see `vgg_input` for what a VGG-19 reads.

    Raises:
        ShapeError: other numbers of maps, or maps of other shapes.
    """
    return torch.stack(_differences(maps, others)).sum()


def feature_matching_loss(maps: Sequence[Tensor], others: Sequence[Tensor], mean_over_layers: bool = False) -> Tensor:
    """Mean absolute difference of a discriminator's maps of generated and of true images, whose gradient is cut.

    Args:
        maps, others: of generated and of true images, one for each layer.
        mean_over_layers: the mean over layers, as LPD does, or else their sum, as GHOST 2.0 does.

    Raises:
        ShapeError: other numbers of maps, or maps of other shapes.
    """
    terms = torch.stack(_differences(maps, others))
    return terms.mean() if mean_over_layers else terms.sum()


def _differences(maps: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    if len(maps) != len(others) or not maps:
        raise ShapeError(f"both sides need the maps of the same layers, got {len(maps)} and {len(others)}.")
    for a, b in zip(maps, others, strict=True):
        _same(a, b, "maps")
    with without_autocast(maps[0]):
        return [(a.float() - b.detach().float()).abs().mean() for a, b in zip(maps, others, strict=True)]


def regions_loss(images: Tensor, others: Tensor, labels: Tensor, wanted: Sequence[int]) -> Tensor:
    """Mean absolute difference of images (B, C, H, W) in each region, mean over the regions that are there: a small one counts as a large.

    Args:
        labels: (B, H, W) integers, the region of each pixel.
        wanted: labels of the regions that count.

    Raises:
        ShapeError: images that differ in shape, or labels of another size.
    """
    _same(images, others, "images")
    if tuple(labels.shape) != (len(images), *images.shape[-2:]):
        raise ShapeError(f"labels {tuple(labels.shape)} do not lie on images {tuple(images.shape)}.")
    with without_autocast(images):
        difference = (images.float() - others.float()).abs().mean(1)
        masks = torch.stack([labels == label for label in wanted]).flatten(1).float()
        sums, counts = masks @ difference.flatten(), masks.sum(1)
        return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def mask_dice_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    """-log(2 sum p q / (sum p^2 + sum q^2)) of masks (B, *), mean over samples: 0 where they are equal, 0 for two empty ones (LPD).

    Args:
        probabilities: 0 to 1.
        truth: 0 to 1, or bool.

    Raises:
        ShapeError: masks that do not fit each other.
    """
    _same(probabilities, truth, "masks")
    with without_autocast(probabilities):
        p, q = probabilities.float().flatten(1), truth.float().flatten(1)
        both, each = 2 * (p * q).sum(1), p.square().sum(1) + q.square().sum(1)
        return -((both + 1e-6) / (each + 1e-6)).log().mean()


def vgg_input(images: Tensor, order: Literal["bgr", "rgb"] = "bgr") -> Tensor:
    """Images (B, 3, H, W), RGB from -1 to 1, as Caffe's VGG weights read them: BGR, 0 to 255, without the mean of each channel.

    `rgb` leaves the channels in their order, and takes blue's mean from red: HeSer.Pytorch and LPD do so with the same weights.
    """
    pixels = (images + 1) * 127.5
    mean = pixels.new_tensor([103.939, 116.779, 123.680])[:, None, None]
    return (pixels.flip(1) if order == "bgr" else pixels) - mean


def _same(a: Tensor, b: Tensor, what: str) -> None:
    if a.shape != b.shape:
        raise ShapeError(f"{what} of both sides must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}.")
