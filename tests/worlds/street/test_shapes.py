import numpy as np
import pytest

from frustum.worlds.street.materials import MATERIAL_ID
from frustum.worlds.street.shapes import Carver


def test_box_fills_whole_cells():
    c = Carver(2, 1, 1, 0.1).box(-1, 1, -0.5, 0.5, 0, 0.3, "body")
    assert (c.cells > 0).sum() == 20 * 10 * 3
    assert set(np.unique(c.cells)) == {0, MATERIAL_ID["body"]}


def test_sides_are_mirror_images():
    c = Carver(1, 1, 1, 0.1).sides(-0.2, 0.3, 0.2, 0.4, 0.1, 0.5, "glass")
    assert c.cells.any()
    assert (c.cells == c.cells[:, ::-1]).all()


def test_later_solids_overwrite_and_air_cuts():
    c = Carver(1, 1, 1, 0.1).box(-1, 1, -1, 1, 0, 1, "body").box(0, 1, -1, 1, 0, 1, "air")
    assert not c.cells[5:].any()
    assert c.cells[:5].all()


def test_recolour_touches_only_solids():
    c = Carver(1, 1, 1, 0.1).box(-0.5, 0, -1, 1, 0, 1, "body")
    c.recolour(c.z < 0.5, "chassis")
    assert (c.cells[:5, :, :5] == MATERIAL_ID["chassis"]).all()
    assert not c.cells[5:].any()


@pytest.mark.parametrize("radius", [0.3, 0.5])
def test_wheel_is_round_and_stands_on_the_ground(radius):
    c = Carver(2, 1, 1.2, 0.05).wheel(0.0, 0.0, radius, 0.2)
    area = (c.cells > 0).any(1).sum() * 0.05**2
    assert area == pytest.approx(np.pi * radius**2, rel=0.06)
    model = c.model()
    assert model.size[0] == pytest.approx(2 * radius, abs=0.051)
    assert model.size[2] == pytest.approx(2 * radius, abs=0.051)


def test_ellipsoid_has_its_volume():
    c = Carver(3, 3, 3, 0.1).ellipsoid((0, 0, 1.5), (1.2, 0.8, 1.0), "skin")
    assert (c.cells > 0).sum() * 0.1**3 == pytest.approx(4 / 3 * np.pi * 1.2 * 0.8, rel=0.03)


def test_rod_reaches_both_ends():
    c = Carver(2, 2, 2, 0.1).rod((-0.5, 0, 0.5), (0.5, 0, 1.5), 0.16, "body")
    x, z = c.x[:, 0, 0], c.z[0, 0]
    side = (c.cells > 0).any(1)
    for a, b in ((-0.5, 0.5), (0.0, 1.0), (0.5, 1.5)):
        assert side[np.argmin(abs(x - a)), np.argmin(abs(z - b))]
    assert not side[np.argmin(abs(x + 0.5)), np.argmin(abs(z - 1.5))]


def test_profile_interpolates_the_side_view():
    c = Carver(2, 1, 1, 0.1)
    height = c.profile([(-1, 0.0), (1, 1.0)])[:, 0, 0]
    assert np.allclose(height, (c.x[:, 0, 0] + 1) / 2)


def test_model_is_cropped_centred_and_on_the_ground():
    model = Carver(4, 3, 2, 0.1).box(0.5, 1.5, -1, -0.4, 0.6, 1.1, "body").model()
    assert model.cells.shape == (10, 6, 5)
    assert model.cells.all()
    assert np.allclose(model.origin, (-0.5, -0.3, 0.0))
    assert np.allclose(model.size, (1.0, 0.6, 0.5))
    assert not model.cells.flags.writeable
