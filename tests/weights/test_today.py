"""Weights files and runs of version 0.1.0 as of commit 5033db2 (tests/data/today) load: their headers hold a recipe without class paths.

`files.json.gz` has the header, the model's class, and names and shapes of the state dict of every recipe of that day.
`weights.safetensors.gz` and `recipe.json` are those of a narrow flashocc-tiny, whose tensors are 0 but for its head.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import frustum
from frustum.checkpoint.fit import renamed
from frustum.checkpoint.weights_file import read_weights, save_weights
from frustum.engine.overrides import apply
from frustum.engine.run import load_run
from frustum.engine.sections import restored
from frustum.errors import CheckpointError
from frustum.recipes.finding import get_recipe
from frustum.weights.loading import empty_network, recipe_of

TODAY = Path(__file__).resolve().parents[1] / "data" / "today"
FILES: dict[str, Any] = json.loads(gzip.decompress((TODAY / "files.json.gz").read_bytes()))
CHANGES = {  # recipes whose settings were changed before they were stored, in the words of now
    "panoptic-flashocc-mini with history": [
        "model.history.frames=2",
        "model.history.align=warp_reference",
        "model.instances.label_map=reference",
    ],
    "panoptic-flashocc-tiny without instances": ["model.instances=null", "data.channel_order=bgr"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "old.safetensors"
    path.write_bytes(gzip.decompress((TODAY / "weights.safetensors.gz").read_bytes()))
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_recipe_and_its_network_are_read_as_they_were(name):
    found, base = FILES[name], name.partition(" ")[0]
    recipe = recipe_of(found["header"], "the file")
    assert recipe == apply(get_recipe(base), CHANGES.get(name, ()))
    assert restored({"recipe": found["header"]["recipe"], "model_config": found["model_config"]}, "the run") == recipe
    with torch.device("meta"):
        shapes = {key: list(value.shape) for key, value in empty_network(recipe).state_dict().items()}
    assert renamed(found["shapes"], recipe.model.renamed) == shapes


def test_a_file_loads_by_itself_and_under_its_recipe(file):
    state, header = read_weights(file)
    assert "classes" not in header
    for words in ((file,), ("flashocc-tiny", file)):
        model = frustum.load(*words)
        assert (model.recipe.data.image_size, model.recipe.data.channel_order) == ((64, 192), "bgr")
        assert torch.equal(model.head.weight, state["head.weight"])
        assert model.head.weight.any()


def test_a_run_loads(file, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(TODAY / "recipe.json", run)
    shutil.copy(file, run / "weights.safetensors")
    assert frustum.load(run).recipe == load_run(run).recipe == frustum.load(file).recipe
    assert frustum.load("flashocc-tiny", run).recipe == load_run(run).recipe


def test_a_file_of_a_recipe_that_is_not_known_asks_for_it(file, tmp_path):
    state, header = read_weights(file)
    header["recipe"]["name"] = "theirs"
    save_weights(tmp_path / "theirs.safetensors", state, {key: value for key, value in header.items() if key != "frustum"})
    with pytest.raises(CheckpointError, match=r"by the recipe 'theirs', which is not known here.*my_file:my_recipe --checkpoint"):
        frustum.load(tmp_path / "theirs.safetensors")
    recipe = get_recipe("flashocc-tiny").model_copy(update={"name": "theirs"})
    assert frustum.load(recipe, tmp_path / "theirs.safetensors").recipe.model == frustum.load(file).recipe.model
