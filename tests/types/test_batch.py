"""Batch: its labels by kind, cut into samples, moved to a device, and batches of single images."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch

from frustum.data.labels.boxes import BoxLabels, TrueBoxes
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.errors import DataError, FrustumWarning, ShapeError
from frustum.geometry import VoxelGrid, pose, rotation_z
from frustum.types.batch import Batch
from frustum.types.contract import Label, Shapes
from frustum.types.predictions import Objects, PredictedBoxes, PredictedOccupancy, Prediction
from frustum.types.tensors import count_samples

B, T, N, H, W = 3, 2, 4, 8, 12
GRID = VoxelGrid(lower=(-2, -2, 0), upper=(2, 2, 2), cell=(1, 1, 1))
KINDS: tuple[Label, ...] = (OccupancyLabels(GRID), BoxLabels(), DepthLabels())


def made(count: int = B) -> Batch:
    """A batch with labels of every kind, in which no two samples are alike."""
    rng = np.random.default_rng(0)
    turns = np.stack([pose(rotation_z(0.1 * i), np.array([i, 0.0, 0])) for i in range(count)])
    return Batch.from_arrays(
        rng.standard_normal((count, T, N, 3, H, W)),
        np.array([[10.0, 0, 6], [0, 10, 4], [0, 0, 1]])[None].repeat(N, 0),
        np.tile(np.eye(4), (N, 1, 1)),
        np.tile(turns[:, None, None], (1, T, N, 1, 1)),
        bev_aug=turns,
        labels={type(kind): kind.example(rng, Shapes(count, N, (H, W))) for kind in KINDS},
        scenes=[f"scene-{i}" for i in range(count)],
    )


def test_labels_are_found_by_their_kind_or_missed_in_words() -> None:
    batch = made()
    assert batch.need(OccupancyLabels).semantics.shape == (B, *GRID.shape)
    assert isinstance(batch.need(BoxLabels), TrueBoxes)
    bare = Batch.of_images(torch.zeros(1, 3, H, W))
    with pytest.raises(DataError) as error:
        bare.need(BoxLabels)
    assert str(error.value) == (
        "this network's loss needs boxes in the batch, but there are none. Use a data set with annotations, or "
        "Batch.from_arrays(..., labels={BoxLabels: ...})."
    )

    class Silent(DepthLabels):
        what, advice = "silence", ""

    with pytest.raises(DataError, match=r"needs silence in the batch, but there are none\.$"):
        bare.need(Silent)


@pytest.mark.parametrize("samples", [slice(1, 2), slice(0, 2), slice(None)])
def test_samples_of_a_batch_are_a_batch(samples: slice) -> None:
    whole = made()
    some, numbers = whole[samples], range(B)[samples]
    assert len(some) == len(numbers)
    for name in ("images", "key_ego2global", "bev_aug"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[samples]), name
    assert torch.equal(some.rig.ego2global, whole.rig.ego2global[samples])
    assert (some.tokens, some.scenes) == ([f"sample-{i}" for i in numbers], [f"scene-{i}" for i in numbers])
    assert (some.frame_ego2global, some.is_present, some.has_poses) == (None, None, True)
    for name in ("semantics", "mask_camera", "mask_lidar"):
        assert torch.equal(getattr(some.need(OccupancyLabels), name), getattr(whole.need(OccupancyLabels), name)[samples])
    assert torch.equal(some.need(DepthLabels), whole.need(DepthLabels)[samples])
    for name in ("boxes", "classes"):
        cut, all_of_them = getattr(some.need(BoxLabels), name), getattr(whole.need(BoxLabels), name)
        assert all(a is b for a, b in zip(cut, all_of_them[samples], strict=True))


def test_labels_are_added_on_the_device_of_the_images() -> None:
    batch, other = made(), made()
    moved = batch.to("meta").with_labels({DepthLabels: other.need(DepthLabels), BoxLabels: other.need(BoxLabels)})
    assert moved.need(DepthLabels).device.type == "meta"
    assert {tensor.device.type for tensor in (*moved.need(BoxLabels).boxes, *moved.need(BoxLabels).classes)} == {"meta"}
    assert set(moved.labels) == {OccupancyLabels, BoxLabels, DepthLabels}
    assert batch.need(DepthLabels).device.type == "cpu"
    for kind in KINDS:
        with pytest.raises(ShapeError, match=rf"the labels {type(kind).__name__} are of 2 samples, but the batch has 3\."):
            batch.with_labels({type(kind): made(2).need(type(kind))})


def test_single_images_have_no_rig() -> None:
    images = torch.rand(2, 3, H, W)
    batch = Batch.of_images(images, ["a", "b"])
    assert torch.equal(batch.images[:, 0, 0], images)
    assert (len(batch), batch.tokens, batch.has_poses, batch.calibration) == (2, ["a", "b"], False, None)
    assert torch.equal(batch.bev_aug, torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    with pytest.raises(DataError, match=r"needs calibrated cameras, but the data set holds single images\. Choose another"):
        batch.rig  # noqa: B018
    assert (batch[1:].tokens, batch[1:].calibration) == (["b"], None)
    assert batch.to("meta").images.device.type == "meta"
    assert Batch.of_images(images).tokens == ["sample-0", "sample-1"]


def test_samples_are_counted_by_the_first_thing_that_is_one_per_sample() -> None:
    @dataclass(frozen=True)
    class Nested:
        name: str
        boxes: TrueBoxes

    assert count_samples(Nested("x", TrueBoxes([torch.ones(5, 9)], [torch.zeros(5)]))) == 1
    assert count_samples(torch.zeros(4, 2)) == 4
    assert count_samples("abc") is None


def test_predictions_go_to_the_cpu_with_all_their_parts() -> None:
    semantics = torch.zeros(GRID.shape, dtype=torch.uint8)
    objects = Objects(torch.tensor([7]), torch.tensor([1]), torch.zeros(1, 3), torch.ones(1))
    occupancy = PredictedOccupancy(semantics, GRID, ("thing", "free"), semantics.int(), objects)
    prediction = Prediction("a", occupancy, PredictedBoxes(torch.zeros(2, 9), torch.zeros(2).long(), torch.ones(2), ("car",)))
    there = prediction.cpu()
    assert (there.token, there.bev_map, there.segmentation) == ("a", None, None)
    assert there.occupancy is not None
    assert (there.occupancy.grid, there.occupancy.class_names) == (GRID, ("thing", "free"))
    assert there.occupancy.objects is not None
    for part in fields(Objects):
        assert torch.equal(getattr(there.occupancy.objects, part.name), getattr(objects, part.name))
    assert isinstance(there.boxes, PredictedBoxes)
    assert there.boxes.class_names == ("car",)


def test_arrays_in_other_units_are_questioned() -> None:
    images, intrinsics = np.zeros((1, 3, 32, 48), np.float32), np.array([[[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]])
    metres = pose(rotation_z(0.3), np.array([1.5, 0.0, 1.6]))[None]
    with pytest.warns(FrustumWarning, match=r"2,193.2 m away .* millimetres, multiply them by 0.001 \(2.19 m\)"):
        Batch.from_arrays(images, intrinsics, pose(rotation_z(0.3), np.array([1500.0, 0, 1600]))[None])
    with pytest.raises(DataError, match="fx is -40 pixels"):
        Batch.from_arrays(images, intrinsics * [[-1], [1], [1]], metres)
