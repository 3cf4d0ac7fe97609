"""Swin: key names and sizes, window attention against a plain one, shifts, padding, and the merging order of its checkpoints."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from frustum.errors import ConfigError
from frustum.nn.encoders.swin import SwinConfig, SwinTransformer, _PatchMerging, _relative_positions, _ShiftWindowAttention

TINY = SwinConfig(embed_channels=8, depths=(2, 1, 1, 1), heads=(2, 2, 2, 2), window=4)


def test_shapes_and_outputs():
    torch.manual_seed(0)
    model = SwinTransformer(TINY, outputs=(2, 3), raw_outputs=(0,)).eval()
    images = torch.randn(2, 3, 64, 96)
    maps = model(images)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 24), (2, 32, 4, 6), (2, 64, 2, 3)]
    assert model.out_channels == (8, 32, 64)
    torch.testing.assert_close(model(images, outputs=(0,))[0], maps[0])
    mean, spread = maps[1].mean(1), maps[1].std(1, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)  # behind a layer norm
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-2, rtol=0)
    assert maps[0].mean(1).abs().max() > 1e-3  # the raw one is not


def test_names_and_size_of_swin_b():
    with torch.device("meta"):
        model = SwinTransformer(SwinConfig(), outputs=(2, 3), raw_outputs=(0,))
    state = model.state_dict()
    block = "stages.2.blocks.17"
    expected = {
        "patch_embed.projection.weight": (128, 3, 4, 4), "patch_embed.norm.weight": (128,), f"{block}.norm1.bias": (512,),
        f"{block}.attn.w_msa.relative_position_bias_table": (23 * 23, 16), f"{block}.attn.w_msa.relative_position_index": (144, 144),
        f"{block}.attn.w_msa.qkv.weight": (1536, 512), f"{block}.attn.w_msa.proj.weight": (512, 512), f"{block}.norm2.weight": (512,),
        f"{block}.ffn.layers.0.0.weight": (2048, 512), f"{block}.ffn.layers.1.weight": (512, 2048),
        "stages.0.downsample.norm.weight": (512,), "stages.0.downsample.reduction.weight": (256, 512),
        "norm2.weight": (512,), "norm3.weight": (1024,),
    }  # fmt: skip
    assert {name: tuple(state[name].shape) for name in expected} == expected
    assert not any(name.startswith(("norm0", "norm1.", "stages.3.downsample")) for name in state)
    # Swin-B has 86.743 M parameters with windows of 7 and one last norm (87.768 M with its ImageNet classifier)
    tables = (23**2 - 13**2) * (2 * 4 + 2 * 8 + 18 * 16 + 2 * 32)
    assert sum(p.numel() for p in model.parameters()) == 86_743_224 + tables + 2 * 512


def test_relative_positions_against_a_loop():
    window, found = 3, _relative_positions(3)
    for i in range(9):
        for j in range(9):
            down, right = i // 3 - j // 3 + window - 1, i % 3 - j % 3 + window - 1
            assert found[i, j] == down * (2 * window - 1) + right


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (3, 3)])
def test_attention_stays_in_its_windows(shift, size):
    """Changing one place changes exactly those that share its window, in the shifted grid."""
    torch.manual_seed(0)
    attention = _ShiftWindowAttention(8, 2, 4, shift).eval()
    x = torch.randn(1, *size, 8)
    y, place = x.clone(), (min(5, size[0] - 1), min(6, size[1] - 1))
    y[0, place[0], place[1]] += 3
    with torch.no_grad():
        moved = (attention(y) - attention(x)).abs().amax((0, 3)) > 1e-4

    def window(row: int, column: int) -> tuple[int, int]:
        return (row + shift) // 4, (column + shift) // 4

    expected = torch.tensor([[window(r, c) == window(*place) for c in range(size[1])] for r in range(size[0])])
    if all(s % 4 == 0 for s in size) or not shift:
        assert torch.equal(moved, expected)
    else:  # padding: the shift may bring nothing new into a window, never a stranger
        assert not (moved & ~expected).any()


def test_attention_against_a_plain_one():
    torch.manual_seed(0)
    attention = _ShiftWindowAttention(8, 2, 4, 0).eval()
    x = torch.randn(2, 4, 4, 8)
    with torch.no_grad():
        found = attention(x).flatten(1, 2)
        q, k, v = attention.w_msa.qkv(x.flatten(1, 2)).chunk(3, -1)
        heads = []
        for g in range(2):
            part = slice(4 * g, 4 * g + 4)
            scores = q[..., part] @ k[..., part].mT / 2  # sqrt(4)
            scores = scores + attention.w_msa.relative_position_bias_table[_relative_positions(4), g]
            heads.append(scores.softmax(-1) @ v[..., part])
        expected = attention.w_msa.proj(torch.cat(heads, -1))
    torch.testing.assert_close(found, expected)


def test_merging_reads_neighbours_as_unfold_does():
    torch.manual_seed(0)
    merge = _PatchMerging(3)
    x = torch.randn(2, 4, 6, 3)
    unfolded = torch.nn.functional.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)  # (B, h/2 * w/2, C * 4)
    torch.testing.assert_close(merge(x).flatten(1, 2), merge.reduction(merge.norm(unfolded)))


def test_recomputing_changes_no_gradient_and_dropping_happens_in_training_only():
    images = torch.randn(4, 3, 32, 32)
    grads = []
    for recompute in (True, False):
        torch.manual_seed(1)
        model = SwinTransformer(TINY.model_copy(update={"recompute": recompute, "drop_path": 0.0})).train()
        sum(m.square().mean() for m in model(images)).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*grads)
    assert grads[0].abs().max() > 0
    model = SwinTransformer(TINY.model_copy(update={"drop_path": 0.5})).eval()
    torch.testing.assert_close(model(images), model(images))
    model.train()
    assert not torch.equal(model(images)[0], model(images)[0])


def test_bad_settings():
    with pytest.raises(ValidationError, match="3 heads do not divide the 8 channels of stage 0"):
        SwinConfig(embed_channels=8, heads=(3, 4, 4, 4))
    for outputs, raw in (((4,), ()), ((), ()), ((2,), (2,))):
        with pytest.raises(ConfigError, match="stages 0 to 3"):
            SwinTransformer(TINY, outputs, raw)
