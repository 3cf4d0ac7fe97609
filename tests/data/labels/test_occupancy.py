"""Occupancy labels: read, moved, joined, counted; plain arrays are checked."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth, class_counts, occupancy_of
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.source import labelled
from frustum.errors import DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.tasks.blind_prior import BlindPrior
from frustum.types.classes import IGNORE, OCC3D_CLASSES
from frustum.types.contract import Shapes
from tests.data.toy import VERSION, random_labels

LABELS = OccupancyLabels(VoxelGrid.occ3d())
PANOPTIC = replace(LABELS, instances=True)
STILL = Draw((), BevTransform(), (9, 16))
FLIPPED = replace(STILL, bev=BevTransform(flip_y=True))


@pytest.fixture(scope="module")
def reader(toy_root: Path) -> NuScenes:
    return NuScenes(toy_root, VERSION)


@pytest.mark.parametrize("draw", [STILL, FLIPPED])
@pytest.mark.parametrize("label", [LABELS, PANOPTIC])
def test_what_is_read_is_packed_and_comes_back_moved(reader: NuScenes, label: OccupancyLabels, draw: Draw) -> None:
    expected = draw.bev.labels(random_labels(1), label.grid)
    found = label.read(reader, reader.tokens("train")[1])
    assert found is not None
    assert [mask.nbytes for mask in found.masks] == [label.grid.num_cells // 8] * 2
    truth = label.collate([label.apply(found, draw)])
    assert truth is not None
    np.testing.assert_array_equal(truth.semantics[0].numpy(), expected.semantics)
    np.testing.assert_array_equal(truth.mask_lidar[0].numpy(), expected.mask_lidar > 0)
    np.testing.assert_array_equal(truth.mask_camera[0].numpy(), expected.mask_camera > 0)
    assert (truth.semantics.dtype, truth.mask_camera.dtype, truth.mask_lidar.dtype) == (torch.uint8, torch.bool, torch.bool)
    assert (truth.instances is not None) == label.instances
    if truth.instances is not None:
        np.testing.assert_array_equal(truth.instances[0].numpy(), expected.instances)


def test_batches_with_gaps(reader: NuScenes) -> None:
    train, val = reader.tokens("train")[0], reader.tokens("val")[0]
    assert PANOPTIC.read(reader, val) is None  # the last scene has no labels
    moved = PANOPTIC.apply(PANOPTIC.read(reader, train), STILL)
    truth = PANOPTIC.collate([None, moved])
    assert truth is not None
    assert truth.instances is not None
    assert (truth.semantics[0] == IGNORE).all()
    assert not (truth.mask_camera[0] | truth.mask_lidar[0] | (truth.instances[0] > 0)).any()
    np.testing.assert_array_equal(truth.semantics[1].numpy(), moved.semantics)
    without = PANOPTIC.collate([moved, replace(moved, instances=None)])
    assert without is not None
    assert without.instances is None
    assert PANOPTIC.collate([None, None]) is None


def test_statistics_equal_a_plain_count(reader: NuScenes) -> None:
    counts = LABELS.statistics(reader, reader.tokens("train")[:2])["counts"]
    expected = np.zeros((16, 18), np.int64)
    for labels in (random_labels(0), random_labels(1)):
        for z in range(16):
            for k in range(18):
                expected[z, k] += ((labels.semantics[:, :, z] == k) & (labels.mask_camera[:, :, z] > 0)).sum()
    np.testing.assert_array_equal(counts, expected)


def test_ignored_voxels_count_for_no_class() -> None:
    semantics = np.array([[[0, IGNORE], [1, 1]]], np.uint8)
    assert class_counts(semantics, np.array([[[True, True], [False, True]]]), 2).tolist() == [[1, 0], [0, 1]]


def test_missing_labels_and_another_grid_are_explained(reader: NuScenes) -> None:
    train, val = reader.tokens("train"), reader.tokens("val")
    assert len(list(occupancy_of(reader, train))) == len(train)
    with pytest.raises(DataError, match=f"sample {val[0]} has no occupancy labels; the data set needs a gts folder"):
        LABELS.statistics(reader, [train[0], val[0]])
    small = OccupancyLabels(VoxelGrid(lower=(-8, -8, -1), upper=(8, 8, 5.4), cell=(0.4, 0.4, 0.4)))
    for use in (lambda: small.read(reader, train[0]), lambda: small.statistics(reader, train[:1])):
        with pytest.raises(
            DataError, match=r"shape \(200, 200, 16\), but the recipe's grid has \(40, 40, 16\) cells. Set the recipe's grid"
        ):
            use()


def test_the_example_is_as_declared() -> None:
    grid = VoxelGrid(lower=(-4, -4, -1), upper=(4, 4, 2.2), cell=(0.8, 0.8, 0.8))
    truth = OccupancyLabels(grid).example(np.random.default_rng(0), Shapes(2, 6, (8, 8)))
    for name in ("semantics", "mask_camera", "mask_lidar"):
        assert getattr(truth, name).shape == (2, *grid.shape)
    assert set(truth.semantics.unique().tolist()) == set(range(len(OCC3D_CLASSES)))


# ---- plain arrays -----------------------------------------------------------------------------------------------------------


def test_plain_arrays_become_truth() -> None:
    rng = np.random.default_rng(0)
    semantics, camera = rng.integers(0, 18, (2, 5, 6, 2)), rng.integers(0, 2, (2, 5, 6, 2))
    truth = OccupancyTruth.from_arrays(semantics, camera)
    assert (truth.semantics.dtype, truth.mask_camera.dtype, truth.mask_lidar.dtype) == (torch.uint8, torch.bool, torch.bool)
    np.testing.assert_array_equal(truth.semantics.numpy(), semantics)
    np.testing.assert_array_equal(truth.mask_camera.numpy(), camera > 0)
    assert truth.mask_lidar.all()
    one = OccupancyTruth.from_arrays(semantics[0, ::-1], camera[0], torch.zeros(5, 6, 2, dtype=torch.bool))
    np.testing.assert_array_equal(one.semantics.numpy(), semantics[:1, ::-1])
    assert not one.mask_lidar.any()
    shared = OccupancyTruth.from_arrays(semantics, camera[0])
    np.testing.assert_array_equal(shared.mask_camera.numpy(), np.stack([camera[0]] * 2) > 0)


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("semantics", np.zeros((6, 2), np.uint8), ShapeError, r"semantics must have shape \(X, Y, Z\) or \(B, X, Y, Z\), got \(6, 2\)"),
        ("mask_camera", np.zeros((2, 5, 6, 3), np.uint8), ShapeError, r"mask_camera has \(2, 5, 6, 3\) voxels, but semantics"),
        ("mask_camera", np.zeros((3, 5, 6, 2), np.uint8), ShapeError, "mask_camera has"),
        ("mask_lidar", np.zeros(5, np.uint8), ShapeError, "mask_lidar must have shape"),
        ("semantics", np.full((5, 6, 2), 256), DataError, "ids from 0 to 255"),
        ("semantics", np.full((5, 6, 2), -1), DataError, "ids from 0 to 255"),
        ("semantics", np.zeros((5, 6, 2), np.float32), DataError, "integer class ids"),
        ("semantics", np.full((5, 6, 2), np.nan), DataError, "semantics holds NaN or infinity"),
        ("mask_camera", np.full((5, 6, 2), np.inf), DataError, "mask_camera holds NaN or infinity"),
        ("mask_lidar", np.full((5, 6, 2), 2), DataError, "mask_lidar must hold 0 and 1"),
        ("mask_camera", [["a"]], DataError, "mask_camera cannot be read"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_named(name: str, value: object, error: type[Exception], text: str) -> None:
    given = {"semantics": np.zeros((2, 5, 6, 2), np.uint8), "mask_camera": np.ones((2, 5, 6, 2), bool), "mask_lidar": None}
    with pytest.raises(error, match=text):
        OccupancyTruth.from_arrays(**{**given, name: value})  # type: ignore[arg-type]


def test_hidden_labels_are_not_read_nor_counted(street_root: Path) -> None:
    """`data.labelled_share`: of two training scenes one keeps its labels; those of validation stay."""
    half = NuScenesData(root=str(street_root), labelled_share=0.5).open()
    every = NuScenes(street_root)
    tokens, shown = every.tokens("train"), labelled(half, every.tokens("train"))
    assert shown == next(list(scene.tokens) for scene in every.scenes if scene.name == half.labelled[0])
    assert labelled(half, half.tokens("val")) == every.tokens("val")
    for token in tokens:  # a batch of one has labels, too, of which none counts
        read = LABELS.read(half, token)
        assert read is not None
        assert bool((read.semantics != IGNORE).any()) == any(mask.any() for mask in read.masks) == (token in shown)
    counts = [LABELS.statistics(source, some)["counts"] for source, some in ((half, tokens), (every, shown))]
    np.testing.assert_array_equal(*counts)
    data = NuScenesData(root=str(street_root), labelled_share=0.5, labelled_only=True)
    assert data.training_tokens(half, 0) == shown
    twice = data.model_copy(update={"labelled_only": False, "labelled_repeat": 2})
    assert sorted(twice.training_tokens(half, 0)) == sorted([*tokens, *shown])
    assert twice.model_copy(update={"labelled_share": 1.0}).training_tokens(every, 0) == tokens, "all have labels: none is repeated"
    with pytest.raises(ValidationError, match=r"of which there are none: set labelled_share below 1"):
        NuScenesData(labelled_repeat=2)
    LABELS.require(half, tokens[::-1])
    assert LABELS.described(every, tokens, {}) == "3D labels (class of each voxel)"
    panoptic = OccupancyLabels(LABELS.grid, instances=True)
    text = "3D labels of 3 of 6 keyframes, hidden in the others by data.labelled_share (class and instance of each voxel)"
    assert panoptic.described(half, tokens, {}) == text
    prior = BlindPrior.fit(half, "train", LABELS.grid, OCC3D_CLASSES)
    assert prior.answer(tokens[0]).occupancy is not None


def test_shares_of_scenes_are_nested_and_seeded(reader: NuScenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NuScenes, "tokens", lambda self, split: [f"{i}" for i in range(40)])
    monkeypatch.setattr(NuScenes, "scene", lambda self, token: SimpleNamespace(name=f"scene-{token}"))
    source = copy(reader)

    def kept(share: float, seed: int) -> set[str]:
        source.hide_labels("train", share, seed)
        return set(source.labelled)

    shares = (0.02, 0.1, 0.5, 1.0)
    drawn = {seed: [kept(share, seed) for share in shares] for seed in range(3)}
    for sets in drawn.values():
        assert [len(found) for found in sets] == [1, 4, 20, 40]
        assert all(small < large for small, large in pairwise(sets))
    assert len({frozenset(sets[1]) for sets in drawn.values()}) == 3
    assert kept(0.1, 1) == drawn[1][1], "the same draw again"
    with pytest.raises(DataError, match=r"labelled_share=0.01 of the 40 scenes .* leaves none.*labelled_share=0.025 or more"):
        source.hide_labels("train", 0.01)
    monkeypatch.setattr(NuScenes, "scene", lambda self, token: SimpleNamespace(name="drive"))  # one long scene
    source.hide_labels("train", 0.1, by="keyframe")
    assert len(source.labelled) == 4
    assert [token for token in source.tokens("train") if not source.hides_labels(token)] == sorted(source.labelled, key=int)
    with pytest.raises(DataError, match=r"0.1 of the 1 scenes .*Leave data\.labelled_share=1, or set data\.labelled_by=keyframe\."):
        source.hide_labels("train", 0.1)
