"""Writes 2D labels into a folder: says how large it will be before it starts, and goes on where it was stopped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from frustum.cli.common import invalid, say
from frustum.data.labels.view_cache import write_views
from frustum.data.labels.view_points import Views
from frustum.data.opening import opened
from frustum.data.source import spread
from frustum.engine.progress import loop_progress
from frustum.errors import ConfigError
from frustum.files import make_folder

_TRIED = 3  # keyframes whose files say how large all will be


def write_labels_2d(root: Path, out: Path, split: str, source: str, hidden: float, version: str | None) -> dict[str, Any]:
    """What `frustum data labels-2d` does; JSON values. Raises ConfigError, DataError."""
    try:
        views = Views.model_validate({"source": source, "hidden": hidden})
    except ValidationError as error:
        raise ConfigError(invalid(error)) from error
    with opened(root, version) as database:
        tokens = list(database.tokens(split))
        with tempfile.TemporaryDirectory() as trial:
            some = spread(tokens, _TRIED)
            write_views(database, some, Path(trial), views)
            sizes = [path.stat().st_size for path in Path(trial).glob("*.npz")]
        megabytes = len(tokens) * sum(sizes) / max(1, len(sizes)) / 1e6
        say(f"2D labels of {len(tokens)} keyframes will take about {megabytes:.1f} MB in {out}")
        make_folder(out)
        new = write_views(database, loop_progress("labelling", tokens), out, views)
    say(f"2D labels of {len(tokens)} keyframes are in {out}, {new} of them are new. Train with them: model.views.cache={out}")
    return {"folder": str(out), "keyframes": len(tokens), "new": new, "megabytes": round(megabytes, 1)}
