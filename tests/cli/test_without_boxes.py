"""Training a detector where nothing is annotated: refused before anything is learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from frustum.errors import DataError
from tests.cli.conftest import Run
from tests.engine import toy


@pytest.mark.parametrize(("name", "more", "advice"), [
    ("ppe3d-r50", [], "Add annotations."),
    ("ultimatedo-mini", ["model.tasks.occupancy=null"], "Add annotations, or train without: model.tasks.detection=null"),
])  # fmt: skip
def test_training_on_a_split_without_boxes_is_refused(name: str, more: list[str], advice: str, frustum: Run, tmp_path: Path) -> None:
    root = toy.write_database(tmp_path / "toy")
    words = ("model.pretrained=false", "data.image_size=64,96", *more, "--out", tmp_path / "run")
    code, _, err = frustum("train", name, f"data.root={root}", *words)
    assert code == DataError.exit_code
    text = " ".join(err.split())
    assert "this recipe learns from boxes, but none of the 8 training keyframes in" in text
    assert advice in text
    assert not list((tmp_path / "run").glob("checkpoints/*"))
