"""Volumes of LiDAR points: figures by hand, the frame of a camera, files, colours, the baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.data.labels.lidar_points import LidarPoints
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import ConfigError, DataError
from frustum.geometry import VoxelGrid
from frustum.tasks.volume import LikelyVolume, VolumeTask, cube_ids, filled
from frustum.types.layers import PointLayer, VoxelLayer
from frustum.types.predictions import PredictedVolume

GRID = VoxelGrid(lower=(-4, -4, -1), upper=(4, 4, 3), cell=(2, 2, 2))


def volume(
    *voxels: tuple[int, int, int], grid: VoxelGrid = GRID, grid2ego: np.ndarray | None = None, colours: bool = True
) -> PredictedVolume:
    occupied = torch.zeros(grid.shape, dtype=torch.bool)
    for voxel in voxels:
        occupied[voxel] = True
    shades = torch.linspace(-1.2, 1.2, 3 * len(voxels)).reshape(-1, 3) if colours else torch.zeros(0, 3)
    return PredictedVolume(occupied, shades, grid, torch.from_numpy(np.eye(4) if grid2ego is None else grid2ego))


def test_figures_by_hand() -> None:
    points = np.array([[-3, -3, 0], [-3.5, -2.5, 0.5], [1, 1, 2], [3, 3, 0], [9, 9, 9]], np.float32)  # three voxels, one point outside
    task, parts = VolumeTask(), [VolumeTask(), VolumeTask()]
    samples = [("a", volume((0, 0, 0), (2, 2, 1), (1, 1, 1)), points), ("b", volume((3, 3, 1)), points[:1])]
    for sample, part in zip(samples, parts, strict=True):
        task.add(*sample)
        part.add(*sample)
    assert task.compute() == {"iou": 2 / 6, "precision": 2 / 4, "recall": 2 / 4}
    assert parts[0].merge(parts[1]).compute() == task.compute()
    assert VolumeTask().compute() == {"iou": None, "precision": None, "recall": None}
    assert [figure.text() for figure in VolumeTask.figures(task.compute())] == ["33.33", "50.00", "50.00"]
    with pytest.raises(DataError, match="another grid than those before"):
        task.add("c", volume(grid=GRID.scaled(2, 2, 2)), points)
    with pytest.raises(ConfigError, match="other grid"):
        task.merge(VolumeTask())


def test_a_volume_in_the_frame_of_a_camera() -> None:
    """Turned by a quarter and raised: points are moved into it, and it is drawn around the vehicle."""
    grid2ego = np.array([[0, -1.0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1.5], [0, 0, 0, 1]])
    point = np.array([[3.0, -1, 3.2]], np.float32)  # x of the ego frame is -y of the grid
    found = filled(point, GRID, grid2ego)
    assert np.argwhere(found).tolist() == [[1, 0, 1]]
    part = volume((1, 0, 1), grid2ego=grid2ego)
    (layer,) = VolumeTask.layers(part)
    assert isinstance(layer, VoxelLayer)
    assert layer.grid.lower == (-4, -4, 0.5)
    assert np.argwhere(layer.labels != layer.free).tolist() == [[3, 1, 1]]
    (true,) = VolumeTask.truth_layers(point, part)
    assert isinstance(true, VoxelLayer)
    np.testing.assert_array_equal(true.labels != true.free, layer.labels != layer.free)
    (points,) = VolumeTask.truth_layers(point)
    assert isinstance(points, PointLayer)


def test_colours_are_those_of_the_features() -> None:
    shades = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [2, -3, -1], [0.2, 0.2, 0.2]])
    (layer,) = VolumeTask.layers(replace(volume((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)), colours=shades))
    assert isinstance(layer, VoxelLayer)
    drawn = [layer.legend.colours[i] for i in cube_ids(shades)]
    assert drawn == [(0, 0, 0), (255, 255, 255), (255, 0, 0), (153, 153, 153)]
    np.testing.assert_array_equal(layer.labels[0, :2].ravel(), cube_ids(shades))
    assert set(layer.legend.names) == {""}, "no list of 216 colours"
    points = np.array([[-3, -3, 2], [3, 3, 0]], np.float32)  # the second of these voxels, and one that was missed
    (true,) = VolumeTask.truth_layers(points, replace(volume((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)), colours=shades))
    assert isinstance(true, VoxelLayer)
    assert true.labels[0, 0, 1] == layer.labels[0, 0, 1], "what was found agrees"
    assert [layer.legend.colours[i] for i in np.unique(true.labels)] == [(153, 153, 153), (255, 255, 255), (255, 255, 255)]
    (plain,) = VolumeTask.layers(volume((0, 0, 0), colours=False))
    assert isinstance(plain, VoxelLayer)
    assert layer.legend.colours[plain.labels[0, 0, 0]] == (153, 153, 153)


def test_files(tmp_path: Path) -> None:
    part = volume((0, 0, 0), (2, 2, 1), grid2ego=np.diag([1.0, 1, 1, 1]))
    path = VolumeTask.save(part, tmp_path, "a")
    found = VolumeTask.load(path)
    assert torch.equal(found.occupied, part.occupied)
    assert found.grid == GRID
    torch.testing.assert_close(found.colours, part.colours, atol=1e-3, rtol=0)
    VolumeTask.save(replace(part, colours=part.colours[:1]), tmp_path, "b")
    with pytest.raises(DataError, match="damaged: 1 colours of 2 voxels"):
        VolumeTask.load(tmp_path / "b.volume.npz")


def test_the_baseline_is_what_is_often_there(street_root: Path) -> None:
    source, grid = NuScenes(street_root), VoxelGrid(lower=(-40, -40, -2), upper=(40, 40, 6), cell=(2, 2, 1))
    found = LikelyVolume.fit(source, "train", grid, None)
    share = np.mean([filled(LidarPoints().read(source, token).points, grid, np.eye(4)) for token in source.tokens("train")], 0)
    occupied = found.part.occupied.numpy()
    assert share[occupied].min() > 0.1
    assert share[~occupied].max() <= share[occupied].min()
    task = VolumeTask()
    for token in source.tokens("val"):
        task.add(token, found.answer(token).volume, task.truth(source, token))  # type: ignore[arg-type]
    assert task.compute()["iou"] > 0.1
    (again,) = task.baselines(source, "train")
    assert torch.equal(again.answer("x").volume.occupied, found.part.occupied)  # type: ignore[union-attr]
