"""The generated data set as its readers find it: exact, reproducible, resumable."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.records import KeyframeRecord, SampleDataRecord, SceneRecord, SensorRecord
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.errors import ConfigError, DataError
from frustum.geometry import VoxelGrid, invert, points_in_boxes, transform_points
from frustum.types.classes import DETECTION_CLASSES, DETECTION_OF_CATEGORY, OCC3D_CLASSES, OCC3D_FREE, OCC3D_OF_CATEGORY
from frustum.worlds.street import filming
from frustum.worlds.street import generate as generator
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.generate import first_stamp, generate, usable_cores
from frustum.worlds.street.rigs import StreetRig
from frustum.worlds.street.world_config import WorldConfig

TINY = WorldConfig(train_scenes=1, val_scenes=1, frames=2, image_size=(64, 176), save=("depth", "semantics", "instances"), sweeps=1)


def digest(root: Path) -> str:
    """Equal worlds have equal digests: over the names and contents of all files."""
    total = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def splits(root: Path) -> dict[str, list[str]]:
    return json.loads((root / TINY.version / "splits.json").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("street") / "world"
    report = generate(TINY, root, workers=1)
    assert (report.scenes, report.keyframes, report.generated) == (2, 4, 4)
    return root


@pytest.fixture(scope="module")
def data(world):
    return NuScenes(world, TINY.version)


def test_the_reader_finds_every_sensor_and_label(data):
    assert len(data.tokens("train")) == len(data.tokens("val")) == 2
    for token in data.tokens("all"):
        sample = data.sample(token)
        assert [c.channel for c in sample.cameras] == [c.name for c in StreetRig.nuscenes().cameras]
        assert all(c.open().size == (176, 64) and c.size == (64, 176) for c in sample.cameras)
        assert len(sample.lidar.load()) > 5000
        assert len(sample.boxes) > 10
        assert sample.occupancy.semantics.shape == (200, 200, 16)
        assert data.sample(token, occupancy="instances").occupancy.instances is not None


def test_boxes_hold_exactly_the_points_they_count(data):
    for token in data.tokens("all"):
        sample = data.sample(token)
        lidar2key = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
        points = transform_points(lidar2key, sample.lidar.load()[:, :3].astype(np.float64))
        inside = points_in_boxes(points, sample.boxes.box2ego, sample.boxes.boxes[:, 3:6]).sum(0)
        assert inside.tolist() == sample.boxes.num_lidar_pts.tolist()


def test_points_of_an_object_lie_in_its_box_and_carry_its_class(data):
    """lidarseg and panoptic against the boxes: two independent ways to say which object a point belongs to."""
    general = [*OCC3D_OF_CATEGORY]
    for token in data.tokens("all"):
        sample = data.sample(token)
        category, instance = data.point_labels(token)
        points = sample.lidar.load()
        assert len(category) == len(instance) == len(points)
        lidar2key = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
        inside = points_in_boxes(
            transform_points(lidar2key, points[:, :3].astype(np.float64)), sample.boxes.box2ego, sample.boxes.boxes[:, 3:6]
        )
        owned = instance > 0
        assert {general[c] for c in np.unique(category[~owned])} <= {*general} - {*DETECTION_OF_CATEGORY}
        near = np.linalg.norm(points[:, :2], axis=1) < 60  # annotations end at 80 m from the ego vehicle
        assert inside[owned & near].any(1).all()
        for m, name in enumerate(sample.boxes.names):
            mine = inside[:, m] & owned & (inside.sum(1) == 1)
            assert {DETECTION_OF_CATEGORY.get(general[c], general[c]) for c in np.unique(category[mine])} <= {name}


def test_occupied_voxels_inside_a_box_carry_its_class(data):
    """Every voxel of an object, well inside exactly one box, carries the class of that box."""
    centres = VoxelGrid.occ3d().centres().numpy().astype(np.float64)
    things = [OCC3D_CLASSES.index(name) for name in DETECTION_CLASSES]
    total = 0
    for token in data.tokens("all"):
        sample = data.sample(token)
        where = np.isin(sample.occupancy.semantics, things)
        inside = points_in_boxes(centres[where], sample.boxes.box2ego, sample.boxes.boxes[:, 3:6] - 0.3)
        one = inside.sum(1) == 1
        names = np.array(sample.boxes.names)[inside[one].argmax(1)]
        found = np.array(OCC3D_CLASSES)[sample.occupancy.semantics[where][one]]
        assert found.tolist() == names.tolist()
        total += len(found)
    assert total > 500


def test_masks_nest_and_instances_follow_the_semantics(data):
    for token in data.tokens("all"):
        o = data.sample(token, occupancy="instances").occupancy
        assert (o.mask_camera <= o.mask_lidar).all()
        assert o.mask_camera.any()
        assert ((o.instances == 0) == (o.semantics == OCC3D_FREE)).all()
        for ident in np.unique(o.instances)[1:]:
            assert len(np.unique(o.semantics[o.instances == ident])) == 1


def test_depth_images_agree_with_the_labels_along_each_pixel_ray(world, data):
    """The voxel at a pixel's depth, or one within a cell of it, is occupied by the class that the pixel shows."""
    grid, agree, total = VoxelGrid.occ3d(), 0, 0
    for token in data.tokens("all"):
        sample = data.sample(token)
        for camera in sample.cameras:
            name = camera.path.name.replace(".jpg", ".png")
            depth = np.array(Image.open(world / "extras" / "depth" / camera.channel / name)).astype(np.float64) / 256
            category = np.array(Image.open(world / "extras" / "semantics" / camera.channel / name))
            v, u = np.nonzero((depth > 0) & (depth < 38))
            pixels = np.stack([u + 0.5, v + 0.5, np.ones(len(u))]) * depth[v, u]
            cam2key = invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego
            points = transform_points(cam2key, (np.linalg.inv(camera.intrinsics) @ pixels).T)
            cells = np.floor((points - grid.lower) / grid.cell).astype(int)
            ok = ((cells >= 1) & (cells < np.array(grid.shape) - 1)).all(1)
            cells, wanted = cells[ok], category[v, u][ok]
            wanted = np.array([OCC3D_CLASSES.index(name) for name in OCC3D_OF_CATEGORY.values()])[wanted]
            around = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
            near = sample.occupancy.semantics[tuple((cells[:, None] + around).transpose(2, 0, 1))]
            agree += int((near == wanted[:, None]).any(1).sum())
            total += len(cells)
    assert total > 20_000
    assert agree / total > 0.99


def test_sweeps_lie_between_the_keyframes(data):
    first, second = data.tokens("val")
    sample = data.sample(second, num_sweeps=1)
    assert data.sample(first).timestamp < sample.timestamp
    tables = json.loads((data.root / TINY.version / "sample_data.json").read_text())
    between = [d for d in tables if not d["is_key_frame"]]
    assert len(between) == 2 * 7  # two scenes, six cameras and the LiDAR, one sweep between two keyframes
    assert all((data.root / d["filename"]).is_file() for d in between)


def test_another_number_of_workers_gives_the_same_bytes(world, tmp_path):
    generate(TINY, tmp_path / "two", workers=2)
    assert digest(tmp_path / "two") == digest(world)


def test_an_interrupted_run_resumes_and_leaves_nothing_half_written(world, tmp_path, monkeypatch):
    root, calls = tmp_path / "world", []
    film = filming.Filmer._keyframe

    def interrupted(self, time):
        calls.append(time)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return film(self, time)

    monkeypatch.setattr(filming.Filmer, "_keyframe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(TINY, root, workers=1)
    assert not list(root.rglob("*.tmp*"))
    monkeypatch.setattr(filming.Filmer, "_keyframe", film)
    seen = []
    report = generate(TINY, root, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert report.generated == 2  # the first scene was kept
    assert seen[0] == (2, 4)
    assert seen[-1] == (4, 4)
    assert digest(root) == digest(world)


def test_a_repeated_call_generates_nothing(world):
    before = digest(world)
    assert generate(TINY, world, workers=1).generated == 0
    assert digest(world) == before


def test_other_settings_are_refused_or_replace_all_files(tmp_path):
    config = TINY.model_copy(update={"train_scenes": 0, "image_size": (16, 32)})
    generate(config, tmp_path / "world", workers=1)
    before = digest(tmp_path / "world")
    other = config.model_copy(update={"frames": 1, "save": (), "sweeps": 0, "jpeg_quality": 50})
    with pytest.raises(ConfigError, match=r"other settings: frames was 2, now 1; sweeps was 1, now 0; save was .*--overwrite"):
        generate(other, tmp_path / "world", workers=1)
    assert digest(tmp_path / "world") == before
    assert generate(other, tmp_path / "world", workers=1, overwrite=True).generated == 1
    generate(other, tmp_path / "fresh", workers=1)
    assert digest(tmp_path / "world") == digest(tmp_path / "fresh")  # nothing of the old world is left
    assert generate(other, tmp_path / "world", workers=1, overwrite=True).generated == 0


def test_what_was_begun_with_other_settings_is_refused_too(paper, tmp_path, monkeypatch):
    film = generator._film
    monkeypatch.setattr(generator, "_film", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        generate(paper, tmp_path, workers=1)
    (tmp_path / "gts" / "street-000-0000").mkdir(parents=True)  # of the scene that it was at
    monkeypatch.setattr(generator, "_film", film)
    other = paper.model_copy(update={"rate": 4.0})
    with pytest.raises(ConfigError, match=r"rate was 2\.0, now 4\.0"):
        generate(other, tmp_path, workers=1)
    assert generate(other.model_copy(update={"seed": 1}), tmp_path, workers=1).generated == 4  # another city beside it
    assert generate(paper, tmp_path, workers=1).generated == 4
    assert generate(other, tmp_path, workers=1, overwrite=True).generated == 4
    assert not (tmp_path / "gts" / "street-000-0000").exists()
    assert len(NuScenes(tmp_path, paper.version).tokens("all")) == 8


def test_a_world_whose_settings_were_not_written_down(paper, tmp_path):
    """As earlier versions left them; scenes that were set aside count, too."""
    generate(paper, tmp_path, workers=1)
    generate(paper.model_copy(update={"train_scenes": 0, "val_scenes": 1}), tmp_path, workers=1)
    (tmp_path / "world-000.json").unlink()
    writer = DatabaseWriter(tmp_path, paper.version)
    writer._part("street-000-5000").unlink()
    with pytest.raises(ConfigError, match="they were not written down"):
        generate(paper.model_copy(update={"rate": 4.0}), tmp_path, workers=1)
    assert generate(paper, tmp_path, workers=1).generated == 1


def test_train_and_validation_scenes_differ(data):
    a, b = (data.sample(data.tokens(s)[0]).occupancy.semantics for s in ("train", "val"))
    assert (a != b).mean() > 0.02


def test_a_rig_of_one_camera_from_a_file(tmp_path):
    rig = StreetRig.nuscenes()
    path = tmp_path / "rig.json"
    path.write_text(StreetRig(cameras=rig.cameras[1:2], lidar=rig.lidar).model_dump_json())
    config = WorldConfig(train_scenes=1, val_scenes=0, frames=1, image_size=(48, 80), rig=StreetRig.from_json(path))
    generate(config, tmp_path / "world", workers=1)
    sample = NuScenes(tmp_path / "world", config.version).sample(NuScenes(tmp_path / "world", config.version).tokens("train")[0])
    assert [c.channel for c in sample.cameras] == ["CAM_FRONT"]


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot read"), ('{"cameras": []}', "cameras"), ('{"cameras": [{"name": "a b"}]}', "cameras.0.name")]
)
def test_a_wrong_rig_file_is_explained(tmp_path, text, message):
    (tmp_path / "rig.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        StreetRig.from_json(tmp_path / "rig.json")


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="taken"):
        generate(TINY, tmp_path / "taken", workers=1)


def test_cameras_may_fire_one_after_the_other(tmp_path):
    config = WorldConfig(train_scenes=1, val_scenes=0, frames=2, image_size=(48, 128), camera_spread=0.05)
    generate(config, tmp_path, workers=1)
    data = NuScenes(tmp_path, config.version)
    sample = data.sample(data.tokens("train")[1])
    stamps = [c.timestamp - sample.timestamp for c in sample.cameras]
    np.testing.assert_allclose(stamps, np.linspace(-0.05, 0, 6), atol=2e-6)
    assert not np.allclose(sample.cameras[0].ego2global, sample.ego2global)


def test_a_wide_spread_with_sweeps_keeps_exposures_apart_from_the_first_keyframe_on(tmp_path):
    """The first keyframe's cameras fire before it too, at times of their own, and so do all sweeps after it."""
    config = WorldConfig(
        train_scenes=1, val_scenes=0, frames=2, image_size=(16, 32), camera_spread=0.2, sweeps=3, scene=SceneConfig(density=0.1)
    )
    generate(config, tmp_path, workers=1)
    data = NuScenes(tmp_path, config.version)
    for token in data.tokens("train"):
        sample = data.sample(token)
        np.testing.assert_allclose([c.timestamp - sample.timestamp for c in sample.cameras], np.linspace(-0.2, 0, 6), atol=2e-6)
    files = json.loads((tmp_path / config.version / "sample_data.json").read_text())
    assert len({f["filename"] for f in files}) == len(files) == 7 * (2 + 3)
    assert min(f["timestamp"] for f in files) == config.start_stamp(0)
    assert sum(f["prev"] == "" for f in files) == 7  # one chain per sensor


@pytest.fixture
def paper(monkeypatch):
    """A generator whose scenes cost nothing: one blank file each, with the true names and times."""

    def film(config, root, name, on_keyframe):
        stamp, file = first_stamp(config, name), f"samples/LIDAR_TOP/{name}.pcd.bin"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
        key = KeyframeRecord(stamp, (SampleDataRecord("LIDAR_TOP", stamp, file, np.eye(4)),))
        lidar = SensorRecord("LIDAR_TOP", "lidar", np.eye(4))
        DatabaseWriter(root, config.version).add_scene(SceneRecord(name, (lidar,), (key,), fingerprint=config.fingerprint()))
        on_keyframe()

    monkeypatch.setattr(generator, "_film", film)
    return WorldConfig(train_scenes=3, val_scenes=1, frames=1)


def test_another_seed_adds_a_city_to_the_same_root(paper, tmp_path):
    generate(paper, tmp_path, workers=1)
    other = paper.model_copy(update={"seed": 7})
    assert generate(other, tmp_path, workers=1).generated == 4
    assert splits(tmp_path)["train"] == [f"street-{seed:03d}-{i:04d}" for seed in (0, 7) for i in range(3)]
    before = digest(tmp_path)
    assert generate(paper, tmp_path, workers=1).generated == generate(other, tmp_path, workers=1).generated == 0
    assert digest(tmp_path) == before
    assert len(NuScenes(tmp_path, paper.version).tokens("val")) == 2


def test_fewer_scenes_leave_the_tables_and_come_back_for_nothing(paper, tmp_path):
    generate(paper, tmp_path, workers=1)
    before = digest(tmp_path)
    writer = DatabaseWriter(tmp_path, paper.version)
    assert generate(paper.model_copy(update={"train_scenes": 1}), tmp_path, workers=1).scenes == 2
    assert splits(tmp_path)["train"] == ["street-000-0000"]
    assert writer.scenes() == ["street-000-0000", "street-000-5000"]
    assert len(NuScenes(tmp_path, paper.version).tokens("all")) == 2
    assert generate(paper, tmp_path, workers=1).generated == 0
    assert digest(tmp_path) == before


def test_other_scenes_of_the_root_stay(paper, tmp_path):
    generate(paper, tmp_path, workers=1)
    writer = DatabaseWriter(tmp_path, paper.version)
    file = "samples/LIDAR_TOP/mine.pcd.bin"
    (tmp_path / file).write_bytes(b"")
    key = KeyframeRecord(5, (SampleDataRecord("LIDAR_TOP", 5, file, np.eye(4)),))
    mine = SceneRecord("mine", (SensorRecord("LIDAR_TOP", "lidar", np.eye(4)),), (key,))
    writer.add_scene(mine)
    writer.finish({"test": ["mine"]}, keep_splits=True)
    generate(paper.model_copy(update={"train_scenes": 1}), tmp_path, workers=1)
    assert splits(tmp_path)["test"] == ["mine"]
    assert "mine" in writer.scenes()

    taken = replace(key, timestamp=paper.start_stamp(1))  # a scene that starts when one of ours does
    writer.add_scene(replace(mine, keyframes=(replace(taken, data=(replace(key.data[0], timestamp=taken.timestamp),)),)))
    writer.finish({}, keep_splits=True)
    (tmp_path / paper.version / "parts" / "street-000-0001.json.gz.aside").unlink()
    with pytest.raises(DataError, match="mine and street-000-0001 start together"):
        generate(paper, tmp_path, workers=1)
    assert not writer.has_scene("street-000-0001")  # found before any scene was made


def test_start_times_of_all_scenes_differ():
    seeds = [0, 1, 19_999, 20_000, 20_001, 123_456_789]
    numbers = [0, 1, 4999, 5000, 9999]
    stamps = {WorldConfig(seed=seed).start_stamp(number) for seed in seeds for number in numbers}
    assert len(stamps) == len(seeds) * len(numbers)
    assert max(stamps) < 2**53  # exact as floating point numbers too
    assert all(stamp > 0 for stamp in stamps)


def test_the_clock_of_a_scene_covers_everything_that_is_filmed():
    config = WorldConfig(frames=9, rate=4.0, camera_spread=0.3)
    assert config.scene_config().duration >= 0.3 + 8 / 4
    assert first_stamp(config, "street-000-0003") == config.start_stamp(3) + 300_000


def test_workers_are_the_cores_that_we_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 9}, raising=False)
    assert usable_cores() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(200)), raising=False)
    assert usable_cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_never_more_workers_than_windows_can_wait_for(paper, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(generator, "_film_in_parallel", lambda config, root, names, workers, tick: asked.append(workers))
    with pytest.raises(DataError, match="no scene"):  # the replacement films nothing
        generate(paper.model_copy(update={"train_scenes": 100}), tmp_path, workers=80)
    assert asked == [61]
