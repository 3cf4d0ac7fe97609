"""Score predictions that lie in files, whoever made them; no model is needed."""

from __future__ import annotations

import time
from pathlib import Path

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.result_files import OccupancyResults
from frustum.engine.eval_report import EvalReport
from frustum.engine.progress import progress_bar
from frustum.engine.scores import Scores
from frustum.engine.statistics import labels_of
from frustum.errors import DataError
from frustum.geometry import VoxelGrid


def score_occupancy_results(
    folder: Path | str,
    database: NuScenes,
    split: str,
    *,
    grid: VoxelGrid | None = None,
    ray_iou: bool = True,
    every: int = 1,
    name: str | None = None,
    progress: bool = True,
) -> EvalReport:
    """All occupancy metrics of a folder of npz files, see `data.occ3d.result_files`, with the labels of the database.

    Args:
        folder: one `<token>.npz` for every keyframe of the split; others are not looked at.
        database: the opened data set.
        split: whose keyframes are scored.
        grid: the voxels of files and labels; Occ3D's by default.
        ray_iou: also the ray metrics, where the data set has a LiDAR.
        every: score every n-th keyframe.
        name: what the predictions are called in the report; by default the folder's name.

    Raises:
        DataError: a keyframe has no file or no labels, or a file is damaged, has another shape or other class ids.
    """
    began = time.monotonic()
    grid, folder = grid or VoxelGrid.occ3d(), Path(folder)
    tokens = database.tokens(split)[::every]
    if not tokens:
        raise DataError(f"the split {split!r} of {database.root} has no keyframes.")
    results = OccupancyResults(folder, grid)
    results.require(tokens)
    scores = Scores(database, ray_iou)
    with progress_bar(f"score {folder.name}", len(tokens), show=progress, unit="frames") as bar:
        for token, labels in zip(tokens, labels_of(database, tokens), strict=True):
            scores.add(results.read(token), labels)
            bar.advance()
    return EvalReport(
        name=name or folder.name,
        split=split,
        frames=len(tokens),
        every=every,
        images="none",
        metrics=scores.compute(),
        seconds=time.monotonic() - began,
    )
