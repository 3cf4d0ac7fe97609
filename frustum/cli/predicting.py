"""Predict on a data set, on a rig folder or on single samples; write files and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from frustum.cli.checking_cameras import say_framing
from frustum.cli.folders import require_own_files
from frustum.cli.reporting import panel_of
from frustum.cli.resolve import open_network
from frustum.data.opening import note_other_rig, opened
from frustum.data.sample import Sample
from frustum.data.source import DataConfig, Source, spread
from frustum.engine.predict import predict
from frustum.files import atomic_path
from frustum.tasks.rendered_views import RenderedViewsTask
from frustum.types.predictions import Prediction
from frustum.viewer.pictures import sample_picture


def predict_source(
    name: str,
    where: Path,
    out: Path,
    overrides: Sequence[str] = (),
    checkpoint: Path | None = None,
    source: str = "frustum",
    pictures: bool = True,
    *,
    version: str | None = None,
    split: str = "all",
    tokens: Sequence[str] | None = None,
    limit: int | None = None,
    submission: Path | None = None,
    code: Sequence[str] = (),
) -> dict[str, Any]:
    """What `frustum predict` does: returns the files that were written.

    Args:
        name: a weights file, a run, or a recipe with `checkpoint`.
        where: root of a data set, or a rig folder, which is imported into a temporary data set first.
        version: folder with the tables; by default the only one, or the recipe's.
        split, tokens, limit: which samples.
        submission: folder for files of public challenges, in addition to those in `out`.
        code: modules whose classes the run or the file may import.

    Raises:
        DataError: neither a data set nor a rig folder, unreadable files, an unknown split or token, or predictions of other data in `out`.
        ConfigError: nothing that is predicted can be submitted. Errors of `open_network`.
    """
    recipe, network = open_network(name, overrides, checkpoint, source, code)
    with opened(where, version, recipe.data) as data:
        require_own_files(out, data, where)
        chosen = list(tokens) if tokens else list(data.tokens(split))
        for token in tokens or ():
            data.neighbours(token)  # raises for a token that is not there
        if limit is not None:
            chosen = spread(chosen, limit)
        say_framing(data, chosen, recipe)
        if recipe.data.has_rigs:
            note_other_rig(getattr(network, "trained_rig", ()), data, chosen)
        draw = partial(draw_prediction, recipe.data, data) if pictures else None
        files = predict(network, recipe, data, chosen, out, submission=submission, draw=draw)
    return {"folder": str(out), "files": [str(file) for file in files], "tokens": chosen}


def draw_prediction(data: DataConfig, source: Source, sample: Any, prediction: Prediction, folder: Path) -> None:
    """Draw the images and what is predicted, views beside their labels, as `<scene>_<milliseconds>.png`, or by the name of the image.

    Raises:
        DataError: it cannot be written.
    """
    name = sample.name if isinstance(sample, Sample) else prediction.token
    panel = replace(panel_of(data, source, prediction, (RenderedViewsTask,)), title=name)
    with atomic_path(folder / f"{name}.png") as temporary:
        sample_picture(panel).save(temporary, "PNG", compress_level=4)  # in half the time, 4 % larger
