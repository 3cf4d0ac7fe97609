"""The examples run as they are printed, only shorter."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import frustum
from frustum.types.classes import DETECTION_CLASSES

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = EXAMPLES.parent / "docs" / "methods" / "ppe3d.md"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert 10 <= len(path.read_text(encoding="utf-8").splitlines()) <= 120, path.name


def test_predict_from_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    semantics = example("predict_from_arrays").main(pretrained=False)
    assert semantics.shape == (200, 200, 16)
    assert semantics.dtype == np.uint8
    assert "voxels" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ppe3d-r50", "ultimatedo-mini"])
def test_boxes_from_arrays(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a network of queries on BGR images, and of one with a map of centres."""
    low = {"tasks.detection.decoding.score_threshold": 0} if name == "ultimatedo-mini" else {"encoder": "efficientnet_lite0"}
    settings = {f"model.{key}": value for key, value in low.items()} | {"data.image_size": (64, 192)}
    boxes = example("boxes_from_arrays").main(name, pretrained=False, **settings)
    assert boxes.boxes.shape[1] == 9
    assert 5 <= len(boxes.boxes) == len(boxes.scores) == len(boxes.classes)
    assert (boxes.boxes[:, :2].abs() <= 61.2).all()
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_the_ten_lines_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run as printed, on cameras of one's own and with a smaller network."""
    load = frustum.load
    monkeypatch.setattr(frustum, "load", lambda what: load(what, encoder="efficientnet_lite0", layers=1))
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S) if "from_arrays" in b]
    assert len(code.strip().splitlines()) <= 10
    forward = np.eye(4)
    forward[:3] = [[0, 0, 1, 1.7], [-1, 0, 0, 0], [0, -1, 0, 1.5]]
    given = {
        "pixels": np.random.default_rng(0).integers(0, 256, (2, 256, 704, 3)), "cam2ego": np.stack([forward, forward]),
        "intrinsics": np.tile([[560.0, 0, 352], [0, 560, 128], [0, 0, 1]], (2, 1, 1)),
    }  # fmt: skip
    exec(code, given)
    assert given["boxes"].shape == (len(given["scores"]), 9)
    assert len(given["names"]) == len(given["scores"]) > 0
    assert set(given["names"]) <= set(DETECTION_CLASSES)


def test_cameras_of_the_example_look_where_they_say() -> None:
    look = example("predict_from_arrays").look
    left = look(90, (0, 0, 1.5))
    np.testing.assert_allclose(left[:3, 2], [0, 1, 0], atol=1e-12)  # the optical axis
    np.testing.assert_allclose(np.linalg.det(left[:3, :3]), 1)


def test_train_loop_by_hand(street_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miou = example("train_loop_by_hand").main(str(street_root), steps=3, pretrained=False)
    assert 0 <= miou < 1
    assert "step 0: " in capsys.readouterr().out
