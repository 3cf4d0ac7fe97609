"""rasterize: both backends against a plain loop and gsplat's numbers, gradients, positions, threads, edge cases and bad input."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frustum.errors import ConfigError, DataError, FrustumWarning, ShapeError
from frustum.geometry import invert, pose, quaternion_to_matrix, rotation_xyz
from frustum.ops import splat, splat_cpu, splat_gsplat
from frustum.ops.splat import Splats, rasterize

BACKENDS = ["torch", "numba"]
SIZE = (21, 30)  # no multiple of a tile


def _cameras(count: int = 2, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    views = [invert(pose(rotation_xyz(0.05 * i, -0.1 * i, 0.03), np.array([0.1 * i, 0.2, -0.3]))) for i in range(count)]
    lens = torch.tensor([[25.0, 0, 14.5], [0, 23, 11], [0, 0, 1]], dtype=dtype)
    return torch.tensor(np.stack(views), dtype=dtype), lens.repeat(count, 1, 1)


def _scene(count: int = 40, channels: int = 3, seed: int = 0, dtype=torch.float64) -> list[Tensor]:
    """Means, scales, opacities, features, quaternions: in front of the cameras, beside and behind them."""
    draw = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=draw, dtype=dtype) * torch.tensor([1.5, 1, 3]).to(dtype) + torch.tensor([0.0, 0, 4]).to(dtype)
    scales = 0.05 + 0.3 * torch.rand(count, 3, generator=draw, dtype=dtype)
    opacities = torch.rand(count, generator=draw, dtype=dtype)
    features, quats = (torch.randn(count, n, generator=draw, dtype=dtype) for n in (channels, 4))
    return [means, scales, opacities, features, quats]


def _call(scene: list[Tensor], backend: str, cameras=None, size=SIZE, points=None, **options) -> Splats:
    views, lenses = cameras or _cameras(dtype=scene[0].dtype)
    return rasterize(*scene[:4], views, lenses, size, points, quats=scene[4] if len(scene) > 4 else None, backend=backend, **options)


def _gradients(scene: list[Tensor], backend: str, **options) -> list[Tensor]:
    """Features, depth and alpha, and the gradients of a sum of them with fixed factors."""
    scene = [t.detach().clone().requires_grad_() for t in scene]
    out = _call(scene, backend, **options)
    draw = torch.Generator().manual_seed(5)
    loss = sum((o * torch.randn(o.shape, generator=draw, dtype=torch.float64).to(o.dtype)).sum() for o in out)
    return [*(o.detach() for o in out), *torch.autograd.grad(loss, scene)]


def _same(one: list[Tensor], other: list[Tensor], tolerance: float) -> None:
    """Equal, relative to the largest number of each tensor."""
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert a.isfinite().all()
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * max(1e-3, float(b.abs().amax()) if b.numel() else 0))


def _by_hand(scene, cameras, size, near=0.1) -> list[Tensor]:
    """A pixel and a Gaussian at a time, with inverse matrices."""
    means, scales, opacities, features, quats = (t.double().numpy() for t in scene)
    height, width = size
    images = np.zeros((len(cameras[0]), height, width, features.shape[1] + 2))
    for image, view, lens in zip(images, *(c.double().numpy() for c in cameras), strict=True):
        flat = []
        for i in range(len(means)):
            x, y, z = view[:3, :3] @ means[i] + view[:3, 3]
            if z <= near:
                continue
            fx, fy, cx, cy = lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2]
            sx = min(max(x / z, -cx / fx - 0.15 * width / fx), (width - cx) / fx + 0.15 * width / fx)
            sy = min(max(y / z, -cy / fy - 0.15 * height / fy), (height - cy) / fy + 0.15 * height / fy)
            linear = np.array([[fx / z, 0, -fx * sx / z], [0, fy / z, -fy * sy / z]]) @ view[:3, :3] @ quaternion_to_matrix(quats[i])
            covariance = linear @ np.diag(scales[i] ** 2) @ linear.T + 0.3 * np.eye(2)
            flat.append((z, i, np.array([fx * x / z + cx, fy * y / z + cy]), np.linalg.inv(covariance)))
        for row in range(height):
            for column in range(width):
                light, pixel = 1.0, np.array([column + 0.5, row + 0.5])
                for z, i, centre, inverse in sorted(flat, key=lambda s: s[:2]):
                    alpha = min(0.999, opacities[i] * math.exp(-0.5 * (pixel - centre) @ inverse @ (pixel - centre)))
                    if alpha < 1 / 255:
                        continue
                    if light * (1 - alpha) <= 1e-4:
                        break
                    image[row, column] += light * alpha * np.array([*features[i], z, 1])
                    light *= 1 - alpha
    out = torch.from_numpy(images)
    return [out[..., :-2], out[..., -2], out[..., -1]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(9, 14), (16, 16), (3, 33)])
def test_equals_a_plain_loop(backend, size):
    scene = _scene(30)
    scene[2][:5] = 1
    _same(list(_call(scene, backend, size=size))[:3], _by_hand(scene, _cameras(), size), 1e-12)


@pytest.mark.data
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_of_gsplat(shared, backend, dtype):
    with np.load(shared / "golden/gs/gsplat_ref.npz", allow_pickle=False) as stored:
        gold = {name: torch.from_numpy(stored[name]) for name in stored.files}
    names = ["means", "scales", "opacities", "features", "quats"]
    scene = [gold[name].to(dtype).requires_grad_() for name in names]
    out = _call(scene, backend, (gold["viewmats"].to(dtype), gold["Ks"].to(dtype)), (48, 64), near=0.01)
    exact = dtype == torch.float64
    wanted = gold["out_features"], gold["out_depth_acc"], gold["out_alpha"]
    for found, expected, tolerance in zip(out[:3], wanted, (2e-5, 2e-5, 2e-6), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-10 if exact else tolerance)
    seen = torch.cat([out.features, out.depth[..., None]], -1)
    loss = (seen * gold["cot_out"].to(dtype)).sum() + (out.alpha * gold["cot_alpha"].to(dtype)).sum()
    for name, found in zip(names, torch.autograd.grad(loss, scene), strict=True):
        expected = gold[f"grad_{name}"]
        error = (found.double() - expected).abs().max() / expected.abs().max()
        assert error < (1e-10 if exact else 3e-6), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("turned", [True, False])
def test_gradients_are_those_of_small_differences(backend, turned):
    means, scales, opacities, features, quats = _scene(6, 2, seed=3)
    means[:, 2] = means[:, 2].abs() + 1
    opacities = 0.3 + 0.4 * opacities
    scales = scales + 0.5  # so that no alpha is near 1/255 where the image ends
    tensors = [t.requires_grad_() for t in (means, scales, opacities, features, *([quats] if turned else []))]

    def run(*scene):
        return tuple(_call(list(scene), backend, _cameras(1), size=(7, 6)))

    assert torch.autograd.gradcheck(run, tensors, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("turned", [True, False])
def test_backends_agree_with_gradients(turned):
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        scene = _scene(300, 5, dtype=dtype)[: 5 if turned else 4]
        exact = _gradients([t.double() for t in scene], "torch")
        _same(_gradients(scene, "numba"), exact, tolerance)


@given(
    seed=st.integers(0, 9999), count=st.integers(0, 60), height=st.integers(1, 40), width=st.integers(1, 40), channels=st.integers(0, 9),
    spread=st.floats(0, 3), near=st.floats(0.05, 5), turned=st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_backends_agree(seed, count, height, width, channels, spread, near, turned):
    scene = _scene(count, channels, seed)[: 5 if turned else 4]
    scene[1] = scene[1] * spread
    one, other = (_gradients(scene, backend, size=(height, width), near=near) for backend in BACKENDS)
    _same(one, other, 1e-9)


# ---- edge cases --------------------------------------------------------------------------------------------------------------------


def _single(backend: str, mean=(0.0, 0, 4), scale=(0.3, 0.3, 0.3), opacity=0.8, size=SIZE, **options) -> list[Tensor]:
    scene = [torch.tensor([values], dtype=torch.float64) for values in (mean, scale, opacity, (2.0, -1))]
    camera = torch.eye(4, dtype=torch.float64)[None], _cameras(1)[1]
    return _gradients(scene, backend, cameras=camera, size=size, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "what",
    [
        {"mean": (0, 0, -4)}, {"mean": (0, 0, 0)}, {"mean": (0, 0, 0.1)}, {"mean": (90, 0, 4)}, {"mean": (0, -900, 4)},
        {"mean": (0, 0, 4), "far": 4}, {"opacity": 0.0039}, {"opacity": 0}, {"opacity": -1}, {"mean": (1e30, 0, 4)},
    ],
)  # fmt: skip
def test_what_is_out_of_sight_leaves_nothing(backend, what):
    for found in _single(backend, **what):
        assert (found == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_opacity_of_one_part_in_255_shows_at_its_centre_alone(backend):
    middle = {"mean": (0, 0.5 * 4 / 23, 4), "size": (22, 29)}  # the centre of pixel (11, 14)
    features, depth, alpha, *_, grad = _single(backend, opacity=(1 + 1e-9) / 255, **middle)
    assert (alpha > 0).nonzero().tolist() == [[0, 11, 14]]
    assert not _single(backend, opacity=(1 - 1e-9) / 255, **middle)[2].any()
    assert grad.isfinite().all()
    assert depth.isfinite().all()
    bright = _single(backend, opacity=1.5 / 255)[2]
    assert 1 < (bright > 0).sum() < bright.numel()
    assert float(bright.max()) >= 1 / 255
    assert features.shape == (1, 22, 29, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_one_depth_the_first_lies_in_front(backend):
    """More Gaussians at a place than a tile has pixels."""
    order = torch.arange(400, dtype=torch.float64)
    means, scales = (torch.zeros(400, 3, dtype=torch.float64) + torch.tensor(row) for row in ([0.0, 0, 4], [0.5, 0.5, 0.5]))
    scene = [means, scales, 0.125 + 0 * order, order[:, None]]
    out = _call(scene, backend, (torch.eye(4, dtype=torch.float64)[None], _cameras(1)[1]))
    alpha = 0.125 * math.exp(-0.5 * 0.5**2 / ((23 * 0.5 / 4) ** 2 + 0.3))  # half a pixel above the centre of pixel (11, 14)
    left = (1 - alpha) ** order
    wanted = (order * alpha * left)[left * (1 - alpha) > 1e-4].sum()
    assert float(out.features[0, 11, 14, 0]) == pytest.approx(float(wanted), rel=1e-9)


def test_needles_and_clouds():
    """Long thin Gaussians across the image, and some as large as the scene or next to the camera."""
    scene = _scene(60, dtype=torch.float32)
    scene[1][:20] = torch.tensor([30.0, 1e-4, 1e-4])
    scene[1][20:30] = 40
    scene[0][30:40] = torch.tensor([0.05, 0, 0.15])
    exact = _gradients([t.double() for t in scene], "torch")
    _same(_gradients([t.double() for t in scene], "numba"), exact, 1e-8)
    _same(_gradients(scene, "numba")[:3], exact[:3], 1e-3)


def test_a_needle_without_end_is_finite():
    """Its determinant has no digits left."""
    scene = _scene(30, dtype=torch.float32)
    scene[1][:10] = torch.tensor([1e9, 0, 0])
    assert all(found.isfinite().all() for found in _gradients(scene, "numba")[:3])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_draw(backend):
    scene = _scene(0)
    out = _call(scene, backend)
    assert out.features.shape == (2, *SIZE, 3)
    assert all((o == 0).all() for o in out)
    out = _call(_scene(5), backend, points=torch.zeros(2, 0, 2))
    assert [tuple(o.shape) for o in out] == [(2, 0, 3), (2, 0), (2, 0), (2, 0, 0)]


# ---- identities --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wall_of_one_colour(backend):
    x, y = torch.meshgrid(torch.arange(-6, 6, 0.25), torch.arange(-5, 5, 0.25), indexing="ij")
    means = torch.stack([x.flatten(), y.flatten(), torch.full((x.numel(),), 5.0)], 1)
    scene = [means, torch.full_like(means, 0.2), torch.full((len(means),), 0.9), torch.tensor([3.0, -2]).expand(len(means), 2)]
    out = _call(scene, backend, (torch.eye(4)[None], _cameras(1, torch.float32)[1]))
    assert (out.alpha > 0.99).all()
    torch.testing.assert_close(out.depth, 5 * out.alpha)
    torch.testing.assert_close(out.features, out.alpha[..., None] * torch.tensor([3.0, -2]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rotation_moves_scales_between_axes(backend):
    means, scales, opacities, features, _ = _scene()
    quarter = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)]).double().expand(len(means), 4)  # about z: x becomes y
    turned = _call([means, scales, opacities, features, 3 * quarter], backend)
    swapped = _call([means, scales[:, [1, 0, 2]], opacities, features], backend)
    _same(list(turned), list(swapped), 1e-7)


# ---- positions ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_see_what_the_image_shows(backend):
    scene = _scene(200, dtype=torch.float32)
    image = _call(scene, backend)
    draw = torch.Generator().manual_seed(1)
    pixels = torch.stack([torch.randint(n, (2, 50), generator=draw) for n in reversed(SIZE)], -1)  # (2, 50, 2) column, row
    found = _call(scene, backend, points=pixels + 0.5)
    for whole, some in zip(image, found, strict=True):
        picked = torch.stack([w[p[:, 1], p[:, 0]] for w, p in zip(whole, pixels, strict=True)])
        if backend == "numba":
            assert torch.equal(some, picked)
        torch.testing.assert_close(some, picked)


def test_gradients_at_positions_are_those_of_the_image():
    scene = _scene(100)
    pixels = torch.tensor([[[3, 4], [29, 20], [3, 4]], [[0, 0], [10, 7], [9, 7]]])
    every = []
    for backend, whole in (("torch", True), ("torch", False), ("numba", False)):
        tensors = [t.clone().requires_grad_() for t in scene]
        out = _call(tensors, backend, points=None if whole else pixels + 0.5)
        some = [torch.stack([w[p[:, 1], p[:, 0]] for w, p in zip(o, pixels, strict=True)]) if whole else o for o in out]
        every.append(torch.autograd.grad(sum((s * s).sum() for s in some), tensors))
    _same(every[1], every[0], 1e-12)
    _same(every[2], every[0], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_between_pixels(backend):
    """They see what pixels see after the image was moved."""
    views, lenses = _cameras(1)
    scene = _scene(60)
    scene[0][:, 2] = scene[0][:, 2].abs() + 3
    moved = lenses.clone()
    moved[:, :2, 2] -= torch.tensor([0.3, 0.4]).double()
    image = _call(scene, backend, (views, moved), size=(8, 8))
    v, u = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    places = torch.stack([u.flatten() + 0.8, v.flatten() + 0.9], -1).double()
    found = _call(scene, backend, (views, lenses), size=(100, 100), points=places[None])  # so large that nothing is clamped
    wide = _call(scene, backend, (views, moved), size=(100, 100))
    torch.testing.assert_close(found.alpha.view(8, 8), wide.alpha[0, :8, :8])
    assert image.alpha.shape == (1, 8, 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_places_outside_see_nothing(backend):
    nowhere = torch.tensor([[-0.01, 3], [30.01, 3], [4, -5], [4, 21.5], [math.nan, 3], [math.inf, 3], [-1, -1]])
    points = torch.cat([nowhere, torch.tensor([[14.5, 11.5], [30, 21]])]).expand(2, -1, 2)
    out, depth, alpha, *gradients = _gradients(_scene(200), backend, points=points)
    for found in (out, depth, alpha):
        assert (found[:, :7] == 0).all()
    assert (alpha[:, 7] > 0).all()
    assert all(g.isfinite().all() for g in gradients)
    assert all((o == 0).all() for o in _call(_scene(200), backend, points=nowhere.expand(2, -1, 2)))


# ---- calls -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_leading_dimensions(backend):
    scenes = [_scene(50, seed=i) for i in range(6)]
    stacked = [torch.stack(parts).unflatten(0, (2, 3)) for parts in zip(*scenes, strict=True)]
    cameras = [c.expand(2, 3, *c.shape) for c in _cameras()]
    points = torch.rand(2, 3, 2, 7, 2) * 20
    for places in (None, points):
        out = _call(stacked, backend, cameras, points=places)
        for i, scene in enumerate(scenes):
            alone = _call(scene, backend, points=None if places is None else places[i // 3, i % 3])
            for batch, one in zip(out, alone, strict=True):
                torch.testing.assert_close(batch[i // 3, i % 3], one)
    empty = _call([t[:0] for t in stacked], backend, [c[:0] for c in cameras])
    assert empty.features.shape == (0, 3, 2, *SIZE, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_types(backend):
    scene = _scene(50, dtype=torch.float32)
    exact = _call(scene, backend)
    assert exact.features.dtype == exact.depth.dtype == exact.alpha.dtype == torch.float32
    half = [scene[0], *(t.bfloat16() for t in scene[1:])]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = _call(half, backend)
    _same(list(mixed), list(_call([t.float() for t in half], backend)), 1e-6)
    strided = [t.repeat_interleave(2, 0)[::2] for t in scene]
    _same(_gradients(strided, backend), _gradients(scene, backend), 1e-6)
    _same(list(_call([*scene[:4], 1e-30 * scene[4]], backend)), list(exact), 1e-3)  # quaternions of any length
    assert _call(scene, backend, _cameras()).alpha.dtype == torch.float32, "cameras do not decide"


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_what_is_asked_for_gets_a_gradient(backend):
    scene = _scene(50)
    together = _gradients(scene, backend)[4:]
    features = scene[3].requires_grad_()
    views, lenses = (c.requires_grad_() for c in _cameras())
    out = _call(scene, backend, (views, lenses))
    draw = torch.Generator().manual_seed(5)
    (alone,) = torch.autograd.grad((out.features * torch.randn(out.features.shape, generator=draw, dtype=torch.float64)).sum(), features)
    torch.testing.assert_close(alone, together[3])
    with torch.no_grad():
        assert not _call(scene, backend).features.requires_grad


def test_the_same_bits_for_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    scene = _scene(3000, 17, dtype=torch.float32)
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(_gradients(scene, "numba"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_size_of_the_tiles_does_not_matter(monkeypatch):
    scene = _scene(500, dtype=torch.float32)
    small = _gradients(scene, "numba")
    monkeypatch.setattr(splat_cpu, "_SMALL_IMAGE", 0)
    large = _gradients(scene, "numba")
    assert all(torch.equal(a, b) for a, b in zip(small[:4], large[:4], strict=True))
    _same(small[4:], large[4:], 1e-5)


def test_bad_input():
    means, scales, opacities, features, quats = _scene(5)
    views, lenses = _cameras()

    def call(backend="auto", size=SIZE, points=None, **changes):
        given = {"means": means, "scales": scales, "opacities": opacities, "features": features, "viewmats": views, "intrinsics": lenses}
        return rasterize(**(given | changes), size=size, points=points, backend=backend)

    with pytest.raises(ShapeError, match=r"scales must have shape \(5, 3\).*\(4, 3\)"):
        call(scales=scales[:4])
    with pytest.raises(ShapeError, match=r"opacities must have shape \(5,\).*\(5, 1\)"):
        call(opacities=opacities[:, None])
    with pytest.raises(ShapeError, match=r"intrinsics must have shape \(2, 3, 3\)"):
        call(intrinsics=lenses[0])
    with pytest.raises(ShapeError, match=r"viewmats must have shape \(2, 4, 4\).*\(2, 3, 4\)"):
        call(viewmats=views[:, :3])
    with pytest.raises(ShapeError, match=r"points must have shape \(2, 7, 2\).*\(7, 2\)"):
        call(points=torch.zeros(7, 2))
    with pytest.raises(ShapeError, match=r"quats must have shape \(5, 4\)"):
        call(quats=quats[:, :3])
    with pytest.raises(ShapeError, match=r"features \(\*, G, C\), got .*\(5,\)"):
        call(features=opacities)
    with pytest.raises(ShapeError, match=r"limits \(2, 7, 1\) are depths .* give points, too"):
        call(limits=torch.ones(2, 7, 1))
    with pytest.raises(ShapeError, match=r"limits must have shape \(2, 6, 1\).*\(2, 7, 1\)"):
        call(points=torch.zeros(2, 6, 2), limits=torch.ones(2, 7, 1))
    with pytest.raises(ShapeError, match="at least one camera"):
        call(viewmats=views[:0], intrinsics=lenses[:0])
    with pytest.raises(ShapeError, match=r"at least one pixel, got \(0, 5\)"):
        call(size=(0, 5))
    for near, far in ((-1.0, 10.0), (2.0, 2.0), (math.nan, 10.0), (0.1, math.nan)):
        with pytest.raises(DataError, match="0 <= near < far"):
            call(near=near, far=far)
    for name, tensor in {"means": means, "opacities": opacities, "viewmats": views}.items():
        bad = tensor.clone(memory_format=torch.contiguous_format)
        bad.view(-1)[1] = math.nan
        with pytest.raises(DataError, match=rf"{name} of rasterize has 1 number\(s\) that are not finite"):
            call(**{name: bad})
    with pytest.raises(DataError, match="5 quaternion"):
        call(quats=0 * quats)
    with pytest.raises(DataError, match="without skew"):
        call(intrinsics=lenses + torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 0, 0]]))
    with pytest.raises(ConfigError, match="unknown backend 'cuda' of rasterize"):
        call("cuda")
    with pytest.raises(ConfigError, match="gsplat backend of rasterize needs CUDA tensors, got cpu"):
        call("gsplat")
    with pytest.raises(ConfigError, match="needs CPU tensors, got meta"):
        call("numba", means=means.to("meta"))


# ---- gsplat ------------------------------------------------------------------------------------------------------------------------


def test_gsplat_is_not_touched_without_a_gpu(monkeypatch):
    class Trap(types.ModuleType):
        def __getattr__(self, name):
            raise AssertionError(f"gsplat.{name} was looked at")

    monkeypatch.setitem(sys.modules, "gsplat", Trap("gsplat"))
    assert splat_gsplat.why_not(torch.device("cpu"), None) == "needs CUDA tensors, got cpu"
    _call(_scene(3), "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert splat_gsplat.why_not(torch.device("cuda"), None)


def test_what_gsplat_is_asked_for(monkeypatch):
    """A stand-in with gsplat's signature and conventions; the real one needs a GPU."""

    def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, render_mode, packed):
        assert (render_mode, packed, means.dtype) == ("RGB+D", True, torch.float32)
        out = rasterize(
            means, scales, opacities, colors, viewmats, Ks, (height, width), quats=quats, near=near_plane, far=far_plane, backend="torch"
        )
        return torch.cat([out.features, out.depth[..., None]], -1), out.alpha[..., None], {}

    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace(rasterization=rasterization))
    monkeypatch.setattr(splat_gsplat, "why_not", lambda device, points, limits: "")
    scene = _scene(50, dtype=torch.float32)
    pixels = torch.tensor([[[3.5, 4.5], [29.5, 20.5], [math.nan, 4]]]).expand(2, -1, 2)
    for some in (scene, scene[:4]):
        for points in (None, pixels):
            _same(_gradients(some, "gsplat", points=points), _gradients(some, "torch", points=points), 1e-5)


def test_between_pixels_gsplat_is_not_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(splat_gsplat.importlib.util, "find_spec", lambda name: name)
    device = torch.device("cuda")
    assert splat_gsplat.why_not(device, torch.tensor([[0.5, 3.5], [math.nan, 1]])) == ""
    assert "centres of pixels" in splat_gsplat.why_not(device, torch.tensor([[0.5, 3.6]]))
    monkeypatch.setattr(splat_gsplat.importlib.util, "find_spec", lambda name: None)
    assert "pip install gsplat" in splat_gsplat.why_not(device, None)


def test_plain_torch_says_that_it_is_slow(monkeypatch):
    monkeypatch.setattr(splat, "_MANY", 10)
    monkeypatch.setattr(splat, "_backend", lambda *arguments: "torch")
    with pytest.warns(
        FrustumWarning, match="plain torch for 11 Gaussians on cpu, which is slow; gsplat would be faster, but needs CUDA tensors, got cpu"
    ):
        _call(_scene(11), "auto", size=(4, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_cuda_equals_the_cpu(backend):
    scene = _scene(2000, 17, dtype=torch.float32)
    on_gpu = _gradients([t.cuda() for t in scene], backend, cameras=[c.cuda() for c in _cameras(dtype=torch.float32)])
    _same([t.cpu() for t in on_gpu], _gradients(scene, "numba"), 1e-4)
