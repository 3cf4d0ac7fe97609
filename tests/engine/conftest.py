from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.engine import toy


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two training scenes and one for validation, four keyframes each. Treat it as read-only."""
    return toy.write_database(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The toy's tensors are so small that a second thread only waits, and on busy cores waits long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
