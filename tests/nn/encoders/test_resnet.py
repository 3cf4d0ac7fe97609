from __future__ import annotations

import pytest
import torch

from frustum.errors import ConfigError
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


@pytest.mark.parametrize("arguments", [{"depth": 51}, {"outputs": ()}, {"outputs": (0, 4)}])
def test_impossible_networks_are_refused(arguments):
    with pytest.raises(ConfigError):
        ResNet(**arguments)
