"""Places of features and their encodings: against plain loops in float64, and against the stored numbers of 3DPPE and PETR."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry import CameraRig
from frustum.nn.point_encoding import (
    candidate_depths,
    depth_major,
    image_to_map,
    inverse_sigmoid,
    metric_encoding,
    normalise_points,
    pixel_points,
    sine_encoding,
    view_encoding,
)
from frustum.types.frame import Frame
from tests.nn.frames import frame_of

BOUNDS = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)


def rotation(axis: tuple[float, float, float], angle: float) -> Tensor:
    x, y, z = axis
    return torch.linalg.matrix_exp(angle * torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))


def pose(axis: tuple[float, float, float], angle: float, *shift: float) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = rotation(axis, angle), torch.tensor(shift, dtype=torch.float64)
    return matrix


def frame(batch: int = 2, cameras: int = 3) -> Frame:
    """Every camera and every sample differs in everything; the map is turned and scaled."""
    intrinsics, cam2ego, ego2global, image_aug = [], [], [], []
    for i in range(batch * cameras):
        intrinsics.append(torch.tensor([[500.0 + 9 * i, 0, 400 - i], [0, 510.0 + 7 * i, 220 + i], [0, 0, 1]], dtype=torch.float64))
        cam2ego.append(pose((0.6, 0.0, 0.8), 0.9 * i, 1.5, -0.3 * i, 1.6))
        ego2global.append(pose((0, 0, 1), 0.3 + 0.01 * i, 600 + 0.4 * i, 1500, 0))
        image_aug.append(torch.tensor([[0.5, 0.02, 3 - i], [-0.02, 0.5, -70], [0, 0, 1]], dtype=torch.float64))
    lead = (batch, cameras)
    stacked = (torch.stack(m).unflatten(0, lead) for m in (intrinsics, cam2ego, ego2global, image_aug))
    intrinsics, cam2ego, ego2global, image_aug = stacked
    rig = CameraRig.create(intrinsics, cam2ego, (160, 400), ego2global, image_aug)
    bev_aug = torch.stack([pose((0, 0, 1), 0.2 * b, 0, 0, 0) @ torch.diag(torch.tensor([1.1, 1.1, 1.1, 1]).double()) for b in range(batch)])
    return frame_of(rig, torch.stack([pose((0, 0, 1), 0.31, 601, 1500 + b, 0) for b in range(batch)]), bev_aug)


# ---- depths ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 16, 64])
def test_candidate_depths(count):
    width = 60.2
    expected = {
        "lid": [1 + width * i * (i + 1) / (count * (count + 1)) for i in range(count)],
        "ud": [1 + width * i / count for i in range(count)],
        "inclusive": [1 + width * i / (count - 1) for i in range(count)],
    }
    for spacing, values in expected.items():
        found = candidate_depths(count, spacing)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, values, rtol=1e-6)
    np.testing.assert_allclose(candidate_depths(3, "inclusive", 2, 8), [2, 5, 8])


@pytest.mark.parametrize(("count", "spacing"), [(1, "ud"), (8, "sid")])
def test_impossible_depths_are_refused(count, spacing):
    with pytest.raises(ConfigError, match="lid, ud or inclusive"):
        candidate_depths(count, spacing)


# ---- points ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "cameras"), [(2, 3), (1, 1), (1, 6), (3, 8)])
def test_points_of_pixels(batch, cameras):
    """Each point is solved for: the place whose projection is the top-left corner of the cell, at that depth."""
    given, (h, w) = frame(batch, cameras), (4, 5)
    rig = given.rig
    depth = torch.rand(batch, cameras, h, w, dtype=torch.float64) * 60
    found = pixel_points(depth.float(), given)
    assert found.dtype == torch.float32
    assert found.shape == (batch, cameras, h, w, 3)
    for b in range(batch):
        for n in range(cameras):
            ego2cam = torch.linalg.inv(rig.cam2ego[b, n]) @ torch.linalg.inv(rig.ego2global[b, n]) @ given.ego2global[b]
            ego2image = torch.eye(4, dtype=torch.float64)
            ego2image[:3, :3] = rig.image_aug[b, n] @ rig.intrinsics[b, n]
            map2image = ego2image @ ego2cam @ torch.linalg.inv(given.bev_aug[b])
            for i in range(h):
                for j in range(w):
                    d = depth[b, n, i, j]
                    pixel = torch.stack([j * 400 / w * d, i * 160 / h * d, d, torch.ones_like(d)])
                    expected = torch.linalg.solve(map2image, pixel)[:3]
                    torch.testing.assert_close(found[b, n, i, j].double(), expected, rtol=0, atol=3e-5)


def test_points_agree_with_the_rig():
    given = frame()
    depth = torch.rand(2, 3, 4, 5, dtype=torch.float64) * 50 + 1
    v, u = torch.meshgrid(torch.arange(4.0) * 40, torch.arange(5.0) * 80, indexing="ij")
    pixels = torch.stack([u, v], -1).double().flatten(0, 1).expand(2, 3, 20, 2)
    ego = given.rig.unproject(pixels, depth.flatten(2), given.ego2global)
    expected = ego @ given.bev_aug[:, None, :3, :3].mT
    torch.testing.assert_close(pixel_points(depth, given).flatten(2, 3), expected)


def test_several_depths_of_each_pixel():
    given, depth = frame(), torch.rand(2, 3, 7, 4, 5) * 30
    found = pixel_points(depth, given)
    assert found.shape == (2, 3, 7, 4, 5, 3)
    for k in range(7):
        torch.testing.assert_close(found[:, :, k], pixel_points(depth[:, :, k], given), rtol=0, atol=0)


def test_depths_that_are_not_in_front_lie_on_the_line_of_a_corner():
    """(u * max(d, 1e-5), v * max(d, 1e-5), d) of the reference."""
    given = frame()
    depth = torch.tensor([-3.0, 0.0, 5e-6, 1e-5]).expand(2, 3, 2, 4)
    found = pixel_points(depth, given)
    cam2map = given.bev_aug[:, None] @ given.rig.cam2key(given.ego2global)
    corner = torch.linalg.inv(given.rig.image_aug @ given.rig.intrinsics)[..., 2]
    line = depth[..., None] * corner[:, :, None, None]
    expected = torch.einsum("bnij,bnhwj->bnhwi", cam2map[..., :3, :3], line) + cam2map[:, :, None, None, :3, 3]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


def test_the_gradient_reaches_the_depth():
    given = frame(1, 1)
    depth = (torch.rand(1, 1, 2, 3, dtype=torch.float64) * 50 + 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: sine_encoding(normalise_points(pixel_points(d, given), BOUNDS), 8), depth)


def test_depths_of_other_cameras_are_refused():
    for shape in ((2, 2, 4, 5), (3, 4, 5), (1, 3, 4, 5)):
        with pytest.raises(ShapeError, match=r"\(B, N, \*, h, w\) with \(B, N\) = \(2, 3\)"):
            pixel_points(torch.ones(shape), frame())


def test_matrices_elsewhere_are_float32_and_kept():
    """A rig stays on the CPU; the meta device stands in for a GPU."""
    given = frame()
    with torch.inference_mode():
        found = image_to_map(given, "meta")
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float32, (2, 3, 3, 4))
    assert not found.is_inference(), "it is kept, and training must be able to use it"
    assert image_to_map(given, "meta") is found
    assert image_to_map(frame(), "meta") is found, "the same content"
    assert image_to_map(frame(1, 3), "meta") is not found
    assert pixel_points(torch.empty(2, 3, 4, 5, device="meta"), given).device.type == "meta"


def test_shares_of_a_box():
    corners = torch.tensor([[-61.2, -61.2, -10.0], [61.2, 61.2, 10.0], [0, 30.6, -20]])
    torch.testing.assert_close(normalise_points(corners, BOUNDS), torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.75, -0.5]]))


def test_depth_comes_before_the_axis():
    points = torch.randn(2, 3, 4, 5, 6, 3)
    channels = depth_major(points)
    assert channels.shape == (6, 12, 5, 6)
    for d in range(4):
        for axis in range(3):
            torch.testing.assert_close(channels[4, 3 * d + axis], points[1, 1, d, :, :, axis], rtol=0, atol=0)


# ---- encodings ------------------------------------------------------------------------------------------------------------------


def test_inverse_sigmoid():
    x = torch.tensor([0.3, 0.5, 0.99])
    torch.testing.assert_close(inverse_sigmoid(x).sigmoid(), x)
    edge = math.log(1e5)
    torch.testing.assert_close(inverse_sigmoid(torch.tensor([-1.0, 0, 1, 2])), torch.tensor([-edge, -edge, edge, edge]))


def test_metric_encoding_has_waves_of_12_to_100_metres():
    point = torch.tensor([3.0, -40.0, 1.5])
    found = metric_encoding(point, 8)
    waves = [12 * (100 / 12) ** (2 * i / 8) for i in range(4)]
    expected = [part(2 * math.pi * float(x) / wave) for x in point for wave in waves for part in (math.sin, math.cos)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("features", [128, 6])
def test_sine_encoding_in_plain_loops(features):
    points = torch.randn(2, 5, 3)
    found = sine_encoding(points, features)
    assert found.shape == (2, 5, 3 * features)
    for b in range(2):
        for p in range(5):
            expected = []
            for axis in (1, 0, 2):
                for k in range(features):
                    angle = points[b, p, axis].item() * 2 * math.pi / 10000 ** (2 * (k // 2) / features)
                    expected.append(math.cos(angle) if k % 2 else math.sin(angle))
            np.testing.assert_allclose(found[b, p], expected, atol=2e-6)


@pytest.mark.parametrize("cameras", [1, 4])
def test_view_encoding_in_plain_loops(cameras):
    features, (h, w) = 8, (3, 5)
    padding = torch.zeros(2, cameras, h, w, dtype=torch.bool)
    padding[0, 0, 2:], padding[1, -1, :, 3:] = True, True
    found = view_encoding(padding, features)
    assert found.shape == (2, cameras, 3 * features, h, w)
    inside = (~padding).numpy().astype(float)
    for b, n, i, j in np.ndindex(2, cameras, h, w):
        expected = []
        for line, place in ((inside[b, :, i, j], n), (inside[b, n, :, j], i), (inside[b, n, i], j)):
            share = line[: place + 1].sum() / (line.sum() + 1e-6)
            angles = [share * 2 * math.pi / 10000 ** (2 * k / features) for k in range(features // 2)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        np.testing.assert_allclose(found[b, n, :, i, j], expected, atol=2e-6)
    torch.testing.assert_close(view_encoding(padding.float(), features), found, rtol=0, atol=0)


def test_float32_under_autocast():
    """Nothing is rounded to bf16 on the way, and half inputs give float32."""
    given, depth = frame(), torch.rand(2, 3, 4, 5) * 60
    padding = torch.zeros(2, 3, 4, 5, dtype=torch.bool)

    def everything() -> list[Tensor]:
        points = pixel_points(depth, given)
        shares = normalise_points(points, BOUNDS)
        return [points, shares, inverse_sigmoid(shares), sine_encoding(inverse_sigmoid(shares)), view_encoding(padding)]

    expected = everything()
    with torch.autocast("cpu", torch.bfloat16):
        found = everything()
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
    for function in (sine_encoding, inverse_sigmoid, lambda x: normalise_points(x, BOUNDS)):
        half = torch.rand(4, 3).bfloat16()
        assert torch.equal(function(half), function(half.float()))
    assert pixel_points(depth.bfloat16(), given).dtype == torch.float32


# ---- stored numbers of the reference --------------------------------------------------------------------------------------------


@pytest.fixture
def golden(shared: Path) -> Path:
    folder = shared / "golden/3dppe"
    if not folder.is_dir():
        pytest.skip("no golden numbers of 3DPPE")
    return folder


def generated(name: str, shape: tuple[int, ...], kind: str = "normal") -> np.ndarray:
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    return draw.random(shape) if kind == "uniform" else draw.standard_normal(shape)


def close(found: Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=tolerance)


@pytest.mark.data
def test_small_pieces_of_the_reference(golden):
    with np.load(golden / "misc.npz") as misc:
        close(candidate_depths(64, "lid"), misc["lid_bins"], 1e-5)
        close(candidate_depths(64, "ud"), misc["ud_bins64"], 1e-5)
        close(candidate_depths(16, "inclusive"), misc["proj16"], 1e-5)
        close(candidate_depths(64, "inclusive"), misc["proj64"], 1e-5)
        close(inverse_sigmoid(torch.tensor([-1, 0, 1e-6, 1e-5, 0.3, 0.5, 0.99999, 1, 2])), misc["inv"], 1e-5)
        points = torch.from_numpy(generated("pe.p", (50, 3), "uniform")).float()
        close(sine_encoding(points), misc["pe_raw"], 1e-5)
        close(sine_encoding(inverse_sigmoid(points)), misc["pe_inv"], 1e-5)
        padding = torch.zeros(1, 6, 16, 44, dtype=torch.bool)
        padding[0, 2, 12:], padding[0, 4, :, 40:] = True, True
        encoding = view_encoding(padding)
        close(encoding[:, :, ::16, ::3, ::4], misc["sine3d"], 1e-5)
        statistics = [encoding.mean(), encoding.std(), encoding.min(), encoding.max()]
        close(torch.stack(statistics).double(), misc["sine3d_stat"], 1e-4)


def reference_frame(golden: Path, size: str) -> Frame:
    with np.load(golden / "misc.npz") as misc:
        intrinsics, lidar2cam = (torch.from_numpy(misc[f"rig_{size}_{part}"]) for part in ("intr", "ext"))
    height, width = (int(side) for side in size.split("x"))
    return frame_of(CameraRig.create(intrinsics[None, :, :3, :3], torch.linalg.inv(lidar2cam)[None], (height, width)))


def two_layers(golden: Path, head: str, name: str, x: Tensor) -> Tensor:
    """(*, C) through the head's MLP of this name, whose weights follow from its keys."""
    shapes = json.loads((golden / f"keys_{head}.json").read_text())
    names = json.loads((golden / f"info_{head}.json").read_text())["aliases"]

    def part(key: str) -> Tensor:
        shape, key = tuple(shapes[key]), names.get(key, key)
        scale = 0.1 if len(shape) == 1 else math.sqrt(2 / math.prod(shape[1:]))
        return torch.from_numpy(generated(key, shape) * scale).float().flatten(min(1, len(shape) - 1))

    hidden = (x @ part(f"{name}.0.weight").T + part(f"{name}.0.bias")).relu()
    return hidden @ part(f"{name}.2.weight").T + part(f"{name}.2.bias")


@pytest.mark.data
def test_point_encoding_of_3dppe(golden):
    """From the stored depth of each pixel to its encoding."""
    given = reference_frame(golden, "320x800")
    with np.load(golden / "head_v2_main.npz") as stored:
        depth = torch.from_numpy(stored["depth_map_pred"]).view(1, 6, 20, 50)
        shares = normalise_points(pixel_points(depth, given), BOUNDS)[0]  # (6, 20, 50, 3)
        close(shares[:, ::2, ::2], stored["points3d_norm"], 5e-6)
        encoded = two_layers(golden, "head_v2_main", "position_encoder", sine_encoding(inverse_sigmoid(shares)))
        close(encoded[:, ::4, ::5, ::8], stored["pe"], 1e-4)
        views = view_encoding(torch.zeros(1, 6, 20, 50, dtype=torch.bool))[0].movedim(1, -1)
        adapted = two_layers(golden, "head_v2_main", "adapt_pos3d", views).movedim(-1, 1)
        close(adapted[:, ::8, ::4, ::5], stored["sin_embed"], 1e-4)


@pytest.mark.data
def test_camera_rays_of_petr(golden):
    given = reference_frame(golden, "320x800")
    depths = candidate_depths(64, "lid").view(-1, 1, 1).expand(1, 6, 64, 20, 50)
    shares = depth_major(normalise_points(pixel_points(depths, given), BOUNDS))
    with np.load(golden / "head_petr.npz") as stored:
        close(shares[:, ::8, ::4, ::5], stored["points3d_norm"], 5e-6)
        encoded = two_layers(golden, "head_petr", "position_encoder", inverse_sigmoid(shares).movedim(1, -1)).movedim(-1, 1)
        close(encoded[:, ::8, ::4, ::5], stored["pe"], 1e-4)


@pytest.mark.data
def test_points_of_the_oracle(golden):
    """Depth of the LiDAR, where there is one; 61.2 m elsewhere and at most."""
    given, shape = reference_frame(golden, "512x1408"), (6, 16, 44)
    depth, is_known = generated("input.depth_map", shape, "uniform") * 70, generated("input.depth_mask", shape, "uniform") > 0.5
    depth = torch.from_numpy(np.minimum(np.where(is_known, depth, 61.2), 61.2)).float()[None]
    shares = normalise_points(pixel_points(depth, given), BOUNDS)[0]
    with np.load(golden / "head_gtpe.npz") as stored:
        close(shares[:, ::2, ::2], stored["points3d_norm"], 5e-6)
