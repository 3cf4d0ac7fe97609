"""Class names, ids and colours of nuScenes and Occ3D. Refer to classes by name; the orders differ between systems."""

from __future__ import annotations

OCC3D_CLASSES: tuple[str, ...] = (
    "others", "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian", "traffic_cone", "trailer",
    "truck", "driveable_surface", "other_flat", "sidewalk", "terrain", "manmade", "vegetation", "free",
)  # fmt: skip
OCC3D_FREE = OCC3D_CLASSES.index("free")
IGNORE = 255
"""Label of voxels and pixels that no metric and no loss counts."""
FLAT_CLASSES: tuple[str, ...] = ("driveable_surface", "other_flat", "sidewalk", "terrain")

DETECTION_CLASSES: tuple[str, ...] = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
)  # fmt: skip
"""The ten detection classes in the training order of mmdet3d, BEVDet and FlashOCC."""

ATTRIBUTES: tuple[str, ...] = (
    "vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider",
    "pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving",
)  # fmt: skip
"""Attributes of nuScenes' boxes: what an object does."""

OBJECT_CLASSES: tuple[str, ...] = tuple(name for name in DETECTION_CLASSES if name not in ("barrier", "traffic_cone"))
"""The classes whose objects panoptic occupancy separates (SparseOcc)."""

OCC3D_COLOURS: tuple[tuple[int, int, int], ...] = (
    (120, 122, 130), (255, 128, 48), (255, 138, 190), (252, 200, 40), (22, 128, 240), (0, 178, 172), (158, 148, 20), (230, 30, 52),
    (255, 226, 120), (148, 78, 32), (134, 62, 224), (98, 104, 124), (160, 136, 158), (202, 172, 166), (170, 200, 120), (226, 212, 186),
    (38, 134, 74), (255, 255, 255),
)  # fmt: skip
"""RGB per Occ3D class for pictures: quiet ground and buildings on which saturated objects stand out; neighbours differ in lightness."""


def colour_of(name: str) -> tuple[int, int, int]:
    """RGB of a class of nuScenes or Occ3D for pictures; that of `others` for any other name."""
    return OCC3D_COLOURS[OCC3D_CLASSES.index(name) if name in OCC3D_CLASSES else 0]


OCC3D_OF_CATEGORY: dict[str, str] = {
    "noise": "others", "animal": "others", "human.pedestrian.adult": "pedestrian", "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian", "human.pedestrian.personal_mobility": "others",
    "human.pedestrian.police_officer": "pedestrian", "human.pedestrian.stroller": "others", "human.pedestrian.wheelchair": "others",
    "movable_object.barrier": "barrier", "movable_object.debris": "others", "movable_object.pushable_pullable": "others",
    "movable_object.trafficcone": "traffic_cone", "static_object.bicycle_rack": "others", "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus", "vehicle.bus.rigid": "bus", "vehicle.car": "car", "vehicle.construction": "construction_vehicle",
    "vehicle.emergency.ambulance": "others", "vehicle.emergency.police": "others", "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer", "vehicle.truck": "truck", "flat.driveable_surface": "driveable_surface", "flat.other": "other_flat",
    "flat.sidewalk": "sidewalk", "flat.terrain": "terrain", "static.manmade": "manmade", "static.other": "others",
    "static.vegetation": "vegetation", "vehicle.ego": "others",
}  # fmt: skip
"""nuScenes' 32 general categories and the Occ3D class of each; lidarseg ids are the positions here."""
DETECTION_OF_CATEGORY: dict[str, str] = {name: occ3d for name, occ3d in OCC3D_OF_CATEGORY.items() if occ3d in DETECTION_CLASSES}


def detection_class(category: str) -> str:
    """The detection class of a category of nuScenes, or of a category that has the name of one; "" for any other."""
    return category if category in DETECTION_CLASSES else DETECTION_OF_CATEGORY.get(category, "")


CAMERAS: tuple[str, ...] = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
"""nuScenes' six cameras in FlashOCC's order."""
