"""Patches of a person's frames that belong into a portrait: which are taken, and that this can be learned."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frustum.errors import ShapeError
from frustum.nn.frame_reference import FrameReference


def by_place_alone(**settings: int) -> FrameReference:
    """Images of 16 pixels, where each patch is like that of the same place, whatever it shows."""
    network = FrameReference(16, width=4, **settings).eval()
    with torch.no_grad():
        for features in (network.portrait_features, network.frame_features):
            features.both[-1].weight.zero_()
            features.both[-1].bias.zero_()
        network.places.copy_(torch.eye(16).view(1, 16, 4, 4))
    return network


def test_every_patch_is_a_mean_of_patches():
    """Frames of one colour each: whatever is alike, a pixel lies between them; one frame alone comes back as it is."""
    network = FrameReference(16, width=4).eval()
    frames = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 16, 16)
    found = network(torch.rand(1, 3, 16, 16), network.known(frames))
    assert found.shape == (1, 3, 16, 16)
    assert found.min() > 0.2 - 1e-5
    assert found.max() < 0.8 + 1e-5
    torch.testing.assert_close(network(torch.rand(1, 3, 16, 16), network.known(frames[:, :1])), frames[:, 0], rtol=1e-5, atol=1e-5)


def test_a_patch_is_taken_as_it_is():
    """Where the features are the place alone, the patches of the frame stay where they are, with all their pixels."""
    network = by_place_alone()
    frame = torch.rand(1, 1, 3, 16, 16)
    torch.testing.assert_close(network(torch.rand(1, 3, 16, 16), network.known(frame)), frame[:, 0], rtol=1e-2, atol=1e-2)


def test_it_learns_where_a_person_has_moved():
    """Portraits show a white square where the coloured one of the frame belongs."""
    torch.manual_seed(0)
    network = FrameReference(32, width=4)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)

    def error(count: int) -> torch.Tensor:
        portraits, frames, true = (torch.zeros(count, 3, 32, 32) for _ in range(3))
        for i, (row, there) in enumerate(torch.randint(0, 5, (count, 2)).tolist()):
            here, moved, colour = slice(4 * row, 4 * row + 12), slice(4 * there, 4 * there + 12), torch.rand(3, 1, 1)
            portraits[i, :, here, 8:20], frames[i, :, moved, 8:20], true[i, :, here, 8:20] = 1, colour, colour
        return (network(portraits, network.known(frames[:, None])) - true).abs().mean()

    before = float(error(64).detach())
    for _ in range(200):
        optimiser.zero_grad()
        error(16).backward()
        optimiser.step()
    assert float(error(64).detach()) < 0.5 * before


def test_features_see_far():
    """A corner of the portrait changes what its opposite corner takes."""
    torch.manual_seed(0)
    network = FrameReference(32, width=4).eval().double()
    portraits, frames = torch.rand(1, 3, 32, 32).double(), torch.rand(1, 2, 3, 32, 32).double()
    other = portraits.clone()
    other[..., 24:, 24:] = 1 - other[..., 24:, 24:]
    first, second = (network(image, network.known(frames))[..., :8, :8] for image in (portraits, other))
    assert (first - second).abs().max() > 1e-9


def test_patches_are_taken_of_the_first_three_channels():
    network = FrameReference(16, width=4, channels=5).eval()
    frames = torch.cat((torch.full((1, 1, 3, 16, 16), 0.3), torch.rand(1, 1, 2, 16, 16)), 2)
    torch.testing.assert_close(network(torch.rand(1, 5, 16, 16), network.known(frames)), frames[:, 0, :3], rtol=1e-5, atol=1e-5)


def test_parts_come_with_their_patches():
    """Further channels are put together from the same places, in half the size: a frame that stays where it is shows them smoothed."""
    network = by_place_alone(channels=5, shown=5)
    frames = torch.rand(1, 1, 5, 16, 16)
    frames[0, 0, 3] = 0.25
    found = network(torch.rand(1, 5, 16, 16), network.known(frames))
    torch.testing.assert_close(found[:, :3], frames[:, 0, :3], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found[:, 3], frames[:, 0, 3], rtol=1e-2, atol=1e-2)
    half = F.interpolate(F.avg_pool2d(frames[:, 0, 4:], 2), scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(found[:, 4:], half, rtol=1e-2, atol=1e-2)


def test_another_size_is_refused():
    network = FrameReference(16, width=4)
    with pytest.raises(ShapeError, match="images of 16 x 16"):
        network.known(torch.zeros(1, 1, 3, 8, 8))
    with pytest.raises(ShapeError, match="images of 16 x 16"):
        network(torch.zeros(1, 3, 8, 8), network.known(torch.zeros(2, 1, 3, 16, 16)))
