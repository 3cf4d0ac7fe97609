from __future__ import annotations

import json
import math
import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from frustum.errors import CheckpointError, ConfigError
from frustum.nn.deform import DeformConv
from frustum.nn.encoders.resnet import ResNet


@pytest.mark.parametrize(
    ("depth", "millions", "channels"), [(18, 11.177, (256, 512)), (34, 21.285, (256, 512)), (50, 23.508, (1024, 2048))]
)
def test_sizes(depth, millions, channels):
    """Parameters of torchvision's networks less their classifiers; strides 16 and 32."""
    model = ResNet(depth).eval()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)
    assert model.out_channels == channels
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 96))
    assert [tuple(o.shape) for o in outputs] == [(1, channels[0], 4, 6), (1, channels[1], 2, 3)]


def test_torchvision_key_names():
    keys = ResNet(50).state_dict()
    for key in ("conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias", "layer4.2.conv3.weight"):
        assert key in keys
    assert keys["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert ResNet(50).layer2[0].conv2.stride == (2, 2)  # not in the 1x1, as caffe has it


def test_chosen_outputs_and_no_work_beyond_them():
    model = ResNet(18, outputs=(1, 3)).eval()
    model.layer4 = None
    with torch.no_grad():
        fine, coarse = model(torch.randn(2, 3, 32, 32))
    assert fine.shape == (2, 64, 8, 8)
    assert coarse.shape == (2, 256, 2, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 51},
        {"outputs": ()},
        {"outputs": (0, 4)},
        {"deformable": (3, 5)},
        {"depth": 18, "caffe": True},
        {"depth": 34, "deformable": (4,)},
        {"output_stride": 4},
        {"deformable": (4,), "output_stride": 8},
        {"stem": (32, 64)},
    ],
)
def test_impossible_networks_are_refused(arguments):
    with pytest.raises(ConfigError):
        ResNet(**arguments)


def test_caffe_style():
    """The stride in the first convolution; batch norms keep their statistics, and only they get no gradient."""
    model = ResNet(50, outputs=(2,), caffe=True).train()
    assert (model.layer2[0].conv1.stride, model.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert not any(norm.training for norm in norms)
    assert model.layer1.training
    frozen = {id(p) for norm in norms for p in norm.parameters()}
    assert all(p.requires_grad == (id(p) not in frozen) for p in model.parameters())
    model.layer3 = model.layer4 = None
    mean = model.bn1.running_mean.clone()
    (features,) = model(torch.randn(2, 3, 32, 64))
    features.sum().backward()
    assert features.shape == (2, 512, 4, 8)
    assert torch.equal(model.bn1.running_mean, mean)
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_deformable_stages():
    model = ResNet(50, deformable=(4,))
    assert [name for name, m in model.named_modules() if isinstance(m, DeformConv)] == [f"layer4.{i}.conv2" for i in range(3)]
    assert model.layer4[0].conv2.stride == 2
    shapes = [tuple(f.shape) for f in model(torch.randn(1, 3, 64, 96))]
    assert shapes == [(1, 1024, 4, 6), (1, 2048, 2, 3)]
    caffe = ResNet(50, caffe=True, deformable=(3, 4))
    assert caffe.layer3[0].conv2.stride == 1


def test_weights_without_offsets_start_a_deformable_network(tmp_path):
    """Those of an ImageNet classifier: the offsets start at zero; what else is missing is refused."""
    state = ResNet(50).state_dict()
    torch.save(state, tmp_path / "plain.pth")
    model = ResNet(50, pretrained=str(tmp_path / "plain.pth"), deformable=(3,))
    assert torch.equal(model.layer3[1].conv2.weight, state["layer3.1.conv2.weight"])
    assert not model.layer3[1].conv2.conv_offset.weight.any()
    model.layer3[1].conv2.conv_offset.bias.data.fill_(0.5)
    torch.save(model.state_dict(), tmp_path / "deformable.pth")
    again = ResNet(50, pretrained=str(tmp_path / "deformable.pth"), deformable=(3,))
    assert (again.layer3[1].conv2.conv_offset.bias == 0.5).all()
    del state["layer3.1.conv2.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"layer3\.1\.conv2\.weight"):
        ResNet(50, pretrained=str(tmp_path / "less.pth"), deformable=(3,))


PREFIX = "img_backbone."


def by_rule(key: str, shape: tuple[int, ...]) -> Tensor:
    """A weight of the network that made the stored maps (recipe.md of golden/3dppe)."""
    draw, last = np.random.default_rng(zlib.crc32(key.encode())), key.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long)
    value = draw.standard_normal(shape)
    if last in ("bias", "running_mean"):
        value = 0.1 * value
    elif last == "running_var":
        value = 1 + 0.1 * abs(value)
    elif len(shape) == 1:
        value = 1 + 0.1 * value
    else:
        value *= math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(value).float()


@pytest.fixture(scope="module")
def official_keys(shared) -> dict[str, tuple[int, ...]]:
    keys = json.loads((shared / "golden/3dppe/keys_det_r50.json").read_text(encoding="utf-8"))
    return {key.removeprefix(PREFIX): tuple(shape) for key, shape in keys.items() if key.startswith(PREFIX)}


@pytest.mark.data
def test_official_keys_of_a_deformable_network(official_keys):
    state = ResNet(50, caffe=True, deformable=(3, 4)).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == official_keys
    assert list(state) == list(official_keys)


@pytest.mark.data
def test_maps_of_mmdet(shared, official_keys):
    """Six images of 256 x 704 through the caffe network with DCNv2 in stages 3 and 4: within 1e-3 of a standard deviation."""
    model = ResNet(50, caffe=True, deformable=(3, 4)).eval()
    model.load_state_dict({key: by_rule(PREFIX + key, shape) for key, shape in official_keys.items()})
    draw = np.random.default_rng(zlib.crc32(b"input.img"))
    images = torch.from_numpy(draw.standard_normal((1, 6, 3, 256, 704)) * 50).float()[0]
    with torch.no_grad():
        maps = model(images)
    with np.load(shared / "golden/3dppe/det_r50.npz", allow_pickle=False) as stored:
        for i, found in enumerate(maps):
            scale = float(found.std())
            torch.testing.assert_close(found[:, ::32, ::4, ::5], torch.from_numpy(stored[f"backbone{i}"]), rtol=0, atol=1e-3 * scale)
            mean, std, low, high = stored[f"backbone{i}|stat"]
            figures = [float(f) for f in (found.mean(), found.std(), found.min(), found.max())]
            np.testing.assert_allclose(figures, [mean, std, low, high], rtol=1e-5, atol=1e-3 * scale)


def dilations(stage: nn.Sequential) -> list[tuple[int, int]]:
    """Stride and dilation of the 3x3 convolution of each block."""
    return [(block.conv2.stride[0], block.conv2.dilation[0]) for block in stage]


def test_dilated_stages_keep_the_map_fine():
    model = ResNet(50, (2, 3, 4), output_stride=8)
    assert (dilations(model.layer3)[:3], dilations(model.layer4)) == ([(1, 1), (1, 2), (1, 2)], [(1, 2), (1, 4), (1, 4)])
    model = ResNet(50, (2, 3, 4), output_stride=16)
    assert (dilations(model.layer3)[:2], dilations(model.layer4)) == ([(2, 1), (1, 1)], [(1, 1), (1, 2), (1, 2)])
    model = ResNet(18, output_stride=8, dilate_first=True).eval()
    assert (dilations(model.layer3), dilations(model.layer4)) == ([(1, 2)] * 2, [(1, 4)] * 2)
    with torch.no_grad():
        shapes = [tuple(x.shape) for x in model(torch.randn(1, 3, 64, 96))]
    assert shapes == [(1, 256, 8, 12), (1, 512, 8, 12)]


def test_a_dilated_network_has_the_maps_of_the_strided_one():
    """At every fourth place, where it sees the same pixels through the same weights."""
    torch.manual_seed(0)
    strided, dilated = ResNet(18, (4,)).eval(), ResNet(18, (4,), output_stride=8).eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(dilated(image)[0][..., ::4, ::4], strided(image)[0], rtol=1e-4, atol=1e-5)


def test_a_stem_of_three_convolutions_and_rounding_up():
    """As TorchDistiller's networks: a crop of 512 gives 65 x 65 places (section 3 of its facts)."""
    model = ResNet(18, (3,), output_stride=8, stem=(64, 64, 128), ceil_mode=True)
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    assert model.layer1[0].conv1.in_channels == 128
    with torch.no_grad(), torch.device("meta"):
        assert model.to("meta").eval()(torch.empty(1, 3, 512, 512))[0].shape == (1, 256, 65, 65)
    extra = 3 * 64 * 9 + 64 * 64 * 9 + 64 * 128 * 9 + 2 * (64 + 64 + 128) - (3 * 64 * 49 + 2 * 64)  # of the stem
    extra += 128 * 64 * 9 - 64 * 64 * 9 + 128 * 64 + 2 * 64  # of the first block, which now has a shortcut with a convolution
    assert sum(p.numel() for p in ResNet(18, stem=(64, 64, 128)).parameters()) - sum(p.numel() for p in ResNet(18).parameters()) == extra


def test_a_stem_starts_from_a_file_that_has_it(tmp_path):
    state = ResNet(18, stem=(32, 32, 64)).state_dict()
    torch.save({f"backbone.{key}": value for key, value in state.items()}, tmp_path / "deep.pth")
    model = ResNet(18, pretrained=str(tmp_path / "deep.pth"), stem=(32, 32, 64), output_stride=8)
    assert torch.equal(model.conv3.weight, state["conv3.weight"])
    with pytest.raises(CheckpointError, match=r"\(64, 3, 7, 7\)"):
        ResNet(18, pretrained=str(tmp_path / "deep.pth"))
    with pytest.raises(ConfigError, match="stem of three convolutions"):
        ResNet(50, pretrained=True, stem=(32, 32, 64))
