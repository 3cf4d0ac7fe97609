"""Labels of all pixels of a street world beside those of its LiDAR points, which are made another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from frustum.data.labels.view_points import Views, view_points
from frustum.data.nuscenes.reader import NuScenes
from frustum.types.classes import IGNORE


def test_dense_labels_are_those_of_lidar_points(other_root: Path) -> None:
    """Away from edges, at points that the camera can see; two pixels aside they would not be."""
    world = NuScenes(other_root)
    same, beside, errors = [], [], []
    for token in world.scenes[0].tokens:
        sample = world.sample(token)
        of_points, of_pixels = (view_points(world, sample, views) for views in (Views(hidden=0.5), Views(source="dense")))
        for camera, points, dense in zip(sample.cameras, of_points, of_pixels, strict=True):
            classes, depth = np.full(camera.size, IGNORE, np.uint8), np.zeros(camera.size, np.float32)
            column, row = np.floor(dense.pixels).astype(int).T
            classes[row, column], depth[row, column] = dense.classes, dense.depth
            assert len(set(zip(row.tolist(), column.tolist(), strict=True))) == len(row), "one label a pixel"
            assert (dense.pixels % 1 == 0.5).all()
            assert dense.depth.min() >= 1
            assert dense.depth.max() <= 80
            inner = ndimage.maximum_filter(classes, 3) == ndimage.minimum_filter(classes, 3)
            column, row = np.floor(points.pixels).astype(int).T
            known = inner[row, column]
            column, row = column[known], row[known]
            same.append(classes[row, column] == points.classes[known])
            beside.append(classes[row, np.minimum(column + 2, camera.size[1] - 1)] == points.classes[known])
            errors.append(np.abs(depth[row, column] / points.depth[known] - 1))
    assert sum(map(len, same)) > 20_000
    assert np.concatenate(same).mean() > 0.99 > 0.98 > np.concatenate(beside).mean()
    assert np.median(np.concatenate(errors)) < 0.01


def test_dense_labels_end_where_they_are_told_to(other_root: Path) -> None:
    world = NuScenes(other_root)
    sample = world.sample(world.scenes[0].tokens[0])
    every, near = (view_points(world, sample, Views(source="dense", max_depth=most)) for most in (80, 20))
    for all_of_it, part in zip(every, near, strict=True):
        assert np.array_equal(part.depth, all_of_it.depth[all_of_it.depth <= 20])
        assert 0 < len(part.depth) < len(all_of_it.depth)
