"""DINOv2: numbers of the reference implementation, a plain formulation, the resize of positions, and the files that it reads.

The weights and images of the numbers are draws by name, as golden/dinov2/recipe.md says; those of one size are in tests/data/dinov2.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import CheckpointError, ConfigError, ShapeError
from frustum.nn.encoders import dinov2
from frustum.nn.encoders.dinov2 import DinoSize, DinoV2, resized_positions

STORED = Path(__file__).parents[2] / "data/dinov2/outputs_vits14.npz"


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)


def by_rule(key: str, shape: tuple[int, ...]) -> Tensor:
    """One entry of the state dict, as the recipe of the golden numbers says."""
    x = draw(key, shape)
    if key in {"cls_token", "pos_embed", "mask_token", "register_tokens"}:
        x = 0.02 * x
    elif key.endswith("gamma"):
        x = 0.1 * (1 + 0.1 * x)
    elif key.endswith("bias"):
        x = 0.1 * x
    else:
        x = 1 + 0.1 * x if len(shape) == 1 else x / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32))


def network(size: DinoSize = "vits14") -> DinoV2:
    with torch.device("meta"):
        model = DinoV2(size)
    model.load_state_dict({key: by_rule(key, tuple(value.shape)) for key, value in model.state_dict().items()}, assign=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small() -> DinoV2:
    return network()


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Networks of 24 and 12 channels under the names of the published ones."""
    monkeypatch.setattr(dinov2, "_WIDTHS", {"vits14": (24, 3), "vitb14": (12, 2)})


def images(height: int, width: int) -> Tensor:
    return torch.from_numpy(draw(f"dino/{height}x{width}", (1, 3, height, width)).astype(np.float32))


# ---- the network -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "channels", "count"), [
    ("vits14", 384, 22_056_576), ("vitb14", 768, 86_580_480),
    ("vits14_reg4", 384, 22_056_576 + 4 * 384), ("vitb14_reg4", 768, 86_580_480 + 4 * 768),
])  # fmt: skip
def test_sizes(size, channels, count):
    with torch.device("meta"):
        model = DinoV2(size)
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.out_channels == channels
    assert model.started_from == ""
    assert {part.eps for part in model.modules() if isinstance(part, nn.LayerNorm)} == {1e-6}


def test_official_key_names(small):
    shapes = {key: tuple(value.shape) for key, value in small.state_dict().items()}
    block = {
        "norm1.weight": (384,), "norm1.bias": (384,), "attn.qkv.weight": (1152, 384), "attn.qkv.bias": (1152,),
        "attn.proj.weight": (384, 384), "attn.proj.bias": (384,), "ls1.gamma": (384,), "norm2.weight": (384,), "norm2.bias": (384,),
        "mlp.fc1.weight": (1536, 384), "mlp.fc1.bias": (1536,), "mlp.fc2.weight": (384, 1536), "mlp.fc2.bias": (384,), "ls2.gamma": (384,),
    }  # fmt: skip
    assert shapes == {
        "cls_token": (1, 1, 384), "pos_embed": (1, 1370, 384), "mask_token": (1, 384),
        "patch_embed.proj.weight": (384, 3, 14, 14), "patch_embed.proj.bias": (384,), "norm.weight": (384,), "norm.bias": (384,),
    } | {f"blocks.{i}.{name}": shape for i in range(12) for name, shape in block.items()}  # fmt: skip


def test_all_keys_of_the_reference(small, shared):
    path = shared / "golden/dinov2/keys_vits14.json"
    if not path.is_file():
        pytest.skip("no golden numbers of DINOv2")
    assert {key: list(value.shape) for key, value in small.state_dict().items()} == json.loads(path.read_text())


def test_features_are_those_of_the_reference(small):
    with torch.no_grad(), np.load(STORED, allow_pickle=False) as stored:
        found = small(images(224, 406))
        assert found.shape == (1, 384, 16, 29)
        np.testing.assert_allclose(found.flatten(2).mT[:, ::7, ::8].numpy(), stored["patch_224x406"], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(518, 518), (448, 798)])
def test_features_of_larger_images(small, shared, size):
    folder, name = shared / "golden/dinov2", "x".join(map(str, size))
    if not folder.is_dir():
        pytest.skip("no golden numbers of DINOv2")
    expected = json.loads((folder / "info.json").read_text())[name]
    with torch.no_grad(), np.load(folder / "outputs.npz", allow_pickle=False) as stored:
        found = small(images(*size))
        assert list(found.shape[2:]) == expected["grid"]
        np.testing.assert_allclose(found.flatten(2).mT[:, ::7, ::8].numpy(), stored[f"patch_{name}"], atol=1e-4, rtol=0)
        assert found.std().item() == pytest.approx(expected["std"], abs=1e-4)


def plainly(state: dict[str, Tensor], heads: int, x: Tensor) -> Tensor:
    """The network as one loop over its state dict, with attention written out."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + 1e-6)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    count, (height, width) = len(x), (side // 14 for side in x.shape[2:])
    patches = x.unflatten(3, (width, 14)).unflatten(2, (height, 14)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    x = patches @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]
    registers = state.get("register_tokens")
    positions = resized_positions(state["pos_embed"], height, width, antialias=registers is not None)
    tokens = [(state["cls_token"] + positions[:, :1]).expand(count, -1, -1), x + positions[:, 1:]]
    x = torch.cat(tokens if registers is None else [tokens[0], registers.expand(count, -1, -1), tokens[1]], 1)
    for i in range(12):
        name = f"blocks.{i}"
        q, k, v = (part.unflatten(2, (heads, -1)) for part in linear(f"{name}.attn.qkv", norm(f"{name}.norm1", x)).chunk(3, -1))
        scores = torch.einsum("migc,mjgc->mgij", q, k) / q.shape[-1] ** 0.5
        mixed = torch.einsum("mgij,mjgc->migc", scores.softmax(-1), v).flatten(2)
        x = x + state[f"{name}.ls1.gamma"] * linear(f"{name}.attn.proj", mixed)
        hidden = linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", x))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + state[f"{name}.ls2.gamma"] * linear(f"{name}.mlp.fc2", hidden)
    return norm("norm", x)[:, -height * width :].mT.unflatten(2, (height, width))


@pytest.mark.parametrize("size", get_args(DinoSize))
def test_equals_a_plain_formulation(tiny, size):
    model, x = network(size), torch.randn(2, 3, 70, 42)
    heads = 3 if "vits" in size else 2
    found, state = model(x), model.state_dict()
    assert found.shape == (2, model.out_channels, 5, 3)
    torch.testing.assert_close(found, plainly(state, heads, x), atol=2e-5, rtol=0)
    torch.testing.assert_close(model(x[1:]), found[1:], atol=2e-5, rtol=0)
    assert model(x[:0]).shape == (0, *found.shape[1:])
    if "reg4" in size:
        without = {key: value for key, value in state.items() if key != "register_tokens"}
        assert (plainly(without, heads, x) - found).abs().max() > 1e-3


def test_random_weights_keep_images_apart(tiny):
    for size in get_args(DinoSize):
        model = DinoV2(size)
        found = model(torch.randn(2, 3, 56, 56))
        assert found.isfinite().all()
        assert (found[0] - found[1]).abs().mean() > 0.1
        assert 0.015 < model.pos_embed.std() < 0.025


def test_every_parameter_but_the_mask_token_learns(tiny):
    model = DinoV2("vits14_reg4")
    model(torch.randn(1, 3, 28, 56)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == ["mask_token"]


@pytest.mark.parametrize(("shape", "message"), [
    ((1, 3, 224, 400), "a height of 224 and a width of 392 or 406"),
    ((1, 3, 15, 7), "a height of 14 or 28 and a width of 14"),
    ((1, 3, 0, 28), "a height of 14 and a width of 28"),
    ((1, 1, 28, 28), r"needs images \(M, 3, H, W\), got \(1, 1, 28, 28\)"),
    ((3, 28, 28), r"needs images \(M, 3, H, W\), got \(3, 28, 28\)"),
])  # fmt: skip
def test_other_images_are_refused(tiny, shape, message):
    with pytest.raises(ShapeError, match=message):
        DinoV2()(torch.zeros(shape))


# ---- positions -------------------------------------------------------------------------------------------------------------------


def cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    d = np.abs(distance)
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def weights(n: int, antialias: bool) -> np.ndarray:
    """(n, 37): how n places mix the 37 trained ones."""
    if antialias:  # the kernel widens where the map shrinks, and is cut off at the border
        step = 37 / n
        centre, wide = (np.arange(n)[:, None] + 0.5) * step - 0.5, max(step, 1)
        found = cubic((np.arange(37) - centre) / wide, a=-0.5)
        return found / found.sum(1, keepdims=True)
    centre = (np.arange(n)[:, None] + 0.5) * 37 / (n + 0.1) - 0.5
    around = np.floor(centre) + np.arange(-1, 3)  # four neighbours; those beyond the border repeat it
    found = np.zeros((n, 37))
    np.add.at(found, (np.arange(n)[:, None], around.clip(0, 36).astype(int)), cubic(around - centre, a=-0.75))
    return found


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(16, 29), (32, 57), (37, 36), (1, 80)])
def test_positions_against_the_formula(antialias, size):
    embedding = torch.randn(1, 1370, 5)
    found = resized_positions(embedding, *size, antialias=antialias)
    grid = embedding[0, 1:].unflatten(0, (37, 37)).numpy()
    expected = np.einsum("ij,kl,jlc->ikc", weights(size[0], antialias), weights(size[1], antialias), grid)
    torch.testing.assert_close(found[:, :1], embedding[:, :1], atol=0, rtol=0)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected.reshape(-1, 5), atol=2e-5)


def test_positions_of_the_trained_size_stay():
    embedding = torch.randn(1, 1370, 3)
    for antialias in (False, True):
        assert torch.equal(resized_positions(embedding, 37, 37, antialias), embedding)


def test_the_tenth_of_a_patch_matters():
    embedding = by_rule("pos_embed", (1, 1370, 8))
    exact = F.interpolate(embedding[:, 1:].mT.unflatten(2, (37, 37)), size=(16, 29), mode="bicubic").flatten(2).mT
    assert (resized_positions(embedding, 16, 29, antialias=False)[:, 1:] - exact).abs().max() > 5e-3


def test_positions_are_resized_once_per_size_until_the_weights_change(tiny, monkeypatch):
    calls: list[tuple[int, int]] = []

    def counted(embedding: Tensor, height: int, width: int, antialias: bool) -> Tensor:
        calls.append((height, width))
        return resized_positions(embedding, height, width, antialias)

    monkeypatch.setattr(dinov2, "resized_positions", counted)
    model, x = network(), torch.randn(1, 3, 28, 42)
    with torch.inference_mode():
        first = model(x).clone()
    assert torch.equal(model(x), first)
    model(x.mT)
    model(x.requires_grad_()).sum().backward()
    assert x.grad.any(), "kept from inference mode, and still good where the images learn"
    assert calls == [(2, 3), (3, 2)]

    state = model.state_dict()
    model.load_state_dict(state | {"pos_embed": torch.zeros_like(model.pos_embed)}, assign=True)
    assert not torch.allclose(model(x), first, atol=1e-2)
    model.load_state_dict(state)
    torch.testing.assert_close(model(x), first)
    model.pos_embed.data = model.pos_embed.double()
    model(x)
    assert calls[2:] == [(2, 3)] * 3
    for _ in range(2):
        model.requires_grad_(True)(x).sum().backward()
    assert len(calls) == 7, "what learns is not kept"


def test_built_in_inference_mode(tiny):
    with torch.inference_mode():
        model = DinoV2()
        assert torch.equal(model(torch.ones(1, 3, 28, 42)), model(torch.ones(1, 3, 28, 42)))


# ---- files -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", get_args(DinoSize))
def test_weights_of_a_file(tiny, size, tmp_path):
    path, state = tmp_path / f"dinov2_{size}_pretrain.pth", network(size).state_dict()
    torch.save(state, path)
    model = DinoV2(size, pretrained=str(path))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.started_from == str(path)


def test_a_file_without_mask_token_will_do(tiny, tmp_path):
    """timm's conversion drops it."""
    state = {key: value for key, value in network().state_dict().items() if key != "mask_token"}
    torch.save(state, tmp_path / "timm.pth")
    model = DinoV2(pretrained=str(tmp_path / "timm.pth"))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert not model.mask_token.any()


def refused(path: Path, message: str, size: DinoSize = "vits14") -> None:
    needed = rf"(.|\n)*Needed in place of .*{path.name}: dinov2_{size}_pretrain\.pth of facebookresearch/dinov2 \(Apache-2\.0\)\.$"
    with pytest.raises(CheckpointError, match=message + needed):
        DinoV2(size, pretrained=str(path))


def test_what_is_no_such_network_is_refused(tiny, tmp_path):
    path, state = tmp_path / "x.pth", network().state_dict()
    torch.save(network("vitb14").state_dict(), path)
    refused(path, r"not the weights of DINOv2 vits14:\nother shape(.|\n)*cls_token  needed \(1, 1, 24\), given \(1, 1, 12\)")
    torch.save(network("vits14_reg4").state_dict(), path)
    refused(path, r"not in the model \(1\):\n  register_tokens")
    torch.save(state, path)
    refused(path, r"missing \(1\):\n  register_tokens", "vits14_reg4")
    torch.save(state | {"pos_embed": torch.zeros(1, 257, 24)}, path)
    refused(path, r"pos_embed  needed \(1, 1370, 24\), given \(1, 257, 24\)")
    torch.save(state | {f"blocks.12.{key}": torch.ones(24) for key in ("norm1.weight", "ls1.gamma")}, path)
    refused(path, r"not in the model \(2\):\n  blocks\.12\.norm1")
    torch.save({f"embeddings.{key}": value for key, value in state.items()}, path)
    refused(path, r"only 1 of the model's 175 keys are in the given weights: they look like another network's")
    torch.save(nn.Linear(2, 2), path)
    refused(path, "it is a whole network")


def test_damaged_files_are_refused(tiny, tmp_path):
    torch.save(network().state_dict(), tmp_path / "whole.pth")
    path, content = tmp_path / "part.pth", (tmp_path / "whole.pth").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "is truncated")
    path.write_bytes(b"<!DOCTYPE html><html>404</html>")
    refused(path, "a web page")
    path.write_bytes(b"")
    refused(path, "is empty")
    refused(tmp_path / "none.pth", "there is no checkpoint")


def test_other_settings_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"no package has weights for DINOv2: give a file, dinov2_vitb14_pretrain\.pth of"):
        DinoV2("vitb14", pretrained=True)
    with pytest.raises(ConfigError, match=r"no DINOv2 of size 'vit_s14': did you mean 'vits14'"):
        DinoV2("vit_s14")
