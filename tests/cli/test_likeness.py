"""Portraits of one person and of two: distances by hand, which one is odd, and what swap says of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from frustum.cli import swapping
from frustum.cli.likeness import UNLIKE, Colours, colours, distance, odd_one
from frustum.metrics.colour_error import to_lab
from tests.cli.conftest import Run
from tests.cli.test_swap import finds_a_square, networks, photographs, words  # noqa: F401  fixtures

SKIN, HAIR = 1, 17


def portrait(skin: tuple[int, int, int], hair: tuple[int, int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    image, parts = np.full((30, 30, 3), 90, np.uint8), np.zeros((30, 30), np.uint8)
    image[10:20, 10:20], parts[10:20, 10:20] = skin, SKIN
    if hair is not None:
        image[5:10, 10:20], parts[5:10, 10:20] = hair, HAIR
    return image, parts


def seen(skin: tuple[int, int, int], hair: tuple[int, int, int] | None) -> Colours:
    return colours(*portrait(skin, hair))


FIRST = seen((200, 160, 140), (60, 40, 30))
LIGHTER = seen((215, 175, 150), (70, 48, 36))
OTHER = seen((120, 80, 60), (200, 180, 90))


def test_distances() -> None:
    skin, hair = ((200, 160, 140), (215, 175, 150)), ((60, 40, 30), (70, 48, 36))
    by_hand = sum(np.linalg.norm(to_lab(np.array(a)) - to_lab(np.array(b))) for a, b in (skin, hair))
    assert distance(FIRST, LIGHTER) == pytest.approx(by_hand)
    assert distance(FIRST, FIRST) == 0
    bald = seen((200, 160, 140), None)
    assert distance(FIRST, bald) == 0, "what is not seen says nothing"
    dot = portrait((200, 160, 140), None)
    dot[0][0, 0], dot[1][0, 0] = (255, 0, 0), HAIR
    assert distance(FIRST, colours(*dot)) == 0, "nor does a pixel"


def test_the_odd_one() -> None:
    assert distance(FIRST, OTHER) > UNLIKE > distance(FIRST, LIGHTER)
    assert odd_one([FIRST]) is None
    assert odd_one([FIRST, LIGHTER]) is None
    found = odd_one([FIRST, OTHER, LIGHTER])
    assert found is not None
    assert found[0] == 1


def test_swap_asks(frustum: Run, networks, photographs, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(swapping, "parser_of", finds_a_square)
    for name, colour in (("a1", (220, 190, 170)), ("a2", (90, 60, 45))):
        Image.new("RGB", (160, 120), colour).save(photographs / f"{name}.png")
    run = frustum(*words(networks, photographs), "--out", photographs / "made.png", "--consent")
    assert run.code == 0, run.err
    assert "are all of them of one person?" in run.err
