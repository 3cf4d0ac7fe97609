"""Swin against an independent implementation: the one of Hugging Face transformers 5.23, whose maps of a tiny network are stored.

Where transformers is installed, they are checked again, and Swin-B is compared directly:

    python -m pytest tests/nn/encoders/test_swin_golden.py -k transformers
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from frustum.nn.encoders.swin import SwinConfig, SwinTransformer

STORED = Path(__file__).parents[2] / "data/swin/transformers.npz"
TINY = SwinConfig(embed_channels=4, depths=(2, 2, 3, 2), heads=(1, 2, 2, 4), window=3)
SIZE = (160, 224)
"""Maps of 40x56 to 5x7: no stage is a whole number of windows, each is larger than one."""


def by_rule(model: torch.nn.Module, scale: float) -> dict[str, Tensor]:
    """Weights that need no file: a sine that runs through all parameters by name; matrices are `scale` high."""
    state, start = dict(model.state_dict()), 0
    for name, value in sorted(model.named_parameters()):
        height = scale if value.ndim > 1 else 0.5
        state[name] = height * torch.sin(0.7 * (start + torch.arange(value.numel(), dtype=torch.float64))).view(value.shape).float()
        start += value.numel()
    return state


def network(config: SwinConfig = TINY, scale: float = 0.3) -> SwinTransformer:
    model = SwinTransformer(config, outputs=(0, 1, 2, 3)).eval()
    model.load_state_dict(by_rule(model, scale))
    return model


def images(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.cos(0.37 * torch.arange(3 * size[0] * size[1], dtype=torch.float64) ** 1.1).view(1, 3, *size).float()


def test_maps_are_those_of_another_implementation():
    with torch.no_grad():
        maps = network()(images())
    with np.load(STORED, allow_pickle=False) as stored:
        for i, found in enumerate(maps):
            torch.testing.assert_close(found[0], torch.from_numpy(stored[f"stage{i}"]), atol=2e-5, rtol=0)
            assert found.std() > 0.1


def theirs(name: str, value: Tensor) -> dict[str, Tensor]:
    """Our parameter by their names."""
    name = name.replace("patch_embed.projection", "swin.embeddings.patch_embeddings.projection")
    name = name.replace("patch_embed.norm", "swin.embeddings.norm").replace("stages.", "swin.encoder.layers.")
    name = name.replace("attn.w_msa.proj.", "attention.o_proj.").replace("ffn.layers.0.0.", "mlp.fc1.").replace("ffn.layers.1.", "mlp.fc2.")
    name = name.replace("attn.w_msa.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table")
    name = re.sub(r"(blocks\.\d+\.)norm1", r"\1layernorm_before", name)
    name = re.sub(r"(blocks\.\d+\.)norm2", r"\1layernorm_after", name)
    name = re.sub(r"^norm(\d)", lambda m: f"hidden_states_norms.stage{int(m[1]) + 1}", name)
    if "qkv" in name:
        return {name.replace("attn.w_msa.qkv", f"attention.{part}_proj"): v for part, v in zip("qkv", value.chunk(3), strict=True)}
    if "downsample" in name:  # four neighbours: (channel, row, column) here, (column, row, channel) there
        channels = value.shape[-1] // 4
        value = value.unflatten(-1, (channels, 2, 2)).movedim((-3, -2, -1), (-1, -2, -3)).flatten(-3)
    return {name: value}


@pytest.fixture
def transformers() -> ModuleType:
    return pytest.importorskip("transformers", reason="no dependency of frustum; its maps of the tiny network are stored")


def their_maps(transformers: ModuleType, ours: SwinTransformer, config: SwinConfig, size: tuple[int, int]) -> list[Tensor]:
    """What transformers makes of the same weights."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    sizes = {"embed_dim": config.embed_channels, "depths": list(config.depths), "num_heads": list(config.heads)}
    wanted = transformers.SwinConfig(image_size=size, window_size=config.window, drop_path_rate=0.0, out_features=stages, **sizes)
    model = transformers.SwinBackbone(wanted).eval()
    renamed = [theirs(name, value) for name, value in ours.state_dict().items() if "position_index" not in name]
    missing, unknown = model.load_state_dict({name: value for part in renamed for name, value in part.items()}, strict=False)
    assert not unknown
    assert all(name.startswith("swin.layernorm.") or "position_index" in name for name in missing)
    with torch.no_grad():
        return [m[0] for m in model(images(size)).feature_maps]


def test_stored_maps_are_those_of_transformers(transformers):
    maps = their_maps(transformers, network(), TINY, SIZE)
    with np.load(STORED, allow_pickle=False) as stored:
        for i, found in enumerate(maps):
            np.testing.assert_allclose(found.numpy(), stored[f"stage{i}"], atol=1e-5)


def test_swin_b_equals_transformers(transformers):
    size, config = (416, 800), SwinConfig()  # maps of 104x200 to 13x25, windows of 12
    ours = network(config, scale=0.07)
    with torch.no_grad():
        maps = ours(images(size))
    for found, expected in zip(maps, their_maps(transformers, ours, config, size), strict=True):
        assert found.std() > 0.1
        torch.testing.assert_close(found[0], expected, atol=2e-5, rtol=0)
