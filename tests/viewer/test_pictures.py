"""Sheets of one sample."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from frustum.types.classes import CAMERAS, OCC3D_FREE
from frustum.types.layers import BoxLayer, Legend
from frustum.viewer.cameras import camera_rows, data_uri, pretty_channel, resized
from frustum.viewer.drawing import DrawnQuestion, Picture
from frustum.viewer.pictures import fit_row, key_lines, sample_picture
from frustum.viewer.report_data import Question, SamplePanel
from tests.viewer.volumes import layer


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


def test_a_single_image_stands_beside_what_is_predicted_of_it():
    """Where the proportions are those of the image; a map of voxels stays in a row of its own."""
    image, like, unlike = photo(), Picture("prediction", photo(1, (24, 64))), Picture("prediction", photo(2, (64, 64)))

    def height(picture: Picture) -> int:
        question = DrawnQuestion("", [("", [[picture]])], {})
        return sample_picture(SamplePanel("a", [("image", image)]), width=800, drawn=[question]).height

    assert height(like) < 360 < height(unlike)
    many = SamplePanel("a", [("image", image), ("other", image)])
    assert sample_picture(many, width=800, drawn=[DrawnQuestion("", [("", [[like]])], {})]).height > height(like) + 100


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (8, 2), (11, 3)])
def test_any_number_of_cameras_has_a_layout(count, rows):
    layout = camera_rows([f"c{i}" for i in range(count)])
    assert len(layout) == rows
    assert [i for row in layout for i in row] == list(range(count))


def test_other_rigs_with_front_and_back_are_laid_out_too():
    names = ["rear", "back right", "front right", "front left", "back left", "front centre", "back centre"]
    rows = camera_rows(names[1:])
    assert [[names[1:][i] for i in row] for row in rows] == [
        ["front left", "front centre", "front right"],
        ["back left", "back centre", "back right"],
    ]
    assert camera_rows(names) == [[0, 1, 2, 3], [4, 5, 6]], "a seventh camera has no place in such a layout"


def test_channel_names_for_people():
    assert pretty_channel("CAM_FRONT_LEFT") == "front left"
    assert pretty_channel("image_02") == "image 02"


def test_data_uri_holds_a_jpeg_of_the_given_width():
    image = photo(size=(60, 200))
    for width, expected in ((100, (100, 30)), (400, (200, 60)), (None, (200, 60))):
        head, _, body = data_uri(image, width=width).partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(body))).size == expected
    assert resized(image, 50).shape == (15, 50, 3)


@pytest.mark.parametrize("cameras", [0, 1, 2, 6])
@pytest.mark.parametrize("parts", ["prediction", "prediction truth mask", "truth", ""])
def test_a_sheet_of_any_parts_is_a_picture(cameras, parts):
    names = CAMERAS if cameras == 6 else [f"c{i}" for i in range(cameras)]
    prediction = [layer(volume())] if "prediction" in parts else []
    truth = [layer(volume(1), np.ones((20, 20, 6), bool) if "mask" in parts else None)] if "truth" in parts else []
    questions = [Question("Occupancy", prediction, truth)] if parts else []
    panel = SamplePanel("scene & token", [(name, photo(i)) for i, name in enumerate(names)], questions)
    sheet = sample_picture(panel, width=600)
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


def test_questions_lie_below_each_other_with_their_headings():
    one = Question("Occupancy", [layer(volume())])
    sheets = [sample_picture(SamplePanel("t", questions=[one] * count), width=600) for count in (1, 2)]
    first, second = (np.asarray(sheet) for sheet in sheets)
    assert second.shape[0] > 1.7 * first.shape[0]
    headings = [second[92:120, 32:150].min(), first[92:100, 32:150].min()]
    assert headings[0] < 120, "two questions are named"
    assert headings[1] > 80, "one needs no heading"


def test_a_legend_is_broken_into_lines():
    """All entries in their order, as many in a line as fit; a name that is too long has a line of its own."""
    key = tuple((name, (200, 0, 0)) for name in ("car", "construction_vehicle", "bus", "a name that is longer than a whole line", "dog"))
    lines = key_lines(key, 290, 16)
    assert [name for line in lines for name, _ in line] == [name for name, _ in key]
    assert [len(line) for line in lines] == [2, 1, 1, 1]
    assert key_lines((), 290, 16) == []


def test_the_classes_are_named_below_a_question():
    """In the colours of the boxes; a sheet without classes has no such lines."""
    found = BoxLayer(np.zeros((0, 9)), np.zeros(0, int), Legend(("car", "bus"), ((0, 0, 200), (200, 0, 0))), np.zeros(0))
    pixels = np.asarray(sample_picture(SamplePanel("t", questions=[Question("Boxes", [found])]), width=600)).astype(int)
    place = [np.nonzero(np.abs(pixels - colour).max(-1) < 8) for colour in ((0, 0, 200), (200, 0, 0))]
    assert all(len(rows) > 4 and rows.min() > pixels.shape[0] - 80 for rows, _ in place)
    assert place[0][1].max() < place[1][1].min(), "in their order"


def test_rows_fill_the_sheet_and_stay_within_it():
    tall, flat = photo(size=(300, 100)), photo(size=(100, 400))
    for row in ([flat], [tall], [tall, flat], [flat, flat, flat], [tall, tall, flat, flat]):
        fitted = [picture.image for picture in fit_row([Picture("", image) for image in row], 800, 10)]
        assert sum(image.shape[1] for image in fitted) + 10 * (len(row) - 1) <= 802
        heights = [image.shape[0] for image in fitted]
        assert max(heights) - min(heights) <= 3
        assert max(heights) <= 402
