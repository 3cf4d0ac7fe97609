"""What a check reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
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

    @property
    def kind(self) -> tuple[str, ...]:
        """What findings share that differ in numbers, files and what stands in brackets only; those of two cameras differ."""
        return self.severity, re.sub(r"\([^()]*\)|\S*[/\\]\S*|\b[0-9a-f]{32}\b|[-+]?\d[\d.,]*", "#", self.what), self.hint


def by_kind(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings of one kind together, in the order of their first."""
    kinds: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return list(kinds.values())
