"""Rendered views: figures against hand counts, and the true voxels of a street world rendered beside its LiDAR points."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from frustum.data.labels.view_points import CLASSES, ImagePoints
from frustum.engine import overrides
from frustum.engine.feed import evaluation_batches
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.models.view_rendering import render_images, trace_views
from frustum.recipes.finding import get_recipe
from frustum.tasks.rendered_views import RenderedViewsTask, TrueViews
from frustum.types.classes import IGNORE
from frustum.types.predictions import PredictedViews

CAR, ROAD = CLASSES.index("car"), CLASSES.index("driveable_surface")
LENS = np.array([[10.0, 0, 8], [0, 10.0, 4], [0, 0, 1]])
FORWARD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])


def points(*rows) -> ImagePoints:
    """Labelled points from rows of u, v, depth, class."""
    table = np.array(rows, float).reshape(-1, 4)
    return ImagePoints(table[:, :2].astype(np.float32), table[:, 2].astype(np.float32), table[:, 3].astype(np.uint8))


def truth(*rows) -> TrueViews:
    return TrueViews([points(*rows)], LENS[None], FORWARD[None])


def views(labels=None, depth=None) -> PredictedViews:
    """A view of half the width and height of the image, 4 x 8 pixels."""
    lens = torch.from_numpy(np.diag([0.5, 0.5, 1]) @ LENS).float()[None]
    labels = torch.full((1, 4, 8), IGNORE, dtype=torch.uint8) if labels is None else labels
    depth = torch.zeros(1, 4, 8) if depth is None else depth
    return PredictedViews(labels, depth, lens, torch.from_numpy(FORWARD).float()[None], CLASSES, VoxelGrid.occ3d())


def test_figures_by_hand():
    labels, depth = torch.full((1, 4, 8), IGNORE, dtype=torch.uint8), torch.zeros(1, 4, 8)
    labels[0, 1, 2], depth[0, 1, 2] = CAR, 11.0
    labels[0, 3, 3], depth[0, 3, 3] = CAR, 4.0
    rows = [
        (5.0, 3.0, 10.0, CAR),  # pixel (1, 2): right
        (5.5, 2.5, 12.0, ROAD),  # the same pixel, behind it
        (7.0, 7.0, 5.0, ROAD),  # pixel (3, 3): wrong class
        (9.0, 5.0, 20.0, CAR),  # pixel (2, 4): nothing is seen there
        (9.0, 3.0, 60.0, CAR),  # beyond the grid
        (3.0, 3.0, 8.0, IGNORE),  # of unknown class, nothing is seen
    ]
    whole, parts = RenderedViewsTask(), [RenderedViewsTask(), RenderedViewsTask()]
    whole.add("a", views(labels, depth), truth(*rows))
    found = whole.compute()
    assert found["seen"] == 2 / 4
    assert found["accuracy"] == 1 / 3
    assert found["class_iou"]["car"] == 1 / 3  # hit; miss; false alarm
    assert found["class_iou"]["driveable_surface"] == 0
    assert found["class_iou"]["bus"] is None
    assert found["miou"] == pytest.approx(1 / 6)
    assert found["abs_rel"] == pytest.approx((0.1 + 0.2) / 2)
    assert found["rmse"] == pytest.approx(1.0)
    assert found["delta1"] == 1 / 2
    whole.add("b", views(), truth(rows[0]))
    parts[0].add("a", views(labels, depth), truth(*rows))
    parts[1].add("b", views(), truth(rows[0]))
    assert parts[0].merge(parts[1]).compute() == whole.compute()
    assert set(RenderedViewsTask.protocol) <= set(found)
    assert {f.key: f.value for f in RenderedViewsTask.figures(found)}["seen"] == 0.5


def test_depth_alone():
    """Without classes of points nothing is said of classes."""
    task = RenderedViewsTask()
    task.add("a", views(torch.full((1, 4, 8), CAR, dtype=torch.uint8), torch.full((1, 4, 8), 10.0)), truth((5.0, 3.0, 10.0, IGNORE)))
    found = task.compute()
    assert (found["miou"], found["seen"], found["abs_rel"]) == (None, 1.0, 0.0)
    assert RenderedViewsTask.classes(found) is None


def test_views_are_of_some_of_the_cameras():
    """Found by where they stand."""
    turned = FORWARD.copy()
    turned[:3, :3] = FORWARD[:3, :3] @ np.diag([-1.0, 1, -1])  # backwards
    row = (5.0, 3.0, 10.0, CAR)
    two = TrueViews([points(), points(row)], np.stack([LENS] * 2), np.stack([turned, FORWARD]))
    task = RenderedViewsTask()
    task.add("a", views(torch.full((1, 4, 8), CAR, dtype=torch.uint8), torch.full((1, 4, 8), 10.0)), two)
    assert task.compute()["accuracy"] == 1
    alone = TrueViews([points(row)], LENS[None], turned[None])
    with pytest.raises(DataError, match=r"no camera of the keyframe stands at \[0.0, 0.0, 1.0\]"):
        RenderedViewsTask().add("a", views(), alone)


def test_files_and_layers(tmp_path):
    labels = torch.randint(0, 17, (1, 4, 8), dtype=torch.uint8)
    part = views(labels, torch.rand(1, 4, 8) * 50)
    path = RenderedViewsTask.save(part, tmp_path, "a")
    assert path.name == "a.views.npz"
    again = RenderedViewsTask.load(path)
    assert torch.equal(again.labels, labels)
    torch.testing.assert_close(again.depth, part.depth, rtol=1e-3, atol=1e-3)
    assert (again.class_names, again.grid) == (part.class_names, part.grid)
    torch.testing.assert_close((again.intrinsics, again.cam2ego), (part.intrinsics, part.cam2ego))
    (layer,), (true,) = RenderedViewsTask.layers(part), RenderedViewsTask.truth_layers(truth((5.0, 3.0, 60.0, CAR)), part)
    assert np.array_equal(layer.labels, labels[0])
    assert (true.labels[1, 2], true.depth[1, 2]) == (CAR, 60), "drawn, though beyond the grid"
    assert RenderedViewsTask.truth_layers(truth()) == []


def test_true_voxels_agree_with_lidar_points(street_root):
    """From voxels through the cameras to the pixels of LiDAR points; the labels of the next camera would not do.

    Rays end at the near side of a voxel, on the ground up to a metre early: depth is within a quarter for little more than half.
    """
    words = [f"data.root={street_root}", "data.image_size=64,256", "augment.crop_h=0.3,0.3"]
    recipe = overrides.apply(get_recipe("renderocc-mini"), words)
    source, grid = recipe.data.open(), VoxelGrid.occ3d()
    task, turned = RenderedViewsTask(), RenderedViewsTask()
    for batch in evaluation_batches(recipe, source, source.tokens("val")[:2]):
        (token,) = batch.tokens
        labels = torch.from_numpy(source.sample(token, occupancy=True).occupancy.semantics.astype(np.int64))
        density = torch.where(labels == 17, 0.0, 100.0)[None]
        logits = 10 * torch.nn.functional.one_hot(labels.clamp(max=16), 17).float()[None]
        (found,) = render_images(partial(trace_views, density, logits, grid), batch, 128, grid, CLASSES)
        assert found.labels.shape == (6, 32, 128)
        true = task.truth(source, token)
        task.add(token, found, true)
        turned.add(token, found, true._replace(points=true.points[1:] + true.points[:1]))
    figures, others = task.compute(), turned.compute()
    assert figures["seen"] > 0.98
    assert figures["accuracy"] > 0.7 > 0.5 > others["accuracy"]
    assert figures["delta1"] > 0.5
    assert figures["abs_rel"] < 0.25


def test_truth_needs_a_scan(street_root):
    source = get_recipe("renderocc-mini").data.model_copy(update={"root": str(street_root)}).open()
    token = source.tokens("val")[0]
    sample = source.sample(token, with_boxes=False, occupancy=False)
    source.sample = lambda *_, **__: replace(sample, lidar=None)
    with pytest.raises(DataError, match="no LiDAR scan to compare rendered views with"):
        RenderedViewsTask().truth(source, token)
