"""The examples run as they are printed, only shorter."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


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


def test_cameras_of_the_example_look_where_they_say() -> None:
    look = example("predict_from_arrays").look
    left = look(90, (0, 0, 1.5))
    np.testing.assert_allclose(left[:3, 2], [0, 1, 0], atol=1e-12)  # the optical axis
    np.testing.assert_allclose(np.linalg.det(left[:3, :3]), 1)


def test_train_loop_by_hand(street_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miou = example("train_loop_by_hand").main(str(street_root), steps=3, pretrained=False)
    assert 0 <= miou < 1
    assert "step 0: " in capsys.readouterr().out
