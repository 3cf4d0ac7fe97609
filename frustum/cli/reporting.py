"""From a run folder to a report: its numbers, its curves, and what it sees on some frames of the validation split."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from frustum.checkpoint.weights_file import digest
from frustum.cli.common import say
from frustum.cli.resolve import is_run, open_network
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import Sample
from frustum.engine.eval_report import EvalReport, read_reports
from frustum.engine.feed import evaluation_batches, open_database
from frustum.engine.metrics_log import read_lines
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.progress import pace, progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.run import Run, load_run
from frustum.engine.scores import true_instances
from frustum.engine.statistics import labels_of, spread
from frustum.errors import CheckpointError
from frustum.types.classes import OBJECT_CLASSES, OCC3D_CLASSES
from frustum.types.predictions import PanopticOccupancy, Prediction
from frustum.version import __version__
from frustum.viewer.objects import objects_of
from frustum.viewer.report import ReportData, SamplePanel, Scores, write_report


def report_run(
    name: Path | str,
    out: Path | None = None,
    samples: int = 4,
    overrides: Sequence[str] = (),
    checkpoint: Path | None = None,
    source: str = "frustum",
    code: Sequence[str] = (),
) -> Path:
    """Write the report of a run, a weights file or a recipe with a checkpoint, and return the page.

    Args:
        name, overrides, checkpoint, source, code: as `open_network` takes them.
        out: folder of the report; by default RUN/report, or FILE's name with `-report` beside the file.

    Raises:
        ConfigError: a setting that does not fit, or a recipe without weights. CheckpointError: weights that are missing or do not fit.
        DataError: its data set cannot be read, or `out` not be written to.
    """
    if Path(name).is_dir() and not is_run(name):
        raise CheckpointError(f"{name} is not a run: there is no recipe.json in it. Give the folder that `frustum train` wrote.")
    recipe, network = open_network(str(name), overrides, checkpoint, source, code)
    folder = checkpoint or Path(name)
    is_own = is_run(folder)
    run = replace(load_run(folder), recipe=recipe) if is_own else Run(folder, recipe, recipe.name, tuple(overrides), __version__, None)
    out = out or (folder / "report" if is_own else folder.with_name(f"{folder.stem}-report"))
    database = open_database(run.recipe.data)
    tokens = pick(database, run.recipe.data.val_split, samples)
    panels = []
    with progress_bar("report", len(tokens), unit="frames") as bar:
        predictor = NetworkPredictor(network, run.recipe.runtime)
        for batch in evaluation_batches(run.recipe, database, tokens, labels=False):
            for prediction in predictor(batch):
                panels.append(panel_of(database.sample(prediction.token), prediction, database))
                bar.advance()
    numbers = read_reports(folder, digest(network))
    data = ReportData(
        title=f"{run.recipe.name} on {run.recipe.data.val_split}",
        results={report.name: scores_of(report) for report in numbers},
        panels=panels,
        losses=read_lines(folder / "metrics.jsonl"),
        recipe=json.dumps(run.recipe.model_dump(mode="json"), indent=2),
        facts=facts_of(run, numbers, sum(p.numel() for p in network.parameters())),
        frequency=frequencies(database, run.recipe) if numbers else (),
        grid=getattr(run.recipe.model, "grid", None),
    )
    page = write_report(data, out)
    if is_own and not numbers:
        say(f"no numbers of these weights yet: run `frustum eval {folder} --baselines` and write the report again.")
    return page


def pick(database: NuScenes, split: str, samples: int) -> list[str]:
    """Keyframes to show: the middle ones of scenes that are spread over the split."""
    scenes: dict[str, list[str]] = {}
    for token in database.tokens(split):
        scenes.setdefault(database.scene(token).name, []).append(token)
    middles = [tokens[len(tokens) // 2] for tokens in scenes.values()]
    return spread(middles if len(middles) >= samples else database.tokens(split), samples)


def panel_of(sample: Sample, prediction: Prediction, database: NuScenes | None = None) -> SamplePanel:
    """One keyframe with its images, its labels where there are some, and the prediction.

    Objects are shown where the prediction tells them apart; the true ones beside them if there are labels and the `database` is given.
    """
    truth, predicted, true = sample.occupancy, None, None
    if isinstance(prediction, PanopticOccupancy) and prediction.instances is not None:
        predicted = objects_of(prediction.instances.numpy(), prediction.instance_ids.numpy())
        if truth is not None and database is not None:
            is_thing = np.isin(truth.semantics, [OCC3D_CLASSES.index(name) for name in OBJECT_CLASSES])
            true = np.where(is_thing, true_instances(database, sample.token, truth, prediction.grid), 0)
    return SamplePanel(
        title=sample.scene,
        images=[(camera.channel, np.asarray(camera.open())) for camera in sample.cameras],
        prediction=None if prediction.semantics is None else prediction.semantics.numpy(),
        truth=None if truth is None else truth.semantics,
        mask_camera=None if truth is None else truth.mask_camera,
        prediction_objects=predicted,
        truth_objects=true,
    )


def scores_of(report: EvalReport) -> Scores:
    """An evaluation in the report's words."""
    metrics = report.metrics
    values: dict[str, float | None] = {f"miou_{mask}": metrics["miou"].get(mask) for mask in ("camera", "lidar", "none")}
    values |= {
        "giou_camera": metrics["geometric_iou"].get("camera"),
        "giou_above_camera": metrics["geometric_iou_above_ground"].get("camera"),
    }
    rays: Mapping[str, float] = metrics["ray_iou"] or {}
    values |= {"raypq": (metrics.get("ray_pq") or {}).get("mean"), "voxel_pq_camera": (metrics.get("voxel_pq") or {}).get("camera")}
    values |= {"rayiou": rays.get("mean"), **{f"rayiou@{t}": rays.get(t) for t in ("1", "2", "4")}}
    per_class = [metrics["class_iou"]["camera"].get(name) for name in OCC3D_CLASSES]
    return Scores(
        values={name: value for name, value in values.items() if value is not None},
        per_class=[float("nan") if value is None else value for value in per_class],
        note=NOTES.get(report.images, ""),
    )


NOTES = {
    "none": "answers every frame with the same volume, learned from the labels of the training split",
    "black": "the trained network with black images instead of those of the cameras",
}


def facts_of(run: Run, numbers: Sequence[EvalReport], parameters: int) -> dict[str, str]:
    """What to know about a run."""
    lines = read_lines(run.folder / "metrics.jsonl")
    recipe = run.recipe
    facts: dict[str, Any] = {
        "recipe": run.source,
        "settings": " ".join(run.overrides),
        "parameters": f"{parameters / 1e6:.2f} M",
        "data": f"{recipe.data.root}, {recipe.data.train_split} and {recipe.data.val_split}",
        "images": f"{recipe.data.image_size[0]} x {recipe.data.image_size[1]}",
        "steps": lines[-1]["step"] if lines else "",
        "batch": recipe.train.batch_size * recipe.train.accumulate,
        "speed": pace(lines[-1]["steps_per_second"]) if lines and "steps_per_second" in lines[-1] else "",
        "evaluated": f"{numbers[0].frames} frames" if numbers else "",
        "seed": recipe.train.seed,
        "machine": f"{platform.system()} {platform.machine()}",
        "frustum": run.version,
        "commit": run.commit or "",
    }
    return {name: str(value) for name, value in facts.items() if str(value)}


def frequencies(database: NuScenes, recipe: Recipe) -> list[float]:
    """Share of each class among the labelled voxels inside the camera mask, over at most 100 frames of the validation split."""
    counts = np.zeros(256, np.int64)
    for labels in labels_of(database, spread(database.tokens(recipe.data.val_split), 100)):
        counts += np.bincount(labels.semantics[labels.mask_camera > 0], minlength=256)
    counts = counts[: len(OCC3D_CLASSES)]
    return (counts / max(1, counts.sum())).tolist()
