"""People, clips and balanced sets from seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest

from frustum.errors import ConfigError
from frustum.worlds.heads.corners import CORNERS, LOOKS, TONES, corner_identity
from frustum.worlds.heads.draws import STYLES, Look, draw_clip, draw_identity, draw_motion, draw_scene


def test_a_seed_is_a_person() -> None:
    assert draw_identity(8) == draw_identity(8) != draw_identity(9)
    assert draw_scene(8, draw_identity(8)) == draw_scene(8, draw_identity(8))
    assert draw_scene(8, draw_identity(9)).dress.skin == draw_identity(9).paint.skin
    assert draw_motion(8) == draw_motion(8)


def test_a_look_fixes_only_what_it_names() -> None:
    for seed in range(20):
        free, fixed = draw_identity(seed), draw_identity(seed, Look(style="bald", glasses=True, hat="cap", beard=False))
        assert (fixed.hair.length, fixed.hat, fixed.beard) == (0.0, "cap", 0.0)
        assert fixed.glasses is not None
        assert (fixed.shape, fixed.paint.skin, fixed.paint.hair) == (free.shape, free.paint.skin, free.paint.hair)


@pytest.mark.parametrize(
    ("look", "hint"), [(Look(style="afros"), "'afro'"), (Look(hair="blnd"), "'blond'"), (Look(hat="top"), "beanie, brim, cap")]
)
def test_unknown_looks(look: Look, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        draw_identity(0, look)


def test_people_differ() -> None:
    people = [draw_identity(seed) for seed in range(200)]
    assert len({p.paint.skin for p in people}) == 200
    assert {p.hat for p in people} == {"", "beanie", "cap", "brim"}
    assert 0.1 < np.mean([p.glasses is not None for p in people]) < 0.4
    assert 0.1 < np.mean([p.beard > 0 for p in people]) < 0.5
    assert set(STYLES) >= {"bald", "afro"}
    assert any(p.hair.length == 0 for p in people)


def test_clips_are_smooth_and_stay_in_range() -> None:
    clip = draw_clip(5, 75)
    assert clip == draw_clip(5, 75)
    numbers = np.array([astuple(motion) for motion in clip])
    names = list(vars(clip[0]))
    steps = np.abs(np.diff(numbers, axis=0)).max(0)
    limits = {"yaw": 0.06, "pitch": 0.06, "roll": 0.04, "shift_x": 0.3, "shift_y": 0.3, "scale": 0.02, "gaze_x": 0.2, "gaze_y": 0.15}
    for name, limit in limits.items():
        assert steps[names.index(name)] < limit, name
    blinks = numbers[:, names.index("blink_left")]
    assert blinks.max() > 0.8
    assert np.median(blinks) < 0.1
    assert numbers[:, names.index("jaw")].std() > 0.02
    assert (np.abs(numbers[:, names.index("yaw")]) <= 0.9).all()


def test_balanced_people_fill_every_corner_alike() -> None:
    people = [corner_identity(index, 1000 + index) for index in range(2 * len(CORNERS))]
    assert len(CORNERS) == len(TONES) * len(LOOKS)
    assert set(Counter(corner for corner, _ in people).values()) == {2}
    for corner, identity in people:
        assert (identity.glasses is not None) == (corner.look == "glasses")
        assert (identity.hair.length == 0) == (corner.look == "bald")
        assert (identity.beard > 0) == (corner.look == "beard")
    bright = {tone: np.mean([sum(i.paint.skin) for c, i in people if c.tone == tone]) for tone in TONES}
    assert bright["light skin"] > bright["medium skin"] > bright["dark skin"]
