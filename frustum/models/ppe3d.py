"""3DPPE (Shu et al., ICCV 2023, arXiv:2211.14710): DETR-style detection whose positional encoding is the 3D point of each pixel.

images -> encoder -> CPFPN -> depth net -> a 3D point per feature -> its embedding, and memory -> decoder of Q queries -> boxes

PETR (Liu et al., ECCV 2022) is the same network with another encoding: candidate points along the ray instead of one point. Which encoding
is one setting, as in the paper's table 5. Only the oracle `point3d_lidar` needs LiDAR to predict; all others need it at most to learn.

The network works in the ego frame when it is trained here. Official files were trained in the frame of LIDAR_TOP: with `frame=lidar`
cameras and labels are brought there, and boxes back (nn/lidar_frame.py). Converted files hold that setting, and the `box_convention` that
they were trained with: `mmdet3d<1.0` those of PETR, `mmdet3d>=1.0` those of 3DPPE.

With a past frame (PETRv2, 3DPPE-v2) its images are further tokens, placed in the keyframe's map by the ego poses, and velocities are
learned in metres per time between the frames. As published that is a camera sweep: one of the moments 3 to 26 before the keyframe, at
12 Hz, in training, moment 14 (1.25 s ago) in evaluation. Data without images between keyframes need `past_frame=keyframe`.

Module names are those of the published checkpoints. Shape letters: B batch, N cameras, M = B * N images, H W image, h w feature map,
C channels, D depths, Q queries, L decoder layers, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.config import TRAVELS
from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.errors import DataError
from frustum.geometry import CameraRig
from frustum.geometry.transforms import send
from frustum.losses.depth import block_minimum
from frustum.losses.pixel_depth import PixelDepthLoss, pixel_depth_bce, pixel_depth_losses
from frustum.losses.set_prediction import SetLoss, TrueCodes, denoising_matches, set_losses
from frustum.losses.token_boxes import token_losses
from frustum.models.ppe3d_distill import Distillation, Oracle, distillation_losses
from frustum.models.ppe3d_head import DEPTH_NET, POINT, Ppe3dHead
from frustum.nn.box_code import BoxConvention, boxes_to_code, check_start, decode_boxes
from frustum.nn.centre_boxes import BoxDecoding, Suppression, without_overlaps
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.encoders.vovnet import VoVNet99
from frustum.nn.fpn import CPFPN
from frustum.nn.lidar_frame import boxes_to_ego, boxes_to_lidar, in_lidar_frame
from frustum.nn.point_encoding import Bounds, pixel_points
from frustum.nn.query_aids import QueryAids, noisy_places
from frustum.nn.ray_depth import DepthKind
from frustum.nn.temporal_checks import check_frames
from frustum.types.batch import Batch
from frustum.types.contract import Label, ModelConfig, Reads, Sweeps
from frustum.types.frame import Frame, frames_of
from frustum.types.predictions import Prediction

Encoding = Literal["camera_ray", "feature_guided", "topk", "depth_guided_feature", "point3d", "point3d_lidar", "ray_mean"]
Encoder = Literal["vovnet99", "resnet50", "resnet50_c5", "resnet101", "efficientnet_lite0"]

_INTERVAL = {"sweep": 1.25, "keyframe": 0.5}  # seconds to the past frame of evaluation in nuScenes, where its time is not known
_SWEEPS = Sweeps(3, 27, 14, without="model.past_frame=keyframe")
_MEASURED = DepthLabels(without="model.encoding=point3d", to_predict=True)  # what the oracle reads


class Ppe3dConfig(ModelConfig):
    """Settings of Ppe3d; the default is the paper's main network on V2-99 features of 320 x 800 images.

    Attributes:
        encoder: `vovnet99`, `resnet50` and `resnet101` (with deformable convolutions) give features at stride 16 through a CPFPN,
            `resnet50_c5` the last map of a ResNet-50 at stride 32, `efficientnet_lite0` a CPFPN at stride 8, for small networks.
        pretrained: start the encoder from the weights of a package or of a file (V2-99: of a file).
        encoding: what the position of an image token is, see the paper's table 5:
            `camera_ray` candidate points along the ray of the feature (PETR);
            `feature_guided` the same, gated by the feature (PETRv2);
            `topk` the candidate points of the most likely depths;
            `depth_guided_feature` candidate points, gated by the scores of their depths;
            `point3d` one point at the predicted depth (3DPPE);
            `point3d_lidar` one point at the depth that LiDAR measured: an oracle, which needs depth maps to predict as well;
            `ray_mean` the mean of the codes of candidate points, embedded by the MLP that the queries share: not in the paper, a control.
            It has neither a depth net nor its losses.
        depth: how `point3d` predicts it, see `nn.ray_depth.DepthKind`.
        depth_bins: D of the depth net: 16 in 3DPPE, 64 for `topk` and `depth_guided_feature`.
        depth_channels: width inside the depth net.
        context_blocks: residual blocks between features and memory: 3 is the reference's context encoder.
        ray_depths: candidate points along a ray; of `depth_guided_feature` and `topk` they are the `depth_bins`.
        ray_spacing: of the candidate points: `lid`, increasing with the depth (PETR), or `ud`, even.
        top_depths: how many depths `topk` takes.
        shared_embedding: embed the points of pixels and those of queries by one MLP (the paper's table 6).
        camera_code: add a code of camera, row and column to the position.
        channels, queries, layers, heads, hidden, dropout: of the decoder; the neck has as many channels.
        past: 1 reads a past frame as well (PETRv2).
        past_frame: a camera sweep, as published, or the keyframe before, which needs no images between keyframes.
        grouped_boxes: a box branch of five small networks instead of one; branches are not shared by the layers then (PETRv2).
        refine_boxes: each layer moves the queries to where its boxes are; branches are not shared by the layers then.
        point_range: in which the points of pixels are normalised; also limits what is predicted.
        box_range: in which queries and boxes lie; true boxes outside, seen from above, are not learned.
        box_convention: of the weights, see nn/box_code.py.
        frame: in which the network works, and its ranges are: `ego`, or `lidar`, that of the sensor LIDAR_TOP, for official files.
        max_boxes: of a prediction.
        suppression: drop boxes that overlap better ones, see `nn.centre_boxes.BoxDecoding`, by its default overlap; None as published.
        set_loss: weights of matching, class and box loss.
        depth_loss: weights of the depth losses of `point3d`, and the metres from its nearest to its farthest candidate depth.
        score_loss: weight of the cross-entropy of depths, of `topk` and `depth_guided_feature`.
        frozen_blocks: blocks of `efficientnet_lite0` that are not trained.
        aids: what lets a small network learn in minutes; all off in the published networks.
        distill: learn from a trained oracle as well (models/ppe3d_distill.py); LiDAR is then read to learn, not to predict.
    """

    image_multiple: ClassVar[int] = 32

    encoder: Encoder = "vovnet99"
    pretrained: Pretrained = False
    encoding: Encoding = "point3d"
    depth: DepthKind = "hybrid"
    depth_bins: PositiveInt = 16
    depth_channels: PositiveInt = 256
    context_blocks: NonNegativeInt = 0
    ray_depths: PositiveInt = 64
    ray_spacing: Literal["lid", "ud"] = "lid"
    top_depths: PositiveInt = 5
    shared_embedding: bool = True
    camera_code: bool = True
    channels: PositiveInt = 256
    queries: PositiveInt = 900
    layers: PositiveInt = 6
    heads: PositiveInt = 8
    hidden: PositiveInt = 2048
    dropout: NonNegativeFloat = 0.1
    past: Literal[0, 1] = 0
    past_frame: Annotated[Literal["sweep", "keyframe"], TRAVELS] = "sweep"
    grouped_boxes: bool = False
    refine_boxes: bool = False
    point_range: Bounds = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    box_range: Bounds = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    box_convention: Annotated[BoxConvention, TRAVELS] = "mmdet3d>=1.0"
    frame: Annotated[Literal["ego", "lidar"], TRAVELS] = "ego"
    max_boxes: PositiveInt = 300
    suppression: Suppression | None = None
    set_loss: SetLoss = SetLoss()
    depth_loss: PixelDepthLoss = PixelDepthLoss()
    score_loss: NonNegativeFloat = 3.0
    frozen_blocks: NonNegativeInt = 0
    aids: QueryAids = QueryAids()
    distill: Distillation | None = None

    @model_validator(mode="after")
    def _check(self) -> Ppe3dConfig:
        if self.channels % 4 or self.channels % self.heads:
            raise ValueError(f"channels must be a multiple of 4 and of the {self.heads} heads, got {self.channels}")
        if self.depth_channels % 4:
            raise ValueError(f"depth_channels must be a multiple of 4, got {self.depth_channels}")
        if self.depth_bins < 2 or (self.encoding == "topk" and self.top_depths > self.depth_bins):
            given = f"{self.depth_bins} and {self.top_depths}"
            raise ValueError(f"depth_bins must be at least 2, and top_depths of the encoding topk at most depth_bins, got {given}")
        if self.aids.votes and not (self.encoding in POINT and self.aids.token_loss):
            points = " or ".join(POINT)
            raise ValueError(f"aids.votes needs an encoding by points ({points}) and aids.token_loss above 0; else set aids.votes=false")
        if self.aids.anchor_grid and self.frame == "lidar":
            raise ValueError("aids.anchor_grid stands on the ground of the ego frame: set frame=ego, or aids.anchor_grid=false")
        if self.aids.light_depth and not self.aids.ray_input:
            raise ValueError("aids.light_depth reads no cameras, so it needs the rays: set aids.ray_input=true")
        if self.aids.light_depth and self.context_blocks:
            raise ValueError(f"aids.light_depth has no context encoder: set context_blocks=0, not {self.context_blocks}")
        if self.past and self.encoding == "point3d_lidar":
            raise ValueError("the oracle point3d_lidar has no depth of past frames: use past=0")
        return self

    def reads(self) -> Reads:
        """The keyframe, and with `past` what `past_frame` says; the oracle reads depth as well."""
        sweeps = _SWEEPS if self.past and self.past_frame == "sweep" else None
        return Reads(past=self.past, sweeps=sweeps, labels=(_MEASURED,) if self.encoding == "point3d_lidar" else ())

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Boxes, and depth where a depth is learned or read."""
        boxes = BoxLabels()
        if self.encoding == "point3d_lidar":
            return boxes, _MEASURED
        off = ["distill=null"] if self.distill is not None else []
        if self.aids.token_loss:
            off += [*(["aids.votes=false"] if self.aids.votes else []), "aids.token_loss=0"]
        if self.learns_depth:
            off += ["depth_loss.depth_weight=0", "depth_loss.distribution_weight=0"] if self.encoding == "point3d" else ["score_loss=0"]
        return (boxes, DepthLabels(without=" ".join(f"model.{words}" for words in off))) if off else (boxes,)

    @property
    def depth_limits(self) -> tuple[float, float]:
        """The nearest and the farthest depth that is predicted, in metres."""
        return self.depth_loss.first, self.depth_loss.last

    @property
    def learns_depth(self) -> bool:
        """Whether a depth is predicted, and supervised by LiDAR."""
        weights = self.depth_loss
        if self.encoding == "point3d":
            return bool(weights.depth_weight or (self.depth != "direct" and weights.distribution_weight))
        return self.encoding in DEPTH_NET and self.score_loss > 0

    def check_start(self, taken: Collection[str], trained: Mapping[str, Any] | None, around: Mapping[str, Any], what: str) -> list[str]:
        """Boxes must be coded as in the weights. Raises CheckpointError."""
        has_boxes = any(".reg_branches." in key for key in taken)
        return check_start(self.box_convention, self.frame, trained, around, what) if has_boxes else []

    def build(self) -> Ppe3d:
        """The network with random weights."""
        return Ppe3d(self)


class Ppe3d(nn.Module):
    """The detector.

    `forward` returns
        class_logits: (B, L, Q, K), of every decoder layer
        box_codes: (B, L, Q, 10), see nn/box_code.py: metres and radians in the network's (augmented) frame at the keyframe
        depth: (M, h, w) metres, of `point3d` alone; of the keyframe's images
        depth_logits: (M, D, h, w) of the candidate depths, where the encoding has a depth net that predicts a distribution
        token_logits: (M, h, w, K + 1) and
        token_offsets: (M, h, w, 3) metres, with `aids.token_loss`: what each token sees, and where its centre is from there
        token_votes: (M, h, w, 3) metres, with `aids.votes`: where that is
        denoising_logits: (B, L, D, K) and
        denoising_codes: (B, L, D, 10), with `aids.denoising`, in training: of queries that began near true boxes
    and in training, with an oracle to learn from, `class_logits` and `box_codes` of its branch under `distill.`, its own under `oracle.`.
    """

    not_maps = ("class_logits", "box_codes", "token_logits", "token_offsets", "token_votes", "denoising_logits", "denoising_codes")

    def __init__(self, config: Ppe3dConfig):
        super().__init__()
        self.config = config
        self.img_backbone = _encoder(config)
        channels = self.img_backbone.out_channels
        self.img_neck = CPFPN(channels, config.channels) if len(channels) > 1 else None
        self.pts_bbox_head = Ppe3dHead(config, config.channels if self.img_neck is not None else channels[0])
        self.oracle = None if config.distill is None else Oracle(config.distill.teacher, config)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class.

        Raises:
            DataError: no depth maps for the oracle; two frames without poses or out of order; no LIDAR_TOP for `frame=lidar`.
        """
        check_frames(batch, 1 + self.config.past)
        frames = frames_of(batch, self.config.past)
        frame = self._frame(_joined(frames), batch)
        maps = self.img_backbone(frame.images.flatten(0, 1))
        features = self.img_neck(maps) if self.img_neck is not None else maps[-1]
        usual = _INTERVAL[self.config.past_frame]
        seconds = send(_seconds(frames[0], frames[-1], usual), features.device, torch.float32) if self.config.past else None
        oracle = self.oracle(batch) if self.oracle is not None and self.training else {}
        noisy, aids = None, self.config.aids
        if self.training and aids.denoising and BoxLabels in batch.labels:
            noisy = noisy_places(*self._boxes(batch), aids, self.config.box_range, features.device)
        outputs = self.pts_bbox_head(features, frame, self._lidar(batch, features), seconds, noisy, oracle.get("places"))
        outputs |= {f"oracle.{name}": oracle[name] for name in ("class_logits", "box_codes") if oracle}
        views, key = frame.images.shape[:2], frames[0].images.shape[1]
        maps_of = ("depth", "depth_logits", "token_logits", "token_offsets", "token_votes")
        now = {name: outputs[name].unflatten(0, views)[:, :key].flatten(0, 1) for name in maps_of if name in outputs}
        return outputs | now

    def _lidar(self, batch: Batch, features: Tensor) -> Tensor | None:
        if self.config.encoding != "point3d_lidar":
            return None
        if DepthLabels not in batch.labels:
            raise DataError(
                f"this network reads {DepthLabels.what} to predict, not only to learn (model.encoding=point3d_lidar, an oracle), but there "
                f"are none in the batch. {DepthLabels.advice} Networks with another encoding, such as point3d, predict without LiDAR."
            )
        return _cell_depth(batch.need(DepthLabels), features.shape[-2:])

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`loss_cls`, `loss_bbox` and those of earlier layers (losses/set_prediction.py); where they have a weight `loss_depth`,
        `loss_dfl`.

        Raises:
            DataError: the batch has no boxes, or no depth maps where they are learned.
        """
        config, (everywhere, inside), kinds = self.config, self._boxes(batch), batch.need(BoxLabels).classes
        boxes, classes = ([row[kept] for row, kept in zip(rows, inside, strict=True)] for rows in (everywhere, kinds))
        truth = TrueCodes.of([boxes_to_code(found, config.box_convention) for found in boxes], classes)
        logits, codes = (outputs[name].transpose(0, 1) for name in ("class_logits", "box_codes"))  # (L, B, Q, *)
        losses = set_losses(logits, codes, truth, config.set_loss)
        if "denoising_logits" in outputs:
            logits, codes = (outputs[name].transpose(0, 1) for name in ("denoising_logits", "denoising_codes"))
            known = TrueCodes.of([boxes_to_code(found, config.box_convention) for found in everywhere], kinds)
            matches = denoising_matches(inside, config.aids.denoising, len(logits), logits.device)
            losses |= set_losses(logits, codes, known, config.set_loss, matches, prefix="denoising.")
        if config.aids.token_loss:
            losses |= self._token_losses(outputs, batch, boxes, classes)
        if config.distill is not None and "oracle.box_codes" in outputs:
            losses |= distillation_losses(outputs, truth, config.distill, config.set_loss)
        return losses | self._depth_losses(outputs, batch)

    def _token_losses(self, outputs: dict[str, Tensor], batch: Batch, boxes: list[Tensor], classes: list[Tensor]) -> dict[str, Tensor]:
        logits = outputs["token_logits"]
        depth, cameras = _cell_depth(batch.need(DepthLabels), logits.shape[1:3]), batch.images.shape[2]
        points = pixel_points(depth.unflatten(0, (-1, cameras)), self._frame(frames_of(batch, 0)[0], batch))
        # Where tokens stand at a predicted depth, offsets make up for its error; else they begin at the point that LiDAR measured.
        votes = outputs.get("token_votes", outputs["token_offsets"] + points.flatten(0, 1))
        logits, votes = (x.unflatten(0, (-1, cameras)).flatten(1, 3) for x in (logits, votes))  # (B, S, *)
        known = (depth > 0).unflatten(0, (-1, cameras)).flatten(1)
        return token_losses(logits, votes, points.flatten(1, 3), known, boxes, classes, self.config.aids.token_loss)

    def _frame(self, frame: Frame, batch: Batch) -> Frame:
        """The frame of the batch that the network works in."""
        return frame if self.config.frame == "ego" else in_lidar_frame(frame, batch)

    def _boxes(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """All true boxes of each sample, in the frame that the network works in, and which of them are learned (M,)."""
        boxes = batch.need(BoxLabels).boxes
        boxes = boxes if self.config.frame == "ego" else boxes_to_lidar(boxes, batch)
        return boxes, [_inside(found, self.config.box_range) for found in boxes]

    def _depth_losses(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        config = self.config
        if not config.learns_depth:
            return {}
        maps = outputs["depth_logits" if config.depth != "direct" or config.encoding != "point3d" else "depth"]
        truth = _cell_depth(batch.need(DepthLabels), maps.shape[-2:])
        if config.encoding != "point3d":
            weight, depths = config.score_loss, self.pts_bbox_head.ray_depths
            return {"loss_depth": pixel_depth_bce(outputs["depth_logits"], truth, depths, config.depth_loss.last, weight=weight)}
        return pixel_depth_losses(outputs["depth"], outputs.get("depth_logits"), truth, config.depth_loss)

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The boxes of the last layer with the highest scores; as published without non-maximum suppression."""
        config = self.config
        logits, codes = outputs["class_logits"][:, -1], outputs["box_codes"][:, -1]
        boxes = decode_boxes(logits, codes, config.box_convention, max_boxes=config.max_boxes, limits=config.point_range)
        boxes = boxes if config.frame == "ego" else boxes_to_ego(boxes, batch)
        if config.suppression is not None:
            decoding = BoxDecoding(suppression=config.suppression, max_kept=config.max_boxes)
            boxes = [without_overlaps(found, decoding) for found in boxes]
        return [Prediction(token, boxes=found) for token, found in zip(batch.tokens, boxes, strict=True)]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.img_backbone.parameters())}


def _encoder(config: Ppe3dConfig) -> Any:
    if config.encoder == "vovnet99":
        return VoVNet99(outputs=(4, 5), pretrained=config.pretrained)
    if config.encoder == "efficientnet_lite0":
        return EfficientNetLite0((4, 10), frozen_blocks=config.frozen_blocks, pretrained=config.pretrained)
    depth = 101 if config.encoder == "resnet101" else 50
    outputs = (4,) if config.encoder == "resnet50_c5" else (3, 4)
    return ResNet(depth, outputs, config.pretrained, caffe=True, deformable=(3, 4))


def _joined(frames: list[Frame]) -> Frame:
    """One frame with the cameras of all, the keyframe's first; its map is that of the keyframe."""
    if len(frames) == 1:
        return frames[0]
    rigs = [frame.rig for frame in frames]
    names = ("intrinsics", "cam2ego", "ego2global", "image_aug")
    matrices: dict[str, Any] = {name: torch.cat([getattr(rig, name) for rig in rigs], 1) for name in names}
    rig = CameraRig(**matrices, image_size=rigs[0].image_size)
    return frames[0]._replace(images=torch.cat([frame.images for frame in frames], 1), rig=rig)


def _seconds(now: Frame, before: Frame, usual: float) -> Tensor:
    """(B,) time between two frames, a mean over the cameras; `usual` where it is not known."""
    if now.rig.timestamps is None or before.rig.timestamps is None:
        return torch.full((len(now.images),), usual, dtype=torch.float64)
    passed = (now.rig.timestamps.double() - before.rig.timestamps.double()).mean(-1)
    return passed.where(before.is_present.to(passed.device) & (passed > 0), usual)


def _cell_depth(depth: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest depth (M, h, w) around the top left corner of each feature, 0 where none is known, of maps (B, N, H, W)."""
    maps = depth.flatten(0, 1)
    up, left = maps.shape[-2] // size[0] // 2, maps.shape[-1] // size[1] // 2
    return block_minimum(F.pad(maps, (left, -left, up, -up)), size)  # half a feature: a point belongs to the nearest corner


def _inside(boxes: Tensor, limits: Bounds) -> Tensor:
    """(M,) bool: centres that lie inside the limits, seen from above."""
    x, y = boxes[:, 0], boxes[:, 1]
    return (x > limits[0]) & (x < limits[3]) & (y > limits[1]) & (y < limits[4])
