"""Predict on a data set, on a rig folder or on single keyframes; write npz files and pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from frustum.cli.reporting import panel_of
from frustum.cli.resolve import open_network
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.tables import versions
from frustum.data.rig.importer import import_rig
from frustum.data.sample import Sample
from frustum.engine.predict import predict
from frustum.engine.statistics import spread
from frustum.errors import DataError
from frustum.files import write_error
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
        split, tokens, limit: which keyframes.
        submission: folder for files of the Occ3D challenge, beside those in `out`.
        code: modules whose classes the run or the file may import.

    Raises:
        DataError: neither a data set nor a rig folder, unreadable files, an unknown split or token. Errors of `open_network`.
    """
    recipe, network = open_network(name, overrides, checkpoint, source, code)
    with ExitStack() as cleanup:
        if (where / "calibration.json").is_file():
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="frustum-rig-")))
            import_rig(where, folder)
            where = folder
        database = NuScenes(where, version or choose_version(where, recipe.data.version), recipe.data.cameras, camera_only=True)
        chosen = list(tokens) if tokens else list(database.tokens(split))
        for token in tokens or ():
            database.scene(token)  # raises for a token that is not there
        if limit is not None:
            chosen = spread(chosen, limit)
        files = predict(network, recipe, database, chosen, out, submission=submission, draw=draw if pictures else None)
    return {"folder": str(out), "files": [str(file) for file in files], "tokens": chosen}


def choose_version(root: Path, preferred: str) -> str:
    """The folder of tables to use: `preferred` where it exists, else the only one. Raises DataError when there is none, or a choice."""
    found = versions(root)
    if preferred in found or not found:
        return preferred  # opening it names what is missing
    if len(found) > 1:
        raise DataError(f"{root} holds several versions: {', '.join(found)}. Choose one with --version.")
    return found[0]


def draw(sample: Sample, prediction: Prediction, folder: Path) -> None:
    """Write `<token>.png`: the images and the predicted occupancy. Raises DataError when it cannot be written."""
    path = folder / f"{prediction.token}.png"
    draft = path.with_name(f".{path.name}.part")
    try:
        panel = replace(panel_of(sample, prediction), title=f"{sample.scene} {prediction.token[:8]}")
        sample_picture(panel, grid=prediction.grid).save(draft, "PNG", compress_level=4)  # in half the time, 4 % larger
        os.replace(draft, path)
    except OSError as error:
        raise write_error(path, error) from error
