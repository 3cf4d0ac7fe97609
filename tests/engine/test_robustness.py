"""Evaluation on corrupted images: what is scored, where it is kept, what it is called, and the tables of several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frustum.checkpoint.weights_file import digest
from frustum.config import Config
from frustum.data.source import Source
from frustum.engine.evaluate import evaluate, evaluate_with_baselines
from frustum.engine.feed import TrainingFeed, evaluation_batches
from frustum.engine.overrides import apply
from frustum.engine.predict import predict
from frustum.engine.recipe import EvalConfig, Recipe
from frustum.engine.reports import EvalReport, compare, figures_table, read_reports, write_reports
from frustum.engine.robustness import CLEAN, difference_tables, mean, robustness_tables, summary
from frustum.errors import ConfigError, FrustumWarning
from tests.engine import toy

BRIGHT = "brightness:3"


@pytest.fixture
def recipe(toy_root: Path) -> Recipe:
    return apply(toy.recipe(toy_root), ["eval.slow_figures=false"])


@pytest.fixture
def source(recipe: Recipe) -> Source:
    return recipe.data.open()


def test_the_setting_is_checked_as_it_is_given(recipe: Recipe) -> None:
    assert apply(recipe, ["eval.corruption=fog:3"]).eval.corruption == "fog:3"
    assert apply(apply(recipe, ["eval.corruption=fog:3"]), ["eval.corruption=null"]).eval.corruption is None
    with pytest.raises(ConfigError, match="there is no corruption 'fgo'; did you mean 'fog'"):
        apply(recipe, ["eval.corruption=fgo:3"])
    with pytest.raises(ConfigError, match=r"levels are 1 \(easy\), 2 \(mid\), 3 \(hard\)"):
        apply(recipe, ["eval.corruption=fog:4"])


def test_recipes_that_were_stored_without_it_are_read() -> None:
    stored = EvalConfig().model_dump(mode="json")
    del stored["corruption"]
    assert EvalConfig.model_validate(stored) == EvalConfig()
    assert isinstance(EvalConfig(), Config)


def test_only_evaluation_is_corrupted(recipe: Recipe, source: Source, tmp_path: Path) -> None:
    asked = apply(recipe, [f"eval.corruption={BRIGHT}"])
    tokens = source.tokens("val")[:1]
    clean, bright = (next(evaluation_batches(recipe, source, tokens, corruption=what)).images for what in (None, BRIGHT))
    assert (bright >= clean).all()
    assert (bright - clean).mean() > 0.3
    assert next(evaluation_batches(asked, source, tokens)).images.equal(clean)
    learned = [TrainingFeed(r, source).next_batches()[0].images for r in (recipe, asked)]
    assert learned[0].equal(learned[1])
    with pytest.warns(FrustumWarning, match=r"eval.corruption=brightness:3 is for frustum eval: here the images are as they are"):
        predict(toy.ToyConfig().build(), asked, source, tokens, tmp_path, progress=False)


def test_figures_say_what_was_done_to_the_images(recipe: Recipe, source: Source, tmp_path: Path) -> None:
    network = toy.ToyConfig().build()
    clean = evaluate(recipe, network, source, progress=False)
    asked = apply(recipe, [f"eval.corruption={BRIGHT}"])
    found = evaluate_with_baselines(asked, network, source, progress=False)
    assert [report.images for report in found] == [BRIGHT, "none", "black"]
    assert found[0].corruption == BRIGHT
    assert clean.corruption is None
    assert found[0].results != clean.results
    assert evaluate(apply(asked, ["eval.batch_size=3"]), network, source, progress=False).results == found[0].results
    for table in (figures_table(found[0]), compare(found)):
        assert "images corrupted by brightness:3" in table.title
    assert "corrupted" not in figures_table(clean).title

    write_reports(tmp_path, found)
    assert [path.name for path in tmp_path.iterdir()] == ["eval_brightness-3.json"], "nothing that could be taken for clean"
    assert read_reports(tmp_path, digest(network)) == []
    stored = json.loads((tmp_path / "eval_brightness-3.json").read_text())
    assert stored["images"] == BRIGHT
    assert EvalReport.from_numbers(stored).corruption == BRIGHT
    write_reports(tmp_path, [clean])
    assert [report.images for report in read_reports(tmp_path, digest(network))] == ["as they are"]
    (tmp_path / "eval_brightness-3.json").rename(tmp_path / "eval.json")
    assert read_reports(tmp_path, digest(network)) == [], "a corrupted figure under the name of the clean one"


def report(miou: float | None, images: str = "as they are") -> EvalReport:
    masks = ("camera", "lidar", "none")
    metrics = {
        "miou": dict.fromkeys(masks, miou), "geometric_iou": dict.fromkeys(masks, miou), "class_iou": {mask: {} for mask in masks},
        "geometric_iou_above_ground": dict.fromkeys(masks, miou), "ray_iou": None, "class_ray_iou": None,
        "mask_share": dict.fromkeys(masks, 0.1), "occupied_share": dict.fromkeys(masks, 0.1),
    }  # fmt: skip
    return EvalReport("net", "val", 4, 1, images, {"occupancy": metrics}, 1.0)


def evaluations(clean: float, *fog: float) -> dict[str, EvalReport]:
    return {CLEAN: report(clean), **{f"fog:{i}": report(value, f"fog:{i}") for i, value in enumerate(fog, 1)}}


def test_tables() -> None:
    found = evaluations(0.4, 0.3, 0.2, 0.1)
    first = robustness_tables(found, ["fog"], [1, 2, 3], title="runs/net")[0]
    assert first.title == "mIoU of runs/net on val, 4 frames, by corruption and level (percent)"
    assert first.columns == ["", "1 easy", "2 mid", "3 hard", "mean", "mean / clean, %"]
    assert first.rows == [
        [CLEAN, "", "", "", "40.00", ""],
        ["fog", "30.00", "20.00", "10.00", "20.00", "50.0"],
        ["all corruptions", "30.00", "20.00", "10.00", "20.00", "50.0"],
    ]
    assert summary(found)["miou.camera"] == {CLEAN: 0.4, "fog:1": 0.3, "fog:2": 0.2, "fog:3": 0.1}
    assert robustness_tables(evaluations(0.0, 0.0), ["fog"], [1])[0].rows[1] == ["fog", "0.00", "0.00", "-"]


def test_differences_are_from_the_first() -> None:
    runs = {"a": evaluations(0.4, 0.3, 0.1), "b": evaluations(0.5, 0.2, 0.3)}
    table = difference_tables(runs, ["fog"], [1, 2])[0]
    assert table.columns == ["", "a", "b", "b - a"]
    assert table.rows == [
        [CLEAN, "40.00", "50.00", "+10.00"],
        ["fog", "20.00", "25.00", "+5.00"],
        ["all corruptions", "20.00", "25.00", "+5.00"],
    ]
    assert "means over level 1, 2" in table.title


def test_a_mean_needs_all_of_its_values() -> None:
    assert mean([1.0, 2.0]) == 1.5
    assert mean([1.0, None]) is None
    assert mean([]) is None
