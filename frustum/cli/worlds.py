"""The settings of a street world or of heads from options and overrides, and their generation with a progress bar."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from frustum.cli.common import invalid, split_overrides
from frustum.engine import overrides as settings
from frustum.engine.progress import Reporter, progress_bar
from frustum.errors import ConfigError
from frustum.worlds.heads.generate import HeadsConfig, generate_heads, pictures
from frustum.worlds.street.generate import Progress, generate
from frustum.worlds.street.rigs import StreetRig
from frustum.worlds.street.world_config import WorldConfig


def world_config(given: dict[str, Any], rig: Path | None, overrides: list[str]) -> WorldConfig:
    """The settings from options (None = default), a rig file and `key=value` words. Raises ConfigError."""
    words = split_overrides(overrides)
    fields = {name: value for name, value in given.items() if value is not None}
    if rig is not None:
        fields["rig"] = StreetRig.from_json(rig)
    try:
        config = WorldConfig(**fields)
    except ValidationError as error:
        raise ConfigError(invalid(error)) from error
    return settings.apply(config, words)


def generate_world(config: WorldConfig, root: Path, workers: int | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Generate with a progress bar; what was done, as JSON values."""
    total = (config.train_scenes + config.val_scenes) * config.frames
    with progress_bar("filming", total, unit="keyframes", every=5.0) as bar:
        report = generate(config, root, workers, _shown_on(bar), overwrite)
    rounded = {"root": str(root), "seconds": round(report.seconds, 2), "keyframes_per_second": round(report.rate, 4)}
    return asdict(report) | rounded


def generate_portraits(given: dict[str, Any], root: Path, workers: int | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Generate heads with a progress bar from options (None = default); what was done, as JSON values. Raises ConfigError, DataError."""
    try:
        config = HeadsConfig(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(invalid(error)) from error
    with progress_bar("filming", pictures(config), unit="pictures", every=5.0) as bar:
        report = generate_heads(config, root, workers, _shown_on(bar), overwrite)
    rounded = {"root": str(root), "seconds": round(report.seconds, 2), "pictures_per_second": round(report.rate, 4)}
    return asdict(report) | rounded


def _shown_on(bar: Reporter) -> Progress:
    """A function that shows on a bar how many of all are done; its first call counts what an earlier run left."""
    started = False

    def progress(done: int, _total: int) -> None:
        nonlocal started
        if not started:
            started = True
            bar.already(done)
        elif done > bar.done:
            bar.advance(count=done - bar.done)

    return progress
