"""Writes 2D labels, or images with label maps, into a folder: says how large it will be first, and goes on where it was stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from frustum.cli.common import invalid, say
from frustum.data.images.export import source_files, write_image_folder
from frustum.data.labels.view_cache import ABOUT, as_settings, made_of, require_empty, write_views
from frustum.data.labels.view_points import Views
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.opening import opened
from frustum.data.source import spread
from frustum.engine.progress import loop_progress
from frustum.errors import ConfigError, DataError
from frustum.files import make_folder, scratch_folder

_TRIED = 3  # keyframes whose files say how large all will be


def write_labels_2d(root: Path, out: Path, split: str, source: str, hidden: float, version: str | None) -> dict[str, Any]:
    """What `frustum data labels-2d` does; JSON values. Raises ConfigError, DataError."""
    try:
        views = Views.model_validate({"source": source, "hidden": hidden})
    except ValidationError as error:
        raise ConfigError(invalid(error)) from error
    if not (out / ABOUT).is_file():
        require_empty(out)
    with opened(root, version) as database:
        tokens = list(database.tokens(split))
        with scratch_folder() as trial:
            some = spread(tokens, _TRIED)
            write_views(database, some, trial, views)
            sizes = [path.stat().st_size for path in trial.glob("*.npz")]
        megabytes = len(tokens) * sum(sizes) / max(1, len(sizes)) / 1e6
        say(f"2D labels of {len(tokens)} keyframes will take about {megabytes:.1f} MB in {out}")
        make_folder(out)
        new = write_views(database, loop_progress("labelling", tokens), out, views)
    settings = f"model.views.cache={out} {as_settings(made_of(views))}"
    say(f"2D labels of {len(tokens)} keyframes are in {out}, {new} of them are new. Train with them: {settings}")
    return {"folder": str(out), "keyframes": len(tokens), "new": new, "megabytes": round(megabytes, 1)}


def write_segmentation(root: Path, out: Path, camera: str, version: str | None) -> dict[str, Any]:
    """What `frustum data segmentation` does; JSON values. Raises DataError."""
    with opened(root, version) as world:
        if not isinstance(world, NuScenes):
            raise DataError(f"{root} is a folder of images already. Give a street world: frustum data world OUT 'save=[\"semantics\"]'.")
        splits = {split: list(world.tokens(split)) for split in ("train", "val") if split in world.splits()}
        tokens = [token for chosen in splits.values() for token in chosen]
        if not tokens:
            raise DataError(f"{root} has neither a split train nor a split val.")
        some = spread(tokens, _TRIED)
        sizes = [sum(path.stat().st_size for path in source_files(world, token, camera)) for token in some]
        megabytes = len(tokens) * sum(sizes) / len(some) / 1e6
        say(f"{len(tokens)} images of {camera} with label maps will take about {megabytes:.1f} MB in {out}")
        new = sum(write_image_folder(world, split, out, camera, partial(loop_progress, f"writing {split}")) for split in splits)
    say(f"{len(tokens)} images with label maps are in {out}, {new} of them are new. Train with them: data.root={out}")
    return {"folder": str(out), "images": len(tokens), "new": new, "megabytes": round(megabytes, 1)}
