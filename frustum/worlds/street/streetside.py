"""What stands along kerbs and at junctions: street trees, lamps, signals, signs, benches and bins."""

from __future__ import annotations

import numpy as np

from frustum.worlds.street.furniture import put
from frustum.worlds.street.greenery import plant_bush, plant_tree
from frustum.worlds.street.ground import ISLAND, WALK
from frustum.worlds.street.parcels import Builder
from frustum.worlds.street.paths import Network
from frustum.worlds.street.roads import free_stretches


def _ok(b: Builder, x: float, y: float, zone: int = WALK) -> bool:
    i, j = b.canvas.index(x, y)
    return b.canvas.inside(i, j, 20) and b.canvas.zone[i, j] == zone


def line_streets(b: Builder, network: Network) -> None:
    """Furnish both pavements and the median of the main road, the junctions and the side roads."""
    for side in (1, -1):
        _kerb_row(b, network, side)
        _house_row(b, network, side)
    _median(b, network)
    _junctions(b, network)
    _side_roads(b, network)


def _kerb_row(b: Builder, network: Network, side: int) -> None:
    """Trees and lamps next to the kerb."""
    road = network.main
    edge, verge, walk = (
        (road.left, network.verge_left, network.pavement_left) if side > 0 else (road.right, network.verge_right, network.pavement_right)
    )
    d = edge + (0.25 + verge / 2 if verge else 0.7)
    trees = verge > 0 or walk > 2.5
    spacing = b.number(8.0, 12.0) / max(b.green, 0.2)
    planted = trees and b.rng.random() < 0.35 + 0.4 * b.district.trees
    species = [b.pick("plane", "linden", "maple", "oak", "birch", "young")]
    if b.rng.random() < 0.4:
        species.append(b.pick("linden", "maple", "young"))
    lamp_from = b.number(0, 28)
    for low, high in free_stretches(network, 1.5):
        for s in np.arange(low, high, spacing):
            xy, _ = road.path.at(s + b.number(-0.8, 0.8), side * d)
            if planted and _ok(b, *xy) and abs((s - lamp_from + 14) % 28 - 14) > 2.0 and b.rng.random() < 0.9:
                plant_tree(b.canvas, b.rng, xy[0], xy[1], b.pick(*species), b.season)
        for s in np.arange(lamp_from + 28 * np.ceil((low - lamp_from) / 28), high, 28.0):
            xy, yaw = road.path.at(s, side * (edge + 0.6))
            if _ok(b, *xy) and not road.median:
                put(b.canvas, "lamp", xy[0], xy[1], float(yaw) - side * np.pi / 2)
        if verge and b.rng.random() < 0.6:
            for s in np.arange(low, high, b.number(3, 8)):
                xy, _ = road.path.at(s, side * d)
                if _ok(b, *xy) and b.rng.random() < 0.4 * b.green:
                    plant_bush(b.canvas, b.rng, xy[0], xy[1], b.season)
        for s in np.arange(low + b.number(2, 20), high, b.number(25, 45)):
            xy, yaw = road.path.at(s, side * (edge + 0.6))
            if _ok(b, *xy):
                put(b.canvas, b.pick("limit", "guide", "limit", "bollard"), xy[0], xy[1], float(yaw) + (np.pi if side < 0 else 0.0))


def _house_row(b: Builder, network: Network, side: int) -> None:
    """Bins, benches, cabinets and letter boxes along the outer edge of the pavement, a bus shelter now and then."""
    road = network.main
    edge, verge, walk = (
        (road.left, network.verge_left, network.pavement_left) if side > 0 else (road.right, network.verge_right, network.pavement_right)
    )
    for low, high in free_stretches(network, 3.0):
        s = low + b.number(0, 8)
        while s < high:
            kind = b.pick("bin", "bench", "cabinet", "mailbox", "bin", "bench", "crate", "dumpster")
            inset = {"dumpster": 1.0, "crate": 0.8, "bench": 0.6}.get(kind, 0.5)
            xy, yaw = road.path.at(s, side * (edge + verge + walk - inset))
            if _ok(b, *xy):
                put(b.canvas, kind, xy[0], xy[1], float(yaw) - side * np.pi / 2)
            s += b.number(9, 22)
        if side < 0 and high - low > 25 and b.rng.random() < 0.6 and verge + walk > 3.2:
            xy, yaw = road.path.at(b.number(low + 6, high - 6), -(edge + verge + walk - 0.9))
            if _ok(b, *xy):
                put(b.canvas, "shelter", xy[0], xy[1], float(yaw) + np.pi / 2)


def _median(b: Builder, network: Network) -> None:
    road = network.main
    if not road.median:
        return
    green = b.rng.random() < 0.6 and road.median > 2.0
    species = b.pick("linden", "young", "birch", "poplar")
    rail = b.rng.random() < 0.3
    for island in network.islands:
        if island.road or island.d0 * island.d1 > 0:
            continue
        for k, s in enumerate(np.arange(island.s0 + 2.0, island.s1 - 1.5, 4.5)):
            xy, yaw = road.path.at(s, 0.0)
            if not _ok(b, xy[0], xy[1], ISLAND):
                continue
            if k % 6 == 3:
                put(b.canvas, "double_lamp", xy[0], xy[1], float(yaw) + np.pi / 2)
            elif green and k % 2 == 0 and b.rng.random() < 0.8 * b.green:
                plant_tree(b.canvas, b.rng, xy[0], xy[1], species, b.season)
            elif green and b.rng.random() < 0.7 * b.green:
                plant_bush(b.canvas, b.rng, xy[0], xy[1], b.season)
            elif not green and rail:
                put(b.canvas, "bollard", xy[0], xy[1])


def _junctions(b: Builder, network: Network) -> None:
    """Signals or signs where pavements meet crossings."""
    for crossing in network.crossings:
        road = network.roads[crossing.road]
        near = [at for at, sides in network.junctions if abs(at - crossing.s0) < 25 or crossing.road in sides]
        signals = bool(near) and (b.district.lanes[-1] == (2, 2)) and int(near[0]) % 3 != 0
        for s, side, facing in ((crossing.s0 - 0.7, -1, np.pi), (crossing.s1 + 0.7, 1, 0.0)):
            edge = road.left if side > 0 else road.right
            xy, yaw = road.path.at(s, side * (edge + 0.7))
            if not _ok(b, *xy):
                continue
            if signals:
                wide = crossing.road == 0 and b.rng.random() < 0.5
                kind = ("arm_" if wide else "signal_") + ("green" if crossing.road == 0 else "red")
                put(b.canvas, kind, xy[0], xy[1], float(yaw) + facing)
            elif crossing.road == 0 or side > 0:
                put(b.canvas, "crossing" if crossing.road == 0 else b.pick("stop", "crossing"), xy[0], xy[1], float(yaw) + facing)


def _side_roads(b: Builder, network: Network) -> None:
    for road in network.roads[1:]:
        begin = max(network.main.left, network.main.right) + 14
        species = b.pick("linden", "maple", "birch", "young", "plane")
        for side in (1, -1):
            lamp = b.number(0, 20)
            for s in np.arange(begin, begin + 60, 9.0):
                xy, yaw = road.path.at(s, side * (road.left + 0.6))
                if not _ok(b, *xy):
                    continue
                if (s - lamp) % 27 < 9:
                    put(b.canvas, "lamp", xy[0], xy[1], float(yaw) - side * np.pi / 2)
                elif b.rng.random() < 0.5 * b.green * b.district.trees:
                    plant_tree(b.canvas, b.rng, xy[0], xy[1], species, b.season)
                if b.rng.random() < 0.3:
                    away, _ = road.path.at(s + 3, side * (road.left + 2.2))
                    if _ok(b, *away):
                        put(b.canvas, b.pick("bin", "cabinet", "mailbox", "bench"), away[0], away[1], float(yaw) - side * np.pi / 2)
