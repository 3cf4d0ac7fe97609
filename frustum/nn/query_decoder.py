"""The transformer decoder and the output branches of DETR-style detectors, with the key names of PETR and 3DPPE.

PETR (Liu et al., ECCV 2022): Q learned queries attend to each other and to all tokens of the images, six times; a class branch and a box
branch read the output of every layer.
Shape letters: B batch, Q queries, S image tokens, C channels, L layers, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ShapeError
from frustum.geometry.transforms import without_autocast

_PADDED = 8  # numbers by which attention grows for votes
_WIDTHS = (2.0, 3.0, 4.5, 7.0)  # metres: how far the heads of the first layer look at first; those of each next layer half as far


class Votes(NamedTuple):
    """What tokens say of the object that they see, and where the queries are.

    Attributes:
        queries: (B, Q, 3) places in metres.
        tokens: (B, S, 3) where the centre of the object is, in metres.
        scores: (B, S) logit of seeing an object.
    """

    queries: Tensor
    tokens: Tensor
    scores: Tensor


class Answer(NamedTuple):
    """What queries found.

    Attributes:
        queries: (B, Q, C), or (L, B, Q, C) of all layers.
        moved: (B, Q, 3), or (L, B, Q, 3), metres from where the queries are to the mean of what tokens voted for; None without votes.
    """

    queries: Tensor
    moved: Tensor | None = None


class Attention(nn.Module):
    """Multi-head attention with torch's packed parameters, under mmcv's extra name `attn`, by scaled_dot_product_attention.

    Args:
        channels: C, divisible by `heads`.
        heads: number of heads.
        dropout: of the attention weights and of the result.
        votes: prefer tokens whose votes are near and likely, and add what `offset` makes of the mean vote of each head, in metres from the
            query. The answer also says how far a query moves: a mean over the heads and staying, whose weights are the softmax of `choice`.
        width: factor of how far heads look for votes at first.
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0, votes: bool = False, width: float = 1.0):
        super().__init__()
        if channels % heads:
            raise ShapeError(f"{channels} channels do not divide into {heads} heads.")
        self.heads, self.dropout = heads, dropout
        self.attn = _Packed(channels)
        self.drop = nn.Dropout(dropout)
        if votes:
            widths = torch.tensor([width * _WIDTHS[i % len(_WIDTHS)] for i in range(heads)])
            self.log_width, self.score_weight = nn.Parameter(widths.log()), nn.Parameter(torch.ones(heads))
            self.offset = nn.Sequential(nn.Linear(3 * heads, channels), nn.ReLU(), nn.Linear(channels, channels))
            self.choice = nn.Linear(channels, heads + 1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, votes: Votes | None = None) -> Answer:
        """query (B, Q, C), key and value (B, S, C) -> (B, Q, C); `mask` (Q, S) is True where a query may look."""
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        split = [
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, Q or S, C / heads)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        dtype, size = split[0].dtype, split[0].shape[-1]
        with without_autocast(query):  # autocast would bring what is float32 here back to half precision
            if votes is not None:
                split = self._with_votes(split, votes)
            elif query.device.type == "cpu":  # in half precision the backward pass took five times as long there
                split = [x.float() for x in split] if dtype in (torch.bfloat16, torch.float16) else split
            q, k, v = split
            found = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0, scale=size**-0.5)
        result = self.attn.out_proj(found[..., :size].transpose(1, 2).flatten(2).to(dtype))
        if votes is None:
            return Answer(self.drop(result))
        with without_autocast(query):
            offsets = (found[..., size : size + 3] - votes.queries[:, None]).transpose(1, 2)  # (B, Q, heads, 3)
        result = result + self.offset(offsets.flatten(2).asinh().to(dtype))
        with without_autocast(query):
            moved = (self.choice(result.float()).softmax(-1)[..., :-1, None] * offsets).sum(2)
        return Answer(self.drop(result), moved)

    def _with_votes(self, split: list[Tensor], votes: Votes) -> list[Tensor]:
        """Queries, keys and values with further numbers: one pass over the tokens gives both means. float32, as squares of metres need.

        exp(-|vote - query|^2 / 2 width^2), of x and y alone, is, but for a factor that all tokens of a query share, the exponential of a
        product of a number of the query and one of the token; so is the score.
        """
        q, k, v = (x.float() for x in split)
        votes = Votes(*(x.float() for x in votes))
        near = (-2 * self.log_width).exp()[:, None, None]  # (heads, 1, 1)
        at, voted = votes.queries[..., :2], votes.tokens[..., :2]
        ones = torch.ones_like(at[:, None, :, :1]).expand(-1, self.heads, -1, -1)
        asked = torch.cat([at[:, None] * near, ones * -near / 2, ones * self.score_weight[:, None, None]], -1) * q.shape[-1] ** 0.5
        told = torch.cat([voted, voted.square().sum(-1, keepdim=True), votes.scores[..., None]], -1)[:, None].expand(-1, self.heads, -1, -1)
        means = F.pad(votes.tokens, (0, _PADDED - 3))[:, None].expand(-1, self.heads, -1, -1)
        pad = (0, _PADDED - 4)
        return [torch.cat([q, F.pad(asked, pad)], -1), torch.cat([k, F.pad(told, pad)], -1), torch.cat([v, means], -1)]


class _Packed(nn.Module):
    """The parameters of torch's MultiheadAttention: queries, keys and values in one matrix."""

    def __init__(self, channels: int):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)


class DecoderLayer(nn.Module):
    """Attention among the queries, attention to the images, two linear layers; a norm behind each.

    Args:
        channels, heads, dropout: see `Attention`.
        hidden: width of the two linear layers.
        votes, width: of the attention to the images, see `Attention`.
    """

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float, votes: bool = False, width: float = 1.0):
        super().__init__()
        to_images = Attention(channels, heads, dropout, votes, width)
        self.attentions = nn.ModuleList([Attention(channels, heads, dropout), to_images])
        inner = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))
        layers = nn.Sequential(inner, nn.Linear(hidden, channels), nn.Dropout(dropout))
        self.ffns = nn.ModuleList([nn.ModuleDict({"layers": layers})])
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])

    def forward(
        self,
        x: Tensor,
        query_pos: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        votes: Votes | None = None,
    ) -> Answer:
        """x and query_pos (B, Q, C), key (with its position) and value (B, S, C) -> (B, Q, C), and how far the queries move.

        `mask` (Q, Q) says which queries may look at each other.
        """
        among = x + query_pos
        x = self.norms[0](x + self.attentions[0](among, among, x, mask).queries)
        found = self.attentions[1](x + query_pos, key, value, votes=votes)
        x = self.norms[1](x + found.queries)
        return Answer(self.norms[2](x + self.ffns[0]["layers"](x)), found.moved)  # type: ignore[index]


class Tokens(NamedTuple):
    """What queries look at.

    Attributes:
        memory: (B, S, C) features of the images.
        position: (B, S, C) embedding of where they lie.
        votes: (B, S, 3) where the centre of the object is that they see, in metres, and
        scores: (B, S) the logit of seeing one, if they are asked.
    """

    memory: Tensor
    position: Tensor
    votes: Tensor | None = None
    scores: Tensor | None = None


class QueryPositions(NamedTuple):
    """Where the queries are.

    Attributes:
        embedding: (B, Q, C).
        places: (B, Q, 3) metres, if needed.
    """

    embedding: Tensor
    places: Tensor | None = None


class QueryDecoder(nn.Module):
    """L decoder layers; queries start at zero, their position is all that tells them apart.

    Args:
        layers: L.
        channels, heads, hidden, dropout: see `DecoderLayer`.
        post_norm: pass each layer's output, not what the next layer reads, through one more norm that all layers share.
        position_in_values, votes: see `nn.query_aids.QueryAids`.
    """

    def __init__(
        self,
        layers: int = 6,
        channels: int = 256,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
        post_norm: bool = True,
        position_in_values: bool = False,
        votes: bool = False,
    ):
        super().__init__()
        self.position_in_values = position_in_values
        self.layers = nn.ModuleList([DecoderLayer(channels, heads, hidden, dropout, votes, 0.5**i) for i in range(layers)])
        self.post_norm = nn.LayerNorm(channels) if post_norm else None
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if position_in_values:
            for layer in self.layers:
                _match_near(layer.attentions[1].attn.in_proj_weight, 0.5 if votes else 1.5)  # type: ignore[union-attr, index, arg-type]
            return
        # Queries are zero when they first look at each other: all see the same bias, whatever these weights are.
        first = self.layers[0].attentions[0].attn  # type: ignore[union-attr, index]
        first.in_proj_weight.requires_grad_(False)
        first.out_proj.weight.requires_grad_(False)

    def forward(
        self,
        start: QueryPositions,
        tokens: Tokens,
        refine: Callable[[int, Answer], QueryPositions] | None = None,
        mask: Tensor | None = None,
    ) -> Answer:
        """The output of every layer (L, B, Q, C), and how far the queries move in each.

        Args:
            start: where the queries begin.
            tokens: what they look at. Positions are part of the keys, and of the values only with `position_in_values`.
            refine: called with the number and the answer of each layer but the last, returns where the queries of the next are.
            mask: (Q, Q) bool, True where a query may look at another.
        """
        key = tokens.memory + tokens.position
        value = key if self.position_in_values else tokens.memory
        x, at = start.embedding if self.position_in_values else torch.zeros_like(start.embedding), start
        outputs: list[Tensor] = []
        moves: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            votes = None
            if tokens.votes is not None and tokens.scores is not None and at.places is not None:
                votes = Votes(at.places, tokens.votes, tokens.scores)
            answer = layer(x, at.embedding, key, value, mask, votes)
            x = answer.queries
            outputs.append(x if self.post_norm is None else self.post_norm(x))
            if answer.moved is not None:
                moves.append(answer.moved)
            if refine is not None and i + 1 < len(self.layers):
                at = refine(i, answer)
        return Answer(torch.stack(outputs), torch.stack(moves) if moves else None)


@torch.no_grad()
def _match_near(weight: Tensor, factor: float) -> None:
    """Make queries and keys of packed weights (3 C, C) the same projection, `factor` times as large as it was.

    With a large one equal positions stand out from the start, up to where a query sees one token only; a small one leaves it to votes.
    """
    queries, keys, _ = weight.chunk(3)
    queries.mul_(factor)
    keys.copy_(queries)


def class_branch(channels: int, num_classes: int, prior: float = 0.01) -> nn.Sequential:
    """Queries (*, C) -> class logits (*, K); at the start every class has the probability `prior`."""
    last = nn.Linear(channels, num_classes)
    nn.init.constant_(last.bias, -math.log((1 - prior) / prior))
    blocks = [part for _ in range(2) for part in (nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True))]
    return nn.Sequential(*blocks, last)


def token_branch(channels: int, num_classes: int) -> nn.Sequential:
    """Image tokens (*, C) -> logits of the classes and of no object, and an offset in metres (*, K + 4), see losses/token_boxes.py."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, num_classes + 4))


def box_branch(channels: int, numbers: int = 10) -> nn.Sequential:
    """Queries (*, C) -> the `numbers` of a box code (*, 10), see nn/box_code.py."""
    blocks = [part for _ in range(2) for part in (nn.Linear(channels, channels), nn.ReLU())]
    return nn.Sequential(*blocks, nn.Linear(channels, numbers))


class GroupedBoxBranch(nn.Module):
    """PETRv2's box branch: queries (*, C) -> box code (*, 10), each group of numbers by a small network of its own.

    The groups are 2, 1, 3, 2 and 2 consecutive numbers of the code (nn/box_code.py), whatever those mean, as in the published files.
    """

    groups = (2, 1, 3, 2, 2)

    def __init__(self, channels: int):
        super().__init__()
        blocks = [part for _ in range(2) for part in (nn.Linear(channels, channels), nn.ReLU(), nn.Identity())]
        self.reg_branch = nn.Sequential(*blocks)
        heads = [nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width)) for width in self.groups]
        self.task_heads = nn.ModuleList(heads)

    def forward(self, queries: Tensor) -> Tensor:
        """See the class."""
        shared = self.reg_branch(queries)
        return torch.cat([head(shared) for head in self.task_heads], -1)


def per_layer(make: Callable[[], nn.Module], layers: int, shared: bool) -> nn.ModuleList:
    """A branch for each of L layers: one module under L names with `shared`, as in PETR's state dicts; else L modules."""
    if shared:
        one = make()
        return nn.ModuleList([one] * layers)
    return nn.ModuleList([make() for _ in range(layers)])
