"""Panoptic-FlashOcc against the outputs of its reference implementation, its label maps, and the small network."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import frustum
from frustum.data.labels.boxes import BoxLabels, TrueBoxes
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.losses.volume import focal_loss
from frustum.metrics.panoptic_quality import OCC3D_THINGS
from frustum.models.bevdet_occ import BevDetOccConfig
from frustum.models.flashocc_tiny import FlashOccTinyConfig
from frustum.models.panoptic_flashocc import PanopticFlashOccConfig
from frustum.models.panoptic_flashocc_mini import PanopticFlashOccMiniConfig
from frustum.nn.instances import InstanceConfig, panoptic_predictions, served_classes
from frustum.nn.temporal import HistoryConfig
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, OBJECT_CLASSES, OCC3D_CLASSES
from frustum.types.contract import Reads
from frustum.types.predictions import PredictedOccupancy, Prediction
from tests.models import golden_panoptic as crafted
from tests.models import golden_weights as gold
from tests.models.small import RESNET, TRUNK

SMALL = {f"panoptic-flashocc-{name}": RESNET for name in ("tiny", "depth", "depth4d", "longterm8f", "longterm16f")}
SMALL["panoptic-flashocc-mini"] = TRUNK
_STAGES = {
    "image_features": "neck", "depth": "depth_0", "pooled": "bev_0", "bev": "bev_enc", "occ_logits": "occ_logits",
    "reg": "h_reg", "height": "h_height", "heatmap": "h_heatmap",
}  # fmt: skip


def _parity(shared, fixture: str, recipe: str, frames: int = 1, **settings) -> None:
    folder = gold.golden(shared, fixture)
    shapes, meta = (json.loads((folder / f"{name}.json").read_text()) for name in ("keys", "meta"))
    model = frustum.load(recipe, gold.state_dict(shapes), source="official", **settings)
    assert model.config.instances.label_map == "reference"
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
    prediction = model.predict(outputs, batch)[0].occupancy
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


def _semantic(labels: torch.Tensor, grid: VoxelGrid, token: str = "crafted") -> Prediction:
    return Prediction(token, PredictedOccupancy(labels, grid, OCC3D_CLASSES))


def _grouped(**settings) -> PredictedOccupancy:
    occupancy, outputs = crafted.scene()
    found = [_semantic(occupancy[0], VoxelGrid.occ3d())]
    grouped = panoptic_predictions(found, outputs, InstanceConfig(**settings), VoxelGrid.occ3d(), "truncate")[0]
    assert grouped.token == "crafted"
    return grouped.occupancy


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
    objects = found.objects
    assert len(objects.ids) == len(objects.classes) == len(objects.centres) == len(objects.scores) > 10
    assert (objects.scores > 0.3).all()
    for number, label, centre in zip(objects.ids, objects.classes, objects.centres, strict=True):
        voxels = (found.instances == number).nonzero()
        assert len(voxels)
        assert (found.semantics[found.instances == number] == label).all()
        cell = found.grid.indices(centre[None])[0]
        assert ((voxels - cell) ** 2).sum(1).min() < 30, "the centre lies among its voxels"
    known = set(objects.ids.tolist())
    assert all(number in known or number < 18 for number in found.instances.unique().tolist())


def test_everything_else_keeps_its_class_as_number():
    found = _grouped()
    is_thing = torch.isin(found.semantics.long(), torch.tensor(OCC3D_THINGS))
    assert torch.equal(found.instances[~is_thing], found.semantics[~is_thing].int())


def test_the_score_decides_what_an_object_is():
    few, many = _grouped(score_threshold=0.9), _grouped(score_threshold=0.0)
    assert len(few.objects.ids) < len(_grouped().objects.ids) <= len(many.objects.ids)
    assert len(_grouped(max_centres=3).objects.ids) <= 3


def test_a_batch_is_grouped_as_its_samples():
    occupancy, outputs = crafted.scene()
    turned = {name: torch.cat([value, value.flip(2, 3)]) for name, value in outputs.items()}
    volumes = torch.cat([occupancy, occupancy.flip(1, 2)])
    found = [_semantic(v, VoxelGrid.occ3d(), str(i)) for i, v in enumerate(volumes)]
    config = InstanceConfig()
    together = panoptic_predictions(found, turned, config, VoxelGrid.occ3d())
    for i in range(2):
        alone = panoptic_predictions(found[i : i + 1], {n: v[i : i + 1] for n, v in turned.items()}, config, VoxelGrid.occ3d())[0]
        assert torch.equal(together[i].occupancy.instances, alone.occupancy.instances)
        assert torch.equal(together[i].occupancy.objects.centres, alone.occupancy.objects.centres)


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


def _batch() -> Batch:
    rig = gold.rig()
    rig["image_aug"] = np.tile(np.diag([64 / 1600, 64 / 1600, 1.0]), (6, 1, 1))
    semantics = torch.randint(0, 18, (16, 16, 8), dtype=torch.uint8)
    labels = {
        OccupancyLabels: OccupancyTruth.from_arrays(semantics, torch.rand(16, 16, 8) < 0.5),
        DepthLabels: 10 + torch.rand(1, 6, 32, 64) * 30,
        BoxLabels: _one_car(4.0),
    }
    return Batch.from_arrays(torch.randn(6, 3, 32, 64), **rig, labels=labels)


def _one_car(x: float) -> TrueBoxes:
    """A car that nobody knows the velocity of."""
    return TrueBoxes([torch.tensor([[x, 3.0, 0.5, 4.0, 2.0, 1.5, 0.0, math.nan, math.nan]])], [torch.tensor([0])])


def _without(batch: Batch, *kinds: type) -> Batch:
    return replace(batch, labels={kind: value for kind, value in batch.labels.items() if kind not in kinds})


def _small(**changes) -> PanopticFlashOccConfig:
    return PanopticFlashOccConfig(**{"resnet": 18, "neck_channels": 16, "lift_channels": 8, "bev_channels": 8, "grid": _GRID, **changes})


def _mini(**changes) -> PanopticFlashOccMiniConfig:
    return PanopticFlashOccMiniConfig(**{"pretrained": False, "neck_channels": 16, "bev_channels": 8, "grid": _GRID, **changes})


@pytest.mark.parametrize("make", [_small, _mini])
def test_without_the_instance_part_it_is_a_semantic_network(make):
    model = make(instances=None).build().eval()
    assert [type(label) for label in model.config.learns_from()] == [OccupancyLabels, DepthLabels]
    batch = _without(_batch(), BoxLabels)
    outputs = model(batch)
    assert not {"heatmap", "reg", "height"} & set(outputs)
    assert not any("centre" in name for name in model.loss(outputs, batch))
    assert not any("cent" in key for key in model.state_dict())
    prediction = model.predict(outputs, batch)[0].occupancy
    assert prediction.instances is prediction.objects is None


@pytest.mark.parametrize("make", [_small, _mini])
def test_centres_need_boxes(make):
    model = make().build().eval()
    assert [type(label) for label in model.config.learns_from()] == [OccupancyLabels, DepthLabels, BoxLabels]
    assert model.config.learns_from()[2].without == "model.instances=null or model.instances.centre_loss=0"
    batch = _without(_batch(), BoxLabels)
    with pytest.raises(DataError, match=r"loss needs boxes in the batch, but there are none.*with annotations"):
        model.loss(model(batch), batch)
    free = make(instances={"centre_loss": 0.0}).build().eval()
    assert BoxLabels not in map(type, free.config.learns_from())
    losses = free.loss(free(batch), batch)
    assert not any("centre" in name for name in losses)
    sum(losses.values()).backward()
    idle = [name for name, p in free.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, "several processes would wait for these gradients"


def test_the_reference_rounding_also_places_true_centres():
    """A box whose centre lies just outside the map is trained on as the reference does, and not otherwise."""
    batch = _batch().with_labels({BoxLabels: _one_car(-17.0)})
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
        model = make(instances={"centre_loss": weight}).build().eval()
        found.append(model.loss(model(batch), batch))
    names = ("centre_heat", "centre_xy", "centre_z")
    for name in names:
        assert found[1][name].item() == pytest.approx(0.5 * found[0][name].item(), rel=1e-5)
    assert all(found[1][name] == found[0][name] for name in found[0] if name not in names)


def test_every_voxel_counts_unless_the_mask_is_asked_for():
    batch = _batch()
    truth = batch.need(OccupancyLabels)
    torch.manual_seed(0)
    model = _small(class_balance=False).build().eval()
    outputs = model(batch)
    x, y = torch.meshgrid(torch.arange(16.0) - 8, torch.arange(16.0) - 8, indexing="ij")
    far = (1 + torch.hypot(x, y) / np.hypot(8, 8))[..., None]
    plain = model.loss(outputs, batch)["focal"].item()
    assert plain == pytest.approx(100 * focal_loss(outputs["occ_logits"], truth.semantics, None, far).item(), rel=1e-5)
    model.config = model.config.model_copy(update={"camera_mask": True})
    masked = model.loss(outputs, batch)["focal"].item()
    seen = truth.mask_camera
    by_voxel = focal_loss(outputs["occ_logits"][seen], truth.semantics[seen], None, far.expand(16, 16, 8)[seen[0]])
    assert masked == pytest.approx(100 * by_voxel.item(), rel=1e-5)


def test_the_small_network_learns_where_objects_are():
    """One sample, one box: after some steps the best peak is its centre and the voxels around it are its object."""
    model = _mini().build().train()
    batch = _batch()
    labels = torch.full((1, 16, 16, 8), 17, dtype=torch.uint8)
    labels[:, 9:11, 9:10, 1:3] = 4
    batch = batch.with_labels({OccupancyLabels: replace(batch.need(OccupancyLabels), semantics=labels)})
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        sum(model.loss(model(batch), batch).values()).backward()
        optimiser.step()
    with torch.no_grad():
        outputs = model(_without(batch, OccupancyLabels))
    grouped = panoptic_predictions([_semantic(labels[0], _GRID)], outputs, model.config.instances, model.map_grid)[0].occupancy
    assert grouped.objects.classes.tolist() == [4]
    assert grouped.objects.centres[0].tolist() == pytest.approx([4.0, 3.0, 0.5], abs=0.5)
    assert (grouped.instances == grouped.objects.ids[0]).sum() == 4


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
    model, batch = make(grid=grid, history={"frames": 1}, instances={"score_threshold": 0.05}).build().eval(), _drive(1)
    with torch.no_grad():
        outputs = model(batch)
    assert outputs["occ_logits"].shape == (1, *shape, 18)
    assert outputs["heatmap"].shape[2:] == ((shape[1], shape[0]) if make is _small else (shape[1] // 2, shape[0] // 2))
    assert model.predict(outputs, batch)[0].occupancy.instances.shape == shape
    assert all(torch.isfinite(v).all() for v in outputs.values())


def test_a_grid_that_cannot_be_halved_is_refused():
    with pytest.raises(ValidationError, match=r"even number of cells along x and y, got 31 x 16"):
        _small(grid=VoxelGrid(lower=(-16, -16, -1), upper=(46, 16, 5.4), cell=(2, 2, 1.6)))
    BevDetOccConfig(grid=VoxelGrid(lower=(-16, -16, -1), upper=(46, 16, 5.4), cell=(2, 2, 1.6)))  # takes any
    with pytest.raises(ValidationError, match=r"even number of cells along x, y and z, got 16 x 16 x 5"):
        _mini(grid=VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 7), cell=(2, 2, 1.6)))


def test_nothing_found():
    """No peak reaches the score: a panoptic prediction without objects, in which every voxel keeps its class as number."""
    model, batch = _small(instances={"score_threshold": 1.0}).build().eval(), _batch()
    with torch.no_grad():
        found = model.predict(model(batch), batch)[0].occupancy
    assert torch.equal(found.instances, found.semantics.int())
    shapes = [tuple(v.shape) for v in vars(found.objects).values()]
    assert shapes == [(0,), (0,), (0, 3), (0,)]


def test_the_small_network_uses_its_past():
    model = _mini(history={"frames": 2}).build().eval()
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
    model = _mini(history={"frames": 2, "align": align}).build().eval()
    batch, state = _drive(2), None
    for t in (2, 1, 0):
        moment = replace(
            batch, images=batch.images[:, t : t + 1], calibration=batch.rig[:, t : t + 1], key_ego2global=batch.rig.ego2global[:, t, 0]
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
    batch = _without(_batch(), OccupancyLabels)
    with torch.no_grad():
        assert torch.equal(panoptic(batch)["occ_logits"], plain(batch)["occ_logits"])


@pytest.mark.slow
def test_depth4d_equals_the_reference(shared):
    _parity(shared, "pano_depth4d", "panoptic-flashocc-depth4d", frames=2, **{"model.history.align": "lift"})


def test_what_is_read_of_the_past():
    for make in (_small, _mini):
        assert make().reads() == Reads(past=0)
        assert make(history={"frames": 8}).reads() == Reads(past=8)


# As files of the first version store them, where they differ from the settings of now.
_STORED = {
    "label_map": "reference", "least_score": 0.25, "most_centres": 300, "centre_loss": 0.2,
    "instances": True, "history": 2, "align": "lift",
}  # fmt: skip


def test_settings_of_the_first_version():
    section = InstanceConfig(label_map="reference", score_threshold=0.25, max_centres=300, centre_loss=0.2)
    for config, extra, train_align in ((PanopticFlashOccConfig, {"train_align": "warp"}, "warp"), (PanopticFlashOccMiniConfig, {}, None)):
        rest = config().model_dump(mode="json", exclude={"instances", "history"})
        found = config.model_validate(config.upgraded(rest | _STORED | extra))
        assert found.instances == section
        assert found.history == HistoryConfig(frames=2, align="lift", train_align=train_align)
        semantic = config.model_validate(config.upgraded(rest | _STORED | extra | {"instances": False}))
        assert semantic == found.model_copy(update={"instances": None})
        for now in (found.model_dump(mode="json"), semantic.model_dump(mode="json")):
            assert config.upgraded(now) == now


def test_default_settings_of_the_first_version_are_those_of_now():
    for config, weight, extra in ((PanopticFlashOccConfig, 1.0, {"train_align": "lift"}), (PanopticFlashOccMiniConfig, 0.2, {})):
        rest = config().model_dump(mode="json", exclude={"instances", "history"})
        flat = {"instances": True, "label_map": "fixed", "least_score": 0.3, "most_centres": 500, "centre_loss": weight}
        stored = rest | flat | {"history": 0, "align": "warp"} | extra
        assert config.model_validate(config.upgraded(stored)) == config()


def test_names_of_the_first_version_lead_to_the_parts_of_now():
    config = _mini(history={"frames": 1})
    keys = set(config.build().state_dict())
    assert {key.partition(".")[0] for key in keys} == {"trunk", "bev_net", "refine", "head", "frame_net", "centre_head", "class_weight"}
    assert all(any(key.startswith(new) for key in keys) for new in config.renamed.values())
    assert not any(key.startswith(tuple(config.renamed)) for key in keys)
    assert {key.split(".")[1] for key in keys if key.startswith("trunk.")} == {old.rstrip(".") for old in config.renamed}
