"""The distillation of 3DPPE: a student beside a frozen oracle."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from frustum.checkpoint.weights_file import save_weights
from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.errors import CheckpointError, ConfigError, DataError
from frustum.losses.set_prediction import TrueCodes, match, set_losses
from frustum.models.ppe3d import Ppe3dConfig
from frustum.nn.box_code import boxes_to_code
from tests.models.test_ppe3d import made_up, tiny

CLASS = "frustum.models.ppe3d:Ppe3dConfig"


def saved(config: Ppe3dConfig, path: Path, kind: str = CLASS) -> nn.Module:
    network = config.build()
    save_weights(path, network, {"recipe": {"model": config.model_dump(mode="json")}, "classes": {"model": kind}})
    return network


@pytest.fixture
def file(tmp_path: Path) -> Path:
    saved(tiny(encoding="point3d_lidar"), tmp_path / "oracle.safetensors")
    return tmp_path / "oracle.safetensors"


def student(file: Path, **settings) -> Ppe3dConfig:
    return tiny(distill={"teacher": str(file)}, **settings)


@pytest.mark.parametrize("settings", [{}, {"past": 1, "grouped_boxes": True}, {"refine_boxes": True}, {"encoding": "camera_ray"}], ids=str)
def test_every_parameter_of_the_student_learns_and_none_of_the_oracle(file, settings):
    config = student(file, **settings)
    model, batch = config.build().train(), made_up(config)
    losses = model.loss(model(batch), batch)
    ours = {"distill.loss_cls", "distill.d0.loss_bbox", "distill.loss_scores", "distill.loss_boxes"}
    assert ours < losses.keys()
    assert all(value.isfinite() for value in losses.values())
    sum(losses[name] for name in losses if name.startswith("distill.")).backward(retain_graph=True)
    assert model.pts_bbox_head.reference_points.weight.grad is None, "the branch stands at the oracle's"
    assert next(model.img_backbone.parameters()).grad.any()
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    teacher = model.oracle.network()
    assert not teacher.training
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())


def test_the_oracle_is_no_part_of_the_student(file):
    model, batch = student(file).build().train(), made_up(student(file))
    before = copy.deepcopy(model.oracle.network().state_dict())
    model(batch)
    assert model.state_dict().keys() == tiny().build().state_dict().keys()
    assert len(list(model.parameters())) == len(list(tiny().build().parameters()))
    assert copy.deepcopy(model).oracle is model.oracle, "as a running average of the weights copies it"
    assert all(torch.equal(value, before[key]) for key, value in model.oracle.network().state_dict().items())
    file.unlink()
    loaded = student(file).build().eval()
    loaded.load_state_dict(model.state_dict())
    outputs = loaded(replace(batch, labels={}))
    assert not [name for name in outputs if "." in name], "it predicts without LiDAR, and without the oracle's file"
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        loaded.train()(batch)


def test_reading_the_oracle_draws_no_random_number(file):
    model = student(file).build()
    state = torch.get_rng_state()
    model.oracle.network()
    assert torch.equal(torch.get_rng_state(), state), "or a resumed run would not be the uninterrupted one"


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(tmp_path):
    teacher = saved(tiny(encoding="point3d_lidar"), tmp_path / "oracle.safetensors")
    config = student(tmp_path / "oracle.safetensors", encoding="point3d_lidar")
    model, batch = config.build(), made_up(config)

    def imitated() -> list[float]:
        model.train()
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        losses = model.loss(model(batch), batch)
        return [float(losses[f"distill.{name}"].detach()) for name in ("loss_scores", "loss_boxes")]

    assert min(imitated()) > 0
    model.load_state_dict(teacher.state_dict())
    assert imitated() == pytest.approx([0, 0], abs=1e-6)


def test_the_branch_follows_the_assignment_of_the_oracle(file):
    config = student(file)
    model, batch = config.build().train(), made_up(config)
    with torch.no_grad():
        outputs = model(batch)
        losses = model.loss(outputs, batch)
    boxes = batch.need(BoxLabels)
    truth = TrueCodes.of([boxes_to_code(b) for b in boxes.boxes], boxes.classes)
    layers = {name: value.transpose(0, 1) for name, value in outputs.items() if name.endswith(("class_logits", "box_codes"))}
    theirs = match(layers["oracle.class_logits"], layers["oracle.box_codes"], truth)
    expected = set_losses(layers["distill.class_logits"], layers["distill.box_codes"], truth, config.set_loss, theirs, "distill.")
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    own = match(layers["distill.class_logits"], layers["distill.box_codes"], truth)
    assert not torch.equal(own.query, theirs.query)
    places = model.oracle.network().pts_bbox_head.reference_points.weight
    assert not torch.equal(places, model.pts_bbox_head.reference_points.weight)


def test_weights_of_the_two_kinds(file):
    config = student(file)
    model, batch = config.build().train(), made_up(config)
    with torch.no_grad():
        outputs = model(batch)
        whole = model.loss(outputs, batch)
        model.config = config.model_copy(
            update={"distill": config.distill.model_copy(update={"truth_weight": 0.0, "imitation_weight": 3.0})}
        )
        part = model.loss(outputs, batch)
    assert float(part["distill.loss_cls"]) == 0
    torch.testing.assert_close(part["distill.loss_scores"], 3 * whole["distill.loss_scores"])
    torch.testing.assert_close(part["loss_cls"], whole["loss_cls"])


def test_depth_is_read_to_learn_and_not_to_predict(file):
    config = student(file, encoding="camera_ray")
    assert [type(label) for label in config.learns_from()] == [BoxLabels, DepthLabels]
    assert config.reads().labels == ()
    batch = made_up(config)
    with pytest.raises(DataError, match="reads depth maps to predict"):
        config.build().train()(replace(batch, labels={BoxLabels: batch.need(BoxLabels)}))


@pytest.mark.parametrize(("settings", "message"), [
    ({"encoding": "point3d"}, r"is no oracle: it has model\.encoding=point3d.*frustum train RECIPE model\.encoding=point3d_lidar"),
    ({"queries": 20}, r"other settings than its student: queries 20 \(here 30\)"),
    ({"channels": 64, "layers": 3}, r"channels 64 \(here 32\), layers 3 \(here 2\)"),
    ({"box_range": (-30, -30, -5, 30, 30, 3)}, r"box_range \(-30.*here \(-51\.2"),
    ({"box_convention": "mmdet3d<1.0"}, "box_convention mmdet3d<1.0"),
    ({"frame": "lidar"}, r"frame lidar \(here ego\)"),
])  # fmt: skip
def test_a_teacher_that_cannot_be_one(tmp_path, settings, message):
    saved(tiny(**{"encoding": "point3d_lidar", **settings}), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=message):
        student(tmp_path / "x.safetensors").build().oracle.network()


def test_another_kind_of_network_and_none(tmp_path):
    saved(tiny(encoding="point3d_lidar"), tmp_path / "x.safetensors", "somewhere:Else")
    with pytest.raises(CheckpointError, match=r"teacher=.* holds somewhere:Else, where an oracle of frustum\.models\.ppe3d:Ppe3dConfig"):
        student(tmp_path / "x.safetensors").build().oracle.network()
    with pytest.raises(ConfigError, match=r"model\.distill\.teacher=RUN"):
        tiny(distill={}).build()
