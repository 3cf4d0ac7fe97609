"""True swaps: what a perfect head swap looks like, for each way to choose the colours."""

from __future__ import annotations

from dataclasses import replace

from frustum.errors import ConfigError, nearest_names
from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.person import Identity
from frustum.worlds.heads.render import HeadImage, render
from frustum.worlds.heads.scene import Scene

POLICIES = ("source", "skin", "region")
"""Colour policies. `source`: the head keeps its own colours. `skin`: skin and lips take those of the target's body and lips, so that head
and neck fit. `region`: every region that both heads have takes the target's colour, hair, brows and eyes too (HeSer's colour reference)."""


def recoloured(source: Identity, target: Identity, scene: Scene, policy: str) -> Identity:
    """The source's head in the colours that a policy gives it in the target's place. Raises ConfigError for an unknown policy."""
    if policy not in POLICIES:
        raise ConfigError(f"there is no colour policy {policy!r}; {nearest_names(policy, POLICIES)}")
    own, other = source.paint, target.paint
    if policy == "source":
        return source
    paint = own._replace(skin=scene.dress.skin, lip=other.lip)
    if policy == "region":
        paint = paint._replace(hair=other.hair, brow=other.brow, beard=other.beard, iris=other.iris)
        if source.hat and target.hat:
            paint = paint._replace(hat=other.hat)
        if source.glasses is not None and target.glasses is not None:
            paint = paint._replace(frame=other.frame)
        if source.earring and target.earring:
            paint = paint._replace(metal=other.metal)
    return replace(source, paint=paint)


def true_swap(source: Identity, target: Identity, motion: Motion, scene: Scene, policy: str = "skin", size: int = 128) -> HeadImage:
    """The picture of `target` (with its motion and scene) with the head of `source`.

    It equals the target's picture in every pixel that neither of the two heads covers.

    Args:
        policy: one of POLICIES.

    Raises:
        ConfigError: an unknown policy or size.
    """
    return render(recoloured(source, target, scene, policy), motion, scene, size)
