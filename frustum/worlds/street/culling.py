"""Which actors a ray has to be tested against: lists per image tile for cameras, per azimuth sector for spinning sensors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from frustum.geometry import invert

TILE = 16  # pixels
SECTORS = 180
NEAR = 0.05  # metres: what of a box lies nearer to the image plane is cut off before projecting
_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1])
_SIGNS = np.array([[(c >> 2) & 1, (c >> 1) & 1, c & 1] for c in range(8)], np.float64)


def box_corners_global(box_low: np.ndarray, box_high: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Corners (A, 8, 3) in the global frame of boxes low..high (A, 3) given in frames at poses (A, 4, 4)."""
    local = box_low[:, None] + _SIGNS * (box_high - box_low)[:, None]
    return local @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]


def image_rectangles(corners: np.ndarray, intrinsics: np.ndarray, cam2global: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixel rectangles (A, 4) int64 row0 row1 col0 col1 (ends exclusive) that hold each projected box; empty where it is not in the image.

    Boxes that cross the image plane are clipped against the plane at NEAR first, so that vehicles beside the camera keep their extent.
    """
    height, width = size
    g2c = invert(cam2global)
    points = corners @ g2c[:3, :3].T + g2c[:3, 3]  # (A, 8, 3)
    a, b = points[:, _EDGES[:, 0]], points[:, _EDGES[:, 1]]  # (A, 12, 3)
    crossing = (a[..., 2] < NEAR) != (b[..., 2] < NEAR)
    gap = b[..., 2] - a[..., 2]
    share = (NEAR - a[..., 2]) / np.where(crossing, gap, 1)
    cut = a + share[..., None] * (b - a)
    every = np.concatenate([points, cut], 1)
    valid = np.concatenate([points[..., 2] >= NEAR, crossing], 1)
    depth = np.where(valid, every[..., 2], 1)
    depth = np.maximum(depth, NEAR)
    u = intrinsics[0, 0] * every[..., 0] / depth + intrinsics[0, 1] * every[..., 1] / depth + intrinsics[0, 2]
    v = intrinsics[1, 1] * every[..., 1] / depth + intrinsics[1, 2]
    low = np.stack([np.where(valid, v, np.inf).min(1), np.where(valid, u, np.inf).min(1)], 1)
    high = np.stack([np.where(valid, v, -np.inf).max(1), np.where(valid, u, -np.inf).max(1)], 1)
    limit = np.array([height, width], np.float64)
    low = np.clip(np.floor(low - 1), 0, limit)
    high = np.clip(np.ceil(high + 1), 0, limit)
    empty = (high <= low).any(1)
    result = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1).astype(np.int64)
    result[empty] = 0
    return result


def _compress(member: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G, A) membership, columns in `order`, to first (G + 1,) int64 and items int64."""
    groups, columns = np.nonzero(member[:, order])
    first = np.zeros(len(member) + 1, np.int64)
    np.cumsum(np.bincount(groups, minlength=len(member)), out=first[1:])
    return first, order[columns].astype(np.int64)


def tile_lists(
    corners: np.ndarray, intrinsics: np.ndarray, cam2global: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actors per image tile, nearest first: first (G + 1,), items, and the rectangles (A, 4) they come from."""
    rows, columns = -(-size[0] // TILE), -(-size[1] // TILE)
    rectangles = image_rectangles(corners, intrinsics, cam2global, size)
    r0, r1, c0, c1 = rectangles.T  # empty ones begin and end at 0
    row, column = np.arange(rows)[:, None] * TILE, np.arange(columns)[:, None] * TILE
    member = ((row > r0 - TILE) & (row < r1))[:, None] & ((column > c0 - TILE) & (column < c1))[None]
    first, items = _compress(member.reshape(rows * columns, -1), _near_first(corners, cam2global))
    return first, items, rectangles


def sector_lists(corners: np.ndarray, sensor2global: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Actors per azimuth sector of the sensor frame (sector s covers -pi + [s, s + 1) 2 pi / SECTORS), nearest first: first, items."""
    g2s = invert(sensor2global)
    points = (corners @ g2s[:3, :3].T + g2s[:3, 3])[..., :2]
    middle = points.mean(1)
    angle = np.arctan2(points[..., 1], points[..., 0])
    centre = np.arctan2(middle[:, 1], middle[:, 0])
    spread = (angle - centre[:, None] + np.pi) % (2 * np.pi) - np.pi
    low, high = spread.min(1), spread.max(1)
    # Seen from within its footprint (or nearly so) a box can lie anywhere.
    radius = np.linalg.norm(points - middle[:, None], axis=-1).max(1)
    distance = np.linalg.norm(middle, axis=-1)
    everywhere = (high - low > 0.9 * np.pi) | (distance < radius)
    width = 2 * np.pi / SECTORS
    start = np.floor((centre + low + np.pi) / width - 1e-6).astype(int)
    stop = np.floor((centre + high + np.pi) / width + 1e-6).astype(int)
    after = (np.arange(SECTORS)[:, None] - start) % SECTORS  # sectors after the first one of each box
    member = (everywhere | (after <= stop - start)) & (distance - radius < reach)
    return _compress(member, _near_first(corners, sensor2global))


def _near_first(corners: np.ndarray, sensor2global: np.ndarray) -> np.ndarray:
    return np.argsort(np.linalg.norm(corners.mean(1) - sensor2global[:3, 3], axis=-1), kind="stable")


@lru_cache(maxsize=16)
def _pixel_table(key: bytes, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    k = np.frombuffer(key, np.float64).reshape(3, 3)
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    table = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(k).T
    table /= table[..., 2:]
    tile = (np.arange(height) // TILE)[:, None] * (-(-width // TILE)) + (np.arange(width) // TILE)[None]
    return np.ascontiguousarray(table.reshape(-1, 3), np.float32), tile.astype(np.int32).ravel()


def pixel_table(intrinsics: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ray directions (H W, 3) float32 in the camera frame with unit depth, through pixel centres, and the tile (H W,) of each pixel."""
    return _pixel_table(np.ascontiguousarray(intrinsics, np.float64).tobytes(), int(size[0]), int(size[1]))


def sector_of(table: np.ndarray) -> np.ndarray:
    """Azimuth sector (N,) int32 of directions (N, 3) in the sensor frame."""
    angle = np.arctan2(table[:, 1].astype(np.float64), table[:, 0].astype(np.float64))
    return np.clip(np.floor((angle + np.pi) * SECTORS / (2 * np.pi)), 0, SECTORS - 1).astype(np.int32)
