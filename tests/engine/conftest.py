from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine import toy


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two training scenes and one for validation, four keyframes each. Treat it as read-only."""
    return toy.write_database(tmp_path_factory.mktemp("toy"))
