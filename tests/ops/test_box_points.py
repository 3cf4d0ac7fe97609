import numpy as np

from frustum.geometry import points_in_boxes, pose, rotation_xyz
from frustum.ops.box_points import count_points_in_boxes


def test_counting_points_equals_the_plain_way():
    rng = np.random.default_rng(0)
    points = rng.uniform(-6, 6, (3000, 3))
    boxes = np.stack([pose(rotation_xyz(*rng.uniform(-1, 1, 3)), rng.uniform(-4, 4, 3)) for _ in range(9)])
    sizes = rng.uniform(0.5, 5, (9, 3))
    counts = count_points_in_boxes(points, boxes, sizes)
    np.testing.assert_array_equal(counts, points_in_boxes(points, boxes, sizes).sum(0))
    assert (counts > 0).any()
    assert counts.dtype == np.int64
    assert count_points_in_boxes(points, boxes[:0], sizes[:0]).shape == (0,)
    np.testing.assert_array_equal(count_points_in_boxes(points[:0], boxes, sizes), np.zeros(9))


def test_faces_belong_to_the_box():
    box, size = np.eye(4)[None], np.array([[2.0, 4.0, 6.0]])
    faces = np.array([[1.0, 0, 0], [0, -2.0, 0], [0, 0, 3.0], [1.0, 2.0, 3.0]])
    assert count_points_in_boxes(faces, box, size).tolist() == [4]
    assert count_points_in_boxes(faces * (1 + 1e-12), box, size).tolist() == [0]
