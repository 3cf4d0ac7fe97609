"""The head of Ppe3d: from image features to classes and box codes, with the key names of the reference's heads.

Shape letters: B batch, N cameras, M = B * N images, h w feature map, C channels, D depths, Q queries, L decoder layers, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import DataError
from frustum.geometry.transforms import send, without_autocast
from frustum.models.ppe3d_distill import PREFIX
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
from frustum.nn.query_aids import denoising_mask, grid_anchors
from frustum.nn.query_decoder import (
    Answer,
    GroupedBoxBranch,
    QueryDecoder,
    QueryPositions,
    Tokens,
    box_branch,
    class_branch,
    per_layer,
    token_branch,
)
from frustum.nn.ray_depth import DepthKind, LightDepthNet, MapGate, RayDepth, RayDepthNet, camera_numbers
from frustum.nn.rig_memory import RigMemory
from frustum.nn.small_trunk import ray_directions
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.frame import Frame

if TYPE_CHECKING:
    from frustum.models.ppe3d import Ppe3dConfig

POINT = ("point3d", "point3d_lidar")
"""Encodings by one point per feature."""
DEPTH_NET = ("topk", "depth_guided_feature", "point3d")
"""Encodings that predict a depth."""

_UNHEARD = -50.0
"""The score of a token that no query listens to; finite, as a whole image may be without LiDAR."""


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
        self.directions: RigMemory[Tensor] = RigMemory()
        self.turns: RigMemory[Tensor] = RigMemory()
        read = in_channels
        if config.encoding in DEPTH_NET:
            kind: DepthKind = config.depth if config.encoding == "point3d" else "probabilistic"
            self.depth_net: RayDepthNet | LightDepthNet
            if config.aids.light_depth:
                self.depth_net = LightDepthNet(in_channels, config.depth_channels, kind, config.depth_bins)
            else:
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
        if config.encoding in (*POINT, "ray_mean"):
            own = nn.Sequential(nn.Linear(numbers, c), nn.ReLU(), nn.Linear(c, c))
            self.position_encoder = self.query_embedding if config.shared_embedding else own
        if config.encoding not in POINT:
            count = config.depth_bins if config.encoding in DEPTH_NET else config.ray_depths
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
            self.token_branch = token_branch(c, len(DETECTION_CLASSES))
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
        branch: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The outputs of Ppe3d.

        Args:
            features: (M, in_channels, h, w).
            frame: of the M cameras.
            lidar: depth for the oracle (M, h, w) in metres, 0 where unknown.
            seconds: (B,) from the past frame to the keyframe, if there is one: velocities are regressed per this time.
            branch: (Q, 3) other places of queries, 0..1 in the box range, to run the decoder on as well; its outputs are under `distill.`.
        """
        config, views = self.config, tuple(frame.rig.intrinsics.shape[:2])  # B, N
        outputs: dict[str, Tensor] = {}
        found = None
        if config.aids.ray_input:
            size, like = (features.shape[-2], features.shape[-1]), (features.device, features.dtype)
            rest = (*map(str, like), frame.rig.image_size, size)
            matrices = (frame.rig.image_aug, frame.rig.intrinsics)
            rays = self.directions.get(matrices, rest, lambda: send(ray_directions(frame.rig, size), *like))
            features = torch.cat([features, rays], 1)
        if config.encoding in DEPTH_NET:
            found = self.depth_net(features, camera_numbers(frame, features.device))
            features = found.context
            if config.depth != "direct" or config.encoding != "point3d":
                outputs["depth_logits"] = found.logits
        memory = self.input_proj(features)
        if config.encoding in POINT:
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
        size = memory.shape[-2:]
        memory, position = (x.flatten(2).mT.unflatten(0, views).flatten(1, 2) for x in (memory, position))  # (B, N * h * w, C)
        if config.aids.position_in_values:
            position = self.position_norm(position)
        tokens = Tokens(0.5 * F.layer_norm(memory, memory.shape[-1:]) if config.aids.memory_norm else memory, position)
        if config.aids.token_loss:
            logits, offsets = self._token_answers(memory, frame)
            outputs |= {"token_logits": logits.view(-1, *size, logits.shape[-1]), "token_offsets": offsets.view(-1, *size, 3)}
            if config.aids.votes and places is not None:
                votes, scores = places.flatten(1, 3) + offsets, _objectness(logits)
                if found is None and lidar is not None:  # where nothing was measured, the oracle's token stands nowhere
                    scores = scores.where((lidar > 0).unflatten(0, views).flatten(1), _UNHEARD)
                tokens = tokens._replace(votes=votes, scores=scores)
                outputs["token_votes"] = votes.view(-1, *size, 3)
        outputs |= self._boxes(tokens, seconds, self.reference_points.weight, noisy)
        more = {} if branch is None else self._boxes(tokens, seconds, branch)
        return outputs | {f"{PREFIX}{name}": value for name, value in more.items()}

    def _token_answers(self, memory: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """Logits (B, S, K + 1) of tokens (B, S, C), and offsets (B, S, 3), which a token says along the axes of its camera."""
        logits, offsets = self.token_branch(memory).split((len(DETECTION_CLASSES) + 1, 3), -1)
        with without_autocast(offsets):
            rig, device = frame.rig, offsets.device

            def make() -> Tensor:
                cam2map = frame.bev_aug[:, None].double() @ rig.cam2key(frame.ego2global).double()
                return send(cam2map[..., :3, :3], device, torch.float32)

            turn = self.turns.get((rig.cam2ego, rig.ego2global, frame.ego2global, frame.bev_aug), str(device), make)  # (B, N, 3, 3)
            return logits, (offsets.float().unflatten(1, (turn.shape[1], -1)) @ turn.mT).flatten(1, 2)

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

    def _centres(self, raw: Tensor, places: Tensor, moved: Tensor | None) -> Tensor:
        """What the branch answers (B, Q, 10), places and metres from there (B, Q, 3) -> centres (B, Q, 3) as shares of the box range."""
        if not self.config.aids.metric_offsets:
            centres = (_centre(raw) + inverse_sigmoid(places)).sigmoid()
            return centres if moved is None else centres + self._shares(moved)
        return places + self._shares(_centre(raw) if moved is None else _centre(raw) + moved)

    def _shares(self, metres: Tensor) -> Tensor:
        """Differences (*, 3) in metres as shares of the box range."""
        limits = self.config.box_range
        sizes = [high - low for low, high in zip(limits[:3], limits[3:], strict=True)]
        return torch.stack([x / size for x, size in zip(metres.unbind(-1), sizes, strict=True)], -1)

    def _boxes(self, tokens: Tokens, seconds: Tensor | None, first: Tensor, noisy: Tensor | None = None) -> dict[str, Tensor]:
        """Classes and boxes of queries that begin at places (Q, 3), or (B, Q, 3), and of denoising ones (B, D, 3)."""
        count, first = first.shape[-2], first.float().expand(len(tokens.memory), -1, -1)
        mask = None
        if noisy is not None:
            mask = denoising_mask(count, noisy.shape[1], self.config.aids.denoising, first.device)
            first = torch.cat([first, noisy], 1)
        places = [first]  # of the queries, as each layer reads them

        def refine(layer: int, answer: Answer) -> QueryPositions:
            with without_autocast(answer.queries):
                raw = self.reg_branches[layer](answer.queries.float())
                places.append(self._centres(raw, places[-1], answer.moved).detach().clamp(0, 1))
            return self._at(places[-1])

        queries, moved = self.transformer["decoder"](self._at(first), tokens, refine if self.config.refine_boxes else None, mask)
        logits, codes = [], []
        with without_autocast(queries):  # half precision knows metres to a few decimetres only, and makes scores equal
            for i, found in enumerate(queries.float()):  # (B, Q, C)
                logits.append(self.cls_branches[i](found))
                begin, away = places[i if self.config.refine_boxes else 0], None if moved is None else moved[i]
                codes.append(self._box_codes(self.reg_branches[i](found), begin, seconds, away))
        all_logits, all_codes = torch.stack(logits, 1), torch.stack(codes, 1)
        outputs = {"class_logits": all_logits[:, :, :count], "box_codes": all_codes[:, :, :count]}
        if mask is not None:
            outputs |= {"denoising_logits": all_logits[:, :, count:], "denoising_codes": all_codes[:, :, count:]}
        return outputs

    def _box_codes(self, raw: Tensor, places: Tensor, seconds: Tensor | None, moved: Tensor | None = None) -> Tensor:
        """What the branch answers (B, Q, 10), places (B, Q, 3) and metres from there (B, Q, 3) -> codes in metres."""
        centre = self._metres(self._centres(raw, places, moved))
        velocity = raw[..., 8:] if seconds is None else raw[..., 8:] / seconds[:, None, None]
        return torch.cat([centre[..., :2], raw[..., 2:4], centre[..., 2:], raw[..., 5:8], velocity], -1)


def _map_mlp(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, 4 * channels, 1), nn.ReLU(), nn.Conv2d(4 * channels, channels, 1))


def _objectness(logits: Tensor) -> Tensor:
    """The logit (*) of seeing any object, of logits (*, K + 1) whose last is that of none."""
    return logits[..., :-1].logsumexp(-1) - logits[..., -1]


def _centre(code: Tensor) -> Tensor:
    """(*, 3) of codes (*, 10)."""
    return torch.cat([code[..., :2], code[..., 4:5]], -1)
