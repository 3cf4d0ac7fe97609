"""check and data status on images with label maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from frustum.errors import ConfigError, DataError
from tests.cli.conftest import Run
from tests.data.images.folder import write_folder


def test_check(frustum: Run, tmp_path: Path) -> None:
    root, out, file = write_folder(tmp_path / "images"), tmp_path / "out", tmp_path / "check.json"
    words = ("check", root, "--split", "val", "--pictures", 1, "--out", out, "--json", file)
    code, text, err = frustum(*words, "--augment", "--recipe", "pspnet-lite")
    assert code == 0, err + text
    assert "3 images checked: nothing is wrong" in text
    assert "label maps must lie on what they belong to" in text
    found = json.loads(file.read_text())
    assert [Path(name).name for name in found["pictures"]] == ["val-000.png", "val-000_augmented.png"]
    assert all(Path(name).is_file() for name in found["pictures"])
    assert frustum(*words, "--augment")[0] == ConfigError.exit_code
    Image.fromarray(np.full((48, 80), 9, np.uint8)).save(root / "labels" / "val" / "001.png")
    code, text, _ = frustum(*words, "--pictures", 0)
    assert code == DataError.exit_code
    assert "val-001: the label map" in text


def test_status(frustum: Run, tmp_path: Path) -> None:
    root, file = write_folder(tmp_path / "images"), tmp_path / "status.json"
    code, text, err = frustum("data", "status", root, "--json", file)
    assert code == 0, err
    assert "read as ImageFolder, 4 classes: road, sky, car, tree" in text
    assert json.loads(file.read_text())["splits"][0] == {"name": "train", "images": 6, "labelled": 6}
