"""FlashOCC against the outputs of its reference implementation, and what its two voxel roundings mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import frustum
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.losses.occupancy import occupancy_losses
from frustum.models.flashocc import FlashOccConfig
from frustum.models.flashocc_tiny import column_losses, voxel_outputs
from frustum.types.batch import Batch
from frustum.types.frame import keyframe_of
from frustum.weights.conversion import convert
from tests.models import golden_weights as gold
from tests.models.small import RESNET, TRUNK

SMALL = {"flashocc-r50-m0": RESNET, "flashocc-r50": RESNET, "flashocc-tiny": TRUNK, "flashocc-tiny-kitti": TRUNK}
_STAGES = {"image_features": "neck", "depth": "depth_0", "pooled": "bev_0", "bev": "bev_enc", "occ_logits": "occ_logits"}


def _parity(shared, fixture: str, recipe: str, tmp_path: Path) -> None:
    """The whole path of official weights: upstream file -> convert -> load -> forward -> predict."""
    folder = gold.golden(shared, fixture)
    shapes, meta = (json.loads((folder / f"{name}.json").read_text()) for name in ("keys", "meta"))
    upstream, converted = tmp_path / "epoch_24_ema.pth", tmp_path / "converted.safetensors"
    torch.save({"epoch": 24, "state_dict": gold.state_dict(shapes), "updates": 180_000}, upstream)
    assert convert(upstream, converted, source="flashocc").recipe == recipe
    model = frustum.load(recipe, converted)
    upstream.unlink()  # 160 MB each, which pytest would keep
    converted.unlink()
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == shapes
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(meta["params_M"])
    batch = gold.batch()
    with torch.inference_mode():
        outputs = model(batch)
    stored = np.load(folder / "outputs.npz")
    for ours, theirs in _STAGES.items():
        assert list(outputs[ours].shape) == meta["stats"][theirs]["shape"], ours
        found = gold.strided(outputs[ours], meta["stats"][theirs]["slice"])
        np.testing.assert_allclose(found, stored[theirs], atol=1e-3 if ours == "occ_logits" else 1e-4, rtol=0, err_msg=ours)
    prediction = model.predict(outputs, batch)[0]
    assert prediction.occupancy.semantics.dtype == torch.uint8
    assert (prediction.occupancy.semantics.numpy() == stored["occ_argmax"]).mean() >= 0.999
    splat = model.img_view_transformer.splat
    kept = splat.plan(keyframe_of(batch), (16, 44)).kept_cells
    assert len(kept) == meta["geom"]["points_kept"]
    counts = torch.bincount(kept, minlength=stored["points_per_cell"].size).view(stored["points_per_cell"].shape)
    np.testing.assert_array_equal(counts.numpy(), stored["points_per_cell"])


def test_m0_equals_the_reference(shared, tmp_path):
    _parity(shared, "m0", "flashocc-r50-m0", tmp_path)


@pytest.mark.slow
def test_m1_equals_the_reference(shared, tmp_path):
    _parity(shared, "m1", "flashocc-r50", tmp_path)


def test_golden_weights_follow_the_rule(shared):
    meta = json.loads((gold.golden(shared, "m0") / "meta.json").read_text())
    shapes = json.loads((gold.golden(shared, "m0") / "keys.json").read_text())
    for key, total in meta["weight_checks_sum"].items():
        assert gold.weight(key, tuple(shapes[key])).double().sum().item() == pytest.approx(total, abs=1e-9)
    stored = np.load(gold.golden(shared, "m0") / "calib.npz")
    np.testing.assert_array_equal(gold.rig()["cam2ego"], stored["sensor2ego"][0])


@pytest.mark.parametrize(("rounding", "kept"), [("reference", 152_123), ("floor", 99_012)])
def test_points_that_each_rounding_keeps(rounding, kept):
    """185,856 points; truncation towards zero also pools those down to z = -7.4 m (counts of the published rig)."""
    model = FlashOccConfig(resnet=18, voxel_rounding=rounding).build()
    batch = gold.batch()
    plan = model.img_view_transformer.splat.plan(keyframe_of(batch), (16, 44))
    assert len(plan.order) == kept


def _tiny_config(**changes) -> FlashOccConfig:
    grid = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 5.4), cell=(2, 2, 1.6))
    return FlashOccConfig(**{"resnet": 18, "neck_channels": 16, "lift_channels": 8, "bev_channels": 8, "grid": grid, **changes})


def _tiny_batch(*leave_out: type) -> Batch:
    rig = gold.rig()
    rig["image_aug"] = np.tile(np.diag([64 / 1600, 64 / 1600, 1.0]), (6, 1, 1))
    semantics = torch.randint(0, 18, (1, 16, 16, 4), dtype=torch.uint8)
    truth = OccupancyTruth.from_arrays(semantics, torch.rand(1, 16, 16, 4) < 0.5)
    labels = {OccupancyLabels: truth, DepthLabels: 10 + torch.rand(1, 6, 32, 64) * 30}
    labels = {kind: value for kind, value in labels.items() if kind not in leave_out}
    return Batch.from_arrays(torch.randn(6, 3, 32, 64), **rig, labels=labels)


def test_bev_augmentation_mirrors_the_pooled_map():
    """A flip of x maps cell i to cell X - 1 - i, exactly, as no point lies on a cell's border."""
    torch.manual_seed(0)
    model = _tiny_config().build().eval()
    batch = _tiny_batch()
    mirrored = Batch.from_arrays(
        batch.images[:, 0], batch.rig.intrinsics[:, 0], batch.rig.cam2ego[:, 0], batch.rig.ego2global[:, 0], batch.rig.image_aug[:, 0],
        bev_aug=np.diag([-1.0, 1.0, 1.0]),
    )  # fmt: skip
    with torch.no_grad():
        plain, flipped = model(batch)["pooled"], model(mirrored)["pooled"]
    torch.testing.assert_close(flipped, plain.flip(3))
    assert plain.abs().sum() > 0


def test_camera_mask_and_class_balance_change_the_loss():
    batch = _tiny_batch()
    truth = batch.need(OccupancyLabels)
    for changes in ({}, {"camera_mask": False}, {"class_balance": True}):
        torch.manual_seed(0)
        model = _tiny_config(**changes).build().eval()
        outputs = model(batch)
        mask = truth.mask_camera if changes.get("camera_mask", True) else torch.ones_like(truth.mask_camera)
        rows, ids = outputs["occ_logits"][mask], truth.semantics[mask].long()
        expected = torch.nn.functional.cross_entropy(rows, ids, model.class_weight)
        assert model.loss(outputs, batch)["occupancy"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert "class_weight" not in model.state_dict()


def test_depth_supervision_is_weighted():
    batch = _tiny_batch()
    torch.manual_seed(0)
    model = _tiny_config(depth_loss=0.05).build().eval()
    outputs = model(batch)
    depth = model.loss(outputs, batch)["depth"]
    outputs["depth"] = torch.nn.functional.one_hot(torch.zeros(6, 2, 4, dtype=torch.long), 44).permute(0, 3, 1, 2).float()
    assert 0 < depth < model.loss(outputs, batch)["depth"]


def test_drawn_columns_and_the_whole_volume_are_read_alike():
    """Labels are (X, Y, Z), cells (Y, X): with all columns drawn, the loss is that of the whole volume."""
    names = ("car", "driveable_surface", "free")
    labels, mask = torch.randint(0, 3, (2, 5, 4, 3)).to(torch.uint8), torch.ones(2, 5, 4, 3, dtype=torch.bool)
    truth, cells, last = OccupancyTruth(labels, mask, mask), torch.randn(2, 4, 5, 6), torch.nn.Linear(6, 3 * 3)
    batch = Batch.of_images(torch.zeros(2, 3, 8, 8)).with_labels({OccupancyLabels: truth})

    def read(features: torch.Tensor) -> torch.Tensor:
        return last(features).unflatten(-1, (3, 3))

    outputs, whole = (voxel_outputs(cells, read, given, 1000, free=2) for given in (truth, None))
    assert outputs["column_logits"].shape == (40, 3, 3)
    assert torch.equal(whole["occ_logits"], read(cells).transpose(1, 2))
    weight = torch.tensor([2.0, 1.0, 0.5])
    some, every = (column_losses(out, batch, weight, names, 0.5, 2.0) for out in (outputs, whole))
    assert list(some) == ["occupancy", "occupied_iou", "standing_iou"]
    for name, value in every.items():
        torch.testing.assert_close(some[name], value)
    rows = whole["occ_logits"].transpose(1, 2).flatten(0, 2)
    columns = labels.transpose(1, 2).flatten(0, 2)
    plain = occupancy_losses(rows, columns, torch.ones_like(columns, dtype=torch.bool), weight, 2, flat=(1,))
    for value, wanted in zip(every.values(), (plain[0], 0.5 * plain[1], 2.0 * plain[2]), strict=True):
        assert torch.equal(value, wanted)


def test_missing_labels_are_named():
    model = _tiny_config(depth_loss=1.0).build()
    assert [type(label) for label in model.config.learns_from()] == [OccupancyLabels, DepthLabels]
    batch = _tiny_batch(OccupancyLabels)
    with pytest.raises(DataError, match=r"loss needs occupancy labels in the batch, but there are none.*gts/ files"):
        model.loss(model(batch), batch)
    batch = _tiny_batch(DepthLabels)
    with pytest.raises(DataError, match=r"loss needs depth maps in the batch, but there are none.*with LiDAR"):
        model.loss(model(batch), batch)
    free = _tiny_config(depth_loss=0.0)
    assert free.learns_from() == (OccupancyLabels(free.grid),)


def test_a_frequency_table_of_other_classes_is_refused():
    with pytest.raises(ValidationError, match=r"Occ3D's 18 classes; set model\.class_balance=false"):
        _tiny_config(class_names=("car", "free"), class_balance=True)
    assert _tiny_config(class_names=("car", "free")).learns_from()[0].class_names == ("car", "free")


def test_the_encoder_is_a_group_of_its_own():
    model = _tiny_config().build()
    groups = model.parameter_groups()
    assert list(groups) == ["encoder"]
    assert [id(p) for p in groups["encoder"]] == [id(p) for p in model.img_backbone.parameters()]
