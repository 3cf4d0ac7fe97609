"""Writes a teacher's features into a folder: says how large it will be before it starts, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from frustum.checkpoint.weights_file import digest
from frustum.cli.common import say
from frustum.data.labels.feature_maps import write_features
from frustum.data.opening import opened
from frustum.data.sample import CameraFrame
from frustum.engine.progress import loop_progress
from frustum.engine.recipe import RuntimeConfig
from frustum.engine.runtime import make_accelerator
from frustum.errors import ConfigError, nearest_names
from frustum.files import make_folder
from frustum.nn.teachers import Teacher, TeacherKind, require_weights


def write_teacher_features(
    root: Path, out: Path, kind: str, weights: str, image_size: str, split: str, device: str, version: str | None
) -> dict[str, Any]:
    """What `frustum data features` does; JSON values. Raises CheckpointError, ConfigError, DataError."""
    if kind not in get_args(TeacherKind):
        raise ConfigError(f"there is no teacher {kind!r}: {nearest_names(kind, get_args(TeacherKind))}")
    size = [int(side) if side.strip().isdigit() else 0 for side in image_size.split(",")]
    if len(size) != 2 or min(size) < 14:
        raise ConfigError(f"--image-size is height,width in pixels, such as 448,798, got {image_size!r}.")
    require_weights(kind, weights or True, "--weights ", "--teacher efficientnet_lite0")
    teacher = Teacher(kind, weights or True, image_size=(size[0], size[1])).eval()  # type: ignore[arg-type]
    place = make_accelerator(RuntimeConfig(device=device)).device
    teacher = teacher.to(place)

    def teach(cameras: list[CameraFrame]) -> np.ndarray:
        images = [torch.from_numpy(np.array(camera.open())).permute(2, 0, 1) for camera in cameras]
        if len({image.shape for image in images}) == 1:
            return teacher(torch.stack(images).to(place)).cpu().numpy()
        return np.concatenate([teacher(image[None].to(place)).cpu().numpy() for image in images])

    with opened(root, version) as database:
        tokens = list(database.tokens(split))
        first = database.sample(tokens[0], with_boxes=False, occupancy=False) if tokens else None
        megabytes = 2 * len(tokens) * teach(list(first.cameras)).size / 1e6 if first is not None else 0.0
        say(f"features of {len(tokens)} keyframes will take about {megabytes:,.0f} MB in {out}")
        make_folder(out)
        about = {
            "teacher": kind, "features": teacher.about.features, "origin": f"{kind} ({teacher.started_from})", "image_size": size,
            "weights": digest(teacher),
        }  # fmt: skip
        new = write_features(database, loop_progress("looking", tokens), out, about, teach)
    learn = f"model.teacher.kind={kind} model.teacher.folder={out}"
    say(f"features of {len(tokens)} keyframes are in {out}, {new} of them are new. Learn from them: {learn}")
    return {"folder": str(out), "keyframes": len(tokens), "new": new, "megabytes": round(megabytes, 1)}
