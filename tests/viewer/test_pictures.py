"""Sheets of one sample."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from frustum.types.classes import CAMERAS, OCC3D_FREE
from frustum.viewer.pictures import (
    AGREEMENT,
    camera_rows,
    compare,
    data_uri,
    occupancy_pictures,
    pretty_channel,
    resized,
    sample_picture,
)
from frustum.viewer.report_data import SamplePanel


def volume(seed=0, share=0.2, shape=(20, 20, 6)):
    rng = np.random.default_rng(seed)
    labels = np.full(shape, OCC3D_FREE, np.uint8)
    occupied = rng.random(shape) < share
    labels[occupied] = rng.integers(0, 17, occupied.sum())
    return labels


def photo(seed=0, size=(48, 128)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def test_six_cameras_are_laid_out_as_they_look():
    names = ["CAM_BACK", "CAM_FRONT", "CAM_BACK_LEFT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK_RIGHT"]
    assert [[names[i] for i in row] for row in camera_rows(names)] == [list(CAMERAS[:3]), list(CAMERAS[3:])]


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (8, 2), (11, 3)])
def test_any_number_of_cameras_has_a_layout(count, rows):
    layout = camera_rows([f"c{i}" for i in range(count)])
    assert len(layout) == rows
    assert [i for row in layout for i in row] == list(range(count))


def test_channel_names_for_people():
    assert pretty_channel("CAM_FRONT_LEFT") == "front left"
    assert pretty_channel("image_02") == "image 02"


def test_compare_names_each_case():
    prediction = np.array([4, 4, OCC3D_FREE, 4, OCC3D_FREE, 4], np.uint8)
    truth = np.array([4, 5, 4, OCC3D_FREE, OCC3D_FREE, 255], np.uint8)
    names = [n for n, _ in AGREEMENT] + [None]
    found = [names[i] for i in compare(prediction, truth)]
    assert found == ["right class", "wrong class", "missed", "invented", None, None]


def test_data_uri_holds_a_jpeg_of_the_wanted_width():
    image = photo(size=(60, 200))
    for width, expected in ((100, (100, 30)), (400, (200, 60)), (None, (200, 60))):
        head, _, body = data_uri(image, width=width).partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(body))).size == expected
    assert resized(image, 50).shape == (15, 50, 3)


def test_pictures_of_what_is_there():
    size = (40, 60)
    both = occupancy_pictures(SamplePanel("a", prediction=volume(), truth=volume(1), mask_camera=np.ones((20, 20, 6))), size=size, scale=2)
    assert all(p is not None for p in both[:5])
    assert both.prediction.shape == (40, 60, 3)
    assert both.agreement_top.shape == (40, 40, 3)
    alone = occupancy_pictures(SamplePanel("a", prediction=volume()), size=size)
    assert alone.truth is None
    assert alone.agreement_top is None
    assert all(p is None for p in occupancy_pictures(SamplePanel("a"), size=size))


@pytest.mark.parametrize("cameras", [0, 1, 2, 6])
@pytest.mark.parametrize("parts", ["prediction", "prediction truth mask", "truth", ""])
def test_a_sheet_of_any_parts_is_a_picture(cameras, parts):
    names = CAMERAS if cameras == 6 else [f"c{i}" for i in range(cameras)]
    panel = SamplePanel(
        "scene & token",
        [(name, photo(i)) for i, name in enumerate(names)],
        prediction=volume() if "prediction" in parts else None,
        truth=volume(1) if "truth" in parts else None,
        mask_camera=np.ones((20, 20, 6), bool) if "mask" in parts else None,
        caption="a caption",
    )
    sheet = sample_picture(panel, width=600, masked="mask" in parts)
    assert sheet.mode == "RGB"
    assert sheet.width == 600
    assert sheet.height > 100
    pixels = np.asarray(sheet).astype(int)
    assert pixels[:70, :300].min() < 120  # the title
    right, bottom = pixels[:, -20:], pixels[-20:]
    assert (right == right[0, 0]).all()  # nothing runs over the margins
    assert (bottom == bottom[0, 0]).all()


def test_the_images_are_in_the_sheet():
    red = np.zeros((30, 60, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    blue = np.zeros((30, 60, 3), np.uint8) + np.array([0, 0, 200], np.uint8)
    pixels = np.asarray(sample_picture(SamplePanel("t", [("left", red), ("right", blue)]), width=400)).astype(int)
    is_red, is_blue = (np.abs(pixels - c).max(-1) < 8 for c in ((200, 0, 0), (0, 0, 200)))
    assert is_red.sum() == is_blue.sum() > 1000
    assert np.nonzero(is_red)[1].max() < np.nonzero(is_blue)[1].min()
