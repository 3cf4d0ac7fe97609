"""The blender: numbers of HeSer.Pytorch, its colour reference against loops over regions, and what follows from the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.nn.blending_unet import BlendingUnet
from frustum.nn.colour_reference import colour_reference, normalised
from frustum.nn.head_blending import HeadBlender, Referred
from frustum.nn.head_regions import (
    LABELS,
    RING,
    colour_givers,
    dilated,
    dilation_for,
    grey,
    head_masks,
    matched,
    region_ids,
    region_labels,
    region_maps,
    with_ring,
)
from tests.nn import golden_heser as gold


def faces(size: int) -> tuple[Tensor, Tensor]:
    """Parsing maps (1, size, size) of the head and of the target."""
    made = gold.parsing(size, 0.02, 0.10, False), gold.parsing(size, -0.03, -0.15, True)
    return torch.from_numpy(made[0])[None], torch.from_numpy(made[1])[None]


def picture(name: str, size: int) -> Tensor:
    return F.avg_pool2d(gold.img(f"{name}{size}", 1, 3, size, size), 5, 1, 2)


# ---- the reference implementation -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> HeadBlender:
    return gold.fill(HeadBlender(conventions="heser"))


@torch.no_grad()
def blended(network: HeadBlender, size: int, temperature: float = 0.001) -> tuple[Referred, Tensor]:
    network.temperature = temperature
    (head, target), first, second = faces(size), picture("I_a", size), picture("I_t", size)
    found = network.refer(first, head, second, target)
    return found, network(first, second, found)


@pytest.mark.data
@pytest.mark.parametrize("temperature", [0.001, 0.1])
def test_numbers_of_the_reference(shared, published, temperature):
    golden, name = gold.outputs(shared), f"blend/128_tau{temperature:g}"
    keys = gold.keys(shared, "blend.generator")
    assert gold.shapes(published) == {key: shape for key, shape in keys.items() if ".conv5_" not in key or "decoder" in key}
    found, image = blended(published, 128, temperature)
    for mask, stored in zip(found.masks, ("M_Ah", "M_Ad", "M_Ai", "M_Td", "M_Ti"), strict=True):
        assert np.array_equal(np.packbits(mask.numpy()), golden[f"{name}/{stored}"].numpy())
    is_ring = (found.labels == RING)[:, None]
    gold.close(found.reference.masked_fill(is_ring, 0), golden, f"{name}/gen_h", 1e-5)
    gold.close(found.reference.masked_fill(~is_ring, 0), golden, f"{name}/gen_i", 1e-5)
    gold.close(found.sent_back, golden, f"{name}/cycle", 1e-5)
    gold.close(found.returned_to, golden, f"{name}/cycle_label", 1e-6)
    assert math.isclose((found.sent_back - found.returned_to).abs().mean(), golden[f"{name}/cycle_l1"], abs_tol=1e-5)
    gold.close(image, golden, f"{name}/out", 5e-3)


@pytest.mark.data
def test_features_of_the_reference(shared, published):
    golden = gold.outputs(shared)
    with torch.no_grad():
        first, second = (published.feature_ext(picture(name, 128)) for name in ("I_a", "I_t"))
        gold.close(published.phi(first), golden, "blend/128_tau0.001/fA", 1e-4)
        gold.close(published.theta(second), golden, "blend/128_tau0.001/fT", 1e-4)
        queries, keys = normalised(published.phi(first), "heser")[0].flatten(1), normalised(published.theta(second), "heser")[0].flatten(1)
    labels = [region_labels(face)[0, ::8, ::8].flatten() == LABELS["skin"] for face in faces(128)]
    logits = queries[:, labels[0]].T @ keys[:, labels[1]] / 0.1
    gold.close(logits[None], golden, "blend/128_tau0.1/skin_corr_logits", 1e-4)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("size", [256, 512])
def test_larger_images_of_the_reference(shared, published, size):
    gold.close(blended(published, size)[1], gold.outputs(shared), f"blend/{size}_tau0.001/out", 5e-3)


# ---- the colour reference -------------------------------------------------------------------------------------------------------


def maps(channels: int = 6, size: int = 12, samples: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Features, labels 0 to 9 of both maps, and colours."""
    features = (normalised(torch.randn(samples, channels, size, size)) for _ in range(2))
    labels = (torch.randint(0, 10, (samples, size, size)) for _ in range(2))
    return (*features, *labels, torch.rand(samples, 3, size, size) * 2 - 1)


def looped(queries: Tensor, keys: Tensor, ours: Tensor, theirs: Tensor, colours: Tensor, temperature: float) -> Tensor:
    """As the published code: for each sample and label the rows and columns are picked out."""
    found = colours.new_zeros(len(ours), 3, *ours.shape[1:])
    for i in range(len(ours)):
        for label in range(1, 10):
            rows, columns = ours[i] == label, theirs[i] == label
            if rows.any() and columns.any():
                alike = queries[i][:, rows].T @ keys[i][:, columns]
                found[i][:, rows] = ((alike / temperature).softmax(1) @ colours[i][:, columns].T).T
    return found


@pytest.mark.parametrize("temperature", [0.001, 0.1, 1.0])
def test_one_softmax_equals_the_loops(temperature):
    given = maps()
    torch.testing.assert_close(colour_reference(*given, temperature), looped(*given, temperature), rtol=0, atol=2e-6)


def test_one_softmax_equals_the_loops_of_the_published_size():
    """In float64 to rounding; in float32 as closely as the sheet says at temperatures where rounding is not amplified."""
    queries, keys, ours, theirs, colours = maps(16, 16)
    given = queries.double(), keys.double(), ours, theirs, colours.double()
    found = colour_reference(queries, keys, ours, theirs, colours, 0.1)
    torch.testing.assert_close(found, looped(queries, keys, ours, theirs, colours, 0.1), rtol=0, atol=2.5e-7)
    torch.testing.assert_close(found.double(), looped(*given, 0.1).double(), rtol=0, atol=1e-6)


def test_rows_at_a_time_change_nothing():
    given = maps()
    torch.testing.assert_close(colour_reference(*given, rows=50), colour_reference(*given), rtol=0, atol=1e-6)


def test_an_image_is_its_own_reference():
    """The same features and labels at a low temperature: each place finds itself."""
    features, _, labels, _, colours = maps(16)
    found = colour_reference(features, features, labels, labels, colours)
    torch.testing.assert_close(found, torch.where((labels > 0)[:, None], colours, 0.0))


def test_the_order_of_places_does_not_matter():
    queries, keys, ours, theirs, colours = maps()
    order = torch.randperm(keys.shape[2])
    found = colour_reference(queries, keys[:, :, order], ours, theirs[:, order], colours[:, :, order])
    torch.testing.assert_close(found, colour_reference(queries, keys, ours, theirs, colours), rtol=0, atol=1e-6)


def test_a_missing_region_gives_nothing_and_a_finite_gradient():
    queries, keys, ours, theirs, colours = maps()
    theirs = theirs.masked_fill(theirs == 3, 0)
    queries.requires_grad_()
    found = colour_reference(queries, keys, ours, theirs, colours, 0.1)
    assert (found.movedim(1, -1)[ours == 3] == 0).all()
    found.sum().backward()
    assert queries.grad.isfinite().all()
    assert queries.grad.any()


def test_half_precision_around_it_changes_nothing():
    given = maps()
    with torch.autocast("cpu", torch.bfloat16):
        found = colour_reference(*given)
    assert torch.equal(found, colour_reference(*given))


def test_normalised_features():
    features = torch.randn(2, 8, 5, 5) + 3
    clean = normalised(features)
    torch.testing.assert_close(clean.norm(dim=1), torch.ones(2, 5, 5))
    heser = normalised(features, "heser")
    centred = features - features.mean(1, keepdim=True)
    torch.testing.assert_close(heser, centred / features.norm(dim=1, keepdim=True))
    assert (heser.norm(dim=1) < 0.6).all()


def test_bad_maps():
    queries, keys, ours, theirs, colours = maps()
    with pytest.raises(ConfigError, match="temperature"):
        colour_reference(queries, keys, ours, theirs, colours, 0)
    with pytest.raises(ShapeError, match="colours"):
        colour_reference(queries, keys, ours, theirs, colours[..., :4])
    with pytest.raises(ShapeError, match="differ in samples or channels"):
        colour_reference(queries[:, :2], keys, ours, theirs, colours)


# ---- regions and masks ----------------------------------------------------------------------------------------------------------


def test_regions_part_the_head():
    parsing = torch.arange(19)[None, None]
    names = ["skin", *["brows"] * 2, *["eyes"] * 2, "glasses", *["ears"] * 3, "nose", "teeth", *["lips"] * 2]
    labels = region_labels(parsing)[0, 0].tolist()
    assert [i for i, label in enumerate(labels) if label] == [*range(1, 14), 17, 18]
    assert labels[1:14] == [LABELS[name] for name in names]
    assert labels[17:] == [LABELS["hair"], LABELS["hat"]]
    assert region_labels(torch.tensor([[[255]]])).item() == 0
    published = region_labels(parsing, published=True)[0, 0].tolist()
    assert published[17:] == [LABELS["hair"]] * 2
    assert published[6] == LABELS["eyes"]
    assert published[:6] + published[7:17] == labels[:6] + labels[7:17]
    found = region_labels(parsing)
    assert torch.equal(region_labels(region_ids(found)), found)
    each = region_maps(found)
    assert torch.equal((each * torch.arange(1, len(LABELS) + 1)[:, None, None]).sum(1), found)


def test_rings_lie_outside_their_own_head():
    regions, target = (region_labels(face) for face in faces(64))
    masks = head_masks(regions, target, 5)
    assert not (masks.ring & masks.head).any()
    assert not (masks.target_ring & (target > 0)).any()
    assert torch.equal(masks.union, dilated((regions > 0) | (target > 0), 5))
    assert set(with_ring(regions, masks.ring).unique().tolist()) >= {0, 1, 2, RING}


def test_dilation():
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 4, 4] = True
    assert dilated(mask, 5).sum() == 25
    assert [dilation_for(size) for size in (64, 128, 256, 512)] == [3, 5, 9, 17]
    with pytest.raises(ConfigError, match="odd"):
        dilated(mask, 4)


def test_colours_come_from_other_regions_where_one_is_missing():
    regions = torch.tensor([[[LABELS[name] for name in ("skin", "hair", "ears", "nose", "brows", "lips", "eyes")]]])
    target = torch.full((1, 64, 64), LABELS["skin"])
    target[:, :20] = LABELS["hair"]
    target[:, 60:] = LABELS["eyes"]
    givers, kept = colour_givers(regions, target)
    named = {label: name for name, label in LABELS.items()}
    assert [named[i] for i in givers[0, 0].tolist()[:5]] == ["skin", "hair", "skin", "skin", "hair"]
    assert kept[0, 0].tolist() == [False, False, False, False, False, True, False]
    assert colour_givers(regions, target, "source")[1].all()
    own = colour_givers(regions, target, fallback="own")
    assert own[1].sum() > kept.sum(), "what followed another region keeps its own"
    assert torch.equal(own[0][~own[1]], givers[~own[1]])
    assert colour_givers(regions, target, "skin")[1][0, 0].tolist() == [False, True, False, False, True, True, True]


def test_a_hat_is_no_hair():
    """It keeps its colour before a target without one, and gives none to hair; hair that a hat hides is that of the brows."""
    regions = torch.tensor([[[LABELS["hat"], LABELS["hair"]]]])
    target = torch.full((1, 64, 64), LABELS["skin"])
    target[:, :4, :16] = LABELS["brows"]
    bare, worn = target.clone(), target.clone()
    bare[:, 40:], worn[:, 40:] = LABELS["hair"], LABELS["hat"]
    (_, bare_kept), (worn_givers, worn_kept) = colour_givers(regions, bare), colour_givers(regions, worn)
    assert bare_kept[0, 0].tolist() == [True, False]
    assert worn_kept[0, 0].tolist() == [False, False]
    assert worn_givers[0, 0].tolist() == [LABELS["hat"], LABELS["brows"]]


# ---- the clean network ----------------------------------------------------------------------------------------------------------


def small(**settings: object) -> HeadBlender:
    return gold.fill(HeadBlender(8, 4, 8, **settings))


def test_the_clean_cycle_returns_the_target():
    """One image as head and target: reference and what is sent back are the image itself."""
    network, (_, face), image = small(temperature=1e-4), faces(64), torch.rand(1, 3, 64, 64) * 2 - 1
    network.theta.load_state_dict(network.phi.state_dict())
    found = network.refer(image, face, image, face)
    torch.testing.assert_close(found.reference, found.returned_to, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.sent_back, found.returned_to, rtol=0, atol=1e-3)


def test_a_place_has_the_mean_colour_of_its_label():
    network, face, image = small(policy="source"), torch.ones(1, 16, 16, dtype=torch.uint8), torch.rand(1, 3, 16, 16)
    face[:, :, :3] = 17  # less than half of a place: its label is skin
    found = network.refer(image, face, torch.rand(1, 3, 16, 16), face)
    assert (found.labels == LABELS["skin"]).all()
    torch.testing.assert_close(found.reference[0, :, 0, 0], image[0, :, :8, 3:8].mean((1, 2)))
    torch.testing.assert_close(found.reference[0, :, 1, 1], image[0, :, 8:, 8:].mean((1, 2)))


def test_a_head_that_keeps_its_colours():
    """Whatever the target looks like; only the ring takes colours from it."""
    network, (head, target), image = small(policy="source"), faces(64), torch.rand(1, 3, 64, 64)
    one, other = (network.refer(image, head, torch.rand(1, 3, 64, 64), target) for _ in range(2))
    is_ring = (one.labels == RING)[:, None]
    assert torch.equal(one.reference.masked_fill(is_ring, 0), other.reference.masked_fill(is_ring, 0))
    assert not torch.equal(one.reference, other.reference)


def test_sizes_are_checked():
    image, face = torch.rand(1, 3, 60, 64), torch.ones(1, 60, 64, dtype=torch.uint8)
    with pytest.raises(ShapeError, match="multiples of 8"):
        small().refer(image, face, image, face)


def test_the_unet_reaches_every_weight():
    network = BlendingUnet(5, 8)
    network(torch.randn(2, 5, 32, 32)).square().mean().backward()
    # A bias ahead of an instance norm's ReLU counts; those that only a norm follows do not exist here.
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("seen", [grey, lambda images: images], ids=["grey", "coloured"])
def test_a_matched_head_is_as_light_as_the_target(seen):
    torch.manual_seed(0)
    regions, target_regions = torch.zeros(1, 64, 64, dtype=torch.int64), torch.zeros(1, 64, 64, dtype=torch.int64)
    regions[:, :20], regions[:, 20:40] = LABELS["skin"], LABELS["hair"]
    target_regions[:, :40] = LABELS["skin"]  # no hair: the head's keeps its own
    head, target = seen(torch.rand(1, 3, 64, 64) * 0.5 - 0.9), seen(torch.rand(1, 3, 64, 64) * 0.8)
    found = matched(head, regions, target, target_regions)
    wanted = target[:, :, :40]
    torch.testing.assert_close(found[:, :, :20].mean(), wanted.mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, :, :20].std(correction=0), wanted.std(correction=0), rtol=1e-3, atol=1e-4)
    assert torch.equal(found[:, :, 20:], head[:, :, 20:])
    own = matched(head, regions, head, regions)
    torch.testing.assert_close(own, head, rtol=1e-4, atol=1e-5)
    lighter = matched(1.2 * head + 0.4, regions, target, target_regions)
    torch.testing.assert_close(lighter[:, :, :20], found[:, :, :20], rtol=1e-3, atol=1e-3)
    flat = matched(0.01 * head, regions, target, target_regions)[:, :, :20]
    torch.testing.assert_close(flat.std(2), 2 * (0.01 * head)[:, :, :20].std(2), rtol=1e-2, atol=1e-5)  # at most twice
