"""From plain arrays to occupancy, without any data set: three cameras of your own, described by matrices.

python examples/predict_from_arrays.py [WEIGHTS]
"""

from __future__ import annotations

import sys

import numpy as np

import frustum


def look(yaw_degrees: float, position: tuple[float, float, float]) -> np.ndarray:
    """cam2ego (4, 4) of a level camera that looks along `yaw` (0 = forward, 90 = left)."""
    yaw = np.deg2rad(yaw_degrees)
    forward, right, down = [np.cos(yaw), np.sin(yaw), 0], [np.sin(yaw), -np.cos(yaw), 0], [0, 0, -1]
    cam2ego = np.eye(4)
    cam2ego[:3, :3] = np.array([right, down, forward]).T  # camera x right, y down, z forward
    cam2ego[:3, 3] = position
    return cam2ego


def main(weights: str | None = None, **settings: object) -> np.ndarray:
    """Predict from random pixels; returns semantics (X, Y, Z) uint8."""
    height, width = 96, 256
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)  # RGB; your images go here
    images = ((pixels.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2)  # (N, 3, H, W), normalised as flashocc-tiny wants it
    intrinsics = np.array([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]])[None].repeat(3, 0)  # (N, 3, 3)
    cam2ego = np.stack([look(55, (1.5, 0.5, 1.5)), look(0, (1.7, 0, 1.5)), look(-55, (1.5, -0.5, 1.5))])  # (N, 4, 4)

    model = frustum.load("flashocc-tiny", weights, **settings)
    batch = frustum.Batch.from_arrays(images, intrinsics, cam2ego)
    occupancy = model.predict(model(batch), batch)[0].occupancy
    semantics = occupancy.semantics.numpy()
    for index in np.unique(semantics):
        print(f"{occupancy.class_names[index]:22} {(semantics == index).sum():7} voxels")
    return semantics


if __name__ == "__main__":
    main(*sys.argv[1:2])
