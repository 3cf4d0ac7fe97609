"""The neck of PETR and 3DPPE: names of its weights, and equality with plain loops."""

from __future__ import annotations

import json

import pytest
import torch

from frustum.nn.fpn import CPFPN


@pytest.mark.parametrize(("detector", "channels"), [("det_v299", (768, 1024)), ("det_r50", (1024, 2048))])
def test_all_keys_of_the_reference(detector, channels, shared):
    path = shared / f"golden/3dppe/keys_{detector}.json"
    if not path.is_file():
        pytest.skip("no golden numbers of 3DPPE")
    expected = {k.removeprefix("img_neck."): tuple(s) for k, s in json.loads(path.read_text()).items() if k.startswith("img_neck.")}
    with torch.device("meta"):
        neck = CPFPN(channels, 256)
    assert {key: tuple(value.shape) for key, value in neck.state_dict().items()} == expected


@pytest.mark.parametrize(("fine_size", "coarse_size"), [((4, 6), (2, 3)), ((5, 7), (3, 4)), ((5, 7), (2, 3))])
def test_fine_map_in_plain_loops(fine_size, coarse_size):
    """Both ways of rounding an odd size: cell i of the fine map lies under cell floor(i * coarse / fine)."""
    neck = CPFPN((3, 5), 4).double()
    fine, coarse = torch.randn(1, 3, *fine_size).double(), torch.randn(1, 5, *coarse_size).double()
    weights = {key: value.detach() for key, value in neck.state_dict().items()}
    (height, width), (rows, columns) = fine_size, coarse_size
    merged = torch.zeros(4, height + 2, width + 2).double()  # with a border of zeros
    for y in range(height):
        for x in range(width):
            below = coarse[0, :, y * rows // height, x * columns // width]
            for level, pixel in enumerate((fine[0, :, y, x], below)):
                matrix, bias = (weights[f"lateral_convs.{level}.conv.{part}"] for part in ("weight", "bias"))
                merged[:, y + 1, x + 1] += matrix[..., 0, 0] @ pixel + bias
    kernel, bias = (weights[f"fpn_convs.0.conv.{part}"] for part in ("weight", "bias"))
    found = neck([fine, coarse])[0]
    for y in range(height):
        for x in range(width):
            expected = (kernel * merged[:, y : y + 3, x : x + 3]).sum((1, 2, 3)) + bias
            torch.testing.assert_close(found[:, y, x], expected)
