"""Opening a data set by its folder: as it is, as a recipe's section would, and rig folders."""

from __future__ import annotations

import pytest

from frustum.data.nuscenes.section import NuScenesData
from frustum.data.opening import open_root, opened
from frustum.data.source import DataConfig, spread
from frustum.errors import DataError
from tests.data.toy import VERSION, toy_database


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy_database(tmp_path_factory.mktemp("toy"))


def test_the_only_version_is_taken(root):
    source = open_root(root)
    assert (source.version, source.camera_only) == (VERSION, False)
    with pytest.raises(DataError, match=r"no version 'v1.0-mini'"):
        open_root(root, "v1.0-mini")
    with pytest.raises(DataError, match="is not a nuScenes data set"):
        open_root(root / "samples")


def test_a_section_says_which_cameras(root):
    with opened(root, data=NuScenesData(root="elsewhere", cameras=("CAM_BACK",))) as source:
        sample = source.sample(source.tokens()[0])
    assert [camera.channel for camera in sample.cameras] == ["CAM_BACK"]
    assert sample.lidar is not None, "where it is; its points are read by who needs them"
    with opened(root, VERSION) as source:
        assert source.sample(source.tokens()[0]).lidar is not None


def test_other_sections_open_what_they_know(root):
    class Folder(DataConfig):
        def open(self):
            return f"the images in {self.root}"

    with opened(root, data=Folder()) as source:
        assert source == f"the images in {root}"


def test_spread_takes_ends_and_even_steps():
    assert spread(list("abcdefg"), 3) == ["a", "d", "g"]
    assert spread(list("ab"), 3) == ["a", "b"]
