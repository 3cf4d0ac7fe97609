"""The base of every configuration object: frozen, typed, no unknown fields, JSON in and out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen pydantic model. Unknown fields are errors; `model_dump_json()` and `model_validate_json()` are exact inverses."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())
