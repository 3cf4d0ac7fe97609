"""The generator of HeSer's blender: colours for a head from the same regions of the target, then a U-Net that paints them into the scene.

head, target -> VGG features -> colour reference of the regions and of the ring -> with masks and the greyed head into a U-Net -> image

Key names are those of HeSer.Pytorch. Shape letters: B batch, H W image, h w its map of compared features, at stride 8 as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ConfigError, ShapeError
from frustum.nn.blending_unet import BlendingUnet
from frustum.nn.colour_reference import colour_reference, normalised
from frustum.nn.encoders.vgg import Vgg19Features
from frustum.nn.head_regions import (
    REGIONS,
    RING,
    ColourPolicy,
    Fallback,
    HeadMasks,
    colour_givers,
    dilation_for,
    grey,
    head_masks,
    matched,
    region_labels,
    region_maps,
    with_ring,
)

STRIDE = 8
"""Of the coarsest map of the U-Net."""
Stride = Literal[1, 2, 4, 8]
"""Of the map of compared features; published: 8."""
BlendConventions = Literal["clean", "heser"]
"""`heser` is what HeSer.Pytorch does: masks grow by a window of 17 pixels whatever the image's size, features are divided by the length
that they had with their mean, a place of the map has the label of its first pixel and a colour from elsewhere in the image (resized with
aligned corners), hats are hair and glasses eyes, a region that the target does not show gets 0 (mid grey), and the cycle compares maps that
were stretched to the image and shrunk again. `clean` scales the window, gives features the length 1, takes the label in the middle of a
place and the mean colour of its pixels with that label, has hats and glasses as regions of their own, lets regions that are missing follow
others or keep their colours, and compares the maps as they are."""


class Referred(NamedTuple):
    """Colours for a head, and what the cycle compares.

    Attributes:
        reference: (B, 3, h, w) colours for the head and for the ring around it; 0 elsewhere.
        labels: (B, h, w) regions of the head, RING around it.
        masks: at the size of the image.
        sent_back: (B, 3, h, w) what the target's regions and its ring get when the reference is sent back to them; 0 elsewhere.
        returned_to: (B, 3, h, w) the target in its dilated head, 0 elsewhere: what the cycle compares `sent_back` with.
        painted: (B, 1, H, W) the brightness of the head, or (B, 3, H, W) its colours, see `Tone`.
        shown: (B, 3 + 2 * len(REGIONS), H, W) the target, and a map of each region of the head and of the target; with `sees_parts`.
    """

    reference: Tensor
    labels: Tensor
    masks: HeadMasks
    sent_back: Tensor
    returned_to: Tensor
    painted: Tensor
    shown: Tensor | None = None


Tone = Literal["own", "matched", "coloured"]
"""The head that the network sees: grey, as light as in its own scene (`own`: HeSer) or with mean and spread of the target's regions
(`matched`); or in colours, with theirs, to which the network adds what they lack (`coloured`)."""


class HeadBlender(nn.Module):
    """Paints a head into a target image; see the module.

    Args:
        width: channels of the U-Net at full resolution; published: 64.
        feature_width: channels of the first stage of VGG-19; published: 64.
        match_channels: of the features that are compared; published: 256.
        temperature: of the colour reference; published: 0.001.
        policy: whose colours the head gets; HeSer has `region` alone.
        conventions: see `BlendConventions`.
        tone: see `Tone`.
        stride: of the map of compared features.
        fallback: whose colours a region gets that the target hardly shows; not with the conventions `heser`, which leave it mid grey.
        sees_parts: the U-Net sees the target with its head, too, and which region is where in head and target, through a first convolution
            of twice its `width`.

    Raises:
        ConfigError: what is not published, with the conventions `heser`.
    """

    def __init__(
        self, width: int = 64, feature_width: int = 64, match_channels: int = 256, temperature: float = 0.001,
        policy: ColourPolicy = "region", conventions: BlendConventions = "clean", tone: Tone = "own",
        stride: Stride = 8, fallback: Fallback = "other", sees_parts: bool = False,
    ):  # fmt: skip
        super().__init__()
        if sees_parts and conventions == "heser":
            raise ConfigError("model.sees_parts=true is not published: it needs model.conventions=clean.")
        self.temperature, self.policy, self.conventions, self.tone = temperature, policy, conventions, tone
        self.stride, self.fallback, self.sees_parts = stride, fallback, sees_parts
        self.feature_ext = Vgg19Features(feature_width, stride)
        seen = (14 if tone == "coloured" else 12) + sees_parts * (3 + 2 * len(REGIONS))
        self.decoder = BlendingUnet(seen, width, 2 * width if sees_parts else None)
        self.phi = nn.Conv2d(self.feature_ext.out_channels, match_channels, 1)
        self.theta = nn.Conv2d(self.feature_ext.out_channels, match_channels, 1)

    def refer(self, head: Tensor, head_parsing: Tensor, target: Tensor, target_parsing: Tensor) -> Referred:
        """Colours from the target for the head.

        Args:
            head, target: (B, 3, H, W) from -1 to 1.
            head_parsing, target_parsing: (B, H, W) ids of CelebAMask-HQ.

        Raises:
            ShapeError: sides that are not multiples of 8, or that differ.
        """
        size = tuple(head.shape[-2:])
        if any(side % STRIDE for side in size) or any(tuple(x.shape[-2:]) != size for x in (head_parsing, target, target_parsing)):
            sizes = ", ".join(str(tuple(x.shape)) for x in (head, head_parsing, target, target_parsing))
            raise ShapeError(f"images and parsing maps must have one size, with sides that are multiples of {STRIDE}, got {sizes}.")
        is_clean = self.conventions == "clean"
        regions, target_regions = (region_labels(parsing, published=not is_clean) for parsing in (head_parsing, target_parsing))
        masks = head_masks(regions, target_regions, dilation_for(max(size)) if is_clean else 17)
        our_pixels, their_pixels = with_ring(regions, masks.ring), with_ring(target_regions, masks.target_ring)
        painted, theirs_painted = (x if self.tone == "coloured" else grey(x) for x in (head, target))
        if self.tone != "own":
            painted = matched(painted, regions, theirs_painted, target_regions, self.policy, self.fallback)
        shown = torch.cat((target, *(region_maps(x).to(target) for x in (regions, target_regions))), 1) if self.sees_parts else None
        step = self.stride
        first = step // 2 if is_clean else 0  # the pixel of a place of the map whose label it has
        labels, theirs = (pixels[:, first::step, first::step] for pixels in (our_pixels, their_pixels))
        queries, keys = (
            normalised(layer(self.feature_ext(image)), self.conventions) for layer, image in ((self.phi, head), (self.theta, target))
        )
        if is_clean:
            ours, kept = colour_givers(labels, theirs, self.policy, self.fallback)
            colours = _means(target, their_pixels, theirs, step)
            reference = colour_reference(queries, keys, ours, theirs, colours, self.temperature)
            reference = torch.where(kept[:, None], _means(head, our_pixels, labels, step), reference)
            sent_back = colour_reference(keys, queries, theirs, ours, reference, self.temperature)
            return Referred(reference, labels, masks, sent_back, colours * (theirs > 0)[:, None], painted, shown)
        reference = colour_reference(queries, keys, labels, theirs, _shrunk(target, step), self.temperature)
        stretched = torch.stack([self._stretched(part, size) for part in _parts(reference, labels)]).sum(0)
        sent_back = colour_reference(keys, queries, theirs, labels, _shrunk(stretched, step), self.temperature)
        around = target * masks.target_union[:, None]
        returned_to = F.interpolate(around, labels.shape[-2:], mode="bilinear", align_corners=False)
        return Referred(reference, labels, masks, sent_back, returned_to, painted, shown)

    def forward(self, head: Tensor, scene: Tensor, referred: Referred) -> Tensor:
        """Paint the head into the scene (B, 3, H, W), which the head's image lies on, in the colours of `refer`: (B, 3, H, W) from -1 to 1.

        The scene is the target of `refer`, or in training the portrait that the target was made of by a flip.
        """
        masks, size = referred.masks, head.shape[-2:]
        parts = [self._stretched(part, size) for part in _parts(referred.reference, referred.labels)]
        is_head, is_union, is_ring = (mask[:, None].to(head.dtype) for mask in (masks.head, masks.union, masks.ring))
        painted = referred.painted.to(head.dtype) * is_head
        seen = [*parts, is_head, scene * (1 - is_union), is_ring, painted]
        made = self.decoder(torch.cat(seen if referred.shown is None else [*seen, referred.shown.to(head.dtype)], 1)).float()
        if self.tone == "coloured":  # the network paints what these colours lack
            made = (made + painted).clamp(-1, 1) if not self.training else made + painted
        return made

    def _stretched(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=self.conventions == "heser")


def _parts(reference: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The reference on the head, and that on the ring; 0 elsewhere."""
    is_ring = (labels == RING)[:, None]
    return reference.masked_fill(is_ring, 0.0), reference.masked_fill(~is_ring, 0.0)


def _shrunk(images: Tensor, stride: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, h, w) float32; the outermost pixels stay the outermost ones."""
    height, width = images.shape[-2:]
    return F.interpolate(images.float(), (height // stride, width // stride), mode="bilinear", align_corners=True)


def _means(images: Tensor, pixels: Tensor, labels: Tensor, stride: int) -> Tensor:
    """Means of images (B, 3, H, W) over the pixels of each place that have its label: (B, 3, h, w) float32.

    `pixels` (B, H, W) are the labels of the pixels, `labels` (B, h, w) those of the places, each that of a pixel inside.
    """
    wide = labels.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    is_same = (pixels == wide)[:, None].float()
    return F.avg_pool2d(images.float() * is_same, stride) / F.avg_pool2d(is_same, stride)
