"""Lifting by sampling: features arrive at the voxels that project to them; the reference's offset; what several cameras say is averaged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from frustum.geometry import CameraRig, VoxelGrid, rotation_z
from frustum.nn.lift_sample import LiftSample
from tests.nn.frames import EYE, frame_of

GRID = VoxelGrid(lower=(-8, -8, -1), upper=(8, 8, 3), cell=(1, 1, 2))
FORWARD = torch.tensor([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]], dtype=torch.float64)
LENS = torch.tensor([[20.0, 0, 16], [0, 20, 8], [0, 0, 1]], dtype=torch.float64)
SIZE, FEATURES = (16, 32), (4, 8)


def rig(*yaws: float) -> CameraRig:
    turn = torch.eye(4, dtype=torch.float64).repeat(len(yaws), 1, 1)
    turn[:, :3, :3] = rotation_z(torch.tensor(yaws, dtype=torch.float64))
    return CameraRig.create(LENS.expand(1, len(yaws), 3, 3), (turn @ FORWARD)[None], SIZE)


def by_hand(features: np.ndarray, sampling: str) -> np.ndarray:
    """(C, X, Y, Z) of one camera that looks along x, voxel by voxel."""
    channels, h, w = features.shape
    found = np.zeros((channels, *GRID.shape))
    for i, j, k in np.ndindex(*GRID.shape):
        x, y, z = GRID.centres(torch.float64)[i, j, k].tolist()
        if x <= 0:
            continue
        u, v = (16 - 20 * y / x) * w / SIZE[1], (8 - 20 * (z - 0.5) / x) * h / SIZE[0]
        if sampling == "reference":
            inside, at, row = -0.5 < u < w - 0.5 and -0.5 < v < h - 0.5, u * w / (w - 1) - 0.5, v * h / (h - 1) - 0.5
        else:
            inside, at, row = 0 < u < w and 0 < v < h, np.clip(u - 0.5, 0, w - 1), np.clip(v - 0.5, 0, h - 1)
        for r in (math.floor(row), math.floor(row) + 1):
            for c in (math.floor(at), math.floor(at) + 1):
                if inside and 0 <= r < h and 0 <= c < w:
                    found[:, i, j, k] += (1 - abs(at - c)) * (1 - abs(row - r)) * features[:, r, c]
    return found


@pytest.mark.parametrize("sampling", ["clean", "reference"])
def test_voxels_equal_the_formula(sampling):
    features = torch.randn(1, 3, *FEATURES)
    found = LiftSample(GRID, sampling)(features, frame_of(rig(0.0)), EYE)
    assert found.shape == (1, 3, *GRID.shape)
    expected = by_hand(features[0].double().numpy(), sampling)
    assert (expected != 0).any(0).sum() > 50
    np.testing.assert_allclose(found[0].numpy(), expected, atol=2e-5)


def test_rows_forward_are_the_same_voxels():
    features = torch.randn(1, 3, *FEATURES)
    plain, turned = (LiftSample(GRID, rows_forward=to)(features, frame_of(rig(0.0)), EYE) for to in (False, True))
    assert torch.equal(turned, plain.flip(3, 4).permute(0, 1, 4, 2, 3))


def test_turning_the_rig_turns_the_voxels():
    features = torch.randn(1, 2, *FEATURES)
    ahead, left = (LiftSample(GRID)(features, frame_of(rig(yaw)), EYE) for yaw in (0.0, math.pi / 2))
    torch.testing.assert_close(left, ahead.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)


def test_cameras_are_averaged_where_they_see_the_same():
    """Of equal cameras, `clean` takes the mean; `reference` leaves a camera out where its feature is zero."""
    features = torch.stack([torch.full((2, *FEATURES), 1.0), torch.full((2, *FEATURES), 3.0)])
    features[1, 1] = 0
    clean, reference = (LiftSample(GRID, s)(features, frame_of(rig(0.0, 0.0)), EYE) for s in ("clean", "reference"))
    assert set(clean[0, 0].round(decimals=4).unique().tolist()) == {0, 2}
    assert set(clean[0, 1].round(decimals=4).unique().tolist()) == {0, 0.5}
    assert float(reference[0, 0].max()) == pytest.approx(2, abs=1e-3)
    assert float(reference[0, 1].max()) == pytest.approx(1, abs=1e-3)


def test_moving_between_exposures_moves_features_unless_as_published():
    features, key = torch.randn(1, 2, *FEATURES), EYE.clone()
    key[0, 0, 3] = 1.0  # the vehicle drove a metre after the image was taken
    still = {s: LiftSample(GRID, s)(features, frame_of(rig(0.0)), EYE) for s in ("clean", "reference")}
    moved = {s: LiftSample(GRID, s)(features, frame_of(rig(0.0), key), EYE) for s in ("clean", "reference")}
    torch.testing.assert_close(moved["clean"][:, :, :-1], still["clean"][:, :, 1:], atol=1e-4, rtol=1e-4)
    assert torch.equal(moved["reference"], still["reference"])


def test_augmentation_and_frame_of_the_map():
    features, mirror = torch.randn(1, 2, *FEATURES), torch.diag(torch.tensor([1.0, -1, 1, 1], dtype=torch.float64))[None]
    plain, lift = LiftSample(GRID)(features, frame_of(rig(0.0)), EYE), LiftSample(GRID)
    flipped = lift(features, frame_of(rig(0.0), bev_aug=mirror), EYE)
    torch.testing.assert_close(flipped, plain.flip(3), atol=1e-5, rtol=1e-5)
    map2ego = EYE.clone()
    map2ego[0, 0, 3] = 2.0
    torch.testing.assert_close(lift(features, frame_of(rig(0.0)), map2ego)[:, :, :-2], plain[:, :, 2:], atol=1e-4, rtol=1e-4)


def test_what_a_rig_sees_is_kept():
    lift, features = LiftSample(GRID), torch.randn(1, 2, *FEATURES)
    first = lift(features, frame_of(rig(0.0)), EYE)
    assert torch.equal(first, lift(features, frame_of(rig(0.0)), EYE))
    assert len(lift.plans) == 1
