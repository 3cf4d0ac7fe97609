"""A picture to look at: people, what is known of them, and their true swaps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from frustum.files import atomic_path
from frustum.types.pixel_classes import FACE
from frustum.worlds.heads.draws import draw_motion, draw_scene
from frustum.worlds.heads.render import HeadImage, render
from frustum.worlds.heads.swap import POLICIES, true_swap

if TYPE_CHECKING:
    from frustum.worlds.heads.generate import HeadsConfig

COLUMNS = 8  # at most


def truth_picture(shot: HeadImage) -> np.ndarray:
    """(H, W, 3) uint8: the classes in their colours, with the landmarks; hidden ones are dark."""
    picture = np.array(FACE.colours, np.uint8)[shot.parsing]
    size = len(picture)
    for (x, y), is_visible in zip(shot.landmarks, shot.is_visible, strict=True):
        if 0 <= x < size and 0 <= y < size:
            picture[int(y), int(x)] = (255, 255, 255) if is_visible else (40, 40, 40)
    return picture


def contact_sheet(config: HeadsConfig, path: Path) -> None:
    """Write rows of: up to eight sources, as many targets, the targets' truth, and the swap of each column under the three policies.

    Raises:
        DataError: the file cannot be written.
    """
    from frustum.worlds.heads.generate import clip_seed, person

    people = [person(config, index)[1] for index in range(min(COLUMNS, config.identities))]
    size = min(config.size, 192)
    columns = []
    for k, source in enumerate(people):
        other = (k + 1) % len(people)
        target, seed = people[other], clip_seed(config, other, 0)
        own = clip_seed(config, k, 0)
        motion, scene = draw_motion(seed), draw_scene(seed, target)
        shot = render(target, motion, scene, size)
        first = render(source, draw_motion(own), draw_scene(own, source), size).image
        swaps = [true_swap(source, target, motion, scene, policy, size).image for policy in POLICIES]
        columns.append(np.vstack([first, shot.image, truth_picture(shot), *swaps]))
    with atomic_path(path, ".jpg") as temporary:
        Image.fromarray(np.hstack(columns)).save(temporary, "JPEG", quality=88)
