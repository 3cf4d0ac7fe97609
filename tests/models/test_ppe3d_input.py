"""What reaches a 3DPPE, against the reference: the depth of each feature from LiDAR, and cameras in a map that is turned and scaled."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frustum.data.augment import BevTransform
from frustum.data.labels.depth import depth_map
from frustum.data.sample import CameraFrame, LidarFrame
from frustum.geometry import invert
from frustum.models.ppe3d import _cell_depth
from frustum.nn.point_encoding import pixel_points
from frustum.types.batch import Batch
from frustum.types.frame import keyframe_of

TAGS = ["testV2", "trainV2_s3", "trainV2_s6", "trainV2_s8", "testV1", "trainV1_s6"]
EYE = np.eye(4)


@pytest.fixture(scope="module")
def misc(shared: Path) -> dict[str, Any]:
    with np.load(shared / "golden" / "3dppe" / "misc.npz") as stored:
        return {name: stored[name] for name in stored.files}


def image_aug(misc: dict[str, Any], tag: str) -> np.ndarray:
    """What the reference drew as our matrix; a mirror of it is at 799 - u, where ours is at 800 - u."""
    scale, left, top, *_, flip, _ = misc[f"ida_{tag}_params"]
    matrix = np.array([[scale, 0, -left], [0, scale, -top], [0, 0, 1]])
    return np.array([[-1.0, 0, 799], [0, 1, 0], [0, 0, 1]]) @ matrix if flip else matrix


@pytest.mark.data
@pytest.mark.parametrize("tag", TAGS)
def test_the_depth_of_a_feature_is_that_of_the_reference(misc, tag):
    """Ours leaves out points nearer than a metre before it takes the nearest of a cell, the reference after."""
    points = np.random.default_rng(zlib.crc32(b"pts.u")).random((20000, 3)) * [100, 100, 8] - [50, 50, 5]
    lidar, matrix, maps = LidarFrame(Path(), 0, EYE, EYE), image_aug(misc, tag), []
    for lens, lidar2cam in zip(misc["rig_cam2img"], misc["rig_lidar2cam"], strict=True):
        camera = CameraFrame("", Path(), 0, lens, invert(lidar2cam), EYE, (900, 1600))
        maps.append(depth_map(points.astype(np.float32), lidar, camera, matrix, (320, 800)))
    found = _cell_depth(torch.from_numpy(np.stack(maps))[None], (20, 50)).numpy()
    expected, known = misc[f"depth_{tag}"], np.unpackbits(misc[f"depthmask_{tag}"])[:6000].reshape(6, 20, 50) > 0
    far_enough = known & (expected >= 1) & (expected < 61.2)
    assert far_enough.sum() > 1000
    np.testing.assert_allclose(found[far_enough], expected[far_enough], atol=1e-3)
    ours = (found >= 1) & (found < 61.2)
    assert (ours & ~far_enough).sum() <= 2
    assert not (far_enough & ~ours).any()


@pytest.mark.data
@pytest.mark.parametrize("tag", TAGS)
def test_cameras_in_a_turned_and_scaled_map_are_those_of_the_reference(misc, tag):
    """A point that we place by a camera in the augmented map is seen by the reference's camera in the same pixel, at the same depth."""
    angle, scale = misc["bda_angle_scale"]
    batch = Batch.from_arrays(
        np.zeros((6, 3, 320, 800), np.float32),
        misc["rig_cam2img"],
        invert(misc["rig_lidar2cam"]),
        image_aug=np.tile(image_aug(misc, tag), (6, 1, 1)),
        bev_aug=BevTransform(rotate=float(angle), scale=float(scale)).matrix(),
    )
    depth = torch.full((1, 6, 20, 50), 17.0)
    points = pixel_points(depth, keyframe_of(batch))[0].double().numpy().reshape(6, -1, 3)
    homogeneous = np.concatenate([points, np.ones_like(points[..., :1])], -1)
    seen = np.einsum("nij,npj->npi", misc[f"bda_{tag}_l2i"], homogeneous)
    v, u = np.meshgrid(np.arange(20) * 16, np.arange(50) * 16, indexing="ij")
    np.testing.assert_allclose(seen[..., 2], 17, atol=1e-3)
    np.testing.assert_allclose(seen[..., :2] / seen[..., 2:3], np.stack([u, v], -1).reshape(1, -1, 2).repeat(6, 0), atol=0.02)
    local = np.einsum("nij,npj->npi", misc[f"bda_{tag}_ext"], homogeneous)
    np.testing.assert_allclose(local[..., 2], 17, atol=1e-3)
