"""What each kind of layer looks like: which pictures there are, and that marks and colours land where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.geometry import VoxelGrid
from frustum.types.classes import OCC3D_FREE
from frustum.types.layers import BoxLayer, Calibration, ImageLayer, Legend, MapLayer, PixelLayer, PointLayer, ViewLayer
from frustum.viewer.boxes import boxes_above, boxes_in_image, depth_colours, points_above, reach_of
from frustum.viewer.drawing import AGREEMENT, compare, confident, draw_panel
from frustum.viewer.report_data import Question, SamplePanel
from tests.viewer.volumes import layer

RED, BLUE = (230, 20, 20), (20, 20, 230)
LEGEND = Legend(("red", "blue"), (RED, BLUE))
GREEN, YELLOW = AGREEMENT[0][1], AGREEMENT[1][1]
SIZE = (40, 60)


def drawn(prediction=(), truth=(), images=(), cameras=()):
    panel = SamplePanel("a", images, [Question("Anything", prediction, truth)], cameras=cameras)
    (question,) = draw_panel(panel, SIZE, 2)
    return question


def names(question, tab=0):
    return [[picture.name for picture in row] for row in question.tabs[tab][1]]


def near(image, colour, tolerance=40):
    return np.abs(image.astype(int) - colour).max(-1) < tolerance


def volume(seed=0, share=0.2, shape=(20, 20, 6)):
    rng = np.random.default_rng(seed)
    labels = np.full(shape, OCC3D_FREE, np.uint8)
    occupied = rng.random(shape) < share
    labels[occupied] = rng.integers(0, 17, occupied.sum())
    return labels


def box(x, y, yaw=0.0):
    return [x, y, 0.0, 6.0, 3.0, 2.0, yaw, 0.0, 0.0]


def boxes(*rows, scores=None):
    return BoxLayer(np.array(rows), np.zeros(len(rows), int), LEGEND, scores)


# ---- voxels and maps --------------------------------------------------------------------------------------------------------


def test_compare_names_each_case():
    prediction = np.array([4, 4, OCC3D_FREE, 4, OCC3D_FREE, 4], np.uint8)
    truth = np.array([4, 5, 4, OCC3D_FREE, OCC3D_FREE, 255], np.uint8)
    known = [n for n, _ in AGREEMENT] + [None]
    found = [known[i] for i in compare(prediction, truth, OCC3D_FREE)]
    assert found == ["right class", "wrong class", "missed", "invented", None, None]


def test_voxels_of_what_is_there():
    both = drawn([layer(volume())], [layer(volume(1), np.ones((20, 20, 6)))])
    assert [name for name, _ in both.tabs] == ["All voxels", "Inside the mask"]
    expected = [["prediction", "truth"], ["prediction from above", "truth from above", "agreement"]]
    assert names(both) == names(both, 1) == expected
    (view, _), (_, _, agreement) = both.tabs[0][1]
    assert view.image.shape == (40, 60, 3)
    assert agreement.image.shape == (40, 40, 3)
    assert agreement.key == AGREEMENT
    assert "free" not in both.legend
    assert both.legend["car"] == (22, 128, 240)
    alone = drawn([layer(volume())])
    assert names(alone) == [["prediction", "prediction from above"]]
    assert len(alone.tabs) == 1
    assert draw_panel(SamplePanel("a")) == []


def test_masks_hide_what_was_not_observed():
    """Truth and prediction are drawn inside the mask of the truth in the second tab; their agreement in both."""
    mask = np.zeros((20, 20, 6), bool)
    question = drawn([layer(volume())], [layer(volume(1), mask)])
    every, inside = ({p.name: p.image for row in rows for p in row} for _, rows in question.tabs)
    assert not np.array_equal(every["prediction"], inside["prediction"])
    assert np.array_equal(inside["prediction"], inside["truth"]), "nothing was observed, nothing is drawn"
    assert np.array_equal(every["agreement"], inside["agreement"])


def test_voxels_of_other_cells_are_shown_but_not_compared():
    question = drawn([layer(volume(shape=(10, 10, 6)))], [layer(volume(1), np.ones((20, 20, 6), bool))])
    assert names(question) == [["prediction", "truth"], ["prediction from above", "truth from above"]]
    assert len(question.tabs) == 1, "the mask does not fit the prediction"


def test_maps_have_forward_up_and_left_at_the_left():
    grid = VoxelGrid(lower=(-10.0, -10.0, -5.0), upper=(10.0, 10.0, 3.0), cell=(1.0, 1.0, 8.0))
    labels = np.zeros((20, 20), np.uint8)  # rows along y, columns along x
    labels[18, 15] = 1  # y = 8.5, x = 5.5: ahead on the left
    true = labels.copy()
    true[2, 15] = 255  # unknown: neither drawn nor compared
    wrong = labels.copy()
    wrong[2, 2] = 1
    question = drawn([MapLayer(wrong, LEGEND, 0, grid)], [MapLayer(true, LEGEND, 0, grid)])
    assert names(question) == [["prediction", "truth", "agreement"]]
    prediction, truth, agreement = (picture.image for picture in question.tabs[0][1][0])
    assert prediction.shape == (600, 600, 3)
    rows, columns = np.nonzero(near(truth, BLUE, 60))
    assert (rows.min() // 30, rows.max() // 30, columns.min() // 30, columns.max() // 30) == (4, 4, 1, 1)
    assert near(agreement, GREEN, 60)[rows, columns].mean() > 0.9
    rows, columns = np.nonzero(near(agreement, AGREEMENT[3][1], 60))
    assert (rows.min() // 30, columns.min() // 30) == (17, 17), "invented: behind on the right"
    assert question.legend == {"blue": BLUE}


# ---- boxes and points -------------------------------------------------------------------------------------------------------


def test_boxes_from_above():
    """A box ahead on the left is drawn in the upper left quarter, its heading line beyond its front."""
    picture = boxes_above(boxes(box(20, 15)), reach=40)
    assert picture.shape == (560, 560, 3)
    rows, columns = np.nonzero(near(picture, RED, 90))
    assert abs(rows.mean() - (280 - 20 * 7)) < 6
    assert abs(columns.mean() - (280 - 15 * 7)) < 6
    length, width = np.ptp(rows) / 7, np.ptp(columns) / 7
    assert 6.5 < length < 8, "6 m, and 1.2 m of the heading"
    assert 2.8 < width < 4


def test_low_scores_are_faint_and_truth_lies_below():
    strong, weak = (boxes_above(boxes(box(20, 15), scores=np.array([s])), 40).astype(int)[:, :174] for s in (1.0, 0.1))
    empty = boxes_above(BoxLayer(np.zeros((0, 9)), np.zeros(0, int), LEGEND), 40)
    assert np.abs(strong - empty[:, :174]).max() > 1.5 * np.abs(weak - empty[:, :174]).max() > 0  # left of the number
    outlined = boxes_above(BoxLayer(np.zeros((0, 9)), np.zeros(0, int), LEGEND), 40, boxes(box(20, 15)))
    assert np.abs(outlined.astype(int) - empty).max() > 60


def test_a_score_that_is_no_number_is_seen_and_hides_no_other_box():
    rows = [box(20, 15), box(-20, 15)]
    (sure, faulty), (_, alone) = ([boxes(row, scores=np.array([score])) for row in rows] for score in (1.0, np.nan))
    beside = boxes(*rows, scores=np.array([1.0, np.nan]))
    assert np.array_equal(boxes_above(alone, 40)[:, :174], boxes_above(faulty, 40)[:, :174]), "as strong; left of the number"
    assert len(confident(beside).boxes) == len(confident(alone).boxes) + len(confident(sure).boxes) == 2


def changed(picture, than):
    """Rows and columns of the pixels that differ between two pictures."""
    return np.nonzero(np.abs(picture.astype(int) - than).max(-1) > 40)


def test_velocities_from_above():
    """5 m/s to the left is an arrow of 5 m to the left; what stands, or whose velocity is not known, has none; none is above 20 m."""
    still = boxes_above(boxes(box(20, 0)), 40)
    for velocity in ((0.3, 0.3), (np.nan, np.nan)):
        assert np.array_equal(boxes_above(boxes([*box(20, 0)[:7], *velocity]), 40), still)
    for speed, length in ((5.0, 5.0), (25.0, 20.0)):
        rows, columns = changed(boxes_above(boxes([*box(20, 0)[:7], 0.0, speed]), 40), still)
        assert abs(280 - columns.min() - 7 * length) < 5
        assert abs(rows.mean() - (280 - 7 * 20)) < 3


def test_the_best_scores_are_written_beside_their_boxes():
    """Below on the right of the centre; of the truth, which has none, and of boxes after the best twenty there is nothing to write."""
    row, truth = box(20, 0), boxes_above(boxes(box(20, 0)), 40)
    rows, columns = changed(boxes_above(boxes(row, scores=np.array([1.0])), 40), truth)
    assert 140 < rows.mean() < 165
    assert 284 < columns.mean() < 306
    many = boxes(row, *[box(-30, 30)] * 20, scores=np.array([0.5] + [0.9] * 20))
    others = boxes(row, *[box(-30, 30)] * 19, scores=np.array([0.5] + [0.9] * 19))
    there = [boxes_above(layer, 40)[140:170, 292:310] for layer in (many, others)]
    assert np.abs(there[0].astype(int) - there[1]).max() > 40


def test_a_score_is_not_written_over_a_higher_one():
    def beside(*rows, scores):
        return boxes_above(boxes(*rows, scores=np.array(scores)), 40)[140:170, 292:310].astype(int)

    row, apart = box(20, 0), box(18.2, 0)  # 12.6 pixels below
    alone = beside(row, scores=[0.8])
    assert np.array_equal(beside(row, row, scores=[0.2, 0.8]), alone)
    assert np.abs(beside(row, apart, scores=[0.8, 0.2])[15:] - alone[15:]).max() > 100, "there is room"


@pytest.mark.parametrize(("points", "reach"), [([], 50), ([[3.0, 4.0]], 20), ([[-33.0, 4.0]], 40), ([[3.0, 900.0]], 60)])
def test_the_view_reaches_as_far_as_it_needs(points, reach):
    assert reach_of(np.array(points).reshape(-1, 2)) == reach


def test_boxes_in_calibrated_images():
    """A box 20 m ahead is drawn in the middle of the image of a camera that looks ahead, and not in that of one that looks back."""
    ahead = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    back = ahead @ np.diag([-1.0, -1, 1, 1])
    intrinsics = np.array([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]])
    images = [("CAM_FRONT", np.zeros((100, 200, 3), np.uint8)), ("CAM_BACK", np.zeros((100, 200, 3), np.uint8))]
    cameras = [Calibration(intrinsics, ahead), Calibration(intrinsics, back)]
    question = drawn([boxes(box(20, 0))], [boxes(box(20, 0))], images, cameras)
    assert names(question) == [["front", "back"], ["predicted boxes from above", "true boxes from above"]]
    front, behind = (picture.image for picture in question.tabs[0][1][0])
    rows, columns = np.nonzero(front.max(-1) > 60)
    assert front.shape == (400, 800, 3)
    assert abs(rows.mean() - 200) < 4
    assert abs(columns.mean() - 400) < 4
    assert 55 < np.ptp(columns) < 80, "3 m at 17 m, in an image that is four times as large"
    assert not behind.any()
    assert names(drawn([boxes(box(20, 0))], images=images)) == [["predicted boxes from above"]], "no calibration, no boxes in images"
    alone = boxes_in_image(images[0][1], cameras[0], None, boxes(box(20, 0)))
    assert alone.max() > 150


def test_boxes_far_below_the_best_are_not_drawn():
    """Those with less than a fifth of the best score: neither from above nor in images. Of an unsure network the best ones are."""
    ahead = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    images = [("CAM_FRONT", np.zeros((100, 200, 3), np.uint8))]
    cameras = [Calibration(np.array([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]]), ahead)]
    for best in (0.9, 0.1):
        rows, scores = [box(30, 8), box(20, 0), box(25, -8)], best * np.array([1.0, 0.1, 0.3])
        many = drawn([boxes(*rows, scores=scores)], images=images, cameras=cameras)
        few = drawn([boxes(rows[0], rows[2], scores=scores[[0, 2]])], images=images, cameras=cameras)
        for first, second in zip(many.tabs[0][1], few.tabs[0][1], strict=True):
            assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_no_boxes_at_all():
    none = BoxLayer(np.zeros((0, 9)), np.zeros(0, int), LEGEND, np.zeros(0))
    assert names(drawn([none], [none])) == [["predicted boxes from above", "true boxes from above"]]


def test_points_from_above():
    """High points lie over low ones."""
    points = np.array([[10.0, -5.0, 2.0], [10.0, -5.0, 0.0], [-30.0, 5.0, 0.0]])
    picture = points_above(PointLayer(points, np.array([RED, BLUE, BLUE], np.uint8)), reach=40)
    assert near(picture, RED, 90)[280 - 72 : 280 - 68, 280 + 33 : 280 + 38].any()
    assert near(picture, BLUE, 90)[280 + 208 : 280 + 213, 280 - 37 : 280 - 33].any()
    assert not near(picture, BLUE, 90)[:280].any()


# ---- images -----------------------------------------------------------------------------------------------------------------


def test_pixels_over_the_photograph():
    """Classes colour the photograph; what is ignored shows it as it is."""
    photo = np.full((60, 120, 3), 200, np.uint8)
    true = np.zeros((60, 120), np.uint8)
    true[:, 80:] = 255
    guess = np.zeros((30, 60), np.uint8)  # a network's smaller image
    guess[:15] = 1
    question = drawn([PixelLayer(guess, LEGEND)], [PixelLayer(true, LEGEND)], [("camera", photo)])
    assert names(question) == [["prediction", "truth", "agreement"]]
    prediction, truth, agreement = (picture.image for picture in question.tabs[0][1][0])
    assert prediction.shape == (30, 60, 3)
    assert (truth[:, 80:] == 200).all()
    assert (agreement[:, 80:] == 200).all()
    mixed = lambda colour: 0.38 * 200 + 0.62 * np.array(colour)  # noqa: E731
    assert near(truth[:, :80], mixed(RED), 4).all()
    assert near(prediction[:15], mixed(BLUE), 4).all()
    assert near(agreement[:30, :80], mixed(YELLOW), 4).all()
    assert near(agreement[30:, :80], mixed(GREEN), 4).all()
    assert question.tabs[0][1][0][2].key == AGREEMENT[:2]
    wide = drawn([PixelLayer(np.zeros((500, 4096), np.uint8), LEGEND)])
    assert wide.tabs[0][1][0][0].image.shape == (125, 1024, 3), "without a photograph, and not larger than needed"


def test_views_lie_on_their_part_of_the_photograph():
    """A view of the lower right quarter of a photograph, at half its pixels: class and depth beside the true ones."""
    photo = np.zeros((40, 80, 3), np.uint8)
    photo[20:, 60:] = 200
    camera = Calibration(np.array([[50.0, 0, 40], [0, 50.0, 20], [0, 0, 1]]), np.eye(4))
    lens = np.array([[25.0, 0, 0], [0, 25.0, 0], [0, 0, 1]])  # pixel (0, 0) is the middle of the photograph
    labels, depth = np.full((10, 20), 255, np.uint8), np.zeros((10, 20), np.float32)
    labels[:5, :4], depth[:5, :4] = 1, 5.0
    layer = ViewLayer(labels, depth, lens, LEGEND)
    question = drawn([layer], [layer], [("CAM_FRONT", photo)], [camera])
    assert names(question) == [
        ["front, predicted class", "front, true class", "front, predicted depth, red near", "front, true depth, red near"]
    ]
    classes, _, depths, _ = (picture.image for picture in question.tabs[0][1][0])
    scale = classes.shape[1] // 20
    assert near(classes[: 5 * scale, : 4 * scale], 0.62 * np.array(BLUE), 4).all()
    assert near(depths[: 5 * scale, : 4 * scale], 0.62 * depth_colours(np.array([5.0])), 4).all()
    assert (classes[scale:, 5 * scale : 9 * scale] == 0).all()
    assert (classes[scale:, 11 * scale :] == 200).all(), "the bright part of the photograph"
    assert question.legend == {"red": RED, "blue": BLUE}
    assert names(drawn([layer])) == [["predicted class", "predicted depth, red near"]], "without a photograph"


def test_images_and_several_kinds_in_one_question():
    picture = ImageLayer(np.full((20, 30, 3), 7, np.uint8), "a face")
    points = PointLayer(np.zeros((1, 3)), np.zeros((1, 3), np.uint8))
    question = drawn([picture, points, picture], [picture])
    assert names(question) == [["a face", "a face"], ["a face"], ["predicted points from above"]]
    assert (question.tabs[0][1][0][0].image == 7).all()
    assert question.legend == {}
