"""SimpleBEV against numbers of the reference implementation, and what is ours: clean sampling, one set of axes, frames of cameras."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from frustum.data.labels.map_classes import CAMERA_AXES, MapLabels
from frustum.geometry import VoxelGrid
from frustum.models.bev_segmentation import MapLoss, Maps, map_losses
from frustum.models.simplebev import SimpleBevConfig
from frustum.types.batch import Batch
from frustum.types.contract import Shapes
from frustum.types.frame import keyframe_of
from tests.models import golden_simplebev as gold

FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def test_the_network_equals_the_reference():
    keys = json.loads((gold.DATA / "keys_effb0.json").read_text())
    with np.load(gold.DATA / "outputs_effb0.npz") as stored:
        model, batch = gold.network("effb0", keys), gold.batch(stored)
        with torch.no_grad():
            outputs = model(batch)
        np.testing.assert_allclose(gold.own_axes(outputs["map_logits"]), stored["seg"], atol=2e-3, rtol=0)
        np.testing.assert_allclose(gold.own_axes(outputs["centre"])[..., ::2, ::2], stored["center"], atol=2e-3, rtol=0)
        np.testing.assert_allclose(gold.own_axes(outputs["offset"])[..., ::2, ::2], stored["offset"], atol=2e-3, rtol=0)


@pytest.mark.parametrize("encoder", ["res50", "effb0"])
def test_every_stage_equals_the_reference(shared, encoder):
    folder = shared / "golden" / "simplebev"
    keys, info = (json.loads((folder / name).read_text()) for name in (f"keys_{encoder}.json", f"info_small_{encoder}.json"))
    with np.load(folder / f"outputs_small_{encoder}.npz") as stored:
        model, batch = gold.network(encoder, keys), gold.batch(stored)
        assert sum(p.numel() for p in model.parameters()) == info["params"]
        frame = keyframe_of(batch)
        with torch.no_grad():
            features = model.encoder(frame.images.flatten(0, 1))
            volume = model.lift(features, frame, model.config.maps.map2ego(batch, False))
            compressed = model.bev_compressor(volume.flatten(1, 2))
            outputs = model(batch)
        found = {"enc": features[:, ::8, ::2, ::2], "lift": volume[:, ::8, :, ::3, ::3], "bev": compressed[:, ::8, ::3, ::3]}
        for name, tensor in found.items():
            atol = {"enc": 1e-4, "lift": 2e-4, "bev": 2e-3}[name]
            np.testing.assert_allclose(tensor.numpy(), stored[name], atol=atol, rtol=0, err_msg=name)
        for name, key in (("raw", "bev"), ("feat", "features")):
            np.testing.assert_allclose(gold.own_axes(outputs[key])[:, ::8, ::3, ::3], stored[name], atol=2e-3, rtol=0, err_msg=name)
        seen = model.lift.plan(frame, model.config.maps.map2ego(batch, False), features).seen
        hits = stored["hits"].flatten()  # voxels with a feature that is not zero: not those whose place lies just outside the map
        assert all(0 <= voxels - hit <= 20 for voxels, hit in zip(seen, hits, strict=True))
        assert float((volume != 0).any(1).float().mean()) == pytest.approx(info["cover"], abs=1e-3)


@pytest.mark.parametrize("encoder", list(gold.ENCODERS))
def test_keys_are_the_official_ones(shared, encoder):
    keys = json.loads((shared / "golden" / "simplebev" / f"keys_{encoder}.json").read_text())
    with torch.device("meta"):
        model = SimpleBevConfig(encoder=gold.ENCODERS[encoder], feature_head=True).build()
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == keys


def test_losses_equal_the_reference():
    """The total with the learned weights 0.3, -0.2 and 0.1."""
    expected = json.loads((gold.DATA / "labels.json").read_text())["losses"]
    draw = gold.rng("labels/preds")
    shapes = {"map_logits": (1, 1, 200, 200), "centre": (1, 1, 200, 200), "offset": (1, 2, 200, 200)}
    outputs = {name: torch.from_numpy(draw.standard_normal(shape)).float() for name, shape in shapes.items()}
    outputs["centre"] = outputs["centre"].sigmoid()
    outputs = {name: value.transpose(-1, -2).flip(-2) for name, value in outputs.items()}
    weights = {f"{name}_weight": torch.tensor(value) for name, value in expected["weights"].items()}
    batch = Batch.of_images(torch.zeros(1, 3, 8, 8)).with_labels({MapLabels: gold.drawn()})
    losses = map_losses(outputs, batch, MapLoss(doubled_offsets=True), weights)
    assert float(sum(losses.values())) == pytest.approx(expected["total"], rel=1e-5)
    plain = map_losses(outputs, batch, MapLoss(doubled_offsets=True, learned_weights=False), {})
    for name, key in (("map", "ce"), ("centre", "center"), ("offset", "offset")):
        assert float(plain[name]) == pytest.approx(expected[key], rel=1e-5), name
    third = map_losses(outputs, batch, MapLoss(doubled_offsets=True, average=True), weights)
    assert float(sum(third.values())) == pytest.approx(expected["total"] / 3, rel=1e-5)


def test_a_camera_of_reference_is_the_frame_of_the_map():
    """One camera that looks along y: in its own frame the map is what the ego frame's is for a camera that looks along x."""
    turned = np.eye(4)
    turned[:3, :3] = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ FORWARD
    turned[:3, 3] = 3, 4, 1.5
    ahead = np.eye(4)
    ahead[:3, :3] = FORWARD
    lens, images = np.array([[50.0, 0, 48], [0, 50, 32], [0, 0, 1]]), torch.randn(1, 3, 64, 96)
    grid = VoxelGrid(lower=(-50, -50, -5), upper=(50, 50, 5), cell=(2.5, 2.5, 5))
    settings = {"encoder": "efficientnet_lite0", "channels": 8, "map_channels": (8, 8, 8), "grid": grid}
    outputs = []
    for rule, cam2ego in (("simplebev", turned), ("lss", ahead)):
        torch.manual_seed(0)
        model = SimpleBevConfig(**settings, maps=Maps(rule=rule, reference=0)).build().eval()
        with torch.no_grad():
            outputs.append(model(Batch.from_arrays(images, lens[None], cam2ego[None]))["map_logits"])
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(CAMERA_AXES[:3, :3], FORWARD.T)


def test_in_training_the_map_is_in_the_frame_of_the_labels():
    maps = Maps(rule="simplebev", reference=0)
    cam2ego = np.tile(np.eye(4), (2, 1, 1))
    cam2ego[1, 0, 3] = 7
    batch = Batch.from_arrays(torch.zeros(2, 2, 3, 16, 16), np.tile(np.eye(3), (2, 1, 1)), cam2ego)
    example = MapLabels(rule="simplebev", reference=1).example(np.random.default_rng(0), Shapes(2, 2, (16, 16)))
    labelled = batch.with_labels({MapLabels: example})
    assert example.references == [1, 1]
    assert maps.map2ego(labelled, training=True)[:, 0, 3].tolist() == [7, 7]
    assert maps.map2ego(labelled, training=False)[:, 0, 3].tolist() == [0, 0]
