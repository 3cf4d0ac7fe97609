"""What a check reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One inconsistency: an `error` makes results wrong or stops a run, a `warning` may spoil something, a `note` is worth knowing."""

    severity: Severity
    sample: str  # keyframe token, or "" where it concerns the whole data set
    what: str
    hint: str
