"""Teachers: sizes of what they see and say, and how photographs are brought to them."""

from __future__ import annotations

import pytest
import torch

from frustum.errors import ConfigError
from frustum.nn.encoders import efficientnet, pretrained
from frustum.nn.teachers import ABOUT, Teacher, require_weights


@pytest.mark.parametrize(
    ("kind", "size", "wanted", "found"),
    [
        ("resnet50", (64, 96), {}, (4, 6)),
        ("efficientnet_lite0", (64, 96), {}, (2, 3)),
        ("efficientnet_lite0", (64, 96), {"scale": 2}, (4, 6)),
        ("efficientnet_lite0", (64, 96), {"image_size": (32, 192)}, (1, 6)),
        ("dinov2_vits14", (64, 96), {}, (5, 7)),  # 70 x 98 pixels
        ("dinov2_vits14", (112, 200), {"scale": 0.5}, (4, 7)),
    ],
)
def test_features_of_a_photograph(kind, size, wanted, found) -> None:
    teacher = Teacher(kind, False, **wanted).eval()
    answer = teacher(torch.rand(2, 3, *size) * 255)
    assert tuple(answer.shape) == (2, ABOUT[kind].features, *found)
    assert answer.dtype == torch.float32
    assert not answer.requires_grad


def test_missing_weights_are_named_with_what_to_type(monkeypatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs a file of weights: --weights dinov2_vitb14_pretrain.pth .*Without it: --teacher x\.$"):
        require_weights("dinov2_vitb14", True, "--weights ", "--teacher x")
    with pytest.raises(ConfigError, match=r"resnet50 are not installed. Type: pip install .*imgsim.*give a file, --weights FILE"):
        require_weights("resnet50", True, "--weights ", "--teacher x")
    for weights in (False, "file.pth"):
        require_weights("resnet50", weights, "--weights ", "--teacher x")


def test_random_teachers_are_always_the_same() -> None:
    image = torch.rand(1, 3, 32, 32) * 255
    torch.testing.assert_close(Teacher("resnet50", False).eval()(image), Teacher("resnet50", False).eval()(image))


def test_images_are_normalised_as_the_teacher_wants() -> None:
    image = torch.rand(1, 3, 64, 64) * 255
    teacher = Teacher("efficientnet_lite0", False).eval()
    found = teacher(image)
    expected = teacher.encoder((image - torch.tensor(efficientnet.MEAN)[:, None, None]) / torch.tensor(efficientnet.STD)[:, None, None])
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = teacher(image)
    assert rough.dtype == torch.float32
    assert float(torch.nn.functional.cosine_similarity(rough, found, dim=1).min()) > 0.98
