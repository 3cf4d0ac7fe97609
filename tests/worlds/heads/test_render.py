"""One picture of a head: what is known of it fits what is seen, and it is the same every time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from frustum.errors import ConfigError
from frustum.types.pixel_classes import FACE
from frustum.worlds.heads.draws import Look, draw_identity, draw_motion, draw_scene
from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.person import Glasses
from frustum.worlds.heads.render import render
from frustum.worlds.heads.scene import Scene

ID = {name: i for i, name in enumerate(FACE.names)}
PLAIN = Look(tone=0.3, age=0.2, style="short", glasses=False, beard=False, make_up=False, hat="")
FRONTAL = Motion()


def person(seed: int = 0, look: Look = PLAIN):
    return replace(draw_identity(seed, look), earring=0.0)


def picture(seed: int, size: int = 64):
    identity = draw_identity(seed)
    return render(identity, draw_motion(seed), draw_scene(seed, identity), size)


def classes_near(shot, index: int, reach: int = 1) -> set[int]:
    x, y = (int(v) for v in shot.landmarks[index])
    return set(np.unique(shot.parsing[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]).tolist())


def test_same_numbers_same_picture_in_any_thread() -> None:
    first = picture(3)
    with ThreadPoolExecutor(3) as pool:
        for again in pool.map(picture, [3, 3, 3]):
            for name, value in vars(first).items():
                assert np.array_equal(value, getattr(again, name)), name


def test_shapes_types_and_ranges() -> None:
    shot = picture(5, 96)
    assert shot.image.shape == (96, 96, 3)
    assert shot.image.dtype == shot.parsing.dtype == np.uint8
    assert shot.parsing.shape == shot.matte.shape == shot.depth.shape == (96, 96)
    assert shot.landmarks.shape == (68, 2)
    assert shot.parsing.max() < len(FACE.names)
    assert 0 <= shot.matte.min() <= shot.matte.max() == 1.0
    is_head = np.isin(shot.parsing, [*range(1, 14), 17, 18])
    assert (shot.matte[is_head] > 0).all()
    assert (shot.depth[is_head] > 0).all()
    assert ((shot.depth == 0) <= (shot.parsing == 0)).all()


@pytest.mark.parametrize("size", [63, 513])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="from 64 to 512"):
        render(person(), FRONTAL, Scene(), size)


@pytest.mark.parametrize("yaw", [-0.5, 0.0, 0.5])
def test_landmarks_lie_on_their_parts(yaw: float) -> None:
    shot = render(person(4), Motion(yaw=yaw, jaw=0.6), Scene(), 256)
    # iBUG counts from the right of the person
    parts = {"r_eye": range(36, 42), "l_eye": range(42, 48), "r_brow": range(17, 22), "l_brow": range(22, 27), "nose": range(28, 31)}
    parts |= {"u_lip": range(49, 54), "l_lip": range(55, 60), "mouth": (61, 62, 63, 65, 66, 67)}
    for name, indices in parts.items():
        for index in indices:
            if shot.is_visible[index]:
                assert ID[name] in classes_near(shot, index), (name, index)
    assert shot.is_visible[list(parts["nose"])].all()


def test_left_is_the_persons_left() -> None:
    shot = render(person(), FRONTAL, Scene(), 128)
    columns = {name: np.nonzero(shot.parsing == ID[name])[1].mean() for name in ("l_eye", "r_eye", "l_brow", "r_brow")}
    assert columns["l_eye"] > columns["r_eye"]
    assert columns["l_brow"] > columns["r_brow"]


def test_motion_moves_what_it_names() -> None:
    def share(name: str, motion: Motion) -> float:
        return float((render(person(), motion, Scene(), 128).parsing == ID[name]).mean())

    assert share("mouth", Motion(jaw=1.0)) > 4 * share("mouth", FRONTAL)
    assert share("l_eye", Motion(blink_left=1.0)) == 0.0
    assert share("r_eye", Motion(blink_left=1.0)) == share("r_eye", FRONTAL)
    left, right = (render(person(), Motion(yaw=yaw), Scene(), 128).landmarks[30, 0] for yaw in (0.5, -0.5))
    assert left > 64 > right  # the tip of the nose; the person's left is on the right
    assert render(person(), Motion(pitch=0.3), Scene(), 128).landmarks[30, 1] > render(person(), FRONTAL, Scene(), 128).landmarks[30, 1]


def test_a_face_that_is_turned_away_hides_landmarks() -> None:
    shot = render(person(), Motion(yaw=1.2), Scene(), 128)
    assert not shot.is_visible[45]  # the outer corner of the left eye
    assert shot.is_visible[36]


def test_what_is_worn_has_its_class() -> None:
    identity = replace(person(look=PLAIN._replace(hat="cap")), glasses=Glasses(), earring=0.8)
    shot = render(identity, FRONTAL, Scene(necklace=3.0), 128)
    found = set(np.unique(shot.parsing).tolist())
    assert {ID[name] for name in ("hat", "eye_g", "ear_r", "neck_l", "hair", "cloth", "neck", "skin")} <= found
    dark = replace(identity, paint=identity.paint._replace(lens=0.9))
    eyes = np.isin(render(dark, FRONTAL, Scene(), 128).parsing, [ID["l_eye"], ID["r_eye"]])
    assert eyes.sum() < 0.3 * np.isin(shot.parsing, [ID["l_eye"], ID["r_eye"]]).sum()


def test_a_size_is_a_sampling_of_the_same_head() -> None:
    small, large = picture(7, 96), picture(7, 192)
    np.testing.assert_allclose(small.landmarks * 2, large.landmarks, atol=1e-2)
    shrunk = large.image.reshape(96, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small.image).mean() < 8.0
