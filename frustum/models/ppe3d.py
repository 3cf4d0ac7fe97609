"""3DPPE (Shu et al., ICCV 2023, arXiv:2211.14710): DETR-style detection whose positional encoding is the 3D point of each pixel.

images -> encoder -> CPFPN -> depth net -> a 3D point per feature -> its embedding, and memory -> decoder of Q queries -> boxes

PETR (Liu et al., ECCV 2022) is the same network with another encoding: candidate points along the ray instead of one point. Which encoding
is one setting, as in the paper's table 5. Only the oracle `point3d_lidar` needs LiDAR to predict; all others need it at most to learn.

The network works in the frame that `batch.key_ego2global` defines: boxes are learned and predicted there. That is the ego frame when it is
trained here. Official files were trained in the frame of LIDAR_TOP: give them lidar2global as `key_ego2global` (and labels in that frame),
and bring what they predict to the ego frame by `geometry.boxes.transform_boxes(lidar2ego, boxes)`; they also need their own
`box_convention`: `mmdet3d<1.0` for files of PETR, `mmdet3d>=1.0` for those of 3DPPE.

With a past frame (PETRv2, 3DPPE-v2) its images are further tokens, placed in the keyframe's map by the ego poses, and velocities are
learned in metres per time between the frames. As published that is a camera sweep: one of the moments 3 to 26 before the keyframe, at
12 Hz, in training, moment 14 (1.25 s ago) in evaluation. Data without images between keyframes need `past_frame=keyframe`.

Module names are those of the published checkpoints. Shape letters: B batch, N cameras, M = B * N images, H W image, h w feature map,
C channels, D depths, Q queries, L decoder layers, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.config import TRAVELS
from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.errors import ConfigError, DataError
from frustum.geometry import CameraRig
from frustum.geometry.transforms import send, without_autocast
from frustum.losses.depth import block_minimum
from frustum.losses.pixel_depth import PixelDepthLoss, pixel_depth_bce, pixel_depth_losses
from frustum.losses.set_prediction import SetLoss, TrueCodes, set_losses
from frustum.losses.token_boxes import token_losses
from frustum.nn.box_code import BoxConvention, boxes_to_code, decode_boxes
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.encoders.vovnet import VoVNet99
from frustum.nn.fpn import CPFPN
from frustum.nn.point_encoding import (
    candidate_depths,
    depth_major,
    inverse_sigmoid,
    metric_encoding,
    normalise_points,
    pixel_points,
    sine_encoding,
    view_encoding,
)
from frustum.nn.query_aids import QueryAids, denoising_mask, denoising_matches, grid_anchors, noisy_places
from frustum.nn.query_decoder import GroupedBoxBranch, QueryDecoder, QueryPositions, Tokens, box_branch, class_branch, per_layer
from frustum.nn.ray_depth import DepthKind, MapGate, RayDepth, RayDepthNet, camera_numbers
from frustum.nn.small_trunk import ray_directions
from frustum.nn.temporal_checks import check_frames
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.contract import Label, ModelConfig, Reads, Sweeps
from frustum.types.frame import Frame, frames_of
from frustum.types.predictions import Prediction

Encoding = Literal["camera_ray", "feature_guided", "topk", "depth_guided_feature", "point3d", "point3d_lidar", "ray_mean"]
Encoder = Literal["vovnet99", "resnet50", "resnet50_c5", "resnet101", "efficientnet_lite0"]
Range = tuple[float, float, float, float, float, float]
"""x, y, z from, then x, y, z to, in metres."""

_POINT = ("point3d", "point3d_lidar")
_INTERVAL = {"sweep": 1.25, "keyframe": 0.5}  # seconds to the past frame of evaluation in nuScenes, where its time is not known
_SWEEPS = Sweeps(3, 27, 14, without="model.past_frame=keyframe")
_DEPTH_NET = ("topk", "depth_guided_feature", "point3d")


class Ppe3dConfig(ModelConfig):
    """Settings of Ppe3d; the default is the paper's main network on V2-99 features of 320 x 800 images.

    Attributes:
        encoder: `vovnet99`, `resnet50` and `resnet101` (with deformable convolutions) give features at stride 16 through a CPFPN,
            `resnet50_c5` the last map of a ResNet-50 at stride 32, `efficientnet_lite0` a CPFPN at stride 8, for small networks.
        pretrained: start the encoder from the weights of a package or of a file (not V2-99).
        encoding: what the position of an image token is, see the paper's table 5:
            `camera_ray` candidate points along the ray of the feature (PETR);
            `feature_guided` the same, gated by the feature (PETRv2);
            `topk` the candidate points of the most likely depths;
            `depth_guided_feature` candidate points, gated by the scores of their depths;
            `point3d` one point at the predicted depth (3DPPE);
            `point3d_lidar` one point at the depth that LiDAR measured: an oracle, which needs depth maps to predict as well;
            `ray_mean` the mean of the codes of candidate points, embedded as those of queries are: not in the paper, a control that has
            of `point3d` all but the depth.
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
        max_boxes: of a prediction.
        set_loss: weights of matching, class and box loss.
        depth_loss: weights of the depth losses of `point3d`, and the metres from its nearest to its farthest candidate depth.
        score_loss: weight of the cross-entropy of depths, of `topk` and `depth_guided_feature`.
        frozen_blocks: blocks of `efficientnet_lite0` that are not trained.
        aids: what lets a small network learn in minutes; all off in the published networks.
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
    point_range: Range = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    box_range: Range = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    box_convention: Annotated[BoxConvention, TRAVELS] = "mmdet3d>=1.0"
    max_boxes: PositiveInt = 300
    set_loss: SetLoss = SetLoss()
    depth_loss: PixelDepthLoss = PixelDepthLoss()
    score_loss: NonNegativeFloat = 3.0
    frozen_blocks: NonNegativeInt = 0
    aids: QueryAids = QueryAids()

    @model_validator(mode="after")
    def _check(self) -> Ppe3dConfig:
        if self.channels % 4 or self.channels % self.heads:
            raise ValueError(f"channels must be a multiple of 4 and of the {self.heads} heads, got {self.channels}")
        if self.depth_channels % 4:
            raise ValueError(f"depth_channels must be a multiple of 4, got {self.depth_channels}")
        if self.depth_bins < 2 or self.top_depths > self.depth_bins:
            given = f"{self.depth_bins} and {self.top_depths}"
            raise ValueError(f"depth_bins must be at least 2, and top_depths at most depth_bins, got {given}")
        if self.aids.votes and not (self.encoding in _POINT and self.aids.token_loss):
            raise ValueError(f"aids.votes needs an encoding by points ({' or '.join(_POINT)}) and aids.token_loss above 0")
        if self.aids.anchor_grid and math.isqrt(self.queries) ** 2 != self.queries:
            raise ValueError(f"aids.anchor_grid needs a square number of queries, as 196 or 256, got {self.queries}")
        if self.past and self.encoding == "point3d_lidar":
            raise ValueError("the oracle point3d_lidar has no depth of past frames: use past=0")
        return self

    def reads(self) -> Reads:
        """The keyframe, and with `past` what `past_frame` says."""
        return Reads(past=self.past, sweeps=_SWEEPS if self.past and self.past_frame == "sweep" else None)

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Boxes, and depth where a depth is learned or read."""
        boxes = BoxLabels()
        if self.encoding == "point3d_lidar":
            return boxes, DepthLabels(without="model.encoding=point3d")
        if not self.learns_depth and not self.aids.token_loss:
            return (boxes,)
        weights = ("depth_loss.depth_weight", "depth_loss.distribution_weight") if self.encoding == "point3d" else ("score_loss",)
        return boxes, DepthLabels(without=" ".join(f"model.{name}=0" for name in weights))

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
        return self.encoding in _DEPTH_NET and self.score_loss > 0

    def build(self) -> Ppe3d:
        """The network with random weights."""
        return Ppe3d(self)


class Ppe3d(nn.Module):
    """The detector.

    `forward` returns
        class_logits: (B, L, Q, K), of every decoder layer
        box_codes: (B, L, Q, 10), see nn/box_code.py: metres and radians in the (augmented) frame of the keyframe
        depth: (M, h, w) metres, of `point3d` alone; of the keyframe's images
        depth_logits: (M, D, h, w) of the candidate depths, where the encoding has a depth net that predicts a distribution
    """

    def __init__(self, config: Ppe3dConfig):
        super().__init__()
        self.config = config
        self.img_backbone = _encoder(config)
        channels = self.img_backbone.out_channels
        self.img_neck = CPFPN(channels, config.channels) if len(channels) > 1 else None
        self.pts_bbox_head = Ppe3dHead(config, config.channels if self.img_neck is not None else channels[0])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class.

        Raises:
            DataError: the oracle, and the batch has no depth maps; or two frames, without poses or out of order.
        """
        check_frames(batch, 1 + self.config.past)
        frames = frames_of(batch, self.config.past)
        frame = _joined(frames)
        maps = self.img_backbone(frame.images.flatten(0, 1))
        features = self.img_neck(maps) if self.img_neck is not None else maps[-1]
        usual = _INTERVAL[self.config.past_frame]
        seconds = send(_seconds(frames[0], frames[-1], usual), features.device, torch.float32) if self.config.past else None
        noisy, aids = None, self.config.aids
        if self.training and aids.denoising and BoxLabels in batch.labels:
            noisy = noisy_places(self._truth(batch)[0], aids, self.config.box_range, features.device)
        outputs = self.pts_bbox_head(features, frame, self._lidar(batch, features), seconds, noisy)
        views, key = frame.images.shape[:2], frames[0].images.shape[1]
        now = {name: outputs[name].unflatten(0, views)[:, :key].flatten(0, 1) for name in ("depth", "depth_logits") if name in outputs}
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
        config, (boxes, classes) = self.config, self._truth(batch)
        truth = TrueCodes.of([boxes_to_code(found, config.box_convention) for found in boxes], classes)
        losses = set_losses(*_by_layer(outputs, "class_logits", "box_codes"), truth, config.set_loss)
        if "denoising_logits" in outputs:
            logits, codes = _by_layer(outputs, "denoising_logits", "denoising_codes")
            matches = denoising_matches(truth.counts, config.aids.denoising, len(logits), logits.device)
            losses |= set_losses(logits, codes, truth, config.set_loss, matches, prefix="denoising.")
        if config.aids.token_loss:
            depth = _cell_depth(batch.need(DepthLabels), outputs["depth_size"].shape[-2:])
            frame = frames_of(batch, 0)[0]
            points = pixel_points(depth.unflatten(0, frame.images.shape[:2]), frame).flatten(1, 3)
            known = (depth > 0).view(points.shape[:2])
            tokens = outputs["token_logits"], outputs["token_offsets"]
            losses |= token_losses(*tokens, points, known, boxes, classes, config.aids.token_loss)
        return losses | self._depth_losses(outputs, batch)

    def _truth(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes and classes of each sample that are learned."""
        truth = batch.need(BoxLabels)
        inside = [_inside(boxes, self.config.box_range) for boxes in truth.boxes]
        return [b[i] for b, i in zip(truth.boxes, inside, strict=True)], [c[i] for c, i in zip(truth.classes, inside, strict=True)]

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
        """The boxes of the last layer with the highest scores, without non-maximum suppression."""
        config = self.config
        logits, codes = outputs["class_logits"][:, -1], outputs["box_codes"][:, -1]
        boxes = decode_boxes(logits, codes, config.box_convention, max_boxes=config.max_boxes, limits=config.point_range)
        return [Prediction(token, boxes=found) for token, found in zip(batch.tokens, boxes, strict=True)]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.img_backbone.parameters())}


class Ppe3dHead(nn.Module):
    """Features of the cameras to boxes, with the key names of the reference's heads.

    Args:
        config: see Ppe3dConfig.
        in_channels: of the features.
    """

    project: Tensor
    ray_depths: Tensor

    def __init__(self, config: Ppe3dConfig, in_channels: int):
        super().__init__()
        self.config, c = config, config.channels
        self.register_buffer("code_weights", torch.tensor(config.set_loss.code_weights))  # files hold them; the loss reads the config
        in_channels += 3 * config.aids.ray_input
        read = in_channels
        if config.encoding in _DEPTH_NET:
            kind: DepthKind = config.depth if config.encoding == "point3d" else "probabilistic"
            read = c
            self.depth_net = RayDepthNet(in_channels, config.depth_channels, read, kind, config.depth_bins, config.context_blocks)
            if config.encoding == "point3d" and kind != "direct":
                self.register_buffer("project", candidate_depths(config.depth_bins, "inclusive", *config.depth_limits))
        self.input_proj = nn.Conv2d(read, c, 1)
        self.reference_points = nn.Embedding(config.queries, 3)
        nn.init.uniform_(self.reference_points.weight)
        if config.aids.anchor_grid:
            self.reference_points.weight.data.copy_(grid_anchors(config.queries, config.box_range))
        numbers = c * 3 // 2  # of the code of a point
        self.query_embedding = nn.Sequential(nn.Linear(numbers, c), nn.ReLU(), nn.Linear(c, c))
        if config.encoding in (*_POINT, "ray_mean"):
            own = nn.Sequential(nn.Linear(numbers, c), nn.ReLU(), nn.Linear(c, c))
            self.position_encoder = self.query_embedding if config.shared_embedding else own
        if config.encoding not in _POINT:
            count = config.depth_bins if config.encoding in _DEPTH_NET else config.ray_depths
            depths = candidate_depths(count, config.ray_spacing, *config.depth_limits)
            self.register_buffer("ray_depths", depths, persistent=False)
            points = config.top_depths if config.encoding == "topk" else len(depths)
            if config.encoding != "ray_mean":
                self.position_encoder = _map_mlp(3 * points, c)
        if config.encoding == "feature_guided":
            self.fpe = MapGate(c)
        if config.encoding == "depth_guided_feature":
            self.dpe = MapGate(c, config.depth_bins)
        if config.camera_code:
            self.adapt_pos3d = _map_mlp(numbers, c)
        aids = config.aids
        sizes = (config.layers, c, config.heads, config.hidden, config.dropout, not config.refine_boxes)
        self.transformer = nn.ModuleDict({"decoder": QueryDecoder(*sizes, aids.position_in_values, aids.votes)})
        if aids.position_in_values:
            self.position_norm = nn.LayerNorm(c)
        if aids.token_loss:
            self.token_branch = nn.Sequential(nn.Linear(c, c), nn.ReLU(), class_branch_end := nn.Linear(c, len(DETECTION_CLASSES) + 3))
            nn.init.constant_(class_branch_end.bias[:-3], -4.6)
        shared = not (config.refine_boxes or config.grouped_boxes)
        self.cls_branches = per_layer(lambda: class_branch(c, len(DETECTION_CLASSES)), config.layers, shared)
        self.reg_branches = per_layer(lambda: GroupedBoxBranch(c) if config.grouped_boxes else box_branch(c), config.layers, shared)

    def forward(
        self,
        features: Tensor,
        frame: Frame,
        lidar: Tensor | None = None,
        seconds: Tensor | None = None,
        noisy: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The outputs of Ppe3d.

        Args:
            features: (M, in_channels, h, w).
            frame: of the M cameras.
            lidar: depth for the oracle (M, h, w) in metres, 0 where unknown.
            seconds: (B,) from the past frame to the keyframe, if there is one: velocities are regressed per this time.
        """
        config, views = self.config, tuple(frame.rig.intrinsics.shape[:2])  # B, N
        outputs: dict[str, Tensor] = {}
        found = None
        if config.aids.ray_input:
            size = (features.shape[-2], features.shape[-1])
            features = torch.cat([features, send(ray_directions(frame.rig, size), features.device, features.dtype)], 1)
        if config.encoding in _DEPTH_NET:
            found = self.depth_net(features, camera_numbers(frame, features.device))
            features = found.context
            if config.depth != "direct" or config.encoding != "point3d":
                outputs["depth_logits"] = found.logits
        memory = self.input_proj(features)
        if config.encoding in _POINT:
            depth = self._lidar_depth(lidar) if found is None else self.depth_net.depth(found, self._buffers.get("project"))
            if found is not None:
                outputs["depth"] = depth
            places = pixel_points(depth.unflatten(0, views), frame)  # (B, N, h, w, 3)
            position = self._embedded(self._code(places))
        else:
            places = None
            position = self._ray_position(memory, found, frame)
        if config.camera_code:
            padding = torch.zeros(1, views[1], *memory.shape[-2:], dtype=torch.bool, device=memory.device)
            code = view_encoding(padding, config.channels // 2)[0]
            position = position + self.adapt_pos3d(code.to(memory.dtype)).repeat(views[0], 1, 1, 1)
        size = memory[:, 0]
        memory, position = (x.flatten(2).mT.unflatten(0, views).flatten(1, 2) for x in (memory, position))  # (B, N * h * w, C)
        tokens = Tokens(memory, position)
        if config.aids.position_in_values:
            tokens = tokens._replace(position=self.position_norm(position))
        if config.aids.token_loss:
            logits, offsets = self.token_branch(memory).split((len(DETECTION_CLASSES), 3), -1)
            with without_autocast(offsets):
                turn = (frame.bev_aug[:, None].double() @ frame.rig.cam2key(frame.ego2global).double())[..., :3, :3]
                turn = send(turn.float(), offsets.device)
                offsets = (offsets.float().unflatten(1, (views[1], -1)) @ turn.mT).flatten(1, 2)
            outputs |= {"token_logits": logits, "token_offsets": offsets, "depth_size": size}
            if config.aids.votes and places is not None:
                tokens = tokens._replace(votes=places.flatten(1, 3) + offsets, scores=logits.amax(-1))
        return self._boxes(tokens, seconds, noisy) | outputs

    def _lidar_depth(self, lidar: Tensor | None) -> Tensor:
        """Measured depth, the farthest one where nothing was measured."""
        if lidar is None:
            raise DataError("model.encoding=point3d_lidar needs the depth that LiDAR measured.")
        far = self.config.depth_loss.last
        return torch.where(lidar > 0, lidar, far).clamp(max=far)

    def _code(self, places: Tensor) -> Tensor:
        """Numbers (*, 3 * C / 2) of points (*, 3) in metres."""
        features = self.config.channels // 2
        with without_autocast(places):
            if self.config.aids.metric_code:
                return metric_encoding(places, features)
            return sine_encoding(inverse_sigmoid(normalise_points(places, self.config.point_range)), features)

    def _embedded(self, code: Tensor) -> Tensor:
        """The embedding (M, C, h, w) of codes (B, N, h, w, 3 * C / 2)."""
        return self.position_encoder(code).flatten(0, 1).permute(0, 3, 1, 2)

    def _ray_position(self, memory: Tensor, found: RayDepth | None, frame: Frame) -> Tensor:
        """The embedding (M, C, h, w) of points along the rays of the features."""
        encoding, views = self.config.encoding, tuple(frame.rig.intrinsics.shape[:2])
        with without_autocast(memory):
            depths = self.ray_depths[None, :, None, None].expand(len(memory), -1, *memory.shape[-2:])  # (M, D, h, w)
            scores = None if found is None else found.logits.float().sigmoid()
            if encoding == "topk" and scores is not None:
                depths = depths.gather(1, scores.topk(self.config.top_depths, 1).indices)
            points = pixel_points(depths.unflatten(0, views), frame)
            if encoding == "ray_mean":
                return self._embedded(torch.stack([self._code(part) for part in points.unbind(2)]).mean(0))
            code = depth_major(inverse_sigmoid(normalise_points(points, self.config.point_range)))
        position = self.position_encoder(code)
        if encoding == "feature_guided":
            return self.fpe(position, memory)
        return self.dpe(position, scores) if encoding == "depth_guided_feature" else position

    def _at(self, places: Tensor) -> QueryPositions:
        """Where queries at places (B, Q, 3) in the box range, 0..1, are."""
        aids, features = self.config.aids, self.config.channels // 2
        metres = self._metres(places)
        with without_autocast(places):
            if aids.metric_code:
                code = metric_encoding(metres, features)
            else:
                # Only 3DPPE's own head takes the logarithm of the odds here too; PETR's and that of its oracle do not.
                code = sine_encoding(inverse_sigmoid(places) if self.config.encoding == "point3d" else places, features)
        embedding = self.query_embedding(code)
        return QueryPositions(self.position_norm(embedding) if aids.position_in_values else embedding, metres)

    def _metres(self, places: Tensor) -> Tensor:
        """Shares of the box range (*, 3) in metres."""
        limits = self.config.box_range
        axes = zip(places.unbind(-1), limits[:3], limits[3:], strict=True)
        return torch.stack([share * (high - low) + low for share, low, high in axes], -1)

    def _centres(self, raw: Tensor, places: Tensor) -> Tensor:
        """What the branch answers (B, Q, 10) and places (B, Q, 3) -> centres (B, Q, 3) as shares of the box range."""
        if self.config.aids.metric_offsets:
            limits = self.config.box_range
            sizes = [high - low for low, high in zip(limits[:3], limits[3:], strict=True)]
            return places + torch.stack([x / size for x, size in zip(_centre(raw).unbind(-1), sizes, strict=True)], -1)
        return (_centre(raw) + inverse_sigmoid(places)).sigmoid()

    def _boxes(self, tokens: Tokens, seconds: Tensor | None, noisy: Tensor | None) -> dict[str, Tensor]:
        count = self.config.queries
        first = self.reference_points.weight.float()[None].expand(len(tokens.memory), -1, -1)
        mask = None
        if noisy is not None and noisy.shape[1]:
            mask = denoising_mask(count, noisy.shape[1], self.config.aids.denoising, first.device)
            first = torch.cat([first, noisy], 1)
        places = [first]  # of the queries, as each layer reads them

        def refine(layer: int, queries: Tensor) -> QueryPositions:
            with without_autocast(queries):
                places.append(self._centres(self.reg_branches[layer](queries).float(), places[-1]).detach().clamp(0, 1))
            return self._at(places[-1])

        queries = self.transformer["decoder"](self._at(first), tokens, refine if self.config.refine_boxes else None, mask)  # (L, B, Q, C)
        logits, codes = [], []
        for i, found in enumerate(queries):
            logits.append(self.cls_branches[i](found))
            raw = self.reg_branches[i](found)
            with without_autocast(raw):
                codes.append(self._box_codes(raw.float(), places[i if self.config.refine_boxes else 0], seconds))
        all_logits, all_codes = torch.stack(logits, 1), torch.stack(codes, 1)
        outputs = {"class_logits": all_logits[:, :, :count], "box_codes": all_codes[:, :, :count]}
        if mask is not None:
            outputs |= {"denoising_logits": all_logits[:, :, count:], "denoising_codes": all_codes[:, :, count:]}
        return outputs

    def _box_codes(self, raw: Tensor, places: Tensor, seconds: Tensor | None) -> Tensor:
        """What the branch answers (B, Q, 10) and places (B, Q, 3) -> codes in metres."""
        centre = self._metres(self._centres(raw, places))
        velocity = raw[..., 8:] if seconds is None else raw[..., 8:] / seconds[:, None, None]
        return torch.cat([centre[..., :2], raw[..., 2:4], centre[..., 2:], raw[..., 5:8], velocity], -1)


def _by_layer(outputs: dict[str, Tensor], *names: str) -> list[Tensor]:
    """Outputs (B, L, Q, *) as (L, B, Q, *)."""
    return [outputs[name].transpose(0, 1) for name in names]


def _encoder(config: Ppe3dConfig) -> Any:
    if config.encoder == "vovnet99":
        if config.pretrained:
            raise ConfigError("there are no weights to start a V2-99 from: use model.pretrained=false.")
        return VoVNet99(outputs=(4, 5))
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


def _map_mlp(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, 4 * channels, 1), nn.ReLU(), nn.Conv2d(4 * channels, channels, 1))


def _centre(code: Tensor) -> Tensor:
    """(*, 3) of codes (*, 10)."""
    return torch.cat([code[..., :2], code[..., 4:5]], -1)


def _cell_depth(depth: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest depth (M, h, w) around the top left corner of each feature, 0 where none is known, of maps (B, N, H, W)."""
    maps = depth.flatten(0, 1)
    up, left = maps.shape[-2] // size[0] // 2, maps.shape[-1] // size[1] // 2
    return block_minimum(F.pad(maps, (left, -left, up, -up)), size)  # half a feature: a point belongs to the nearest corner


def _inside(boxes: Tensor, limits: Range) -> Tensor:
    """(M,) bool: centres that lie inside the limits, seen from above."""
    x, y = boxes[:, 0], boxes[:, 1]
    return (x > limits[0]) & (x < limits[3]) & (y > limits[1]) & (y < limits[4])
