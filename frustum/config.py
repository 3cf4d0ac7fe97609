"""The base of every configuration object: frozen, typed, no unknown fields, JSON in and out."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen pydantic model. Unknown fields are errors; `model_dump_json()` and `model_validate_json()` are exact inverses.

    Attributes:
        first_class: of the base of a section whose class can be chosen: the class path that files of earlier versions mean, which do not
            name one; the base itself if empty.
    """

    first_class: ClassVar[str] = ""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Settings stored by an earlier version, in the names of this one. A class whose fields were renamed overrides this."""
        return stored


class Travels:
    """Marks a setting that must travel with the weights: what they were trained with, and must be fed or run with."""


TRAVELS = Travels()
"""`channel_order: Annotated[Literal["rgb", "bgr"], TRAVELS] = "rgb"` marks the setting where it is declared."""


class Taught:
    """Marks a section that says what a network learns from: of trained weights it can no longer be changed."""


TAUGHT = Taught()


def travelling(config: Config, prefix: str = "") -> dict[str, Any]:
    """The settings marked TRAVELS, of a configuration and its sections: JSON values by dotted path."""
    return _marked(config, Travels, prefix)


def taught(config: Config) -> dict[str, Any]:
    """The sections marked TAUGHT, likewise."""
    return _marked(config, Taught, "")


def _marked(config: Config, kind: type, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if any(isinstance(mark, kind) for mark in field.metadata):
            found[prefix + name] = config.model_dump(mode="json", include={name})[name]
        elif isinstance(value, Config):
            found |= _marked(value, kind, f"{prefix}{name}.")
    return found


def into_section(stored: dict[str, Any], section: str, names: dict[str, str]) -> dict[str, Any]:
    """Settings that were stored flat, some of them moved into a section: `names` gives the new name of each by its old one."""
    moved = {new: stored[old] for old, new in names.items() if old in stored}
    return {name: value for name, value in stored.items() if name not in names} | {section: moved}


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two configurations, dumped as JSON values, differ: (old, new) by dotted path; None for a setting that one does not have."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found.update(differences(old.get(key), new.get(key), f"{path}.{key}" if path else key))
        return found
    return {} if old == new else {path: (old, new)}


def in_words(found: dict[str, tuple[Any, Any]], max_shown: int = 6) -> str:
    """Differences as `frames was 5, now 8; ...`."""
    shown = "; ".join(f"{path} was {_short(old)}, now {_short(new)}" for path, (old, new) in list(found.items())[:max_shown])
    return shown + ("; ..." if len(found) > max_shown else "")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
