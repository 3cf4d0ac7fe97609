"""What the cameras of a rig file show: the published window, unless that cuts the horizon off."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.geometry import horizon_row
from frustum.worlds.street.rigs import RigCamera, StreetRig

AHEAD = {"translation": (1.5, 0.0, 1.6), "rotation": (0.5, -0.5, 0.5, -0.5)}


def test_the_default_rig_is_fitted_as_published() -> None:
    front = next(camera for camera in StreetRig.nuscenes().cameras if camera.name == "CAM_FRONT")
    k, size = front.fitted(256, 704)
    assert size == (256, 704)
    np.testing.assert_allclose(k, [[1266 * 0.44, 0, 816 * 0.44], [0, 1266 * 0.44, 491 * 0.44 - 140], [0, 0, 1]])


@pytest.mark.parametrize(("width", "height"), [(1280, 960), (960, 1280), (1280, 1024)])
def test_other_formats_keep_their_horizon(width: int, height: int) -> None:
    """The bottom alone of such an image would begin below the horizon."""
    camera = RigCamera(
        name="CAM_A", width=width, height=height, fx=900, fy=900, cx=width / 2, cy=height / 2, cam2ego=AHEAD  # type: ignore[arg-type]
    )  # fmt: skip
    k, size = camera.fitted(256, 704)
    row = horizon_row(k, camera.cam2ego.sensor2ego, size)
    assert row == pytest.approx(482 * 0.44 - 140)
    assert k[0, 0] == pytest.approx(900 * 704 / width)
