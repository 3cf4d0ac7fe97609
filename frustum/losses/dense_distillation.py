"""What a small dense network learns from a large one: losses between two maps of logits or features, of images, maps or voxels.

Maps are (B, C, *) with any number of spatial dimensions; logits of voxels become such maps by `voxel_maps`. No gradient reaches the
teacher, and everything is computed in float32 at least. Losses have a weight of 1; references divide differently: `mean_over` and the
docstrings say by what. Reference code: TorchDistiller, structure knowledge distillation (SKD), mmrazor, IFVD.

Shape letters: B batch, C channels or classes, * spatial dimensions, P positions, X Y Z K voxels and their classes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.ops.channel_divergence import DivergenceBackend, DivergenceValue, channel_divergence

MeanOver = Literal["positions", "elements", "channels", "samples", "map"]
"""By what a sum is divided: B * P, B * P * C, B * C, B, or P alone, which grows with the batch. With a mask P counts those in it."""
VoxelReading = Literal["class", "class_height"]
_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def cwd_loss(
    student: Tensor,
    teacher: Tensor,
    tau: float = 4.0,
    mask: Tensor | None = None,
    value: DivergenceValue = "kl",
    channels: int | None = None,
    backend: DivergenceBackend = "auto",
) -> Tensor:
    """Channel-wise distillation, CWD (Shu et al., ICCV 2021): each channel is a distribution over positions, which the student imitates.

    tau^2 / (B * C) times the sum of KL(teacher || student) over samples and channels; a mean, whatever the number of positions. Published
    with a weight of 3 for logits and of 50 for features, at tau 4.

    Args:
        student, teacher: (B, C, *).
        tau: temperature.
        mask: (B, *) bool, the positions that count; both distributions are over these alone, so that each still sums to one.
        value: `kl`, or `ce` as in the mmsegmentation and mmdetection forks of a co-author: another value, the same gradient.
        channels: C of the divisor. References with an adapter divide by the student's number of channels before it.
        backend: see `ops.channel_divergence`.

    Raises:
        ShapeError: the maps or the mask do not fit. ConfigError: a temperature, value or backend that does not exist.
    """
    _check(student, teacher)
    found = channel_divergence(student, teacher, tau, mask, value, backend)
    return found.sum() * (tau**2 / (len(student) * (channels or student.shape[1])))


def kd_loss(
    student: Tensor,
    teacher: Tensor,
    tau: float = 4.0,
    mask: Tensor | None = None,
    mean_over: MeanOver = "positions",
    value: DivergenceValue = "kl",
    tau_squared: bool = True,
) -> Tensor:
    """Knowledge distillation at each position (Hinton et al., 2015): KL(teacher || student) of the softmax over classes.

    References: `positions` is Hinton's mean (TorchDistiller's spatial form); `samples` mmrazor's `batchmean`; `elements` with
    `tau_squared=False` TorchDistiller's KD; `map` with `value="ce"` and tau 1 the pixel-wise loss PI of SKD.

    Args:
        student, teacher: (B, C, *) logits.
        tau: temperature.
        mask: (B, *) bool, the positions that count.
        mean_over: what the sum is divided by.
        value: `kl`, or `ce`, which adds the entropy of the teacher.
        tau_squared: whether tau^2 multiplies the result, so that gradients keep their size at any tau.

    Raises:
        ShapeError: the maps or the mask do not fit. ConfigError: a temperature, value or divisor that does not exist.
    """
    _check(student, teacher, mask)
    if not tau > 0 or value not in ("kl", "ce"):
        raise ConfigError(f"kd_loss needs a temperature tau above 0 and the value 'kl' or 'ce', got {tau} and {value!r}.")
    with without_autocast(student):
        log_q, log_p = (x.log_softmax(1) for x in (_number(student) / tau, _number(teacher.detach()) / tau))
        terms = log_p.exp() * (log_p - log_q if value == "kl" else -log_q)
        return _mean(terms, mask, mean_over) * (tau**2 if tau_squared else 1)


def pixel_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None, mean_over: MeanOver = "elements") -> Tensor:
    """Squared difference of features at each position (FitNets, Romero et al., ICLR 2015); `elements` is the mean squared error.

    TorchDistiller's `mse` forms are this of softmaxed or averaged maps, divided by `channels` or `positions`.

    Args:
        student, teacher: (B, C, *).
        mask: (B, *) bool, the positions that count.
        mean_over: what the sum is divided by.

    Raises:
        ShapeError: the maps or the mask do not fit. ConfigError: a divisor that does not exist.
    """
    _check(student, teacher, mask)
    with without_autocast(student):
        return _mean((_number(student) - _number(teacher.detach())) ** 2, mask, mean_over)


def pair_loss(student: Tensor, teacher: Tensor, scale: float | None = 0.5, norm_gradient: bool = False) -> Tensor:
    """Pair-wise distillation PA (Liu et al., CVPR 2019): how alike any two positions are, by the cosine of their features.

    The sum of the squared differences of both affinities (P x P), divided by P^2 and B. With more positions than channels it is taken from
    products of C x C instead, without the affinities: |T'T - S'S|^2 = |TT'|^2 - 2 |TS'|^2 + |SS'|^2, in float64.

    Args:
        student, teacher: (B, C, *); the numbers of channels may differ.
        scale: parts of the map, as a share of its sides, whose largest values are compared; None compares all positions.
        norm_gradient: whether the gradient flows through the length of the features, which the reference treats as a constant.

    Raises:
        ShapeError: the maps do not fit. ConfigError: a scale out of range.
    """
    _check(student, teacher, any_channels=True)
    if scale is not None and not 0 < scale <= 1:
        raise ConfigError(f"the scale of pair_loss is a share of the map above 0 and at most 1, or None, got {scale}.")
    with without_autocast(student):
        found = []
        for x in (_number(student), _number(teacher.detach())):
            if scale is not None:
                window = [max(1, int(side * scale)) for side in x.shape[2:]]
                x = _POOLS[x.dim() - 2](x, window, window, ceil_mode=True)
            length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
            found.append((x / ((length if norm_gradient else length.detach()) + 1e-8)).flatten(2))
        s, t = found  # (B, C, P)
        positions = s.shape[2]
        if positions > max(s.shape[1], t.shape[1]):
            s_d, t_d = s.double(), t.double()
            total = sum(k * ((a @ b.mT) ** 2).sum() for k, a, b in ((1, t_d, t_d), (-2, t_d, s_d), (1, s_d, s_d)))
        else:
            total = ((t.mT @ t - s.mT @ s) ** 2).sum()
        return (total / positions**2 / len(s)).to(s.dtype)  # type: ignore[union-attr]


def at_loss(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """Attention transfer, AT (Zagoruyko and Komodakis, ICLR 2017): where a network looks, the mean of |feature|^power over channels.

    Attention maps of each sample have the length 1; the mean of their squared differences over B and P.

    Args:
        student, teacher: (B, C, *); the numbers of channels may differ.
        power: 2 in mmrazor.

    Raises:
        ShapeError: the maps do not fit.
    """
    _check(student, teacher, any_channels=True)
    with without_autocast(student):
        s, t = (F.normalize((_number(x).abs() ** power).mean(1).flatten(1), dim=1) for x in (student, teacher.detach()))
        return F.mse_loss(s, t)


def ifvd_loss(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Intra-class feature variation, IFVD (Wang et al., ECCV 2020): how like its class, in this sample, each position is.

    The cosine of each feature and the mean feature of its class; the mean of the squared differences over B and P.

    Args:
        student, teacher: (B, C, *); the numbers of channels may differ.
        labels: (B, *) integer class ids of any size; the nearest one is taken. A position with another id than 0..num_classes - 1 adds
            nothing to the sum, but counts in the mean, as in the reference.
        num_classes: how many.

    Raises:
        ShapeError: the maps or the labels do not fit.
    """
    _check(student, teacher, any_channels=True)
    if labels.dim() != student.dim() - 1 or len(labels) != len(student):
        raise ShapeError(
            f"labels of maps {tuple(student.shape)} must be (B, *), {student.dim() - 1} dimensions, got {tuple(labels.shape)}."
        )
    with without_autocast(student):
        ids = F.interpolate(labels[:, None].float(), student.shape[2:], mode="nearest").long().flatten(2)  # (B, 1, P)
        is_known = (ids >= 0) & (ids < num_classes)
        ids = ids.where(is_known, num_classes)
        count = torch.zeros(len(ids), 1, num_classes + 1, device=ids.device).scatter_add_(2, ids, torch.ones_like(ids, dtype=torch.float32))
        alike = []
        for x in (_number(student), _number(teacher.detach())):
            x = x.flatten(2)
            places = ids.expand_as(x)
            total = x.new_zeros(*x.shape[:2], num_classes + 1).scatter_add(2, places, x)
            centres = (total / (count + 1e-6)).gather(2, places).where(is_known, x)
            alike.append(F.cosine_similarity(x, centres, dim=1))
        return F.mse_loss(alike[0], alike[1])


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Pearson distillation, PKD (Cao et al., NeurIPS 2022): features alike but for a scale and an offset of each channel.

    Channels are standardised over the batch and all positions; half the mean squared difference, which is about 1 minus their correlation.

    Args:
        student, teacher: (B, C, *).

    Raises:
        ShapeError: the maps do not fit, or there are fewer than two positions in the batch.
    """
    _check(student, teacher)
    if student.shape[2:].numel() * len(student) < 2:
        raise ShapeError(f"pkd_loss standardises over a batch and its positions and needs at least two, got {tuple(student.shape)}.")
    with without_autocast(student):
        rows = [_number(x).transpose(0, 1).flatten(1) for x in (student, teacher.detach())]  # (C, B * P)
        s, t = ((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6) for x in rows)
        return F.mse_loss(s, t) / 2


def dist_loss(student: Tensor, teacher: Tensor, tau: float = 1.0, inter: float = 1.0, intra: float = 1.0) -> Tensor:
    """DIST (Huang et al., NeurIPS 2022): probabilities of classes that correlate with the teacher's rather than equal them.

    tau^2 times (inter times the mean over positions of 1 minus the correlation over classes, plus intra times the mean over classes of
    1 minus the correlation over the positions of the batch).

    Args:
        student, teacher: (B, C, *) logits.
        tau: temperature of the softmax over classes.
        inter, intra: weights of both terms.

    Raises:
        ShapeError: the maps do not fit, or have one class. ConfigError: a temperature that does not exist.
    """
    _check(student, teacher)
    if student.shape[1] < 2:
        raise ShapeError(f"dist_loss correlates the probabilities of at least two classes (B, C, *), got {tuple(student.shape)}.")
    if not tau > 0:
        raise ConfigError(f"the temperature tau must be above 0, got {tau}.")
    with without_autocast(student):
        q, p = ((_number(x) / tau).softmax(1).transpose(0, 1).flatten(1) for x in (student, teacher.detach()))  # (C, B * P)
        apart = (1 - F.cosine_similarity(q - q.mean(dim, keepdim=True), p - p.mean(dim, keepdim=True), dim=dim).mean() for dim in (0, 1))
        return tau**2 * sum(weight * value for weight, value in zip((inter, intra), apart, strict=True))  # type: ignore[return-value]


def voxel_maps(logits: Tensor, mask: Tensor | None = None, reading: VoxelReading = "class") -> tuple[Tensor, Tensor | None]:
    """Logits of voxels as the maps of these losses, and a mask that fits them.

    Args:
        logits: (B, X, Y, Z, K).
        mask: (B, X, Y, Z) bool.
        reading: `class` has a map of all voxels for each class, (B, K, X, Y, Z); `class_height` one of each height, (B * Z, K, X, Y).

    Raises:
        ShapeError: logits or mask of another shape. ConfigError: a reading that does not exist.
    """
    if logits.dim() != 5 or (mask is not None and mask.shape != logits.shape[:-1]):
        given = "" if mask is None else f" and a mask {tuple(mask.shape)}"
        raise ShapeError(f"voxel_maps needs logits (B, X, Y, Z, K) and a mask (B, X, Y, Z) or none, got {tuple(logits.shape)}{given}.")
    if reading == "class":
        return logits.movedim(-1, 1), mask
    if reading == "class_height":
        return logits.permute(0, 3, 4, 1, 2).flatten(0, 1), None if mask is None else mask.movedim(-1, 1).flatten(0, 1)
    raise ConfigError(f"voxel logits are read by 'class' or 'class_height', got {reading!r}.")


def _number(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check(student: Tensor, teacher: Tensor, mask: Tensor | None = None, any_channels: bool = False) -> None:
    """Raise ShapeError unless both are maps of one batch, size and, if these matter, number of channels."""
    shapes = f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
    if not 3 <= student.dim() <= 5 or student.dim() != teacher.dim() or not student.numel() or not teacher.numel():
        raise ShapeError(f"a distillation loss needs two maps (B, C, *) with one to three spatial dimensions, none empty, got {shapes}.")
    if len(student) != len(teacher):
        raise ShapeError(f"student and teacher must see the same samples, got {shapes}.")
    if student.shape[2:] != teacher.shape[2:]:
        raise ShapeError(f"student and teacher must have maps of one size, got {shapes}; bring them there by nn.adapters.to_same_size.")
    if not any_channels and student.shape[1] != teacher.shape[1]:
        raise ShapeError(
            f"this loss compares channel by channel, got {shapes}; put an nn.adapters.Adapter({student.shape[1]}, {teacher.shape[1]}) "
            "behind the student, or take a loss that allows it: at_loss, ifvd_loss, pair_loss."
        )
    places = student.shape[:1] + student.shape[2:]
    if mask is not None and (mask.shape != places or mask.dtype != torch.bool):
        raise ShapeError(f"the mask of positions must be bool of shape {tuple(places)}, got {mask.dtype} of {tuple(mask.shape)}.")


def _mean(terms: Tensor, mask: Tensor | None, mean_over: MeanOver) -> Tensor:
    """Sum of terms (B, C, *), over the positions in the mask, divided as asked."""
    batch, channels = terms.shape[:2]
    positions: Tensor | int = terms.shape[2:].numel() * batch
    if mask is not None:
        terms, positions = terms.where(mask[:, None], 0), mask.sum().clamp(min=1)
    divisors = {
        "positions": positions, "elements": positions * channels, "channels": batch * channels, "samples": batch, "map": positions / batch,
    }  # fmt: skip
    if mean_over not in divisors:
        raise ConfigError(f"mean_over must be one of {', '.join(divisors)}, got {mean_over!r}.")
    return terms.sum() / divisors[mean_over]
