"""BEVDetOCC: published size and names, pooling into voxels, and that the small baseline differs in the occupancy part alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.models.bevdet_occ import BevDetOccConfig
from frustum.models.bevdet_occ_tiny import BevDetOccTinyConfig, doubled
from frustum.models.flashocc_tiny import FlashOccTinyConfig
from frustum.nn.voxel import as_voxels
from frustum.ops.bev_pool import bev_pool
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.types.frame import keyframe_of
from tests.models import golden_weights as gold
from tests.models.small import RESNET, TRUNK

SMALL = {"bevdet-occ-r50": RESNET, "bevdet-occ-tiny": TRUNK}
GRID = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 5.4), cell=(2, 2, 0.8))


def small(**changes) -> BevDetOccConfig:
    return BevDetOccConfig(**{"resnet": 18, "neck_channels": 16, "lift_channels": 8, "bev_channels": 8, "grid": GRID, **changes})


def batch_of(height: int = 64, width: int = 96, with_depth: bool = False) -> Batch:
    rig = gold.rig()
    rig["image_aug"] = np.tile(np.diag([width / 1600, width / 1600, 1.0]), (6, 1, 1))
    draw = torch.Generator().manual_seed(0)
    semantics = torch.randint(0, 18, GRID.shape, dtype=torch.uint8, generator=draw)
    labels = {OccupancyLabels: OccupancyTruth.from_arrays(semantics, torch.rand(GRID.shape, generator=draw) < 0.5)}
    if with_depth:
        labels[DepthLabels] = 10 + torch.rand(1, 6, height, width)
    return Batch.from_arrays(torch.randn(6, 3, height, width, generator=draw), **rig, labels=labels)


def bare(batch: Batch) -> Batch:
    """The batch without labels."""
    return replace(batch, labels={})


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    return get_recipe("bevdet-occ-r50").model.build()


def test_published_size(published):
    """Parameters in millions, of all and of each part, as counted in the reference implementation."""
    parts = {"img_backbone": 23.508, "img_neck": 1.377, "img_view_transformer": 0.031}
    parts |= {"img_bev_encoder_backbone": 4.067, "img_bev_encoder_neck": 0.007, "occ_head": 0.031}
    found = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in published.named_children()}
    assert {name: round(value, 3) for name, value in found.items()} == parts
    assert round(sum(found.values()), 4) == 29.0215


def test_published_shapes(published):
    """Voxels of 0.4 m, 88 depths; the stages of the 3D network for a crop of the grid."""
    config = published.config
    assert config.grid.shape == (200, 200, 16)
    assert config.depth_bins.count == 88
    assert published.img_view_transformer.splat.grid == config.grid
    stages = published.img_bev_encoder_backbone.eval()(torch.zeros(1, 32, 16, 8, 12))
    assert [tuple(s.shape) for s in stages] == [(1, 32, 16, 8, 12), (1, 64, 8, 4, 6), (1, 128, 4, 2, 3)]
    voxels = published.img_bev_encoder_neck.eval()(stages)
    assert voxels.shape == (1, 32, 16, 8, 12)
    assert published.occ_head(voxels).shape == (1, 12, 8, 16, 18)


def test_upstream_key_names(published):
    keys = set(published.state_dict())
    for layer in ("layers.0.0", "layers.1.1", "layers.2.3"):
        for conv in ("conv1", "conv2"):
            assert f"img_bev_encoder_backbone.{layer}.{conv}.conv.weight" in keys
            assert f"img_bev_encoder_backbone.{layer}.{conv}.bn.running_var" in keys
    for key in ("downsample.conv.weight", "downsample.bn.weight"):
        assert f"img_bev_encoder_backbone.layers.2.0.{key}" in keys
        assert f"img_bev_encoder_backbone.layers.2.1.{key}" not in keys
    assert {"img_bev_encoder_neck.conv.conv.weight", "img_bev_encoder_neck.conv.bn.bias"} <= keys
    assert {"occ_head.final_conv.conv.bias", "occ_head.predicter.0.weight", "occ_head.predicter.2.bias"} <= keys
    assert published.state_dict()["img_view_transformer.depth_net.weight"].shape == (88 + 32, 256, 1, 1)


def test_pooling_into_voxels_is_a_plain_scatter():
    """`pooled`, taken apart, against a loop over the points; features that fall outside the grid are lost."""
    torch.manual_seed(0)
    model = small(lift_channels=3).build().eval()
    batch = batch_of()
    with torch.no_grad():
        outputs = model(batch)
        lifted = model.img_view_transformer.depth_net(outputs["image_features"])
    depth, context = outputs["depth"], lifted[:, model.config.depth_bins.count :]
    splat = model.img_view_transformer.splat
    points = splat.points(keyframe_of(batch), tuple(context.shape[-2:]))[0]  # (N, D, h, w, 3)
    index, inside = GRID.indices(points)
    volume = np.zeros((8, 16, 16, 3))  # Z, Y, X, C
    weighted = (depth[..., None] * context.permute(0, 2, 3, 1)[:, None]).double().numpy()  # (N, D, h, w, C)
    kept = inside.numpy()
    x, y, z = index.numpy()[kept].T
    np.add.at(volume, (z, y, x), weighted[kept])
    voxels = as_voxels(outputs["pooled"], 8)[0].permute(1, 2, 3, 0)
    np.testing.assert_allclose(voxels.numpy(), volume, rtol=1e-4, atol=1e-5)
    assert 0 < kept.mean() < 1
    assert (np.abs(volume).sum((1, 2, 3)) > 0).sum() > 3, "more than three heights are filled"


def test_as_voxels_undoes_what_the_splat_joins():
    torch.manual_seed(0)
    splat = small().build().img_view_transformer.splat
    batch = batch_of()
    plan = splat.plan(keyframe_of(batch), (4, 6))
    depth, features = torch.rand(*plan.frustum), torch.randn(6, 5, 4, 6)
    pooled = splat(depth, features, plan)
    assert torch.equal(as_voxels(pooled, 8), bev_pool(depth, features, plan))
    assert as_voxels(pooled, 8).data_ptr() == pooled.data_ptr()


def test_published_rounding_pools_points_below_the_ground():
    """Rounded towards zero, points up to one voxel below the grid join its lowest layer."""
    plans = {}
    for rounding in ("floor", "reference"):
        splat = small(voxel_rounding=rounding).build().img_view_transformer.splat
        batch = batch_of()
        plan = splat.plan(keyframe_of(batch), (4, 6))
        plans[rounding] = torch.bincount(plan.kept_cells % plan.shape[2], minlength=plan.shape[2])  # z counts fastest
    assert plans["reference"][0] > plans["floor"][0]
    assert plans["reference"].sum() > plans["floor"].sum()


def test_loss_and_labels():
    torch.manual_seed(0)
    model = small(depth_loss=0.5).build().eval()
    batch = batch_of(with_depth=True)
    outputs, truth = model(batch), batch.need(OccupancyLabels)
    losses = model.loss(outputs, batch)
    rows, ids = outputs["occ_logits"][truth.mask_camera], truth.semantics[truth.mask_camera].long()
    assert losses["occupancy"].item() == pytest.approx(torch.nn.functional.cross_entropy(rows, ids).item(), rel=1e-5)
    assert losses["depth"] > 0
    with pytest.raises(DataError, match="occupancy labels"):
        model.loss(outputs, bare(batch))


def test_the_small_baseline_differs_in_the_occupancy_part_alone():
    flat, solid = get_recipe("flashocc-tiny"), get_recipe("bevdet-occ-tiny")
    apart = {"name", "model"}
    assert flat.model_dump(exclude=apart) == solid.model_dump(exclude=apart)
    apart = {"bev_channels", "voxel_channels"}
    assert flat.model.model_dump(exclude=apart) == solid.model.model_dump(exclude=apart)
    small_sizes = {"pretrained": False, "neck_channels": 16, "lift_channels": 4, "bev_channels": 8, "voxel_channels": 4, "grid": GRID}
    models = []
    for config in (FlashOccTinyConfig(**small_sizes), BevDetOccTinyConfig(**small_sizes)):
        torch.manual_seed(5)
        models.append(config.build().eval())
    shared = set(models[0].state_dict()) & set(models[1].state_dict()) - {"refine.weight", "refine.bias", "head.weight", "head.bias"}
    assert {key.partition(".")[0] for key in shared} == {"trunk", "class_weight"}
    for key in shared:  # the same seed even gives both the same start
        assert torch.equal(models[0].state_dict()[key], models[1].state_dict()[key]), key
    batch = batch_of()
    with torch.no_grad():
        one, other = (model(batch) for model in models)
    assert torch.equal(one["depth"], other["depth"])
    assert one["occ_logits"].shape == other["occ_logits"].shape


def test_voxel_shuffle_puts_every_part_where_it_belongs():
    x = torch.randn(1, 16, 4, 8, 8)  # 8 * c, Z / 2, Y / 2, X / 2
    found = doubled(x)
    assert found.shape == (1, 16, 16, 8, 2)
    for y, x_, z in ((0, 0, 0), (3, 5, 1), (8, 1, 6), (15, 14, 7)):
        part = (z % 2) * 4 + (y % 2) * 2 + x_ % 2
        assert torch.equal(found[0, y, x_, z], x[0, 2 * part : 2 * part + 2, z // 2, y // 2, x_ // 2])


def test_training_answers_for_the_drawn_columns_what_evaluation_answers_for_all():
    torch.manual_seed(0)
    model = BevDetOccTinyConfig(pretrained=False, grid=GRID, neck_channels=16, lift_channels=4, bev_channels=8, voxel_channels=4).build()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # statistics stay, so that both modes can be compared
    batch = batch_of(with_depth=True)
    model.train()
    drawn = model(batch)
    with torch.no_grad():
        everything = model(bare(batch))["occ_logits"]  # (B, X, Y, Z, K)
    rows = everything.transpose(1, 2).flatten(0, 2)[drawn["columns"]]
    torch.testing.assert_close(drawn["column_logits"], rows, rtol=1e-3, atol=1e-4)
    losses = model.loss(drawn, batch)
    assert set(losses) == {"occupancy", "occupied_iou", "standing_iou", "depth"}
