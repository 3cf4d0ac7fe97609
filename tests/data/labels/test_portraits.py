"""Labels of head swapping: which frames are read, how heads are recoloured, what a batch holds, what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.data.labels.portraits import PlacedHeads, SourceFrames, SourceParts, TrueSwaps
from frustum.errors import DataError, FrustumWarning
from frustum.types.contract import Shapes


class People:
    """Two clips of one person, of 8 x 6 pixels; every pixel of frame i is i."""

    def source_frames(self, token: str) -> list[str]:
        clip = token.rpartition("/")[0]
        return [f"{clip}/{i}" for i in range(9) if f"{clip}/{i}" != token] if clip.endswith("v-0") else [token]

    def placed_head(self, token: str) -> tuple[np.ndarray, np.ndarray] | None:
        return (np.full((8, 6, 3), 200, np.uint8), self.parsing(token)) if token == "swap" else None

    def true_swap(self, token: str, policy: str) -> tuple[np.ndarray, np.ndarray]:
        found = np.full((8, 6, 3), {"source": 10, "region": 30}[policy], np.uint8) if token == "swap" else self.image(token)
        return found, self.parsing(token)

    def image(self, token: str) -> np.ndarray:
        return np.full((8, 6, 3), int(token[-1]), np.uint8)

    def parsing(self, token: str) -> np.ndarray:
        return np.full((8, 6), 17, np.uint8)


def still(seed: int | None = None) -> SimpleNamespace:
    """A draw that moves nothing."""
    return SimpleNamespace(images=[SimpleNamespace(apply=lambda image, ignore=0: image)], seed=seed)


def halved() -> SimpleNamespace:
    return SimpleNamespace(
        seed=None, images=[SimpleNamespace(apply=lambda image, ignore=0: image.resize((3, 4), Image.Resampling.NEAREST))]
    )


def test_frames_are_others_of_the_clip():
    label = SourceFrames(3)
    found = label.read(People(), "anna/v-0/4")
    assert found[:, 0, 0, 0].tolist() == [0, 5, 8]
    assert 4 not in SourceFrames(9).read(People(), "anna/v-0/4")[:, 0, 0, 0]
    alone = label.read(People(), "anna/v-1/0")
    assert alone.shape == (3, 8, 6, 3)
    value = label.collate([label.apply(found, halved()), label.apply(alone, halved())])
    assert value.shape == (2, 3, 3, 4, 3)
    torch.testing.assert_close(value[0, 2], torch.full((3, 4, 3), 8 / 127.5 - 1))
    assert label.collate([found, None]) is None


def test_parts_are_those_of_the_same_frames():
    people = People()
    people.parsing = lambda token: np.full((8, 6), int(token[-1]), np.uint8)
    label = SourceParts(3)
    found = label.read(people, "anna/v-0/4")
    assert found[:, 0, 0].tolist() == SourceFrames(3).read(people, "anna/v-0/4")[:, 0, 0, 0].tolist()
    value = label.collate([label.apply(found, halved())] * 2)
    assert value.shape == (2, 3, 4, 3)
    turned = SimpleNamespace(images=[SimpleNamespace(apply=lambda image, ignore=0: Image.new("L", image.size, ignore))], seed=1)
    assert (label.apply(found, turned) == 255).all(), "what lies outside of a frame is no part"
    assert label.collate([found, None]) is None


def test_own_heads_are_recoloured_and_others_are_not():
    people, label = People(), PlacedHeads()
    people.image = lambda token: np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8)

    def moved(token: str, seed: int | None = None, label: PlacedHeads = label) -> tuple[np.ndarray, np.ndarray]:
        return label.apply(label.read(people, token), still(seed))[:2]

    image, parsing = moved("anna/v-0/4")
    assert (parsing == 17).all()
    assert not np.array_equal(image, people.image(""))
    assert np.array_equal(moved("anna/v-0/4")[0], image), "in evaluation always the same"
    assert not np.array_equal(moved("anna/v-0/5")[0], image)
    assert not np.array_equal(moved("anna/v-0/4", 1)[0], image), "in training always others"
    assert np.array_equal(moved("anna/v-0/4", label=PlacedHeads(0))[0], people.image(""))
    assert (moved("swap", 1)[0] == 200).all(), "the head of another person"
    value = label.collate([(image, parsing, parsing)] * 2)
    assert value.image.shape == (2, 3, 8, 6)
    assert value.parsing.shape == (2, 8, 6)
    torch.testing.assert_close((value.image[0] + 1) * 127.5, torch.from_numpy(image).movedim(-1, 0).float(), rtol=0, atol=1e-4)
    assert value.true_parsing is None
    assert label.collate([(image, parsing, parsing), None]) is None


def test_what_a_true_head_shows_is_known_beside_one_that_was_drawn():
    people = People()
    people.aligned_head = lambda token: (np.full((8, 6, 3), 90, np.uint8), np.full((8, 6), 1, np.uint8))
    label = PlacedHeads(aligned=1.0)
    value = label.collate([label.apply(label.read(people, "swap"), still(3))])
    assert (value.parsing == 1).all()
    assert (value.true_parsing == 17).all()
    torch.testing.assert_close(value.image, torch.full((1, 3, 8, 6), 90 / 127.5 - 1))
    exact = label.collate([label.apply(label.read(people, "swap"), still())])
    assert (exact.parsing == 17).all(), "in evaluation the true head"
    assert (exact.true_parsing == 17).all()


def test_a_network_that_would_copy_is_warned_of():
    label = PlacedHeads(of_others=True)
    label.require(People(), ["swap"])
    PlacedHeads().require(People(), ["anna/v-0/4"])
    with pytest.warns(FrustumWarning, match="it learns to copy"):
        label.require(People(), ["anna/v-0/4"])


def test_a_portrait_becomes_its_true_swap_or_stays_itself():
    people = People()
    for token, label, wanted in (
        ("swap", TrueSwaps(), 30),
        ("swap", TrueSwaps("source"), 10),
        ("anna/v-0/4", TrueSwaps(), 4),
    ):
        image = label.apply(label.read(people, token), still())
        assert (image == wanted).all()
    value = TrueSwaps().collate([image, image])
    torch.testing.assert_close(value, torch.full((2, 3, 8, 6), 4 / 127.5 - 1))
    assert TrueSwaps().collate([image, None]) is None


def test_examples():
    rng, shapes = np.random.default_rng(0), Shapes(2, 1, (16, 24))
    frames = SourceFrames(3).example(rng, shapes)
    assert frames.shape == (2, 3, 3, 16, 24)
    assert TrueSwaps().example(rng, shapes).shape == (2, 3, 16, 24)
    head = PlacedHeads().example(rng, shapes)
    assert head.image.shape == (2, 3, 16, 24)
    assert head.parsing.shape == (2, 16, 24)
    assert head.parsing.max() < 19
    assert (head.parsing[:, 0] == 0).all()


@pytest.mark.parametrize("label", [SourceFrames(), SourceParts(), PlacedHeads(), TrueSwaps()])
def test_other_data_is_refused(label):
    with pytest.raises(DataError, match="reads portraits"):
        label.read(object(), "scene-1/x/y")
