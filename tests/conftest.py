"""Fixtures of the whole suite: where real sample data lies, a small generated database, steady seeds and few threads."""

from __future__ import annotations

import os
import random
from pathlib import Path

# Before torch or numba are imported: several workers share the cores, and idle threads of one slow down the others.
if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # workers inherit what the line below set in their parent
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MKL_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--recipe", action="append", default=[], metavar="MODULE:FUNCTION", help="also run the contract test on this recipe")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real sample data (data/) and golden numbers (golden/): $FRUSTUM_SHARED, else ../shared beside the checkout."""
    given = os.environ.get("FRUSTUM_SHARED")
    folder = Path(given) if given else REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir() and not (folder / "golden").is_dir():
        pytest.skip(f"no sample data at {folder}: set FRUSTUM_SHARED to the folder that holds data/ and golden/")
    return folder


@pytest.fixture(autouse=True)
def _steady() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def street_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small street world: two training scenes and one for validation, three keyframes each, images of 96 x 256. Treat it as read-only."""
    from filelock import FileLock  # comes with torch

    from frustum.worlds.street.generate import WorldConfig, generate

    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent  # one world for all workers of this run
    root = base / "street"
    with FileLock(str(root) + ".lock"):
        if not (root / "complete").exists():
            generate(WorldConfig(train_scenes=2, val_scenes=1, frames=3, image_size=(96, 256)), root, workers=1)
            (root / "complete").touch()
    return root


@pytest.fixture(scope="session")
def other_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another world whose keyframes have the tokens of `street_root`: images of 64 x 176, fewer things, with truth images."""
    from frustum.worlds.street.generate import WorldConfig, generate

    config = WorldConfig(train_scenes=1, val_scenes=0, frames=2, image_size=(64, 176), save=("depth", "semantics"))
    root = tmp_path_factory.mktemp("other")
    generate(config.model_copy(update={"scene": config.scene.model_copy(update={"density": 0.5})}), root, workers=1)
    return root
