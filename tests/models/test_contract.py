"""The contract of docs/add_a_method.md, for every recipe: a new one is tested by existing."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from frustum.engine import overrides
from frustum.geometry import CameraRig, rotation_z
from frustum.recipes.finding import get_recipe, list_recipes
from frustum.types.batch import Batch
from frustum.types.predictions import Prediction

SIZE = (64, 96)
# Small sizes, so that every recipe runs in a moment; a setting that a model does not have is left out.
SMALL = {
    "pretrained": "false",
    "resnet": "18",
    "neck_channels": "16",
    "lift_channels": "8",
    "bev_channels": "16",
    "voxel_channels": "8",
    "depth_bins": '{"step": 2.0}',
    "swin": '{"embed_channels": 8, "depths": [1, 1, 2, 1], "heads": [1, 2, 2, 2], "window": 4}',
    "grid": '{"lower": [-16, -16, -1], "upper": [16, 16, 5.4], "cell": [2, 2, 0.8]}',
}
NAMES = [info.name for info in list_recipes()]


def build(name: str, seed: int = 0) -> torch.nn.Module:
    recipe = get_recipe(name)
    settings = [f"model.{key}={value}" for key, value in SMALL.items() if getattr(recipe.model, key, None) is not None]
    torch.manual_seed(seed)
    return overrides.apply(recipe, settings).model.build()


def rig(cameras: int) -> tuple[np.ndarray, np.ndarray]:
    """Cameras all around, looking slightly down."""
    forward = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    cam2ego = np.tile(np.eye(4), (cameras, 1, 1))
    cam2ego[:, :3, :3] = rotation_z(np.linspace(0, 2 * np.pi, cameras, endpoint=False)) @ forward
    cam2ego[:, 2, 3] = 1.5
    intrinsics = np.tile(np.array([[60.0, 0, 48], [0, 60, 24], [0, 0, 1]]), (cameras, 1, 1))
    return intrinsics, cam2ego


def make_batch(model: torch.nn.Module, count: int = 2, cameras: int = 2, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    grid = model.config.grid
    boxes = torch.zeros(count, 5, 9)
    boxes[..., :2] = 30 * torch.rand(count, 5, 2, generator=draw) - 15
    boxes[..., 3:6] = 1 + 4 * torch.rand(count, 5, 3, generator=draw)
    labels = torch.where(
        torch.rand(count, *grid.shape, generator=draw) < 0.8, 17, torch.randint(0, 17, (count, *grid.shape), generator=draw)
    )
    frames = 1 + min(2, model.config.frames_before)  # networks over time get a past; what is missing of a long one is their affair
    poses = np.tile(np.eye(4), (count, frames, cameras, 1, 1))
    poses[..., 0, 3] = 100 - 2.5 * np.arange(frames)[None, :, None]  # drives ahead, newest first
    batch = Batch.from_arrays(
        torch.randn(count, frames, cameras, 3, *SIZE, generator=draw),
        *rig(cameras),
        poses,
        semantics=labels.to(torch.uint8),
        mask_camera=torch.rand(count, *grid.shape, generator=draw) < 0.6,
        mask_lidar=torch.rand(count, *grid.shape, generator=draw) < 0.8,
        depth=torch.where(
            torch.rand(count, cameras, *SIZE, generator=draw) < 0.3, 30 * torch.rand(count, cameras, *SIZE, generator=draw), 0
        ),
    )
    return replace(batch, boxes=list(boxes), box_classes=list(torch.randint(0, 10, (count, 5), generator=draw)))


def take(batch: Batch, index: int) -> Batch:
    """One sample of a batch."""
    part = slice(index, index + 1)
    rigs: CameraRig = batch.rig[part]
    names = ("images", "key_ego2global", "bev_aug", "semantics", "mask_camera", "mask_lidar", "depth", "tokens")
    return Batch(rig=rigs, **{name: getattr(batch, name)[part] for name in names})


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_predictions(name):
    model = build(name).eval()
    batch = make_batch(model)
    with torch.no_grad():
        outputs = model(batch)
    shape, classes = model.config.grid.shape, len(model.config.class_names)
    assert all(isinstance(value, torch.Tensor) for value in outputs.values())
    assert all(torch.isfinite(value).all() for value in outputs.values())
    assert outputs["occ_logits"].shape == (2, *shape, classes)
    assert outputs["occ_logits"].dtype == torch.float32
    assert outputs["depth"].shape[:2] == (4, model.config.depth_bins.count)
    predictions = model.predict(outputs, batch)
    assert len(predictions) == 2
    assert all(isinstance(p, Prediction) for p in predictions)
    for prediction, logits, token in zip(predictions, outputs["occ_logits"], batch.tokens, strict=True):
        assert prediction.token == token
        assert prediction.semantics.dtype == torch.uint8
        assert prediction.grid == model.config.grid
        assert prediction.class_names == model.config.class_names
        assert torch.equal(prediction.semantics.long(), logits.argmax(-1))
    documented = type(model).__doc__
    assert all(f"{key}:" in documented for key in outputs), "every output key is documented in the class"


@pytest.mark.parametrize("name", NAMES)
def test_loss_reaches_every_trainable_parameter(name):
    model = build(name).train()
    batch = make_batch(model)
    batch.boxes[0], batch.box_classes[0] = batch.boxes[0][1:], batch.box_classes[0][1:]  # of an even number, signs of L1 losses may cancel
    losses = model.loss(model(batch), batch)
    assert losses
    assert all(loss.dim() == 0 and loss.dtype == torch.float32 and math.isfinite(loss.detach()) for loss in losses.values())
    sum(losses.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name
            # dead units are chance, dead parameters are bugs
            assert parameter.grad.any(), parameter_name
        else:
            assert parameter.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_two_equals_two_of_one(name):
    model = build(name).eval()
    batch = make_batch(model)
    with torch.no_grad():
        together = model(batch)["occ_logits"]
        alone = torch.cat([model(take(batch, i))["occ_logits"] for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip(name):
    model, other = build(name, 0).eval(), build(name, 1).eval()
    batch = make_batch(model, count=1)
    with torch.no_grad():
        before = model(batch)["occ_logits"]
        assert not torch.equal(other(batch)["occ_logits"], before)
        other.load_state_dict(copy.deepcopy(model.state_dict()))
        assert torch.equal(other(batch)["occ_logits"], before)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_autocast(name):
    model = build(name).train()
    batch = make_batch(model)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(model(batch), batch)
    sum(losses.values()).backward()
    assert all(math.isfinite(loss.detach()) for loss in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.predict(model(batch), batch)[0].semantics.shape == model.config.grid.shape


@pytest.mark.parametrize("cameras", [1, 4, 6, 8])
@pytest.mark.parametrize("name", NAMES)
def test_number_of_cameras(name, cameras):
    model = build(name).eval()
    with torch.no_grad():
        outputs = model(make_batch(model, count=1, cameras=cameras))
    assert outputs["depth"].shape[0] == cameras
    assert torch.isfinite(outputs["occ_logits"]).all()


@pytest.mark.parametrize("name", [n if n == "flashocc-tiny" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_one_sample_overfits(name):
    model = build(name).train()
    batch = make_batch(model, count=1, cameras=2)
    labels = torch.full_like(batch.semantics, 17)
    labels[..., 0] = 11
    labels[:, 9:12, 6:10, 1:3] = 4  # in front of the first camera
    batch.semantics.copy_(labels)
    batch.mask_camera.fill_(True)
    if hasattr(model, "prepare"):  # as the training loop does
        counts = torch.nn.functional.one_hot(labels[0].long(), 18).sum((0, 1)).numpy()
        model.prepare(SimpleNamespace(counts=counts))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(90):
        optimizer.zero_grad()
        sum(model.loss(model(batch), batch).values()).backward()
        optimizer.step()
    with torch.no_grad():
        # as trained: with the statistics of this very batch
        outputs = model(replace(batch, semantics=None))
        found = model.predict(outputs, batch)[0].semantics
    assert (found == labels[0]).float().mean() > 0.97
    assert (found[labels[0] == 4] == 4).float().mean() > 0.8
