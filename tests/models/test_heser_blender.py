"""The blender: turns, cycle, what is left of the portrait, colours, and learning one pair."""

from __future__ import annotations

import pytest
import torch

from frustum.data.labels.pixels import PixelLabels
from frustum.data.labels.portraits import PlacedHead, PlacedHeads, TrueSwaps
from frustum.errors import ConfigError
from frustum.models import heser_blender
from frustum.models.heser_blender import HeserBlender, HeserBlenderConfig
from frustum.nn.encoders.lpips import Lpips
from frustum.nn.head_regions import REGIONS, region_labels, region_maps
from frustum.nn.portrait_views import as_bytes, signed
from tests.models.portrait_batches import batch_for, step
from tests.nn import golden_heser as gold

TINY = {"width": 8, "feature_width": 4, "match_channels": 8}
_WORDS = ["data.image_size=64,64", *(f"model.{name}={value}" for name, value in TINY.items())]
ROUNDING = 1e-3  # a softmax at a temperature of 0.05 makes differences of features larger
SMALL = {"heser-blender": _WORDS, "heser-blender-mini": _WORDS}


def small(**settings: object) -> tuple[HeserBlenderConfig, HeserBlender]:
    config = HeserBlenderConfig(**{**TINY, **settings})
    return config, config.build()


def test_a_step_trains_every_part():
    config, network = small(temperature=0.1)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    losses = step(network.train(), batch_for(config, 64), 1e-1)
    assert set(losses) == {"l1", "deceive", "cycle", "cycle_other", "judge"}
    still = [name for name, value in network.named_parameters() if torch.equal(value, before[name])]
    assert not still, still


def test_without_weights_there_is_neither_a_discriminator_nor_a_cycle():
    config, network = small(adversarial_weight=0, cycle_weight=0)
    assert [turn.name for turn in network.turns()] == ["generator"]
    assert not any("discriminator" in key for key in network.state_dict())
    assert set(step(network.train(), batch_for(config, 64))) == {"l1"}


def test_a_coloured_head_is_what_an_untrained_network_paints():
    """What is added begins with nothing here; small regions may count for more."""
    config, network = small(tone="coloured", adversarial_weight=0, features_weight=2.0)
    for parameter in network.generator.decoder.conv10_ab.parameters():
        torch.nn.init.zeros_(parameter)
    batch = batch_for(config, 64)
    scene, parsing, head = signed(batch), batch.need(PixelLabels), batch.need(PlacedHeads)
    outputs = network.eval()(batch.with_labels({PlacedHeads: PlacedHead(scene, parsing)}))  # its own head, in its own colours
    is_head = outputs["masks"][:, :1] > 0
    torch.testing.assert_close(outputs["image"], torch.where(is_head, scene, 0.0), rtol=1e-4, atol=1e-4)
    losses = network.loss(network(batch), batch)
    assert set(losses) == {"l1", "features"}
    eyes = torch.isin(head.parsing, torch.tensor([4, 5]))
    wrong = torch.where(eyes[:, None], 1 - scene, scene)
    only = batch.with_labels({TrueSwaps: scene, PlacedHeads: PlacedHead(head.image, torch.where(eyes, head.parsing, 0))})
    found = network.loss({"image": wrong}, only)["features"]
    torch.testing.assert_close(found, 2.0 * (wrong - scene).abs().mean(1)[eyes].mean())
    drawn = PlacedHead(head.image, torch.zeros_like(head.parsing), true_parsing=torch.where(eyes, head.parsing, 0))
    again = network.loss({"image": wrong}, only.with_labels({PlacedHeads: drawn}))["features"]
    assert torch.equal(again, found), "of a head that was drawn, the true eyes count"


def test_it_may_see_the_head_of_the_portrait():
    """And which part is where in it and in the new one."""
    assert small()[1]._refer(batch_for(small()[0], 64)).shown is None
    config, network = small(sees_parts=True, adversarial_weight=0)
    assert [found.learns_from()[0].of_others for found in (config, small()[0])] == [True, False]
    batch = batch_for(config, 64)
    head, scene = batch.need(PlacedHeads), signed(batch)
    found = network.eval()._refer(batch)
    image, ours, theirs = found.shown.split([3, len(REGIONS), len(REGIONS)], 1)
    assert torch.equal(image, scene)
    for maps, parsing in ((ours, head.parsing), (theirs, batch.need(PixelLabels))):
        assert torch.equal(maps, region_maps(region_labels(parsing)).float())
    with torch.no_grad():
        first, other = (network.generator(head.image, scene, x) for x in (found, found._replace(shown=-found.shown)))
    assert not torch.equal(first, other)
    mirrored = small(sees_parts=True, flip=1.0)[1].train()._refer(batch).shown
    assert torch.equal(mirrored[:, :3], scene.flip(-1))
    assert torch.equal(mirrored[:, 3 + len(REGIONS) :], theirs.flip(-1))
    with pytest.raises(ConfigError, match=r"model\.conventions=clean"):
        small(sees_parts=True, conventions="heser")


def test_true_swaps_are_learned_from():
    """The loss compares with the true swap, and with nothing that the portrait shows."""
    config, network = small(adversarial_weight=0)
    batch = batch_for(config, 64)
    outputs = network.eval()(batch)
    perfect = batch.with_labels({TrueSwaps: outputs["image"].detach()})
    assert network.loss(outputs, perfect)["l1"] == 0
    assert config.learns_from()[2] == TrueSwaps("region")


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_reference_may_be_finer(stride):
    config, network = small(stride=stride, tone="coloured", conventions="clean")
    face = torch.from_numpy(gold.parsing(32, 0, 0, False))[None].repeat(2, 1, 1)
    batch = batch_for(config, 32)
    outputs = network.eval()(batch.with_labels({PixelLabels: face, PlacedHeads: PlacedHead(batch.need(PlacedHeads).image, face)}))
    assert outputs["reference"].shape == (2, 3, 32 // stride, 32 // stride)
    assert outputs["image"].shape == (2, 3, 32, 32)


def test_lpips_is_a_loss_where_it_has_a_weight(monkeypatch):
    monkeypatch.setattr(heser_blender, "lpips", lambda: Lpips("alex"))
    config, network = small(lpips_weight=0.5)
    losses = network.loss(network(batch_for(config, 64)), batch_for(config, 64))
    assert losses["lpips"] > 0
    assert not any("lpips" in key for key in network.state_dict())


def test_the_cycle_is_a_turn_of_its_own():
    config, network = small()
    names = {id(p): name for name, p in network.named_parameters()}
    turns = {turn.name: {names[id(p)].split(".")[1] for p in turn.parameters} for turn in network.turns()}
    assert list(turns) == ["generator", "discriminator", "cycle"]
    assert turns["cycle"] == {"feature_ext", "phi", "theta"}
    assert turns["generator"] == turns["cycle"] | {"decoder"}
    batch = batch_for(config, 64)
    outputs = network.eval()(batch)
    assert outputs.keys() - network.referred(batch).keys() == {"image"}
    assert all(torch.equal(value, outputs[name]) for name, value in network.referred(batch).items())
    assert "cycle_other" not in network.cycle_loss(network(batch_for(config, 64, 1)), batch_for(config, 64, 1))


def test_outputs_and_predictions():
    config, network = small()
    batch = batch_for(config, 64)
    with torch.no_grad():
        outputs = network.eval()(batch)
        alone = network(batch[1:2])
    for key, value in alone.items():
        torch.testing.assert_close(value, outputs[key][1:2], rtol=1e-3, atol=1e-3)
    predictions = network.predict(outputs, batch)
    is_union = outputs["masks"][:, 1] > 0
    images = torch.stack([prediction.portrait.image for prediction in predictions])
    outside = ~is_union[:, None].expand(-1, 3, -1, -1)
    assert outside.any()
    assert torch.equal(images[outside], as_bytes(signed(batch))[outside])
    assert torch.equal(predictions[0].portrait.head, outputs["masks"][0, 0] > 0)


def test_training_takes_colours_from_the_mirrored_portrait():
    config, network = small(flip=1.0)
    batch = batch_for(config, 64)
    mirrored = batch.__class__(**{**vars(batch), "images": batch.images.flip(-1)})
    mirrored = mirrored.with_labels({PixelLabels: batch.need(PixelLabels).flip(-1)})
    trained, evaluated = network.train()(batch), network.eval()(mirrored)
    torch.testing.assert_close(trained["reference"], evaluated["reference"])


@pytest.mark.parametrize("stride", [8, 2, 1])
def test_the_head_has_the_colours_of_the_portrait(stride):
    """A portrait whose hair is red and whose skin is green: so is the reference of a head with other colours."""
    config, network = small(stride=stride)
    gold.fill(network.generator)
    face = torch.from_numpy(gold.parsing(64, 0, 0, False))[None]
    colours = torch.zeros(1, 3, 64, 64)
    colours[:, 0].masked_fill_(face == 17, 1.0)
    colours[:, 1].masked_fill_(face == 1, 1.0)
    batch = batch_for(config, 64, 1)
    batch = batch.__class__(**{**vars(batch), "images": colours[:, None, None]})
    head = PlacedHead(torch.rand(1, 3, 64, 64), face)
    outputs = network.eval()(batch.with_labels({PixelLabels: face, PlacedHeads: head}))
    small_face = face[0, stride // 2 :: stride, stride // 2 :: stride]
    for part, colour in ((17, (1.0, 0.0, 0.0)), (1, (0.0, 1.0, 0.0))):
        found = outputs["reference"][0][:, small_face == part]
        torch.testing.assert_close(found, torch.tensor(colour)[:, None].expand_as(found))


def test_one_pair_is_learned():
    torch.manual_seed(0)
    config, network = small(adversarial_weight=0.01, flip=0.0)
    batch = batch_for(config, 32, 1)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4) * 2 - 1, (32, 32), mode="bilinear")
    batch = batch.__class__(**{**vars(batch), "images": smooth[:, None, None]}).with_labels({TrueSwaps: smooth})
    optimisers = [torch.optim.Adam(turn.parameters, 3e-3) for turn in network.turns()]
    found = []
    for _ in range(15):
        for turn, optimiser in zip(network.turns(), optimisers, strict=True):
            optimiser.zero_grad()
            losses = turn.loss(network(batch), batch)
            torch.stack(list(losses.values())).sum().backward()
            optimiser.step()
            found += [losses["l1"].item()] if "l1" in losses else []
    assert found[-1] < 0.7 * found[0]
