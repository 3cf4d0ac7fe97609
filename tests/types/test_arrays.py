"""Batch.from_arrays: what it accepts, and that every complaint names the argument. Arrays of labels: tests/data/labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth
from frustum.errors import DataError, ShapeError
from frustum.geometry import pose, rotation_z
from frustum.types.arrays import ArrayReader
from frustum.types.batch import Batch

B, T, N, H, W = 2, 3, 4, 8, 12
RNG = np.random.default_rng(0)


def arguments(**changes: object) -> dict[str, object]:
    """Everything that from_arrays takes, in full shape."""
    turn = np.broadcast_to(pose(rotation_z(0.3), np.array([1.0, 2, 3])), (B, T, N, 4, 4))
    given = {
        "images": RNG.standard_normal((B, T, N, 3, H, W)),
        "intrinsics": np.broadcast_to(np.array([[10.0, 0, 6], [0, 10, 4], [0, 0, 1]]), (B, T, N, 3, 3)),
        "cam2ego": turn,
        "ego2global": turn,
        "image_aug": np.broadcast_to(np.diag([0.5, 0.5, 1.0]), (B, T, N, 3, 3)),
        "bev_aug": np.broadcast_to(np.diag([-1.0, 1, 1]), (B, 3, 3)),
        "key_ego2global": turn[:, 0, 0],
        "labels": {
            OccupancyLabels: OccupancyTruth.from_arrays(RNG.integers(0, 18, (B, 5, 6, 2)), RNG.integers(0, 2, (B, 5, 6, 2))),
            DepthLabels: torch.rand(B, N, H, W),
        },
        "tokens": ["a", "b"],
    }
    return {**given, **changes}


def test_float64_images_become_float32_and_calibration_float64() -> None:
    batch = Batch.from_arrays(**arguments())  # type: ignore[arg-type]
    assert batch.images.dtype == torch.float32
    assert batch.images.shape == (B, T, N, 3, H, W)
    assert {m.dtype for m in (batch.rig.intrinsics, batch.rig.image_aug, batch.key_ego2global, batch.bev_aug)} == {torch.float64}
    assert batch.rig.cam2ego.shape == (B, T, N, 4, 4)
    assert batch.bev_aug[0].diagonal().tolist() == [-1, 1, 1, 1]
    truth, depth = batch.need(OccupancyLabels), batch.need(DepthLabels)
    assert (truth.semantics.dtype, truth.mask_camera.dtype, depth.dtype) == (torch.uint8, torch.bool, torch.float32)
    assert Batch.from_arrays(**arguments(images=torch.zeros(B, T, N, 3, H, W, dtype=torch.float16))).images.dtype == torch.float32  # type: ignore[arg-type]


def test_leading_dimensions_broadcast() -> None:
    full = Batch.from_arrays(**arguments())  # type: ignore[arg-type]
    short = arguments()
    for name in ("intrinsics", "cam2ego", "ego2global", "image_aug"):
        short[name] = short[name][0, 0]  # type: ignore[index]
    for name in ("bev_aug", "key_ego2global"):
        short[name] = short[name][0]  # type: ignore[index]
    batch = Batch.from_arrays(**{**short, "images": full.images})  # type: ignore[arg-type]
    for name in ("intrinsics", "cam2ego", "ego2global", "image_aug"):
        assert torch.equal(getattr(batch.rig, name), getattr(full.rig, name)), name
    assert torch.equal(batch.bev_aug, full.bev_aug)
    one = Batch.from_arrays(np.zeros((N, 3, H, W)), short["intrinsics"], short["cam2ego"])  # type: ignore[arg-type]
    assert one.images.shape == (1, 1, N, 3, H, W)
    assert one.tokens == ["sample-0"]


def test_a_mirrored_view_of_an_array_works() -> None:
    images = RNG.standard_normal((N, 3, H, W)).astype(np.float32)
    given = arguments()
    batch = Batch.from_arrays(images[:, ::-1], given["intrinsics"][0, 0], given["cam2ego"][0, 0])  # type: ignore[index]
    np.testing.assert_array_equal(batch.images[0, 0, :, 0].numpy(), images[:, 2])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("images", (3, H, W)), ("images", (B, T, N, 4, H, W)), ("images", (0, 3, H, W)),
        ("intrinsics", (B + 1, T, N, 3, 3)), ("intrinsics", (N, 4, 4)), ("cam2ego", (3, N, 4, 4)), ("cam2ego", (B, T, N + 1, 4, 4)),
        ("ego2global", (4, 4)), ("image_aug", (B, T + 1, N, 3, 3)), ("bev_aug", (B + 1, 3, 3)), ("bev_aug", (2, 2)),
        ("bev_aug", (1, B, 3, 3)), ("key_ego2global", (3, 3)), ("key_ego2global", (B + 1, 4, 4)),
    ],
)  # fmt: skip
def test_wrong_shapes_are_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=name):
        Batch.from_arrays(**arguments(**{name: np.zeros(shape)}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "labels",
    [
        {OccupancyLabels: OccupancyTruth.from_arrays(np.zeros((B + 1, 5, 6, 2), np.uint8), np.ones((B + 1, 5, 6, 2), bool))},
        {DepthLabels: torch.zeros(B + 1, N, H, W)},
    ],
)
def test_labels_of_other_samples_are_named(labels: dict) -> None:
    with pytest.raises(ShapeError, match=r"the labels (Occupancy|Depth)Labels are of 3 samples, but the batch has 2\."):
        Batch.from_arrays(**arguments(labels=labels))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["images", "intrinsics", "cam2ego", "ego2global", "image_aug", "bev_aug", "key_ego2global"])
def test_values_that_are_not_finite_are_named(name: str, bad: float) -> None:
    value = np.array(arguments()[name], np.float64)
    value.flat[-1] = bad
    with pytest.raises(DataError, match=f"{name} holds NaN or infinity"):
        Batch.from_arrays(**arguments(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("images", np.zeros((N, 3, H, W), np.uint8), "must be float"),
        ("images", [["a"]], "images cannot be read"),
        ("image_aug", np.tile(np.array([[0.5, 0, 0], [0, 0.5, 0], [0, -140, 1.0]]), (N, 1, 1)), r"image_aug must be \(0, 0, 1\)"),
        ("cam2ego", np.tile(pose(np.eye(3), np.ones(3)).T, (N, 1, 1)), r"cam2ego must be \(0, 0, 0, 1\)"),
        ("intrinsics", np.tile(np.diag([0.0, 10, 1]), (N, 1, 1)), "intrinsics cannot be right at camera 0"),
        ("bev_aug", np.diag([1.0, 0, 1]), "bev_aug is singular"),
        ("bev_aug", 2 * np.eye(4), r"bev_aug must be \(0, 0, 0, 1\)"),
        ("key_ego2global", np.diag([2.0, 1, 1, 1]), "key_ego2global cannot be right: it is not a rigid"),
        ("bev_aug", np.eye(3) + 0j, "bev_aug must be real"),
    ],
)
def test_wrong_values_are_named(name: str, value: object, text: str) -> None:
    with pytest.raises(DataError, match=text):
        Batch.from_arrays(**arguments(**{name: value}))  # type: ignore[arg-type]


def test_tokens_name_every_sample() -> None:
    with pytest.raises(ShapeError, match="2 samples"):
        Batch.from_arrays(**arguments(tokens=["a"]))  # type: ignore[arg-type]


def test_labels_follow_the_images_and_geometry_stays_on_the_cpu() -> None:
    batch = Batch.from_arrays(**arguments())  # type: ignore[arg-type]
    moved = batch.to("meta")
    truth = moved.need(OccupancyLabels)
    for tensor in (moved.images, truth.semantics, truth.mask_camera, truth.mask_lidar, moved.need(DepthLabels)):
        assert tensor.device.type == "meta"
    assert moved.rig is batch.rig
    assert moved.bev_aug is batch.bev_aug
    assert moved.key_ego2global is batch.key_ego2global


def test_timestamps_and_scenes():
    reader = ArrayReader((2, 3, 4))
    assert reader.times([3.0, 2.0, 1.0]).shape == (2, 3, 4)
    times = reader.times(np.array([[3.0, 2, 1], [6, 5, 4]]))
    assert times.dtype == torch.float64
    assert times[1, :, 2].tolist() == [6, 5, 4]
    for wrong in ([1.0, 2.0], np.zeros((3, 3)), np.zeros((2, 3, 4)), [1.0]):
        with pytest.raises(ShapeError, match=r"timestamps must have shape \(3,\) or \(B, 3\) with B = 2"):
            reader.times(wrong)
    with pytest.raises(DataError, match="timestamps holds NaN"):
        reader.times([1.0, float("nan"), 0.0])
