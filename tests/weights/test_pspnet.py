"""Checkpoints of PSPNet in the names of TorchDistiller and OpenMMLab: made up, since no published one is here."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F

import frustum
from frustum.errors import CheckpointError, FrustumWarning
from frustum.models.pspnet import PspNetConfig
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.weights import pspnet
from frustum.weights.conversion import convert
from frustum.weights.upstream import adapter_of, in_our_names

State = dict[str, torch.Tensor]


def norm(channels: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))


def put(found: dict[str, tuple[int, ...]], name: str, entries: dict[str, tuple[int, ...]]) -> None:
    found.update({f"{name}.{key}": shape for key, shape in entries.items()})


def residual_shapes(depth: int, stem: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of layer1 to layer4, by the definition of ResNet."""
    counts, wide = {18: ((2, 2, 2, 2), 1), 101: ((3, 4, 23, 3), 4)}[depth]
    found: dict[str, tuple[int, ...]] = {}
    before = stem
    for i, count in enumerate(counts):
        width = 64 * 2**i
        sizes = [(3, width), (3, width)] if wide == 1 else [(1, width), (3, width), (1, 4 * width)]
        for j in range(count):
            block, inside = f"layer{i + 1}.{j}", before
            for n, (kernel, channels) in enumerate(sizes, start=1):
                found[f"{block}.conv{n}.weight"] = (channels, inside, kernel, kernel)
                put(found, f"{block}.bn{n}", norm(channels))
                inside = channels
            if before != width * wide:
                found[f"{block}.downsample.0.weight"] = (width * wide, before, 1, 1)
                put(found, f"{block}.downsample.1", norm(width * wide))
            before = width * wide
    return found


def torchdistiller(depth: int, channels: int, auxiliary: int, psp: str = "pspmodule", head: str = "head") -> State:
    shapes = residual_shapes(depth, 128)
    for i, (inside, out) in enumerate(((3, 64), (64, 64), (64, 128)), start=1):
        shapes[f"conv{i}.weight"] = (out, inside, 3, 3)
        put(shapes, f"bn{i}", norm(out))
    late, early = (512, 256) if depth == 18 else (2048, 1024)
    for i in range(4):
        shapes[f"{psp}.stages.{i}.1.weight"] = (channels, late, 1, 1)
        put(shapes, f"{psp}.stages.{i}.2", norm(channels))
    shapes[f"{psp}.bottleneck.0.weight"] = (channels, late + 4 * channels, 3, 3)
    put(shapes, f"{psp}.bottleneck.1", norm(channels))
    put(shapes, head, {"weight": (19, channels, 1, 1), "bias": (19,)})
    put(shapes, "dsn.0", {"weight": (auxiliary, early, 3, 3), "bias": (auxiliary,)})
    put(shapes, "dsn.1", norm(auxiliary))
    put(shapes, "dsn.3", {"weight": (19, auxiliary, 1, 1), "bias": (19,)})
    return filled(shapes)


def openmmlab(depth: int = 101, channels: int = 512, auxiliary: int = 256) -> State:
    shapes = {f"backbone.{key}": shape for key, shape in residual_shapes(depth, 64).items()}
    for conv, bn, inside, out in ((0, 1, 3, 32), (3, 4, 32, 32), (6, 7, 32, 64)):
        shapes[f"backbone.stem.{conv}.weight"] = (out, inside, 3, 3)
        put(shapes, f"backbone.stem.{bn}", norm(out))
    late, early = (512, 256) if depth == 18 else (2048, 1024)
    for i in range(4):
        shapes[f"decode_head.psp_modules.{i}.1.conv.weight"] = (channels, late, 1, 1)
        put(shapes, f"decode_head.psp_modules.{i}.1.bn", norm(channels))
    shapes["decode_head.bottleneck.conv.weight"] = (channels, late + 4 * channels, 3, 3)
    put(shapes, "decode_head.bottleneck.bn", norm(channels))
    put(shapes, "decode_head.conv_seg", {"weight": (19, channels, 1, 1), "bias": (19,)})
    shapes["auxiliary_head.convs.0.conv.weight"] = (auxiliary, early, 3, 3)
    put(shapes, "auxiliary_head.convs.0.bn", norm(auxiliary))
    put(shapes, "auxiliary_head.conv_seg", {"weight": (19, auxiliary, 1, 1), "bias": (19,)})
    return filled(shapes)


def filled(shapes: dict[str, tuple[int, ...]]) -> State:
    """Where the default device holds numbers: small random ones, of both signs in the weights of norms, as InPlaceABN may have them."""
    torch.manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        fan = max(1, torch.Size(shape[1:]).numel())
        state[key] = torch.rand(shape) + 0.5 if key.endswith("running_var") else torch.randn(shape) * (2 / fan) ** 0.5
        if len(shape) == 1 and not key.endswith("running_var"):
            state[key] = state[key] * 0.3
    return state


def needed(name: str, **changes: object) -> dict[str, torch.Size]:
    with torch.device("meta"):
        state = get_recipe(name).model.model_copy(update=changes).build().state_dict()
    return {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}


def shapes_of(state: State) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


@pytest.mark.parametrize("names", [("pspmodule", "head"), ("head.0", "head.1")])
def test_torchdistillers_networks_are_the_recipes(names):
    for name, depth, widths in (("pspnet-r18-cityscapes", 18, (128, 128)), ("pspnet-r101-cityscapes", 101, (512, 512))):
        with torch.device("meta"):
            state = torchdistiller(depth, *widths, *names)
        assert adapter_of(state) is pspnet
        found = pspnet.identify(state)
        assert (found.recipe, found.is_consistent) == (name, True)
        assert pspnet.widths(state, get_recipe(name).model) == []
        assert shapes_of(in_our_names(state)) == needed(name)
        assert pspnet.needs(state)["conventions"] == "reference"


def test_openmmlabs_network_is_the_recipe_with_its_stem():
    with torch.device("meta"):
        state = openmmlab()
    assert pspnet.identify(state).recipe == "pspnet-r101-cityscapes"
    assert pspnet.widths(state, get_recipe("pspnet-r101-cityscapes").model) == ["model.stem=3x3", "model.auxiliary_channels=256"]
    ours = needed("pspnet-r101-cityscapes", stem="3x3", auxiliary_channels=256)
    assert shapes_of(in_our_names(state)) == ours
    assert (pspnet.needs(state)["conventions"], pspnet.needs(state)["channel_order"]) == ("clean", "rgb")


def test_what_is_not_read_is_refused():
    with torch.device("meta"):
        narrow = openmmlab(18, 128, 64)
        other = {**openmmlab(), "backbone.conv9.weight": torch.empty(1)}
    del other["decode_head.bottleneck.conv.weight"]
    assert not pspnet.identify(narrow).is_consistent
    assert not pspnet.identify(other).channels
    assert not pspnet.identify({"conv.weight": torch.empty(1)}).channels
    assert pspnet.reads(PspNetConfig())
    assert not pspnet.reads(get_recipe("pspnet-lite").model)


def abn(x: torch.Tensor, state: State, key: str) -> torch.Tensor:
    """InPlaceABN in evaluation, with its leaky activation: gamma is |weight| + 1e-5 (section 3 of the facts)."""
    mean, var, bias = (state[f"{key}.{name}"][:, None, None] for name in ("running_mean", "running_var", "bias"))
    gamma = (state[f"{key}.weight"].abs() + 1e-5)[:, None, None]
    return F.leaky_relu((x - mean) / (var + 1e-5).sqrt() * gamma + bias, 0.01)


@torch.no_grad()
def test_a_converted_file_computes_what_inplaceabn_does(tmp_path):
    """TorchDistiller's heads, written out in its own names, against the converted network on the same maps."""
    state, path, out = torchdistiller(18, 16, 24), tmp_path / "student.pth", tmp_path / "student.safetensors"
    torch.save(state, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrustumWarning)
        convert(path, out)
        model = frustum.load(out)
    config, data = model.recipe.model, model.recipe.data
    assert (config.channels, config.auxiliary_channels, config.conventions, data.channel_order) == (16, 24, "reference", "bgr")
    early, late = model.backbone(torch.randn(1, 3, 72, 96))
    parts = []
    for i, size in enumerate((1, 2, 3, 6)):
        mean = abn(F.conv2d(F.adaptive_avg_pool2d(late, size), state[f"pspmodule.stages.{i}.1.weight"]), state, f"pspmodule.stages.{i}.2")
        parts.append(F.interpolate(mean, late.shape[-2:], mode="bilinear", align_corners=True))
    joined = F.conv2d(torch.cat((*parts, late), 1), state["pspmodule.bottleneck.0.weight"], padding=1)
    features = abn(joined, state, "pspmodule.bottleneck.1")
    found, logits = model.decode_head(late)
    torch.testing.assert_close(found, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, F.conv2d(features, state["head.weight"], state["head.bias"]), rtol=1e-4, atol=1e-4)
    middle = abn(F.conv2d(early, state["dsn.0.weight"], state["dsn.0.bias"], padding=1), state, "dsn.1")
    expected = F.conv2d(middle, state["dsn.3.weight"], state["dsn.3.bias"])
    torch.testing.assert_close(model.auxiliary_head(early), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.backbone.bn1.weight, state["bn1.weight"].abs() + 1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrustumWarning)
        direct = frustum.load("pspnet-r18-cityscapes", path, source="official")
    batch = Batch.of_images(torch.randn(1, 3, 64, 64))
    assert torch.equal(direct(batch)["logits"], model(batch)["logits"])
    with pytest.raises(CheckpointError, match="missing"):
        frustum.load("pspnet-r101-cityscapes", path, source="official")
