"""Compiled kernels find a place, or do without: also in a read-only installation of a user without a writable home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frustum import kernel_cache

# What numba sees of a read-only installation: it cannot write beside the sources (root may write anywhere, so permissions do not do).
_SCRIPT = """
import os
from unittest import mock
with mock.patch("os.access", lambda *_: False):
    import frustum
from numba.core import caching
caching.InTreeCacheLocator.from_function = classmethod(lambda cls, *_: None)
import numpy as np
from frustum.ops.box_points import count_points_in_boxes
from frustum import kernel_cache
from frustum.cli.doctor import _numba
inside = count_points_in_boxes(np.zeros((3, 3)), np.eye(4)[None], np.ones((1, 3)))
(check,) = _numba()
print(inside.tolist(), os.environ.get("NUMBA_CACHE_DIR"), check.level, check.seen, sep="|")
"""


@pytest.mark.parametrize("has_temporary", [True, False])
def test_a_read_only_installation_without_a_home(has_temporary: bool, tmp_path: Path) -> None:
    """Without the fallback numba raises RuntimeError: cannot cache function, no locator available."""
    place = tmp_path if has_temporary else Path("/proc/none")
    env = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    env |= {"HOME": "/proc/none", "TMPDIR": str(place)}
    script = _SCRIPT if has_temporary else "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/proc/none']\n" + _SCRIPT
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inside, folder, level, seen = done.stdout.strip().split("|")
    assert (inside, level) == ("[3]", "note")
    assert "neither the installation nor a home folder can be written to" in seen
    if has_temporary:
        assert Path(folder).parent == tmp_path
        assert list(Path(folder).rglob("*.nbi")), "kernels are kept for the next process"
        assert f"cached in {folder}" in seen
        assert Path(folder).stat().st_mode & 0o077 == 0, "what lies there is run as code: nobody else may write to it"
    else:
        assert folder == "None"
        assert "compiled anew in every process" in seen


def test_where_kernels_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert kernel_cache.find() == Path(kernel_cache.__file__).parent
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "own"))
    assert kernel_cache.find() == tmp_path / "own"
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernel_cache.find() == tmp_path / "cache" / "numba"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    assert kernel_cache.find() is None


def test_a_folder_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = kernel_cache._temporary()
    assert first is not None
    assert kernel_cache._temporary() == first
    first.chmod(0o777)
    other = kernel_cache._temporary()
    assert other not in (None, first)
