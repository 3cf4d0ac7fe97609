"""Metrics of a run, line by line: metrics.jsonl, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from frustum.files import append_line, write_bytes


class MetricsLog(AbstractContextManager["MetricsLog"]):
    """Context manager that appends one JSON object per `write`. Lines after `keep_until` (steps a resumed run repeats) are dropped.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, keep_until: int = 0, enabled: bool = True):
        self.path, self._enabled = folder / "metrics.jsonl", enabled
        self._board: Any = None
        if not enabled:
            return
        kept = [line for line in read_lines(self.path) if line["step"] <= keep_until]
        write_bytes(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        with suppress(ImportError):  # the extra is optional; metrics.jsonl has everything
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=keep_until + 1 if keep_until else None)

    def write(self, line: dict[str, Any]) -> None:
        """Append `line`; needs a `step`. Nested dicts become `name/key` in TensorBoard."""
        if not self._enabled:
            return
        append_line(self.path, json.dumps(line))
        if self._board is not None:
            for name, value in line.items():
                for key, number in value.items() if isinstance(value, dict) else [("", value)]:
                    if isinstance(number, (int, float)) and math.isfinite(number):
                        self._board.add_scalar(f"{name}/{key}" if key else name, number, line["step"])

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """All complete lines of a metrics.jsonl; a last one that was cut off by a crash is left out. Empty without a file."""
    lines: list[Any] = []
    for text in Path(path).read_bytes().splitlines() if Path(path).is_file() else []:
        with suppress(ValueError, RecursionError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]
