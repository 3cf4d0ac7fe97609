"""The transformer decoder and the output branches of DETR-style detectors, with the key names of PETR and 3DPPE.

PETR (Liu et al., ECCV 2022): Q learned queries attend to each other and to all tokens of the images, six times; a class branch and a box
branch read the output of every layer.
Shape letters: B batch, Q queries, S image tokens, C channels, L layers, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ShapeError


class Attention(nn.Module):
    """Multi-head attention with torch's packed parameters, under mmcv's extra name `attn`, by scaled_dot_product_attention.

    Args:
        channels: C, divisible by `heads`.
        heads: number of heads.
        dropout: of the attention weights and of the result.
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if channels % heads:
            raise ShapeError(f"{channels} channels do not divide into {heads} heads.")
        self.heads, self.dropout = heads, dropout
        self.attn = _Packed(channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (B, Q, C), key and value (B, S, C) -> (B, Q, C)."""
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        split = [
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, Q or S, C / heads)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        dtype = split[0].dtype
        if query.device.type == "cpu":  # in half precision the backward pass took five times as long there
            split = [x.float() for x in split] if dtype in (torch.bfloat16, torch.float16) else split
        q, k, v = split
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.drop(self.attn.out_proj(found.transpose(1, 2).flatten(2).to(dtype)))


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
    """

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, heads, dropout), Attention(channels, heads, dropout)])
        inner = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))
        layers = nn.Sequential(inner, nn.Linear(hidden, channels), nn.Dropout(dropout))
        self.ffns = nn.ModuleList([nn.ModuleDict({"layers": layers})])
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])

    def forward(self, x: Tensor, query_pos: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """x and query_pos (B, Q, C), key (with its position) and value (B, S, C) -> (B, Q, C)."""
        among = x + query_pos
        x = self.norms[0](x + self.attentions[0](among, among, x))
        x = self.norms[1](x + self.attentions[1](x + query_pos, key, value))
        return self.norms[2](x + self.ffns[0]["layers"](x))  # type: ignore[index]


class QueryDecoder(nn.Module):
    """L decoder layers; queries start at zero, their position is all that tells them apart.

    Args:
        layers: L.
        channels, heads, hidden, dropout: see `DecoderLayer`.
        post_norm: pass each layer's output, not what the next layer reads, through one more norm that all layers share.
    """

    def __init__(
        self, layers: int = 6, channels: int = 256, heads: int = 8, hidden: int = 2048, dropout: float = 0.1, post_norm: bool = True
    ):
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(channels, heads, hidden, dropout) for _ in range(layers)])
        self.post_norm = nn.LayerNorm(channels) if post_norm else None
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        # Queries are zero when they first look at each other: they see the same whatever these weights are, and no gradient arrives.
        first = self.layers[0].attentions[0].attn  # type: ignore[union-attr, index]
        first.in_proj_weight.requires_grad_(False)
        first.out_proj.weight.requires_grad_(False)

    def forward(self, query_pos: Tensor, memory: Tensor, pos: Tensor, refine: Callable[[int, Tensor], Tensor] | None = None) -> Tensor:
        """The output of every layer (L, B, Q, C).

        Args:
            query_pos: (B, Q, C) position embedding of the queries.
            memory: (B, S, C) image tokens.
            pos: (B, S, C) position embedding of the image tokens: part of the keys, not of the values.
            refine: called with the number and the output of each layer, returns the `query_pos` of the next.
        """
        x, key, outputs = torch.zeros_like(query_pos), memory + pos, []
        for i, layer in enumerate(self.layers):
            x = layer(x, query_pos, key, memory)
            outputs.append(x if self.post_norm is None else self.post_norm(x))
            if refine is not None and i + 1 < len(self.layers):
                query_pos = refine(i, x)
        return torch.stack(outputs)


def class_branch(channels: int, num_classes: int, prior: float = 0.01) -> nn.Sequential:
    """Queries (*, C) -> class logits (*, K); at the start every class has the probability `prior`."""
    last = nn.Linear(channels, num_classes)
    nn.init.constant_(last.bias, -math.log((1 - prior) / prior))
    blocks = [part for _ in range(2) for part in (nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True))]
    return nn.Sequential(*blocks, last)


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
