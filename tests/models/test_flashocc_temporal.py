"""The networks over time at small size: batches from the street world, training steps, the order of maps, one and many frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth
from frustum.engine import overrides
from frustum.engine.feed import evaluation_batches
from frustum.models.panoptic_flashocc import PanopticFlashOcc, PanopticFlashOccConfig
from frustum.nn.bev import FpnLss
from frustum.nn.depth_net import camera_vector
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.temporal import stream
from frustum.recipes.finding import get_recipe
from frustum.types.frame import keyframe_of
from tests.models.moving import GRID, SIZES, Drive, farthest, lively, over_time


def _recipe(root, **settings):
    small = ["model.resnet=18", "model.neck_channels=16", "model.lift_channels=8", "model.bev_channels=8", "data.image_size=32,96"]
    world = [f"data.root={root}", "data.channel_order=rgb", "train.num_workers=0"]
    return overrides.apply(get_recipe("panoptic-flashocc-depth4d"), small + world + [f"{k}={v}" for k, v in settings.items()])


def test_a_stream_of_the_world_equals_its_temporal_batches(street_root):
    """Whole scenes through the loader: cameras with their own times and poses, scene starts, and the maps' frame at the LiDAR's time."""
    recipe = _recipe(street_root, **{"model.history.frames": 2, "model.instances": "null"})
    database = recipe.data.open()
    tokens = database.tokens("all")
    model = lively(recipe.model.build())
    temporal = list(evaluation_batches(recipe, database, tokens, labels=False))
    assert [b.is_present[0].tolist() for b in temporal[:4]] == [
        [True, False, False], [True, True, False], [True, True, True], [True, False, False],
    ]  # fmt: skip
    assert temporal[2].images.shape[1] == 3
    alone = overrides.apply(recipe, ["model.history.frames=0"])
    single = list(evaluation_batches(alone, database, tokens, labels=False))
    assert single[0].images.shape[1] == 1
    with torch.no_grad():
        full = [model(batch) for batch in temporal]
    for number, (outputs, wanted) in enumerate(zip(stream(model, single), full, strict=True)):
        assert farthest(outputs, wanted) < 2e-3, number
    with torch.no_grad():
        assert farthest(model(single[2]), full[2]) > 0.02


def test_a_training_step_over_time():
    torch.manual_seed(0)
    model = PanopticFlashOccConfig(**SIZES, history={"frames": 2}, instances=None, depth_loss=0.0).build().train()
    semantics = torch.randint(0, 18, (2, *GRID.shape), dtype=torch.uint8)
    truth = OccupancyTruth.from_arrays(semantics, torch.ones(2, *GRID.shape, dtype=torch.bool))
    batch = Drive().batch(4, 2, labels={OccupancyLabels: truth})
    before = model.img_backbone.bn1.num_batches_tracked.item()
    losses = model.loss(model(batch), batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None for p in model.parameters())
    assert model.img_backbone.bn1.num_batches_tracked.item() == before + 3  # every frame passes by itself


def test_the_keyframe_comes_first_among_the_maps():
    model, drive, joined = over_time(2), Drive(), []
    model.img_bev_encoder_backbone.register_forward_pre_hook(lambda _, given: joined.append(given[0]))
    with torch.no_grad():
        outputs = model(drive.batch(4, 2))
        own = model.pre_process_net(outputs["pooled"])[0]
    torch.testing.assert_close(joined[0][:, :8], own)
    assert joined[0].shape[1] == 3 * 8


def _shifted(past: torch.Tensor, now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """BEVDet's warp (B, C, Y, X), cell by cell; `now` and `then` (B, 4, 4): first camera to the keyframe's augmented ego frame."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in past.shape[-2:]), indexing="ij")
    low, cell = torch.tensor(GRID.lower[:2], dtype=torch.float64), torch.tensor(GRID.cell[:2], dtype=torch.float64)
    place = torch.stack([columns, rows], -1) * cell + low  # corners of the cells
    move = now @ torch.linalg.inv(then)
    there = place @ move[:, None, :2, :2].mT + move[:, None, None, :2, 3]
    lookup = (there - low) / cell / torch.tensor([past.shape[-1] - 1.0, past.shape[-2] - 1.0]) * 2 - 1
    return torch.nn.functional.grid_sample(past, lookup.float(), align_corners=True)


@pytest.mark.parametrize("flip", [(1.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("spread", [0.0, 0.04])
def test_the_reference_warp_against_its_formula(flip, spread):
    """Every frame is encoded and lifted with the keyframe's camera poses, prepared, and its map warped, as in the published code."""
    config = PanopticFlashOccConfig(**SIZES, history={"frames": 3, "align": "warp_reference"}, voxel_rounding="reference")
    model, batch = lively(config.build()), Drive(spread=spread).batch(4, 3, bev_aug=np.diag([*flip, 1.0]))
    augment, key = batch.bev_aug.double(), batch.rig.ego2global[:, 0, 0]
    camera2key = torch.linalg.inv(key)[:, None, None] @ batch.rig.ego2global @ batch.rig.cam2ego  # (B, T, N, 4, 4)
    here = torch.eye(4, dtype=torch.float64).expand(2, 2, 4, 4)
    maps = []
    with torch.no_grad():
        outputs = model(batch)
        for t in range(4):
            rig = replace(batch.rig[:, t], cam2ego=camera2key[:, 0], ego2global=here)
            features = model.img_neck(model.img_backbone(batch.images[:, t].flatten(0, 1)))
            frame = keyframe_of(batch)._replace(rig=rig, ego2global=here[:, 0])
            lifted = model.img_view_transformer.depth_net(features, camera_vector(frame, camera2key[:, 0]))
            pooled, _ = model.img_view_transformer.splat.lift(lifted, frame)
            own = model.pre_process_net(pooled)[0]
            maps.append(_shifted(own, augment @ camera2key[:, 0, 0], augment @ camera2key[:, t, 0]) if t else own)
        wanted = model.heads(torch.cat(maps, 1))
    for name in ("bev", "occ_logits", "heatmap"):
        torch.testing.assert_close(outputs[name], wanted[name], rtol=1e-4, atol=1e-4)
    assert (maps[3] - own).abs().max() > 0.05


def test_outputs_are_documented():
    with torch.no_grad():
        outputs = over_time(1)(Drive().batch(1, 1))
    assert all(f"{name}:" in PanopticFlashOcc.__doc__ for name in outputs)


@pytest.mark.parametrize("doubles", [True, False])
def test_the_neck_with_and_without_doubling(doubles):
    neck = FpnLss(6 + 10, 8, doubles=doubles)
    out = neck([torch.randn(2, 6, 4, 6), torch.randn(2, 10, 2, 3)])
    assert out.shape == (2, 8, 8, 12) if doubles else (2, 8, 4, 6)
    assert neck.conv[0].out_channels == (16 if doubles else 8)


def test_an_encoder_stops_where_nothing_more_is_wanted(monkeypatch):
    encoder = ResNet(18, outputs=(1, 3, 4)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = encoder(images)
        monkeypatch.setattr(encoder.layer2, "forward", lambda _: pytest.fail("layer 2 is not needed"))
        torch.testing.assert_close(encoder(images, outputs=(1,)), whole[:1])
