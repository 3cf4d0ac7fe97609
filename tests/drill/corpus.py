"""The files that are damaged: who writes a sound set of them, and who reads it. One row of `CORPUS` each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from frustum.checkpoint.upstream_file import open_state
from frustum.checkpoint.weights_file import load_state, read_weights, save_weights
from frustum.data.check.inspection import inspect
from frustum.data.images.opening import open_images
from frustum.data.kitti.raw import find_drives, open_drive
from frustum.data.labels.view_cache import read_cache, write_views
from frustum.data.labels.view_points import Views, view_points
from frustum.data.nuscenes.detection_results import read_detections, write_detections
from frustum.data.nuscenes.map_layers import LINE_LAYERS, POLYGON_LAYERS, VectorMap, ego_map
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.occ3d.label_files import read_labels, write_labels
from frustum.data.occ3d.result_files import read_result, write_result
from frustum.data.pixels import photograph, read_image
from frustum.data.portraits.opening import open_portraits
from frustum.data.rig.importer import read_cameras, read_rig
from frustum.engine.evaluate import EvalReport
from frustum.engine.reports import figures_table, read_reports, write_reports
from frustum.engine.run import load_run, save_run
from frustum.engine.runtime import make_accelerator
from frustum.engine.sections import header_of
from frustum.engine.snapshots import Snapshots
from frustum.engine.statistics import label_statistics
from frustum.engine.step import Stepper
from frustum.tasks.detection import DetectionTask
from frustum.tasks.occupancy import OccupancyTask
from frustum.tasks.portraits import PortraitTask
from frustum.tasks.segmentation import SegmentationTask
from frustum.types.boxes import DetectionBoxes
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.predictions import PredictedBoxes, PredictedOccupancy, PredictedPortrait, PredictedSegmentation
from frustum.weights.loading import load
from frustum.worlds.street.rigs import StreetRig
from tests.data.images.folder import write_folder
from tests.data.kitti_drive import write_drive
from tests.data.portraits.people import write_people
from tests.data.toy import VERSION, coordinate_image, random_labels, toy_database
from tests.drill import mutate
from tests.drill.mutate import Mutation
from tests.engine import toy

Sealed = Literal["", "bytes", "all"]
_SHAPE = (20, 20, 4)


@dataclass(frozen=True)
class Entry:
    """One kind of file.

    Attributes:
        name: in the table.
        make: writes a sound set of files into an empty folder.
        files: which of them are damaged, as a pattern.
        mutations: how.
        read: reads the set; what it returns is compared.
        sealed: what must never be read as something else: nothing; damaged bytes, as the file holds checksums; anything.
        is_slow: left out of the short form.
    """

    name: str
    make: Callable[[Path], Any]
    files: str
    mutations: tuple[Mutation, ...]
    read: Callable[[Path], Any]
    sealed: Sealed = ""
    is_slow: bool = False


# ---- data sets in the nuScenes format --------------------------------------------------------------------------------------------


def _database(folder: Path) -> None:
    toy_database(folder, num_scenes=2, num_keyframes=2)


def _read_database(folder: Path) -> Any:
    """All that networks and scores read of the tables."""
    database = NuScenes(folder, VERSION)
    tokens = database.tokens()
    samples = [database.sample(token, history=1, num_sweeps=1, camera_sweeps=1, occupancy=False) for token in tokens]
    truth = [database.annotations(token)[1] for token in tokens]
    counts = database.class_counts(tokens), database.other_boxes(tokens), database.lacking_cameras(tokens)
    splits = {split: database.tokens(split) for split in database.splits()}
    return samples, truth, counts, splits, database.scenes, [database.has_point_labels(token) for token in tokens]


def _check_database(folder: Path) -> Any:
    findings = inspect(NuScenes(folder, VERSION))
    assert all(finding.what and finding.hint for finding in findings)
    return len(findings)


def _first(folder: Path) -> tuple[NuScenes, Any]:
    database = NuScenes(folder, VERSION)
    return database, database.sample(database.tokens()[0])


def _read_scan(folder: Path) -> Any:
    database, _ = _first(folder)
    return [database.sample(token, occupancy=False, with_boxes=False).lidar.load()[:, :3] for token in database.tokens()]  # type: ignore[union-attr]


def _read_point_labels(folder: Path) -> Any:
    database, sample = _first(folder)
    return database.point_labels(sample.token), view_points(database, sample, Views(source="lidarseg"))


def _with_views(folder: Path) -> None:
    _database(folder)
    database, sample = _first(folder)
    write_views(database, [sample.token], folder / "views", Views(source="lidarseg"))


def _read_views(folder: Path) -> Any:
    database, sample = _first(folder)
    return read_cache(folder / "views", database, sample, Views(source="lidarseg"))


def _finish(folder: Path) -> Any:
    """What an import or a world does with the scenes that are there."""
    writer = DatabaseWriter(folder, VERSION)
    names = [name for name in writer.scenes() if writer.has_scene(name)]
    writer.finish({"train": names}, keep_splits=True)
    return _read_database(folder)


def _map(folder: Path) -> None:
    corners = {"a": (80.0, 20.0), "b": (120.0, 20.0), "c": (120.0, 70.0), "d": (80.0, 70.0)}
    square = {"token": "square", "exterior_node_tokens": list(corners), "holes": []}
    content: dict[str, Any] = {
        "node": [{"token": token, "x": x, "y": y} for token, (x, y) in corners.items()],
        "polygon": [square],
        "line": [{"token": "line", "node_tokens": ["a", "c"]}],
    }
    content |= {layer: [{"polygon_token": "square", "polygon_tokens": ["square"]}] for layer in POLYGON_LAYERS}
    content |= {layer: [{"line_token": "line"}] for layer in LINE_LAYERS}
    (folder / "maps" / "expansion").mkdir(parents=True)
    (folder / "maps" / "expansion" / "town.json").write_text(json.dumps(content))


def _read_map(folder: Path) -> Any:
    ego2global = np.eye(4)
    ego2global[:2, 3] = 100, 45
    return ego_map(VectorMap.load(folder, "town"), (*POLYGON_LAYERS, *LINE_LAYERS), ego2global)


# ---- recordings ------------------------------------------------------------------------------------------------------------------


_ROS = """
image_width: 160
image_height: 90
camera_matrix: {rows: 3, cols: 3, data: [126.0, 0, 79.5, 0, 126.0, 44.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.2, 0.05, 0.001, 0.0, 0.0]}
"""


def write_rig(folder: Path) -> None:
    for camera in ("front", "rear"):
        (folder / camera).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(coordinate_image((90, 160))).save(folder / camera / f"{number}.png")
    pose = {"translation": [1.5, 0, 1.6], "rotation": [0.5, -0.5, 0.5, -0.5]}
    lens = {"fx": 126.0, "fy": 126.0, "cx": 80.0, "cy": 45.0, "distortion": [-0.2, 0.05, 0, 0, 0], "width": 160, "height": 90}
    (folder / "rear.yaml").write_text(_ROS)
    cameras = [
        {"name": "front", "cam2ego": pose, "images": "front/*.png"} | lens,
        {"name": "rear", "intrinsics_from": "rear.yaml", "images": ["rear/0.png", "rear/1.png"], "cam2ego": pose},
    ]
    frames = [{"timestamp": 0.5 * i, "ego2global": pose, "images": {c: f"{c}/{i}.png" for c in ("front", "rear")}} for i in range(2)]
    (folder / "calibration.json").write_text(json.dumps({"cameras": cameras, "frames": frames}))


def _read_kitti(folder: Path) -> Any:
    drive = open_drive(find_drives(folder)[0])
    boxes = [drive.boxes(frame) for frame in range(len(drive))]
    poses = drive.lidar2imu, drive.imu2global, drive.intrinsics, drive.lidar2cam
    times = {f"times {sensor}": stamps for sensor, stamps in drive.timestamps.items()}
    return drive.frames, poses, times, boxes, [(t.kind, t.size) for t in drive.tracks], drive.scan(0)


def _street_rig(folder: Path) -> None:
    (folder / "rig.json").write_text(StreetRig.nuscenes().model_dump_json())


# ---- results ---------------------------------------------------------------------------------------------------------------------


def _boxes(folder: Path) -> None:
    rng, count = np.random.default_rng(0), 5
    rotations = np.tile([1.0, 0, 0, 0], (count, 1))
    found = DetectionBoxes(
        np.arange(count), rng.uniform(-50, 50, (count, 3)), rng.uniform(1, 5, (count, 3)), rotations, rng.uniform(-5, 5, (count, 2)),
        np.full(count, -1), rng.random(count), np.full(count, -1),
    )  # fmt: skip
    write_detections(folder / "results.json", {"a": found, "b": DetectionBoxes.empty()})


def _predictions(folder: Path) -> None:
    boxes = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)) + 1
    DetectionTask.save(PredictedBoxes(boxes, torch.arange(3), torch.rand(3), ("car", "truck", "bus")), folder, "a")
    semantics = torch.zeros(toy.GRID.shape, dtype=torch.uint8)
    OccupancyTask.save(PredictedOccupancy(semantics, toy.GRID, OCC3D_CLASSES), folder, "a")


def _read_predictions(folder: Path) -> Any:
    """Read and score them, each against itself."""
    boxes, voxels = DetectionTask.load(folder / "a.boxes.npz"), OccupancyTask.load(OccupancyTask.path(folder, "a"))
    layers = [*DetectionTask.layers(boxes), *OccupancyTask.layers(voxels)]
    return boxes, voxels.semantics, voxels.grid.model_dump(), len(layers)


def _pictures(folder: Path) -> None:
    labels = torch.arange(16, dtype=torch.uint8).reshape(4, 4) % 4
    SegmentationTask.save(PredictedSegmentation(labels, ("road", "sky", "car", "tree")), folder, "a")
    image = torch.arange(3 * 16, dtype=torch.uint8).reshape(3, 4, 4)
    PortraitTask.save(PredictedPortrait(image, torch.ones(4, 4, dtype=torch.bool)), folder, "a")


def _reports(folder: Path) -> None:
    figures = {"miou": 20.5, "classes": {}}
    write_reports(folder, [EvalReport("toy", "val", 3, 1, "as they are", {"none": figures}, 1.5, "0" * 64)])


def _read_reports(folder: Path) -> Any:
    reports = read_reports(folder, "0" * 64)
    return json.dumps([report.numbers() for report in reports]), [len(figures_table(report).rows) for report in reports]


# ---- runs and weights ------------------------------------------------------------------------------------------------------------


@cache
def _toy_database(folder: Path) -> Path:
    return toy.write_database(folder)


@cache
def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return toy.ToyConfig(batch_norm=True).build()


def _fresh(state: Any) -> Any:
    """The toy network with a state dict."""
    network = toy.ToyConfig(batch_norm=True).build()
    load_state(network, state, "the weights")
    return network.state_dict()


def _weights(folder: Path) -> None:
    recipe = toy.recipe()
    recipe = recipe.model_copy(update={"model": toy.ToyConfig(batch_norm=True)})
    save_weights(folder / "w.safetensors", _network(), header_of(recipe) | {"step": 3})


def _read_weights(folder: Path) -> Any:
    state, _ = read_weights(folder / "w.safetensors")
    network = load(folder / "w.safetensors", code="tests")
    return _fresh(state), network.state_dict(), network.recipe.model_dump(mode="json")  # type: ignore[operator, union-attr]


def _upstream(folder: Path) -> None:
    torch.save({"meta": {"epoch": 3}, "state_dict": _network().state_dict()}, folder / "w.pth")


def _run(folder: Path) -> None:
    save_run(folder, toy.recipe())


@cache
def _stepper() -> Stepper:
    torch.manual_seed(0)
    recipe = toy.recipe()
    return Stepper(recipe, recipe.model.build(), make_accelerator(recipe.runtime), 4, 4)


def _snapshot(folder: Path) -> None:
    Snapshots(folder, 2, _stepper().accelerator).save(_stepper(), {"epoch": 0, "batch": 2}, {"count": 1})


def _read_snapshot(folder: Path) -> Any:
    stepper = _stepper()
    snapshots = Snapshots(folder, 2, stepper.accelerator)
    position = snapshots.restore(folder / "step_00000000", stepper)
    return position, stepper.network.state_dict(), stepper.step_number


def _toy_with(folder: Path) -> Any:
    """A database with the statistics of its labels, and a network that starts from them."""
    if not (folder / "data").exists():
        toy.write_database(folder / "data", 1, 1, 2)
    recipe = toy.recipe(folder / "data")
    torch.manual_seed(0)
    network = recipe.model.build()
    statistics = label_statistics(recipe, recipe.data.open(), folder)
    network.prepare(statistics)  # type: ignore[operator]
    return statistics, network.state_dict()


def _read_index(folder: Path) -> Any:
    """With an index that is kept beside the tables."""
    import os

    before = os.environ.get("FRUSTUM_CACHE")
    os.environ["FRUSTUM_CACHE"] = str(folder / "cache")
    try:
        return _read_database(folder)
    finally:
        os.environ.pop("FRUSTUM_CACHE") if before is None else os.environ.update(FRUSTUM_CACHE=before)


def _indexed(folder: Path) -> None:
    _database(folder)
    _read_index(folder)


def _images(folder: Path) -> Any:
    source = open_images(folder)
    tokens = source.tokens()[:3] + source.tokens()[-1:]
    return source.class_names, [(np.asarray(source.sample(token).open()), source.labels(token)) for token in tokens]


def _portraits(folder: Path) -> Any:
    source = open_portraits(folder)
    return [(source.image(token), source.parsing(token), source.truth(token)) for token in source.tokens()], source.splits()


def _photographs(folder: Path) -> None:
    for suffix in ("png", "jpg"):
        Image.fromarray(coordinate_image((90, 160))).save(folder / f"a.{suffix}")


def _read_photographs(folder: Path) -> Any:
    return [np.asarray(read_image(path, photograph, "Restore it.")) for path in sorted(folder.iterdir())]


CORPUS: tuple[Entry, ...] = (
    Entry("tables", _database, f"{VERSION}/*.json", mutate.JSON, _read_database),
    Entry("tables, checked", _database, f"{VERSION}/*.json", mutate.JSON, _check_database, is_slow=True),
    Entry("index of tables", _indexed, "cache/*.npz", mutate.NPZ, _read_index, "all"),
    Entry("parts of a world", _database, f"{VERSION}/parts/*.gz", mutate.BYTES, _finish, "bytes", is_slow=True),
    Entry("LiDAR scans", _database, "samples/LIDAR_TOP/*", mutate.FLOATS, _read_scan),
    Entry("classes of points", _database, "lidarseg/*/*", mutate.BYTES, _read_point_labels),
    Entry("instances of points", _database, "panoptic/*/*", mutate.NPZ, _read_point_labels, "bytes"),
    Entry("2D labels, kept", _with_views, "views/*", mutate.NPZ, _read_views, "bytes"),
    Entry("vector maps", _map, "maps/expansion/*", mutate.JSON, _read_map),
    Entry(
        "voxel labels",
        lambda folder: write_labels(folder / "labels.npz", random_labels(0, _SHAPE)),
        "*",
        mutate.NPZ,
        lambda folder: read_labels(folder / "labels.npz"),
        "bytes",
    ),
    Entry("calibration.json", write_rig, "calibration.json", mutate.JSON, lambda folder: (read_rig(folder), read_cameras(folder))),
    Entry("ROS calibration", write_rig, "*.yaml", mutate.TEXT, read_rig),
    Entry("rig of a world", _street_rig, "*", mutate.JSON, lambda folder: StreetRig.from_json(folder / "rig.json").model_dump()),
    Entry("KITTI text", lambda folder: write_drive(folder, 3), "**/*.[tx][xm][tl]", mutate.TEXT, _read_kitti),
    Entry("KITTI scans", lambda folder: write_drive(folder, 2), "**/0000000000.bin", mutate.FLOATS, _read_kitti),
    Entry("photographs, JPEG", _photographs, "*.jpg", mutate.IMAGE, _read_photographs),
    Entry("photographs, PNG", _photographs, "*.png", mutate.IMAGE, _read_photographs, "bytes"),
    Entry("images, label maps", write_folder, "**/*.png", mutate.IMAGE, _images, "bytes"),
    Entry("names of classes", write_folder, "*.json", mutate.JSON, _images),
    Entry("portraits", write_people, "**/*.png", mutate.IMAGE, _portraits, "bytes"),
    Entry("truth of portraits", write_people, "**/*.json", mutate.JSON, _portraits),
    Entry("detections", _boxes, "*", mutate.JSON, lambda folder: read_detections(folder / "results.json").boxes),
    Entry("predictions", _predictions, "*", mutate.NPZ, _read_predictions, "bytes"),
    Entry(
        "challenge results",
        lambda folder: write_result(folder, "a", np.zeros(toy.GRID.shape, np.uint8), toy.GRID),
        "*",
        mutate.NPZ,
        lambda folder: read_result(folder / "a.npz", toy.GRID),
        "bytes",
    ),
    Entry(
        "predicted pictures",
        _pictures,
        "*",
        mutate.IMAGE,
        lambda folder: [vars(task.load(task.path(folder, "a"))) for task in (SegmentationTask, PortraitTask)],
        "bytes",
    ),
    Entry("eval.json", _reports, "*", mutate.JSON, _read_reports),
    Entry("weights", _weights, "*", mutate.SAFETENSORS, _read_weights, "bytes"),
    Entry("upstream weights", _upstream, "*", mutate.PTH, lambda folder: _fresh(open_state(folder / "w.pth").state), "bytes"),
    Entry("recipe.json", _run, "*", mutate.JSON, lambda folder: load_run(folder).recipe.model_dump_json()),
    Entry("snapshots", _snapshot, "step_*/*", mutate.PTH, _read_snapshot, "all"),
    Entry("statistics", _toy_with, "*.npz", mutate.NPZ, _toy_with, "all"),
)
"""All of them."""
