"""Read a nuScenes database (real, generated or imported) without the devkit.

Tables are read when first needed and kept as a compact cached index (index.py). Everything is given in our frames: poses a2b, boxes
and occupancy in the ego frame at the keyframe's LIDAR_TOP time, seconds, metres.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from frustum.data.nuscenes.checked import box_poses, camera_intrinsics, ego_poses, image_sizes, sensor_poses
from frustum.data.nuscenes.index import Arrays, Index
from frustum.data.nuscenes.records import OWN_RIG
from frustum.data.nuscenes.splits import custom_splits, official_splits
from frustum.data.nuscenes.tables import OPTIONAL_TABLES, TIME_LIMIT, following_schema, load_table, table_folder
from frustum.data.occ3d.label_files import labels_path, read_arrays, read_labels
from frustum.data.sample import Boxes, CameraFrame, LidarFrame, Sample
from frustum.errors import DataError, nearest_names
from frustum.files import check_is_file, check_name, inside
from frustum.geometry import invert, yaw_of
from frustum.types.classes import CAMERAS, DETECTION_CLASSES, OCC3D_CLASSES, detection_class

_ROOM = 1 << 16  # points by which instances may be more than classes before they are refused unread


@dataclass(frozen=True)
class SceneInfo:
    """One scene and its keyframes in time order."""

    name: str
    tokens: tuple[str, ...]
    location: str
    description: str


class NuScenes:
    """A nuScenes database. `occupancy_classes` are the names of the ids in its voxel labels.

    Args:
        root: folder with `<version>/*.json`, `samples/`, and optionally `sweeps/`, `gts/`, `occ3d_panoptic/`, `lidarseg/`,
            `panoptic/`.
        version: name of the folder with the tables.
        cameras: channels, in the order that samples will have; None takes all, FlashOCC's order first.
        camera_only: leave out LiDAR points, whose files need not exist; the LIDAR_TOP record still defines the keyframe's pose.

    Raises:
        DataError: wrong root, unknown version or camera, missing table. (A damaged table raises when it is first read.)
    """

    occupancy_classes = OCC3D_CLASSES

    def __init__(
        self, root: Path | str, version: str = "v1.0-trainval", cameras: Sequence[str] | None = None, camera_only: bool = False
    ) -> None:
        self.root, self.version, self.camera_only = Path(root), version, camera_only
        self.folder = table_folder(self.root, version)
        self._index = Index(self.folder)
        self._chosen_cameras = None if cameras is None else tuple(cameras)
        self.labelled: tuple[str, ...] = ()  # scenes or keyframes, where the labels of others are hidden
        self._unlabelled: frozenset[str] = frozenset()  # keyframes

    # ---- contents -------------------------------------------------------------------------------------------------

    @cached_property
    def channels(self) -> dict[str, str]:
        """Modality (camera, lidar, radar) by sensor channel."""
        frames = self._index.frames
        return {c.decode(): m.decode() for c, m in zip(frames["channel"], frames["modality"], strict=True)}

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Camera channels in the order that samples have them."""
        there = [c for c, modality in self.channels.items() if modality == "camera"]
        if self._chosen_cameras is None:
            return tuple([c for c in CAMERAS if c in there] + [c for c in there if c not in CAMERAS])
        for camera in self._chosen_cameras:
            if camera not in there:
                raise DataError(f"{self.root} has no camera {camera!r}; {nearest_names(camera, there)} Set data.cameras.")
        return self._chosen_cameras

    @cached_property
    def scenes(self) -> tuple[SceneInfo, ...]:
        """All scenes, by the time of their first keyframe."""
        frames = self._index.frames
        bounds = np.searchsorted(frames["sample_scene"], np.arange(len(frames["scene_name"]) + 1))
        text = [frames[f"scene_{name}"] for name in ("name", "location", "description")]
        return tuple(
            SceneInfo(name.decode(), tuple(t.decode() for t in frames["sample_token"][a:b]), *(x.decode() for x in rest))
            for name, *rest, a, b in zip(*text, bounds[:-1], bounds[1:], strict=True)
        )

    @cached_property
    def _scene_of(self) -> dict[str, SceneInfo]:
        return {scene.name: scene for scene in self.scenes}

    @cached_property
    def _split_scenes(self) -> dict[str, set[str]]:
        """Scenes of each split that are in this database; splits.json wins over the official lists."""
        named = official_splits() | custom_splits(self.folder)
        return {split: self._scene_of.keys() & names for split, names in named.items()}

    def splits(self) -> list[str]:
        """Names of the splits that have scenes in this database; `tokens` takes also `all` and the name of a single scene."""
        return sorted(split for split, names in self._split_scenes.items() if names)

    def tokens(self, split: str = "all") -> list[str]:
        """Keyframe tokens of a split (or scene, or `all`), scene after scene, in time order, but for those whose images are all invalid.

        Raises:
            DataError: an unknown split, or one without a scene here.
        """
        if split == "all" and not self.scenes and self.left_out:
            split = self.left_out[0]
        members = set(self._scene_of) if split == "all" else {split} if split in self._scene_of else self._split_scenes.get(split)
        if members or split == "all":
            return [t for scene in self.scenes if scene.name in (members or ()) for t in scene.tokens if t not in self.imageless]
        if split in self.left_out:
            raise DataError(f"the scene {split!r} of {self.folder} {left_out_reason(self.root)}")
        if split in self._split_scenes:
            raise DataError(f"{self.folder} has no scene of split {split!r}; splits with scenes: {', '.join(self.splits()) or 'none'}.")
        hint = nearest_names(split, [*self.splits(), "all"])
        raise DataError(f"{self.folder} has no split {split!r}; {hint} Add your own in {self.folder / 'splits.json'}.")

    @property
    def left_out(self) -> tuple[str, ...]:
        """Scenes that are in the tables and not here: their timestamps are not microseconds since 1970."""
        return tuple(name.decode() for name in self._index.frames["left_out_scene"])

    @cached_property
    def imageless(self) -> frozenset[str]:
        """Keyframes of which every image is marked with `is_valid: false`: there is nothing to be seen in them."""
        frames, cameras = self._index.frames, self._index.frames["modality"] == b"camera"
        rows = {row for row in frames["invalid_sample"].tolist() if cameras.any() and (frames["key_file"][row, cameras] < 0).all()}
        return frozenset(frames["sample_token"][row].decode() for row in rows)

    def invalid_files(self, tokens: Iterable[str]) -> dict[str, list[str]]:
        """Files of these keyframes that the tables mark with `is_valid: false`, and that are left out, by keyframe."""
        frames, found = self._index.frames, {self._row(token): token for token in tokens}
        files: dict[str, list[str]] = {}
        for row, name in zip(frames["invalid_sample"].tolist(), frames["invalid_file"], strict=True):
            if row in found:
                files.setdefault(found[row], []).append(name.decode())
        return files

    # ---- one keyframe -------------------------------------------------------------------------------------------------------

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {token.decode(): i for i, token in enumerate(self._index.frames["sample_token"])}

    def _row(self, token: str) -> int:
        if token not in self._row_of:
            raise DataError(f"{self.folder} has no keyframe {token!r}. List them with `frustum data status {self.root}`.")
        return self._row_of[token]

    def scene(self, token: str) -> SceneInfo:
        """The scene of a keyframe."""
        return self.scenes[int(self._index.frames["sample_scene"][self._row(token)])]

    @cached_property
    def _has_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether a keyframe (K, C), and a scene in any of its keyframes (S, C), has an image of each camera."""
        frames, names = self._index.frames, list(self.channels)
        keyframes = frames["key_file"][:, [names.index(c) for c in self.cameras]] >= 0
        scenes = np.zeros((len(frames["scene_name"]), len(self.cameras)), bool)
        np.logical_or.at(scenes, frames["sample_scene"], keyframes)
        return keyframes, scenes

    def lacking_cameras(self, tokens: Iterable[str]) -> dict[str, list[str]]:
        """Those of the keyframes that have no image of a camera that their scene has, by channel."""
        keyframes, scenes = self._has_image
        given = list(tokens)
        rows = np.array([self._row(token) for token in given], np.int64)
        lacks = scenes[self._index.frames["sample_scene"][rows]] & ~keyframes[rows]
        return {c: [given[i] for i in np.flatnonzero(lacks[:, k])] for k, c in enumerate(self.cameras) if lacks[:, k].any()}

    def scenes_without(self) -> dict[str, list[str]]:
        """Scenes that have no image of a camera that others have, by channel."""
        has = self._has_image[1]
        return {
            c: [s.name for s, there in zip(self.scenes, has[:, k], strict=True) if not there]
            for k, c in enumerate(self.cameras)
            if not has[:, k].all()
        }

    def neighbours(self, token: str) -> tuple[str, ...]:
        """The keyframes of the scene that a keyframe belongs to, in time order."""
        return self.scene(token).tokens

    def sample(
        self,
        token: str,
        history: int = 0,
        with_boxes: bool = True,
        occupancy: bool | Literal["instances"] = True,
        num_sweeps: int = 0,
        camera_sweeps: int = 0,
    ) -> Sample:
        """One keyframe; images and points are read later, from the frames.

        Args:
            token: sample token.
            history: past keyframes whose cameras are wanted, newest first; fewer at the start of a scene. One in which a camera failed has
                fewer cameras.
            with_boxes: read the annotations.
            occupancy: read the labels where the keyframe has some; `instances` prefers the panoptic variant.
            num_sweeps: LiDAR sweeps before the keyframe that are wanted, newest first; fewer at the start of a scene.
            camera_sweeps: moments before the keyframe, in each of which all its cameras have an image; keyframes are among them.

        Raises:
            DataError: unknown token, a wanted camera has no image in this keyframe, or a label file is damaged.
        """
        row = self._row(token)
        frames = self._index.frames
        scene = self.scenes[int(frames["sample_scene"][row])]
        first = self._row_of[scene.tokens[0]]
        key_file = self._key_file(row)
        ego2global = self._key_pose(row)
        earlier = range(row - 1, max(first, row - history) - 1, -1)
        is_scan = bool(self._key_channel) and frames["key_file"][row, list(self.channels).index(self._key_channel)] == key_file
        lidar = self._lidar_frames(frames, np.array([key_file])) if is_scan and not self.camera_only else []
        sweeps = self._lidar_frames(self._index.sweeps, self._earlier(row, self._key_channel, num_sweeps)) if num_sweeps and lidar else []
        shows_labels = occupancy and token not in self._unlabelled
        path = self.labels_path(scene.name, token, occupancy == "instances") if shows_labels else None
        return Sample(
            token=token,
            scene=scene.name,
            timestamp=int(frames["sample_time"][row]) / 1e6,
            ego2global=ego2global,
            cameras=self._camera_frames(row),
            lidar=lidar[0] if lidar else None,
            boxes=self._boxes(row, ego2global) if with_boxes else None,
            occupancy=read_labels(path) if path else None,
            history=tuple(self._camera_frames(r, strict=False) for r in earlier),
            history_ego2global=tuple(self._key_pose(r) for r in earlier),
            lidar_sweeps=tuple(sweeps),
            camera_sweeps=self._camera_sweeps(row, camera_sweeps) if camera_sweeps else None,
            has_poses=bool(frames["scene_has_poses"][frames["sample_scene"][row]]),
        )

    @cached_property
    def _key_channel(self) -> str:
        """The sensor whose time and pose define the keyframe's ego frame, or "" without a LiDAR: then it is the first camera."""
        lidars = [c for c, modality in self.channels.items() if modality == "lidar"]
        return "LIDAR_TOP" if "LIDAR_TOP" in lidars else (lidars or [""])[0]

    def _key_file(self, row: int) -> int:
        """Row of the file that defines the keyframe's pose."""
        files = dict(zip(self.channels, self._index.frames["key_file"][row].tolist(), strict=True))
        for channel in (self._key_channel, *self.cameras, *files):
            if files.get(channel, -1) >= 0:
                return files[channel]
        token = self._index.frames["sample_token"][row].decode()
        raise DataError(f"the keyframe {token} in {self.folder} has no sensor file. Restore sample_data.json from its source.")

    def _key_pose(self, row: int) -> np.ndarray:
        """ego2global (4, 4) of a keyframe."""
        return ego_poses(self.folder, self._index.frames, np.array([self._key_file(row)]))[0]

    def _camera_frames(self, row: int, strict: bool = True) -> tuple[CameraFrame, ...]:
        """Images of a keyframe; with `strict`, each of the chosen cameras must have one."""
        frames, names = self._index.frames, list(self.channels)
        files = frames["key_file"][row, [names.index(c) for c in self.cameras]]
        if strict and self._chosen_cameras and (files < 0).any():
            token, camera = frames["sample_token"][row].decode(), self.cameras[int(np.argmax(files < 0))]
            raise DataError(f"the keyframe {token} in {self.folder} has no image of {camera}. Leave it out of data.cameras.")
        return self._frames_of_cameras(frames, files[files >= 0], row)

    def _frames_of_cameras(self, table: Arrays, files: np.ndarray, row: int) -> tuple[CameraFrame, ...]:
        shared, calibration = self._index.frames, table["file_calibration"][files]
        is_own_rig = shared["scene_location"][shared["sample_scene"][row]] == OWN_RIG.encode()
        cam2ego, ego2global = sensor_poses(self.folder, shared, calibration), ego_poses(self.folder, table, files)
        intrinsics, sizes = camera_intrinsics(self.folder, shared, calibration), image_sizes(self.folder, table, files)
        return tuple(
            CameraFrame(
                channel=shared["channel"][shared["calibration_channel"][c]].decode(),
                path=inside(self.root, table["file_name"][f].decode()),
                timestamp=int(table["file_time"][f]) / 1e6,
                intrinsics=intrinsics[i],
                cam2ego=cam2ego[i],
                ego2global=ego2global[i],
                size=(int(sizes[i, 0]), int(sizes[i, 1])),
                is_own_rig=bool(is_own_rig),
            )
            for i, (f, c) in enumerate(zip(files, calibration, strict=True))
        )

    def _lidar_frames(self, table: Arrays, files: np.ndarray) -> list[LidarFrame]:
        lidar2ego = sensor_poses(self.folder, self._index.frames, table["file_calibration"][files])
        ego2global = ego_poses(self.folder, table, files)
        return [
            LidarFrame(inside(self.root, table["file_name"][f].decode()), int(table["file_time"][f]) / 1e6, lidar2ego[i], ego2global[i])
            for i, f in enumerate(files)
        ]

    def annotations(self, token: str) -> tuple[np.ndarray, Arrays]:
        """ego2global (4, 4) of a keyframe, and its annotations as the tables state them, in the global frame.

        The columns are those of `index_build.build_boxes`; `pose` holds rows (x, y, z, qw, qx, qy, qz), and `category` and `attribute` are
        positions in `category_name` and `attribute_name`, or -1. Raises DataError for an unknown token, and for a box that cannot be.
        """
        row = self._row(token)
        ego2global, found = self._key_pose(row), self._annotations(row)
        box_poses(self.folder, found, ego2global)
        return ego2global, found

    def count_boxes(self, tokens: Iterable[str], min_points: int = 1) -> int:
        """Boxes of the ten detection classes in these keyframes that hold at least `min_points` LiDAR or radar points."""
        return int(self.class_counts(tokens, min_points).sum())

    def class_counts(self, tokens: Iterable[str], min_points: int = 1) -> np.ndarray:
        """Such boxes by keyframe and class, (N, 10) in the order of DETECTION_CLASSES."""
        table, start = self._index.boxes, self._index.boxes["start"]
        names = [detection_class(name.decode()) for name in table["category_name"]]
        is_class = np.array([[name == detected for detected in DETECTION_CLASSES] for name in names]).reshape(-1, len(DETECTION_CLASSES))
        good = is_class[table["category"]] & (table["num_lidar_pts"] + table["num_radar_pts"] >= min_points)[:, None]
        count = np.concatenate([np.zeros((1, good.shape[1]), np.int64), np.cumsum(good, 0)])  # of the boxes up to a row
        rows = np.array([self._row(token) for token in tokens], np.int64)
        return count[start[rows + 1]] - count[start[rows]]

    def other_boxes(self, tokens: Iterable[str]) -> dict[str, int]:
        """Boxes of these keyframes that are of none of the ten detection classes, by category, the most frequent first."""
        table, start = self._index.boxes, self._index.boxes["start"]
        rows = [self._row(token) for token in tokens]
        found = np.concatenate([np.zeros(0, np.int64), *(table["category"][start[row] : start[row + 1]] for row in rows)])
        counts = zip(table["category_name"], np.bincount(found, minlength=len(table["category_name"])).tolist(), strict=True)
        others = {name.decode(): count for name, count in counts if count and not detection_class(name.decode())}
        return dict(sorted(others.items(), key=lambda item: -item[1]))

    def _annotations(self, row: int) -> Arrays:
        """Columns of the annotations of a keyframe, and the tables of names that they refer to."""
        table = self._index.boxes
        part = slice(int(table["start"][row]), int(table["start"][row + 1]))
        shared = {"start", "category_name", "attribute_name", "instance_token"}
        return {name: values if name in shared else values[part] for name, values in table.items()}

    def _boxes(self, row: int, ego2global: np.ndarray) -> Boxes:
        table, global2ego = self._annotations(row), invert(ego2global)
        box2ego = global2ego @ box_poses(self.folder, table, ego2global)
        velocity = table["velocity"] @ global2ego[:3, :3].T
        categories = [table["category_name"][c].decode() for c in table["category"]]
        return Boxes(
            boxes=np.concatenate([box2ego[:, :3, 3], table["size"], yaw_of(box2ego[:, :3, :3])[:, None], velocity[:, :2]], 1),
            box2ego=box2ego,
            names=[detection_class(c) or c for c in categories],
            tokens=[t.decode() for t in table["token"]],
            instances=[table["instance_token"][i].decode() for i in table["instance"]],
            attributes=["" if a < 0 else table["attribute_name"][a].decode() for a in table["attribute"]],
            visibility=table["visibility"],
            num_lidar_pts=table["num_lidar_pts"],
            num_radar_pts=table["num_radar_pts"],
        )

    def hide_labels(self, split: str, share: float, seed: int = 0, by: Literal["scene", "keyframe"] = "scene") -> None:
        """Hide voxel and map labels of a split, but for this share of its scenes or keyframes, drawn by `seed`.

        Of one seed a larger share holds a smaller one. `labelled` names what is drawn. Raises DataError for an unknown split, and for a
        share that leaves none.
        """
        groups = {token: self.scene(token).name if by == "scene" else token for token in self.tokens(split)}
        names = list(dict.fromkeys(groups.values()))
        count = round(share * len(names))
        if not count:
            raise DataError(
                f"data.labelled_share={share:g} of the {len(names)} {by}s of split {split!r} in {self.root} leaves none with labels. "
                + (f"Use data.labelled_share={1 / len(names):.2g} or more" if len(names) > 1 else "Leave data.labelled_share=1")
                + (", or set data.labelled_by=keyframe." if by == "scene" else ".")
            )
        self.labelled = tuple(sorted(sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:count]))
        self._unlabelled = frozenset(token for token, name in groups.items() if name not in self.labelled)

    def hides_labels(self, token: str) -> bool:
        """Whether `hide_labels` took the voxel and map labels of a keyframe away."""
        return token in self._unlabelled

    def labels_path(self, scene: str, token: str, instances: bool = False) -> Path | None:
        """The label file of a keyframe, or None without one. `instances` prefers the panoptic variant; else it is the fallback."""
        paths = [labels_path(self.root, scene, token, panoptic) for panoptic in (instances, not instances)]
        found = next((path for path in paths if path.is_file()), None)
        return None if found is None else inside(self.root, found)

    # ---- between keyframes --------------------------------------------------------------------------------------------------

    def _place(self, row: int, column: int) -> tuple[int, int]:
        """Where in `sweeps` the files of a keyframe's scene and channel begin, and where the keyframe's own is, or would be."""
        frames, sweeps = self._index.frames, self._index.sweeps
        group, key = int(frames["sample_scene"][row]) * len(self.channels) + column, int(frames["key_file"][row, column])
        start, stop = (int(v) for v in sweeps["start"][group : group + 2])
        time = frames["file_time"][key] if key >= 0 else frames["sample_time"][row]
        return start, start + int(np.searchsorted(sweeps["file_time"][start:stop], time))

    def _earlier(self, row: int, channel: str, count: int) -> np.ndarray:
        """Rows in `sweeps` of up to `count` files of `channel` before the keyframe's own file, newest first."""
        start, end = self._place(row, list(self.channels).index(channel))
        return np.arange(end - 1, max(start, end - count) - 1, -1)

    @cached_property
    def _has_camera_sweeps(self) -> bool:
        """Whether there are images between keyframes."""
        files = np.diff(self._index.sweeps["start"]).reshape(-1, len(self.channels)).sum(0)
        keyframes = (self._index.frames["key_file"] >= 0).sum(0)
        is_camera = np.array([channel in self.cameras for channel in self.channels])
        return bool((files > keyframes)[is_camera].any())

    def _camera_sweeps(self, row: int, count: int) -> tuple[tuple[CameraFrame, ...], ...] | None:
        """Up to `count` moments of the keyframe's cameras before it, newest first; None where the database has keyframes alone.

        The cameras are paired by counting back from a keyframe, and meet again at the keyframe before: there may be one image more of a
        camera between two keyframes, of which the oldest is left out. So is a keyframe in which a camera failed.
        """
        if not self._has_camera_sweeps:
            return None
        frames, names = self._index.frames, list(self.channels)
        columns = [column for column in map(names.index, self.cameras) if frames["key_file"][row, column] >= 0]
        first = int(np.searchsorted(frames["sample_scene"], frames["sample_scene"][row]))
        moments: list[np.ndarray] = []  # rows in `sweeps`, by camera
        ends = np.array([self._place(row, column)[1] for column in columns])
        for earlier in range(row - 1, first - 1, -1):
            keys, are_there = np.array([self._place(earlier, column)[1] for column in columns]), frames["key_file"][earlier, columns] >= 0
            moments += [ends - k for k in range(1, int((ends - keys - are_there).min()) + 1)]
            moments += [keys] if are_there.all() else []
            ends = keys
            if len(moments) >= count:
                break
        files = self._frames_of_cameras(self._index.sweeps, np.array(moments[:count], np.int64).ravel(), row)
        return tuple(files[i : i + len(columns)] for i in range(0, len(files), len(columns)))

    def lidar_poses(self, scene: str) -> tuple[np.ndarray, np.ndarray]:
        """lidar2ego and ego2global (K, 4, 4) of the K keyframes of a scene, in time order. Raises DataError without a LiDAR."""
        if not self._key_channel:
            raise DataError(f"{self.root} has no LiDAR, but ray metrics need its origins. Choose other metrics, or data with a LiDAR.")
        frames = self._index.frames
        files = [self._key_file(self._row(token)) for token in self._scene_of[scene].tokens]
        mounts = sensor_poses(self.folder, frames, frames["file_calibration"][files])
        return mounts, ego_poses(self.folder, frames, np.array(files))

    # ---- labels of points ---------------------------------------------------------------------------------------------------

    @cached_property
    def categories(self) -> dict[int, str]:
        """Category name by lidarseg id, as category.json says (never assume the order)."""
        with following_schema(self.folder):
            rows = [row for row in load_table(self.folder, "category") if "index" in row]
            return {int(np.uint8(row["index"])): check_name(row["name"], f"a category in {self.folder}") for row in rows}

    @cached_property
    def _point_labels(self) -> dict[str, dict[str, str]]:
        """By table (lidarseg, panoptic): file by sample_data token."""
        there = {name: (self.folder / f"{name}.json").is_file() for name in OPTIONAL_TABLES}
        with following_schema(self.folder):
            found = {name: load_table(self.folder, name) if is_there else [] for name, is_there in there.items()}
            return {name: {row["sample_data_token"]: row["filename"] for row in rows} for name, rows in found.items()}

    def has_point_labels(self, token: str) -> bool:
        """Whether the tables name lidarseg labels of a keyframe."""
        return self.point_label_file(token) is not None

    def point_label_file(self, token: str) -> Path | None:
        """Where the tables say that the lidarseg labels of a keyframe are; None without."""
        file_token = self._index.frames["file_token"][self._key_file(self._row(token))].decode()
        name = self._point_labels["lidarseg"].get(file_token)
        return None if name is None else inside(self.root, name)

    def point_labels(self, token: str) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Class ids (P,) uint8 and instance ids (P,) uint16 (None without panoptic labels) of the keyframe's LiDAR points.

        Returns None when the keyframe does not have lidarseg labels. Raises DataError when a file is missing or damaged.
        """
        file_token = self._index.frames["file_token"][self._key_file(self._row(token))].decode()
        names = (self._point_labels[name].get(file_token) for name in OPTIONAL_TABLES)
        segments, panoptic = (None if name is None else inside(self.root, name) for name in names)
        if segments is None:
            return None
        check_is_file(segments, "file of point labels")
        try:
            classes = np.fromfile(segments, np.uint8)
        except OSError as error:
            raise DataError(f"cannot read the point labels {segments} of keyframe {token}: {error}. Restore the file.") from error
        if panoptic is None:
            return classes, None
        ids = read_arrays(panoptic, ("data",), "file of point labels", "Restore it.", 8 * (len(classes) + _ROOM))[0].get("data")
        if ids is None or ids.shape != classes.shape or ids.dtype.kind not in "ui":
            held = "no array 'data'" if ids is None else f"{ids.dtype} of shape {ids.shape}"
            raise DataError(f"the point labels {panoptic} hold {held}, where {len(classes)} integers are needed. Restore the file.")
        return classes, ids % 1000


def left_out_reason(root: Path) -> str:
    """Why a scene of the tables was left out, and what to do about it."""
    return (
        f"is left out: it has timestamps outside 0 to {TIME_LIMIT - 1}, so they are not microseconds since 1970. Import it again with the "
        f"right unit, or correct sample.json and sample_data.json. `frustum check {root}` names all such scenes."
    )
