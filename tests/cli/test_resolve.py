"""From the words of a command to recipes, folders and networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from frustum.checkpoint.weights_file import WEIGHTS, save_weights
from frustum.cli.resolve import describe, is_run, open_network, resolve_recipe, run_folder
from frustum.engine.overrides import paths
from frustum.engine.run import save_run
from frustum.errors import ConfigError, FrustumWarning
from frustum.recipes.finding import get_recipe

SMALL = ["model.pretrained=false", "model.bev_channels=8", "model.voxel_channels=8", "model.lift_channels=4"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with the weights of a small network."""
    recipe = resolve_recipe("flashocc-tiny", SMALL)
    folder = tmp_path / "run"
    save_run(folder, recipe, source="flashocc-tiny", overrides=SMALL)
    torch.manual_seed(3)
    save_weights(folder / WEIGHTS, recipe.model.build())
    return folder


def test_a_recipe_by_name() -> None:
    recipe = resolve_recipe("flashocc-r50-m0", ["optim.lr=0.5"])
    assert recipe.optim.lr == 0.5
    assert recipe.model == get_recipe("flashocc-r50-m0").model


def test_another_network_has_no_published_figures() -> None:
    assert resolve_recipe("ppe3d-v299", ["model.pretrained=v99.pth", "optim.lr=1e-4"]).published
    assert not resolve_recipe("ppe3d-v299", ["model.encoding=camera_ray"]).published


def test_a_run_is_its_recipe(run: Path) -> None:
    assert is_run(str(run))
    recipe = resolve_recipe(str(run), ["train.seed=7"])
    assert recipe.model.bev_channels == 8  # type: ignore[attr-defined]
    assert recipe.train.seed == 7


def test_folders(run: Path, tmp_path: Path) -> None:
    assert run_folder("flashocc-tiny", None) == Path("runs/flashocc-tiny")
    assert run_folder("pkg.mod:my_recipe", None) == Path("runs/my-recipe")
    assert run_folder("flashocc-tiny", tmp_path) == tmp_path
    assert run_folder(str(run), None) == run, "a run goes on in its own folder"


def test_a_network_with_its_weights(run: Path) -> None:
    _, network = open_network(str(run))
    torch.manual_seed(3)
    expected = resolve_recipe("flashocc-tiny", SMALL).model.build().state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert not network.training


def test_other_weights_win(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = resolve_recipe("flashocc-tiny", SMALL).model.build()
    save_weights(tmp_path / "other.safetensors", other)
    _, network = open_network(str(run), checkpoint=tmp_path / "other.safetensors")
    torch.testing.assert_close(network.state_dict()["head.weight"], other.state_dict()["head.weight"], rtol=0, atol=0)


def test_official_weights_bring_their_settings_and_the_user_wins(tmp_path: Path) -> None:
    small = ["model.resnet=18", "model.bev_channels=8", "model.neck_channels=8"]
    torch.save({"state_dict": resolve_recipe("flashocc-r50-m0", small).model.build().state_dict()}, tmp_path / "x.pth")
    save_run(tmp_path / "run", resolve_recipe("flashocc-r50-m0", ["data.channel_order=rgb"]))
    for name in ("flashocc-r50-m0", str(tmp_path / "run")):
        with pytest.warns(FrustumWarning, match=r"model.neck_channels=8, model.bev_channels=8, model.resnet=18 was taken from the file"):
            recipe, network = open_network(name, [], tmp_path / "x.pth", "official")
        assert (recipe.data.channel_order, recipe.model.voxel_rounding) == ("bgr", "reference")  # type: ignore[attr-defined]
        assert network.config == recipe.model, "the network is built from what is returned"
        assert recipe.published == (), "the published figure is that of the published widths"
        words = ["data.channel_order=rgb", "model.voxel_rounding=floor", *small]
        with pytest.warns(FrustumWarning, match=r'because you said so: .*data.channel_order="rgb" \(they were trained with "bgr"\)'):
            recipe, network = open_network(name, words, tmp_path / "x.pth", "official")
        assert (recipe.data.channel_order, network.config.voxel_rounding) == ("rgb", "floor")
    with pytest.raises(ConfigError, match="no official weights"):
        open_network("flashocc-tiny", [], tmp_path / "x.pth", "official")


def test_a_recipe_alone_has_no_weights() -> None:
    with pytest.raises(ConfigError, match="--checkpoint"):
        open_network("flashocc-tiny")


def test_describe_covers_all_settings() -> None:
    recipe = get_recipe("flashocc-r50")
    rows = {key: value for key, value, _ in describe(recipe)}
    assert {path for path in paths(recipe) if not path.startswith(("ema.", "distill.", "model.render."))} <= set(rows)
    assert rows["model.render"] is None
    assert rows["data.image_size"] == [256, 704]


def test_describe_says_what_the_model_s_docstring_says() -> None:
    about = {key: text for key, _, text in describe(get_recipe("panoptic-flashocc-mini"))}
    assert about["model.history.frames"].startswith("F, past keyframes whose maps are joined with the keyframe's; ")
    assert about["model.history.align"].endswith("(lift, warp, warp_reference)")
    assert about["model.instances.label_map"] == "which heat map serves which class of voxels (fixed, reference)"
    assert about["model.standing_iou_loss"] == about["model.occupied_iou_loss"] != ""  # one entry for both
    assert about["model.pretrained"].startswith("start the encoder from ImageNet weights")
    assert about["data.channel_order"] == "(rgb, bgr)"


def test_settings_of_our_models_are_all_described() -> None:
    from frustum.recipes.finding import list_recipes

    for info in list_recipes():
        described = {key: text for key, _, text in describe(get_recipe(info.name)) if key.startswith("model.")}
        sections = ("model.history.", "model.instances.")
        rows = [(key, text) for key, text in described.items() if key.count(".") == 1 or key.startswith(sections)]
        assert [key for key, text in rows if not text] == [], info.name
