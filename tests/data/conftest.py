"""Fixtures of the data tests: a cache of their own, a toy database, the golden nuScenes sample."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.data.toy import toy_database


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("FRUSTUM_CACHE", str(tmp_path_factory.getbasetemp() / "frustum-cache"))


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two scenes of three keyframes. Treat it as read-only."""
    return toy_database(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def synth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden sample: nuscenes_synth/ (tables, LiDAR, point labels; no images) and the expected values beside it."""
    folder = tmp_path_factory.mktemp("synth")
    with tarfile.open(Path(__file__).with_name("nuscenes_synth.tar.gz")) as archive:
        archive.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(folder)
    return folder
