"""The base of every configuration object: frozen, typed, no unknown fields, JSON in and out."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen pydantic model. Unknown fields are errors; `model_dump_json()` and `model_validate_json()` are exact inverses."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Fields as a file of an earlier version stores them, as the fields of this version."""
        return stored


def into_section(stored: dict[str, Any], section: str, names: dict[str, str]) -> dict[str, Any]:
    """Settings that were stored flat, some of them moved into a section: `names` gives the new name of each by its old one."""
    moved = {new: stored[old] for old, new in names.items() if old in stored}
    return {name: value for name, value in stored.items() if name not in names} | {section: moved}


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two configurations, dumped as JSON values, differ: (old, new) by dotted path; None stands for a setting that one has not."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found.update(differences(old.get(key), new.get(key), f"{path}.{key}" if path else key))
        return found
    return {} if old == new else {path: (old, new)}


def in_words(found: dict[str, tuple[Any, Any]], most: int = 6) -> str:
    """Differences as `frames was 5, now 8; ...`."""
    shown = "; ".join(f"{path} was {_short(old)}, now {_short(new)}" for path, (old, new) in list(found.items())[:most])
    return shown + ("; ..." if len(found) > most else "")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
