"""Ray casting equals the reference kernel bit for bit, on both backends, and keeps what any ray caster must keep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import DataError, ShapeError
from frustum.ops.raycast import raycast

GOLDEN = Path(__file__).parents[1] / "data" / "metrics"
BACKENDS = ["numba", "torch"]
HAND = json.loads((GOLDEN / "raycast_hand.json").read_text())["cases"]


def random_volumes(rng, num=2, shape=(12, 9, 5), share=0.1):
    volumes = np.full((num, *shape), 17, np.uint8)
    occupied = rng.random(volumes.shape) < share
    volumes[occupied] = rng.integers(0, 17, occupied.sum())
    return volumes


def random_rays(rng, shape=(12, 9, 5), num_origins=3, num_rays=40):
    origins = rng.uniform(-2, 1, (num_origins, 3)) + rng.uniform(0, 1, (num_origins, 3)) * shape
    directions = rng.normal(size=(num_origins, num_rays, 3))
    directions[:, :6] = np.sign(directions[:, :6]).round()  # exact diagonals: ties
    directions[:, 6:9] = np.eye(3) * rng.choice([-1, 1])
    return origins.astype(np.float32), (origins[:, None] + directions).astype(np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", HAND, ids=[c["name"] for c in HAND])
def test_hand_derived_cases(case, backend):
    volume = np.full(case["shape"], 17, np.uint8)
    for x, y, z, label in case["occupied"]:
        volume[x, y, z] = label
    hits = raycast(volume[None], np.array([case["origin"]]), np.array([[case["end"]]]), backend=backend)
    assert hits.distances[0, 0, 0] == np.float32(case["expected_dist_f32"])
    assert hits.coords[0, 0, 0].tolist() == case["expected_coord"]
    assert hits.labels[0, 0, 0] == case["expected_label"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", range(6))
def test_random_rays_equal_the_reference_kernel_bit_for_bit(k, backend):
    with np.load(GOLDEN / "raycast_random.npz") as golden:
        volume, origins, ends = golden[f"vol{k}"], golden[f"origin{k}"], golden[f"end{k}"]
        distances, coords = golden[f"dist{k}"], golden[f"coord{k}"]
    hits = raycast(volume[None], origins, ends, backend=backend)
    np.testing.assert_array_equal(hits.distances[0], distances)
    np.testing.assert_array_equal(hits.coords[0], coords)
    np.testing.assert_array_equal(hits.labels[0], volume[tuple(np.moveaxis(coords.astype(int), -1, 0))])
    assert (hits.labels.dtype, hits.distances.dtype, hits.coords.dtype) == (np.uint8, np.float32, np.int16)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 8))
def test_backends_agree_and_volumes_are_independent(seed, num):
    rng = np.random.default_rng(seed)
    volumes = random_volumes(rng, num)
    origins, ends = random_rays(rng)
    together = raycast(volumes, origins, ends, backend="numba")
    lockstep = raycast(volumes, origins, ends, backend="torch")
    for a, b in zip(together, lockstep, strict=True):
        np.testing.assert_array_equal(a, b)
    for v in range(num):
        alone = raycast(volumes[v : v + 1], origins, ends)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a[0], b[v])


def test_against_dense_sampling_along_the_ray():
    """Away from ties the first occupied cell is the one that fine steps along the ray meet first."""
    rng = np.random.default_rng(4)
    volumes = random_volumes(rng, 1, (30, 30, 10), 0.02)
    origin = np.array([[15.3, 14.6, 5.2]], np.float32)
    volumes[0, 15, 14, 5] = 17
    directions = rng.normal(size=(300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ends = (origin + directions).astype(np.float32)
    hits = raycast(volumes, origin, ends)
    steps = np.arange(0, 60, 1e-3)
    agreed = 0
    for ray in range(300):
        direction = (ends[ray] - origin[0]).astype(np.float64)
        points = origin[0] + steps[:, None] * direction / np.linalg.norm(direction)
        cells = np.floor(points).astype(int)
        cells = cells[((cells >= 0) & (cells < (30, 30, 10))).all(1)]
        labels = volumes[0][tuple(cells.T)]
        first = cells[np.argmax(labels != 17)] if (labels != 17).any() else cells[-1]
        agreed += (hits.coords[0, 0, ray] == first).all()
    assert agreed >= 297  # a step may jump over a clipped corner


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads):
    rng = np.random.default_rng(1)
    volumes, (origins, ends) = random_volumes(rng), random_rays(rng)
    one, many = raycast(volumes, origins, ends), raycast(volumes, origins, ends, threads=threads)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_returns_the_kind_of_array_it_was_given():
    rng = np.random.default_rng(2)
    volumes, (origins, ends) = random_volumes(rng), random_rays(rng)
    from_numpy = raycast(volumes, origins, ends)
    from_torch = raycast(torch.from_numpy(volumes), torch.from_numpy(origins), torch.from_numpy(ends))
    assert isinstance(from_numpy.labels, np.ndarray)
    assert isinstance(from_torch.labels, torch.Tensor)
    np.testing.assert_array_equal(from_torch.distances.numpy(), from_numpy.distances)


def test_shared_end_points_and_another_free_id():
    volume = np.zeros((1, 5, 5, 5), np.uint8)
    volume[0, 4, 2, 2] = 17
    origins = np.array([[0.5, 2.5, 2.5], [1.5, 2.5, 2.5]])
    hits = raycast(volume, origins, np.array([[5.0, 2.5, 2.5]]), free=0)
    assert hits.labels.shape == (1, 2, 1)
    assert hits.labels.ravel().tolist() == [17, 17]
    assert hits.distances.ravel().tolist() == [4.5, 3.5]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ray_without_direction_goes_nowhere(backend):
    volume = np.full((1, 3, 3, 3), 17, np.uint8)
    hits = raycast(volume, np.array([[1.5, 1.5, 1.5]]), np.array([[1.5, 1.5, 1.5]]), backend=backend)
    assert hits.distances.item() == -1
    assert hits.coords.ravel().tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("volumes", "origins", "ends", "error"),
    [
        (np.zeros((4, 4, 4), np.uint8), np.zeros((1, 3)), np.ones((1, 3)), ShapeError),
        (np.zeros((9, 4, 4, 4), np.uint8), np.zeros((1, 3)), np.ones((1, 3)), ShapeError),
        (np.zeros((1, 4, 4, 4), np.int64), np.zeros((1, 3)), np.ones((1, 3)), DataError),
        (np.zeros((1, 4, 4, 4), np.uint8), np.zeros(3), np.ones((1, 3)), ShapeError),
        (np.zeros((1, 4, 4, 4), np.uint8), np.zeros((2, 3)), np.ones((3, 5, 3)), ShapeError),
        (np.zeros((1, 4, 4, 4), np.uint8), np.full((1, 3), np.nan), np.ones((1, 3)), DataError),
    ],
)
def test_bad_input_is_named(volumes, origins, ends, error):
    with pytest.raises(error):
        raycast(volumes, origins, ends)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    rng = np.random.default_rng(3)
    volumes, (origins, ends) = random_volumes(rng), random_rays(rng)
    on_gpu = raycast(torch.from_numpy(volumes).cuda(), origins, ends)
    assert on_gpu.labels.is_cuda
    for a, b in zip(raycast(volumes, origins, ends), on_gpu, strict=True):
        np.testing.assert_array_equal(a, b.cpu().numpy())
