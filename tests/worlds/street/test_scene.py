"""Whole scenes: what every one of them promises."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from frustum.types.classes import DETECTION_CLASSES, DETECTION_OF_CATEGORY, OCC3D_CLASSES
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.materials import GENERAL_OF_MATERIAL, MATERIAL_ID, OCC3D_OF_GENERAL
from frustum.worlds.street.scene import build_scene
from frustum.worlds.street.types import Scene
from tests.worlds.street.scenes import SECONDS, footprint, ground_height, overlap, scene, solid_points

NUMBERS = range(4)
TIMES = np.arange(0.0, SECONDS + 0.01, 0.5)
ATTRIBUTES = {
    "vehicle": {"vehicle.moving", "vehicle.parked", "vehicle.stopped"},
    "cycle": {"cycle.with_rider", "cycle.without_rider"},
    "human": {"pedestrian.moving", "pedestrian.standing"},
    "movable_object": {""},
}


def fingerprint(s: Scene) -> str:
    """Hash of everything in a scene."""
    h = hashlib.sha256()
    for array in (s.ground.base, s.ground.step, s.ground.material, s.static.cells, s.ego.poses, s.ego.times):
        h.update(np.ascontiguousarray(array).tobytes())
    for model in s.models:
        h.update(model.cells.tobytes())
    for a in s.actors:
        h.update(repr((a.id, a.category, a.model, a.size, a.tint, a.moving, a.attribute)).encode())
        h.update(a.track.poses.tobytes())
    h.update(repr((s.look, s.description, s.duration)).encode())
    return h.hexdigest()


def materials_near(s: Scene, reach: float = 30.0) -> set[str]:
    """Occ3D classes of static things within `reach` of the ego path."""
    g = s.ground
    path = s.ego.poses[:, :2, 3]
    (x0, y0), (x1, y1) = path.min(0) - reach, path.max(0) + reach
    i = slice(max(int((x0 - g.origin[0]) / g.cell), 0), int((x1 - g.origin[0]) / g.cell))
    j = slice(max(int((y0 - g.origin[1]) / g.cell), 0), int((y1 - g.origin[1]) / g.cell))
    ids = set(np.unique(s.static.cells[i, j])) | set(np.unique(g.material[2 * i.start : 2 * i.stop, 2 * j.start : 2 * j.stop]))
    return {OCC3D_CLASSES[OCC3D_OF_GENERAL[GENERAL_OF_MATERIAL[m]]] for m in ids - {0}}


# ---- sameness and difference ------------------------------------------------------------------------------------------------


def test_equal_arguments_give_equal_scenes():
    config = SceneConfig(duration=SECONDS, style="suburb")
    assert fingerprint(build_scene("test-1", 41, config)) == fingerprint(scene(1))


def test_another_process_gives_the_same_scene():
    code = (
        "from tests.worlds.street.test_scene import fingerprint\n"
        "from frustum.worlds.street.config import SceneConfig\n"
        "from frustum.worlds.street.scene import build_scene\n"
        f"print(fingerprint(build_scene('test-2', 42, SceneConfig(duration={SECONDS}, style='park'))))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == fingerprint(scene(2))


def test_names_and_seeds_change_the_layout():
    config = SceneConfig(duration=2.0, density=0.5)
    scenes = [build_scene("a", 1, config), build_scene("b", 1, config), build_scene("a", 2, config)]
    roads = {tuple(np.round(s.lanes[0][::10].ravel(), 2)) for s in scenes}
    assert len(roads) == 3
    assert len({s.look.sun_direction for s in scenes}) == 3


def test_styles_are_drawn_and_can_be_chosen():
    assert all(scene(k).description.startswith(style) for k, style in enumerate(("downtown", "suburb", "park", "industrial")))


# ---- configuration ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{"duration": 0}, {"density": -1}, {"style": "venice"}, {"colour": 1}, {"margin": 10}])
def test_wrong_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        SceneConfig(**bad)


def test_an_empty_flat_scene_is_possible():
    s = build_scene("empty", 3, SceneConfig(duration=2.0, density=0.0, hilliness=0.0, tilt=0.0, greenery=0.0))
    assert s.actors == ()
    assert np.ptp(s.ego.poses[:, 2, 3]) == 0
    assert np.allclose(s.ego.poses[:, 2, 2], 1)


def test_settings_survive_json():
    config = SceneConfig(duration=5.0, style="park", density=0.7)
    assert SceneConfig.model_validate_json(config.model_dump_json()) == config


# ---- the world --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_map_surrounds_the_ego_path(number):
    s = scene(number)
    g = s.ground
    path = s.ego.poses[:, :2, 3]
    low = np.array(g.origin)
    high = low + np.array(g.step.shape) * g.cell
    assert (path.min(0) - low > 50).all()
    assert (high - path.max(0) > 50).all()
    assert s.static.cells.shape[:2] == g.step.shape
    assert s.static.origin[:2] == g.origin
    assert s.static.cell == g.cell
    assert s.static.cells.nbytes < 200e6
    assert s.static.origin[2] < g.base.min()
    assert s.static.origin[2] + s.static.size[2] > g.base.max() + 15


@pytest.mark.parametrize("number", NUMBERS)
def test_slopes_are_those_of_streets(number):
    g = scene(number).ground
    far = 20  # cells: over 4 m a kerb is negligible against the slope
    for axis in (0, 1):
        base = g.base if axis == 0 else g.base.T
        grade = abs(base[far:] - base[:-far]) / (far * g.cell)
        assert grade.max() < 0.06 + 0.15 / (far * g.cell)
        assert np.median(grade) < 0.06


def test_train_and_validation_scenes_hold_all_classes_near_the_path():
    found = set()
    for k in NUMBERS:
        found |= materials_near(scene(k))
    assert {"others", "driveable_surface", "sidewalk", "terrain", "manmade", "vegetation", "other_flat"} <= found


@pytest.mark.parametrize("number", NUMBERS)
def test_every_scene_has_others_and_other_flat(number):
    assert {"others", "manmade", "vegetation", "sidewalk", "driveable_surface", "other_flat"} <= materials_near(scene(number), 40.0)


# ---- the ego vehicle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_ego_drives_on_the_road_at_street_speed(number):
    s = scene(number)
    times, poses = s.ego.times, s.ego.poses
    assert times[0] == 0
    assert times[-1] >= s.duration
    assert np.diff(times).max() <= 0.05
    speed = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / np.diff(times)
    assert speed.min() > 0.5
    assert speed.max() < 12.6
    assert abs(poses[:, 2, 3] - ground_height(s, poses[:, :2, 3])).max() < 0.005
    g = s.ground
    i, j = (((poses[:, a, 3] - g.origin[a]) / g.cell * 2).astype(int) for a in (0, 1))
    kinds = GENERAL_OF_MATERIAL[g.material[i, j]]
    assert (kinds == GENERAL_OF_MATERIAL[MATERIAL_ID["asphalt"]]).all()


@pytest.mark.parametrize("number", NUMBERS)
def test_ego_faces_where_it_goes_and_tilts_moderately(number):
    poses = scene(number).ego.poses
    move = np.diff(poses[:, :2, 3], axis=0)
    heading = poses[:-1, :2, 0] / np.linalg.norm(poses[:-1, :2, 0], axis=1, keepdims=True)
    assert ((move * heading).sum(1) / np.linalg.norm(move, axis=1) > 0.999).all()
    tilt = np.degrees(np.arccos(np.clip(poses[:, 2, 2], -1, 1)))
    assert 0.1 < tilt.max() < 9


# ---- actors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_all_ten_classes_come_near(number):
    s = scene(number)
    near = set()
    for t in TIMES:
        ego = s.ego.pose(t)[:2, 3]
        near |= {DETECTION_OF_CATEGORY[a.category] for a in s.actors if np.linalg.norm(a.track.pose(t)[:2, 3] - ego) < 35}
    assert near == set(DETECTION_CLASSES)
    assert 35 <= len(s.actors) <= 130
    assert [a.id for a in s.actors] == list(range(1, len(s.actors) + 1))


@pytest.mark.parametrize("number", NUMBERS)
def test_boxes_are_those_of_the_models(number):
    s = scene(number)
    for a in s.actors:
        model = s.models[a.model]
        assert np.allclose(a.size, model.size)
        assert np.allclose(model.origin, (-model.size[0] / 2, -model.size[1] / 2, 0))
        assert all(model.cells.any(axis=tuple(b for b in range(3) if b != axis))[[0, -1]].all() for axis in range(3))
    assert sorted({a.model for a in s.actors}) == list(range(len(s.models)))


@pytest.mark.parametrize("number", NUMBERS)
def test_actors_never_overlap(number):
    s = scene(number)
    for t in TIMES:
        quads = [footprint(a, t) for a in s.actors]
        radius = [np.hypot(*a.size[:2]) / 2 for a in s.actors]
        middle = np.array([q.mean(0) for q in quads])
        ego = s.ego.pose(t)
        car = np.array([[3.2, 0.9], [-0.9, 0.9], [-0.9, -0.9], [3.2, -0.9]]) @ ego[:2, :2].T + ego[:2, 3]
        for i in range(len(quads)):
            assert not overlap(quads[i], car), f"{s.actors[i].category} in the ego vehicle at {t} s"
            for j in range(i):
                if np.linalg.norm(middle[i] - middle[j]) < radius[i] + radius[j]:
                    assert not overlap(quads[i], quads[j]), f"{s.actors[i].category} in {s.actors[j].category} at {t} s"


@pytest.mark.parametrize("number", NUMBERS)
def test_actors_never_stand_in_walls_or_trees(number):
    s = scene(number)
    cells, c, origin = s.static.cells, s.static.cell, np.array(s.static.origin)
    for a in s.actors:
        for t in TIMES[:: 2 if a.moving else len(TIMES)]:
            points = solid_points(s, a, t)
            points = points[points[:, 2] > ground_height(s, points[:, :2]) + 0.25]
            index = np.floor((points - origin) / c).astype(int)
            inside = ((index >= 0) & (index < cells.shape)).all(1)
            hit = cells[tuple(index[inside].T)] > 0
            assert not hit.any(), f"{a.category} {a.id} at {t} s"


@pytest.mark.parametrize("number", NUMBERS)
def test_actors_stand_on_the_ground(number):
    s = scene(number)
    for a in s.actors:
        for t in TIMES[::4]:
            pose = a.track.pose(t)
            assert abs(pose[2, 3] - ground_height(s, pose[:2, 3])) < 0.09, a.category
            assert pose[2, 2] > 0.99
            assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)


def zones_under(s: Scene, a, t: float) -> set[str]:
    """General categories of the ground under the middle half of an actor."""
    g = s.ground
    xy = footprint(a, t, 0.5)
    i, j = (((xy[:, k] - g.origin[k]) / g.cell * 2).astype(int) for k in (0, 1))
    return {
        ["flat.driveable_surface", "flat.other", "flat.sidewalk", "flat.terrain"][int(k) - 24]
        for k in GENERAL_OF_MATERIAL[g.material[i, j]]
    }


@pytest.mark.parametrize("number", NUMBERS)
def test_moving_vehicles_keep_to_the_road_and_people_off_it(number):
    s = scene(number)
    on_road = total = 0
    for a in s.actors:
        group = DETECTION_OF_CATEGORY[a.category]
        if a.moving and group in ("car", "truck", "bus", "trailer", "motorcycle"):
            for t in TIMES[::2]:
                assert zones_under(s, a, t) == {"flat.driveable_surface"}, f"{a.category} {a.id} at {t} s"
        if group == "pedestrian" and a.attribute == "pedestrian.standing":
            total += 1
            on_road += "flat.driveable_surface" in zones_under(s, a, 0.0)
    assert on_road <= 0.25 * max(total, 4)  # road workers, and people in paved yards


@pytest.mark.parametrize("number", NUMBERS)
def test_moving_vehicles_drive_along_lanes_in_their_direction(number):
    s = scene(number)
    lanes = [np.concatenate([lane[:-1, :2], np.diff(lane[:, :2], axis=0)], 1) for lane in s.lanes]
    inside = checked = 0
    for a in s.actors:
        if not a.moving or DETECTION_OF_CATEGORY[a.category] not in ("car", "truck", "bus"):
            continue
        for t in TIMES[::3]:
            pose = a.track.pose(t)
            options = []
            for lane in lanes:
                along = lane[:, 2:] / np.linalg.norm(lane[:, 2:], axis=1, keepdims=True)
                away = pose[:2, 3] - lane[:, :2]
                k = np.argmin((away**2).sum(1))
                across = abs(away[k, 0] * along[k, 1] - away[k, 1] * along[k, 0])
                if np.linalg.norm(away[k]) < 4 and along[k] @ pose[:2, 0] > 0.9:
                    options.append(across)
            checked += 1
            inside += bool(options) and min(options) < 0.5
    assert checked > 10
    assert inside / checked > 0.85  # the rest is turning


@pytest.mark.parametrize("number", NUMBERS)
def test_speeds_and_turns_are_plausible(number):
    limits = {"car": 15, "truck": 15, "bus": 15, "trailer": 15, "motorcycle": 15, "bicycle": 7, "pedestrian": 2.2}
    for a in scene(number).actors:
        if not a.moving:
            assert len(a.track.times) == 1
            continue
        assert np.diff(a.track.times).max() <= 0.1 + 1e-9
        group = DETECTION_OF_CATEGORY[a.category]
        speed = np.linalg.norm(np.diff(a.track.poses[:, :3, 3], axis=0), axis=1) / np.diff(a.track.times)
        assert speed.max() < limits[group]
        if group == "pedestrian":
            continue
        assert abs(np.diff(speed)).max() < 6.0 * 0.1 + 0.25, f"{a.category} {a.id}"
        turn = np.einsum("kij,kij->k", a.track.poses[1:, :2, :1], a.track.poses[:-1, :2, :1])
        assert np.degrees(np.arccos(np.clip(turn, -1, 1))).max() < 9  # per 0.1 s
        move = np.diff(a.track.poses[:, :2, 3], axis=0)
        fast = speed > 1.0
        assert ((move * a.track.poses[:-1, :2, 0]).sum(1)[fast] > 0).all()  # forwards


@pytest.mark.parametrize("number", NUMBERS)
def test_attributes_and_tints(number):
    for a in scene(number).actors:
        group = DETECTION_OF_CATEGORY[a.category]
        key = "cycle" if group in ("bicycle", "motorcycle") else a.category.split(".")[0]
        assert a.attribute in ATTRIBUTES[key], (a.category, a.attribute)
        assert all(0 <= v <= 1 for v in a.tint)
        if a.attribute in ("vehicle.parked", "vehicle.stopped", "cycle.without_rider", "pedestrian.standing"):
            assert not a.moving
        if a.attribute == "vehicle.moving":
            assert a.moving


@pytest.mark.parametrize("number", NUMBERS)
def test_riders_are_on_moving_cycles(number):
    s = scene(number)
    shirt = MATERIAL_ID["shirt"]
    for a in s.actors:
        if DETECTION_OF_CATEGORY[a.category] in ("bicycle", "motorcycle"):
            assert (s.models[a.model].cells == shirt).any() == (a.attribute == "cycle.with_rider")
