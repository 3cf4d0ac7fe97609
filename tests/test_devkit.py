"""The official nuscenes-devkit opens a generated database, and gives made-up detections the figures that frustum gives them.

It lives in an environment of its own (`make check-devkit` sets it up).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.devkit
def test_the_devkit_opens_a_street_world(street_root: Path, tmp_path: Path) -> None:
    candidates = [ROOT / ".venv-devkit" / "bin" / "python", ROOT / ".venv-devkit" / "Scripts" / "python.exe"]
    python = next((path for path in candidates if path.is_file()), None)
    if python is None:
        pytest.skip("no .venv-devkit: `make check-devkit` sets it up")
    command = [str(python), str(ROOT / "tools" / "check_devkit.py"), str(street_root), "--python", sys.executable, "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "devkit check passed" in result.stdout
    assert (tmp_path / "points.png").is_file()
    assert re.search(r"'nd_score': 0\.\d+.*; 97 figures, of which frustum finds others for 0$", result.stdout, re.MULTILINE)
