"""The tables of public sets' classes."""

from __future__ import annotations

from frustum.data.images.cityscapes import CLASS_NAMES
from frustum.types.layers import Legend
from frustum.types.pixel_classes import ADE20K, CAMVID, CITYSCAPES, KNOWN, VOC, published_colours, voc_colours


def test_names_and_colours_belong_together():
    assert [len(known.names) for known in (CAMVID, CITYSCAPES, VOC, ADE20K)] == [11, 19, 21, 150]
    for known in KNOWN:
        assert len(set(known.names)) == len(known.names)
        assert len(set(known.colours)) in (0, len(known.names))
    assert CITYSCAPES.names == CLASS_NAMES


def test_the_colours_of_voc():
    assert voc_colours(4) == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert VOC.colours[15] == (192, 128, 128), "a person"


def test_pictures_have_the_published_colours():
    assert published_colours(("road", "sky")) == ()
    assert Legend.of(CITYSCAPES.names).colours == CITYSCAPES.colours
    assert len(Legend.of(ADE20K.names).colours) == 150
