"""The code in docs/add_a_method.md is a method: it builds, learns and predicts as the page says."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from frustum.geometry import VoxelGrid
from frustum.types.batch import Batch

PAGE = Path(__file__).parents[1] / "docs" / "add_a_method.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture
def mono_height(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("frustum.models.mono_height")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(blocks()[0], "add_a_method.md", "exec", dont_inherit=True), module.__dict__)
    module.MonoHeightConfig.model_rebuild(_types_namespace=module.__dict__)
    return module


def test_the_network_keeps_the_contract(mono_height: types.ModuleType) -> None:
    grid = VoxelGrid(lower=(-8, -8, -1), upper=(8, 8, 5.4), cell=(0.8, 0.8, 0.8))
    model = mono_height.MonoHeightConfig(grid=grid, channels=8).build()
    cam2ego = torch.eye(4)
    cam2ego[:3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    intrinsics = torch.tensor([[40.0, 0, 32], [0, 40, 16], [0, 0, 1]])
    shape = grid.shape
    batch = Batch.from_arrays(
        torch.randn(2, 1, 3, 32, 64),
        intrinsics[None],
        cam2ego[None],
        semantics=torch.randint(0, 18, (2, *shape)),
        mask_camera=torch.ones(2, *shape, dtype=torch.bool),
    )
    outputs = model(batch)
    assert outputs["occ_logits"].shape == (2, *shape, 18)
    loss = sum(model.loss(outputs, batch).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    predictions = model.predict(outputs, batch)
    assert [p.semantics.shape for p in predictions] == [shape, shape]


def test_the_recipe_is_complete(mono_height: types.ModuleType) -> None:
    namespace: dict = {}
    exec(compile(blocks()[1], "add_a_method.md", "exec", dont_inherit=True), namespace)
    recipe = namespace["mono_height"]()
    assert recipe.name == "mono-height"
    assert recipe.model.channels == 32
    assert recipe.model_dump_json()


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

    from frustum.data.nuscenes.detection_results import read_detections, write_detections
    from frustum.data.nuscenes.detection_truth import detection_truth
    from frustum.data.nuscenes.reader import NuScenes
    from frustum.engine.score_detections import score_detections

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
    whole = score_detections(read_detections("detections.json"), database, "val", name="x", progress=False)
    assert namespace["figures"]["mean_ap"] == whole.metrics["mean_ap"]
    assert namespace["figures"]["label_aps"] == whole.metrics["label_aps"]
    cars = whole.metrics["label_aps"]["car"]
    assert cars["0.5"] < 0.5 < cars["2.0"]
