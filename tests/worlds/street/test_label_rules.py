"""docs/data.md says what is observed in numbers; they are those of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from frustum.worlds.street.labels import LabelRules
from frustum.worlds.street.world_config import WorldConfig

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def entry(name: str) -> str:
    """One item of the list of definitions, on one line."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^- \*\*{re.escape(name)}.*?(?=^- |^$)", text, flags=re.S | re.M)
    assert found, name
    return " ".join(found.group().split())


def test_the_numbers_of_the_lidar_mask() -> None:
    rules, text = LabelRules(), entry("`mask_lidar`")
    assert f"every {rules.hit_every}th of their columns" in text
    assert "the beam of the keyframe's own sweep that passes nearest to its centre goes beyond it, whether that beam returns or not" in text
    assert {field.name for field in fields(rules)} == {"static_weight", "static_least", "actor_least", "hit_every"}, (
        "say it in docs/data.md"
    )


def test_the_numbers_of_occupied_voxels() -> None:
    rules = LabelRules()
    assert (rules.static_least, rules.static_weight) == (1, 3)
    assert "at least one of 3 x 3 x 3 sub-samples" in entry("Occupied voxel, static solids")
    assert "a static sub-sample counts three times a ground sub-sample" in entry("Occupied voxel, static solids")
    assert f"at least {rules.actor_least} of 4 x 4 x 4 sub-samples" in entry("Occupied voxel, objects")


def test_the_numbers_of_the_boxes() -> None:
    assert f"within {WorldConfig().annotation_range:g} m" in entry("Boxes")
