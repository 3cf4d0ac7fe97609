"""What sits on a head: ears, hats, glasses, earrings; and the body below it with a necklace. Plain numpy, a few hundred points each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from frustum.worlds.heads.person import HATS
from frustum.worlds.heads.skull import UNROLL, standard_radius

BACKGROUND, HEAD, EAR_LEFT, EAR_RIGHT, BODY, HAT, HAIR, BROW_LEFT, BROW_RIGHT, BEARD, GLASSES, EARRING, NECKLACE = range(13)
"""What a sub-pixel shows. All but background, body and necklace belong to the head; from HAIR on they are threads."""


LENS_CURVE = 0.02  # glasses bend around the face, per centimetre


class Mesh(NamedTuple):
    """A grid of points. `points` (R, C, 3) in the head frame, of a body in the world's; `chart` (R, C, 2), what is painted where."""

    part: int
    points: np.ndarray
    chart: np.ndarray
    is_closed: bool = False


class Threads(NamedTuple):
    """Tubes and hairs. `points` (N, K, 3), `width` (N,) centimetres, `part` (N,) uint8, `tone` (N,) brightness 0..1."""

    points: np.ndarray
    width: np.ndarray
    part: np.ndarray
    tone: np.ndarray


def thread(part: int, points: np.ndarray, width: float, tone: float = 0.5) -> Threads:
    """One tube through `points` (K, 3)."""
    return Threads(points[None], np.array([width]), np.array([part], np.uint8), np.array([tone]))


def ear(side: int, size: float) -> Mesh:
    """An ear of the standard head; `side` is 1 for the person's left one."""
    v = np.linspace(0.0, np.pi, 17)[:, None]
    u = np.linspace(0.0, 2 * np.pi, 25)[None]
    b, a, c = np.cos(v) + 0 * u, np.sin(v) * np.cos(u), np.sin(v) * np.sin(u)  # up, forward, out
    a = a * (1.45 + 0.35 * b) * size - 0.25 * b * size
    c = c * 0.7 * (1.0 - 0.2 * b) * size
    y = 2.75 * b * size - 0.9
    turn = 0.45
    out, forward = c * np.cos(turn) - a * np.sin(turn), a * np.cos(turn) + c * np.sin(turn)
    x = side * (7.35 + out)
    points = np.stack([x, y, -0.9 + forward], axis=-1)
    chart = np.stack([a, 2.75 * b * size], axis=-1)
    if side > 0:
        points, chart = points[:, ::-1], chart[:, ::-1]
    return Mesh(EAR_LEFT if side > 0 else EAR_RIGHT, points, chart, is_closed=True)


def hat_meshes(kind: str) -> list[Mesh]:
    """The hat of the standard head: `beanie`, `cap` or `brim`; no mesh for any other kind."""
    if kind not in HATS:
        return []
    theta = np.linspace(-np.pi, np.pi, 73)
    t = np.linspace(0.0, 1.0, 26)[:, None]
    front, back = {"beanie": (4.3, -0.5), "cap": (5.0, 1.6), "brim": (4.6, 1.2)}[kind]
    rim = back + (front - back) * (0.5 + 0.5 * np.cos(theta)) ** 0.8
    low = np.arcsin(np.clip(rim / 9.4, -1, 1))
    phi = np.pi / 2 + (low - np.pi / 2)[None] * t
    around = np.broadcast_to(theta, phi.shape)
    thick = {"beanie": 1.15, "cap": 0.95, "brim": 1.0}[kind]
    radius = standard_radius(around, phi) + thick
    if kind == "beanie":
        radius = radius + 0.45 * (t > 0.74) + 0.9 * np.exp(-((((1 - t) - 1.0) / 0.25) ** 2))
    if kind == "brim":
        radius = radius + 0.9 * np.exp(-(((t - 0.2) / 0.2) ** 2)) - 0.8 * np.exp(-((t / 0.12) ** 2))
    points = np.stack([np.sin(around) * np.cos(phi), np.sin(phi), np.cos(around) * np.cos(phi)], axis=-1) * radius[..., None]
    chart = np.stack([UNROLL * around, 10.0 * t + 0 * phi], axis=-1)
    inside = points[13:, ::-1] * 0.995
    meshes = [Mesh(HAT, points, chart, is_closed=True), Mesh(HAT, inside, chart[13:])]
    if kind != "beanie":
        s = np.linspace(0.0, 1.0, 9)[:, None]
        edge = points[-1][None]
        flat = edge * [1.0, 0.0, 1.0]
        flat = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
        if kind == "cap":
            reach = 7.0 * np.clip(1.0 - (theta / 1.15) ** 2, 0.0, 1.0) ** 0.5
            sheet = edge + s[..., None] * reach[None, :, None] * np.array([0.0, -0.22, 1.0])
            sheet[..., 1] -= 0.018 * s * reach[None] * np.abs(sheet[..., 0])
        else:
            sheet = edge + s[..., None] * 6.0 * flat
            sheet[..., 1] += 0.9 * s**2 * (np.abs(np.sin(theta))[None] * 1.6 - 0.8) - 0.6 * s
        chart = np.stack([UNROLL * np.broadcast_to(theta, sheet.shape[:2]), 10.0 + 6.0 * s + 0 * theta[None]], axis=-1)
        under = sheet - [0.0, 0.25, 0.0]
        meshes += [Mesh(HAT, sheet, chart), Mesh(HAT, under[:, ::-1], chart[:, ::-1])]
    return meshes


def glasses(front: float, spacing: float, roundness: float, size: float, ear_x: float, width: float) -> tuple[list[Threads], list[Mesh]]:
    """Frame and lenses in the person's head frame.

    Args:
        front: z of their middle.
        spacing: of the eyes, centimetres from the middle.
        roundness: 0 square .. 1 round. size: factor. ear_x: half the head's width at the ears. width: of the frame's tubes.
    """
    tubes, lenses = [], []
    y = -0.25
    u = np.linspace(0.0, 2 * np.pi, 33)
    power = 2.0 / (4.5 - 2.5 * roundness)
    c, s = np.cos(u), np.sin(u)
    ring = size * np.stack([np.sign(c) * np.abs(c) ** power * 2.15, np.sign(s) * np.abs(s) ** power * 1.7], axis=-1)

    def at(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([x, y, front - LENS_CURVE * x * x], axis=-1)

    apart = max(spacing, 2.15 * size + 0.95)
    for side in (-1, 1):
        middle = side * apart
        tubes.append(thread(GLASSES, at(middle + ring[:, 0], y + ring[:, 1]), width))
        start, end = at(np.array(middle + side * 2.1 * size), np.array(y + 0.6)), np.array([side * (ear_x + 0.3), 0.5, -1.5])
        t = np.linspace(0.0, 1.0, 33)[:, None]
        hinge = np.array([side * (ear_x + 0.35), 0.35, front - 3.4])
        tubes.append(thread(GLASSES, (1 - t) ** 2 * start + 2 * t * (1 - t) * hinge + t * t * end, width))
        r = np.linspace(0.02, 1.0, 6)[:, None]
        points = at(middle + r * ring[None, :, 0], y + r * ring[None, :, 1])[:, ::-1]
        lenses.append(Mesh(GLASSES, points[::-1], np.stack([r * ring[None, :, 0], r * ring[None, :, 1]], -1)[::-1]))
    inner = apart - 2.1 * size
    x = np.linspace(-inner, inner, 33)
    tubes.append(thread(GLASSES, at(x, y + 0.5 + 0.35 * (1 - (x / inner) ** 2)), width * 1.1))
    return tubes, lenses


def earrings(size: float, ear_size: float) -> Threads:
    """A hoop, or a stud if `size` is small, at each ear of the standard head."""
    u = np.linspace(0.0, 2 * np.pi, 17)
    hoops = [
        np.stack([side * (7.75 + 0.25 * np.sin(u)), -0.7 - 2.75 * ear_size - size * (1 - np.cos(u)), -0.6 + size * np.sin(u)], axis=-1)
        for side in (-1, 1)
    ]
    return Threads(np.stack(hoops), np.full(2, max(0.34, 0.5 - 0.2 * size)), np.full(2, EARRING, np.uint8), np.full(2, 0.5))


class Build(NamedTuple):
    """A body: factors of the neck's and the shoulders' width, and how far their slope drops, centimetres."""

    neck: float = 1.0
    shoulders: float = 1.0
    slope: float = 0.0


_PROFILE = np.array(  # height, half width, half depth, z: of a neck of 5.5 cm and standard shoulders
    [
        (-4.0, 5.2, 5.2, -2.2), (-9.0, 5.3, 5.3, -2.4), (-13.5, 5.5, 5.6, -2.8), (-15.0, 6.3, 6.0, -3.2), (-16.2, 8.0, 6.6, -3.5),
        (-17.4, 11.0, 7.4, -3.6), (-18.8, 15.0, 8.3, -3.6), (-20.4, 18.2, 9.2, -3.4), (-22.5, 20.3, 10.0, -3.0), (-26.0, 21.6, 10.8, -2.5),
        (-34.0, 21.8, 11.5, -2.0), (-48.0, 21.8, 11.5, -2.0),
    ]
)  # fmt: skip


_RISE = 1.1  # centimetres that the body stands above its chart


def body_mesh(build: Build, top: np.ndarray, neckline: np.ndarray) -> Mesh:
    """Neck, shoulders and chest in the world's frame.

    Args:
        top: (3,) where the neck's axis ends inside the head.
        neckline: (64,) height where the clothes begin, around the body from the back over the person's right.
    """
    heights = np.concatenate([np.linspace(-4.0, -13.0, 12), np.linspace(-13.4, -24.0, 44), np.linspace(-25.0, -48.0, 10)])
    _, a, b, z = (np.interp(-heights, -_PROFILE[:, 0], _PROFILE[:, k]) for k in range(4))
    wide = np.clip((a - 5.6) / 10.0, 0.0, 1.0)
    a = a * (build.neck + (build.shoulders - build.neck) * wide)
    b = b * (build.neck + (1.0 - build.neck) * wide)
    y = heights - build.slope * wide
    t = np.clip((heights + 16.0) / 12.0, 0.0, 1.0) ** 1.4  # how much the neck follows the head
    x, z = t * top[0], z + t * (top[2] + 2.2)
    theta = np.linspace(-np.pi, np.pi, 65)[None]
    s, c = np.sin(theta), np.cos(theta)
    power = 1.0 - 0.12 * wide[:, None]
    line = np.append(neckline, neckline[0])[None]
    cloth = np.clip((line - heights[:, None]) / 1.2 + 0.3, 0.0, 1.0)
    puff = 0.35 * cloth
    px = x[:, None] + (a[:, None] + puff) * np.sign(s) * np.abs(s) ** power
    pz = z[:, None] + (b[:, None] + puff) * np.sign(c) * np.abs(c) ** power
    neck = 1.0 - wide[:, None]
    pz = pz - 0.35 * neck * np.exp(-((theta / 0.35) ** 2)) * np.clip((heights[:, None] + 17.5) / 2.0, 0, 1)  # between the tendons
    points = np.stack([px, np.broadcast_to(y[:, None] + _RISE, px.shape), pz], axis=-1)
    chart = np.stack([np.broadcast_to(UNROLL * theta, px.shape), np.broadcast_to(heights[:, None], px.shape)], axis=-1)
    return Mesh(BODY, points, chart, is_closed=True)


def necklace(body: Mesh, drop: float) -> Threads:
    """A chain on the body; it hangs `drop` centimetres deeper in front than at the back."""
    columns = np.linspace(0, body.points.shape[1] - 1, 65).astype(int)
    theta = body.chart[0, columns, 0] / UNROLL
    heights = -14.4 - drop * (0.5 + 0.5 * np.cos(theta)) ** 3
    chain = np.stack(
        [[np.interp(-h, -body.chart[:, j, 1], body.points[:, j, k]) for k in range(3)] for j, h in zip(columns, heights, strict=True)]
    )
    centre = chain.mean(0) * [1, 0, 1]
    out = chain * [1, 0, 1] - centre
    chain = chain + 0.25 * out / np.linalg.norm(out, axis=-1, keepdims=True)
    return thread(NECKLACE, chain, 0.26)
