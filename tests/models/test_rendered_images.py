"""What GSRender and RenderOcc predict of their images: a wall, where it stands and with its class, wherever the pixels come from."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.engine import overrides
from frustum.recipes.finding import get_recipe
from frustum.types.classes import IGNORE
from frustum.types.predictions import PredictedViews
from tests.models.test_contract import make_batch
from tests.models.test_gsrender import SMALL

WALL, CLASS = 8.0, 3  # metres ahead, and what it is
SAMPLES = ("model.loss.window_share=0", "model.loss.free_weight=0", "model.loss.depth=silog")
NETWORKS = {
    "splat": ("gsrender-mini",),
    "traversal": ("renderocc-mini",),
    "march": ("renderocc-mini", *SAMPLES, "model.renderer=march", "model.step=0.1"),
    "reference": ("renderocc-mini", *SAMPLES, "model.renderer=reference", "model.threshold=8.5"),
}
GRID = 'model.trunk.flashocc_tiny.grid={"lower": [-16, -16, -1], "upper": [16, 16, 5.4], "cell": [0.4, 0.4, 0.8]}'
ERROR = {"splat": 0.6, "traversal": 0.02, "march": 0.25, "reference": 0.02}
"""Metres: Gaussians of a voxel reach out of it, and the field between samples is linear."""


def wall_of(name: str, *words: str):
    """A network, a batch of two samples with two cameras (ahead, back), and outputs that say: all from 8 m ahead is opaque."""
    recipe_name, *own = NETWORKS[name]
    recipe = overrides.apply(get_recipe(recipe_name), [*SMALL[recipe_name], "data.image_size=64,96", GRID, *own, *words])
    model, batch = recipe.model.build().eval(), make_batch(recipe)
    first = round((WALL - model.grid.lower[0]) / model.grid.cell[0])
    before = 6 if name == "splat" else 0  # shifts of mean and scale stand in front of the opacity
    numbers = torch.zeros(2, *model.grid.shape, before + 1 + 17)
    numbers[..., before] = -50.0
    numbers[:, first:, ..., before] = 50.0
    numbers[..., before + 1 + CLASS] = 5.0
    return model, batch, {"numbers": numbers}


def on_the_wall(views: PredictedViews) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth (N, H, W) of the plane 8 m ahead at the middle of each pixel, by the matrices of the views; whether the wall is there."""
    v, u = torch.meshgrid(*(torch.arange(n) + 0.5 for n in views.labels.shape[1:]), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1)
    rays = torch.einsum("nij,hwj->nhwi", torch.linalg.inv(views.intrinsics), pixels)
    ways = torch.einsum("nij,nhwj->nhwi", views.cam2ego[:, :3, :3], rays)
    starts = views.cam2ego[:, None, None, :3, 3]
    depth = (WALL - starts[..., 0]) / ways[..., 0]
    places, grid = (starts + depth[..., None] * ways)[..., 1:], views.grid
    lower, upper = (torch.tensor(end[1:]) for end in (grid.lower, grid.upper))
    return depth, (depth > 0) & ((places > lower + 1) & (places < upper - 1)).all(-1)


def is_near(views: PredictedViews, error: float) -> bool:
    """Whether the camera that looks ahead sees the wall, all at its depth, and the other one nothing."""
    seen, (expected, inside) = views.labels[0] != IGNORE, (x[0] for x in on_the_wall(views))
    assert inside.float().mean() > 0.2
    assert seen[inside].all()
    assert (views.labels[0][seen] == CLASS).all()
    assert (views.labels[1] == IGNORE).all()
    assert not views.depth[1].any()
    return bool(((views.depth[0] - expected).abs()[inside] < error).all())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wall_is_seen_where_it_stands(name):
    model, batch, outputs = wall_of(name, "model.shown_width=48")
    predictions = model.predict(outputs, batch)
    assert [p.token for p in predictions] == batch.tokens
    for prediction in predictions:
        assert prediction.views.labels.shape == (2, 32, 48)
        assert is_near(prediction.views, ERROR[name])
    assert predictions[0].occupancy is not None


@pytest.mark.parametrize("name", ["splat", "traversal"])
def test_pixels_may_come_from_anywhere_in_the_photograph(name):
    """Of an image that was enlarged, turned and mirrored about its middle, views are those of its pixels."""
    model, batch, outputs = wall_of(name, "model.shown_width=48")
    turn = 2 * torch.tensor([[-math.cos(0.2), math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]])
    middle = torch.tensor([48.0, 32.0])
    change = torch.eye(3)
    change[:2, :2], change[:2, 2] = turn, middle - turn @ middle
    rig = replace(batch.rig, image_aug=change.to(batch.rig.image_aug) @ batch.rig.image_aug)
    views = model.predict(outputs, replace(batch, calibration=rig))[1].views
    assert is_near(views, ERROR[name])


@pytest.mark.parametrize(("size", "width", "shown"), [("64,96", 400, 48), ("96,256", 400, 128), ("96,256", 100, 64), ("64,160", 150, 75)])
def test_the_last_row_and_column_are_seen(size, width, shown):
    """Of an opaque world, all pixels are, whatever the sizes round to, and each sample as if it were alone."""
    recipe = overrides.apply(get_recipe("gsrender-mini"), [*SMALL["gsrender-mini"], f"data.image_size={size}", GRID])
    recipe = overrides.apply(recipe, [f"model.width={width}", f"model.shown_width={shown}"])
    model, batch = recipe.model.build().eval(), make_batch(recipe)
    numbers = torch.zeros(2, *model.grid.shape, 7 + 17)
    numbers[..., 6] = 50.0
    both = [p.views for p in model.predict({"numbers": numbers}, batch)]
    assert all((views.labels != IGNORE).all() for views in both)
    rig = batch.rig
    small = replace(rig, image_aug=torch.cat([rig.image_aug[:1], rig.image_aug[1:] * torch.tensor([2.0, 2.0, 1.0])[:, None]]))
    beside = model.predict({"numbers": numbers}, replace(batch, calibration=small))[0].views
    torch.testing.assert_close(beside.depth, both[0].depth, rtol=1e-3, atol=1e-3)


def test_views_of_half_precision_networks_are_exact():
    """Cameras and rays are never rounded to bfloat16."""
    for name in ("splat", "traversal"):
        model, batch, outputs = wall_of(name, "model.shown_width=48")
        exact = model.predict(outputs, batch)[0].views
        with torch.autocast("cpu", torch.bfloat16):
            half = model.predict(outputs, batch)[0].views
        assert torch.equal(half.labels, exact.labels)
        torch.testing.assert_close(half.depth, exact.depth)


def test_none_are_made_if_none_are_wanted():
    model, batch, outputs = wall_of("traversal", "model.shown_width=0")
    assert [p.views for p in model.predict(outputs, batch)] == [None, None]


def test_only_the_gaussians_of_the_training_are_shown():
    """`head.most` leaves the faintest out, here and there."""
    model, batch, outputs = wall_of("splat", "model.shown_width=48", "model.head.most=100")
    outputs["numbers"][:, :, 0, 0, 6] = 60.0  # far to the right, beyond what the cameras show
    assert (model.predict(outputs, batch)[0].views.labels == IGNORE).float().mean() > 0.9
    assert np.isfinite(model.predict(outputs, batch)[0].views.depth.numpy()).all()
