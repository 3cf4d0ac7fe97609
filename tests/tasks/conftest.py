from __future__ import annotations

from tests.engine.conftest import _one_thread, toy_root  # noqa: F401 (fixtures)
