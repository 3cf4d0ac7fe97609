"""The head that turns a map into a volume, and the axes that colours are made of."""

from __future__ import annotations

import torch

from frustum.nn.volume_head import PrincipalAxes, VolumeHead


def test_a_volume_has_the_axes_of_the_house() -> None:
    """x of the volume are columns of the map, y its rows: what a place of the map says is seen above it alone, but for 3x3 neighbours."""
    torch.manual_seed(0)
    head = VolumeHead(6, 4, 5, 7, bias=-2.0).eval()
    bev = torch.randn(2, 6, 11, 13)
    logits, voxels = head(bev)
    assert tuple(logits.shape) == (2, 13, 11, 5)
    assert tuple(voxels.shape) == (2, 13, 11, 5, 4)
    assert head.features is not None
    assert tuple(head.features(voxels[0, 1, 2]).shape) == (5, 7)
    torch.testing.assert_close(
        logits, head.occupancy.weight.flatten() @ voxels[..., None] @ torch.ones(1) + head.occupancy.bias, check_stride=False
    )
    changed = bev.clone()
    changed[0, :, 8, 3] += 5
    where = (head(changed)[0] != logits).any(-1)[0].nonzero()
    assert where.amin(0).tolist() == [0, 5]
    assert where.amax(0).tolist() == [6, 10], "three convolutions of 3x3 around column 3, row 8"
    assert VolumeHead(6, 4, 5, 0).features is None


def test_before_it_learns_it_expects_what_it_is_told() -> None:
    torch.manual_seed(0)
    logits, _ = VolumeHead(8, 8, 4, 0, bias=-3.9).eval()(torch.zeros(1, 8, 6, 6))
    assert abs(float(logits.mean()) + 3.9) < 0.5


def test_axes_are_those_of_the_largest_spread() -> None:
    """Found again from samples of a known covariance, the same for all that is shown; vectors count by their direction."""
    torch.manual_seed(0)
    axes = PrincipalAxes(16, decay=0.9, most=2000)
    assert not axes(torch.randn(3, 16)).any(), "nothing is known yet"
    spread = torch.zeros(16)
    spread[[3, 7, 11]] = torch.tensor([0.3, 0.2, 0.1])
    centre = torch.zeros(16)
    centre[0] = 1.0

    def drawn(count: int) -> torch.Tensor:
        return centre + spread * torch.randn(count, 16)

    for _ in range(40):
        axes.update(3 * drawn(1500))  # a factor changes no direction
    axes.update(torch.zeros(0, 16))
    found = axes(drawn(4000))
    assert tuple(found.shape) == (4000, 3)
    assert float((found.abs() < 1).float().mean()) > 0.8
    torch.testing.assert_close(found.std(0), torch.full((3,), 2 / 3), atol=0.06, rtol=0)
    unit = torch.eye(16)
    moved = axes(centre + 0.1 * unit[[3, 7, 11]]) - axes(centre[None])
    assert moved.abs().argmax(1).tolist() == [0, 1, 2], "by how much they spread"
    with torch.autocast("cpu", torch.bfloat16):
        axes.update(drawn(10).bfloat16())
    assert axes.moment.dtype == torch.float32
