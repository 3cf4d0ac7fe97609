"""Turning the plan of roads into the ground: heights of kerbs, materials, and a map of what each cell is for."""

from __future__ import annotations

import numpy as np
from numba import njit

from frustum.worlds.street.materials import MATERIAL_ID
from frustum.worlds.street.paths import Network, Rect
from frustum.worlds.street.terrain import Terrain
from frustum.worlds.street.types import Ground

_KERB = 0.15  # metres
CARRIAGEWAY, WALK, PARCEL, PAVED, ISLAND, BUILDING = range(6)  # zones of a cell
_BIN = 4.0  # metres of road per list of marks
_BLOCK = 8  # cells that share one test for nearby things


@njit(cache=True, forceinline=True)
def _sample(field, u, v):  # bilinear value of a coarse map at fractional index (u, v)
    i = min(max(int(u), 0), field.shape[0] - 2)
    j = min(max(int(v), 0), field.shape[1] - 2)
    a, b = u - i, v - j
    return (field[i, j] * (1 - b) + field[i, j + 1] * b) * (1 - a) + (field[i + 1, j] * (1 - b) + field[i + 1, j + 1] * b) * a


@njit(cache=True)
def _project(points, yaws, starts, nx, ny, x0, y0, pitch):
    """Arc length and offset (nx, ny) of grid corners with respect to a polyline; neighbours share most of the search."""
    s = np.empty((nx, ny), np.float32)
    d = np.empty((nx, ny), np.float32)
    n = len(points)
    for i in range(nx):
        for j in range(ny):
            x, y = x0 + i * pitch, y0 + j * pitch
            best, k_best = 1e30, 0
            for k in range(n):
                q = (points[k, 0] - x) ** 2 + (points[k, 1] - y) ** 2
                if q < best:
                    best, k_best = q, k
            c, w = np.cos(yaws[k_best]), np.sin(yaws[k_best])
            ex, ey = x - points[k_best, 0], y - points[k_best, 1]
            along, across = ex * c + ey * w, ey * c - ex * w
            # second order: follow the curve's turn between samples
            bend = 0.0
            if 0 < k_best < n - 1:
                bend = (yaws[k_best + 1] - yaws[k_best - 1]) / (starts[k_best + 1] - starts[k_best - 1])
            along = along / max(1.0 - bend * across, 0.3)
            s[i, j] = starts[k_best] + along
            d[i, j] = across - 0.5 * bend * along * along
    return s, d


@njit(cache=True, error_model="numpy", forceinline=True)
def _road_frame(r, lines, fs, fd, x, y, x0, y0, pitch):  # (s, d) of a point for road r; road 0 is curved, the others are straight
    if r == 0:
        u, v = (x - x0) / pitch, (y - y0) / pitch
        return _sample(fs, u, v), _sample(fd, u, v)
    ex, ey = x - lines[r, 0], y - lines[r, 1]
    return ex * lines[r, 2] + ey * lines[r, 3], ey * lines[r, 2] - ex * lines[r, 3]


@njit(cache=True, forceinline=True)
def _box(s, d, row):  # signed distance to a rectangle (road, s0, s1, d0, d1, ...), negative inside
    return max(max(row[1] - s, s - row[2]), max(row[3] - d, d - row[4]))


@njit(cache=True, error_model="numpy")
def _edge(S, D, lines, radius, islands, paved):
    """Signed distances to the kerb (negative on the carriageway), to the pavement's outer side, to an island (its row), to paved lots."""
    e, outer = 1e9, 1e9
    for r in range(len(lines)):
        s, d = S[r], D[r]
        own = max(d - lines[r, 4], -d - lines[r, 5])
        if r > 0:
            own = max(own, -s)
        walk = lines[r, 6] if d > 0 else lines[r, 7]
        outer = min(outer, own - walk)
        if r == 0:
            e = own
        else:  # round the corners of the junction
            p, q = max(radius - e, 0.0), max(radius - own, 0.0)
            e = max(radius, min(e, own)) - np.sqrt(p * p + q * q)
    isle, which = 1e9, -1
    for k in range(len(islands)):
        r = int(islands[k, 0])
        b = _box(S[r], D[r], islands[k])
        if b < isle:
            isle, which = b, k
    lot = 1e9
    for k in range(len(paved)):
        r = int(paved[k, 0])
        lot = min(lot, _box(S[r], D[r], paved[k]))
    return e, outer, isle, which, lot


@njit(cache=True)
def _near(S, D, rows, reach):
    """The rows whose rectangles lie within `reach` metres of a point, and their numbers."""
    count = 0
    for k in range(len(rows)):
        r = int(rows[k, 0])
        count += _box(S[r], D[r], rows[k]) < reach
    kept, numbers = np.empty((count, rows.shape[1])), np.empty(count, np.int64)
    n = 0
    for k in range(len(rows)):
        r = int(rows[k, 0])
        if _box(S[r], D[r], rows[k]) < reach:
            kept[n], numbers[n] = rows[k], k
            n += 1
    return kept, numbers


@njit(cache=True)
def _walk_material(S, D, lines, drops, outer, solid, lot, ids):
    """Material of raised ground between kerb and plot; 255 keeps the plot's own."""
    if solid < 0.2 and (outer < 0 or lot < 0.2):
        return ids[1]
    if outer >= 0:
        return np.uint8(255)
    side = 1e9
    for r in range(1, len(lines)):
        side = min(side, max(max(D[r] - lines[r, 4], -D[r] - lines[r, 5]), -S[r]))
    verge = lines[0, 8] if D[0] > 0 else lines[0, 9]
    own = max(D[0] - lines[0, 4], -D[0] - lines[0, 5])
    if own < 0.2 + verge and side > 5.0 and lot > 1.5:
        for k in range(len(drops)):
            r = int(drops[k, 0])
            if _box(S[r], D[r], drops[k]) < 0.3:
                return ids[4]
        return ids[3]
    return ids[4] if D[0] > 0 else ids[5]


@njit(cache=True, error_model="numpy")
def _road_material(S, D, lines, e, marks, mark_material, bins, numbers, ids):
    """Material of the asphalt with what is painted on it."""
    own = max(D[0] - lines[0, 4], -D[0] - lines[0, 5])
    m = ids[0] if own < 0 else (ids[2] if e < 0 else ids[6])
    for r in range(len(lines)):
        b = int((S[r] - lines[r, 10]) / _BIN)
        if b < 0 or b >= bins.shape[1] - 1:
            continue
        for n in range(bins[r, b], bins[r, b + 1]):
            k = numbers[n]
            if _box(S[r], D[r], marks[k]) < 0 and (marks[k, 5] == 0 or (S[r] - marks[k, 1]) % marks[k, 6] < marks[k, 5]):
                m = mark_material[k]
    return m


@njit(cache=True, error_model="numpy")
def _paint(
    material,
    kerb,
    zone,
    corner,
    cell,
    lines,
    fs,
    fd,
    pitch,
    radius,
    islands,
    isle_material,
    paved,
    drops,
    marks,
    mark_material,
    bins,
    numbers,
    ids,
):
    x0, y0 = corner
    R, X, Y = len(lines), zone.shape[0], zone.shape[1]
    reach = 0.75 * _BLOCK * cell + 1.0
    for block in range((X + _BLOCK - 1) // _BLOCK):
        S, D = np.empty(R), np.empty(R)
        for j0 in range(0, Y, _BLOCK):
            i0 = block * _BLOCK
            i1, j1 = min(i0 + _BLOCK, X), min(j0 + _BLOCK, Y)
            x, y = x0 + (i0 + i1) / 2 * cell, y0 + (j0 + j1) / 2 * cell
            for r in range(R):
                S[r], D[r] = _road_frame(r, lines, fs, fd, x, y, x0, y0, pitch)
            e, outer, isle, which, lot = _edge(S, D, lines, radius, islands, paved)
            ends = i1 + (i1 == X), j1 + (j1 == Y)  # corners that belong to this block
            if outer > reach and lot > reach:
                kerb[i0 : ends[0], j0 : ends[1]] = _KERB
                zone[i0:i1, j0:j1] = 2
                continue
            isles, isle_number = _near(S, D, islands, reach)
            lots, _ = _near(S, D, paved, reach + 1.0)
            ramps, _ = _near(S, D, drops, reach)
            for i in range(i0, ends[0]):
                for j in range(j0, ends[1]):
                    for r in range(R):
                        S[r], D[r] = _road_frame(r, lines, fs, fd, x0 + i * cell, y0 + j * cell, x0, y0, pitch)
                    e, outer, isle, which, lot = _edge(S, D, lines, radius, isles, lots)
                    rise = min(max((min(max(e, -isle), lot) + 0.05) / 0.22, 0.0), 1.0)
                    for k in range(len(ramps)):
                        r = int(ramps[k, 0])
                        away = _box(S[r], D[r], ramps[k])
                        if away < 0.8:
                            rise = min(rise, 0.2 + max(away, 0.0))
                    kerb[i, j] = _KERB * rise
            for i in range(i0, i1):
                for j in range(j0, j1):
                    x, y = x0 + (i + 0.5) * cell, y0 + (j + 0.5) * cell
                    for r in range(R):
                        S[r], D[r] = _road_frame(r, lines, fs, fd, x, y, x0, y0, pitch)
                    e, outer, isle, which, lot = _edge(S, D, lines, radius, isles, lots)
                    if isle < 0 and e < 0:
                        zone[i, j] = 4
                    elif e < 0:
                        zone[i, j] = 0
                    elif lot < 0:
                        zone[i, j] = 3
                    elif outer < 0:
                        zone[i, j] = 1
                    else:
                        zone[i, j] = 2
                    if outer > 1.0 and lot > 0.5 and e > 1.0:
                        continue
                    for half in range(4):
                        hi, hj = 2 * i + half // 2, 2 * j + half % 2
                        x, y = x0 + (hi + 0.5) * cell / 2, y0 + (hj + 0.5) * cell / 2
                        for r in range(R):
                            S[r], D[r] = _road_frame(r, lines, fs, fd, x, y, x0, y0, pitch)
                        e, outer, isle, which, lot = _edge(S, D, lines, radius, isles, lots)
                        solid = min(max(e, -isle), lot)
                        if solid >= 0.2 and isle < 0 and e < 0:
                            material[hi, hj] = isle_material[isle_number[which]]
                        elif solid >= 0:
                            m = _walk_material(S, D, lines, ramps, outer, solid, lot, ids)
                            if m != 255:
                                material[hi, hj] = m
                        else:
                            material[hi, hj] = _road_material(S, D, lines, e, marks, mark_material, bins, numbers, ids)


def _rows(rects: list[Rect]) -> np.ndarray:
    return np.array([r.row for r in rects], float).reshape(-1, 7)


def _bins(marks: list[Rect], starts: list[float], length: float) -> tuple[np.ndarray, np.ndarray]:
    """Which marks touch each stretch of each road: `ids[offsets[road, bin]:offsets[road, bin + 1]]`, in painting order."""
    count = int(length / _BIN) + 2
    table: list[list[list[int]]] = [[[] for _ in range(count)] for _ in starts]
    for m, mark in enumerate(marks):
        first, last = ((int((s - starts[mark.road]) / _BIN)) for s in (mark.s0, mark.s1))
        for b in range(max(first, 0), min(last, count - 1) + 1):
            table[mark.road][b].append(m)
    flat: list[int] = []
    offsets = np.zeros((len(starts), count + 1), np.int64)
    for r, row in enumerate(table):
        for b, entries in enumerate(row):
            offsets[r, b] = len(flat)
            flat.extend(entries)
        offsets[r, count] = len(flat)
    return offsets, np.array(flat + [0], np.int64)


def paint_ground(
    network: Network,
    terrain: Terrain,
    material: np.ndarray,
    cell: float,
    origin: tuple[float, float],
    palette: dict[str, str],
    drops: list[Rect],
) -> tuple[Ground, np.ndarray, np.ndarray]:
    """Paint roads and pavements over `material` (2X, 2Y), which holds the ground of the parcels.

    `palette` names the materials of road, side, lot, left (pavement), right and verge; kerbs are lowered inside `drops`.

    Returns:
        the ground; its zones (X, Y) uint8 (CARRIAGEWAY, WALK, PARCEL, PAVED or ISLAND); the height (X + 1, Y + 1) of kerbs, which is
        part of the ground's corner heights.
    """
    shape = (material.shape[0] // 2, material.shape[1] // 2)
    pitch = 1.0
    count = [int(np.ceil(n * cell / pitch)) + 2 for n in shape]
    main = network.main.path
    fs, fd = _project(main.xy, main.yaw, main.s, count[0], count[1], origin[0], origin[1], pitch)
    lines, starts = [], []
    for k, road in enumerate(network.roads):
        xy, yaw = road.path.xy[0], road.path.yaw[0]
        left = network.verge_left + network.pavement_left if k == 0 else 2.6
        right = network.verge_right + network.pavement_right if k == 0 else 2.6
        start = main.s[0] if k == 0 else 0.0
        starts.append(start)
        lines.append([*xy, np.cos(yaw), np.sin(yaw), road.left, road.right, left, right, network.verge_left, network.verge_right, start])
    offsets, ids = _bins(network.marks, starts, float(max(r.path.s[-1] - r.path.s[0] for r in network.roads)) + 8.0)
    kerb, zone = np.zeros((shape[0] + 1, shape[1] + 1), np.float32), np.zeros(shape, np.uint8)
    name = lambda key: MATERIAL_ID[palette[key]]  # noqa: E731
    ground_ids = np.array(
        [name("road"), MATERIAL_ID["kerb"], name("side"), name("verge"), name("left"), name("right"), name("lot")], np.uint8
    )
    colours = [np.array([MATERIAL_ID[r.material] for r in rects] + [0], np.uint8) for rects in (network.islands, network.marks)]
    _paint(
        material, kerb, zone, (float(origin[0]), float(origin[1])), cell, np.array(lines, float), fs, fd, pitch, network.corner_radius,
        _rows(network.islands), colours[0], _rows(network.paved), _rows(drops), _rows(network.marks), colours[1], offsets, ids, ground_ids,
    )  # fmt: skip
    xs, ys = (origin[a] + np.arange(shape[a] + 1) * cell for a in (0, 1))
    # Kerbs are part of the corner heights: a chamfer of 0.2 m, which winds smoothly where a step per cell would show teeth.
    return Ground(terrain.grid(xs, ys) + kerb, np.zeros(shape, np.float32), material, cell, origin), zone, kerb
