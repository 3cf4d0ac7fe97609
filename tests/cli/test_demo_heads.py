"""The demo of heads, shortened: all stages, by networks that are tiny and untrained; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.cli.demo_heads import run_head_demo
from frustum.errors import ConfigError, DataError
from frustum.weights import shipped
from tests.cli.conftest import Run
from tests.cli.test_swap import networks  # noqa: F401  a fixture

PEOPLE = 10  # two of them are swapped


def test_all_stages(tmp_path: Path, networks: dict[str, Path], capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    given = {name: str(path) for name, path in networks.items()}
    given["aligner"] = str(of_64_pixels(tmp_path))  # the smallest world of heads
    numbers = run_head_demo(tmp_path / "demo", people=PEOPLE, networks=given)
    assert json.loads((tmp_path / "demo" / "demo.json").read_text()) == json.loads(json.dumps(numbers))
    names = [numbers["name"], *(row["name"] for row in numbers["baselines"])]
    assert names[:2] == ["aligner and blender", "aligner, pasted"]
    assert "aligned and pasted, recoloured" in names
    assert numbers["frames"] == 2
    with Image.open(tmp_path / "demo" / "swaps.png") as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (5 * 96, 90 + 2 * 96, 3)
    assert "In the head the swap is" in capsys.readouterr().out
    made = (tmp_path / "demo" / "world" / "heads.jpg").stat().st_mtime_ns
    run_head_demo(tmp_path / "demo", people=PEOPLE, networks=given)
    assert (tmp_path / "demo" / "world" / "heads.jpg").stat().st_mtime_ns == made, "the world is kept"
    with pytest.raises(ConfigError, match=r"demo with seed 0.*--fresh"):
        run_head_demo(tmp_path / "demo", seed=1, people=PEOPLE, networks=given)


def of_64_pixels(folder: Path) -> Path:
    from frustum.checkpoint.weights_file import save_weights
    from frustum.engine import overrides
    from frustum.engine.sections import header_of
    from frustum.recipes.finding import get_recipe

    small = ["model.channels=8", "model.max_channels=16", "model.encoder_size=32", "model.discriminator_width=4"]
    recipe = overrides.apply(get_recipe("heser-aligner-mini"), small)
    save_weights(folder / "aligner.safetensors", recipe.model.build(), header_of(recipe))
    return folder / "aligner.safetensors"


def test_what_is_refused(frustum: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no demo 'cats'" in frustum("demo", "cats").err
    assert "trains nothing" in frustum("demo", "heads", "--minutes", 3).err
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert "Install it again" in frustum("demo", "heads", "--out", tmp_path / "demo").err
    with pytest.raises(DataError, match="no weights of the cat"):
        shipped.shipped("cat")
