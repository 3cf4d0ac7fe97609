"""Colour error: L*a*b* against published numbers, means by part, merging."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.errors import DataError, ShapeError
from frustum.metrics.colour_error import ColourError, to_lab


def test_lab_of_known_colours():
    """Lindbloom's numbers for sRGB under D65."""
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [119, 119, 119]])
    wanted = [[0, 0, 0], [100, 0, 0], [53.2408, 80.0925, 67.2032], [87.7347, -86.1827, 83.1793], [32.2970, 79.1875, -107.8602]]
    np.testing.assert_allclose(to_lab(colours)[:5], wanted, atol=2e-3)
    assert to_lab(colours)[5, 0] == pytest.approx(50.03, abs=0.01)


def test_means_of_parts():
    image, labels = np.full((4, 6, 3), 119, np.uint8), np.zeros((4, 6), int)
    labels[:2, :3], labels[2:, :3] = 1, 2
    other = image.copy()
    other[:2, :3] = 255  # part 1 is white
    other[:, 3:] = 0  # counts nowhere
    whole, parts = ColourError(3), [ColourError(3), ColourError(3)]
    for i, pred in enumerate((other, image)):
        whole.add(pred, image, labels)
        parts[i].add(pred, image, labels)
    found = whole.compute()
    assert found["by_part"][:2] == pytest.approx([(100 - 50.03) / 2, 0], abs=0.01)
    assert np.isnan(found["by_part"][2])
    assert found["error"] == pytest.approx((100 - 50.03) / 4, abs=0.01)
    assert str(parts[0].merge(parts[1]).compute()) == str(found)
    assert np.isnan(ColourError(2).compute()["error"])
    for wrong in (image / 255, image * 2.5, -1.0 * image):
        with pytest.raises(DataError, match="but must be 0 to 255"):
            whole.add(wrong, image, labels)
    with pytest.raises(DataError, match="parts are 1 to 3"):
        whole.add(image, image, labels * 2)
    with pytest.raises(ShapeError):
        whole.add(image[:2], image, labels)
