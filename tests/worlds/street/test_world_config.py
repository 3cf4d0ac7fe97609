"""WorldConfig: which settings make sense, and what follows from them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from frustum.worlds.street.world_config import WorldConfig


@pytest.mark.parametrize("version", ["../up", "a/b", "a\\b", "", ".", "..", "v1 mini", ".hidden"])
def test_a_version_is_one_plain_folder_name(version: str) -> None:
    with pytest.raises(ValidationError, match="version"):
        WorldConfig(version=version)


@pytest.mark.parametrize("version", ["v1.0-mini", "v1.0-trainval", "v1.0-test", "v1.0-toy"])
def test_versions_that_are_folder_names(version: str) -> None:
    assert WorldConfig(version=version).version == version


@pytest.mark.parametrize("size", [(0, 0), (15, 64), (64, 15), (-96, 256)])
def test_images_have_a_least_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 16"):
        WorldConfig(image_size=size)
    assert WorldConfig(image_size=(16, 16)).image_size == (16, 16)


def test_names_say_seed_and_split_and_never_meet() -> None:
    config = WorldConfig(train_scenes=5000, val_scenes=5000, seed=42)
    names = config.scene_names()
    assert names["train"][:2] == ["street-042-0000", "street-042-0001"]
    assert names["val"][-1] == "street-042-9999"
    assert len({*names["train"], *names["val"]}) == 10_000
    assert all(name.startswith(config.scene_prefix) for name in names["train"] + names["val"])
    assert (names["street_train"], names["street_val"]) == (names["train"], names["val"])
    for field in ("train_scenes", "val_scenes"):
        with pytest.raises(ValidationError, match=field):
            WorldConfig(**{field: 5001})


def test_the_fingerprint_follows_what_a_scene_depends_on() -> None:
    plain = WorldConfig().fingerprint()
    assert WorldConfig(train_scenes=3, val_scenes=0).fingerprint() == plain
    for change in ({"seed": 1}, {"frames": 3}, {"camera_spread": 0.1}, {"image_size": (64, 176)}, {"scene": {"density": 0.5}}):
        assert WorldConfig(**change).fingerprint() != plain
