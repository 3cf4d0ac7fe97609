"""Networks that segment maps from above: what their recipes declare, one set of axes for all, hidden labels, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from frustum.data.labels.map_classes import MapLabels, MapTruth
from frustum.engine import overrides
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError
from frustum.models.bev_segmentation import MapLoss, Maps, map_head, map_losses, start_at_share
from frustum.models.bevformer_seg import BevFormerSegConfig
from frustum.models.lss_seg import LssSegConfig
from frustum.models.simplebev import SimpleBevConfig
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.types.frame import keyframe_of
from tests.models import test_contract as contract

_GRID = 'model.grid={"lower": [-50, -50, -4], "upper": [50, 50, 6], "cell": [2.5, 2.5, 5]}'
_SIZES = ["model.pretrained=false", "model.fine=5"]
_SIMPLEBEV = [*_SIZES, _GRID, "model.channels=16", "model.map_channels=16,16,16"]
_BEVFORMER = [
    *_SIZES,
    _GRID,
    "model.channels=16",
    "model.layers=2",
    "model.heads=2",
    "model.places=4",
    "model.hidden=16",
    "model.dropout=0",
]
_LSS = [
    *_SIZES, 'model.grid={"lower": [-50, -50, -10], "upper": [50, 50, 10], "cell": [2.5, 2.5, 20]}', "model.image_channels=16",
    "model.channels=8", "model.map_channels=16,16,16", 'model.depth_bins={"step": 4.0}',
]  # fmt: skip
_B0 = "model.encoder=efficientnet_b0"
SMALL = {
    "simplebev-r101": [*_SIMPLEBEV, "model.encoder=resnet50"],
    "simplebev-r50": [*_SIMPLEBEV, "model.encoder=resnet50"],
    "simplebev-b4": [*_SIMPLEBEV, _B0],
    "simplebev-b0": [*_SIMPLEBEV, _B0],
    "simplebev-mini": _SIMPLEBEV,
    "bevformer-seg-b4": [*_BEVFORMER, _B0],
    "bevformer-seg-mini": _BEVFORMER,
    "lss-seg": _LSS,
    "lss-seg-mini": _LSS,
}
MINI = ("simplebev-mini", "bevformer-seg-mini", "lss-seg-mini")


def small(name: str, *settings: str) -> Recipe:
    return overrides.apply(contract.small(name), settings)


def build(recipe: Recipe, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return recipe.model.build()


@pytest.mark.parametrize("name", SMALL)
def test_recipes_predict_maps_of_the_labels_cells(name):
    """As they are, without shrinking: the network's map is that of the labels."""
    recipe = get_recipe(name)
    (labels,) = recipe.model.learns_from()
    assert isinstance(labels, MapLabels)
    assert recipe.data.labelled_only, "keyframes whose labels are hidden teach nothing"
    published = name.startswith("simplebev") and not name.endswith("mini")
    assert (labels.rule, labels.draw_reference) == ("simplebev" if published else "lss" if name == "lss-seg" else "pointbev", published)


def seen_at(name: str, place: tuple[float, float], yaw: float, *settings: str) -> tuple[torch.Tensor, Batch, torch.nn.Module]:
    """How much each cell's logit (Y, X) depends on a camera that stands at a place and looks along `yaw`: the gradient into its images."""
    recipe = small(name, *settings)
    model = build(recipe).eval()
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    cam2ego = np.eye(4)
    cam2ego[:3, :3] = turn @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    cam2ego[:3, 3] = *place, 1.5
    lens = np.array([[60.0, 0, 48], [0, 60, 32], [0, 0, 1]])
    images = torch.randn(1, 3, 64, 96)
    batches = [Batch.from_arrays(x, lens[None], cam2ego[None]) for x in (images, images + torch.randn(1, 3, 64, 96))]
    with torch.no_grad():
        first, second = (model(batch)["map_logits"][0, 0] for batch in batches)
    return (first - second).abs(), batches[0], model


@pytest.mark.parametrize("name", MINI)
@pytest.mark.parametrize(("yaw", "side"), [(0.0, "ahead"), (np.pi / 2, "left"), (np.pi, "behind")])
def test_what_a_camera_sees_changes_the_map_where_it_looks(name, yaw, side):
    changed, _, _ = seen_at(name, (0, 0), yaw)
    cells = (torch.arange(200) + 0.5) * 0.5 - 50
    x, y = (float((changed.sum(axis) * cells).sum() / changed.sum()) for axis in (0, 1))
    along, across = {"ahead": (x, y), "left": (y, x), "behind": (-x, y)}[side]
    assert along > abs(across)
    assert along > 3


def test_queries_are_seen_where_their_columns_project():
    """The plan of the BEVFormer beside `CameraRig.project`."""
    _, batch, model = seen_at("bevformer-seg-mini", (1, 2), 0.7)
    frame = keyframe_of(batch)
    sight = model.sight(frame, model.config.maps.map2ego(batch, False), torch.device("cpu"))
    centres = model.config.grid.centres(torch.float64).transpose(0, 1).flatten(0, 1)  # (Q, Z, 3)
    pixels, _, visible = frame.rig.project(centres.flatten(0, 1)[None], frame.ego2global)
    visible = visible[0, 0].view(centres.shape[:2])
    queries, points = sight.seen[0]
    assert torch.equal(queries, visible.any(1).nonzero()[:, 0])
    expected = (pixels[0, 0].view(*centres.shape[:2], 2) / torch.tensor([96, 64]))[queries].float()
    torch.testing.assert_close(points[visible[queries]], expected[visible[queries]], atol=1e-5, rtol=1e-5)
    assert (points[~visible[queries]] == -9).all()
    assert sight.cameras.flatten()[queries].unique().tolist() == [1]


@pytest.mark.parametrize("name", MINI)
def test_queries_and_cells_do_not_collapse(name):
    """A network at its start answers differently in different cells and for different images, and every part of it learns."""
    recipe = small(name)
    model, batch = build(recipe).train(), contract.make_batch(contract.small(name), count=2)
    outputs = model(batch)
    logits = outputs["map_logits"]
    assert logits[0].std() > 1e-3
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    bev = outputs["bev"].flatten(2)
    assert (bev.std(2) > 1e-4).float().mean() > 0.3, "channels that are the same everywhere say nothing"


@pytest.mark.parametrize("name", MINI)
def test_hidden_labels_have_no_gradient(name):
    recipe = small(name)
    model, batch = build(recipe).train(), contract.make_batch(contract.small(name), count=2)
    truth = batch.need(MapLabels)
    hidden = MapTruth(
        truth.classes, torch.zeros_like(truth.counts), torch.zeros_like(truth.instances), [c[:0] for c in truth.centres], truth.references,
        torch.zeros(2, dtype=torch.bool),
    )  # fmt: skip
    loss = recipe.model.loss.model_copy(update={"learned_weights": False})
    losses = map_losses(model(batch), batch.with_labels({MapLabels: hidden}), loss, {})
    assert all(float(value.detach()) == 0 for value in losses.values())


def test_classes_begin_at_how_frequent_they_are():
    head = map_head(8, 2 * 4)
    start_at_share(head, {MapLabels: {"share": np.array([0.02, 0.5])}}, 2.13)
    probability = torch.nn.functional.pixel_shuffle(head[-1].bias[None, :, None, None], 2).sigmoid()[0]
    for share, found in zip((0.02, 0.5), probability, strict=True):
        odds = 2.13 * share / (1 - share)
        torch.testing.assert_close(found, torch.full((2, 2), odds / (1 + odds)))


def test_shares_are_counted_where_cells_count(street_root):
    recipe = overrides.apply(get_recipe("simplebev-mini"), [f"data.root={street_root}"])
    source = recipe.data.open()
    labels = MapLabels(("vehicle", "drivable_area"), "pointbev")
    share = labels.statistics(source, source.tokens("train"))["share"]
    assert 0.001 < share[0] < 0.2 < share[1] < 0.8


def test_what_does_not_fit_together_is_named():
    with pytest.raises(ConfigError, match=r"labels of maps have 200 x 200 cells of 0.5 m .* map has 100 x 100.* times model.fine \(1\)"):
        small("simplebev-mini", "model.fine=1", 'model.grid={"cell": [1, 1, 5]}').model.learns_from()
    with pytest.raises(ConfigError, match=r"drivable_area has no objects. Put vehicle first .* or set model.loss.instances=false"):
        BevFormerSegConfig(maps=Maps(class_names=("drivable_area", "vehicle"))).learns_from()
    with pytest.raises(
        ValidationError, match=r"lane: roads are flat and rule 'simplebev' is the frame of a camera; set model.maps.rule=lss"
    ):
        Maps(class_names=("vehicle", "lane"), rule="simplebev")
    with pytest.raises(ValidationError, match="class names must differ, got vehicle, vehicle"):
        Maps(class_names=("vehicle", "vehicle"))
    with pytest.raises(ValidationError, match="Lift-Splat pools around the vehicle, but rule 'simplebev'"):
        LssSegConfig(maps=Maps(rule="simplebev"))
    with pytest.raises(ValidationError, match="128 channels do not divide into 3 heads"):
        BevFormerSegConfig(heads=3)
    with pytest.raises(ValidationError, match=r"9 places of a query do not divide among 8 heights; set model.places to a multiple"):
        BevFormerSegConfig(places=9)
    roads = LssSegConfig(maps=Maps(class_names=("drivable_area",)))
    assert roads.learns_from()[0].layers == ("drivable_area",)


def test_several_classes_and_a_feature_head():
    config = SimpleBevConfig(
        encoder="efficientnet_lite0", channels=8, map_channels=(8, 8, 8), fine=5, feature_head=True,
        maps=Maps(class_names=("vehicle", "lane")),
        grid={"lower": (-50, -50, -4), "upper": (50, 50, 6), "cell": (2.5, 2.5, 5)}, loss=MapLoss(),
    )  # fmt: skip
    model, batch = config.build().eval(), contract.make_batch(contract.small("simplebev-mini"), count=1)
    with torch.no_grad():
        outputs = model(batch)
    assert outputs["map_logits"].shape == (1, 2, 200, 200)
    assert outputs["features"].shape == outputs["bev"].shape == (1, 8, 40, 40)
    assert not any(p.requires_grad for p in model.decoder.feat_head.parameters())
    (prediction,) = model.predict(outputs, batch)
    assert prediction.bev_map.grid.cell[:2] == (0.5, 0.5)
    assert (prediction.bev_map.class_names, prediction.bev_map.rule) == (("vehicle", "lane"), "lss")
