"""Heads in parsing maps: which pixels belong to them, to which of ten regions, and to the ring that two heads leave between them.

Ids are the 19 classes of CelebAMask-HQ in the order of zllrunning's parser. Shape letters: B batch, H W image.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError
from frustum.geometry.transforms import without_autocast

Region = Literal["skin", "hair", "eyes", "brows", "ears", "nose", "lips", "teeth", "hat", "glasses"]
REGIONS: dict[Region, tuple[int, ...]] = {
    "skin": (1,), "hair": (17,), "eyes": (4, 5), "brows": (2, 3), "ears": (7, 8, 9), "nose": (10,), "lips": (12, 13), "teeth": (11,),
    "hat": (18,), "glasses": (6,),
}  # fmt: skip
"""The ids of each region; the label of a region is its place here, counted from 1."""
LABELS: dict[Region, int] = {region: i for i, region in enumerate(REGIONS, start=1)}
_PUBLISHED: dict[Region, Region] = {"hat": "hair", "glasses": "eyes"}  # HeSer.Pytorch has eight regions: a hat gets the colour of hair
FEATURES = (LABELS["eyes"], LABELS["brows"], LABELS["lips"], LABELS["teeth"])
"""What moves in a face, and is small."""
RING = len(REGIONS) + 1
"""The label of the ring around a head."""
_MAX_RATIO = 2.0  # of spreads: a target with deep shadows does not make a head of them


def region_labels(parsing: Tensor, published: bool = False) -> Tensor:
    """Parsing maps (B, H, W) of any integer type -> (B, H, W) int64: the label of the region, 0 outside the head and for unknown ids.

    With `published`, hats are hair, and glasses are eyes.
    """
    table = torch.zeros(256, dtype=torch.int64, device=parsing.device)
    for region, ids in REGIONS.items():
        table[list(ids)] = LABELS[_PUBLISHED.get(region, region) if published else region]
    return table[parsing.long()]


def region_ids(labels: Tensor) -> Tensor:
    """Labels of regions, of any shape -> uint8 ids of CelebAMask-HQ, for each region the first of its ids; 0 for no region."""
    return torch.tensor([0, *(ids[0] for ids in REGIONS.values())], dtype=torch.uint8, device=labels.device)[labels]


def region_maps(regions: Tensor) -> Tensor:
    """Labels (B, H, W) -> (B, len(REGIONS), H, W) bool: which pixels belong to each region."""
    return regions[:, None] == torch.arange(1, len(REGIONS) + 1, device=regions.device)[:, None, None]


def dilated(mask: Tensor, size: int) -> Tensor:
    """A mask (B, H, W) bool, grown by (size - 1) / 2 pixels in all directions. Raises ConfigError for an even size."""
    if size < 1 or size % 2 == 0:
        raise ConfigError(f"a mask is dilated by a window with an odd number of pixels, not {size}.")
    return F.max_pool2d(mask[:, None].float(), size, 1, size // 2)[:, 0] > 0.5


def dilation_for(side: int) -> int:
    """The window that is as large, compared with an image of `side` pixels, as the published 17 is compared with 512: an odd number."""
    return max(1, round((17 * side / 512 - 1) / 2) * 2 + 1)


class HeadMasks(NamedTuple):
    """Where the head that is put in (A) and the head of the target (T) are; all (B, H, W) bool.

    Attributes:
        head: pixels of head A.
        union: of both heads, dilated: what is painted anew.
        ring: of the union without head A.
        target_union: of head T, dilated.
        target_ring: of that without head T: where the scene shows next to the head.
    """

    head: Tensor
    union: Tensor
    ring: Tensor
    target_union: Tensor
    target_ring: Tensor


def head_masks(regions: Tensor, target_regions: Tensor, dilation: int = 17) -> HeadMasks:
    """Masks of two maps of labels (B, H, W), see `region_labels`; `dilation` is the window in pixels, 17 in the published code."""
    head, target = regions > 0, target_regions > 0
    union, target_union = dilated(head | target, dilation), dilated(target, dilation)
    return HeadMasks(head, union, union & ~head, target_union, target_union & ~target)


def with_ring(regions: Tensor, ring: Tensor) -> Tensor:
    """Labels of regions (B, H, W), and RING on the ring (B, H, W) bool."""
    return torch.where(ring, RING, regions)


# Pixels of 512 x 512 from which on a region of the target is large enough to give its colours. Those of ears, teeth, hat, glasses are ours.
_MIN_PIXELS: dict[Region, int] = {
    "skin": 3000, "hair": 6000, "eyes": 150, "brows": 200, "ears": 64, "nose": 800, "lips": 730, "teeth": 64, "hat": 1500, "glasses": 150,
}  # fmt: skip
# Which region of the target gives its colours where it does not show the same one (GHOST 2.0, whose beards are skin here; hair is ours).
_INSTEAD: dict[Region, Region] = {"ears": "skin", "nose": "skin", "brows": "hair", "hair": "brows"}

ColourPolicy = Literal["source", "skin", "region"]
"""Whose colours a head gets in another scene: its own; those of the target for what is skin, and its own elsewhere; the target's for every
region, hair too, as in HeSer. FOLLOWS says which regions take those of the target."""
FOLLOWS: dict[ColourPolicy, tuple[Region, ...]] = {
    "source": (), "skin": ("skin", "ears", "nose", "lips"), "region": tuple(REGIONS),
}  # fmt: skip


Fallback = Literal["other", "own"]
"""What a region does that the target hardly shows: it takes the colours of another one (ears and nose those of the skin, brows those of the
hair, as in GHOST 2.0, and hair those of the brows), or keeps its own."""


def colour_givers(
    regions: Tensor, target_regions: Tensor, policy: ColourPolicy = "region", fallback: Fallback = "other"
) -> tuple[Tensor, Tensor]:
    """Where a head's colours come from, by a policy and by what the target shows.

    A region follows the same one of the target where that is large enough, else another one where there is one (`Fallback`) that is, else
    it keeps its own colours.

    Args:
        regions, target_regions: (B, H, W) labels, see `region_labels`; a RING looks at the other's.
        policy, fallback: see `ColourPolicy` and `Fallback`.

    Returns:
        labels of the target's regions (B, H, W) to take the colours from, and (B, H, W) bool where the head keeps its own.
    """
    scale = target_regions[0].numel() / 512**2
    large = {region: (target_regions == label).flatten(1).sum(1) >= max(1, scale * _MIN_PIXELS[region]) for region, label in LABELS.items()}
    givers, keeps = [torch.zeros_like(large["skin"], dtype=torch.int64)], [torch.zeros_like(large["skin"])]
    for region, label in LABELS.items():
        other = _INSTEAD.get(region, region) if fallback == "other" else region
        giver = torch.where(large[region], label, LABELS[other])
        givers.append(giver)
        follows = region in FOLLOWS[policy]
        keeps.append(~(large[region] | large[other]) if follows else torch.ones_like(large[region]))
    flat = regions.flatten(1)
    givers.append(torch.full_like(givers[0], RING))
    keeps.append(keeps[0])
    found, kept = (torch.stack(rows, 1).gather(1, flat).view_as(regions) for rows in (givers, keeps))
    return found, kept


def grey(images: Tensor) -> Tensor:
    """RGB images (B, 3, H, W) -> their brightness (B, 1, H, W): 0.2989 R + 0.587 G + 0.114 B."""
    red, green, blue = images.split(1, 1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def matched(
    head: Tensor,
    regions: Tensor,
    target: Tensor,
    target_regions: Tensor,
    policy: ColourPolicy = "region",
    fallback: Fallback = "other",
) -> Tensor:
    """A head (B, C, H, W) float32, of which every region has mean and spread of that of the target that gives colours.

    So a head that is put into another scene says what is light and dark in it, but not how light it was itself. Regions that keep their own
    colours (`colour_givers`) stay as they are; no spread grows more than twofold.

    Args:
        head, target: brightness or colours (B, C, H, W).
        regions, target_regions: (B, H, W) labels, see `region_labels`.
        policy, fallback: see `ColourPolicy` and `Fallback`.
    """
    with without_autocast(head):
        channels = head.shape[1]
        ours, theirs = head.float().flatten(2), target.float().flatten(2)
        givers, kept, labels, others = (
            found.flatten(1)[:, None].expand(-1, channels, -1)
            for found in (*colour_givers(regions, target_regions, policy, fallback), regions, target_regions)
        )
        (mean, spread), (wanted, wide) = _statistics(ours, labels), _statistics(theirs, others)
        ratio = (wide.gather(2, givers) / spread.gather(2, labels)).clamp(max=_MAX_RATIO)
        found = (ours - mean.gather(2, labels)) * ratio + wanted.gather(2, givers)
        return torch.where(kept | (labels == 0), ours, found).view(head.shape)


def _statistics(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, C, RING + 1) of values (B, C, P) by label; of a label that is not there 0 and the least deviation."""
    zeros = values.new_zeros(*values.shape[:2], RING + 1)
    counts = zeros.scatter_add(2, labels, torch.ones_like(values)).clamp(min=1)
    mean = zeros.scatter_add(2, labels, values) / counts
    square = zeros.scatter_add(2, labels, (values - mean.gather(2, labels)).square()) / counts
    return mean, square.sqrt().clamp(min=1e-3)
