"""OccFeat's losses: the numbers of the specification (golden/occfeat, float64), and what each part means."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frustum.geometry import CameraRig, VoxelGrid
from frustum.losses.voxel_features import (
    feature_loss,
    feature_targets,
    occupancy_loss,
    occupied_voxels,
    over_unit_square,
    places_in_images,
)

FOLDER = Path(__file__).parents[1] / "data" / "occfeat"
GRID = VoxelGrid(lower=(-50, -50, -5), upper=(50, 50, 5), cell=(0.5, 0.5, 1.25))
HEIGHT, WIDTH = 224, 406


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    with np.load(FOLDER / "spec_oracle.npz") as arrays:
        return json.loads((FOLDER / "spec_oracle.json").read_text()) | dict(arrays)


@pytest.fixture(scope="module")
def occupied() -> Tensor:
    points = rng("occfeat/points").uniform([-55, -55, -6], [55, 55, 7], (30000, 3))
    return occupied_voxels(torch.from_numpy(points), GRID)


def golden_rig(stored: dict[str, Any]) -> CameraRig:
    cam2ego = np.tile(np.eye(4), (2, 1, 1))
    cam2ego[:, :3, :3], cam2ego[:, :3, 3] = stored["ego_T_cam_R"], stored["ego_T_cam_t"]
    return CameraRig.create(torch.from_numpy(stored["K"]).expand(2, 3, 3), torch.from_numpy(cam2ego), (HEIGHT, WIDTH))


def unit_rig(rig: CameraRig) -> CameraRig:
    return over_unit_square(rig, rig.image_aug, torch.tensor([rig.image_size]).expand(len(rig.image_aug), 2))


def test_occupied_voxels_are_those_of_the_specification(stored: dict[str, Any], occupied: Tensor) -> None:
    assert int(occupied.sum()) == stored["occupied"] == 18392
    np.testing.assert_array_equal(occupied.flatten().nonzero()[:, 0].numpy(), stored["occ_flat"])


def test_feature_targets_are_those_of_the_specification(stored: dict[str, Any], occupied: Tensor) -> None:
    maps = torch.from_numpy(rng("occfeat/teacher").standard_normal((2, 6, 16, 29)))
    centres = GRID.centres(torch.float64)[occupied]
    places, visible = places_in_images(centres, unit_rig(golden_rig(stored)), torch.eye(4, dtype=torch.float64))
    seen = visible.any(0).numpy()
    assert (int(seen.sum()), int(visible.all(0).sum())) == (5559, stored["seen_by_two"])
    np.testing.assert_array_equal(seen, np.unpackbits(stored["visible"], count=len(seen)).astype(bool))
    targets = feature_targets(maps, places, visible)
    np.testing.assert_allclose(targets.numpy()[::7], stored["target"], atol=1e-5)
    predicted = torch.from_numpy(rng("occfeat/pred").standard_normal((18392, 6)))
    found = feature_loss(predicted[seen], targets[seen])
    assert float(found) == pytest.approx(stored["cos_loss"], abs=1e-6)


def test_occupancy_loss_is_that_of_the_specification(stored: dict[str, Any], occupied: Tensor) -> None:
    logits = torch.from_numpy(rng("occfeat/logit").standard_normal(320000))
    assert float(occupancy_loss(logits, occupied.flatten())) == pytest.approx(stored["bce_mean"], abs=1e-6)


def test_weights_of_the_occupancy_loss() -> None:
    logits, occupied = torch.tensor([0.5, -1.0, 2.0, 0.1]), torch.tensor([True, True, False, False])
    p = logits.double().sigmoid().numpy()
    each = -np.log(np.where(occupied, p, 1 - p))
    assert float(occupancy_loss(logits, occupied)) == pytest.approx(each.mean(), rel=1e-6)
    weighted = each * np.where(occupied, 3.0, 1.0)
    assert float(occupancy_loss(logits, occupied, positive_weight=3)) == pytest.approx(weighted.mean(), rel=1e-6)
    focal = each * np.where(occupied, 1 - p, p) ** 2 * np.where(occupied, 0.25, 0.75)
    assert float(occupancy_loss(logits, occupied, focal=2)) == pytest.approx(focal.mean(), rel=1e-6)
    counted = torch.tensor([True, False, True, False])
    assert float(occupancy_loss(logits, occupied, counted)) == pytest.approx(each[[0, 2]].mean(), rel=1e-6)
    assert float(occupancy_loss(logits, occupied, torch.zeros(4, dtype=torch.bool))) == 0


def test_no_point_that_is_seen_teaches_nothing() -> None:
    nothing = torch.zeros(0, 6, requires_grad=True)
    loss = feature_loss(nothing, torch.zeros(0, 6))
    loss.backward()
    assert float(loss.detach()) == 0


def test_a_feature_stands_in_the_middle_of_its_part_of_the_image() -> None:
    """Whatever the size of the photograph, and however the image was mirrored."""
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    rig = CameraRig.create(torch.tensor([[[100.0, 0, 200], [0, 100, 150], [0, 0, 1]]]), torch.eye(4)[None], (300, 400))
    middle = torch.stack(torch.meshgrid(torch.arange(4) + 0.5, torch.arange(3) + 0.5, indexing="xy"), -1).flatten(0, 1) * 100
    points = torch.cat([(middle - torch.tensor([200, 150])) / 100, torch.ones(12, 1)], 1) * 5  # 5 m ahead of the camera
    places, visible = places_in_images(points, unit_rig(rig), torch.eye(4))
    assert visible.all()
    torch.testing.assert_close(feature_targets(maps, places, visible)[:, 0], torch.arange(12.0))
    places, visible = places_in_images(points, unit_rig(rig.flipped()), torch.eye(4))
    torch.testing.assert_close(feature_targets(maps.flip(-1), places, visible)[:, 0], torch.arange(12.0))
    assert not places_in_images(-points, unit_rig(rig), torch.eye(4))[1].any(), "behind the camera"
