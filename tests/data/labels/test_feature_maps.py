"""A teacher's features: of the true classes of pixels, and in a folder that knows whose they are and of which photographs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.feature_maps import EXACT_FEATURES, TeacherMaps, class_vectors, read_features, write_features
from frustum.data.labels.view_points import truth_images
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import CameraFrame
from frustum.errors import DataError
from frustum.files import write_json

ABOUT = {"teacher": "resnet50", "features": 5, "origin": "ResNet-50", "image_size": [64, 96]}


def teach(cameras: list[CameraFrame]) -> np.ndarray:
    return np.random.default_rng(len(cameras)).standard_normal((len(cameras), 5, 3, 4))


@pytest.fixture
def world(other_root: Path, tmp_path: Path) -> NuScenes:
    """A copy that may be changed, with truth images."""
    return NuScenes(shutil.copytree(other_root, tmp_path / "world"))


def test_exact_features_are_the_mean_vectors_of_classes(world: NuScenes) -> None:
    token = world.tokens("train")[0]
    maps = TeacherMaps().read(world, token)
    camera = world.sample(token, with_boxes=False, occupancy=False).cameras[2]
    assert maps.shape == (6, EXACT_FEATURES, 2, 6)  # parts of 32 pixels of 64 x 176
    path = truth_images(camera)[1]
    ids = np.asarray(Image.open(path))[2::4, 2::4]
    part = class_vectors()[ids[8:, : 44 // 6]].mean((0, 1))  # the second row, the first column
    np.testing.assert_allclose(maps[2, :, 1, 0], part, atol=2e-3)
    Image.fromarray(np.full((64, 176), 7, np.uint8)).save(path)
    maps = TeacherMaps().read(world, token)
    np.testing.assert_allclose(maps[2], np.broadcast_to(class_vectors()[7][:, None, None], maps[2].shape), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(class_vectors(), axis=1), 1, atol=1e-6)
    assert TeacherMaps().described(world, [token], {}) == "fixed vectors of the true classes of pixels"


def test_a_world_without_truth_images_is_refused(street_root: Path) -> None:
    source = NuScenes(street_root)
    with pytest.raises(DataError, match=r'exact teacher needs a street world with classes of pixels: frustum data world OUT .*"semantics"'):
        TeacherMaps().require(source, source.tokens("train"))


def test_what_was_written_is_read_for_any_choice_of_cameras(world: NuScenes, tmp_path: Path) -> None:
    folder, tokens = tmp_path / "features", world.tokens("train")
    assert write_features(world, tokens, folder, ABOUT, teach) == len(tokens)
    assert write_features(world, tokens, folder, ABOUT, teach) == 0
    label = TeacherMaps("resnet50", str(folder), 5)
    label.require(world, tokens)
    maps = label.read(world, tokens[0])
    np.testing.assert_array_equal(maps, teach([None] * 6).astype(np.float16))  # type: ignore[list-item]
    few = NuScenes(world.root, cameras=("CAM_BACK", "CAM_FRONT"))
    names = [camera.channel for camera in world.sample(tokens[0]).cameras]
    rows = [names.index(name) for name in ("CAM_BACK", "CAM_FRONT")]
    np.testing.assert_array_equal(label.read(few, tokens[0]), maps[rows])
    moved = [label.apply(maps, Draw((), BevTransform(flip_x=True), (9, 16)))] * 2
    value = label.collate(moved)
    assert value is not None
    assert value.shape == (2, 6, 5, 3, 4)
    assert label.collate([*moved, None]) is None
    assert label.described(world, tokens, {}) == "image features of ResNet-50"


def test_files_that_are_not_what_is_wanted(world: NuScenes, tmp_path: Path) -> None:
    folder, tokens = tmp_path / "features", world.tokens("train")
    label = TeacherMaps("resnet50", str(folder), 5)
    with pytest.raises(DataError, match="holds no features of a teacher"):
        label.require(world, tokens)
    write_features(world, tokens, folder, ABOUT, teach)
    with pytest.raises(DataError, match="5 numbers of the teacher resnet50, but 384 of dinov2_vits14 are to be learned"):
        TeacherMaps("dinov2_vits14", str(folder), 384).require(world, tokens)
    with pytest.raises(DataError, match=r"were made with .*Choose another --out"):
        write_features(world, tokens, folder, {**ABOUT, "image_size": [9, 9]}, teach)
    path, sample = folder / f"{tokens[0]}.npz", world.sample(tokens[0])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot read the features"):
        label.read(world, tokens[0])
    assert write_features(world, tokens, folder, ABOUT, teach) == 1, "made again"
    Image.fromarray(np.zeros((64, 176, 3), np.uint8)).save(sample.cameras[0].path)
    with pytest.raises(DataError, match="of other photographs than those of this data set"):
        read_features(folder, sample)
    path.unlink()
    with pytest.raises(DataError, match="there are no features of keyframe"):
        label.read(world, tokens[0])
    with pytest.raises(DataError, match=rf"lacks features of 1 of the {len(tokens)} .* --teacher resnet50 --image-size 64,96"):
        label.require(world, tokens)
    write_json(folder / "features.json", [])
    with pytest.raises(DataError, match="None numbers of the teacher None"):
        label.require(world, tokens)
