"""True swaps: the source's head, and nothing else of the target's picture is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from frustum.errors import ConfigError
from frustum.types.pixel_classes import FACE
from frustum.worlds.heads.draws import Look, draw_identity, draw_motion, draw_scene
from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.render import render
from frustum.worlds.heads.swap import POLICIES, recoloured, true_swap

LIGHT = draw_identity(1, Look(tone=0.0, style="short", hair="blond", hat="", glasses=False, beard=False, make_up=False))
DARK = draw_identity(2, Look(tone=1.0, style="long", hair="black", hat="", glasses=False, beard=False, make_up=False))


@pytest.mark.parametrize("seed", range(6))
def test_pixels_that_neither_head_covers_are_untouched(seed: int) -> None:
    source, target = draw_identity(seed), draw_identity(seed + 50)
    motion, scene = draw_motion(seed), draw_scene(seed, target)
    before = render(target, motion, scene, 96)
    for policy in POLICIES:
        after = true_swap(source, target, motion, scene, policy, 96)
        outside = (before.matte == 0) & (after.matte == 0)
        assert outside.mean() > 0.2
        assert np.array_equal(before.image[outside], after.image[outside])
        assert np.array_equal(before.parsing[outside], after.parsing[outside])


@pytest.mark.parametrize("policy", POLICIES)
def test_swapping_a_head_with_itself_changes_nothing(policy: str) -> None:
    motion, scene = draw_motion(4), draw_scene(4, DARK)
    plain, swapped = render(DARK, motion, scene, 64), true_swap(DARK, DARK, motion, scene, policy, 64)
    for name, value in vars(plain).items():
        assert np.array_equal(value, getattr(swapped, name)), name


def test_policies_choose_the_colours() -> None:
    scene = draw_scene(9, DARK)
    assert recoloured(LIGHT, DARK, scene, "source") is LIGHT
    skin = recoloured(LIGHT, DARK, scene, "skin").paint
    assert skin == LIGHT.paint._replace(skin=DARK.paint.skin, lip=DARK.paint.lip)
    region = recoloured(LIGHT, DARK, scene, "region").paint
    assert (region.hair, region.brow, region.iris) == (DARK.paint.hair, DARK.paint.brow, DARK.paint.iris)
    assert region.freckles == LIGHT.paint.freckles
    hatted = replace(LIGHT, hat="cap")
    assert recoloured(hatted, DARK, scene, "region").paint.hat == LIGHT.paint.hat
    assert recoloured(hatted, replace(DARK, hat="brim"), scene, "region").paint.hat == DARK.paint.hat

    shots = {policy: true_swap(LIGHT, DARK, Motion(), scene, policy, 96) for policy in POLICIES}

    def brightness(policy: str, part: str) -> float:
        return float(shots[policy].image[shots[policy].parsing == FACE.names.index(part)].mean())

    assert brightness("source", "skin") > 1.5 * brightness("skin", "skin")
    assert brightness("skin", "hair") > 1.5 * brightness("region", "hair")
    for policy in POLICIES:  # the form is the source's whatever its colours are
        np.testing.assert_array_equal(shots[policy].landmarks, render(LIGHT, Motion(), scene, 96).landmarks)
        assert np.array_equal(shots[policy].parsing, shots["source"].parsing)


def test_unknown_policy() -> None:
    with pytest.raises(ConfigError, match="did you mean 'region'"):
        true_swap(LIGHT, DARK, Motion(), draw_scene(0, DARK), "regions")
