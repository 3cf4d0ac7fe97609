"""From a street world with truth images to a folder of images with label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frustum.data.images.labelled import read_ids
from frustum.data.labels.view_points import truth_images
from frustum.errors import DataError, nearest_names
from frustum.files import atomic_path, copy_file, write_json
from frustum.locks import owning
from frustum.types.classes import IGNORE, OCC3D_CLASSES, OCC3D_OF_CATEGORY

CLASS_NAMES = (*OCC3D_CLASSES[:-1], "sky")
"""The classes of Occ3D but free space, and the sky."""
_SKY = 255  # id of the sky in truth images
_MAKE = "Make the world with its truth images: frustum data world OUT 'save=[\"semantics\"]'"


def class_table() -> np.ndarray:
    """(256,) uint8: the class of an id in the truth images of a street world; IGNORE for ids that they do not have."""
    table = np.full(256, IGNORE, np.uint8)
    table[: len(OCC3D_OF_CATEGORY)] = [CLASS_NAMES.index(name) for name in OCC3D_OF_CATEGORY.values()]
    table[_SKY] = CLASS_NAMES.index("sky")
    return table


@owning("out", "frustum data segmentation")
def write_image_folder(
    world: Any, split: str, out: Path, camera: str = "CAM_FRONT", progress: Callable[[Sequence[str]], Iterable[str]] = iter
) -> int:
    """Write images/SPLIT/NAME.jpg, labels/SPLIT/NAME.png and classes.json of one camera; returns how many images are new.

    Images that are there already are not written again. Images are second names of the world's files where the file system allows that.

    Args:
        world: a street world, opened as a database in the nuScenes format.
        split: of the world.
        out: the folder; other splits may be in it.
        camera: channel whose images are taken.
        progress: yields the keyframes behind a progress bar.

    Raises:
        DataError: the world does not have the camera, the split or truth images, or the folder holds other images or classes.
    """
    table, new, classes = class_table(), 0, out / "classes.json"
    for token in progress(world.tokens(split)):
        image, truth = source_files(world, token, camera)
        target, labels = out / "images" / split / image.name, out / "labels" / split / f"{image.stem}.png"
        if target.is_file() and target.stat().st_size != image.stat().st_size:
            raise DataError(f"{target} is another image than {image}. Choose another output folder.")
        if target.is_file() and labels.is_file():
            continue
        with atomic_path(labels) as temporary:
            Image.fromarray(table[read_ids(truth)]).save(temporary, "PNG")
        copy_file(image, target)
        new += 1
    if not classes.is_file():
        write_json(classes, CLASS_NAMES)
    return new


def source_files(world: Any, token: str, camera: str) -> tuple[Path, Path]:
    """A keyframe's image and its truth image of classes. Raises DataError if there is no such camera or no such file."""
    cameras = {found.channel: found for found in world.sample(token, with_boxes=False, occupancy=False).cameras}
    if camera not in cameras:
        raise DataError(f"{world.root} has no camera {camera!r}; {nearest_names(camera, cameras)}")
    truth = truth_images(cameras[camera])[1]
    if not truth.is_file():
        raise DataError(f"{world.root} has no label for each pixel: the file {truth} is missing. {_MAKE}")
    return cameras[camera].path, truth
