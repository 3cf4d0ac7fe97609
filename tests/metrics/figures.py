"""Compare nested figures."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_figures(ours: dict[str, Any], expected: dict[str, Any], tolerance: float, where: str = "") -> int:
    """Every number of `expected` (null is NaN) is in `ours`; returns how many there were."""
    count = 0
    for key, value in expected.items():
        if isinstance(value, dict):
            count += assert_figures(ours[key], value, tolerance, f"{where}/{key}")
        else:
            np.testing.assert_allclose(ours[key], np.nan if value is None else value, rtol=0, atol=tolerance, err_msg=f"{where}/{key}")
            count += 1
    return count
