"""The catalogue of vehicles, people and small things."""

import numpy as np
import pytest

from frustum.types.classes import DETECTION_CLASSES, DETECTION_OF_CATEGORY
from frustum.worlds.street.heavy import BUS_STYLES, MACHINE_STYLES, TRAILER_STYLES, TRUCK_STYLES, bus, machine, trailer, truck
from frustum.worlds.street.kinds import random_kind
from frustum.worlds.street.materials import MATERIAL_ID, MATERIALS
from frustum.worlds.street.people import BARRIER_STYLES, barrier, bicycle, cone, motorcycle, person
from frustum.worlds.street.types import VoxelModel
from frustum.worlds.street.vehicles import CAR_STYLES, car

# Sizes of real things (length, width, height), metres, with room for styles: mean sizes of nuScenes lie inside.
RANGES = {
    "car": ((3.8, 6.0), (1.7, 2.4), (1.35, 2.6)),
    "truck": ((5.0, 9.5), (2.2, 2.9), (2.5, 3.9)),
    "bus": ((8.0, 13.0), (2.4, 3.1), (2.8, 3.8)),
    "trailer": ((3.0, 13.0), (1.5, 2.9), (1.2, 4.1)),
    "construction_vehicle": ((4.2, 8.0), (1.6, 3.2), (1.9, 3.6)),
    "motorcycle": ((1.8, 2.3), (0.6, 1.0), (1.0, 1.9)),
    "bicycle": ((1.5, 2.0), (0.45, 0.8), (0.9, 1.95)),
    "pedestrian": ((0.2, 1.1), (0.35, 0.95), (1.0, 1.95)),
    "traffic_cone": ((0.3, 0.6), (0.3, 0.6), (0.6, 1.2)),
    "barrier": ((0.3, 0.7), (1.8, 2.7), (0.8, 1.2)),
}
FAMILIES: dict[str, list[VoxelModel]] = {
    "car": [car(s) for s in CAR_STYLES],
    "truck": [truck(s) for s in (*TRUCK_STYLES, "tractor")],
    "bus": [bus(s) for s in BUS_STYLES],
    "trailer": [trailer(s) for s in TRAILER_STYLES],
    "construction_vehicle": [machine(s) for s in MACHINE_STYLES],
    "motorcycle": [motorcycle(r, v) for r in (False, True) for v in range(6)],
    "bicycle": [bicycle(r, v) for r in (False, True) for v in range(6)],
    "pedestrian": [person(k, v) for k in ("standing", "walking", "bag", "backpack", "child", "child_walking", "worker") for v in range(6)],
    "traffic_cone": [cone(v) for v in range(2)],
    "barrier": [barrier(s) for s in BARRIER_STYLES],
}
EVERY = [(name, model) for name, models in FAMILIES.items() for model in models]


def share(model: VoxelModel, *names: str) -> float:
    """Share of the visible (outer) cells that have one of the materials."""
    solid = model.cells > 0
    padded = np.pad(solid, 1)
    inner = np.ones_like(solid)
    for axis in range(3):
        for shift in (-1, 1):
            inner &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    outer = solid & ~inner
    return float(np.isin(model.cells[outer], [MATERIAL_ID[n] for n in names]).mean())


def test_all_ten_classes_have_models():
    assert set(FAMILIES) == set(DETECTION_CLASSES)
    assert all(len(models) >= 2 for models in FAMILIES.values())


@pytest.mark.parametrize(("name", "model"), EVERY)
def test_boxes_are_tight_and_sizes_are_real(name, model):
    for axis in range(3):
        line = (model.cells > 0).any(axis=tuple(a for a in range(3) if a != axis))
        assert line[0]
        assert line[-1]  # solid up to both faces of the box
    assert model.origin[2] == 0
    assert np.allclose(np.array(model.origin[:2]) * -2, model.size[:2])
    for size, (low, high) in zip(model.size, RANGES[name], strict=True):
        assert low <= size <= high


@pytest.mark.parametrize(("name", "model"), EVERY)
def test_models_use_actor_materials_and_are_in_one_piece(name, model):
    from scipy.ndimage import label

    used = np.unique(model.cells[model.cells > 0])
    assert all(MATERIALS[m].category == "noise" for m in used)  # the class is the actor's
    parts, count = label(model.cells > 0, structure=np.ones((3, 3, 3)))
    largest = np.bincount(parts.ravel())[1:].max()
    assert largest >= 0.9 * (model.cells > 0).sum(), f"{count} pieces"


@pytest.mark.parametrize("name", ["car", "truck", "bus", "motorcycle", "bicycle"])
def test_road_vehicles_touch_the_ground_with_tyres(name):
    for model in FAMILIES[name]:
        bottom = model.cells[:, :, 0]
        assert (bottom == MATERIAL_ID["tyre"]).sum() >= 0.5 * (bottom > 0).sum()


@pytest.mark.parametrize("name", ["car", "bus"])
def test_cars_and_buses_have_windows_lamps_and_plates(name):
    for model in FAMILIES[name]:
        assert 0.02 < share(model, "glass") < 0.6
        front, back = model.cells[model.cells.shape[0] // 2 :], model.cells[: model.cells.shape[0] // 2]
        assert (front == MATERIAL_ID["headlamp"]).any()
        assert not (back == MATERIAL_ID["headlamp"]).any()
        assert (back == MATERIAL_ID["taillamp"]).any()
        assert not (front == MATERIAL_ID["taillamp"]).any()
        assert (model.cells == MATERIAL_ID["plate"]).any()


@pytest.mark.parametrize("style", CAR_STYLES)
def test_cars_are_symmetric(style):
    cells = car(style).cells
    assert (cells == cells[:, ::-1]).mean() > 0.98


def test_styles_differ():
    for name in ("car", "truck", "bus", "trailer", "construction_vehicle", "barrier"):
        shapes = {(m.cells.shape, m.cells.tobytes()) for m in FAMILIES[name]}
        assert len(shapes) == len(FAMILIES[name])


def test_riders_sit_on_their_cycles():
    for maker in (bicycle, motorcycle):
        alone, ridden = maker(False, 2), maker(True, 2)
        assert ridden.size[2] > alone.size[2] + 0.4
        assert share(ridden, "shirt") > 0.05
        assert share(alone, "shirt") == 0


def test_children_are_smaller():
    children = [person("child", v).size[2] for v in range(6)]
    adults = [person("standing", v).size[2] for v in range(6)]
    assert max(children) < min(adults)


def test_walkers_take_strides():
    assert min(person("walking", v).size[0] for v in range(6)) > max(person("child", v).size[0] for v in range(6)) + 0.2


def test_workers_wear_vests():
    assert share(person("worker", 0), "vest") > 0.15
    assert share(person("worker", 0), "helmet") > 0.02


def test_cones_are_orange_and_white():
    assert share(cone(0), "cone_orange", "cone_white") == 1
    assert share(cone(0), "cone_white") > 0.1


@pytest.mark.parametrize(
    "name", [*DETECTION_CLASSES, "child", "worker", "walker", "rider_bicycle", "rider_motorcycle", "tractor", "semi", "light_trailer"]
)
def test_random_kinds_belong_to_their_class(name):
    rng = np.random.default_rng(0)
    for _ in range(20):
        kind = random_kind(rng, name)
        wanted = name if name in DETECTION_CLASSES else None
        detection = DETECTION_OF_CATEGORY[kind.category]
        assert wanted is None or detection == wanted
        assert any(kind.model is m for m in FAMILIES[detection])
        assert all(0 <= v <= 1 for v in kind.tint)
        assert kind.upright == (detection == "pedestrian")
