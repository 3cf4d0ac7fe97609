"""What a world on disk was made with, so that another one does not take its place unasked.

`world-SEED.json` in the root names the settings and the version of frustum; the number of scenes is left out, for it may change.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from frustum.config import differences, in_words
from frustum.data.nuscenes.records import lidarseg_file, panoptic_file
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.errors import ConfigError
from frustum.files import read_object, write_error, write_json
from frustum.version import __version__
from frustum.worlds.street.world_config import NUMBERS, WorldConfig


def settle(config: WorldConfig, root: Path, overwrite: bool = False) -> None:
    """Make sure that what `root` holds of a world of this seed, whole or in part, was made with these settings, and note them down.

    Args:
        overwrite: delete a world with other settings, all its files, instead of refusing.

    Raises:
        ConfigError: there is one, and `overwrite` is off; names the settings that differ. DataError: the folder cannot be written to.
    """
    path, now = root / f"world-{config.seed:03d}.json", _settings(config)
    if path.is_file():
        other = in_words(differences(read_object(path, "settings of the world"), now))
    else:
        other = "they were not written down" if _has_strangers(config, root) else ""
    if other:
        if not overwrite:
            raise ConfigError(
                f"{root} holds a world of seed {config.seed} with other settings: {other}. Give another folder; or delete that world "
                "and make this one with --overwrite (of a demo: frustum demo --fresh). Only the number of scenes may change."
            )
        remove(config, root)
    if other or not path.is_file():
        write_json(path, now, indent=2)


def remove(config: WorldConfig, root: Path) -> None:
    """Delete every file of the scenes of this world's seed, of scenes that were left half-made too. Raises DataError."""
    prefix = config.scene_prefix
    try:
        for part in root.glob(f"*/parts/{prefix}*"):
            part.unlink()
        for scan in root.glob(f"samples/LIDAR_TOP/{prefix}*"):
            with contextlib.suppress(ValueError):  # a name that is none of ours
                scene, channel, stamp = scan.name.removesuffix(".pcd.bin").split("__")
                for labels in (lidarseg_file, panoptic_file):
                    (root / labels(config.version, scene, channel, int(stamp))).unlink(missing_ok=True)
        for pattern in ("samples/*", "sweeps/*", "extras/*/*"):
            for file in root.glob(f"{pattern}/{prefix}*"):
                file.unlink()
        for folder in ("gts", "occ3d_panoptic"):
            for place in root.glob(f"{folder}/{prefix}*"):
                shutil.rmtree(place)
    except OSError as error:
        raise write_error(root, error) from error


def _settings(config: WorldConfig) -> dict[str, Any]:
    return {"frustum": __version__} | config.model_dump(mode="json", exclude=NUMBERS)


def _has_strangers(config: WorldConfig, root: Path) -> bool:
    """Whether the database has a scene of this seed that was made with other settings, set aside or not."""
    made = DatabaseWriter(root, config.version).fingerprints()
    return any(name.startswith(config.scene_prefix) and fingerprint != config.fingerprint() for name, fingerprint in made)
