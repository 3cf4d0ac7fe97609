"""`frustum check`: what is inconsistent in a data set, found from the files themselves.

Every keyframe is checked by itself (files, images, projection, boxes against points, labels against boxes, masks, times); the fit of
the LiDAR on the images is judged per camera over all keyframes together, and how a camera is mounted is reported once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from frustum.data.check.findings import SEVERITIES, Finding, Severity
from frustum.data.check.projection import MIN_EDGES, REACH, EdgeFit
from frustum.data.check.rig import inspect_mounting, likely_mistake, same_poses
from frustum.data.check.tables import inspect_tables
from frustum.data.labels.depth import lidar2camera
from frustum.data.nuscenes.reader import NuScenes, left_out_reason
from frustum.data.pixels import upright
from frustum.data.sample import Boxes, CameraFrame, Occupancy, Sample
from frustum.errors import DataError
from frustum.geometry import VoxelGrid, invert, points_in_boxes, transform_points
from frustum.ops.box_points import count_points_in_boxes
from frustum.types.classes import DETECTION_CLASSES, IGNORE, OCC3D_CLASSES, OCC3D_FREE, OCC3D_OF_CATEGORY

_OFF_MIDDLE, _OFF_BOTH = 0.25, 0.15  # of a side of the image, from its middle: along one, as of a crop, and along both
_STRETCH = 1.05
_RESTORE = "Restore the file from its source."
_PROJECTION_HINT = (
    "Look at the pictures: if points lie next to their objects, check cam2ego (order w, x, y, z; camera to ego and not back), the "
    "intrinsics (of this image size) and the time stamps."
)


def inspect(
    dataset: NuScenes,
    tokens: Sequence[str] | None = None,
    *,
    grid: VoxelGrid | None = None,
    progress: Callable[[str, Sequence[str]], Iterable[str]] | None = None,
) -> list[Finding]:
    """Look for inconsistencies.

    Args:
        dataset: the data set, opened with LiDAR where it has one.
        tokens: keyframes to inspect; all by default.
        grid: where the voxels of the labels lie; Occ3D's by default. Boxes are compared with labels of this shape only.
        progress: wraps the loop over tokens, `progress(title, tokens)`.

    Returns:
        Findings, worst first.

    Raises:
        DataError: a table is missing or damaged; without tables there is nothing to inspect.
    """
    tokens = dataset.tokens() if tokens is None else tokens
    grid = grid or VoxelGrid.occ3d()
    findings = inspect_tables(dataset.folder)
    for scene in dataset.left_out:
        findings.append(Finding("error", "", f"the scene {scene} {left_out_reason(dataset.root)}", "The other scenes can be used."))
    if invalid := dataset.invalid_files([*dataset.tokens(), *sorted(dataset.imageless)]):
        first, count = next(iter(invalid.values()))[0], sum(map(len, invalid.values()))
        what = (
            f"{count} files of {len(invalid)} keyframes are marked with is_valid: false in sample_data.json and are left out: {first} first"
        )
        hint = (
            f"Keyframes that they belong to have fewer cameras, or no LiDAR; {len(dataset.imageless)} without any image are left out too."
        )
        findings.append(Finding("note", "", what, hint))
    fits: dict[str, EdgeFit] = defaultdict(EdgeFit)
    mounted: dict[Finding, None] = {}  # the same in every keyframe: reported once
    labelled: list[bool] = []
    for token in progress("checking", tokens) if progress else tokens:
        try:
            sample = dataset.sample(token)
        except DataError as error:
            findings.append(Finding("error", token, str(error), _RESTORE))
            continue
        labelled.append(sample.occupancy is not None)
        points = _scan(sample, findings)
        for camera in sample.cameras:
            findings += _check_camera(sample, camera, points, fits)
            if np.isfinite(camera.cam2ego).all():
                mounted.update(dict.fromkeys(inspect_mounting(camera)))
        mounted.update(dict.fromkeys(same_poses(sample.cameras)))
        if (mistake := likely_mistake(sample.cameras)) is not None:
            mounted[mistake] = None
        findings += _check_times(sample)
        if points is not None:
            findings += _check_counts(sample, points)
        if sample.occupancy is not None:
            findings += _check_labels(sample, sample.occupancy, grid)
    if any(labelled) and not all(labelled):
        what = f"{labelled.count(False)} of {len(labelled)} keyframes have no occupancy labels"
        findings.append(Finding("warning", "", what, "Extract all of gts/, or train and evaluate on a split that has labels."))
    findings += [*mounted, *(finding for channel, fit in fits.items() if (finding := judge(channel, fit)))]
    findings += [*_lacking_cameras(dataset), *_other_categories(dataset)]
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def _lacking_cameras(dataset: NuScenes) -> Iterator[Finding]:
    """Keyframes of the whole data set without a camera that their scene has, and scenes without one that others have."""
    for channel, tokens in dataset.lacking_cameras(dataset.tokens()).items():
        what = f"{len(tokens)} of {len(dataset.tokens())} keyframes have no image of {channel}, which their scene has: {tokens[0]} first"
        yield Finding("warning", "", what, "They are predicted and scored with fewer cameras. Restore sample_data.json or leave them out.")
    for channel, scenes in dataset.scenes_without().items():
        what = f"{len(scenes)} of {len(dataset.scenes)} scenes have no {channel}, which others have: {scenes[0]} first"
        yield Finding("note", "", what, "Right for recordings of several rigs; else images or rows of sample_data.json are missing.")


def _other_categories(dataset: NuScenes) -> Iterator[Finding]:
    """What detection leaves out: usual for the other categories of nuScenes; of other names it may be a spelling."""
    try:
        others = dataset.other_boxes(dataset.tokens())
    except DataError:  # the first keyframe told
        return
    for known in (False, True):
        some = {name: count for name, count in others.items() if (name in OCC3D_OF_CATEGORY) == known}
        if some:
            named = ", ".join(f"{count} {name}" for name, count in some.items())
            what = f"{sum(some.values())} boxes are of none of the ten detection classes and are left out of training and scores: {named}"
            hint = f"Rename those that are meant in category.json, as nuScenes does or as the classes: {', '.join(DETECTION_CLASSES)}."
            yield Finding("note" if known else "warning", "", what, "Usual: nuScenes leaves them out too." if known else hint)


def judge(channel: str, fit: EdgeFit) -> Finding | None:
    """A finding if the scan would clearly fit the images better somewhere else."""
    if fit.edges < MIN_EDGES:
        return None
    right, down, gain = fit.best_shift()
    shift = max(abs(right), abs(down))
    enough = 0.35 if shift < 1.4 else 0.2  # pitch errors gain little: most edges of scans are upright and slide along themselves
    if shift < 0.9 or gain < enough or fit.contrast() < 2.5:
        return None
    across = f"{_degrees(right)} further {'right' if right > 0 else 'left'}"
    along = f"{_degrees(down)} further {'down' if down > 0 else 'up'}"
    what = f"the LiDAR does not sit on the images of {channel}: its edges fit best {across} and {along} ({fit.edges} edge points)"
    return Finding("warning", "", what, _PROJECTION_HINT)


def _degrees(shift: float) -> str:
    return f"{abs(shift):.1f} degrees" + (" or more" if abs(shift) >= REACH else "")


def _scan(sample: Sample, findings: list[Finding]) -> np.ndarray | None:
    """The LiDAR points (P, 5) of a keyframe, None where there are none or they cannot be used."""
    if sample.lidar is None:
        return None
    try:
        points, can_be = sample.lidar.load_all()
    except DataError as error:
        findings.append(Finding("error", sample.token, str(error), _RESTORE))
        return None
    if not can_be.all():
        what = f"{(~can_be).sum()} of {len(points)} LiDAR points are not finite, or over 10 km away: {sample.lidar.path.name}"
        hint = "They are left out. Usual for drivers that write missing returns as NaN; else restore the file from its source."
        findings.append(Finding("warning", sample.token, what, hint))
    return points[can_be]


def _check_camera(sample: Sample, camera: CameraFrame, points: np.ndarray | None, fits: dict[str, EdgeFit]) -> Iterator[Finding]:
    def finding(severity: Severity, what: str, hint: str) -> Finding:
        return Finding(severity, sample.token, f"{camera.channel}: {what}", hint)

    try:
        image = camera.open()
    except DataError as error:
        yield finding("error", str(error), _RESTORE)
        return
    height, width = camera.size
    size = f"{image.width} x {image.height}"
    if image.size != (width, height):
        hint = "The intrinsics belong to the stated size: scale them with the images, or restore the images."
        yield finding("error", f"the image has {size} pixels{upright(image)}, sample_data.json says {width} x {height}", hint)
    u, v = camera.intrinsics[:2, 2]
    principal_point = f"the principal point ({u:.0f}, {v:.0f})"
    if not (0 < u < image.width and 0 < v < image.height):
        hint = "The intrinsics belong to another image size, or cx and cy are exchanged."
        yield finding("error", f"{principal_point} lies outside the image of {size} pixels", hint)
    elif max(off := (abs(u / image.width - 0.5), abs(v / image.height - 0.5))) > _OFF_MIDDLE or min(off) > _OFF_BOTH:
        hint = "Right for a cropped image; else the intrinsics belong to another image size."
        yield finding("warning", f"{principal_point} is far from the middle of {size} pixels", hint)
    stretch = camera.intrinsics[1, 1] / camera.intrinsics[0, 0]
    if not 1 / _STRETCH < stretch < _STRETCH:
        hint = "Right for images that were stretched; else fx and fy belong to two image sizes, or one of them is wrong."
        yield finding("warning", f"fy is {stretch:.2f} times fx, so that its pixels are no squares", hint)
    field_of_view = 2 * np.degrees(np.arctan(image.width / 2 / camera.intrinsics[0, 0]))
    if not 8 < field_of_view < 150:
        yield finding("warning", f"the field of view is {field_of_view:.0f} degrees wide", "Check fx: is it in pixels of this image size?")
    if points is None or sample.lidar is None:
        return
    local = transform_points(lidar2camera(sample.lidar, camera), points[:, :3].astype(np.float64))
    pixels = local @ camera.intrinsics.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)
    hit = (local[:, 2] > 0.5) & (pixels >= 0).all(1) & (pixels < (image.width, image.height)).all(1)
    if hit.mean() < 0.02 * max(field_of_view, 8) / 360:
        what = f"only {hit.sum()} of {len(points)} LiDAR points fall into the image: it points at the sky, the ground or backwards"
        yield finding("error", what, _PROJECTION_HINT)
    else:
        fits[camera.channel].add(camera, image, sample.lidar, points)


def _check_times(sample: Sample) -> Iterator[Finding]:
    for camera in sample.cameras:
        late = camera.timestamp - sample.timestamp
        if abs(late) > 0.2:
            what = f"{camera.channel}: the image was taken {late:+.2f} s away from the keyframe"
            yield Finding("warning", sample.token, what, "Pair images and keyframes again by their time stamps.")
        distance = float(np.linalg.norm((invert(sample.ego2global) @ camera.ego2global)[:3, 3]))
        if distance > 1.0 + 70 * abs(late):
            what = f"{camera.channel}: the ego pose of the image is {distance:.1f} m from that of the keyframe, {late:+.3f} s apart"
            yield Finding("error", sample.token, what, "Check the ego poses: one global frame, metres, (w, x, y, z).")


def _check_counts(sample: Sample, points: np.ndarray) -> Iterator[Finding]:
    """Boxes against the numbers of points that their records state."""
    if sample.boxes is None or sample.lidar is None or len(sample.boxes) == 0:
        return
    lidar2ego = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
    ego = transform_points(lidar2ego, points[:, :3].astype(np.float64))
    counted = count_points_in_boxes(ego, sample.boxes.box2ego, sample.boxes.boxes[:, 3:6])
    stated = sample.boxes.num_lidar_pts
    empty = (stated == 0) & (sample.boxes.num_radar_pts == 0) & (counted == 0)
    if empty.any():
        what = f"{empty.sum()} of {len(stated)} boxes hold no point ({_names(sample.boxes, empty)})"
        yield Finding("note", sample.token, what, "Usual for hidden objects; detection training leaves them out.")
    wrong = np.abs(counted - stated) > np.maximum(2, 0.1 * np.maximum(counted, stated))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        what = (
            f"{wrong.sum()} of {len(stated)} boxes do not hold the LiDAR points that num_lidar_pts says ({_names(sample.boxes, wrong)}; "
            f"the first says {stated[first]} and holds {counted[first]})"
        )
        is_systematic = wrong.sum() > 0.5 * max(1, (stated > 0).sum()) and wrong.sum() > 1
        hint = "Check the calibration of the LiDAR (lidar to ego), the ego pose and the box format (centre; width, length, height)."
        yield Finding("error" if is_systematic else "warning", sample.token, what, hint)


def _check_labels(sample: Sample, labels: Occupancy, grid: VoxelGrid) -> Iterator[Finding]:
    if labels.semantics.shape != grid.shape:
        what = f"the labels have shape {labels.semantics.shape}, the grid has {grid.shape}"
        yield Finding("error", sample.token, what, "Make the labels again on this grid, which is that of Occ3D.")
        return
    beyond = int(((labels.mask_camera > 0) & (labels.mask_lidar == 0)).sum())
    if beyond:
        what = f"{beyond} voxels are in the camera mask but not in the LiDAR mask"
        yield Finding("warning", sample.token, what, "The camera mask must be a part of the LiDAR mask; make the labels again.")
    if not labels.mask_camera.any():
        what = "no voxel is in the camera mask, so this keyframe does not count in training or evaluation"
        yield Finding("warning", sample.token, what, "Make the labels again with the right camera calibration.")
    if sample.boxes is None:
        return
    boxes, sizes, lower, cell = sample.boxes, sample.boxes.boxes[:, 3:6], np.array(grid.lower), np.array(grid.cell)
    is_thing = np.isin(labels.semantics, [OCC3D_CLASSES.index(n) for n in DETECTION_CLASSES])
    index = np.argwhere(is_thing)
    names = np.array(OCC3D_CLASSES)[labels.semantics[is_thing]]
    inside = points_in_boxes(lower + (index + 0.5) * cell, boxes.box2ego, sizes + 2 * cell)
    outside = ~(inside & (names[:, None] == np.array(boxes.names, str)[None])).any(1)
    if outside.sum() > max(20, 0.1 * len(index)):
        kinds = ", ".join(sorted(set(names[outside])))
        what = f"{outside.sum()} of {len(index)} voxels of objects ({kinds}) lie outside every box of their class"
        yield Finding("warning", sample.token, what, "Labels and boxes are shifted against each other, or boxes are missing.")
    wrong = np.zeros(len(boxes), bool)
    for m, name in enumerate(boxes.names):
        if name in DETECTION_CLASSES and boxes.num_lidar_pts[m] >= 20:
            found = _labels_inside(labels.semantics, boxes.box2ego[m], sizes[m], lower, cell)
            found = found[(found != OCC3D_FREE) & (found != IGNORE)]
            wrong[m] = len(found) >= 8 and (found == OCC3D_CLASSES.index(name)).mean() < 0.3
    if wrong.any():
        what = f"{wrong.sum()} boxes hold voxels that are mostly of another class ({_names(boxes, wrong)})"
        yield Finding("warning", sample.token, what, "Labels and boxes are shifted against each other, or their classes differ.")


def _labels_inside(semantics: np.ndarray, box2ego: np.ndarray, size: np.ndarray, lower: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Labels of the voxels whose centres lie in a box, shrunk to leave out the ground below it."""
    reach = np.linalg.norm(size) / 2
    low = np.maximum(np.floor((box2ego[:3, 3] - reach - lower) / cell).astype(int), 0)
    high = np.minimum(np.ceil((box2ego[:3, 3] + reach - lower) / cell).astype(int), np.array(semantics.shape))
    index = low + np.indices(np.maximum(high - low, 0)).reshape(3, -1).T
    local = transform_points(invert(box2ego), lower + (index + 0.5) * cell)
    keep = (np.abs(local) <= size / 2).all(1) & (local[:, 2] > -size[2] / 2 + cell[2])
    return semantics[tuple(index[keep].T)]


def _names(boxes: Boxes, chosen: np.ndarray) -> str:
    kinds, counts = np.unique(np.array(boxes.names)[chosen], return_counts=True)
    return ", ".join(f"{n} {k}" for k, n in zip(kinds, counts, strict=True))
