"""Swin against an independent implementation: the one of Hugging Face transformers 5.23, whose maps are stored.

The maps were written, and can be checked again where transformers is installed, by

    python -m pytest tests/nn/encoders/test_swin_golden.py -k transformers
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from frustum.nn.encoders.swin import SwinConfig, SwinTransformer

STORED = Path(__file__).parents[2] / "data/swin/transformers.npz"
TINY = SwinConfig(embed_channels=4, depths=(2, 2, 3, 2), heads=(1, 2, 2, 4), window=3)
SIZE = (160, 224)
"""Maps of 40x56 to 5x7: no stage is a whole number of windows, each is larger than one."""


def by_rule(model: torch.nn.Module) -> dict[str, Tensor]:
    """Weights that need no file: a sine that runs through all parameters by name."""
    state, start = dict(model.state_dict()), 0
    for name, value in sorted(model.named_parameters()):
        scale = 0.3 if value.ndim > 1 else 0.5
        state[name] = scale * torch.sin(0.7 * (start + torch.arange(value.numel(), dtype=torch.float64))).view(value.shape).float()
        start += value.numel()
    return state


def network() -> SwinTransformer:
    model = SwinTransformer(TINY, outputs=(0, 1, 2, 3)).eval()
    model.load_state_dict(by_rule(model))
    return model


def images() -> Tensor:
    count = 3 * SIZE[0] * SIZE[1]
    return torch.cos(0.37 * torch.arange(count, dtype=torch.float64) ** 1.1).view(1, 3, *SIZE).float()


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


def test_stored_maps_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        image_size=SIZE, embed_dim=TINY.embed_channels, depths=list(TINY.depths), num_heads=list(TINY.heads), window_size=TINY.window,
        drop_path_rate=0.0, out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    model = transformers.SwinBackbone(config).eval()
    ours = {k: v for name, value in by_rule(network()).items() if "position_index" not in name for k, v in theirs(name, value).items()}
    missing, unknown = model.load_state_dict(ours, strict=False)
    assert not unknown
    assert all(name.startswith("swin.layernorm.") or "position_index" in name for name in missing)
    with torch.no_grad():
        maps = model(images()).feature_maps
    if not STORED.exists():
        np.savez_compressed(STORED, **{f"stage{i}": m[0].numpy() for i, m in enumerate(maps)})
    with np.load(STORED, allow_pickle=False) as stored:
        for i, found in enumerate(maps):
            np.testing.assert_allclose(found[0].numpy(), stored[f"stage{i}"], atol=1e-5)
