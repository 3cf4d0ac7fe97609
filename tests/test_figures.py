"""Pictures of the docs: faults that tools/ground_faults.py shows, rows that framing_figure.py draws, swaps of a photograph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.framing import framing
from frustum.data.sample import CameraFrame, Sample
from frustum.data.source import AugmentConfig
from frustum.errors import DataError
from frustum.geometry import pose
from frustum.worlds.heads.generate import generate_heads
from frustum.worlds.street.rigs import StreetRig
from tools import framing_figure, ground_faults, head_photograph

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The cameras of nuScenes with grey images."""
    file = tmp_path_factory.mktemp("grey") / "grey.png"
    Image.new("RGB", (80, 45), (120, 120, 120)).save(file)
    cameras = []
    for camera in StreetRig.nuscenes().cameras:
        intrinsics, size = camera.fitted(45, 80)
        cameras.append(CameraFrame(camera.name, file, 0.0, intrinsics, camera.cam2ego.sensor2ego, np.eye(4), size))
    return Sample("t", "s", 0.0, np.eye(4), tuple(cameras))


def poses(sample: Sample) -> dict[str, np.ndarray]:
    return {camera.channel: camera.cam2ego for camera in sample.cameras}


def test_the_faults_are_what_their_titles_say(sample: Sample) -> None:
    right = poses(sample)
    far = poses(ground_faults.in_millimetres(sample))
    swapped = poses(ground_faults.exchanged(sample))
    yawed = poses(ground_faults.turned(sample))
    for channel, matrix in right.items():
        np.testing.assert_allclose(far[channel], pose(matrix[:3, :3], 1000 * matrix[:3, 3]))
        other = {"CAM_FRONT_LEFT": "CAM_FRONT_RIGHT", "CAM_FRONT_RIGHT": "CAM_FRONT_LEFT"}.get(channel, channel)
        np.testing.assert_array_equal(swapped[channel], right[other])
        np.testing.assert_array_equal(yawed[channel][:3, 3], matrix[:3, 3])
        bearing = np.degrees(np.arctan2(yawed[channel][1, 2], yawed[channel][0, 2]) - np.arctan2(matrix[1, 2], matrix[0, 2]))
        assert bearing == pytest.approx(12 if channel == "CAM_FRONT" else 0)


def test_the_sheet_has_a_panel_for_each(sample: Sample) -> None:
    sheet = ground_faults.sheet_of(sample, side=120)
    assert sheet.size == (2 * 120 + 12, 2 * (120 + 34) + 12)
    with pytest.raises(DataError, match="does not have CAM_FRONT"):
        ground_faults.mounted(Sample("t", "s", 0.0, np.eye(4), sample.cameras[:1]), {"CAM_FRONT": np.eye(4)})


def test_the_table_of_the_docs_states_the_rows_that_are_drawn() -> None:
    page = (ROOT / "docs" / "your_own_cameras.md").read_text()
    for name, (height, width) in framing_figure.CAMERAS.items():
        camera = framing_figure.camera_of(name, (height, width))
        placed, bottom = (framing(camera, AugmentConfig(window=window), framing_figure.NETWORK) for window in ("auto", "bottom"))
        assert placed.horizon == height / 2
        found = re.search(rf"^\| {width} x {height} \| (\d+) to (\d+) \| (\d+) to (\d+)", page, re.MULTILINE)
        assert found is not None
        assert tuple(map(int, found.groups())) == (*placed.rows, *bottom.rows)


def test_what_becomes_of_a_photograph(tmp_path: Path) -> None:
    """A generated portrait stands in for it; the head of each is on the other, and everything else stays."""
    generate_heads(head_photograph.PEOPLE.model_copy(update={"seed": 78}), tmp_path / "others", workers=1)
    photograph = next((tmp_path / "others" / "img").glob("*/*/*.png"))
    shown = head_photograph.panels(photograph, tmp_path)
    assert head_photograph.sheet_of(shown).size == (4 * 256, 256 + 22)
    before, after = (np.asarray(shown[title]).astype(int) for title in ("generated", "its head, swapped"))
    changed = abs(after - before).max(2) > 30
    assert 0.02 < changed.mean() < 0.4
    assert not changed[:20].any()
