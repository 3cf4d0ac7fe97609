"""`frustum weights`, and the training that starts from a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.cli.resolve import resolve_recipe
from frustum.cli.weights import as_markdown
from frustum.engine.recipe import Recipe
from frustum.engine.train import TrainResult
from frustum.models.flashocc import FlashOccConfig
from frustum.weights.catalogue import CATALOGUE
from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upstream") / "mine.pth"
    state = FlashOccConfig(resnet=18, neck_channels=16, bev_channels=16).build().state_dict()
    torch.save({"meta": {"epoch": 24, "mmcv_version": "1.5.3"}, "state_dict": state}, path)
    return path


def test_the_list_has_every_entry(frustum: Run, tmp_path: Path) -> None:
    code, out, err = frustum("weights", "list", "--json", tmp_path / "list.json")
    assert (code, err) == (0, "")
    listed = json.loads((tmp_path / "list.json").read_text())
    assert list(listed) == [e.name for e in CATALOGUE]
    assert listed["flashocc-r50-M0"]["status"] == "not yet measured here"
    assert "31.95" in out
    assert "no recipe yet" in out


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_name_of_the_list_is_broken(frustum: Run, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = frustum("weights", "list").out.splitlines()
    assert [line for line in lines if line in {e.name for e in CATALOGUE}] == [e.name for e in CATALOGUE]
    assert sum("not yet measured here" in line for line in lines) == len(CATALOGUE)
    assert "    recipe flashocc-r50-m0; mIoU 31.95; not yet measured here" in lines


def test_one_entry_of_the_list(frustum: Run, tmp_path: Path) -> None:
    code, out, _ = frustum("weights", "list", "flashocc-r50-M0", "--json", tmp_path / "one.json")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "flashocc-r50-M0"
    assert "where      Google Drive 14my3jdqiIv6VIrkozQ6-ruEcBOPVlWGJ" in lines
    assert "file       flashocc-r50-M0-256x704.pth" in lines
    assert "status     not yet measured here" in lines
    assert "frustum weights convert flashocc-r50-M0-256x704.pth --source flashocc -o flashocc-r50-m0.safetensors" in lines[-1]
    assert list(json.loads((tmp_path / "one.json").read_text())) == ["flashocc-r50-M0"]
    assert frustum("weights", "list", "FlashOCC-r50-m0").out.splitlines()[0] == "flashocc-r50-M0"
    code, _, err = frustum("weights", "list", "flashocc-r50-m1")
    assert code == 2
    assert "'flashocc-r50-M0'" in err[err.index("did you mean") :]
    assert frustum("weights", "list", "flashocc-r50-M0", "--markdown").code == 2


def test_a_part_of_a_name_lists_all_that_have_it(frustum: Run, tmp_path: Path) -> None:
    code, out, _ = frustum("weights", "list", "Panoptic", "--json", tmp_path / "some.json")
    assert code == 0
    names = [e.name for e in CATALOGUE if "panoptic" in e.name]
    assert list(json.loads((tmp_path / "some.json").read_text())) == names
    assert [line for line in out.splitlines() if line and not line.startswith(" ")][:-1] == names
    assert f"{len(names)} entries" in out
    assert frustum("weights", "list", "flashocc-r50").out.startswith("flashocc-r50\n  project"), "a whole name is that entry"


def test_help_names_the_sources(frustum: Run) -> None:
    for verb in (("weights", "convert"), ("eval",), ("predict",)):
        text = " ".join(frustum(*verb, "--help").out.split())
        assert "flashocc" in text[text.index("--source") :][:600], verb
        assert "official" in text


def test_inspect_lists_what_does_not_fit(frustum: Run, upstream: Path, tmp_path: Path) -> None:
    state = torch.load(upstream, weights_only=True)["state_dict"]
    key = "occ_head.final_conv.conv.weight"
    bad = state["img_backbone.bn1.bias"].clone()
    bad[0] = torch.nan
    torch.save({k: v for k, v in state.items() if k != key} | {"foo.bar": bad, "img_backbone.bn1.bias": bad.half()}, tmp_path / "x.pth")
    code, out, _ = frustum("weights", "inspect", tmp_path / "x.pth", "--json", tmp_path / "x.json")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert f"missing  1: {key}" in lines
    assert "unexpected  1: foo.bar" in lines
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["missing"], found["unexpected"], found["other shape"]) == ([key], ["foo.bar"], [])
    assert found["not finite"] == {"foo.bar": 1, "img_backbone.bn1.bias": 1}
    assert found["numbers"]["float16"] == 1
    assert found["fit"].startswith("with flashocc-r50-m0: ")
    assert "It is not whole: 1 missing (" in found["about"]


def test_inspect_of_a_folder_and_of_a_recipe_that_is_not_there(frustum: Run, upstream: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert frustum("weights", "convert", upstream, "-o", run / "weights.safetensors").code == 0
    code, out, _ = frustum("weights", "inspect", run)
    assert code == 0
    assert "about" not in out, "a file of ours says what it is"
    code, _, err = frustum("weights", "inspect", upstream.parent)
    assert code == 4
    assert "Give a file in it" in err
    code, _, err = frustum("weights", "inspect", upstream, "--recipe", "flashocc-r50m0")
    assert code == 2
    assert "did you mean" in err


def test_the_page_shows_the_table_that_the_command_prints(frustum: Run) -> None:
    code, out, _ = frustum("weights", "list", "--markdown")
    assert code == 0
    assert out.strip() == as_markdown()
    assert as_markdown() in (ROOT / "docs/weights.md").read_text(encoding="utf-8"), "paste `frustum weights list --markdown`"


def test_inspect_says_what_is_in_a_file(frustum: Run, upstream: Path, tmp_path: Path) -> None:
    code, out, _ = frustum("weights", "inspect", upstream, "--recipe", "flashocc-r50-m0", "--json", tmp_path / "i.json")
    assert code == 0
    found = json.loads((tmp_path / "i.json").read_text())
    assert (found["layout"], found["details"]) == ("mmcv", {"epoch": 24, "mmcv_version": "1.5.3"})
    assert (found["channels"]["resnet"], found["channels"]["bev_channels"], found["source"]) == (18, 16, "flashocc")
    assert found["entries"] == sum(count for count, _ in found["parts"].values())
    assert found["bytes"] == upstream.stat().st_size
    assert "the recipe 'flashocc-r50-m0' builds this kind of network" in " ".join(out.split())
    assert "img_bev_encoder_backbone" in out
    assert "of 430 entries fit" in found["fit"]


def test_convert_then_inspect(frustum: Run, upstream: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "m.safetensors"
    code, out, err = frustum("weights", "convert", upstream, "--source", "flashocc", "-o", out_file, "--json", tmp_path / "c.json")
    assert code == 0
    assert "note: " in err
    assert "model.neck_channels=16" in err
    assert f"frustum eval {out_file} data.root=FOLDER" in " ".join(out.split())
    done = json.loads((tmp_path / "c.json").read_text())
    assert (done["recipe"], done["missing"], done["unexpected"], done["reshaped"]) == ("flashocc-r50-m0", [], [], [])
    code, out, _ = frustum("weights", "inspect", out_file)
    assert code == 0
    assert "data.channel_order bgr" in out
    assert "file mine.pth" in out


def test_a_converted_file_predicts_without_naming_its_source(frustum: Run, upstream: Path, street_root: Path, tmp_path: Path) -> None:
    weights = tmp_path / "m.safetensors"
    assert frustum("weights", "convert", upstream, "-o", weights).code == 0
    words = ("predict", weights, street_root, "data.image_size=64,192", "train.num_workers=0", "--no-pictures", "--limit", 1)
    code, _, err = frustum(*words, "--out", tmp_path / "p")
    assert code == 0
    assert "data.image_size=[64, 192] (they were trained with [256, 704])" in " ".join(err.split())
    (file,) = (tmp_path / "p").glob("*.npz")
    with np.load(file) as found:
        assert found["semantics"].shape == (200, 200, 16)
    for name in (("flashocc-r50-m0", "--checkpoint", upstream), (upstream,)):  # the recipe may be found from the shapes
        out = tmp_path / f"q{len(name)}"
        code, _, _ = frustum("predict", name[0], *words[2:], *name[1:], "--source", "official", "--out", out)
        assert code == 0
        with np.load(file) as ours, np.load(out / file.name) as theirs:
            assert (ours["semantics"] == theirs["semantics"]).mean() > 0.999


def test_init_is_a_setting_of_the_run(
    frustum: Run, upstream: Path, street_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def train(recipe: Recipe, folder: Path, **options: object) -> TrainResult:
        seen.append((recipe.train.init, options["overrides"]))
        return TrainResult(folder, folder, 1, 0.0, 0.0, 0, torch.nn.Identity())

    monkeypatch.setattr("frustum.engine.train.train", train)
    assert frustum("train", "flashocc-r50-m0", "--init", upstream, "--out", tmp_path, "optim.lr=1e-3").code == 0
    assert seen == [(str(upstream), ["optim.lr=1e-3", f"train.init={upstream}"])]


def test_a_state_dict_of_a_network_trained_here(frustum: Run, tmp_path: Path) -> None:
    words = ["model.pretrained=false", "model.bev_channels=8"]
    torch.save(resolve_recipe("flashocc-tiny", words).model.build().state_dict(), tmp_path / "mine.pth")
    code, _, err = frustum("weights", "convert", tmp_path / "mine.pth", "-o", tmp_path / "x.safetensors")
    assert code == 4
    assert "Name it: --recipe NAME, or --recipe FOLDER of its run" in err
    named = ("weights", "convert", tmp_path / "mine.pth", "--recipe", "flashocc-tiny", "-o", tmp_path / "x.safetensors")
    code, out, err = frustum(*named, *words, "--json", tmp_path / "c.json")
    assert (code, err) == (0, "")
    assert "prepared as flashocc-tiny says" in out
    assert f"frustum eval {tmp_path / 'x.safetensors'} data.root=FOLDER" in out
    assert json.loads((tmp_path / "c.json").read_text())["source"] == "frustum"
    out = frustum("weights", "inspect", tmp_path / "x.safetensors").out
    assert "data.image_size [96, 256], data.channel_order rgb" in out
    assert "trained with  model.pretrained=false model.bev_channels=8" in out
    code, out, _ = frustum("weights", "inspect", tmp_path / "mine.pth", "--recipe", "flashocc-tiny")
    assert code == 0
    assert "about" not in out, "nothing to guess"
    assert "with flashocc-tiny: " in out


def test_a_part_is_converted_only_when_asked(frustum: Run, upstream: Path, tmp_path: Path) -> None:
    words = ("weights", "convert", upstream, "--recipe", "flashocc-r50", "-o", tmp_path / "p.safetensors")
    state = torch.load(upstream, weights_only=True)["state_dict"]
    torch.save({key: value for key, value in state.items() if not key.startswith("occ_head")}, tmp_path / "headless.pth")
    words = ("weights", "convert", tmp_path / "headless.pth", "--recipe", "flashocc-r50", "-o", tmp_path / "p.safetensors")
    code, _, err = frustum(*words)
    assert code == 4
    assert "missing" in err
    assert not (tmp_path / "p.safetensors").exists()
    code, out, _ = frustum(*words, "--partial")
    assert code == 0
    assert "frustum train flashocc-r50 --init" in out


def test_failures_are_one_paragraph(frustum: Run, tmp_path: Path) -> None:
    code, _, err = frustum("weights", "inspect", tmp_path / "none.pth")
    assert code == 4
    assert "there is no checkpoint" in err
    assert err.count("\n") == 1
    (tmp_path / "noise.pth").write_bytes(b"\x80\x02not a checkpoint")
    code, _, err = frustum("weights", "convert", tmp_path / "noise.pth", "-o", tmp_path / "x.safetensors")
    assert code == 4
    assert err.startswith("error: ")
