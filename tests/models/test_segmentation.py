"""PSPNet and DeepLabV3: shapes, sizes and reach against formulas, the conventions of torch 0.4, and heads against a plain writing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.data.labels.pixels import PixelLabels
from frustum.errors import ConfigError
from frustum.models.deeplabv3 import DeepLabV3Config
from frustum.models.pspnet import PspNetConfig
from frustum.models.unet_seg import UnetConfig
from frustum.nn.label_maps import LiteEncoder, PooledNorm
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch

_NARROW = ["model.channels=8", "model.auxiliary_channels=8", "model.dropout=0"]
SMALL = {
    "pspnet-r101-cityscapes": ["model.encoder=resnet18", *_NARROW],
    "pspnet-r18-cityscapes": _NARROW,
    "pspnet-r18-camvid": _NARROW,
    "pspnet-lite": ["model.pretrained=false", *_NARROW],
    "pspnet-small": _NARROW,
    "face-parser": ["model.widths=[4,8]"],
    "deeplabv3-r101-cityscapes": ["model.encoder=resnet18", *_NARROW],
}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def head_parameters(late: int, early: int, channels: int, auxiliary: int, classes: int) -> int:
    """Of PSPNet's two heads: convolutions without bias, two numbers per channel for each norm, classifiers."""
    pyramid = 4 * (late * channels + 2 * channels) + (late + 4 * channels) * channels * 9 + 2 * channels
    return pyramid + (channels + 1) * classes + early * auxiliary * 9 + 2 * auxiliary + (auxiliary + 1) * classes


# The encoders by their own formula: tests/nn/encoders/test_resnet.py holds torchvision's counts, and what the stem adds.
@pytest.mark.parametrize(
    ("name", "millions", "widths"),
    [("pspnet-r18-cityscapes", 13.068, (512, 256, 128, 128)), ("pspnet-r101-cityscapes", 70.437, (2048, 1024, 512, 512))],
)
def test_sizes_of_the_published_networks(name, millions, widths):
    with torch.device("meta"):
        model = get_recipe(name).model.build()
    assert parameters(model) - parameters(model.backbone) == head_parameters(*widths, classes=19)
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=5e-4)
    assert model.backbone.conv3.out_channels == 128


@pytest.mark.parametrize("name", [name for name in SMALL if "-r" in name])
def test_shapes_of_the_recipes(name):
    """At their own image size, on a device without numbers; with the conventions of torch 0.4 one place more on each side."""
    recipe = get_recipe(name)
    (height, width), config = recipe.data.image_size, recipe.model
    with torch.device("meta"):
        model = config.build().train()
        outputs = model(Batch.of_images(torch.empty(2, 3, height, width)))
    more = int(config.conventions == "reference")
    size = (height // 8 + more, width // 8 + more)
    assert outputs["features"].shape == (2, config.channels, *size)
    assert outputs["logits"].shape == outputs["aux_logits"].shape == (2, len(config.class_names), *size)


def test_a_crop_of_512_has_65_places_with_the_conventions_of_torch_04():
    config = PspNetConfig(encoder="resnet18", channels=8, auxiliary_weight=0.0)
    for conventions, places in (("reference", 65), ("clean", 64)):
        with torch.device("meta"):
            model = config.model_copy(update={"conventions": conventions}).build().eval()
            assert model(Batch.of_images(torch.empty(1, 3, 512, 512)))["logits"].shape == (1, 19, places, places)


def test_the_light_encoder_sees_places_where_they_are_at_any_size():
    """Sides of 90, 45, 23 pixels on the way would shift its maps; those of an image inside a larger one are those of the larger one."""
    network = LiteEncoder().eval()
    image = torch.rand(1, 3, 90, 75)
    with torch.no_grad():
        found, wider = network(image), network(F.pad(image, (0, 21, 0, 6)))
    assert [tuple(x.shape[-2:]) for x in found] == [(6, 5), (23, 19)]
    for part, whole in zip(found, wider, strict=True):
        torch.testing.assert_close(part, whole[..., : part.shape[-2], : part.shape[-1]])


def test_the_light_network_sees_thin_things():
    """Stride 4, and an auxiliary head at stride 16; the size need not be a multiple of anything."""
    model = get_recipe("pspnet-lite").model.model_copy(update={"pretrained": False}).build().train()
    assert parameters(model) < 3.2e6
    outputs = model(Batch.of_images(torch.randn(1, 3, 45, 70)))
    assert outputs["features"].shape == (1, 48, 12, 18)
    assert outputs["aux_logits"].shape == (1, 11, 3, 5)


def plain(x: Tensor, state: dict[str, Tensor], key: str, slope: float, **convolution: int) -> Tensor:
    """Convolution, norm and activation, written out."""
    x = F.conv2d(x, state[f"{key}.conv.weight"], **convolution)
    mean, var, weight, bias = (state[f"{key}.bn.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias"))
    x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
    return torch.where(x > 0, x, slope * x)


def randomised(model: nn.Module) -> nn.Module:
    """Norms that are not the identity."""
    for key, value in model.state_dict().items():
        if key.endswith((".bn.running_mean", ".bn.bias")):
            value.normal_()
        elif key.endswith((".bn.running_var", ".bn.weight")):
            value.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("conventions", ["clean", "reference"])
@torch.no_grad()
def test_the_pyramid_is_what_the_paper_says(conventions):
    torch.manual_seed(0)
    config = PspNetConfig(encoder="resnet18", channels=5, conventions=conventions, class_names=("a", "b"))
    head = randomised(config.build()).decode_head
    x, state, slope, aligned = torch.randn(2, 512, 9, 13), head.state_dict(), *((0.01, True) if config.is_aligned else (0.0, False))
    parts = [x]
    for i, size in enumerate((1, 2, 3, 6)):
        mean = plain(F.adaptive_avg_pool2d(x, size), state, f"psp_modules.{i}.1", slope)
        parts.append(F.interpolate(mean, (9, 13), mode="bilinear", align_corners=aligned))
    features = plain(torch.cat(parts, 1), state, "bottleneck", slope, padding=1)
    found, logits = head(x)
    torch.testing.assert_close(found, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, F.conv2d(features, state["conv_seg.weight"], state["conv_seg.bias"]), rtol=1e-4, atol=1e-4)
    assert bool((found < 0).any()) == aligned


@torch.no_grad()
def test_the_atrous_head_is_what_the_paper_says():
    torch.manual_seed(0)
    config = DeepLabV3Config(encoder="resnet18", channels=5, dilations=(2, 3, 4), class_names=("a", "b"))
    head = randomised(config.build()).decode_head
    x, state = torch.randn(2, 512, 9, 13), head.state_dict()
    whole = plain(x.mean((2, 3), keepdim=True), state, "image_pool.1", 0.0).expand(-1, -1, 9, 13)
    branches = [plain(x, state, f"aspp_modules.{i}", 0.0, padding=d, dilation=d) for i, d in ((1, 2), (2, 3), (3, 4))]
    joined = torch.cat([whole, plain(x, state, "aspp_modules.0", 0.0), *branches], 1)
    torch.testing.assert_close(head(x)[0], plain(joined, state, "bottleneck", 0.0, padding=1), rtol=1e-4, atol=1e-4)


def reach(model: nn.Module, width: int) -> int:
    """How many columns of the image the last map's middle depends on: weights are positive and maxima means, so that nothing is hidden."""
    for parameter in model.backbone.parameters():
        parameter.data.fill_(1 / max(1, parameter[0].numel()))
    model.backbone.maxpool = nn.AvgPool2d(3, 2, 1, ceil_mode=model.backbone.maxpool.ceil_mode)
    image = torch.ones(1, 3, 16, width, requires_grad=True)
    x = model.backbone(image)[1]
    x[0, :, 1, x.shape[3] // 2].sum().backward()
    seen = image.grad[0].sum((0, 1)).nonzero()
    return int(seen.max() - seen.min()) + 1


def test_the_reach_of_the_encoder():
    """ResNet-18 by hand, in pixels: each 3x3 convolution adds 2 x dilation x stride of its input."""
    stem = 7 + 2 * 2  # 7x7 at stride 2, 3x3 maximum at stride 2
    strided = stem + 2 * (4 * 4) + 2 * (4 + 3 * 8)  # layer1 at stride 4; layer2: the first at 4, three at 8
    contracted = strided + 2 * 8 * (1 + 3 * 2) + 2 * 8 * (2 + 3 * 4)
    full = strided + 2 * 8 * (4 * 2) + 2 * 8 * (4 * 4)
    for conventions, expected in (("clean", contracted), ("reference", full)):
        model = PspNetConfig(encoder="resnet18", channels=8, conventions=conventions, auxiliary_weight=0.0).build().eval()
        assert reach(model, 640) == expected


def test_a_global_mean_of_one_image_takes_stored_statistics():
    norm = PooledNorm(3).train()
    x = torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(norm(x), x / (1 + 1e-5) ** 0.5)
    assert not norm.running_mean.any()
    norm(torch.randn(2, 3, 1, 1))
    assert norm.running_mean.all()


def test_losses_and_their_weights():
    config = PspNetConfig(encoder="resnet18", channels=8, auxiliary_channels=8, class_names=("a", "b", "c"), dropout=0.0)
    torch.manual_seed(0)
    model = config.build().train()
    labels = torch.randint(0, 3, (2, 64, 64), dtype=torch.uint8)
    batch = Batch.of_images(torch.randn(2, 3, 64, 64)).with_labels({PixelLabels: labels})
    outputs = model(batch)
    losses = model.loss(outputs, batch)
    for name, key, factor in (("cross_entropy", "logits", 1.0), ("auxiliary", "aux_logits", 0.4)):
        stretched = F.interpolate(outputs[key], (64, 64), mode="bilinear")
        torch.testing.assert_close(losses[name], factor * F.cross_entropy(stretched, labels.long()))
    assert "aux_logits" not in model.eval()(batch)
    bare = config.model_copy(update={"auxiliary_weight": 0.0}).build().train()
    assert list(bare.loss(bare(batch), batch)) == ["cross_entropy"]


def test_predictions_lie_where_the_logits_do():
    """A class in the upper left corner of the map is there in the image."""
    model = PspNetConfig(encoder="resnet18", channels=8, class_names=("a", "b")).build().eval()
    batch = Batch.of_images(torch.zeros(1, 3, 40, 64), ["t"])
    logits = torch.zeros(1, 2, 5, 8)
    logits[:, 0], logits[:, 1, :2, :3] = 0.5, 1.0
    (prediction,) = model.predict({"logits": logits}, batch)
    labels = prediction.segmentation.labels
    assert labels.shape == (40, 64)
    assert (labels[:12, :20] == 1).all()
    assert not labels[20:].any()
    assert not labels[:, 28:].any()


def test_no_weights_for_a_stem_that_no_package_has():
    with pytest.raises(ConfigError, match="no package has weights"):
        PspNetConfig(encoder="resnet50", stem="3x3_wide", pretrained=True).build()


def test_the_small_network_is_an_eighth_of_the_light_one():
    """Its maps at stride 16 and 4, sizes rounded up; nobody has weights of it."""
    model = get_recipe("pspnet-small").model.build().eval()
    light = get_recipe("pspnet-lite").model.model_copy(update={"pretrained": False}).build()
    assert parameters(model) < 0.125 * parameters(light)
    early, late = model.backbone(torch.randn(2, 3, 60, 84))
    assert early.shape == (2, 64, 4, 6)
    assert late.shape == (2, 32, 15, 21)
    with pytest.raises(ConfigError, match=r"model\.pretrained=false"):
        PspNetConfig(encoder="small", pretrained=True).build()


def test_a_unet_keeps_every_pixel():
    """Odd sizes, too; and what one pixel shows reaches the classes of that pixel past all coarser maps."""
    model = UnetConfig(class_names=("a", "b", "c"), widths=(4, 8, 8)).build().eval()
    images = torch.randn(2, 3, 13, 18)
    with torch.no_grad():
        outputs = model(Batch.of_images(images))
    assert outputs["logits"].shape == (2, 3, 13, 18)
    changed = images.clone()
    changed[:, :, 6, 9] += 3
    with torch.no_grad():
        difference = (model(Batch.of_images(changed))["logits"] - outputs["logits"]).abs().sum(1)
    assert (difference[:, 6, 9] > 0).all()
    (first, _) = model.predict(outputs, Batch.of_images(images))
    assert torch.equal(first.segmentation.labels.long(), outputs["logits"][0].argmax(0))


def test_a_unet_learns_single_pixels():
    torch.manual_seed(0)
    model, images = UnetConfig(class_names=("dark", "light"), widths=(8, 8)).build(), torch.randn(1, 3, 16, 16)
    labels = (images[:, 0] > 0).to(torch.uint8)  # neighbours say nothing of a pixel
    batch = Batch.of_images(images).with_labels({PixelLabels: labels})
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss = model.loss(model(batch), batch)["cross_entropy"]
        loss.backward()
        optimiser.step()
    found = model.predict(model(batch), batch)[0].segmentation.labels
    assert (found == labels[0]).float().mean() > 0.97
