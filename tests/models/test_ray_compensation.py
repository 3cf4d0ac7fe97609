"""Ray Compensation of GSRender: fields resampled into adjacent keyframes, and what of these moves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.data.labels.view_points import CLASSES, Views
from frustum.data.labels.views import ViewLabels
from frustum.geometry import rotation_z
from frustum.losses.view_rendering import ViewLoss, view_losses
from frustum.models.gsrender import GsRenderConfig
from frustum.models.renderocc import RenderOccConfig
from frustum.models.view_rendering import Rendered, as_points, of_views, resample, splat_views, trace_views, windows
from frustum.nn.gaussians import GaussianHead, to_gaussians
from frustum.types.classes import IGNORE
from frustum.types.contract import Shapes
from tests.models.test_gsrender import GRID, example, losses_of, tiny

# ---- Ray Compensation --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compensation", ["resample", "camera"])
def test_an_adjacent_frame_at_the_same_place_with_the_same_labels_says_the_same(compensation):
    views = Views(adjacent=(-1,))
    config = GsRenderConfig(trunk=tiny(), views=views, compensation=compensation, loss=ViewLoss())
    truth = ViewLabels(views).example(np.random.default_rng(0), Shapes(2, 2, (64, 96)))
    same = {name: value[:, :1].expand_as(value) for name, value in vars(truth).items()}
    losses = losses_of(config, **same)
    for name in ("depth", "class"):
        torch.testing.assert_close(losses[name], losses[f"adjacent.{name}"], rtol=1e-4, atol=1e-5)
    assert "adjacent.depth" not in losses_of(config.model_copy(update={"compensation": "none"}))


def test_resampling_by_a_quarter_turn_is_exact():
    field = torch.randn(1, *GRID.shape, 3)
    turn = torch.eye(4)[None].clone()
    turn[0, :3, :3] = torch.from_numpy(rotation_z(math.pi / 2)).float()
    found, is_valid = resample(field, turn, GRID)
    assert is_valid.all()
    # the point (x, y) of the adjacent frame is (-y, x) of the keyframe
    torch.testing.assert_close(found, field.flip(1).transpose(1, 2), atol=1e-4, rtol=0)


def test_what_lies_beyond_the_grid_is_left_out():
    moved = torch.eye(4)[None].clone()
    moved[0, 0, 3] = 10  # ten metres, five cells ahead
    field = torch.ones(1, *GRID.shape, 8)
    found, is_valid = resample(field, moved, GRID)
    assert is_valid[0, :11].all()
    assert not is_valid[0, 11:].any()
    gaussians = to_gaussians(found, GRID, GaussianHead(), is_valid)
    assert not gaussians.opacities.unflatten(1, GRID.shape)[0, 11:].any()


def smooth_field() -> torch.Tensor:
    """Numbers (1, X, Y, Z, 7 + K) of a wall of fog that thickens ahead, whose logits change from place to place."""
    centres = GRID.centres()
    numbers = torch.zeros(1, *GRID.shape, 7 + 17)
    numbers[0, ..., 6] = centres[..., 0] - 7  # none near the cameras, where single Gaussians are seen
    numbers[0, ..., 7:] = torch.sin(centres @ torch.randn(3, 17) / 6)
    return numbers


@pytest.mark.parametrize(("turn", "shift"), [(0.0, (2.0, -2.0)), (0.3, (1.0, -1.0))])
def test_resampled_and_by_camera_agree(turn, shift):
    """Static scene: the adjacent view of a resampled field is that of the field from where the camera was."""
    truth = example(Views(adjacent=(1,)))
    move = truth.view2key.clone()
    move[:, 1, :2, :2] = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    move[:, 1, :2, 3] = torch.tensor(shift)
    truth = of_views(replace(truth, view2key=move), slice(1, None))
    head, numbers = GaussianHead(opacity_bias=0), smooth_field()
    here = splat_views(to_gaussians(numbers, GRID, head), truth, 96)
    there = splat_views(to_gaussians(resample(numbers, truth.view2key[:, 0], GRID)[0], GRID, head), truth, 96, in_key=False)
    still = truth.view2key.clone()
    still[:] = torch.eye(4)
    wrong = splat_views(to_gaussians(numbers, GRID, head), replace(truth, view2key=still), 96)
    ends = replace(truth, depth=here.depth / here.alpha.clamp(min=0.1))
    seen = truth.is_point & (here.alpha > 0.5) & as_points(here, ends, GRID, in_key=False).is_inside
    assert seen.sum() > 10

    for name in ("logits", "depth", "alpha"):
        expected, found, unmoved = (getattr(rendered, name)[seen] for rendered in (here, there, wrong))
        assert (found - expected).abs().mean() < 0.2 * (unmoved - expected).abs().mean()


def test_light_before_a_depth_keeps_no_logits_for_the_gradient():
    """An empty part of a tensor would keep all of it."""
    truth, loss = example(Views()), ViewLoss(depth="hit", normalise=True)
    logits, kept = torch.randn(1, *GRID.shape, 17, requires_grad=True), []
    density = torch.rand(1, *GRID.shape, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        trace_views(density, logits, GRID, truth, windows(truth, loss, CLASSES))
    assert max(t.untyped_storage().nbytes() for t in kept if not t.numel()) == 0
    assert sum(t.untyped_storage().data_ptr() == logits.untyped_storage().data_ptr() for t in kept) <= 1


# ---- moving points -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussians", "density"])
def test_moving_points_of_adjacent_frames_are_dropped(kind):
    car, road = CLASSES.index("car"), CLASSES.index("driveable_surface")

    def config(weight: float):
        views, loss = Views(adjacent=(-1,)), ViewLoss(moving_weight=weight)
        if kind == "density":
            return RenderOccConfig(trunk=tiny(), views=views, loss=loss)
        return GsRenderConfig(trunk=tiny(), views=views, compensation="camera", loss=loss)

    classes = torch.full((2, 2, 2, 20), road, dtype=torch.uint8)
    classes[..., ::2] = car
    truth = example(Views(adjacent=(-1,)), 2)
    dropped = losses_of(config(0), classes=classes)
    kept = losses_of(config(1), classes=classes)
    static = replace(truth, classes=classes)
    static = {"classes": classes.clone(), "depth": static.depth.clone(), "pixels": static.pixels.clone()}
    static["depth"][:, 1, :, ::2], static["classes"][:, 1, :, ::2] = 0, IGNORE
    static["pixels"][:, 1, :, ::2] = math.nan
    without = losses_of(config(1), **static)
    for name in ("adjacent.depth", "adjacent.class", "depth", "class"):
        torch.testing.assert_close(dropped[name], without[name], rtol=1e-4, atol=1e-5)
    assert not torch.isclose(kept["adjacent.depth"], dropped["adjacent.depth"])
    assert torch.equal(kept["depth"], dropped["depth"])


def test_moving_points_have_no_gradient_and_the_others_their_own():
    """Of adjacent points with a weight of 0: what is rendered there gets no gradient at all, and that of a static one is finite."""
    truth = of_views(example(Views(adjacent=(-1,))), slice(1, None))
    classes = torch.full_like(truth.classes, CLASSES.index("driveable_surface"))
    classes[..., ::2] = CLASSES.index("car")
    truth = replace(truth, classes=classes)
    seen = Rendered(
        *(t.requires_grad_() for t in (torch.randn(*classes.shape, 17), *torch.rand(2, *classes.shape).add(0.1).unbind(0))), None
    )
    points = as_points(seen._replace(before=torch.zeros(*classes.shape, 0)), truth, GRID, (CLASSES.index("car"),), 0.0)
    assert points.weight[..., 1::2].any()
    sum(view_losses(points, ViewLoss()).values()).backward()
    for grad in (seen.logits.grad.abs().sum(-1), seen.depth.grad):
        assert not grad[..., ::2].any()
        assert grad[points.weight.bool() & points.is_inside].all()
