"""A rig is compared with the one that weights were trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.rig.likeness import described, differences
from frustum.data.sample import CameraFrame
from frustum.geometry import rotation_xyz
from tests.data.toy import VERSION, toy_database


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> tuple[CameraFrame, ...]:
    database = NuScenes(toy_database(tmp_path_factory.mktemp("toy")), VERSION)
    return database.sample(database.tokens()[0]).cameras


def moved(camera: CameraFrame, up: float = 0.0, yaw: float = 0.0, pitch: float = 0.0, zoom: float = 1.0) -> CameraFrame:
    cam2ego, intrinsics = camera.cam2ego.copy(), camera.intrinsics.copy()
    cam2ego[:3, :3] = rotation_xyz(0, 0, np.radians(yaw)) @ cam2ego[:3, :3] @ rotation_xyz(np.radians(pitch), 0, 0)
    cam2ego[2, 3] += up
    intrinsics[[0, 1], [0, 1]] *= zoom
    return replace(camera, cam2ego=cam2ego, intrinsics=intrinsics)


def test_a_rig_is_like_itself_in_any_order_and_with_small_changes(cameras: tuple[CameraFrame, ...]) -> None:
    trained = described(cameras)
    assert set(trained[0]) == {"channel", "view", "heading", "elevation", "height"}
    assert differences(trained, described(cameras[::-1])) == []
    assert differences(trained, described([moved(c, up=0.1, yaw=3, zoom=1.05) for c in cameras])) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [({"up": 0.8}, "m high instead of"), ({"zoom": 2.0}, "degrees instead of"), ({"pitch": 30}, "degrees up instead of")],
)
def test_what_differs_is_named(cameras: tuple[CameraFrame, ...], change: dict[str, Any], words: str) -> None:
    other = described([moved(cameras[0], **change), *cameras[1:]])
    (difference,) = differences(described(cameras), other)
    assert difference.startswith(cameras[0].channel)
    assert words in difference


def test_another_number_of_cameras_and_other_headings(cameras: tuple[CameraFrame, ...]) -> None:
    trained = described(cameras[:1])
    assert differences(trained, described([moved(cameras[0], yaw=60)]))[0].endswith(f"(nearest: {trained[0]['heading']:.0f})")
    assert differences(trained, described(cameras[:1] * 2)) == ["2 cameras instead of 1"]
