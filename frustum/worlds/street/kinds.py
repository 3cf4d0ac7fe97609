"""Drawing actors from the catalogue: which model, which category, which colour."""

from __future__ import annotations

import numpy as np

from frustum.worlds.street.crowd import Kind
from frustum.worlds.street.heavy import BUS_STYLES, MACHINE_STYLES, TRUCK_STYLES, bus, machine, trailer, truck
from frustum.worlds.street.people import BARRIER_STYLES, barrier, bicycle, cone, motorcycle, person
from frustum.worlds.street.vehicles import CAR_STYLES, car

Colour = tuple[float, float, float]

# Linear RGB, with the frequencies of a European street.
_CARS: list[tuple[float, Colour]] = [
    (0.20, (0.80, 0.80, 0.79)),
    (0.18, (0.02, 0.02, 0.022)), (0.20, (0.13, 0.135, 0.14)), (0.14, (0.42, 0.43, 0.44)),
    (0.08, (0.03, 0.09, 0.30)), (0.07, (0.45, 0.02, 0.02)), (0.04, (0.02, 0.04, 0.10)), (0.03, (0.04, 0.16, 0.07)),
    (0.03, (0.36, 0.28, 0.19)),
    (0.02, (0.75, 0.50, 0.02)), (0.01, (0.60, 0.16, 0.01)),
]  # fmt: skip
_BRIGHT: list[Colour] = [
    (0.75, 0.55, 0.05), (0.60, 0.04, 0.03), (0.05, 0.16, 0.45), (0.80, 0.80, 0.78), (0.06, 0.30, 0.14), (0.78, 0.30, 0.03),
    (0.30, 0.50, 0.65), (0.35, 0.37, 0.40),
]  # fmt: skip
_CLOTHES: list[Colour] = [
    (0.60, 0.07, 0.06), (0.06, 0.12, 0.36), (0.70, 0.68, 0.62), (0.06, 0.06, 0.07), (0.10, 0.26, 0.13), (0.62, 0.45, 0.08),
    (0.30, 0.31, 0.33),
    (0.36, 0.12, 0.30), (0.20, 0.42, 0.50), (0.42, 0.28, 0.17),
]  # fmt: skip


def _shift(rng: np.random.Generator, colour: Colour) -> Colour:
    scale = rng.uniform(0.85, 1.15)
    r, g, b = (float(np.clip(v * scale * rng.uniform(0.93, 1.07), 0.005, 0.95)) for v in colour)
    return (r, g, b)


def _from(rng: np.random.Generator, colours: list[Colour]) -> Colour:
    return _shift(rng, colours[int(rng.integers(len(colours)))])


def random_kind(rng: np.random.Generator, name: str) -> Kind:
    """A random specimen.

    `name` is a detection class, or one of: child, worker, walker, rider_bicycle, rider_motorcycle, tractor, semi, light_trailer.
    """
    pick = lambda *names: str(rng.choice(names))  # noqa: E731
    variant = int(rng.integers(6))
    if name == "car":
        style = str(rng.choice(CAR_STYLES, p=[0.2, 0.2, 0.15, 0.22, 0.05, 0.08, 0.06, 0.04]))
        weights = np.array([w for w, _ in _CARS])
        colour = _CARS[int(rng.choice(len(_CARS), p=weights / weights.sum()))][1]
        return Kind(
            "vehicle.car", (car, (style,)), _shift(rng, (0.8, 0.8, 0.79) if style == "panel_van" and rng.random() < 0.6 else colour)
        )
    if name in ("truck", "tractor"):
        return Kind("vehicle.truck", (truck, (pick(*TRUCK_STYLES) if name == "truck" else "tractor",)), _from(rng, _BRIGHT))
    if name == "bus":
        return Kind("vehicle.bus.rigid", (bus, (pick(*BUS_STYLES, "city"),)), _from(rng, _BRIGHT))
    if name in ("trailer", "semi", "light_trailer"):
        styles = {
            "semi": ("semi", "tarp", "container"),
            "light_trailer": ("utility", "caravan"),
            "trailer": ("semi", "tarp", "container", "utility", "caravan"),
        }[name]
        style = pick(*styles)
        return Kind("vehicle.trailer", (trailer, (style,)), (0.80, 0.79, 0.76) if style == "caravan" else _from(rng, _BRIGHT))
    if name == "construction_vehicle":
        return Kind("vehicle.construction", (machine, (pick(*MACHINE_STYLES, "excavator"),)))
    if name in ("motorcycle", "rider_motorcycle"):
        return Kind("vehicle.motorcycle", (motorcycle, (name != "motorcycle", variant)), _from(rng, _BRIGHT))
    if name in ("bicycle", "rider_bicycle"):
        return Kind("vehicle.bicycle", (bicycle, (name != "bicycle", variant)), _from(rng, _CLOTHES if name != "bicycle" else _BRIGHT))
    if name == "traffic_cone":
        return Kind("movable_object.trafficcone", (cone, (variant % 2,)))
    if name == "barrier":
        return Kind("movable_object.barrier", (barrier, (pick(*BARRIER_STYLES),)))
    if name == "worker":
        return Kind("human.pedestrian.construction_worker", (person, ("worker", variant)), (0.85, 0.75, 0.1), upright=True)
    if name == "child":
        return Kind("human.pedestrian.child", (person, (pick("child", "child_walking"), variant)), _from(rng, _CLOTHES), upright=True)
    pose = pick("walking", "walking", "bag", "backpack") if name == "walker" else "standing"
    return Kind("human.pedestrian.adult", (person, (pose, variant)), _from(rng, _CLOTHES), upright=True)
