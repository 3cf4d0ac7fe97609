import itertools

import numpy as np
import pytest

from frustum.worlds.street.frontage import FrontLine, kerb_spots, plan_plots
from frustum.worlds.street.paths import Network
from frustum.worlds.street.roads import DISTRICTS, free_stretches, pavement_middle, plan_network

CASES = [(style, seed) for style in DISTRICTS for seed in range(5)]


def network(style: str, seed: int, length: float = 140.0) -> Network:
    return plan_network(np.random.default_rng(seed), DISTRICTS[style], length, 80.0)


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_lanes_fit_between_the_kerbs_and_keep_right(style, seed):
    for road in network(style, seed).roads:
        assert all(d < 0 for d in road.forward)
        assert all(d > 0 for d in road.backward)
        for lanes, edge, strip in ((road.forward, road.right, road.parking_right), (road.backward, road.left, road.parking_left)):
            outer = max(abs(d) for d in lanes) + road.lane_width / 2
            assert outer <= edge - strip - road.cycle + 1e-6
            assert min(abs(d) for d in lanes) >= road.median / 2 + road.lane_width / 2 - 1e-6
            assert np.allclose(np.diff(sorted(abs(d) for d in lanes)), road.lane_width)
    main = network(style, seed).main
    assert 2 <= len(main.forward) + len(main.backward) <= 4


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_junctions_lie_on_the_ego_path_and_apart(style, seed):
    net = network(style, seed)
    assert len(net.junctions) <= 3
    at = sorted(a for a, _ in net.junctions)
    assert all(0 < a < 140 for a in at)
    assert all(b - a > 22 for a, b in itertools.pairwise(at))
    for a, numbers in net.junctions:
        for k in numbers:
            road = net.roads[k]
            assert np.allclose(road.path.xy[0], net.main.path.at(a)[0])
            turn = abs(np.sin(road.path.yaw[0] - net.main.path.at(a)[1]))
            assert turn > 0.95  # side roads leave almost at right angles


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_free_stretches_avoid_junctions_and_crossings(style, seed):
    net = network(style, seed)
    stretches = free_stretches(net)
    assert all(a < b for a, b in stretches)
    s = np.concatenate([np.linspace(a, b, 50) for a, b in stretches])
    for crossing in net.crossings:
        if crossing.road == 0:
            assert not ((s > crossing.s0) & (s < crossing.s1)).any()
    for at, sides in net.junctions:
        assert not (abs(s - at) < net.roads[sides[0]].left).any()


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_side_road_zebras_continue_the_pavement(style, seed):
    net = network(style, seed)
    for k in range(1, len(net.roads)):
        zebra = [c for c in net.crossings if c.road == k]
        assert len(zebra) == 1
        left = np.sin(net.roads[k].path.yaw[0]) > 0
        assert (zebra[0].s0 + zebra[0].s1) / 2 == pytest.approx(abs(pavement_middle(net, bool(left))))


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_islands_leave_the_lanes_free(style, seed):
    net = network(style, seed)
    for island in net.islands:
        road = net.roads[island.road]
        for d in (*road.forward, *road.backward):
            assert not island.d0 < d + 1.0 or not d - 1.0 < island.d1
    surfaces = {r.material for r in net.islands}
    assert surfaces <= {"island", "gravel", "grass"}


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_marks_lie_on_the_asphalt(style, seed):
    net = network(style, seed)
    for mark in net.marks:
        road = net.roads[mark.road]
        assert mark.d1 > -road.right - 0.1
        assert mark.d0 < road.left + 0.1
        assert mark.s1 > mark.s0
    zebra = [m for m in net.marks if m.material == "marking" and abs(m.s1 - m.s0 - 3.2) < 1e-6]
    assert len(zebra) >= 4 * sum(c.road == 0 for c in net.crossings)


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_plots_line_both_sides_and_hold_a_site(style, seed):
    net = network(style, seed)
    plots = plan_plots(np.random.default_rng(seed), net, DISTRICTS[style], -60.0, 200.0, 140.0)
    line = FrontLine(net)
    for side in (1, -1):
        row = sorted((p for p in plots if p.side == side), key=lambda p: p.x0)
        assert sum(p.x1 - p.x0 for p in row) > 120
        assert all(a.x1 <= b.x0 + 1e-9 for a, b in itertools.pairwise(row))
        for p in row:  # no plot reaches over the pavement
            y = line.at(np.linspace(p.x0, p.x1, 9), side)
            assert (side * (p.front - y) > -0.3).all()
            assert p.y(3.0) == pytest.approx(p.front + 3.0 * side)
            assert p.span(1, 4) == (min(p.y(1), p.y(4)), max(p.y(1), p.y(4)))
    sites = [p for p in plots if p.kind == "site" and p.x1 > 0 and p.x0 < 140]
    assert sites


@pytest.mark.parametrize(("style", "seed"), CASES)
def test_kerb_spots_lie_in_the_parking_strips(style, seed):
    net = network(style, seed)
    spots = kerb_spots(net, 140.0)
    road = net.main
    assert bool(spots) <= bool(road.parking_left or road.parking_right)
    for spot in spots:
        _, d = road.path.nearest(np.array([spot.x, spot.y]))
        edge, strip = (road.left, road.parking_left) if d > 0 else (road.right, road.parking_right)
        assert edge - strip < abs(d) < edge
        ahead = np.cos(spot.yaw - road.path.at(road.path.nearest(np.array([spot.x, spot.y]))[0])[1])
        assert ahead * -d > 0  # parked in driving direction


def test_layouts_differ_by_seed():
    seen = {(len(n.roads), round(n.main.left, 2), round(n.main.path.xy[-1, 1], 2)) for n in (network("downtown", s) for s in range(10))}
    assert len(seen) == 10
