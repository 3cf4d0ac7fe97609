"""Class names, ids and colours of nuScenes and Occ3D. Refer to classes by name; the orders differ between systems."""

from __future__ import annotations

from typing import NamedTuple

OCC3D_CLASSES: tuple[str, ...] = (
    "others", "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian", "traffic_cone", "trailer",
    "truck", "driveable_surface", "other_flat", "sidewalk", "terrain", "manmade", "vegetation", "free",
)  # fmt: skip
OCC3D_FREE = OCC3D_CLASSES.index("free")
FLAT_CLASSES: tuple[str, ...] = ("driveable_surface", "other_flat", "sidewalk", "terrain")

DETECTION_CLASSES: tuple[str, ...] = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
)  # fmt: skip
"""The ten detection classes in the training order of mmdet3d, BEVDet and FlashOCC."""

OCC3D_COLOURS: tuple[tuple[int, int, int], ...] = (
    (90, 90, 90), (255, 120, 50), (255, 192, 203), (255, 215, 0), (0, 150, 245), (0, 200, 200), (200, 180, 0), (230, 30, 40),
    (255, 240, 150), (135, 60, 0), (160, 32, 240), (160, 80, 170), (139, 137, 137), (95, 25, 95), (120, 190, 70), (205, 200, 190),
    (20, 140, 40), (255, 255, 255),
)  # fmt: skip
"""RGB per Occ3D class for pictures."""


class GeneralClass(NamedTuple):
    """One of nuScenes' 32 general classes (lidarseg ids are the position in GENERAL_CLASSES)."""

    name: str
    detection: str | None
    occ3d: str


GENERAL_CLASSES: tuple[GeneralClass, ...] = (
    GeneralClass("noise", None, "others"),
    GeneralClass("animal", None, "others"),
    GeneralClass("human.pedestrian.adult", "pedestrian", "pedestrian"),
    GeneralClass("human.pedestrian.child", "pedestrian", "pedestrian"),
    GeneralClass("human.pedestrian.construction_worker", "pedestrian", "pedestrian"),
    GeneralClass("human.pedestrian.personal_mobility", None, "others"),
    GeneralClass("human.pedestrian.police_officer", "pedestrian", "pedestrian"),
    GeneralClass("human.pedestrian.stroller", None, "others"),
    GeneralClass("human.pedestrian.wheelchair", None, "others"),
    GeneralClass("movable_object.barrier", "barrier", "barrier"),
    GeneralClass("movable_object.debris", None, "others"),
    GeneralClass("movable_object.pushable_pullable", None, "others"),
    GeneralClass("movable_object.trafficcone", "traffic_cone", "traffic_cone"),
    GeneralClass("static_object.bicycle_rack", None, "others"),
    GeneralClass("vehicle.bicycle", "bicycle", "bicycle"),
    GeneralClass("vehicle.bus.bendy", "bus", "bus"),
    GeneralClass("vehicle.bus.rigid", "bus", "bus"),
    GeneralClass("vehicle.car", "car", "car"),
    GeneralClass("vehicle.construction", "construction_vehicle", "construction_vehicle"),
    GeneralClass("vehicle.emergency.ambulance", None, "others"),
    GeneralClass("vehicle.emergency.police", None, "others"),
    GeneralClass("vehicle.motorcycle", "motorcycle", "motorcycle"),
    GeneralClass("vehicle.trailer", "trailer", "trailer"),
    GeneralClass("vehicle.truck", "truck", "truck"),
    GeneralClass("flat.driveable_surface", None, "driveable_surface"),
    GeneralClass("flat.other", None, "other_flat"),
    GeneralClass("flat.sidewalk", None, "sidewalk"),
    GeneralClass("flat.terrain", None, "terrain"),
    GeneralClass("static.manmade", None, "manmade"),
    GeneralClass("static.other", None, "others"),
    GeneralClass("static.vegetation", None, "vegetation"),
    GeneralClass("vehicle.ego", None, "others"),
)
DETECTION_OF_CATEGORY: dict[str, str] = {c.name: c.detection for c in GENERAL_CLASSES if c.detection}

CAMERAS: tuple[str, ...] = (
    "CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT",
)  # fmt: skip
"""nuScenes' six cameras in FlashOCC's order."""
