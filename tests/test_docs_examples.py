"""The code in the docs runs as printed; the method of docs/add_a_method.md passes the contract test, inside and outside the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "add_a_method.md"
SMALL = """
SMALL = {"mono-height": ["model.channels=8", 'model.grid={"lower": [-16, -16, -1], "upper": [16, 16, 5.4], "cell": [2, 2, 0.8]}']}
"""


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


def contract(checkout: Path, *words: str, path: Path | None = None) -> str:
    """Run the contract test of a checkout in a process of its own; returns the last line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, [checkout, path])))}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/models/test_contract.py", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_the_method_of_the_docs_is_four_new_files_and_no_edit(tmp_path: Path) -> None:
    for name in ("frustum", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    network, settings = blocks()[:2]
    (tmp_path / "frustum/models/mono_height.py").write_text(network)
    (tmp_path / "frustum/recipes/mono_height.py").write_text(settings)
    (tmp_path / "tests/models/test_mono_height.py").write_text(SMALL)
    assert "11 passed" in contract(tmp_path, "-k", "mono-height", "-m", "slow or not slow")


def test_the_method_of_the_docs_as_a_package_with_an_entry_point(tmp_path: Path) -> None:
    network, settings = blocks()[:2]
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "my_file.py").write_text(network + settings.replace("from frustum.models.mono_height import MonoHeightConfig\n", ""))
    about = tmp_path / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[frustum.recipes]\nmono-height = my_package.my_file:mono_height\n")
    assert "10 passed" in contract(ROOT, "-k", "mono-height and not overfits", path=tmp_path)
    (about / "entry_points.txt").unlink()
    by_path = "my_package.my_file:mono_height"
    assert "10 passed" in contract(ROOT, "--recipe", by_path, "-k", "mono_height and not overfits", path=tmp_path)


def test_the_calibration_file_of_the_docs(tmp_path: Path) -> None:
    """docs/your_own_cameras.md shows a rig that the importer reads, and its cameras look where the page says."""
    import json

    import numpy as np
    from PIL import Image

    from frustum.data.rig.importer import read_rig

    page = (PAGE.parent / "your_own_cameras.md").read_text(encoding="utf-8")
    content = json.loads(re.findall(r"```json\n(.*?)```", page, flags=re.S)[0])
    for camera in content["cameras"]:
        (tmp_path / camera["name"]).mkdir()
        for k in (1, 2):
            Image.new("RGB", (1280, 720)).save(tmp_path / camera["name"] / f"000{k}.jpg")
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    cameras, frames = read_rig(tmp_path)
    assert [camera.name for camera in cameras] == ["front", "left"]
    assert len(frames) == 2
    np.testing.assert_allclose(cameras[0].cam2ego[:3, 2], [1, 0, 0], atol=1e-12)  # looks ahead
    np.testing.assert_allclose(cameras[1].cam2ego[:3, 2], [0, 1, 0], atol=1e-12)  # looks left
    assert cameras[0].intrinsics[0, 2] == 640.2 + 0.5  # from the centre of the first pixel to its corner


def test_the_quaternion_of_the_docs() -> None:
    import numpy as np

    from frustum.geometry import quaternion_to_matrix

    page = (PAGE.parent / "your_own_cameras.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.S)[0].replace("print(", "found = (")
    namespace: dict = {}
    exec(code, namespace)
    axis = quaternion_to_matrix(namespace["found"])[:, 2]
    assert np.rad2deg(np.arctan2(axis[1], axis[0])) == pytest.approx(55)
    assert np.rad2deg(np.arcsin(axis[2])) == pytest.approx(-2)


def metrics_snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PAGE.parent / "metrics.md").read_text(encoding="utf-8"), flags=re.S)


def test_the_rays_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """It runs as it stands, and the figures are those of the two metrics by themselves."""
    from frustum.metrics.ray_pq import RayPQ
    from frustum.metrics.rayiou import RayIoU

    namespace: dict = {}
    exec(metrics_snippets()[0], namespace)
    alone, panoptic = RayIoU(), RayPQ()
    volumes = [namespace[name] for name in ("pred", "truth")]
    alone.add(*volumes, namespace["origins"])
    panoptic.add(*volumes, *(namespace[name] for name in ("pred_instances", "true_instances", "origins")))
    expected = alone.compute()["rayiou@2"], panoptic.compute()["raypq@2"]
    assert [float(word) for word in capsys.readouterr().out.split()] == list(expected)
    assert 0 < expected[0] < 1
    assert 0 < expected[1] < 1
    assert namespace["true_instances"].sum() == 11 * 5 * 4


def test_the_detections_of_the_docs(street_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of two processes together have the figures of one; the truth shifted by a metre is found from 2 m on."""
    from dataclasses import replace

    import numpy as np

    from frustum.data.nuscenes.detection_results import write_detections
    from frustum.data.nuscenes.detection_truth import detection_truth
    from frustum.data.nuscenes.reader import NuScenes
    from frustum.engine.evaluate import evaluate
    from frustum.tasks.detection import DetectionFile

    database = NuScenes(street_root)
    found = {}
    for token in database.tokens("val"):
        boxes = detection_truth(database, token).boxes
        found[token] = replace(boxes, centres=boxes.centres + [1, 0, 0], scores=np.linspace(0.1, 1, len(boxes)))
    monkeypatch.chdir(tmp_path)
    write_detections(Path("detections.json"), found, {"use_camera": True})
    namespace: dict = {}
    (code,) = metrics_snippets()[1:]
    exec(code.replace("/data/nuscenes", str(street_root)), namespace)
    report = evaluate(None, DetectionFile(Path("detections.json")), database, "val", progress=False)
    whole = report.results["detection"]
    assert namespace["figures"]["mean_ap"] == whole["mean_ap"]
    assert namespace["figures"]["label_aps"] == whole["label_aps"]
    cars = whole["label_aps"]["car"]
    assert cars["0.5"] < 0.5 < cars["2.0"]
