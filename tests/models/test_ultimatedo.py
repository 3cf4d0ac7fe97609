"""UltimateDO and BEVDet: published keys, grids of two resolutions, what the tasks do to each other, and what is frozen stays."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from frustum.data.labels.boxes import BoxLabels, TrueBoxes
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.engine import overrides
from frustum.errors import DataError
from frustum.models.ultimatedo import DetectionConfig, OccupancyConfig, TasksConfig, UltimateDoConfig
from frustum.models.ultimatedo_mini import UltimateDoMiniConfig
from frustum.nn.point_encoding import pixel_points
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.frame import keyframe_of
from tests.models import golden_bevdet as gold
from tests.models import test_contract as contract
from tests.models.small import RESNET, TRUNK

_FINE = 'model.grid={"lower": [-16, -16, -1], "upper": [16, 16, 5.4], "cell": [1, 1, 0.8]}'
SMALL = {
    "ultimatedo-r50": [*RESNET, _FINE, "model.map_margin=2", "model.bev_channels=32"],
    "bevdet-r50": RESNET,
    "ultimatedo-mini": [*TRUNK, _FINE, "model.map_margin=2"],
}
BOTH = ["ultimatedo-r50", "ultimatedo-mini"]
BOXES = {"heatmap", "reg", "height", "dim", "rot", "vel"}


def build(name: str, *settings: str, seed: int = 0) -> torch.nn.Module:
    recipe = overrides.apply(get_recipe(name), [*SMALL[name], *(f"model.{s}" for s in settings)])
    torch.manual_seed(seed)
    return recipe.model.build()


def batch_of(name: str, count: int = 2) -> Batch:
    return contract.make_batch(contract.small(name), count)


def speaking(model: torch.nn.Module) -> torch.nn.Module:
    """With an exchange that is no longer silent."""
    for conv in (model.exchange.to_detection, model.exchange.to_occupancy):
        torch.nn.init.normal_(conv.weight, std=0.1)
    return model


def parts(name: str, model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    if name == "ultimatedo-mini":
        return {"trunk": model.bev_net, "detection": model.centre_head, "occupancy": model.refine}
    return {"trunk": model.img_bev_encoder_neck, "detection": model.pts_bbox_head, "occupancy": model.occ_head}


# ---- published weights ----------------------------------------------------------------------------------------------------------


def test_bevdet_has_the_published_keys():
    """Those of its head, and below it those that FlashOCC starts from."""
    with torch.device("meta"):
        model = get_recipe("bevdet-r50").model.build()
        flashocc = get_recipe("flashocc-r50").model.build()
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    head = json.loads((gold.SMALL / "head_keys.json").read_text())
    assert {key: shape for key, shape in shapes.items() if key.startswith("pts_bbox_head.")} == head
    others = {key: list(value.shape) for key, value in flashocc.state_dict().items() if not key.startswith("occ_head.")}
    different = {key for key in others if shapes.get(key) != others[key]}
    assert different == {"img_view_transformer.depth_net.weight", "img_view_transformer.depth_net.bias"}  # 59 depth bins, not 88
    assert shapes["img_view_transformer.depth_net.weight"] == [59 + 64, 256, 1, 1]
    assert shapes.keys() == head.keys() | others.keys()


def test_a_detector_becomes_a_network_of_both_tasks():
    """What a published BEVDet holds fills all but the occupancy head, and finds the same boxes."""
    both = build("ultimatedo-r50", seed=1)
    detector = build("ultimatedo-r50", "tasks.occupancy=null")
    missing, unexpected = both.load_state_dict(detector.state_dict(), strict=False)
    assert not unexpected
    assert {key.split(".")[0] for key in missing} == {"occ_head", "exchange"}
    batch = batch_of("ultimatedo-r50")
    with torch.no_grad():
        alone, together = detector.eval()(batch), both.eval()(batch)
    for name in BOXES:
        torch.testing.assert_close(together[name], alone[name])


# ---- outputs --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_each_answer_has_its_own_grid(name):
    model, batch = build(name).eval(), batch_of(name)
    with torch.no_grad():
        outputs = model(batch)
        predictions = model.predict(outputs, batch)
    assert outputs["occ_logits"].shape == (2, 32, 32, 8, 18)
    assert outputs["heatmap"].shape == (2, 10, 20, 20)
    assert model.window.ratio == 2
    assert [p.token for p in predictions] == batch.tokens
    for prediction in predictions:
        assert prediction.occupancy.semantics.shape == (32, 32, 8)
        assert prediction.boxes.boxes.shape[1] == 9
        assert prediction.boxes.class_names == DETECTION_CLASSES
        assert (prediction.boxes.boxes[:, :2].abs() <= 61.2).all()


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("task", ["detection", "occupancy"])
def test_each_task_alone(name, task):
    other = {"detection": "occupancy", "occupancy": "detection"}[task]
    without_depth = ["depth_loss=0", *(["pixel_loss=0"] if name == "ultimatedo-mini" else [])]
    model, batch = build(name, f"tasks.{other}=null", *without_depth), batch_of(name)
    kind = {"detection": BoxLabels, "occupancy": OccupancyLabels}[task]
    assert [type(label) for label in model.config.learns_from()] == [kind]
    rest = replace(batch, labels={kind: batch.labels[kind]})
    losses = model.train().loss(model(rest), rest)
    assert all(key.startswith("box_") is (task == "detection") for key in losses)
    model.eval()
    with torch.no_grad():
        outputs = model(rest)
        prediction = model.predict(outputs, rest)[0]
    assert (prediction.boxes is not None, prediction.occupancy is not None) == (task == "detection", task == "occupancy")
    assert (outputs.keys() >= BOXES) is (task == "detection")
    assert ("occ_logits" in outputs) is (task == "occupancy")
    assert model.exchange is None


@pytest.mark.parametrize("name", BOTH)
def test_unknown_velocities_and_samples_without_boxes(name):
    model, batch = build(name).train(), batch_of(name)
    unknown = TrueBoxes([torch.tensor([[4.0, 3.0, 0.5, 4.0, 2.0, 1.5, 0.0, math.nan, math.nan]]), torch.zeros(0, 9)],
                        [torch.tensor([0]), torch.zeros(0, dtype=torch.long)])  # fmt: skip
    batch = batch.with_labels({BoxLabels: unknown})
    losses = model.loss(model(batch), batch)
    assert losses["box_velocity"] == 0
    assert losses["box_xy"] > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# ---- what the tasks do to each other --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_a_fresh_network_is_two_silent_heads(name):
    batch, models = batch_of(name), [build(name, f"tasks.priority={p}").eval() for p in ("equal", "none")]
    models[1].load_state_dict({k: v for k, v in models[0].state_dict().items() if not k.startswith("exchange.")})
    with torch.no_grad():
        exchanging, apart = (model(batch) for model in models)
        assert all(torch.equal(exchanging[key], value) for key, value in apart.items())
        told = speaking(models[0])(batch)
    assert not torch.allclose(told["occ_logits"], apart["occ_logits"])
    assert not torch.allclose(told["heatmap"], apart["heatmap"])


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("priority", "reached"),
    [
        ("equal", {"detection": True, "occupancy": True}),
        ("detection", {"detection": False, "occupancy": True}),
        ("occupancy", {"detection": True, "occupancy": False}),
        ("none", {"detection": False, "occupancy": False}),
    ],
)
def test_priority_decides_whose_loss_reaches_the_other_head(name, priority, reached):
    """The loss of the task that does not have priority stays out of the head that has; both train the shared map."""
    batch = batch_of(name)
    model = build(name, f"tasks.priority={priority}").train()
    if priority != "none":
        speaking(model)
    losses = model.loss(model(batch), batch)
    boxes = sum(loss for key, loss in losses.items() if key.startswith("box_"))
    voxels = sum(loss for key, loss in losses.items() if not key.startswith("box_") and key != "depth")
    there = parts(name, model)
    for total, other in ((boxes, "occupancy"), (voxels, "detection")):
        model.zero_grad()
        total.backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.any() for p in there["trunk"].parameters())
        found = any(p.grad is not None and p.grad.any() for p in there[other].parameters())
        assert found is reached[other], (priority, other)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("frozen", ["detection", "occupancy"])
def test_a_frozen_task_stays_as_it_is(name, frozen):
    """Weights and running statistics; with the trunk frozen too, and no exchange, its answers as well."""
    learns = {"detection": "occupancy", "occupancy": "detection"}[frozen]
    model, batch = build(name, f"tasks.{frozen}.loss=0", "tasks.frozen_trunk=true", "tasks.priority=none"), batch_of(name)
    kinds = {type(label) for label in model.config.learns_from()}
    assert kinds == {{"detection": BoxLabels, "occupancy": OccupancyLabels}[learns]}
    batch = replace(batch, labels={kind: value for kind, value in batch.labels.items() if kind in kinds})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model.eval()(batch)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        sum(model.loss(model(batch), batch).values()).backward()
        optimizer.step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    heads = {"detection": {"pts_bbox_head", "centre_head"}, "occupancy": {"occ_head", "refine", "head"}}
    assert changed
    assert changed <= heads[learns]
    with torch.no_grad():
        found = model.eval()(batch)
    same = BOXES if frozen == "detection" else {"occ_logits"}
    assert all(torch.equal(found[key], expected[key]) for key in same)
    other = "occ_logits" if frozen == "detection" else "heatmap"
    assert not torch.equal(found[other], expected[other])


@pytest.mark.parametrize("name", BOTH)
def test_a_head_without_a_loss_does_not_learn_to_listen(name):
    model = build(name, "tasks.detection.loss=0")
    assert not model.exchange.to_detection.weight.requires_grad
    assert model.exchange.to_occupancy.weight.requires_grad


# ---- bad input ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", [BoxLabels, OccupancyLabels])
def test_labels_that_are_missing(name, kind):
    model, batch = build(name).train(), batch_of(name)
    bare = replace(batch, labels={k: v for k, v in batch.labels.items() if k is not kind})
    with pytest.raises(DataError, match=kind.what):
        model.loss(model(bare), bare)


def test_a_network_needs_a_task():
    for tasks in ({"detection": None, "occupancy": None}, {"detection": None, "occupancy": {"loss": 0}}):
        with pytest.raises(ValidationError, match="needs a task to learn"):
            TasksConfig(**tasks)
    assert TasksConfig(detection=DetectionConfig(loss=0)).learns_occupancy
    assert not TasksConfig(occupancy=OccupancyConfig(loss=0)).learns_occupancy


def test_grids_that_do_not_fit():
    with pytest.raises(ValidationError, match=r"multiples of 6, got 200 x 200; set model.grid or model.map_ratio"):
        UltimateDoConfig(map_ratio=3)
    assert UltimateDoConfig(map_ratio=4).map_grid.cell[:2] == (1.6, 1.6)


def test_the_maps_are_those_of_bevdet():
    """51.2 m around in cells of 0.8 m, with the voxels in the middle; the small one looks less far."""
    for name, side, heights in (("ultimatedo-r50", 128, 1), ("bevdet-r50", 128, 1), ("ultimatedo-mini", 112, 8)):
        config = get_recipe(name).model
        assert config.map_grid.shape == (side, side, heights)
        np.testing.assert_allclose((config.map_grid.lower[:2], config.map_grid.upper[:2]), ([-0.4 * side] * 2, [0.4 * side] * 2))
    over_voxels = config.window.cut(config.map_grid.centres()[..., 0, 0].T[None, None])
    assert over_voxels.shape == (1, 1, 100, 100)
    np.testing.assert_allclose(over_voxels[0, 0, 0, [0, -1]], [-39.6, 39.6], atol=1e-4)


def test_image_features_learn_classes_with_boxes_alone():
    """In training, from depth and boxes; a network for occupancy, a frozen trunk and a weight of 0 have nothing of the kind."""
    model, batch = build("ultimatedo-mini"), batch_of("ultimatedo-mini")
    assert "pixel_logits" in model.train()(batch)
    assert "pixel_logits" not in model.eval()(batch)
    for setting in ("tasks.detection=null", "tasks.frozen_trunk=true", "pixel_loss=0", "tasks.detection.loss=0"):
        other = build("ultimatedo-mini", setting)
        assert other.pixel_head is None
        assert "pixel_logits" not in other.train()(batch)
    boxes_alone = build("ultimatedo-mini", "tasks.occupancy=null", "depth_loss=0").train()
    labels = boxes_alone.config.learns_from()
    assert [label.without for label in labels if isinstance(label, DepthLabels)] == ["model.depth_loss=0 model.pixel_loss=0"]
    bare = replace(batch, labels={kind: value for kind, value in batch.labels.items() if kind is not DepthLabels})
    with pytest.raises(DataError, match="depth maps"):
        boxes_alone.loss(boxes_alone(bare), bare)


def test_image_features_learn_the_class_of_the_object_that_is_there():
    """A box around the point that one pixel saw: its feature has the class of that box, in the augmented frame, too."""
    model, batch = build("ultimatedo-mini").train(), batch_of("ultimatedo-mini", 1)
    depth = torch.zeros_like(batch.need(DepthLabels))
    depth[0, 1, 20, 44], depth[0, 1, 50, 60] = 12.0, 9.0
    place = pixel_points(depth, keyframe_of(batch))[0, 1, 20, 44].float()
    box = torch.tensor([[*place.tolist(), 1.0, 1.0, 1.0, 0.7, 0.0, 0.0]])
    truth = TrueBoxes([box], [torch.tensor([6])])
    batch = replace(batch, labels=batch.labels | {DepthLabels: depth, BoxLabels: truth})
    outputs = model(batch)
    cell = (1, 6, 20 * outputs["pixel_logits"].shape[-2] // depth.shape[-2], 44 * outputs["pixel_logits"].shape[-1] // depth.shape[-1])
    before = model.loss(outputs, batch)["pixel"]
    outputs["pixel_logits"] = outputs["pixel_logits"].detach().clone()
    outputs["pixel_logits"][cell] += 100
    assert model.loss(outputs, batch)["pixel"] < before - 0.2
    outputs["pixel_logits"][cell] -= 200
    assert model.loss(outputs, batch)["pixel"] > before + 10


def test_depth_is_learned_where_the_trunk_is():
    kinds = [[type(label) for label in UltimateDoMiniConfig(tasks=TasksConfig(frozen_trunk=is_on)).learns_from()] for is_on in (0, 1)]
    assert [DepthLabels in found for found in kinds] == [True, False]
