"""Primary ray casting written to be read: the oracle of `kernels_cast`.

Instead of stepping from cell to cell, every ray is cut at all grid planes it crosses; the pieces, sorted along the ray, are looked up
all at once, and the first piece that meets something wins. Torch, float64, slow: memory grows with rays times cells along a ray.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from frustum.geometry import invert
from frustum.worlds.street.kernels_cast import ACTOR, BELOW, GROUND, KERB, SKY, STATIC
from frustum.worlds.street.types import Ground, Scene, VoxelModel

_CHUNK = 1024  # rays at a time


def _pieces(o: Tensor, d: Tensor, shape: tuple[int, ...], start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut rays o + t d (N, A) of a grid of A axes, within start..end (N,), at all planes between cells.

    Returns entry t (N, M), exit t (N, M) and cells (N, M, A) int64; cells are -1 where a piece is empty or outside the grid.
    """
    safe = torch.where(d.abs() < 1e-12, torch.full_like(d, 1e-12), d)
    cuts = [(torch.arange(n + 1, dtype=o.dtype) - o[:, a : a + 1]) / safe[:, a : a + 1] for a, n in enumerate(shape)]
    t = torch.cat([start[:, None], *cuts, end[:, None]], 1)
    t = t.clamp(min=start[:, None], max=torch.maximum(start, end)[:, None]).sort(1).values
    enter, leave = t[:, :-1], t[:, 1:]
    middle = o[:, None] + 0.5 * (enter + leave)[..., None] * d[:, None]  # (N, M, A)
    cells = middle.floor().long()
    inside = ((cells >= 0) & (cells < torch.tensor(shape))).all(-1) & (leave - enter > 1e-12)
    return enter, leave, torch.where(inside[..., None], cells, -1)


def _first(hit: Tensor) -> tuple[Tensor, Tensor]:
    """Index (N,) of the first True of each row, and whether there is one (N,)."""
    return hit.to(torch.uint8).argmax(1), hit.any(1)


def _entry_face(o: Tensor, d: Tensor, t: Tensor, cell: Tensor) -> Tensor:
    """The face 0..5 (-x +x -y +y -z +z) through which rays enter `cell` (N, A) at t (N,): the plane that the point lies on."""
    point = o + t[:, None] * d
    plane = cell + (d < 0)
    axis = ((point - plane) / torch.where(d.abs() < 1e-12, torch.full_like(d, 1e-12), d)).abs().argmin(1)
    backwards = d.gather(1, axis[:, None])[:, 0] <= 0
    return 2 * axis + backwards.long()


def cast_voxels(cells: Tensor, o: Tensor, d: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First solid cell of a grid (X, Y, Z) met by rays in cell units: t (N,) (inf = none), face, material, flat cell."""
    x, y, z = cells.shape
    enter, _, index = _pieces(o, d, (x, y, z), torch.zeros(len(o), dtype=o.dtype), end)
    found = cells[index[..., 0].clamp(0), index[..., 1].clamp(0), index[..., 2].clamp(0)].long() * (index[..., 0] >= 0)
    piece, any_hit = _first(found > 0)
    rows = torch.arange(len(o))
    t, cell = enter[rows, piece], index[rows, piece].clamp(0)
    t = torch.where(any_hit, t, torch.inf)
    face = _entry_face(o, d, torch.where(any_hit, t, 0), cell)
    return t, face, found[rows, piece], (cell[:, 0] * y + cell[:, 1]) * z + cell[:, 2]


def cast_surface(ground: Ground, o: Tensor, d: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """First meeting with the ground, rays in metres relative to ground.origin (z global): t (N,) (inf = none) and face, 6 = surface."""
    base, step = torch.from_numpy(ground.base).double(), torch.from_numpy(ground.step).double()
    flat_o = o[:, :2] / ground.cell
    flat_d = d[:, :2] / ground.cell
    enter, leave, index = _pieces(flat_o, flat_d, tuple(step.shape), torch.zeros(len(o), dtype=o.dtype), end)
    i, j = index[..., 0].clamp(0), index[..., 1].clamp(0)
    h00, h10, h01, h11 = (base[i + a, j + b] + step[i, j] for a, b in ((0, 0), (1, 0), (0, 1), (1, 1)))
    du, dv, dz = flat_d[:, None, 0], flat_d[:, None, 1], d[:, None, 2]
    u, v, z = flat_o[:, None, 0] + du * enter - i, flat_o[:, None, 1] + dv * enter - j, o[:, None, 2] + dz * enter
    b, c, e = h10 - h00, h01 - h00, h11 - h10 - h01 + h00
    # Height above the patch along the piece, tau from its entry: qa tau^2 + qb tau + qc.
    qa = -e * du * dv
    qb = dz - b * du - c * dv - e * (u * dv + v * du)
    qc = z - (h00 + b * u + c * v + e * u * v)
    root = torch.sqrt((qb * qb - 4 * qa * qc).clamp(0))
    real = qb * qb - 4 * qa * qc >= 0
    tau = torch.where(qb < 0, qc / (0.5 * (root - qb)), torch.where(qa < 0, -0.5 * (qb + root) / qa, torch.inf))
    tau = torch.where(real, tau, torch.inf)
    tau = torch.where(qc <= 0, 0.0, tau)
    piece, any_hit = _first((index[..., 0] >= 0) & (tau <= leave - enter + 1e-9))
    rows = torch.arange(len(o))
    t = torch.where(any_hit, enter[rows, piece] + tau[rows, piece], torch.inf)
    wall = qc[rows, piece] <= -1e-4 * ground.cell
    face = _entry_face(flat_o, flat_d, torch.where(any_hit, t, 0), index[rows, piece].clamp(0))
    return t, torch.where(wall, face, 6)


def _paint(ground: Ground, point: Tensor) -> Tensor:
    """Ground material (N,) at points (N, 2) in metres from ground.origin: most bilinear weight among the four nearest samples."""
    limit = torch.tensor(ground.material.shape) - 1
    place = (point * 2 / ground.cell - 0.5).clamp(torch.zeros(2, dtype=point.dtype), limit.to(point.dtype))
    low = place.floor().long()
    share = place - low
    table = torch.from_numpy(ground.material).long()
    corners = [(a, b) for b in (0, 1) for a in (0, 1)]
    names = torch.stack([table[(low[:, 0] + a).clamp(max=limit[0]), (low[:, 1] + b).clamp(max=limit[1])] for a, b in corners], 1)
    weights = torch.stack([(share[:, 0] if a else 1 - share[:, 0]) * (share[:, 1] if b else 1 - share[:, 1]) for a, b in corners], 1)
    votes = ((names[:, :, None] == names[:, None]) * weights[:, None]).sum(2)
    return names.gather(1, votes.argmax(1, keepdim=True))[:, 0]


def _ray_in(frame2global: np.ndarray, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Global rays in a frame at frame2global (4, 4)."""
    inverse = torch.from_numpy(invert(frame2global))
    return o @ inverse[:3, :3].T + inverse[:3, 3], d @ inverse[:3, :3].T


def _in_cells(model: VoxelModel, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Rays of a model's frame in cell units of its grid."""
    return (o - torch.tensor(model.origin, dtype=o.dtype)) / model.cell, d / model.cell


def cast_reference(scene: Scene, poses: np.ndarray, sensor2global: np.ndarray, table: np.ndarray, far: float) -> tuple[np.ndarray, ...]:
    """Cast rays of a sensor against everything; arguments and results as `kernels_cast.cast_rays`, actors at `poses` (A, 4, 4)."""
    pose = torch.from_numpy(np.asarray(sensor2global, np.float64))
    parts = [
        _cast_chunk(scene, poses, pose[:3, 3].expand(len(chunk), 3), chunk @ pose[:3, :3].T, far)
        for chunk in torch.from_numpy(table).double().split(_CHUNK)
    ]
    types = (np.float32, np.uint8, np.uint8, np.uint8, np.int16, np.int32)
    return tuple(torch.cat(column).numpy().astype(kind) for column, kind in zip(zip(*parts, strict=True), types, strict=True))


def _cast_chunk(scene: Scene, poses: np.ndarray, o: Tensor, d: Tensor, far: float) -> tuple[Tensor, ...]:
    ground = scene.ground
    limit = far / d.norm(dim=1)
    shift = torch.tensor([*ground.origin, 0.0], dtype=o.dtype)
    best, face = cast_surface(ground, o - shift, d, limit)
    best = torch.where(best < limit, best, limit)
    hit = best < limit
    kind = torch.where(hit, torch.where(face < 6, KERB, GROUND), torch.where(d[:, 2] < 0, BELOW, SKY))
    material = torch.where(hit, _paint(ground, (o - shift + d * (best + 1e-6)[:, None])[:, :2]), 0)
    actor, where = torch.full_like(kind, -1), torch.zeros_like(kind)
    solids = [(scene.static, np.eye(4), -1)] + [(scene.models[a.model], poses[row], row) for row, a in enumerate(scene.actors)]
    for model, frame, row in solids:
        local_o, local_d = _in_cells(model, *_ray_in(frame, o, d))
        t, side, what, cell = cast_voxels(torch.from_numpy(model.cells), local_o, local_d, limit)
        nearer = t < best
        best, face, material = torch.where(nearer, t, best), torch.where(nearer, side, face), torch.where(nearer, what, material)
        kind = torch.where(nearer, STATIC if row < 0 else ACTOR, kind)
        actor = torch.where(nearer, row, actor)
        start = sum(m.cells.size for m in scene.models[: scene.actors[row].model]) if row >= 0 else 0
        where = torch.where(nearer, start + cell if row >= 0 else 0, where)
    met = (kind != SKY) & (kind != BELOW)
    return torch.where(met, best, 0), kind, face, material, actor, where
