"""Predictions on disk: one npz per keyframe, and pictures through a function that the caller brings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from frustum.checkpoint.weights_file import digest
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.result_files import write_result
from frustum.data.sample import Sample
from frustum.engine.feed import evaluation_batches
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.progress import progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.unfinished import Unfinished
from frustum.errors import DataError
from frustum.files import atomic_path, make_folder
from frustum.geometry import VoxelGrid
from frustum.types.predictions import PanopticOccupancy, Prediction

_OBJECTS = ("instance_ids", "instance_classes", "instance_centres", "instance_scores")

Draw = Callable[[Sample, Prediction, Path], None]
"""Draws one keyframe: what was filmed, what was predicted (shape (X, Y, Z)), and the folder where pictures go."""


def predict(
    model: nn.Module,
    recipe: Recipe,
    database: NuScenes,
    tokens: Sequence[str],
    out: Path | str,
    *,
    submission: Path | str | None = None,
    draw: Draw | None = None,
    progress: bool = True,
) -> list[Path]:
    """Predict keyframes of a database; labels need not exist. What was interrupted goes on, if weights, settings and input are the same.

    Writes `<out>/<token>.npz` with `semantics` uint8 (X, Y, Z), `class_names` (K,) text, the grid as `lower`, `upper` and `cell`
    (3,) in metres, `token` and `scene`; read it with `read_prediction` or plain `np.load`. A model that tells objects apart adds
    `instances` uint16 (X, Y, Z), and of each object `instance_ids` (I,), `instance_classes` (I,), `instance_centres` (I, 3) in metres and
    `instance_scores` (I,).

    Args:
        model: keeps the contract.
        recipe: names image size, normalisation, device and precision.
        database, tokens: what to predict.
        out: folder, created if needed.
        submission: folder for the same predictions in the form of the Occ3D challenge, `<token>.npz` with one unnamed array.
        draw: called for each keyframe after its npz is written.

    Returns:
        The npz files, in order.

    Raises:
        DataError: unreadable images, no keyframes, a folder cannot be written to, or a submission of other voxels than Occ3D's.
    """
    folder, predictor = make_folder(Path(out)), NetworkPredictor(model, recipe.runtime)
    if not tokens:
        raise DataError(f"there are no keyframes to predict in {database.root}.")
    files = [folder / f"{token}.npz" for token in tokens]
    work = f"{digest(model)} {recipe.model_dump_json()} {draw is not None} {submission}"
    unfinished, history = Unfinished(folder, hashlib.sha256(work.encode()).hexdigest()), recipe.data.history

    def open_sample(token: str) -> Sample:
        return database.sample(token, with_boxes=False, occupancy=False, history=history)

    left = [t for t, file in zip(tokens, files, strict=True) if not (unfinished and file.is_file() and _part(open_sample(t)) in unfinished)]
    done = len(tokens) - len(left)
    with progress_bar("predict", len(tokens), done=done, show=progress, unit="frames") as bar:
        if done:
            bar.note(f"going on: {done} of {len(tokens)} keyframes are there already")
        for batch in evaluation_batches(recipe, database, left, labels=False) if left else ():
            for prediction in predictor(batch):
                sample = open_sample(prediction.token)
                write_prediction(folder / f"{prediction.token}.npz", prediction, sample.scene)
                if submission is not None and prediction.semantics is not None:
                    write_result(submission, prediction.token, prediction.semantics)
                if draw is not None:
                    draw(sample, prediction, folder)
                unfinished.add(_part(sample))
                bar.advance()
    unfinished.finish()
    return files


def _part(sample: Sample) -> str:
    """A keyframe and what its prediction is made from: calibration, poses and the sizes of the image files."""
    total = hashlib.sha256()
    for frame in (*sample.cameras, *(frame for past in sample.history for frame in past)):
        size = frame.path.stat().st_size if frame.path.is_file() else -1
        total.update(f"{frame.channel} {size} {frame.timestamp}".encode())
        for matrix in (frame.intrinsics, frame.cam2ego, frame.ego2global):
            total.update(matrix.tobytes())
    return f"{sample.token} {total.hexdigest()}"


def write_prediction(path: Path, prediction: Prediction, scene: str = "") -> Path:
    """Write one npz, atomically. Raises DataError if the model gave no semantics or the place cannot be written to."""
    if prediction.semantics is None or prediction.grid is None:
        raise DataError(f"the model predicts no occupancy for {prediction.token}: nothing to write.")
    grid, ids = prediction.grid, prediction.instances
    optional: dict[str, Any] = {} if ids is None else {"instances": ids.numpy().astype(np.uint16)}
    if isinstance(prediction, PanopticOccupancy):
        optional |= {name: getattr(prediction, name).numpy() for name in _OBJECTS}
    with atomic_path(path, ".npz") as temporary:
        np.savez_compressed(
            temporary,
            **optional,
            semantics=prediction.semantics.numpy().astype(np.uint8),
            class_names=np.array(prediction.class_names),
            lower=np.array(grid.lower),
            upper=np.array(grid.upper),
            cell=np.array(grid.cell),
            token=np.array(prediction.token),
            scene=np.array(scene),
        )
    return path


def read_prediction(path: Path | str) -> Prediction:
    """The inverse of `write_prediction`. Raises DataError when the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            corners = {name: tuple(float(v) for v in stored[name]) for name in ("lower", "upper", "cell")}
            names = tuple(str(name) for name in stored["class_names"])
            ids = torch.from_numpy(stored["instances"].astype(np.int32)) if "instances" in stored.files else None
            grid = VoxelGrid(**corners)  # type: ignore[arg-type]
            objects: dict[str, Any] = {name: torch.from_numpy(stored[name]) for name in _OBJECTS if name in stored.files}
            kind = PanopticOccupancy if objects else Prediction
            return kind(str(stored["token"]), torch.from_numpy(stored["semantics"]), grid, names, ids, **objects)
    except Exception as error:  # zipfile, zlib, KeyError, ValueError: whatever a damaged file leads to
        raise DataError(f"{path} is no prediction of `frustum predict`, or it is damaged: {error}.") from error
