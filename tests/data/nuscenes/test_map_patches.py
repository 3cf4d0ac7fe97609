"""Roads around a keyframe: from the map expansion, a map mask, or voxels, whichever is there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.labels.map_classes import MapLabels
from frustum.data.nuscenes import map_patches
from frustum.data.nuscenes.map_layers import VectorMap, ego_map
from frustum.data.nuscenes.map_patches import NODES, REACH, STEP, origins, read_patch
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.label_files import read_labels
from frustum.errors import DataError
from frustum.types.classes import OCC3D_CLASSES
from tests.data.toy import VERSION, toy_database

GOLDEN = Path(__file__).parents[1] / "metrics"


@pytest.fixture(autouse=True)
def _forget():
    for kept in (map_patches._vector_map, map_patches._mask_files, map_patches._logs, map_patches._mask):
        kept.cache_clear()


@pytest.fixture
def toy(tmp_path) -> NuScenes:
    return NuScenes(toy_database(tmp_path / "toy"), VERSION)


def mask_file(source: NuScenes) -> Path:
    return Path(source.root) / json.loads((source.folder / "map.json").read_text())[0]["filename"]


def test_the_mask_is_read_where_the_nodes_are(toy):
    token = toy.tokens("train")[0]
    path, position = mask_file(toy), toy.sample(token).ego2global[:2, 3]
    mask = np.zeros((3000, 3000), np.uint8)
    mask[:, int(position[0] / 0.1) :] = 255  # everything east of the vehicle
    Image.fromarray(mask).save(path)
    patch = read_patch(toy, token, ("drivable_area",))
    steps = np.arange(NODES) * STEP - REACH
    nodes = np.stack([*np.meshgrid(steps, steps, indexing="xy"), np.zeros((NODES, NODES))], -1).reshape(-1, 3)
    yaw = np.arctan2(*toy.sample(token).ego2global[1::-1, 0])
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    places = (nodes[:, :2] @ turn.T + position).reshape(NODES, NODES, 2)
    clear = np.abs(places[..., 0] - position[0]) > 0.2
    np.testing.assert_array_equal((patch.masks[0] & patch.known)[clear], ((places[..., 0] > position[0]) & patch.known)[clear])
    inside = (places > 0.2).all(-1) & (places < 299.8).all(-1)
    assert patch.known[inside].all()
    assert not patch.known[(places < -0.2).any(-1)].any()
    assert patch.origin == "the map mask"
    with pytest.raises(DataError, match=r"map mask of .* cannot say where lane is, only drivable_area. Extract the map expansion"):
        read_patch(toy, token, ("lane",))


def test_the_expansion_wins_and_equals_the_drawing_on_the_label_grid(toy):
    folder = Path(toy.root) / "maps" / "expansion"
    folder.mkdir(parents=True)
    token = toy.tokens("train")[0]
    location = toy.scene(token).location
    shutil.copy(GOLDEN / "map_expansion.json", folder / f"{location}.json")
    vector_map = VectorMap.load(toy.root, location)
    ego2global = toy.sample(token).ego2global
    patch = read_patch(toy, token, ("drivable_area", "walkway"))
    assert patch.origin == "the map expansion"
    assert patch.known.all()
    drawn = ego_map(vector_map, ("drivable_area", "walkway"), ego2global, "lss").swapaxes(1, 2)
    first = round((REACH - 50) / STEP)
    sampled = patch.masks[:, first : first + 400 : 2, first : first + 400 : 2]
    assert sampled.any((1, 2)).tolist() == drawn.any((1, 2)).tolist()
    # the rule of the label grid draws outlines half a cell wide, a sample at the middle does not
    assert (sampled & ~drawn).mean() < 0.01
    assert abs(sampled.mean() - drawn.mean()) < 0.05


def test_voxels_stand_in_where_there_is_no_map(street_root):
    source = NuScenes(street_root)
    token = source.tokens("val")[0]
    patch = read_patch(source, token, ("drivable_area", "walkway"))
    labels = read_labels(source.labels_path(source.scene(token).name, token))
    road = (labels.semantics == OCC3D_CLASSES.index("driveable_surface")).any(2)
    for x, y in ((0.1, 0.1), (12.3, -7.9), (-30.2, 20.6), (39.7, -39.7)):
        i, j = int((x + 40) // 0.4), int((y + 40) // 0.4)
        node = round((y + REACH) / STEP), round((x + REACH) / STEP)
        at = [node[1] * STEP - REACH, node[0] * STEP - REACH]
        assert (int((at[0] + 40 + 1e-9) // 0.4), int((at[1] + 40 + 1e-9) // 0.4)) == (i, j)
        assert patch.masks[0][node] == road[i, j]
    beyond = round((45 + REACH) / STEP)
    assert not patch.known[:, beyond:].any()
    assert patch.known.mean() > 0.2
    assert patch.masks[0].any()
    with pytest.raises(DataError, match=r"has no map of .* cannot say where lane, stop_line is, only drivable_area and walkway"):
        read_patch(source, token, ("lane", "drivable_area", "stop_line"))


def test_every_location_is_asked_for_its_map(street_root, tmp_path):
    """What the expansion of one city has, another may lack: noticed ahead of training, and said where another source will do."""
    first = NuScenes(street_root).tokens("train")[0]

    class Cities(NuScenes):
        def scene(self, token):
            found = super().scene(token)
            return found if token == first else replace(found, location="elsewhere")

    root = shutil.copytree(street_root, tmp_path / "world", ignore=shutil.ignore_patterns("samples"))
    source = Cities(root)
    folder = root / "maps" / "expansion"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "map_expansion.json", folder / f"{source.scene(first).location}.json")
    tokens = source.tokens("train")
    assert read_patch(source, first, ("lane",)).origin == "the map expansion"
    with pytest.raises(DataError, match="has no map of elsewhere, cannot say where lane is"):
        MapLabels(("lane",)).require(source, tokens)
    assert origins(source, tokens[:1], ("lane",)) == ["the map expansion"]
    both = MapLabels(("drivable_area",)).described(source, tokens, {})
    assert both.endswith("roads from the map expansion and voxel labels)")


def test_what_is_unknown_or_missing_is_named(toy):
    labelled, bare = toy.tokens("all")[0], toy.tokens("all")[-1]
    with pytest.raises(DataError, match="unknown map layer 'drivable'; did you mean 'drivable_area'"):
        read_patch(toy, labelled, ("drivable",))
    with pytest.raises(DataError, match="has neither a map nor voxel labels to say where roads are"):
        read_patch(toy, bare, ("drivable_area",))

    class Folder:
        root = Path("photos")

    with pytest.raises(DataError, match="read from databases in the nuScenes format, but photos is a Folder"):
        read_patch(Folder(), "a", ("lane",))
