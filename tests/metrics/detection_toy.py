"""Boxes for tests of the detection metrics."""

from __future__ import annotations

from typing import Any

import numpy as np

from frustum.types.boxes import LABEL_OF, DetectionBoxes


def boxes(*rows: tuple[str, float, float], **given: Any) -> DetectionBoxes:
    """Boxes of 4 x 2 x 1 m, (class, x, score or -1), that stand still and look ahead."""
    num = len(rows)
    defaults = {
        "labels": np.array([LABEL_OF[name] for name, _, _ in rows], int),
        "centres": np.array([(x, 0, 0) for _, x, _ in rows], float).reshape(num, 3),
        "sizes": np.tile([4.0, 2.0, 1.0], (num, 1)),
        "rotations": np.tile([1.0, 0, 0, 0], (num, 1)),
        "velocities": np.zeros((num, 2)),
        "attributes": np.zeros(num, int),
        "scores": np.array([score for _, _, score in rows], float),
        "num_points": np.ones(num, int),
    }
    return DetectionBoxes(**(defaults | given))


def heading(*degrees: float) -> np.ndarray:
    half = np.radians(degrees) / 2
    return np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], 1)
