"""The classes of public sets of images with label maps: names in the order of their ids, and the colours that the sets publish."""

from __future__ import annotations

from typing import NamedTuple

Colours = tuple[tuple[int, int, int], ...]


class PixelClasses(NamedTuple):
    """Names and RGB colours of the classes 0, 1, ...; no colours where this table does not have those of the set."""

    names: tuple[str, ...]
    colours: Colours = ()


def voc_colours(count: int) -> Colours:
    """The colours that Pascal VOC gives to the ids 0, 1, ...: the bits of an id, three at a time, are the high bits of the channels."""
    return tuple(
        (red, green, blue)
        for i in range(count)
        for red, green, blue in [[sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]]
    )


CAMVID = PixelClasses(
    ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128), (64, 64, 128),
        (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
"""CamVid with the 11 classes of SegNet."""

CITYSCAPES = PixelClasses(
    (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person",
        "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    (
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30), (220, 220, 0),
        (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100),
        (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
"""The 19 evaluated classes of Cityscapes, by training id."""

VOC = PixelClasses(
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
        "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ),
    voc_colours(21),
)  # fmt: skip
"""Pascal VOC 2012: 20 classes and the background."""

_ADE20K = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table, mountain, "
    "plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, "
    "wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, "
    "fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, "
    "bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, "
    "swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, "
    "television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, "
    "van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, "
    "minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, "
    "sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, "
    "radiator, glass, clock, flag"
)
ADE20K = PixelClasses(tuple(_ADE20K.split(", ")))
"""The 150 classes of ADE20K's scene parsing challenge."""

FACE = PixelClasses(
    (
        "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose", "mouth", "u_lip", "l_lip",
        "neck", "neck_l", "cloth", "hair", "hat",
    ),
    (
        (0, 0, 0), (204, 110, 100), (76, 153, 0), (120, 200, 40), (51, 51, 255), (90, 140, 255), (0, 220, 220), (204, 0, 204),
        (240, 100, 240), (255, 255, 0), (255, 175, 120), (250, 250, 250), (255, 60, 90), (180, 0, 50), (255, 153, 51), (255, 215, 120),
        (0, 130, 90), (110, 70, 180), (102, 204, 0),
    ),
)  # fmt: skip
"""Parts of a portrait: the 19 classes of CelebAMask-HQ in the order of its parsing network (zllrunning); the colours are ours. l_ and r_
are the person's left and right, u_lip and l_lip the upper and the lower lip; eye_g are glasses, ear_r earrings, neck_l a necklace."""

KNOWN = (CAMVID, CITYSCAPES, VOC, ADE20K, FACE)


def published_colours(names: tuple[str, ...]) -> Colours:
    """The colours of a set with exactly these classes; empty for others."""
    return next((known.colours for known in KNOWN if known.names == names), ())
