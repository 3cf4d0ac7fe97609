"""V2-99: official key names, and equality with a plain formulation on weights that every parameter changes."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import CheckpointError, ConfigError
from frustum.nn.encoders.vovnet import VoVNet99

BLOCKS = {2: 1, 3: 3, 4: 9, 5: 3}


@pytest.fixture(scope="module")
def empty() -> VoVNet99:
    """Shapes without values."""
    with torch.device("meta"):
        return VoVNet99(outputs=(2, 3, 4, 5))


def test_size_and_key_names(empty):
    assert sum(p.numel() for p in empty.parameters()) == 69_523_520  # 69.524 million
    assert empty.out_channels == (256, 512, 768, 1024)
    shapes = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    assert len(shapes) == 626
    assert shapes["stem.stem_3/conv.weight"] == (128, 64, 3, 3)
    assert shapes["stage2.OSA2_1.concat.OSA2_1_concat/conv.weight"] == (256, 128 + 5 * 128, 1, 1)
    assert shapes["stage4.OSA4_3.layers.2.OSA4_3_2/norm.weight"] == (192,)
    assert shapes["stage5.OSA5_3.layers.0.OSA5_3_0/conv.weight"] == (224, 1024, 3, 3)
    assert shapes["stage5.OSA5_3.ese.fc.bias"] == (1024,)


def test_all_keys_of_the_reference(empty, shared):
    path: Path = shared / "golden/3dppe/keys_det_v299.json"
    if not path.is_file():
        pytest.skip("no golden numbers of 3DPPE")
    prefix = "img_backbone."
    expected = {k.removeprefix(prefix): tuple(s) for k, s in json.loads(path.read_text()).items() if k.startswith(prefix)}
    assert {key: tuple(value.shape) for key, value in empty.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("size", "maps"),
    [((64, 96), [(16, 24), (8, 12), (4, 6), (2, 3)]), ((101, 75), [(26, 19), (13, 9), (6, 4), (3, 2)])],
)
def test_strides(empty, size, maps):
    """Without ceil_mode the pools would turn 16 into 7."""
    images = torch.empty(2, 3, *size, device="meta")
    shapes = [(2, channels, *rest) for channels, rest in zip(empty.out_channels, maps, strict=True)]
    assert [tuple(m.shape) for m in empty(images)] == shapes


def by_rule(key: str, shape: tuple[int, ...]) -> Tensor:
    """Weights that no two layers share, from names alone."""
    draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if len(shape) > 1:
        value = draw * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(draw)
    else:
        value = 0.1 * draw + key.endswith("norm.weight")
    return torch.from_numpy(value)


def plainly(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The network as one loop over its state dict."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}/conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, variance, scale, shift = (state[f"{name}/norm.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        wide = (slice(None), None, None)
        return (((x - mean[wide]) / (variance[wide] + 1e-5).sqrt()) * scale[wide] + shift[wide]).clamp(min=0)

    def pool(x: Tensor) -> Tensor:
        """The largest of 3 x 3, every second place, as long as a window begins inside."""
        rows, columns = x.shape[-2:]
        return torch.stack(
            [
                torch.stack([x[..., i : i + 3, j : j + 3].amax((-2, -1)) for j in range(0, columns - 1, 2)], -1)
                for i in range(0, rows - 1, 2)
            ],
            -2,
        )

    maps = []
    for i, stride in enumerate((2, 1, 2), 1):
        x = conv(x, f"stem.stem_{i}", stride)
    for stage, blocks in BLOCKS.items():
        x = pool(x) if stage > 2 else x
        for block in range(1, blocks + 1):
            name = f"OSA{stage}_{block}"
            found = [x]
            for i in range(5):
                found.append(conv(found[-1], f"stage{stage}.{name}.layers.{i}.{name}_{i}"))
            joined = conv(torch.cat(found, 1), f"stage{stage}.{name}.concat.{name}_concat")
            gate = torch.einsum("oc,mc->mo", state[f"stage{stage}.{name}.ese.fc.weight"][..., 0, 0], joined.mean((-2, -1)))
            gate = ((gate + state[f"stage{stage}.{name}.ese.fc.bias"] + 3) / 6).clamp(0, 1)
            joined = joined * gate[..., None, None]
            x = joined + x if block > 1 else joined
        maps.append(x)
    return maps


@pytest.fixture(scope="module")
def filled() -> tuple[VoVNet99, dict[str, Tensor]]:
    with torch.device("meta"):
        model = VoVNet99(outputs=(2, 3, 4, 5), norm_eval=False)
    state = {key: by_rule(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model.eval(), state


@pytest.mark.parametrize("size", [(44, 52), (37, 61)])
def test_maps_are_those_of_a_plain_formulation(filled, size):
    model, state = filled
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *size)))
    with torch.no_grad():
        for found, expected in zip(model(images), plainly(state, images), strict=True):
            assert found.std() > 0.1
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_later_stages_are_not_built(filled):
    with torch.device("meta"):
        model = VoVNet99(outputs=(2, 3))
    assert not [key for key in model.state_dict() if key.startswith(("stage4", "stage5"))]
    assert model.out_channels == (256, 512)


def small(**arguments: bool) -> VoVNet99:
    return VoVNet99(outputs=(2,), **arguments)


@pytest.mark.parametrize("norm_eval", [True, False])
def test_batch_norms_in_training(norm_eval):
    model = small(norm_eval=norm_eval)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 9
    for _ in range(2):  # new, and after model.train()
        assert model.training
        assert all(norm.training != norm_eval for norm in norms)
        model.eval()
        assert not any(m.training for m in model.modules())
        model.train()
    (features,) = model(torch.randn(2, 3, 16, 16))
    features.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert bool((norms[0].running_mean == 0).all()) == norm_eval


def test_recomputing_changes_no_gradient():
    model, images = small(), torch.randn(1, 3, 16, 24)
    gradients = []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        calls = []
        handle = model.stage2[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        model(images)[0].square().sum().backward()
        handle.remove()
        gradients.append([p.grad.clone() for p in model.parameters()])
        assert len(calls) == 1 + recompute
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("arguments", [{"outputs": ()}, {"outputs": (1, 4)}, {"recompute": True, "norm_eval": False}])
def test_impossible_networks_are_refused(arguments):
    with pytest.raises(ConfigError):
        VoVNet99(**arguments)


@pytest.mark.parametrize("prefix", ["", "img_backbone.", "module.backbone.bottom_up."])
def test_weights_of_a_file(prefix, tmp_path):
    source = small().state_dict()
    counted = {prefix + key: value for key, value in source.items() if not key.endswith("num_batches_tracked")}
    torch.save({"state_dict": counted | {f"{prefix}stage3.more": torch.zeros(2), "head.weight": torch.zeros(3)}}, tmp_path / "v.pth")
    model = small(pretrained=str(tmp_path / "v.pth"))
    assert model.started_from == str(tmp_path / "v.pth")
    assert all(torch.equal(value, source[key]) for key, value in model.state_dict().items())


def test_other_files_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"does not hold one VoVNet .* no single stem\.stem_1/conv\.weight"):
        small(pretrained=str(tmp_path / "resnet.pth"))
    torch.save({key: v for key, v in small().state_dict().items() if "ese" not in key}, tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match=r"not the weights of a VoVNet99(.|\n)*ese"):
        small(pretrained=str(tmp_path / "plain.pth"))
    with pytest.raises(ConfigError, match="give a file"):
        small(pretrained=True)
