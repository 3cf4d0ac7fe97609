"""Panoptic-FlashOcc against the outputs of its reference implementation, its label maps, and the small network."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import frustum
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.losses.volume import focal_loss
from frustum.metrics.panoptic_quality import OCC3D_THINGS
from frustum.models.bevdet_occ import BevDetOccConfig
from frustum.models.flashocc_tiny import FlashOccTinyConfig
from frustum.models.panoptic_flashocc import InstanceConfig, PanopticFlashOccConfig, panoptic_predictions, served_classes
from frustum.models.panoptic_flashocc_mini import PanopticFlashOccMiniConfig
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, OBJECT_CLASSES, OCC3D_CLASSES
from frustum.types.predictions import PanopticOccupancy, Prediction
from tests.models import golden_panoptic as crafted
from tests.models import golden_weights as gold

_STAGES = {
    "image_features": "neck", "depth": "depth_0", "pooled": "bev_0", "bev": "bev_enc", "occ_logits": "occ_logits",
    "reg": "h_reg", "height": "h_height", "heatmap": "h_heatmap",
}  # fmt: skip


def _parity(shared, fixture: str, recipe: str, frames: int = 1, **settings) -> None:
    folder = gold.golden(shared, fixture)
    shapes, meta = (json.loads((folder / f"{name}.json").read_text()) for name in ("keys", "meta"))
    model = frustum.load(recipe, gold.state_dict(shapes), source="official", label_map="reference", **settings)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == shapes
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(meta["params_M"])
    batch = gold.batch(frames) if frames > 1 else gold.batch()
    with torch.inference_mode():
        outputs = model(batch)
    stored = np.load(folder / "outputs.npz")
    for ours, theirs in _STAGES.items():
        assert list(outputs[ours].shape) == meta["stats"][theirs]["shape"], ours
        found = gold.strided(outputs[ours], meta["stats"][theirs]["slice"])
        tolerance = 1e-3 if ours in ("occ_logits", "heatmap", "reg", "height") else 1e-4
        np.testing.assert_allclose(found, stored[theirs], atol=tolerance, rtol=0, err_msg=ours)
    prediction = model.predict(outputs, batch)[0]
    assert (prediction.semantics.numpy() == stored["occ_argmax"]).mean() >= 0.999
    same = prediction.semantics.numpy() == stored["occ_argmax"]
    assert _share_in_same_parts(prediction.instances.numpy()[same], stored["pano_inst"][same]) > 0.999


def _share_in_same_parts(one: np.ndarray, other: np.ndarray) -> float:
    """Share of voxels that remain if each part of one volume is matched with the part of the other that it shares most with."""
    pairs, counts = np.unique(np.stack([one.astype(np.int64), other.astype(np.int64)]), axis=1, return_counts=True)
    kept = sum(counts[pairs[0] == part].max() for part in np.unique(pairs[0]))
    return min(kept, sum(counts[pairs[1] == part].max() for part in np.unique(pairs[1]))) / counts.sum()


@pytest.mark.slow
def test_tiny_equals_the_reference(shared):
    _parity(shared, "pano_tiny", "panoptic-flashocc-tiny")


# ---- grouping -------------------------------------------------------------------------------------------------------------------


def _grouped(**settings) -> PanopticOccupancy:
    occupancy, outputs = crafted.scene()
    found = [Prediction("crafted", occupancy[0], VoxelGrid.occ3d(), OCC3D_CLASSES)]
    return panoptic_predictions(found, outputs, InstanceConfig(**settings), VoxelGrid.occ3d(), "truncate")[0]


@pytest.mark.parametrize(("label_map", "golden"), [("reference", "reference"), ("fixed", "fixed")])
def test_the_crafted_scene_equals_the_reference(label_map, golden):
    stored = np.load(crafted.SMALL / "crafted_pano.npz")[golden]
    assert crafted.same_partition(_grouped(label_map=label_map).instances.numpy(), stored)


def test_what_the_label_map_changes():
    """The reference groups pedestrians by the centres of bicycles and so on: the numbers of its golden file."""
    occupancy = crafted.scene()[0][0]
    counts = {}
    for label_map in ("reference", "fixed"):
        ids = _grouped(label_map=label_map).instances
        counts[label_map] = {name: len(ids[occupancy == OCC3D_CLASSES.index(name)].unique()) for name in OBJECT_CLASSES}
    changed = {name: (counts["reference"][name], counts["fixed"][name]) for name in OBJECT_CLASSES}
    changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
    assert changed == {"pedestrian": (4, 6), "trailer": (3, 1), "construction_vehicle": (1, 3), "bicycle": (3, 4)}


def test_objects_are_described():
    found = _grouped()
    assert isinstance(found, PanopticOccupancy)
    assert len(found.instance_ids) == len(found.instance_classes) == len(found.instance_centres) == len(found.instance_scores) > 10
    assert (found.instance_scores > 0.3).all()
    for number, label, centre in zip(found.instance_ids, found.instance_classes, found.instance_centres, strict=True):
        voxels = (found.instances == number).nonzero()
        assert len(voxels)
        assert (found.semantics[found.instances == number] == label).all()
        cell = found.grid.indices(centre[None])[0]
        assert ((voxels - cell) ** 2).sum(1).min() < 30, "the centre lies among its voxels"
    known = set(found.instance_ids.tolist())
    assert all(number in known or number < 18 for number in found.instances.unique().tolist())


def test_everything_else_keeps_its_class_as_number():
    found = _grouped()
    is_thing = torch.isin(found.semantics.long(), torch.tensor(OCC3D_THINGS))
    assert torch.equal(found.instances[~is_thing], found.semantics[~is_thing].int())


def test_the_score_decides_what_an_object_is():
    few, many = _grouped(least_score=0.9), _grouped(least_score=0.0)
    assert len(few.instance_ids) < len(_grouped().instance_ids) <= len(many.instance_ids)
    assert len(_grouped(most_centres=3).instance_ids) <= 3


def test_a_batch_is_grouped_as_its_samples():
    occupancy, outputs = crafted.scene()
    turned = {name: torch.cat([value, value.flip(2, 3)]) for name, value in outputs.items()}
    volumes = torch.cat([occupancy, occupancy.flip(1, 2)])
    found = [Prediction(str(i), v, VoxelGrid.occ3d(), OCC3D_CLASSES) for i, v in enumerate(volumes)]
    config = InstanceConfig()
    together = panoptic_predictions(found, turned, config, VoxelGrid.occ3d())
    for i in range(2):
        alone = panoptic_predictions(found[i : i + 1], {n: v[i : i + 1] for n, v in turned.items()}, config, VoxelGrid.occ3d())[0]
        assert torch.equal(together[i].instances, alone.instances)
        assert torch.equal(together[i].instance_centres, alone.instance_centres)


def test_label_maps_by_name():
    fixed, reference = (served_classes(label_map, OCC3D_CLASSES) for label_map in ("fixed", "reference"))
    assert sorted(c for c in fixed if c >= 0) == sorted(OCC3D_THINGS)
    assert all(c == -1 or OCC3D_CLASSES[c] == name for c, name in zip(fixed, DETECTION_CLASSES, strict=True))
    wrong = {trained: OCC3D_CLASSES[c] for c, trained in zip(reference, DETECTION_CLASSES, strict=True) if OCC3D_CLASSES[c] != trained}
    assert wrong == {
        "construction_vehicle": "trailer", "trailer": "construction_vehicle", "barrier": "bicycle", "bicycle": "pedestrian",
        "pedestrian": "traffic_cone", "traffic_cone": "barrier",
    }  # fmt: skip
    assert served_classes("fixed", ("car", "free")) == [0] + [-1] * 9


# ---- networks -------------------------------------------------------------------------------------------------------------------

_GRID = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 5.4), cell=(2, 2, 0.8))


def _batch(**changes) -> Batch:
    rig = gold.rig()
    rig["image_aug"] = np.tile(np.diag([64 / 1600, 64 / 1600, 1.0]), (6, 1, 1))
    labels = torch.randint(0, 18, (16, 16, 8), dtype=torch.uint8)
    given = {"semantics": labels, "mask_camera": torch.rand(16, 16, 8) < 0.5, "depth": 10 + torch.rand(6, 32, 64) * 30, **rig, **changes}
    boxes = torch.tensor([[4.0, 3.0, 0.5, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]])
    return replace(Batch.from_arrays(torch.randn(6, 3, 32, 64), **given), boxes=[boxes], box_classes=[torch.tensor([0])])


def _small(**changes) -> PanopticFlashOccConfig:
    return PanopticFlashOccConfig(**{"resnet": 18, "neck_channels": 16, "lift_channels": 8, "bev_channels": 8, "grid": _GRID, **changes})


def _mini(**changes) -> PanopticFlashOccMiniConfig:
    return PanopticFlashOccMiniConfig(**{"pretrained": False, "neck_channels": 16, "bev_channels": 8, "grid": _GRID, **changes})


@pytest.mark.parametrize("make", [_small, _mini])
def test_without_the_instance_part_it_is_a_semantic_network(make):
    model = make(instances=False).build().eval()
    batch = replace(_batch(), boxes=None, box_classes=None)
    outputs = model(batch)
    assert not {"heatmap", "reg", "height"} & set(outputs)
    assert not any("centre" in name for name in model.loss(outputs, batch))
    assert not any("cent" in key for key in model.state_dict())
    prediction = model.predict(outputs, batch)[0]
    assert type(prediction) is Prediction
    assert prediction.instances is None


@pytest.mark.parametrize("make", [_small, _mini])
def test_centres_need_boxes(make):
    model = make().build().eval()
    batch = replace(_batch(), boxes=None)
    with pytest.raises(DataError, match="load_boxes"):
        model.loss(model(batch), batch)
    free = make(centre_loss=0.0).build().eval()
    losses = free.loss(free(batch), batch)
    assert not any("centre" in name for name in losses)
    sum(losses.values()).backward()
    idle = [name for name, p in free.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, "several processes would wait for these gradients"


def test_the_reference_rounding_also_places_true_centres():
    """A box whose centre lies just before the map is trained on as the reference does, and not otherwise."""
    batch = replace(_batch(), boxes=[torch.tensor([[-17.0, 3.0, 0.5, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]])])
    found = []
    for rounding in ("floor", "reference"):
        model = _small(voxel_rounding=rounding).build().eval()
        found.append(model.loss(model(batch), batch)["centre_xy"].item())
    assert found[0] == 0 < found[1]


@pytest.mark.parametrize("make", [_small, _mini])
def test_the_centre_losses_are_weighted(make):
    batch, found = _batch(), []
    for weight in (1.0, 0.5):
        torch.manual_seed(0)
        model = make(centre_loss=weight).build().eval()
        found.append(model.loss(model(batch), batch))
    names = ("centre_heat", "centre_xy", "centre_z")
    for name in names:
        assert found[1][name].item() == pytest.approx(0.5 * found[0][name].item(), rel=1e-5)
    assert all(found[1][name] == found[0][name] for name in found[0] if name not in names)


def test_every_voxel_counts_unless_the_mask_is_asked_for():
    batch = _batch()
    torch.manual_seed(0)
    model = _small(class_balance=False).build().eval()
    outputs = model(batch)
    x, y = torch.meshgrid(torch.arange(16.0) - 8, torch.arange(16.0) - 8, indexing="ij")
    far = (1 + torch.hypot(x, y) / np.hypot(8, 8))[..., None]
    plain = model.loss(outputs, batch)["focal"].item()
    assert plain == pytest.approx(100 * focal_loss(outputs["occ_logits"], batch.semantics, None, far).item(), rel=1e-5)
    model.config = model.config.model_copy(update={"camera_mask": True})
    masked = model.loss(outputs, batch)["focal"].item()
    seen = batch.mask_camera
    by_voxel = focal_loss(outputs["occ_logits"][seen], batch.semantics[seen], None, far.expand(16, 16, 8)[seen[0]])
    assert masked == pytest.approx(100 * by_voxel.item(), rel=1e-5)


def test_the_small_network_learns_where_objects_are():
    """One sample, one box: after some steps the best peak is its centre and the voxels around it are its object."""
    model = _mini().build().train()
    batch = _batch()
    labels = torch.full_like(batch.semantics, 17)
    labels[:, 9:11, 9:10, 1:3] = 4
    batch = replace(batch, semantics=labels)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        sum(model.loss(model(batch), batch).values()).backward()
        optimiser.step()
    with torch.no_grad():
        outputs = model(replace(batch, semantics=None))
    found = [Prediction("", labels[0], _GRID, OCC3D_CLASSES)]
    grouped = panoptic_predictions(found, outputs, model.config, model.map_grid)[0]
    assert grouped.instance_classes.tolist() == [4]
    assert grouped.instance_centres[0].tolist() == pytest.approx([4.0, 3.0, 0.5], abs=0.5)
    assert (grouped.instances == grouped.instance_ids[0]).sum() == 4


def _drive(count: int) -> Batch:
    """A keyframe and `count` past ones, each a metre and a half further back."""
    rig = gold.rig()
    rig["image_aug"] = np.tile(np.diag([64 / 1600, 64 / 1600, 1.0]), (6, 1, 1))
    poses = np.tile(np.eye(4), (1, 1 + count, 6, 1, 1))
    poses[0, :, :, 0, 3] = -1.5 * np.arange(1 + count)[:, None]
    rig["ego2global"] = poses
    draw = torch.Generator().manual_seed(1)
    return Batch.from_arrays(torch.randn(1, 1 + count, 6, 3, 32, 64, generator=draw), **rig)


@pytest.mark.parametrize(("make", "shape"), [(_small, (20, 14, 4)), (_small, (16, 24, 3)), (_mini, (20, 14, 4))])
def test_grids_of_other_sizes(make, shape):
    """Neither square nor multiples of eight; all outputs and what is found there have the grid's size."""
    grid = VoxelGrid(lower=(-16, -16, -1), upper=(2 * shape[0] - 16, 2 * shape[1] - 16, 1.6 * shape[2] - 1), cell=(2, 2, 1.6))
    model, batch = make(grid=grid, history=1, least_score=0.05).build().eval(), _drive(1)
    with torch.no_grad():
        outputs = model(batch)
    assert outputs["occ_logits"].shape == (1, *shape, 18)
    assert outputs["heatmap"].shape[2:] == ((shape[1], shape[0]) if make is _small else (shape[1] // 2, shape[0] // 2))
    assert model.predict(outputs, batch)[0].instances.shape == shape
    assert all(torch.isfinite(v).all() for v in outputs.values())


def test_a_grid_that_cannot_be_halved_is_refused():
    with pytest.raises(ValidationError, match=r"multiples of 2, got 31 x 16"):
        _small(grid=VoxelGrid(lower=(-16, -16, -1), upper=(46, 16, 5.4), cell=(2, 2, 1.6)))
    BevDetOccConfig(grid=VoxelGrid(lower=(-16, -16, -1), upper=(46, 16, 5.4), cell=(2, 2, 1.6)))  # takes any
    with pytest.raises(ValidationError, match=r"even number of cells along each axis, got 16 x 16 x 5"):
        _mini(grid=VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 7), cell=(2, 2, 1.6)))


def test_nothing_found():
    """No peak reaches the score: a panoptic prediction without objects, in which every voxel keeps its class as number."""
    model, batch = _small(least_score=1.0).build().eval(), _batch()
    with torch.no_grad():
        found = model.predict(model(batch), batch)[0]
    assert isinstance(found, PanopticOccupancy)
    assert torch.equal(found.instances, found.semantics.int())
    shapes = [tuple(v.shape) for v in (found.instance_ids, found.instance_classes, found.instance_centres, found.instance_scores)]
    assert shapes == [(0,), (0,), (0, 3), (0,)]


def test_the_small_network_uses_its_past():
    model = _mini(history=2).build().eval()
    batch = _drive(2)
    other = replace(batch, images=torch.cat([batch.images[:, :2], batch.images[:, 2:].flip(2)], 1))
    with torch.no_grad():
        one, two = model(batch), model(other)
    assert torch.equal(one["depth"], two["depth"])
    assert (one["occ_logits"] - two["occ_logits"]).abs().max() > 1e-4
    assert not torch.equal(one["heatmap"], two["heatmap"])


@pytest.mark.parametrize("align", ["lift", "warp"])
def test_the_small_network_streams(align):
    """One frame per call gives what all frames at once give."""
    model = _mini(history=2, align=align).build().eval()
    batch, state = _drive(2), None
    for t in (2, 1, 0):
        moment = replace(
            batch, images=batch.images[:, t : t + 1], rig=batch.rig[:, t : t + 1], key_ego2global=batch.rig.ego2global[:, t, 0]
        )
        outputs, state = model.step(moment, state)
    with torch.no_grad():
        whole = model(batch)
    for name in ("occ_logits", "heatmap", "reg", "height"):
        torch.testing.assert_close(outputs[name], whole[name], atol=1e-4, rtol=1e-4)


def test_without_history_the_small_network_is_flashocc_tiny():
    torch.manual_seed(0)
    panoptic = _mini().build().eval()
    plain = FlashOccTinyConfig(pretrained=False, neck_channels=16, bev_channels=8, grid=_GRID).build().eval()
    plain.load_state_dict({key: value for key, value in panoptic.state_dict().items() if not key.startswith("centre_head.")})
    batch = replace(_batch(), semantics=None)
    with torch.no_grad():
        assert torch.equal(panoptic(batch)["occ_logits"], plain(batch)["occ_logits"])


@pytest.mark.slow
def test_depth4d_equals_the_reference(shared):
    _parity(shared, "pano_depth4d", "panoptic-flashocc-depth4d", frames=2, align="lift")
