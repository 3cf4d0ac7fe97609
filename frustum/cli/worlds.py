"""The settings of a street world from options and overrides, and its generation with a progress bar."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from frustum.cli.common import invalid, split_overrides
from frustum.engine import overrides as settings
from frustum.engine.progress import progress_bar
from frustum.errors import ConfigError
from frustum.worlds.street.generate import generate
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
        started = False

        def progress(done: int, _total: int) -> None:
            nonlocal started
            if not started:  # the first call counts what an earlier run left
                started = True
                bar.already(done)
            elif done > bar.done:
                bar.advance(count=done - bar.done)

        report = generate(config, root, workers, progress, overwrite)
    rounded = {"root": str(root), "seconds": round(report.seconds, 2), "keyframes_per_second": round(report.rate, 4)}
    return asdict(report) | rounded
