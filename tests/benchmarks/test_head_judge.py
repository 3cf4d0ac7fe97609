"""The judge of the claim about head swaps: which numbers it reads, in which units it is wrong, and that it learns once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.claims import head_judge
from frustum.worlds.heads.person import HairStyle, Shape

MOTION = {"yaw": 0.5, "pitch": -0.2, "roll": 0.1, "jaw": 0.3, "smile": 0.6, "blink_left": 1.0}
ABOUT = {"shape": list(range(len(Shape._fields))), "hair": list(HairStyle()), "hat": "cap", "glasses": None, "beard": 1.5}


def test_the_numbers_of_a_frame() -> None:
    found = dict(zip(head_judge.NAMES, head_judge.numbers(MOTION, ABOUT).tolist(), strict=True))
    assert [found[name] for name in ("yaw", "jaw", "smile")] == pytest.approx([0.5, 0.3, 0.6])
    assert found["width"] == 0
    assert found["length"] == HairStyle().length
    assert [found[name] for name in ("hat", "glasses", "beard")] == [1, 0, 1]


def test_errors_have_units() -> None:
    """Off by half a radian in yaw alone, by one spread in every number of the identity."""
    true = head_judge.numbers(MOTION, ABOUT)
    spread = np.full(len(true), 2.0, np.float32)
    wrong = true + np.where(np.arange(len(true)) >= 5, spread, 0) + np.where(np.arange(len(true)) == 0, 0.5, 0)

    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy((wrong - 1) / spread)[None].float()

    error = np.full(len(true), 0.5)
    error[-1], wrong[-1] = 0.9, 100.0  # what it cannot tell does not count
    judge = head_judge.Judge(Fixed(), np.ones(len(true), np.float32), spread, error)  # type: ignore[arg-type]
    errors = judge.errors(np.zeros((8, 8, 3), np.uint8), MOTION, ABOUT)
    assert errors == {
        "pose_error": pytest.approx(np.degrees(0.5) / 3, rel=1e-4),
        "expression_error": pytest.approx(0, abs=1e-5),
        "identity_error": pytest.approx(1, rel=1e-5),
    }


class People:
    """Portraits that are as bright as the head is turned."""

    def tokens(self, split: str) -> list[str]:
        return [f"{i}/a/0" for i in (range(20) if split == "train" else range(1, 20, 6))]

    def image(self, token: str) -> np.ndarray:
        return np.full((32, 32, 3), 10 * int(token.split("/")[0]), np.uint8)

    def truth(self, token: str) -> dict[str, Any]:
        return {"motion": {**MOTION, "yaw": int(token.split("/")[0]) / 20 - 0.5}}

    def about(self, person: str) -> dict[str, Any]:
        return ABOUT


def test_it_learns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_judge, "STEPS", 80)
    people, path = People(), tmp_path / "judge.safetensors"
    judge = head_judge.learn(people, path)
    wrong = np.mean([judge.errors(people.image(t), people.truth(t)["motion"], ABOUT)["pose_error"] for t in people.tokens("train")])
    assert wrong < 0.6 * np.degrees(0.25) / 3, "half of what guessing the mean is wrong by, about"
    monkeypatch.setattr(head_judge, "STEPS", 10**9)
    again = head_judge.learn(people, path)
    assert again.errors(people.image("3/a/0"), MOTION, ABOUT) == judge.errors(people.image("3/a/0"), MOTION, ABOUT)
