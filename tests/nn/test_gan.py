"""Generators, discriminators and encoders of HeSer and GHOST 2.0: their numbers, and what follows from the definitions."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from frustum.engine.ema import settled
from frustum.errors import ConfigError, ShapeError
from frustum.nn.adain_generator import AdainGenerator
from frustum.nn.bisenet import BiSeNet
from frustum.nn.discriminators import PatchDiscriminator, ResidualDiscriminator
from frustum.nn.encoders.arcface import IrSe50
from frustum.nn.encoders.mobilenet import MobileNetV2
from frustum.nn.encoders.resnext import ResNeXt50
from frustum.nn.encoders.vgg import Vgg19Features, Vgg19Maps
from frustum.nn.spectral import SpectralConv2d, SpectralLinear
from tests.nn import golden_heser as gold


def code(samples: int = 2, has_expression: bool = True) -> torch.Tensor:
    parts = [gold.inp("por", 2, 512), F.normalize(gold.inp("id", 2, 512)), gold.inp("pose", 2, 256)]
    return torch.cat([*parts, gold.inp("exp", 2, 256)] if has_expression else parts, 1)[:samples]


@pytest.mark.data
@pytest.mark.slow
@torch.no_grad()
def test_generator_of_heser(shared):
    golden = gold.outputs(shared)
    network = gold.fill(AdainGenerator(1536, 128))
    assert gold.shapes(network) == gold.keys(shared, "align.generator_128")
    gold.close(network(code()).image, golden, "align/generator_128", 1e-4)


@pytest.mark.data
@pytest.mark.slow
@torch.no_grad()
def test_large_generator_of_heser(shared):
    golden = gold.outputs(shared)
    network = gold.fill(AdainGenerator(1536))
    assert gold.shapes(network) == gold.keys(shared, "align.generator")
    assert network.norm_widths == golden["align/adain_features"].tolist()
    assert 2 * sum(network.norm_widths) == golden["align/num_affine_params"].item()
    gold.close(network.affine(code()), golden, "align/affine_params", 1e-5)
    gold.close(network(code()).image, golden, "align/generator_512", 1e-4)


@pytest.mark.data
@pytest.mark.slow
@torch.no_grad()
def test_generator_with_a_mask_of_ghost(shared):
    golden = gold.outputs(shared)
    network = gold.fill(AdainGenerator(1280, has_mask=True))
    assert gold.shapes(network) == gold.keys(shared, "ghost2.generator")
    found = network(code(1, has_expression=False))
    gold.close(found.image, golden, "ghost2/rgb", 1e-4)
    gold.close(found.mask_logits.sigmoid(), golden, "ghost2/mask", 1e-4)


@pytest.mark.data
@torch.no_grad()
def test_discriminators(shared):
    golden = gold.outputs(shared)
    for channels in (3, 5):
        network = gold.fill(PatchDiscriminator(channels))
        assert gold.shapes(network) == gold.keys(shared, f"disc_in{channels}")
        gold.close(network(gold.img(f"d{channels}", 2, channels, 128, 128)), golden, f"disc_in{channels}_128", 1e-5)
    network = gold.fill(ResidualDiscriminator())
    assert gold.shapes(network) == gold.keys(shared, "ghost2.disc")
    found = network(gold.img("gd", 2, 3, 128, 128))
    gold.close(found.scores, golden, "ghost2/disc_score", 1e-4)
    assert [list(f.shape[1:]) for f in found.features] == golden["ghost2/disc_feat_shapes"].tolist()
    for i, feature in enumerate(found.features):
        expected = golden[f"ghost2/disc_feat{i}_mean_std"]
        torch.testing.assert_close(torch.stack((feature.mean(), feature.std())).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.data
@torch.no_grad()
def test_codes_of_portraits(shared):
    golden, target = gold.outputs(shared), gold.img("xt", 1, 3, 256, 256)
    for name, part in (("Epose", "pose_encoder."), ("Eexp", "exp_encoder.")):
        network = gold.fill(MobileNetV2(256), part)
        assert gold.shapes(network, part) == gold.keys(shared, f"align.{name}")
        gold.close(network(target), golden, f"align/{name}", 1e-4)


@pytest.mark.data
@pytest.mark.slow
@torch.no_grad()
def test_code_of_appearance(shared):
    network = gold.fill(ResNeXt50(512), "por_encoder.")
    assert gold.shapes(network, "por_encoder.") == gold.keys(shared, "align.Epor")
    found = network(gold.img("xs", 4, 3, 256, 256)).mean(0, keepdim=True)
    gold.close(found, gold.outputs(shared), "align/Epor", 0.005)  # numbers reach 1242


@pytest.mark.data
@pytest.mark.slow
@torch.no_grad()
def test_code_of_identity(shared):
    """The stored number says little: with these weights the network is chaotic, an input changed by 1e-7 turns the code by 16 degrees.

    The cosine of a code of another network, or of another input, is 0.05.
    """
    network = gold.fill(IrSe50())
    assert gold.shapes(network) == gold.keys(shared, "align.Eid.facenet")
    found = network(F.adaptive_avg_pool2d(gold.img("xt", 1, 3, 256, 256), 112))
    torch.testing.assert_close(found.norm(), torch.tensor(1.0))
    assert F.cosine_similarity(found, gold.outputs(shared)["align/Eid"]).item() > 0.5
    assert not network.train().training


@pytest.mark.data
@torch.no_grad()
def test_parser(shared):
    golden, network = gold.outputs(shared), gold.fill(BiSeNet())
    keys = gold.keys(shared, "parser.BiSeNet")
    assert gold.shapes(network) == keys
    image = gold.inp("parse", 1, 3, 128, 128)
    logits = network(image)
    gold.close(logits[..., ::8, ::8], golden, "parser/logits_128_stride8", 2e-3)  # numbers reach 107
    assert (logits.argmax(1) != golden["parser/argmax_128"]).sum() <= 2
    assert [tuple(other.shape) for other in network.auxiliary(image)] == [tuple(logits.shape)] * 2


# ---- spectral norms -------------------------------------------------------------------------------------------------------------


def test_the_largest_singular_value_becomes_one():
    layers = SpectralConv2d(6, 10, 3), SpectralLinear(7, 5)
    for layer in layers:
        for _ in range(50):
            weight = layer.weight()
        torch.testing.assert_close(torch.linalg.matrix_norm(weight.flatten(1), 2), torch.tensor(1.0), rtol=1e-3, atol=0)
        u = layer.weight_u.clone()
        layer.eval().weight()
        assert torch.equal(layer.weight_u, u), "evaluation leaves the vectors alone"


def test_the_weight_of_torch():
    theirs = torch.nn.utils.spectral_norm(torch.nn.Conv2d(3, 8, 3, padding=1))
    ours = SpectralConv2d(3, 8, 3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 9, 9)
    for _ in range(3):
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.weight_u, theirs.weight_u)


def test_a_mean_of_weights_gets_its_own_singular_vectors():
    """Else the weight of the average is too large: means of the vectors are shorter than 1."""
    torch.manual_seed(0)
    layers = [SpectralConv2d(6, 10, 3) for _ in range(2)]
    for layer in layers:
        for _ in range(50):
            layer.weight()
    mean = SpectralConv2d(6, 10, 3)
    states = [layer.state_dict() for layer in layers]
    mean.load_state_dict({key: (states[0][key] + states[1][key]) / 2 for key in states[0]})
    network = torch.nn.Sequential(mean)
    assert torch.linalg.matrix_norm(mean.eval().weight().flatten(1), 2) > 1.2
    settled(network.train())
    assert not mean.training
    torch.testing.assert_close(torch.linalg.matrix_norm(mean.weight().flatten(1), 2), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_two_passes_before_one_backward_and_a_copy_after_them():
    """A discriminator sees the true and the generated image before its losses are added; an average of weights copies it."""
    network = PatchDiscriminator(3, (4, 8))
    (network(torch.randn(1, 3, 16, 16)).mean() - network(torch.randn(1, 3, 16, 16)).mean()).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert torch.equal(copy.deepcopy(network).model[0].sn_conv.weight_u, network.model[0].sn_conv.weight_u)


# ---- definitions ----------------------------------------------------------------------------------------------------------------


def test_shifts_come_before_scales_and_no_one_is_added():
    """With all numbers of the norms 0 a generator forgets its constant; the shift of the last norm alone decides."""
    network = AdainGenerator(4, 16, 4, 8).eval()
    numbers = torch.zeros(1, 2 * sum(network.norm_widths))
    network.affine = lambda code: numbers
    one = network(torch.zeros(1, 4)).image
    network.constant.constant.data.normal_()
    assert torch.equal(network(torch.zeros(1, 4)).image, one)
    numbers[:, -8:-4] = 1  # the last norm's shifts
    shifted = network(torch.zeros(1, 4)).image
    assert not torch.equal(shifted, one)
    network.constant.constant.data.normal_()
    assert torch.equal(network(torch.zeros(1, 4)).image, shifted)
    numbers[:, -4:] = 1  # its scales
    assert not torch.equal(network(torch.zeros(1, 4)).image, shifted)


def test_sizes_are_checked():
    with pytest.raises(ConfigError, match="has_mask=true"):
        AdainGenerator(8, 16, 4, 8, parts=3)
    with pytest.raises(ConfigError, match="48"):
        AdainGenerator(8, 48)
    with pytest.raises(ShapeError, match=r"codes \(B, 8\)"):
        AdainGenerator(8, 16, 4, 8)(torch.zeros(2, 9))
    with pytest.raises(ShapeError, match="112"):
        IrSe50()(torch.zeros(1, 3, 96, 96))


def test_maps_of_vgg():
    with torch.device("meta"):
        maps = Vgg19Maps()(torch.empty(1, 3, 64, 64))
        assert [tuple(m.shape[1:]) for m in maps[::4]] == [(64, 64, 64), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
        assert Vgg19Features()(torch.empty(1, 3, 64, 64)).shape == (1, 512, 8, 8)
        assert len(maps) == 13
