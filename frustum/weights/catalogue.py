"""Published weights: what they are called, where their authors publish them, under which licence, and which recipe loads them.

Plain data, without torch. `frustum weights list` prints it. Nothing here is downloaded by frustum: get a file yourself, then convert it.
"""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN = "unknown"
_OCCUPANCY = "Occ3D-nuScenes validation, 6019 keyframes, inside the camera mask, mean over 17 classes, EMA weights"
_MASKLESS = "a row of the repository's README; trained without the camera mask"
_WARP = f"{_OCCUPANCY}; past maps most likely warped at test time"
_PANOPTIC = (
    "Occ3D-nuScenes validation, EMA weights, trained without the camera mask; mIoU inside the camera mask, RayIoU and RayPQ over 1, 2, 4 m"
)
_APACHE = "Apache-2.0"


class Entry(NamedTuple):
    """One published file.

    Attributes:
        name: unique here.
        project: who published it.
        where: a page, a Google Drive id, or a file of the project that names the place.
        licence: as its project states it; of the repository where nothing else is said.
        file: expected file name.
        size: bytes, or "unknown".
        published: the authors' figures (percent), or "".
        protocol: what these were measured under.
        recipe: the recipe of ours that loads it, or "".
        source: the `--source` that converts it, or "".
        status: what we measured with it.
        note: what one should know.
    """

    name: str
    project: str
    where: str
    licence: str = UNKNOWN
    file: str = UNKNOWN
    size: int | str = UNKNOWN
    published: str = ""
    protocol: str = ""
    recipe: str = ""
    source: str = ""
    status: str = "not yet measured here"
    note: str = ""


_FLASHOCC = "github.com/Yzichen/FlashOCC"
_FOLDER = "Google Drive folder 1cgCsbXgikoP10lj6DBC7Le9C-UOCIxlN"
_EPOCH = "epoch_24_ema.pth"


def _flashocc(name: str, drive: str, file: str, published: str, protocol: str = _OCCUPANCY, recipe: str = "", note: str = "") -> Entry:
    return Entry(name, _FLASHOCC, f"Google Drive {drive}", _APACHE, file, UNKNOWN, published, protocol, recipe, "flashocc", note=note)


def _panoptic(name: str, published: str, recipe: str = "", note: str = "") -> Entry:
    full = f"panoptic-flashocc-r50-{name}"
    return Entry(full, _FLASHOCC, _FOLDER, _APACHE, _EPOCH, UNKNOWN, published, _PANOPTIC, recipe, "flashocc", note=note)


def _bevdet(name: str, started: str, published: str = "", protocol: str = "") -> Entry:
    note = f"{started} started from it: frustum train RECIPE --init FILE"
    where = "linked in the BEVDet repository (Baidu)"
    return Entry(name, "BEVDet", where, _APACHE, f"{name}.pth", UNKNOWN, published, protocol, note=note)


CATALOGUE: tuple[Entry, ...] = (
    _flashocc(
        "flashocc-r50-M0", "14my3jdqiIv6VIrkozQ6-ruEcBOPVlWGJ", "flashocc-r50-M0-256x704.pth", "mIoU 31.95", recipe="flashocc-r50-m0"
    ),
    _flashocc(
        "flashocc-r50", "1k9BzXB2nRyvXhqf7GQx3XNSej6Oq6I-B", "flashocc-r50-256x704.pth", "mIoU 32.08", recipe="flashocc-r50", note="M1"
    ),
    _flashocc(
        "flashocc-r50-maskless", "14XsvjSwp-vLpy_eBZzvKo3MAh-YWRHcu", UNKNOWN, "mIoU 15.41", _MASKLESS, "flashocc-r50",
        "M1 trained without the camera mask",
    ),
    _flashocc("flashocc-r50-4d-stereo", "12WYaCdoZA8-A6_oh6vdLgOmqyEc3PNCe", UNKNOWN, "mIoU 37.84", _WARP, "flashocc-r50-4d-stereo", "M2"),
    _flashocc(
        "flashocc-stbase-4d-stereo-512x1408", "1f6E6Bm6enIJETSEbfXs57M0iOUU997kU", UNKNOWN, "mIoU 43.52", _WARP,
        "flashocc-swin-b-4d-stereo", "M3, Swin-B",
    ),
    _panoptic("depth-tiny", "mIoU 28.83, RayIoU 34.57", "panoptic-flashocc-tiny", "without instances"),
    _panoptic("depth-tiny-pano", "mIoU 29.14, RayIoU 34.81, RayPQ 12.9", "panoptic-flashocc-tiny"),
    _panoptic("depth", "mIoU 28.91, RayIoU 34.93", "panoptic-flashocc-depth", "has the centre head, too"),
    _panoptic("depth-pano", "mIoU 29.39, RayIoU 35.22, RayPQ 13.2", "panoptic-flashocc-depth"),
    _panoptic("depth4d", "mIoU 29.57, RayIoU 35.99", "panoptic-flashocc-depth4d", "without instances"),
    _panoptic("depth4d-pano", "mIoU 30.31, RayIoU 36.76, RayPQ 14.5", "panoptic-flashocc-depth4d"),
    _panoptic("depth4d-longterm8f", "mIoU 31.49, RayIoU 38.51", "panoptic-flashocc-longterm8f", "without instances; 8 past frames"),
    _panoptic("depth4d-longterm8f-pano", "mIoU 31.57, RayIoU 38.50, RayPQ 16.0", "panoptic-flashocc-longterm8f", "8 past frames"),
    _panoptic("depth4d-longterm16f", "mIoU 31.55, RayIoU 38.31", "panoptic-flashocc-longterm16f", "without instances; 16 past frames"),
    _bevdet("bevdet-r50-cbgs", "FlashOCC M0 and M1", "mAP 30.85 to 31.3, NDS 39.4 to 39.8", "nuScenes detection, validation"),
    _bevdet("bevdet-r50-4d-depth-cbgs", "Panoptic-FlashOcc"),
    _bevdet("bevdet-r50-4d-stereo-cbgs", "FlashOCC M2", "mAP 38.36, NDS 49.95", "nuScenes detection, validation"),
    _bevdet("bevdet-stbase-4d-stereo-512x1408-cbgs", "FlashOCC M3"),
    Entry(
        "simplebev-rgb", "github.com/aharley/simple_bev", "Dropbox, linked in get_rgb_model.sh", file="model-000025000.pth",
        note="predicts doubled centre offsets: halve them before grouping instances",
    ),
    Entry(
        "dinov2-vits14", "github.com/facebookresearch/dinov2",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth", "Apache-2.0",
        "dinov2_vits14_pretrain.pth", 88_283_115, note="a teacher for feature distillation; the size is that of a re-upload",
    ),
    Entry("pspnet-r101-d8", "OpenMMLab", "download.openmmlab.com", note="a teacher for distillation"),
    Entry(
        "heser-pytorch", "github.com/LeslieZhoa/HeSer.Pytorch", "release v0.0 of the repository", "MIT",
        "417-00000000.pth, 073-00000000.pth", note="unofficial; aligner and blender, overfitted to one identity",
    ),
    Entry(
        "ghost-2.0", "github.com/ai-forever/ghost-2.0", "release of the repository", "Apache-2.0 (code)",
        "aligner_1020_gaze_final.ckpt, blender_lama.ckpt", note="its third-party parts have terms of their own",
    ),
)  # fmt: skip


SOURCES: tuple[str, ...] = tuple(dict.fromkeys(entry.source for entry in CATALOGUE if entry.source))
"""Upstream projects whose files can be read: the adapters of weights/upstream.py."""


def entries(part: str) -> tuple[Entry, ...]:
    """The entry of that name, upper and lower case being the same, or else those whose names hold `part`."""
    low = part.lower()
    exact = tuple(found for found in CATALOGUE if found.name.lower() == low)
    return exact or tuple(found for found in CATALOGUE if low in found.name.lower())


def recipe_of(name: str) -> str:
    """The recipe that loads the entry `name`; empty when there is none yet."""
    return next((entry.recipe for entry in CATALOGUE if entry.name == name), "")
