"""The inputs of HeSer's golden numbers, made from names alone: weights, images, parsing maps."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def inp(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(rng(name).standard_normal(shape)).float()


def img(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(rng(name).uniform(-1, 1, shape)).float()


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of a state dict, but for the vectors of spectral norms."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    draw, leaf = rng(key).standard_normal(shape), key.rpartition(".")[2]
    if leaf == "running_var":
        return 1 + 0.1 * np.abs(draw)
    if leaf in ("bias", "running_mean"):
        return 0.1 * draw
    if leaf == "constant" or len(shape) == 1:
        return 1 + 0.1 * draw
    return draw * np.sqrt(2 / np.prod(shape[1:]))


def spectral(key: str, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u and v of a weight [out, in] after 30 power iterations."""
    u = rng(key + "_u").standard_normal(len(matrix))
    u /= np.linalg.norm(u)
    for _ in range(30):
        v = matrix.T @ u
        v /= np.linalg.norm(v)
        u = matrix @ v
        u /= np.linalg.norm(u)
    return u, v


def fill(network: nn.Module, prefix: str = "") -> nn.Module:
    """The network in eval mode with the weights of the rule, for the names of its own state dict behind a prefix."""
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        if key.endswith(("weight_u", "weight_v")):
            continue
        made = weight(prefix + key, tuple(value.shape))
        state[key] = torch.from_numpy(made).to(value.dtype)
        if key.endswith("weight_orig"):
            name = key.removesuffix("_orig")
            u, v = spectral(prefix + name, made.reshape(len(made), -1))
            state |= {f"{name}_u": torch.from_numpy(u).float(), f"{name}_v": torch.from_numpy(v).float()}
    network.load_state_dict(state)
    return network.eval()


def folder(shared: Path) -> Path:
    found = shared / "golden" / "heser"
    if not found.is_dir():
        pytest.skip("no golden numbers of HeSer")
    return found


@functools.cache
def outputs(shared: Path) -> dict[str, Tensor]:
    with np.load(folder(shared) / "outputs.npz", allow_pickle=False) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def keys(shared: Path, module: str) -> dict[str, list[int]]:
    """Names and shapes of a module's state dict."""
    found = json.loads((folder(shared) / "keys.json").read_text())[module]
    return {key: shape for key, shape in found.items() if key != "__params__"}


def shapes(network: nn.Module, prefix: str = "") -> dict[str, list[int]]:
    return {prefix + key: list(value.shape) for key, value in network.state_dict().items()}


def close(found: Tensor, golden: dict[str, Tensor], name: str, atol: float) -> None:
    """An output equals the stored one: all of it, or every eighth pixel and the middle."""
    if name in golden:
        torch.testing.assert_close(found, golden[name], rtol=0, atol=atol)
        return
    torch.testing.assert_close(found[..., ::8, ::8], golden[f"{name}/stride8"], rtol=0, atol=atol)
    y, x = found.shape[-2] // 2 - 32, found.shape[-1] // 2 - 32
    torch.testing.assert_close(found[..., y : y + 64, x : x + 64], golden[f"{name}/center64"], rtol=0, atol=atol)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def parsing(size: int, dx: float, roll: float, hat: bool) -> np.ndarray:
    """A face of ellipses: (size, size) uint8 ids of CelebAMask-HQ."""
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float64)
    u, v = (xx + 0.5) / size - 0.5 - dx, (yy + 0.5) / size - 0.5
    c, s = np.cos(roll), np.sin(roll)
    u, v = c * u + s * v, -s * u + c * v
    m = np.zeros((size, size), np.uint8)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((u - cx) / rx) ** 2 + ((v - cy) / ry) ** 2 < 1

    def put(parts: Iterable[tuple[int, tuple[float, float, float, float]]]) -> None:
        for part, place in parts:
            m[ellipse(*place)] = part

    m[v > 0.30] = 16
    put([(14, (0, 0.32, 0.10, 0.14)), (17, (0, -0.06, 0.25, 0.30)), (1, (0, 0, 0.19, 0.25))])
    for side, eye, brow, ear in ((-1, 4, 2, 7), (1, 5, 3, 8)):
        put([(ear, (side * 0.20, 0, 0.025, 0.06)), (eye, (side * 0.08, -0.04, 0.035, 0.018)), (brow, (side * 0.08, -0.09, 0.05, 0.012))])
    put([(10, (0, 0.04, 0.025, 0.05)), (12, (0, 0.13, 0.07, 0.035)), (13, (0, 0.155, 0.06, 0.018)), (11, (0, 0.14, 0.045, 0.012))])
    if hat:
        put([(18, (0, -0.28, 0.20, 0.07))])
    return m
