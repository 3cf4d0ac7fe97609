"""2D labels: projected as a loop does, of adjacent keyframes too, drawn by weight, cached, and refused where they are not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.view_cache import write_views
from frustum.data.labels.view_points import CLASSES, ImagePoints, Views, in_space, view_points, without_hidden, without_uncovered
from frustum.data.labels.views import ViewLabels
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError
from frustum.geometry import invert, transform_points
from frustum.types.classes import IGNORE, OCC3D_OF_CATEGORY

PLAIN = Draw((), BevTransform(), (96, 256))


@pytest.fixture(scope="module")
def world(street_root: Path) -> NuScenes:
    return NuScenes(street_root)


def first_tokens(world: NuScenes) -> tuple[str, ...]:
    return world.scenes[0].tokens


def test_points_are_those_of_a_loop(world):
    token = first_tokens(world)[1]
    sample = world.sample(token)
    ids, _ = world.point_labels(token)
    found = view_points(world, sample, Views())
    assert len(found) == len(sample.cameras)
    camera, image = sample.cameras[1], found[1]
    lidar2cam = invert(camera.cam2ego) @ invert(camera.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
    rows = []
    for point, index in zip(sample.lidar.load()[:, :3], ids, strict=True):
        x = transform_points(lidar2cam, point[None].astype(float))[0]
        if not 1 <= x[2] <= 80:
            continue
        u, v, _ = camera.intrinsics @ x / x[2]
        if 1 < u < camera.size[1] - 1 and 1 < v < camera.size[0] - 1:
            rows.append((u, v, x[2], CLASSES.index(OCC3D_OF_CATEGORY[world.categories[index]])))
    assert len(rows) > 200
    np.testing.assert_allclose(np.column_stack([image.pixels, image.depth]), np.array(rows)[:, :3], rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(image.classes, np.array(rows)[:, 3])
    alone = view_points(world, sample, Views(source="lidar"))[1]
    assert (alone.classes == IGNORE).all()
    np.testing.assert_array_equal(alone.pixels, image.pixels)


def collated(world, views: Views, token: str, draw: Draw = PLAIN, count: int = 1):
    label = ViewLabels(views)
    return label.collate([label.apply(label.read(world, token), draw)] * count)


def test_rays_lead_to_the_points_of_every_view(world):
    """From adjacent keyframes, too, and in a mirrored and turned map."""
    token = first_tokens(world)[1]
    views = Views(adjacent=(-1, 1))
    for bev in (BevTransform(), BevTransform(rotate=0.3, flip_x=True), BevTransform(scale=1.04, flip_y=True)):
        truth = collated(world, views, token, Draw((), bev, (96, 256)), 2)
        assert truth.is_present.all()
        origins, directions = truth.rays()
        places = (origins + truth.depth[..., None] * directions)[0]
        key = world.sample(token)
        for v, other in enumerate((token, first_tokens(world)[0], first_tokens(world)[2])):
            sample = world.sample(other)
            scan = transform_points(
                bev.matrix() @ invert(key.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego,
                sample.lidar.load()[:, :3].astype(float),
            )
            for n in range(2):
                mine = places[v, n][truth.is_point[0, v, n]].numpy()
                distance = np.linalg.norm(mine[:50, None] - scan[None], axis=-1).min(1)
                assert distance.max() < 0.02


def test_an_adjacent_keyframe_that_a_scene_does_not_have(world):
    first = first_tokens(world)[0]
    truth = collated(world, Views(adjacent=(-1, 1)), first)
    assert truth.is_present.tolist() == [[True, False, True]]
    assert not truth.is_point[0, 1].any()
    drawn = collated(world, Views(adjacent=(-1, 1), drawn=1), first, replace(PLAIN, seed=5))
    assert drawn.is_present.all(), "what is there is drawn first"
    none = collated(world, Views(adjacent=(-1,), drawn=1), first, replace(PLAIN, seed=5))
    assert none.is_present.tolist() == [[True, False]]
    assert none.intrinsics.shape[1] == 2


def test_each_epoch_draws_other_keyframes_and_points(world):
    token, views = first_tokens(world)[1], Views(adjacent=(-1, 1), drawn=1, points=300)
    many = [collated(world, views, token, replace(PLAIN, seed=seed)) for seed in range(8)]
    assert {int(t.is_point.sum()) for t in many} == {300}
    assert len({float(t.view2key[0, 1, 0, 3]) for t in many}) == 2
    again = collated(world, views, token, replace(PLAIN, seed=3))
    torch.testing.assert_close(again.depth, many[3].depth, rtol=0, atol=0)


def test_points_are_drawn_by_their_weights(world):
    token = first_tokens(world)[1]
    every = collated(world, Views(), token)
    counts = np.bincount(every.classes[every.is_point].numpy(), minlength=17)
    common, rare = int(counts.argmax()), int(np.where(counts > 20, counts, 10**9).argmin())
    wanted = tuple(1e6 if i == rare else 1e-6 if i == common else 1.0 for i in range(17))
    few = collated(world, Views(points=2000, class_weights=wanted), token, replace(PLAIN, seed=0))
    drawn = np.bincount(few.classes[few.is_point].numpy(), minlength=17)
    assert drawn[rare] == counts[rare]
    assert drawn[common] < 0.02 * counts[common]
    still = Views(adjacent=(-1,), points=3000, moving_weight=0)
    found = collated(world, still, token, replace(PLAIN, seed=0))
    moving = torch.tensor([CLASSES.index(name) for name in still.moving])
    assert not torch.isin(found.classes[:, 1].long(), moving)[found.is_point[:, 1]].any()
    assert torch.isin(found.classes[:, 0].long(), moving)[found.is_point[:, 0]].any()


def test_a_point_behind_a_nearer_one_is_hidden():
    pixels = np.array([[100, 50], [102, 52], [400, 50], [104, 51]], np.float32)
    points = ImagePoints(pixels, np.array([5, 30, 30, 6], np.float32), np.zeros(4, np.uint8))
    assert without_hidden(points, (900, 1600), 0.5).depth.tolist() == [5, 30, 6]


def test_what_lies_behind_where_something_moving_is_now_is_left_out(world):
    """The ground seen through the present place of a car, by a camera half a second later; not what stands in front of it or elsewhere."""
    key, later = (world.sample(token, with_boxes=False, occupancy=False) for token in world.scenes[0].tokens[:2])
    camera = later.cameras[0]
    middle = np.array(camera.size[::-1]) / 2
    rows = [(0, 12.0), (0, 9.0), (0, 4.0), (60, 40.0)]  # pixels to the right of the middle, metres
    pixels = np.array([middle + (right, 0) for right, _ in rows], np.float32)
    points = ImagePoints(pixels, np.array([depth for _, depth in rows], np.float32), np.arange(4, dtype=np.uint8))
    car = in_space(ImagePoints(middle[None].astype(np.float32), np.array([8.5], np.float32), np.zeros(1, np.uint8)), camera)
    local = invert(camera.ego2global @ camera.cam2ego) @ np.append(car[0], 1)
    np.testing.assert_allclose(local[2], 8.5, atol=1e-6)
    assert without_uncovered(points, camera, car).classes.tolist() == [1, 2, 3]
    assert len(without_uncovered(points, camera, np.zeros((0, 3))).depth) == 4
    assert without_uncovered(points, key.cameras[3], car).classes.tolist() == [0, 1, 2, 3], "behind another camera"


def test_points_of_a_world_that_moving_things_uncovered(world):
    """Some points of adjacent keyframes go, all of the keyframe stay, and nothing else changes."""
    token = world.scenes[0].tokens[1]
    plain, clear = (collated(world, Views(adjacent=(-1, 1), uncovered=uncovered), token) for uncovered in (True, False))
    counts = [truth.is_point.sum((2, 3))[0].tolist() for truth in (plain, clear)]
    assert counts[0][0] == counts[1][0]
    assert all(0.8 * a < b < a for a, b in zip(counts[0][1:], counts[1][1:], strict=True))
    for name in ("intrinsics", "cam2ego", "view2key", "is_present"):
        assert torch.equal(getattr(plain, name), getattr(clear, name))
    with pytest.raises(ValidationError, match="set adjacent, and a source with classes"):
        Views(uncovered=False)


def test_few_points_are_hidden_in_a_world(world):
    sample = world.sample(first_tokens(world)[1])
    every, seen = (sum(len(i.depth) for i in view_points(world, sample, Views(hidden=h))) for h in (0, 0.5))
    assert 0.9 * every < seen < every


def test_a_cache_holds_the_same(world, tmp_path):
    tokens, folder = first_tokens(world)[:2], tmp_path / "labels"
    assert write_views(world, tokens[:1], folder, Views()) == 1
    assert write_views(world, tokens, folder, Views()) == 1
    views = Views(cache=str(folder), adjacent=(-1,))
    label = ViewLabels(views)
    label.require(world, [tokens[1]])
    one, other = collated(world, views, tokens[1]), collated(world, Views(adjacent=(-1,)), tokens[1])
    for a, b in zip(vars(one).values(), vars(other).values(), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
    with pytest.raises(DataError, match="were made with"):
        write_views(world, tokens, folder, Views(hidden=0.5))
    near = collated(world, Views(cache=str(folder), max_depth=20), tokens[0])
    assert torch.equal(near.depth[near.is_point], one.depth[:, 1][one.is_point[:, 1]][one.depth[:, 1][one.is_point[:, 1]] <= 20])
    turned = NuScenes(world.root, cameras=world.cameras[::-1])
    back = collated(turned, Views(cache=str(folder)), tokens[0])
    assert torch.equal(back.depth[0, 0, 0][back.is_point[0, 0, 0]], one.depth[0, 1, -1][one.is_point[0, 1, -1]]), "by name, not by place"
    with pytest.raises(DataError, match="holds no 2D labels"):
        ViewLabels(Views(cache=str(tmp_path))).require(world, tokens)
    (folder / f"{tokens[0]}.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot read the 2D labels"):
        collated(world, Views(cache=str(folder)), tokens[0])
    assert json.loads((folder / "views.json").read_text())["source"] == "lidarseg"


def test_what_is_not_there(world, monkeypatch):
    token = first_tokens(world)[0]
    with pytest.raises(DataError, match=r"the truth images|extras"):
        collated(world, Views(source="dense"), token)
    monkeypatch.setattr(NuScenes, "has_point_labels", lambda self, other: other != token)
    second = first_tokens(world)[1]
    assert collated(world, Views(adjacent=(-1,)), second).is_present.tolist() == [[True, False]], "an adjacent one without is left out"
    with pytest.raises(DataError, match=r"no classes of its LiDAR points.*model\.views\.source=lidar"):
        ViewLabels(Views()).require(world, [token])
    ViewLabels(Views(source="lidar")).require(world, [token])
    sample = world.sample(token)
    monkeypatch.setattr(NuScenes, "sample", lambda self, *a, **k: replace(sample, lidar=None))
    with pytest.raises(DataError, match="no LiDAR scan, from which 2D labels"):
        ViewLabels(Views(source="lidar")).require(world, [token])


def test_statistics_count_points(world):
    found = ViewLabels(Views()).statistics(world, first_tokens(world))
    counts = sum(np.bincount(i.classes, minlength=17) for t in first_tokens(world) for i in view_points(world, world.sample(t), Views()))
    np.testing.assert_array_equal(found["counts"], counts)
    assert found["frames"] == 3
    assert found["points"] == sum(counts), "all of a street world have a class"
    alone = ViewLabels(Views(source="lidar")).statistics(world, first_tokens(world))
    assert (alone["points"], alone["counts"].sum()) == (found["points"], 0), "points without classes are counted, too"


@pytest.mark.parametrize(
    ("views", "known", "near", "text"),
    [
        (Views(), {}, "", "class and depth of LiDAR points"),
        (Views(source="dense", points=500), {}, "", "class and depth of all pixels, 500 of all views drawn at a time"),
        (
            Views(adjacent=(-2, -1, 1, 2), drawn=1, points=4000),
            {"points": np.array(4180 * 200), "frames": np.array(200)},
            " and 1 of 4 adjacent keyframes",
            "class and depth of LiDAR points, about 4,180 labelled pixels a keyframe, 4,000 of all views drawn at a time",
        ),
        (
            Views(source="lidar", adjacent=(-1,)),
            {"points": np.array(20943), "frames": np.array(1)},
            " and 1 adjacent keyframe",
            "depth of LiDAR points, no class, about 20,900 labelled pixels a keyframe",
        ),
        (Views(adjacent=(-1, 1), drawn=2), {"counts": np.ones(17)}, " and 2 adjacent keyframes", "class and depth of LiDAR points"),
    ],
)
def test_what_is_learned_from_is_said(world, views, known, near, text):
    """In a phrase; with numbers where the statistics have them, which those of an earlier version do not."""
    assert ViewLabels(views).described(world, first_tokens(world), known) == f"2D labels of the keyframe{near} ({text})"


def test_adjacent_keyframes_that_no_scene_has_are_refused(street_root: Path) -> None:
    world = NuScenes(street_root)
    ViewLabels(Views(adjacent=(-1, 40))).require(world, world.tokens("train"))  # some keyframes have one
    with pytest.raises(DataError, match=r"has an adjacent one \(\+40\) in its scene"):
        ViewLabels(Views(adjacent=(40,))).require(world, world.tokens("train"))


def test_labels_without_a_single_pixel_are_refused(street_root: Path) -> None:
    """All points of a street world lie further away than a metre and a bit."""
    world = NuScenes(street_root)
    with pytest.raises(DataError, match="nothing to learn from"):
        ViewLabels(Views(max_depth=1.01)).statistics(world, world.tokens("val"))
    with pytest.raises(ValidationError, match="greater than 1"):
        Views(max_depth=0.5)
