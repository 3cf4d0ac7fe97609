"""GSRender and RenderOcc: what teaches nothing, rendered views, and that both learn a field from its pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from frustum.checkpoint.weights_file import save_weights
from frustum.data.labels.view_points import CLASSES, Views
from frustum.data.labels.views import ViewLabels, ViewTruth
from frustum.engine import overrides
from frustum.engine.sections import header_of
from frustum.engine.train import start
from frustum.errors import DataError, TrainingError
from frustum.geometry import VoxelGrid
from frustum.losses.view_rendering import Points, ViewLoss, distortion, ray_entropy, renderocc_class_weights, view_losses
from frustum.models.flashocc_tiny import FlashOccTinyConfig
from frustum.models.gsrender import GsRenderConfig
from frustum.models.occupancy_trunk import Trunk
from frustum.models.renderocc import RenderOccConfig
from frustum.models.view_rendering import (
    RenderLoss,
    as_points,
    of_views,
    render_losses,
    splat_views,
    trace_views,
    windows,
)
from frustum.nn.gaussians import GaussianHead, to_gaussians
from frustum.ops.voxel_march import ACT_SHIFT, voxel_march
from frustum.recipes.finding import get_recipe
from frustum.types.classes import IGNORE
from frustum.types.contract import Shapes
from frustum.weights.loading import empty_network
from tests.models.small import RESNET, SWIN, TRUNK
from tests.models.test_contract import make_batch

_WIDE = 'grid={"lower": [-40, -40, -1], "upper": [40, 40, 5.4], "cell": [4, 4, 0.8]}'


def _of(trunk: str, words: list[str]) -> list[str]:
    """Settings of a network as those of a trunk."""
    return [word.replace("model.", f"model.trunk.{trunk}.", 1) for word in words if "pretrained" not in word or "tiny" in trunk]


_STEREO = [*_of("flashocc_stereo", SWIN), f"model.trunk.flashocc_stereo.{_WIDE}"]
SMALL = {
    "gsrender-mini": _of("flashocc_tiny", TRUNK),
    "gsrender-mini-kitti": _of("flashocc_tiny", TRUNK),
    "renderocc-mini": _of("flashocc_tiny", TRUNK),
    "gsrender-r50": _of("flashocc", RESNET),
    "flashocc-mini-render": [*TRUNK, "model.render.weight=0.03"],  # the labels of an example contradict each other
    "gsrender-swin-b": _STEREO,
    "renderocc-swin-b": _STEREO,
}
# at once with 1e-2 all Gaussians of a transformer fade, which is said then
ONE_CYCLE = {"gsrender-swin-b": (60, 1e-3, 5.0), "flashocc-mini-render": (150, 1e-2, math.inf)}
GRID = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 5.4), cell=(2, 2, 0.8))


def tiny() -> Trunk:
    config = FlashOccTinyConfig(pretrained=False, neck_channels=16, lift_channels=8, bev_channels=16, voxel_channels=8, grid=GRID)
    return Trunk(flashocc_tiny=config.model_copy(update={"depth_loss": 0.0}))


def made_up(config, **changes):
    """A batch for a network, with changed labels."""
    recipe = overrides.apply(get_recipe("gsrender-mini"), [*SMALL["gsrender-mini"], "data.image_size=64,96"])
    batch = make_batch(recipe.model_copy(update={"model": config}))
    return batch.with_labels({ViewLabels: replace(batch.need(ViewLabels), **changes)}) if changes else batch


def example(views: Views, batch: int = 1, cameras: int = 2) -> ViewTruth:
    return ViewLabels(views).example(np.random.default_rng(0), Shapes(batch, cameras, (64, 96)))


def losses_of(config, **changes) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model, batch = config.build().eval(), made_up(config, **changes)
    return model.loss(model(batch), batch)


# ---- what teaches nothing ----------------------------------------------------------------------------------------------------------


def test_gaussians_that_are_all_too_faint():
    config = GsRenderConfig(trunk=tiny(), views=Views(), compensation="none")
    model, batch = config.build(), made_up(config)
    outputs = model(batch)
    outputs["numbers"] = outputs["numbers"] - 5
    with pytest.raises(TrainingError, match="no Gaussian has an opacity of 1/255 or more"):
        model.loss(outputs, batch)


@pytest.mark.parametrize("network", [GsRenderConfig, RenderOccConfig])
def test_a_camera_without_a_point_and_a_batch_without_any(network):
    config = network(trunk=tiny(), views=Views(adjacent=(-1,)), **({"compensation": "camera"} if network is GsRenderConfig else {}))
    truth = example(Views(adjacent=(-1,)), 2)
    for cameras in (slice(0, 1), slice(None)):
        depth, pixels, classes = truth.depth.clone(), truth.pixels.clone(), truth.classes.clone()
        depth[:, :, cameras], pixels[:, :, cameras], classes[:, :, cameras] = 0, math.nan, IGNORE
        losses = losses_of(config, depth=depth, pixels=pixels, classes=classes)
        assert all(value.isfinite() for value in losses.values())
        torch.stack(list(losses.values())).sum().backward()


def test_depth_alone_teaches_no_class():
    config = RenderOccConfig(trunk=tiny(), views=Views(source="lidar"))
    losses = losses_of(config, classes=torch.full((2, 1, 2, 20), IGNORE, dtype=torch.uint8))
    assert losses["class"] == 0
    assert losses["depth"] > 0


def test_what_learned_depth_alone_claims_no_class():
    """All that is occupied is one class, `others`, whatever its untrained logits say, and no rendered pixel has one."""
    for views, known in ((Views(source="lidar"), False), (Views(), True)):
        for config in (RenderOccConfig(trunk=tiny(), views=views), GsRenderConfig(trunk=tiny(), views=views, compensation="none")):
            network = config.model_copy(update={"threshold": 0.0}).build().eval()
            batch = make_batch(get_recipe("renderocc-mini"), 1)
            outputs = network(batch)
            outputs["numbers"] = torch.randn_like(outputs["numbers"])
            (found,) = network.predict(outputs, batch)
            classes = set(found.occupancy.semantics.unique().tolist()) - {17}
            assert (len(classes) == 17) == known, classes
            assert known or classes == {0}
            assert bool((found.views.labels == IGNORE).all()) != known


def test_settings_that_contradict_each_other():
    with pytest.raises(ValidationError, match="compensation needs adjacent keyframes"):
        GsRenderConfig(views=Views())
    with pytest.raises(ValidationError, match=r"never drawn.*set model\.views\.moving_weight=1 beside model\.loss\.moving_weight=0\.5"):
        GsRenderConfig(views=Views(adjacent=(1,), points=9, moving_weight=0), compensation="camera", loss=ViewLoss(moving_weight=0.5))
    with pytest.raises(ValidationError, match="depth=silog has no window and no power: set depth=hit"):
        ViewLoss(window=1.0, power=0.5)
    with pytest.raises(ValidationError, match="3D labels say what is empty"):
        RenderLoss(loss=ViewLoss(sparsity=1.0))
    with pytest.raises(ValidationError, match="leave its `render` out"):
        Trunk(flashocc_tiny=FlashOccTinyConfig(render=RenderLoss()))
    with pytest.raises(ValidationError, match="one adjacent keyframe at a time"):
        GsRenderConfig(views=Views(adjacent=(-1, 1)))
    with pytest.raises(ValidationError, match=r"renderer=traversal alone"):
        RenderOccConfig(renderer="march", loss=ViewLoss(depth="hit"))
    with pytest.raises(ValidationError, match="renderer=reference"):
        RenderOccConfig(entropy=0.01)
    with pytest.raises(ValidationError, match=r"an opacity, below 1, got 8\.5"):
        RenderOccConfig(threshold=8.5)
    with pytest.raises(ValidationError, match="one loss of all points"):
        RenderOccConfig(renderer="reference", threshold=8.5, adjacent_loss=0.5)
    with pytest.raises(ValidationError, match="no adjacent views to weigh"):
        GsRenderConfig(compensation="none", adjacent_loss=0.5, views=Views())
    with pytest.raises(ValidationError, match=r"keyframe alone: set model\.views\.adjacent=\[\] model\.views\.drawn=0 beside it"):
        GsRenderConfig(compensation="none")
    with pytest.raises(ValidationError, match="adjacent_weight is of points of adjacent keyframes"):
        Views(points=9, adjacent_weight=0.3)
    with pytest.raises(ValidationError, match="without adjacent keyframes there is nothing to weigh"):
        RenderOccConfig(views=Views(), adjacent_loss=0.5)
    with pytest.raises(ValidationError, match=r"never drawn.*beside model\.loss\.moving_weight=0\.5"):
        RenderOccConfig(loss=ViewLoss(moving_weight=0.5))
    for changes in ({"adjacent_loss": 0}, {"compensation": "camera", "adjacent_loss": 0}):
        with pytest.raises(ValidationError, match="greater than 0"):
            (GsRenderConfig if "compensation" in changes else RenderOccConfig)(**changes)
    with pytest.raises(ValidationError, match="greater than 0"):
        RenderLoss(weight=0)
    with pytest.raises(ValidationError, match=r"drawn=2 of 1 adjacent keyframes: set adjacent to at least as many, or drawn=0"):
        Views(adjacent=(1,), drawn=2)
    with pytest.raises(ValidationError, match="less than 1"):
        Views(hidden=7)
    with pytest.raises(ValidationError, match="less than or equal to 8192"):
        GsRenderConfig(width=10_000)
    with pytest.raises(ValidationError, match="cars is none"):
        Views(moving=("cars",))
    with pytest.raises(ValidationError, match="end at 80 m"):
        Views(cache="labels", max_depth=100)
    with pytest.raises(ValidationError, match="exactly one of"):
        Trunk()
    with pytest.raises(ValidationError, match="offsets other than 0"):
        Views(adjacent=(0, 1))
    config = RenderOccConfig(trunk=tiny(), renderer="reference", threshold=8.5, views=Views())
    with pytest.raises(DataError, match="wider than 39"):
        losses_of(config)


def test_sparsity_of_the_reference_is_of_what_it_renders():
    """Its densities are shifted before they stop light: most of what the head gives is nearly transparent."""
    network = RenderOccConfig(trunk=tiny(), renderer="reference", threshold=8.5, density_bias=0.0).build()
    density, _ = network.field(torch.full((1, *GRID.shape, 1 + 17), 8.5))
    opacity = network._opacity(network._per_metre(density))
    expected = -math.expm1(-math.log1p(math.exp(8.5 + math.log1p(math.exp(-8.5)) + ACT_SHIFT)))
    torch.testing.assert_close(opacity, torch.full_like(opacity, expected), rtol=1e-2, atol=0)
    assert expected < 0.01


# ---- rendering ---------------------------------------------------------------------------------------------------------------------


def _wall() -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers (1, X, Y, Z, 1 + 2) of a density: all that is 8 m ahead is opaque, of class 1."""
    density, logits = torch.zeros(1, *GRID.shape), torch.zeros(1, *GRID.shape, 2)
    density[:, 12:] = 20
    logits[:, 12:, ..., 1] = 5
    return density, logits


def test_a_wall_is_seen_where_it_stands():
    truth = example(Views())
    density, logits = _wall()
    limits = torch.stack([torch.full_like(truth.depth, 7.5), torch.full_like(truth.depth, 9.5)], -1)
    ahead = truth.rays()[1][..., 1:].norm(dim=-1) < 0.2
    for march in (None, lambda *field: voxel_march(*field, step=0.05)):
        seen = trace_views(density, logits, GRID, truth, limits if march is None else None, march)
        torch.testing.assert_close(seen.alpha[ahead], torch.ones(int(ahead.sum())), atol=0.02, rtol=0)
        torch.testing.assert_close(seen.depth[ahead], torch.full((int(ahead.sum()),), 8.0), atol=0.1 if march is None else 1.1, rtol=0)
        assert (seen.logits[ahead].argmax(-1) == 1).all()
    seen = trace_views(density, logits, GRID, truth, limits)
    assert not seen.before[ahead][:, 0].any()
    assert (seen.before[ahead][:, 1] > 0.98).all()


def test_a_mirrored_and_turned_map_shows_the_same():
    """Labels in an augmented frame see the augmented field as those of the frame itself see the field."""
    truth = example(Views())
    mirror = torch.diag(torch.tensor([1.0, -1, 1, 1]))
    turned = mirror.clone()
    turned[:2, :2] = torch.tensor([[0.0, -1], [1, 0]]) @ mirror[:2, :2]
    density, logits = torch.rand(1, *GRID.shape), torch.randn(1, *GRID.shape, 2)
    plain = trace_views(density, logits, GRID, truth)
    for change, move in ((mirror, lambda t: t.flip(2)), (turned, lambda t: t.transpose(1, 2))):
        moved = replace(truth, cam2ego=change @ truth.cam2ego)
        seen = trace_views(move(density), move(logits), GRID, moved)
        for a, b in zip(plain, seen, strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


def test_windows_are_wider_on_flat_ground():
    truth = example(Views())
    road = truth.classes == CLASSES.index("driveable_surface")
    limits = windows(truth, ViewLoss(depth="hit", window=0.4, flat_window=1.0), CLASSES)
    half = (limits[..., 1] - truth.depth)[truth.depth > 1]
    torch.testing.assert_close(half[road[truth.depth > 1]], torch.ones(int(road[truth.depth > 1].sum())))
    cars = (truth.classes == CLASSES.index("car"))[truth.depth > 1]
    torch.testing.assert_close(half[cars], torch.full((int(cars.sum()),), 0.4))
    assert windows(truth, ViewLoss(), CLASSES) is None
    wider = windows(truth, ViewLoss(depth="hit", window=0.4, window_share=0.05), CLASSES)
    torch.testing.assert_close(
        (wider[..., 1] - truth.depth)[truth.depth > 1][cars], (0.05 * truth.depth[truth.depth > 1][cars]).clamp(min=0.4)
    )


def test_a_hit_beyond_the_keyframe_s_grid_is_none_in_either_compensation():
    truth = example(Views(adjacent=(1,)))
    move = truth.view2key.clone()
    move[:, 1, 0, 3] = 10  # the adjacent grid reaches ten metres further
    truth = of_views(replace(truth, view2key=move), slice(1, None))
    rendered = trace_views(*_wall(), GRID, truth)
    by_camera, resampled = as_points(rendered, truth, GRID), as_points(rendered, truth, GRID, in_key=False)
    assert not (resampled.is_inside & ~by_camera.is_inside).any()
    assert by_camera.is_inside.any()


def test_gaussians_in_a_mirrored_map_look_the_same():
    truth, mirror = example(Views()), torch.diag(torch.tensor([1.0, -1, 1, 1]))
    numbers = torch.randn(1, *GRID.shape, 7 + 2)
    flipped = numbers.flip(2).clone()
    flipped[..., 1] *= -1  # the shift along y
    head = GaussianHead(opacity_bias=-1)
    plain = splat_views(to_gaussians(numbers, GRID, head), truth, 96)
    seen = splat_views(to_gaussians(flipped, GRID, head), replace(truth, cam2ego=mirror @ truth.cam2ego), 96)
    for a, b in zip(plain, seen, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.data
def test_the_losses_of_renderocc(shared):
    """Depth and classes of its golden rays, by the network's own loss."""
    with np.load(shared / "golden/gs/renderocc_nerf.npz", allow_pickle=False) as stored:
        gold = {name: torch.from_numpy(stored[name]) for name in stored.files}
    rays = gold["rays"][gold["mask"]].double()
    points = Points(
        rays[:, 2], rays[:, 3].to(torch.uint8), torch.ones(len(rays), dtype=torch.bool), torch.ones(len(rays)).double(), gold["semantic"],
        gold["depth_official"], 1 - gold["alphainv_last"], gold["semantic"][:, :0],
    )  # fmt: skip
    losses = view_losses(points, ViewLoss(), renderocc_class_weights())
    torch.testing.assert_close(losses["depth"].double(), gold["losses"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses["class"].double(), gold["losses"][1], rtol=1e-4, atol=0)
    torch.testing.assert_close(0.01 * ray_entropy(points.alpha), gold["losses"][2], rtol=1e-6, atol=0)
    spread = distortion(gold["weights"], gold["s"], gold["ray_id"], len(rays), 1 / len(gold["t"]))
    torch.testing.assert_close(0.01 * spread, gold["losses"][3], rtol=1e-6, atol=0)


def test_reference_counts_all_points_in_one_loss_per_sample():
    words = [*SMALL["renderocc-swin-b"], "data.image_size=64,96"]
    recipe = overrides.apply(get_recipe("renderocc-swin-b"), words)
    torch.manual_seed(0)
    model, batch = recipe.model.build().eval(), make_batch(recipe)
    outputs = model(batch)
    losses = model.loss(outputs, batch)
    assert losses.keys() == {"depth", "class", "entropy", "distortion", "lift.depth"}
    alone = [
        model.loss(
            {k: v[b : b + 1] for k, v in outputs.items() if k == "numbers"} | {"depth": outputs["depth"][2 * b : 2 * b + 2]},
            batch[b : b + 1],
        )
        for b in range(2)
    ]
    torch.testing.assert_close(losses["class"], (alone[0]["class"] + alone[1]["class"]) / 2, rtol=1e-4, atol=0)


def test_points_beyond_the_grid_are_not_hits():
    truth = example(Views())
    density, logits = _wall()
    points = as_points(trace_views(density, logits, GRID, truth), truth, GRID)
    origins, directions = truth.rays()
    place = origins + truth.depth[..., None] * directions
    inside = ((place > torch.tensor(GRID.lower)) & (place < torch.tensor(GRID.upper))).all(-1)
    assert torch.equal(points.is_inside, inside)
    assert 0 < inside.float().mean() < 1


# ---- beside 3D labels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flashocc-r50", "flashocc-tiny", "bevdet-occ-r50", "bevdet-occ-tiny", "flashocc-r50-4d-stereo"])
def test_occupancy_networks_render_beside_their_3d_labels(name):
    words = TRUNK if "tiny" in name else RESNET
    plain = overrides.apply(get_recipe(name), [*words, "data.image_size=64,96"])
    recipe = overrides.apply(plain, ['model.render={"weight": 2}'])
    torch.manual_seed(0)
    model, batch = recipe.model.build().train(), make_batch(recipe)
    losses = model.loss(model(batch), batch)
    assert losses.keys() - plain.model.build().train().loss(model(batch), batch).keys() == {"render.depth", "render.class", "render.free"}
    half = recipe.model.model_copy(update={"render": RenderLoss(weight=1)})
    model.config = half
    torch.testing.assert_close(2 * model.loss(model(batch), batch)["render.depth"], losses["render.depth"], rtol=0.05, atol=0)


def test_a_certain_voxel_renders_as_a_wall():
    truth = example(Views())
    truth = replace(truth, depth=torch.full_like(truth.depth, 8.2), classes=torch.full_like(truth.classes, CLASSES.index("car")))
    logits = torch.zeros(1, *GRID.shape, 18)
    logits[..., -1] = 20  # free
    logits[:, 12:, ..., -1], logits[:, 12:, ..., CLASSES.index("car")] = -20, 20  # from 8 m on
    batch = made_up(RenderOccConfig(trunk=tiny(), views=Views()))[0:1].with_labels({ViewLabels: truth})

    def losses(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        return render_losses(logits, batch, GRID, (*CLASSES, "free"), RenderLoss())

    right, behind, near = losses(logits), losses(logits.flip(1)), losses(logits.roll(-2, 1))
    assert right["render.depth"] + right["render.class"] + right["render.free"] < 0.01
    assert behind["render.depth"] > 2
    assert near["render.free"] > 1
    assert render_losses(logits, batch, GRID, (*CLASSES, "free"), None) == {}


def test_views_without_a_point_take_nothing_from_the_others():
    """Adjacent keyframes that a scene does not have, or whose points all count nothing."""
    views = Views(adjacent=(-1, 1))
    batch, logits = made_up(RenderOccConfig(trunk=tiny(), views=views)), torch.randn(2, *GRID.shape, 18)
    whole = batch.need(ViewLabels)

    def losses(points: torch.Tensor, samples: slice = slice(None), **changes) -> dict[str, torch.Tensor]:
        """With the points where (B, V) is true."""
        depth = torch.where(points[..., None, None], whole.depth, 0)
        pixels = torch.where(points[..., None, None, None], whole.pixels, math.nan)
        truth = replace(whole, depth=depth, pixels=pixels, is_present=points, **changes)
        some, settings = batch.with_labels({ViewLabels: truth})[samples], RenderLoss(views=views, loss=ViewLoss(moving_weight=0))
        return render_losses(logits[samples], some, GRID, (*CLASSES, "free"), settings)

    def of_view(v: int, samples: slice = slice(None)) -> torch.Tensor:
        points = torch.zeros(2, 3, dtype=torch.bool)
        points[:, v] = True
        return losses(points, samples)["render.depth"]

    every = torch.ones(2, 3, dtype=torch.bool)
    alone, one_of_two = every.clone(), every.clone()
    alone[:, 1:], one_of_two[0, 1:] = False, False
    torch.testing.assert_close(losses(every)["render.depth"], (of_view(0) + of_view(1) + of_view(2)) / 3)
    car = torch.full_like(whole.classes, CLASSES.index("car"))
    for changes in ({}, {"classes": torch.where(torch.arange(3)[:, None, None] > 0, car, whole.classes)}):
        torch.testing.assert_close(losses(every if changes else alone, **changes)["render.depth"], of_view(0))
    second = slice(1, 2)
    mixed = (2 * of_view(0) + of_view(1, second) + of_view(2, second)) / 4
    torch.testing.assert_close(losses(one_of_two)["render.depth"], mixed)
    nothing = losses(~every)
    assert all(value == 0 for value in nothing.values())


def test_a_training_starts_from_the_network_that_is_its_trunk(tmp_path):
    words = ["data.image_size=64,96"]
    tiny_recipe = overrides.apply(get_recipe("flashocc-tiny"), [*TRUNK, *words])
    torch.manual_seed(1)
    trained = tiny_recipe.model.build()
    save_weights(tmp_path / "tiny.safetensors", trained, header_of(tiny_recipe))
    recipe = overrides.apply(get_recipe("gsrender-mini"), [*SMALL["gsrender-mini"], *words, f"train.init={tmp_path / 'tiny.safetensors'}"])
    model = recipe.model.build()
    assert any("starting from" in line for line in start(model, recipe))
    assert torch.equal(model.trunk.refine.weight, trained.refine.weight)
    assert model.trunk.head.weight.shape != trained.head.weight.shape


def test_a_trained_network_is_loaded_without_the_package_that_its_trunk_began_with():
    recipe = get_recipe("gsrender-mini")
    assert recipe.model.trunk.config.pretrained
    assert not empty_network(recipe).config.trunk.config.pretrained


# ---- learning ----------------------------------------------------------------------------------------------------------------------


FINE = 'model.trunk.flashocc_tiny.grid={"lower": [-16, -16, -1], "upper": [16, 16, 5.4], "cell": [0.8, 0.8, 0.8]}'


@pytest.mark.parametrize(("name", "words"), [("gsrender-mini", ["model.readout=opacity", "model.threshold=0.05"]), ("renderocc-mini", [])])
def test_a_field_is_learned_from_its_pictures_alone(name, words):
    """Numbers of all voxels, from pictures of a wall 8 m ahead, cars to the left and manmade to the right: in front of it all is free.

    Labels lie half a voxel inside, so that the window about them is a voxel. Gaussians stay in the middle of theirs: where they may move, a
    neighbour can stand in for one.
    """
    recipe = overrides.apply(get_recipe(name), [*SMALL[name], "data.image_size=64,96", FINE, "model.loss.window_share=0", *words])
    torch.manual_seed(0)
    model, batch = recipe.model.build().eval(), make_batch(recipe)
    whole, (car, manmade) = batch.need(ViewLabels), map(CLASSES.index, ("car", "manmade"))
    pixels = torch.rand(*whole.depth.shape[:3], 600, 2) * torch.tensor([96.0, 64])
    rays = replace(whole, pixels=pixels, depth=torch.ones(pixels.shape[:-1]))
    seen = trace_views(*(x.expand(2, *x.shape[1:]) for x in _wall()), GRID, rays)
    is_wall, (origins, directions) = seen.alpha > 0.99, rays.rays()
    depth = torch.where(is_wall, seen.depth + 0.4, 0)
    is_left = (origins + depth[..., None] * directions)[..., 1] > 0
    classes = torch.where(is_left, car, manmade).masked_fill(~is_wall, IGNORE).to(torch.uint8)
    truth = replace(rays, depth=depth, classes=classes, pixels=torch.where(is_wall[..., None], pixels, math.nan))
    batch = batch.with_labels({ViewLabels: truth})

    outputs = {key: value.detach() for key, value in model(batch).items()}
    numbers = outputs["numbers"].clone().requires_grad_()
    optimiser = torch.optim.Adam([numbers], 0.3)
    for _ in range(25):
        optimiser.zero_grad()
        torch.stack(list(model.loss(outputs | {"numbers": numbers}, batch).values())).sum().backward()
        optimiser.step()

    x, y, z = model.grid.centres().unbind(-1)
    in_sight = (y.abs() < x - 1) & ((z - 1.5).abs() < x * 2 / 3 - 1)
    wall, in_front = in_sight & ((x - 8.4).abs() < 0.1), in_sight & (x < 8)
    wanted = torch.where(y > 0, car, manmade)[wall]
    for found, is_learned in ((outputs["numbers"], False), (numbers, True)):
        for prediction in model.predict(outputs | {"numbers": found}, batch):
            labels = prediction.occupancy.semantics
            is_right, is_free = (labels[wall] == wanted).float().mean(), (labels[in_front] == len(CLASSES)).float().mean()
            assert (is_right > 0.9) == is_learned, float(is_right)
            assert is_free > 0.95 or not is_learned, float(is_free)
