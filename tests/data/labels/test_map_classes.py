"""Labels of maps: the published drawings in one set of axes, moved with the vehicle's frame, in cameras' frames, hidden or not there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.bev_map import as_map, bev_places, centre_cells, vehicle_label
from frustum.data.labels.map_classes import CAMERA_AXES, MAP_GRID, Found, MapLabels, Objects
from frustum.data.nuscenes.map_patches import NODES, STEP
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.errors import DataError
from frustum.geometry import box_poses, pose, quaternion_to_matrix
from frustum.types.contract import Shapes
from tests.data.toy import VERSION, toy_database
from tests.models import golden_simplebev as gold

RULES = ("lss", "pointbev", "cvt", "simplebev")
FRONT = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])  # cam2ego of a camera that looks along x


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> NuScenes:
    return NuScenes(toy_database(tmp_path_factory.mktemp("toy")), VERSION)


def found_of(*rows: tuple[float, ...], visibility: int = 4, layers: np.ndarray | None = None) -> Found:
    """Boxes (x, y, length, width, yaw) on the ground."""
    table = np.array([(x, y, 0.75, length, width, 1.5, yaw) for x, y, length, width, yaw in rows])
    objects = Objects(box_poses(table), table[:, 3:6], np.full(len(rows), visibility))
    masks = np.zeros((0, NODES, NODES), bool) if layers is None else layers
    known = np.ones((NODES, NODES), bool)
    return Found((objects,), np.packbits(masks), np.packbits(known), FRONT[None], np.eye(4), False)


def draw_of(bev: BevTransform, seed: int | None = None) -> Draw:
    return Draw((), bev, (8, 8), seed=seed)


@pytest.mark.parametrize("rule", RULES)
def test_a_box_ahead_and_to_the_left_is_there_under_every_rule(rule):
    labels = MapLabels(rule=rule, reference=0)
    drawn = labels.apply(found_of((20, 8, 5, 2, 0)), draw_of(BevTransform()))
    rows, columns = np.nonzero(drawn.classes[0])
    ahead = 20 - 1.5 * (rule == "simplebev")
    assert 0.5 * (columns.mean() + 0.5) - 50 == pytest.approx(ahead, abs=0.5)
    assert 0.5 * (rows.mean() + 0.5) - 50 == pytest.approx(8, abs=0.5)
    np.testing.assert_allclose(drawn.centres[0], (rows.mean(), columns.mean()), atol=1)
    assert drawn.counts.all()
    assert set(np.unique(drawn.instances)) == {0, 1}


@pytest.mark.parametrize("rule", RULES)
def test_the_drawing_is_the_published_one(rule):
    """In the axes of the house; the numbers of the reference implementation for its own rule."""
    scene = json.loads((gold.DATA / "labels.json").read_text())
    vehicles = [box for box in scene["boxes"].values() if "vehicle" in box["category_name"]]

    def matrices(records):
        return pose(quaternion_to_matrix(np.array([r["rotation"] for r in records])), np.array([r["translation"] for r in records]))

    box2ego = np.linalg.inv(matrices([scene["ego_pose"]]))[0] @ matrices(vehicles)
    size = np.array([box["size"] for box in vehicles])[:, [1, 0, 2]]
    visibility = np.array([int(box["visibility_token"]) for box in vehicles])
    with np.load(gold.DATA / "labels.npz") as stored:
        cam2ego, expected = np.linalg.inv(stored["cam_T_ego"][0].astype(np.float64)), gold.drawn()
    nothing = np.packbits(np.zeros((0, NODES, NODES), bool))
    found = Found((Objects(box2ego, size, visibility),), nothing, nothing, cam2ego[None], np.eye(4), False)
    drawn = MapLabels(rule=rule, reference=0).draw(found, BevTransform(), 0 if rule == "simplebev" else -1)
    if rule == "simplebev":
        np.testing.assert_array_equal(drawn.instances, expected.instances[0].numpy())
        np.testing.assert_array_equal(drawn.counts, expected.counts[0].numpy())
        np.testing.assert_array_equal(drawn.centres, expected.centres[0].numpy())
        assert drawn.classes.sum() == scene["seg_cells"]
    if rule == "lss":
        assert drawn.classes.sum() == scene["binimg_cells"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bev", [BevTransform(flip_x=True), BevTransform(flip_y=True), BevTransform(rotate=np.pi / 2)], ids=str)
def test_labels_move_with_the_frame(rule, bev):
    """What is drawn of moved boxes is where the boxes are then; under "simplebev" about the camera."""
    labels, found = MapLabels(rule=rule, reference=0), found_of((20, 8, 5, 2, 0.3), (-10, -30, 8, 3, 1.0))
    drawn = labels.apply(found, draw_of(bev))
    centre = found.objects[0].box2ego[:, :3, 3] - (np.array([1.5, 0, 1.5]) if rule == "simplebev" else 0)
    moved = centre @ bev.matrix()[:3, :3].T
    for number, place in enumerate(moved, start=1):
        rows, columns = np.nonzero(drawn.instances == number)
        assert 0.5 * (columns.mean() + 0.5) - 50 == pytest.approx(place[0], abs=0.5)
        assert 0.5 * (rows.mean() + 0.5) - 50 == pytest.approx(place[1], abs=0.5)


def test_roads_are_exact_at_the_middle_of_cells_and_move_with_the_frame():
    steps = np.arange(NODES) * STEP - 70
    road = np.repeat((np.abs(steps - 10) < 3)[None], NODES, 0)[None]  # x from 7 to 13 m, all along y
    labels = MapLabels(("vehicle", "drivable_area"))
    found = found_of((0, 0, 4, 2, 0), layers=road)
    columns = -50 + 0.5 * np.arange(200)  # of rule lss
    plain = labels.apply(found, draw_of(BevTransform())).classes[1]
    np.testing.assert_array_equal(plain[100], np.abs(columns - 10) < 3)
    mirrored = labels.apply(found, draw_of(BevTransform(flip_x=True))).classes[1]
    np.testing.assert_array_equal(mirrored[100], np.abs(columns + 10) < 3)
    turned = labels.apply(found, draw_of(BevTransform(rotate=np.pi / 2))).classes[1]
    np.testing.assert_array_equal(turned[:, 100], np.abs(columns - 10) < 3)


def test_cells_of_barely_visible_objects_do_not_count():
    hidden = found_of((20, 8, 5, 2, 0), visibility=1)
    for rule, lowest, counts in (("pointbev", None, False), ("lss", None, True), ("pointbev", 0, True), ("lss", 2, False)):
        drawn = MapLabels(rule=rule, min_visibility=lowest).apply(hidden, draw_of(BevTransform()))
        assert drawn.classes.any()
        assert drawn.counts[drawn.classes].all() == counts
        assert drawn.counts[~drawn.classes].all()


def test_axes_of_every_rule_by_hand():
    """Rows to the left, columns forward: the cell of a point in the rule's own rows and columns, and in ours."""
    for rule in RULES:
        point = np.array([10.0, 4.0, 0.0]) if rule != "simplebev" else np.array([-4.0, 0.0, 10.0])
        column, row = np.round(bev_places(point, rule)).astype(int)
        drawn = np.zeros((200, 200), bool)
        drawn[row, column] = True
        y, x = np.argwhere(as_map(drawn, rule))[0]
        assert [y, x] == centre_cells(point, rule).tolist()
        assert (0.5 * (x + 0.5) - 50, 0.5 * (y + 0.5) - 50) == pytest.approx((10, 4), abs=0.5)


def test_labels_of_a_database(toy):
    labels, token = MapLabels(), toy.tokens("train")[0]
    drawn = labels.apply(labels.read(toy, token), draw_of(BevTransform()))
    np.testing.assert_array_equal(drawn.classes[0], vehicle_label(toy.sample(token), "lss").mask.T)
    assert labels.described(toy, toy.tokens("train"), {}) == "maps of vehicle (rule 'lss', objects of any visibility)"
    labels.require(toy, toy.tokens("train"))


def test_a_camera_that_is_not_where_it_is_said_to_be(toy):
    token = toy.tokens("train")[0]
    assert len(MapLabels(rule="simplebev", reference=0).read(toy, token).cam2ego) == 2
    with pytest.raises(DataError, match=r"CAM_FRONT, which should be camera 1 of keyframe .* is camera 0: set model.maps.reference"):
        MapLabels(rule="simplebev").read(toy, token)
    back = NuScenes(toy.root, VERSION, cameras=("CAM_BACK",))
    with pytest.raises(DataError, match=r"but is not there. Cameras: CAM_BACK. Choose data.cameras with it, or model.maps.rule=lss"):
        MapLabels(rule="simplebev", reference=0).read(back, token)


def test_another_camera_is_drawn_in_training():
    labels = MapLabels(rule="simplebev", reference=0, draw_reference=True)
    cameras = np.stack([FRONT] * 4)
    found = found_of((20, 8, 5, 2, 0))._replace(cam2ego=cameras)
    drawn = {labels.apply(found, draw_of(BevTransform(), seed)).reference for seed in range(40)}
    assert drawn == {1, 2, 3}, "never the first, as in the published training"
    assert labels.apply(found, draw_of(BevTransform())).reference == 0
    only = found._replace(cam2ego=cameras[:1])
    assert labels.apply(only, draw_of(BevTransform(), 3)).reference == 0


def test_hidden_labels_teach_nothing(street_root):
    data = NuScenesData(root=str(street_root), labelled_share=0.5)
    source, labels = data.open(), MapLabels(("vehicle", "drivable_area"), "pointbev")
    tokens = source.tokens("train")
    rows = [labels.apply(labels.read(source, token), draw_of(BevTransform())) for token in tokens]
    assert [row.is_labelled for row in rows] == [not source.hides_labels(token) for token in tokens]
    truth = labels.collate(rows)
    assert truth is not None
    assert not truth.counts[~truth.is_labelled].any()
    assert truth.counts[truth.is_labelled].any((2, 3)).all()
    text = "maps of vehicle, drivable_area of 3 of 6 keyframes, hidden in the others by data.labelled_share (rule 'pointbev', objects of "
    assert labels.described(source, tokens, {}) == f"{text}visibility 2 and more, roads from voxel labels)"
    only = data.model_copy(update={"labelled_only": True})
    assert len(only.training_tokens(source, 0)) == 3


@pytest.mark.parametrize("classes", [("vehicle",), ("drivable_area", "vehicle")])
def test_nothing_to_learn_is_refused(street_root, classes):
    """Boxes of other kinds do not help, nor do roads beside."""

    class Walkers(NuScenes):
        def sample(self, token, **options):
            sample = super().sample(token, **options)
            boxes = sample.boxes and replace(sample.boxes, names=["pedestrian"] * len(sample.boxes.names))
            return replace(sample, boxes=boxes)

    source = Walkers(street_root)
    tokens = source.tokens("train")
    MapLabels(classes).require(NuScenes(street_root), tokens)
    MapLabels(("pedestrian",)).require(source, tokens)
    with pytest.raises(DataError, match=r"learns where each vehicle is, but none of the \d+ labelled .* has a box of one"):
        MapLabels(classes).require(source, tokens)


def test_examples_have_the_shape_of_labels():
    truth = MapLabels(("vehicle", "lane"), "pointbev").example(np.random.default_rng(0), Shapes(2, 3, (8, 8)))
    assert truth.classes.shape == truth.counts.shape == (2, 2, *MAP_GRID.shape[1::-1])
    assert truth.instances.shape == (2, 200, 200)
    assert [len(c) for c in truth.centres] == [4, 4]
    assert not truth.counts[:, 0].all()
    assert truth.classes[:, 1].any()
    np.testing.assert_array_equal(CAMERA_AXES[:3, :3] @ np.array([1.0, 0, 0]), [0, 0, 1])
    assert torch.equal(truth.is_labelled, torch.tensor([True, True]))
    assert MapLabels().collate([None]) is None
