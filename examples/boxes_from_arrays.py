"""From plain arrays to boxes in metres, without any data set: images, intrinsics and poses of three cameras of your own.

python examples/boxes_from_arrays.py [RECIPE or RUN or WEIGHTS]
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import frustum
from frustum.types.predictions import PredictedBoxes


def main(what: str = "ppe3d-r50", **settings: object) -> PredictedBoxes:
    """Predict from random pixels with a recipe's fresh weights, or with those of a run or a file."""
    model = frustum.load(what, **settings)
    height, width = model.recipe.data.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, 3))  # (N, H, W, 3), RGB; your images, at this size
    intrinsics = np.tile([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]], (3, 1, 1))  # (N, 3, 3), of that size
    cam2ego = np.tile(np.eye(4), (3, 1, 1))  # (N, 4, 4): camera x right, y down, z forward; ego x forward, y left, z up, on the ground
    for matrix, yaw in zip(cam2ego, np.deg2rad([55, 0, -55]), strict=True):  # level cameras that look left, ahead and right
        matrix[:3, :3] = [[np.sin(yaw), 0, np.cos(yaw)], [-np.cos(yaw), 0, np.sin(yaw)], [0, -1, 0]]
        matrix[:3, 3] = 1.7 * np.cos(yaw), 1.7 * np.sin(yaw), 1.5

    data = model.recipe.data  # how this network wants its pixels
    pixels = pixels[..., ::-1] if data.channel_order == "bgr" else pixels
    images = ((pixels - np.array(data.mean)) / np.array(data.std)).transpose(0, 3, 1, 2)  # (N, 3, H, W)
    batch = frustum.Batch.from_arrays(images, intrinsics, cam2ego)
    with torch.no_grad():
        (found,) = model.predict(model(batch), batch)
    assert found.boxes is not None
    for box, kind, score in list(zip(found.boxes.boxes.tolist(), found.boxes.classes, found.boxes.scores, strict=True))[:5]:
        x, y, z, length, w, h, yaw, vx, vy = box  # metres, radians and m/s in the ego frame; x, y, z of the centre
        name = found.boxes.class_names[kind]
        print(f"{name} {score:.2f}: {x:.1f} {y:.1f} {z:.1f}, {length:.1f} x {w:.1f} x {h:.1f}, yaw {yaw:.2f}, {vx:.1f} {vy:.1f} m/s")
    return found.boxes


if __name__ == "__main__":
    main(*sys.argv[1:2])
