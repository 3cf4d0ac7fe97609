"""EfficientNet-B0 and -B4: sizes, the padding that is fixed by the image that a variant was made for, and files."""

from __future__ import annotations

import pytest
import torch

from frustum.errors import CheckpointError, ConfigError
from frustum.nn.encoders.efficientnet_b import EfficientNetB, FixedConv2d


@pytest.mark.parametrize(("variant", "outputs", "channels"), [("b0", (4, 10, 15), (40, 112, 320)), ("b4", (9, 21), (56, 160))])
def test_maps_have_their_strides_and_channels(variant, outputs, channels):
    net = EfficientNetB(variant, outputs).eval()
    maps = net(torch.randn(1, 3, 64, 96))
    assert net.out_channels == channels
    assert [tuple(m.shape[1:]) for m in maps] == [(c, 64 // s, 96 // s) for c, s in zip(channels, (8, 16, 32), strict=False)]


def test_padding_is_that_of_the_nominal_image():
    """380 pixels become 190, 95 and 48: the 5x5 convolution with stride 2 from 95 to 48 pads both sides alike, that of B0 does not."""
    b0, b4 = (EfficientNetB(v, (i,)) for v, i in (("b0", 4), ("b4", 9)))
    strided = [[m.pads for m in net.modules() if isinstance(m, FixedConv2d) and m.stride[0] == 2] for net in (b0, b4)]
    assert strided == [[(0, 1, 0, 1), (0, 1, 0, 1), (1, 2, 1, 2)], [(0, 1, 0, 1), (0, 1, 0, 1), (2, 2, 2, 2)]]


def test_blocks_are_left_out_in_training_alone():
    net, images = EfficientNetB("b0", (4,)), torch.randn(4, 3, 32, 32)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.eval()
    first, again = net.train()(images), net(images)
    assert not torch.equal(first[0], again[0])
    net.eval()
    assert torch.equal(net(images)[0], net(images)[0])


def test_weights_come_from_a_file(tmp_path):
    whole, path = EfficientNetB("b0", (15,)), tmp_path / "b0.pth"
    torch.save({f"encoder.backbone.{key}": value for key, value in whole.state_dict().items()}, path)
    part = EfficientNetB("b0", (4, 10), pretrained=str(path))
    assert part.started_from == str(path)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in part.state_dict().items())
    with pytest.raises(CheckpointError, match="not the weights of an EfficientNet-B4"):
        EfficientNetB("b4", (9, 21), pretrained=str(path))
    with pytest.raises(ConfigError, match="no package has weights for EfficientNet-B0: give a file"):
        EfficientNetB("b0", (4, 10), pretrained=True)
    with pytest.raises(ConfigError, match="ascending block numbers from 0 to 15"):
        EfficientNetB("b0", (10, 4))
