"""Predictions on disk: one npz per keyframe, and pictures through a function that the caller brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from frustum.data.files import atomic_path, make_folder
from frustum.data.nuscenes import NuScenes
from frustum.data.types import Prediction, Sample
from frustum.engine.feed import evaluation_batches
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.progress import progress_bar
from frustum.engine.recipe import Recipe
from frustum.errors import DataError
from frustum.geometry import VoxelGrid

Draw = Callable[[Sample, Prediction, Path], None]
"""Draws one keyframe: what was filmed, what was predicted (shape (X, Y, Z)), and the folder where pictures go."""


def predict(
    model: nn.Module,
    recipe: Recipe,
    database: NuScenes,
    tokens: Sequence[str],
    out: Path | str,
    *,
    draw: Draw | None = None,
    progress: bool = True,
) -> list[Path]:
    """Predict keyframes of a database; labels need not exist.

    Writes `<out>/<token>.npz` with `semantics` uint8 (X, Y, Z), `class_names` (K,) text, the grid as `lower`, `upper` and `cell`
    (3,) in metres, `token` and `scene`; read it with `read_prediction` or plain `np.load`.

    Args:
        model: keeps the contract.
        recipe: names image size, normalisation, device and precision.
        database, tokens: what to predict.
        out: folder, created if needed.
        draw: called for each keyframe after its npz is written.

    Returns:
        The npz files, in order.

    Raises:
        DataError: unreadable images, no keyframes, or `out` cannot be written to.
    """
    folder, predictor, written = make_folder(Path(out)), NetworkPredictor(model, recipe.runtime), []
    if not tokens:
        raise DataError(f"there are no keyframes to predict in {database.root}.")
    with progress_bar("predict", len(tokens), show=progress, unit="frames") as bar:
        for batch in evaluation_batches(recipe, database, tokens, labels=False):
            for prediction in predictor(batch):
                sample = database.sample(prediction.token, with_boxes=False, occupancy=False)
                written.append(write_prediction(folder / f"{prediction.token}.npz", prediction, sample.scene))
                if draw is not None:
                    draw(sample, prediction, folder)
                bar.advance()
    return written


def write_prediction(path: Path, prediction: Prediction, scene: str = "") -> Path:
    """Write one npz, atomically. Raises DataError if the model gave no semantics or the place cannot be written to."""
    if prediction.semantics is None or prediction.grid is None:
        raise DataError(f"the model predicts no occupancy for {prediction.token}: nothing to write.")
    grid = prediction.grid
    with atomic_path(path, ".npz") as temporary:
        np.savez_compressed(
            temporary,
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
            return Prediction(str(stored["token"]), torch.from_numpy(stored["semantics"]), VoxelGrid(**corners), names)  # type: ignore[arg-type]
    except Exception as error:  # zipfile, zlib, KeyError, ValueError: whatever a damaged file leads to
        raise DataError(f"{path} is no prediction of `frustum predict`, or it is damaged: {error}.") from error
