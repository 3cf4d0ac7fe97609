"""OccFeat: what is pretrained and what is left of it, targets that move with their inputs, teachers, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from frustum.checkpoint.weights_file import save_weights
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.feature_maps import TeacherMaps
from frustum.data.labels.lidar_points import LidarPoints, Scans
from frustum.engine import overrides
from frustum.engine.recipe import Recipe
from frustum.engine.sections import header_of
from frustum.engine.train import start
from frustum.errors import CheckpointError, ConfigError
from frustum.geometry import VoxelGrid
from frustum.losses.voxel_features import occupied_voxels
from frustum.models.map_network import MapNetwork
from frustum.models.occfeat import OccFeat, OccFeatConfig, TeacherConfig
from frustum.recipes.finding import get_recipe
from frustum.types.batch import IMAGENET, ImageScale
from tests.models import test_bev_segmentation, test_flashocc, test_ultimatedo
from tests.models import test_contract as contract

_OTHERS = test_bev_segmentation.SMALL | test_flashocc.SMALL | test_ultimatedo.SMALL


def _below(network: str, settings: list[str]) -> list[str]:
    """Settings of a network as those of one that is pretrained."""
    return [text.replace("model.", f"model.network.{network}.", 1) for text in settings]


def _small(name: str, network: str, *settings: str) -> list[str]:
    return [
        *_below(network, _OTHERS[name]),
        "model.channels=8",
        "model.heights=4",
        "model.teacher.kind=exact",
        "model.teacher.scale=1",
        *settings,
    ]


_RANDOM = ("model.teacher.kind=efficientnet_lite0", "model.teacher.weights=false", "model.teacher.scale=1")
PRETRAINS = {
    "occfeat-b0": ("simplebev-b0", "simplebev"),
    "occfeat-r50": ("simplebev-r50", "simplebev"),
    "occfeat-bevformer-b4": ("bevformer-seg-b4", "bevformer_seg"),
    "occfeat-flashocc-r50": ("flashocc-r50-m0", "flashocc"),
    "occfeat-ultimatedo-r50": ("ultimatedo-r50", "ultimatedo"),
    "occfeat-mini": ("simplebev-mini", "simplebev"),
    "occfeat-bevformer-mini": ("bevformer-seg-mini", "bevformer_seg"),
    "occfeat-flashocc-mini": ("flashocc-tiny", "flashocc_tiny"),
    "occfeat-ultimatedo-mini": ("ultimatedo-mini", "ultimatedo_mini"),
}
"""Recipe -> the recipe whose network it pretrains, and the name of that network."""
_LIKE_MINI = _below("bevformer_seg", ["model.encoder=efficientnet_lite0", "model.frozen_blocks=5", "model.loss.average=false"])
_MORE = {
    "occfeat-mini": _RANDOM,
    "occfeat-r50": _below("simplebev", ["model.encoder=efficientnet_b0"]),
    "occfeat-bevformer-b4": (*_LIKE_MINI, "model.feature_weight=0.1"),
}
SMALL = {name: _small(*pair, *_MORE.get(name, ())) for name, pair in PRETRAINS.items()}


SIZES = np.array([[64.0, 96.0]] * 4)
"""Of the photographs of four cameras."""


def small(name: str, *settings: str) -> Recipe:
    return overrides.apply(contract.small(name), settings)


def build(recipe: Recipe, seed: int = 0) -> OccFeat:
    torch.manual_seed(seed)
    return recipe.model.build()  # type: ignore[return-value]


# ---- two commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRETRAINS)
def test_the_head_is_dropped_and_all_else_is_taken(name: str, tmp_path) -> None:
    """What `frustum train NETWORK --init runs/NAME` does."""
    after = PRETRAINS[name][0]
    recipe = small(name)
    pretrained = build(recipe)
    save_weights(tmp_path / "weights.safetensors", pretrained, header_of(recipe))
    target = contract.small(after).model_copy(update={"model": recipe.model.network.config})  # type: ignore[attr-defined]
    target = overrides.apply(target, [f"train.init={tmp_path}"])
    torch.manual_seed(1)
    fresh = target.model.build()
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    (line, *_) = [text for text in start(fresh, target) if text.startswith("starting from")]
    own = {key.removeprefix("network."): value for key, value in pretrained.state_dict().items() if key.startswith("network.")}
    heads = tuple(f"{head}." for head in pretrained.network.head_names)
    for key, value in fresh.state_dict().items():
        expected = before[key] if f"{key}.".startswith(heads) else own[key]
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    assert any(f"{key}.".startswith(heads) for key in before), "there are heads"
    assert line.endswith(f"left over in the file: colours 3, head {len(pretrained.head.state_dict())}")
    assert f": {len(own)} of {len(before)} entries fit" in line


def test_what_travels_is_compared_with_the_network_that_was_held(tmp_path) -> None:
    """Lifting by `reference` in pretraining and by `clean` afterwards are two networks."""
    recipe = small("occfeat-mini", "model.network.simplebev.sampling=reference")
    save_weights(tmp_path / "weights.safetensors", build(recipe), header_of(recipe))
    target = overrides.apply(contract.small("simplebev-mini"), [f"train.init={tmp_path}"])
    lines = start(target.model.build(), target)
    assert any('model.sampling="clean" (they were trained with "reference")' in line for line in lines)


def test_pretraining_starts_from_a_trained_network(tmp_path) -> None:
    recipe = contract.small("simplebev-mini")
    network = recipe.model.build()
    save_weights(tmp_path / "weights.safetensors", network, header_of(recipe))
    target = small("occfeat-mini", f"train.init={tmp_path}")
    fresh = build(target)
    start(fresh, target)
    for key, value in fresh.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", PRETRAINS)
def test_the_map_is_that_of_the_whole_network(name: str) -> None:
    """Without its heads a network sees the same."""
    recipe = small(name)
    torch.manual_seed(0)
    whole: Any = recipe.model.network.config.build()
    bare = recipe.model.network.build()
    bare.load_state_dict(whole.state_dict(), strict=False)
    batch = contract.make_batch(recipe)
    for network in (whole, bare):
        network.eval()
    with torch.no_grad():
        expected, found = whole(batch)["bev"], bare.to_map(batch)["bev"]
    torch.testing.assert_close(found.float(), expected)
    assert found.shape[1] == whole.map_channels
    cells = whole.map_grid.shape
    assert tuple(found.shape[2:]) == (cells[1], cells[0])


# ---- targets move with their inputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["occfeat-mini", "occfeat-b0"])
def test_targets_are_in_the_frame_of_the_map(name: str) -> None:
    """In that of a camera, too, and when the map is mirrored and turned: a voxel of the head is the place where its points are."""
    recipe = small(name, "model.heights=8", "model.z_range=-8,8")
    model = build(recipe)
    plain = contract.make_batch(recipe, count=1)
    aug = torch.eye(4, dtype=torch.float64)
    aug[0, 0], aug[:2, :2] = -1, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)  # x and y change places
    moved = replace(plain, bev_aug=aug[None])
    places = []
    for batch in (plain, moved):
        spot = torch.tensor([[12.3, -7.2, 0.4]], dtype=torch.float64) @ batch.bev_aug[0, :3, :3].T  # labels come augmented
        batch = batch.with_labels({LidarPoints: Scans([spot.float()], [SIZES], [1])})
        (points,) = model._points(batch, recipe.model.network.map2ego(batch, False))  # type: ignore[attr-defined]
        voxel = occupied_voxels(points, model.grid).nonzero()
        assert len(voxel) == 1
        places.append(model.grid.centres(torch.float64)[voxel[0].unbind()])
    torch.testing.assert_close(places[1][:2], places[0][:2].flip(0), atol=1.3, rtol=0)  # to half a cell
    seen = recipe.model.network.map2ego(plain, False)[0] @ torch.cat([places[0], torch.ones(1, dtype=torch.float64)])
    torch.testing.assert_close(seen[:2], torch.tensor([12.3, -7.2], dtype=torch.float64), atol=1.3, rtol=0)


def test_maps_in_the_frame_of_a_drawn_camera_are_taught_in_it() -> None:
    """Published SimpleBEV: another camera for each sample. Its map turns, and a point ahead of that camera lies ahead in the volume."""
    recipe = small("occfeat-b0")
    label = recipe.model.learns_from()[0]
    assert isinstance(label, LidarPoints)
    assert label.draw_reference
    model, batch = build(recipe).train(), contract.make_batch(recipe, count=1, cameras=4)  # looking forward, left, back, right
    network = recipe.model.network  # type: ignore[attr-defined]
    for camera, point in enumerate([[20.0, 1, 0], [-1, 20, 0], [-20, -1, 0], [1, -20, 0]]):
        given = batch.with_labels({LidarPoints: Scans([torch.tensor([point]).float()], [SIZES], [camera])})
        (moved,) = model._points(given, network.map2ego(given, True))
        torch.testing.assert_close(moved[0, :2], torch.tensor([20.0, 1.0]), atol=1e-3, rtol=0)
    assert set(contract.losses_of(model, given)) == {"occupancy", "features"}


PLACES = torch.stack(torch.meshgrid((torch.arange(8) + 0.5) / 8, (torch.arange(12) + 0.5) / 12, indexing="ij"))
"""(2, 8, 12): a teacher's features that say where in the photograph they are, row and column from 0 to 1."""


def taught_places(name: str, bev_aug: Tensor, reference: int, to_image: Tensor, asked: bool) -> tuple[Tensor, Tensor]:
    """What voxels are taught in a made-up frame, and what their physical places look like in the photographs, worked out by hand.

    The network's image is the photograph of 64 x 96 pixels, moved by `to_image`; a teacher that is asked sees what is in it.
    """
    recipe = small(name, "model.heights=8", "model.z_range=-6,4")
    model = build(recipe).train()
    batch = contract.make_batch(recipe, count=1, cameras=4)
    rig = batch.rig.augmented(to_image, (64, 96))
    scans = Scans([torch.zeros(0, 3)], [SIZES], [reference])
    batch = replace(batch, calibration=rig, bev_aug=bev_aug[None]).with_labels({LidarPoints: scans})
    outputs = {}
    if asked:  # the teacher answers in the network's image: each of its places is one of the photograph, or black
        v, u = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
        at = torch.linalg.inv(to_image) @ torch.stack([u, v, torch.ones_like(u)]).flatten(1).double()
        photo = torch.stack([at[1] / 64, at[0] / 96]).float().unflatten(1, (64, 96))
        is_black = ((photo < 0) | (photo > 1)).any(0)
        outputs["teacher"] = torch.where(is_black, 9.0, photo).expand(4, -1, -1, -1)
    else:
        batch = batch.with_labels({TeacherMaps: PLACES.expand(1, 4, -1, -1, -1)})
    occupied = torch.zeros(1, *model.grid.shape, dtype=torch.bool)
    occupied[:, ::3, 1::3, ::2] = True
    map2ego = model.config.network.map2ego(batch, True)
    (taught,) = model.taught(outputs, batch, occupied, map2ego)
    cells = torch.tensor(model.grid.cell)
    centres = torch.tensor(model.grid.lower) + (taught.voxels + 0.5) * cells
    physical = torch.linalg.inv(bev_aug) @ torch.cat([centres.double(), torch.ones(len(centres), 1).double()], 1).T
    physical = (map2ego[0] @ physical)[:3]
    total, count, inside = (
        torch.zeros(len(centres), 2, dtype=torch.float64),
        torch.zeros(len(centres), 1),
        torch.ones(len(centres), dtype=torch.bool),
    )
    for n in range(4):
        cam2ego, lens = rig.cam2ego[0, 0, n].double(), rig.intrinsics[0, 0, n].double()
        local = cam2ego[:3, :3].T @ (physical - cam2ego[:3, 3:])
        at = lens @ local
        photo = torch.stack([at[1] / at[2] / 64, at[0] / at[2] / 96], 1)
        image = (to_image @ torch.cat([at[:2] / at[2], torch.ones(1, at.shape[1])]))[:2].T / torch.tensor([96.0, 64.0])
        seen = (local[2] > 0.1) & ((photo >= 0) & (photo < 1) & (image >= 0) & (image < 1)).all(1)
        total[seen] += photo[seen]
        count[seen] += 1
        inside &= ~seen | ((photo - 0.5).abs() < 0.47).all(1)
    assert len(centres) > 10
    assert count.min() >= 1, "every voxel that is taught is in a photograph and in the network's image"
    return taught.features[inside], (total / count).float()[
        inside
    ]  # at the border of a photograph features mix with black, or stay constant


_TURNED = torch.tensor([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
_PLAIN, _MIRROR = torch.eye(3, dtype=torch.float64), torch.tensor([[-1.0, 0, 96], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
_CROPPED = torch.tensor([[1.4, 0, -20], [0, 1.4, -25], [0, 0, 1]], dtype=torch.float64)
_SHRUNK = torch.tensor([[0.7, 0.1, 10], [-0.1, 0.7, 12], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "stored"])
@pytest.mark.parametrize(
    ("name", "reference", "bev_aug", "to_image"),
    [
        ("occfeat-flashocc-mini", -1, torch.eye(4, dtype=torch.float64), _PLAIN),
        ("occfeat-flashocc-mini", -1, _TURNED, _MIRROR),
        ("occfeat-flashocc-mini", -1, torch.eye(4, dtype=torch.float64), _CROPPED),
        ("occfeat-flashocc-mini", -1, _TURNED, _SHRUNK),
        ("occfeat-b0", 3, _TURNED, _CROPPED),
        ("occfeat-b0", 2, torch.eye(4, dtype=torch.float64), _SHRUNK),
    ],
)
def test_voxels_are_taught_what_is_at_their_physical_place(name, reference, bev_aug, to_image, asked) -> None:
    """Whatever is done to images and map, and in whose frame the map is; black around a photograph teaches nothing."""
    found, expected = taught_places(name, bev_aug, reference, to_image, asked)
    tolerance = 0.012 if asked else 0.035  # a pixel; within half a part of the border of the photograph features are constant
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_a_teacher_sees_photographs() -> None:
    """It undoes the normalisation of the network that learns, in either order of the colours."""
    batch = contract.make_batch(small("occfeat-mini"), count=1)
    photos = torch.rand(1, 2, 3, 8, 8) * 255
    for scale in (IMAGENET, ImageScale((103.0, 116.0, 123.0), (57.0, 58.0, 59.0), "bgr")):
        mean, std = (torch.tensor(values)[:, None, None] for values in scale[:2])
        images = (photos.flip(-3) if scale.order == "bgr" else photos) - mean
        given = replace(batch, images=(images / std)[:, None], image_scale=scale)
        torch.testing.assert_close(given.photographs(), photos, atol=1e-3, rtol=0)


# ---- learning ----------------------------------------------------------------------------------------------------------------


def test_it_learns_where_points_are_and_what_a_teacher_sees_there() -> None:
    recipe = small("occfeat-flashocc-mini", "model.heights=8", "model.feature_weight=1", "model.network.flashocc_tiny.depth_loss=0")
    model = build(recipe).train()
    batch = contract.make_batch(recipe, count=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    history: list[dict[str, float]] = []
    for _ in range(60):
        optimizer.zero_grad()
        losses = contract.losses_of(model, batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert history[-1]["features"] < 0.5 * history[0]["features"]
    assert history[-1]["occupancy"] < 0.5 * history[0]["occupancy"]
    with torch.no_grad():
        (prediction,) = model.predict(model(replace(batch, labels={})), batch)
    volume = prediction.volume
    assert volume is not None
    true = occupied_voxels(batch.need(LidarPoints).points[0], model.grid)
    assert float((volume.occupied & true).sum() / (volume.occupied | true).sum()) > 0.7
    assert volume.colours.shape == (int(volume.occupied.sum()), 3)
    assert float(volume.colours.std(0).min()) > 0.2, "features differ, and so do colours"
    assert float((volume.colours.abs() < 1).float().mean()) > 0.7


@pytest.mark.parametrize(
    ("settings", "names", "labels"),
    [
        ((), {"occupancy", "features", "depth"}, {LidarPoints, TeacherMaps, DepthLabels}),
        (("model.feature_weight=0",), {"occupancy", "depth"}, {LidarPoints, DepthLabels}),
        (("model.occupancy_weight=0",), {"features", "depth"}, {LidarPoints, TeacherMaps, DepthLabels}),
        (("model.feature_weight=0", "model.occupancy_weight=0"), {"depth"}, {DepthLabels}),
        (("model.network.flashocc_tiny.depth_loss=0",), {"occupancy", "features"}, {LidarPoints, TeacherMaps}),
        (("model.counted=seen", "model.focal=2", "model.positive_weight=3"), {"occupancy", "features", "depth"}, None),
        (("model.scans=3",), {"occupancy", "features", "depth"}, None),
    ],
)
def test_each_part_alone(settings: tuple[str, ...], names: set[str], labels: set[type] | None) -> None:
    """Depth alone is the control: it is free of labels, too."""
    recipe = small("occfeat-flashocc-mini", *settings)
    model, batch = build(recipe).train(), contract.make_batch(recipe)
    if labels is not None:
        assert {type(label) for label in recipe.model.learns_from()} == labels
    losses = contract.losses_of(model, batch)
    assert set(losses) == names
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.head.parameters())


def test_only_voxels_that_a_camera_sees_count() -> None:
    recipe = small("occfeat-flashocc-mini", "model.counted=seen")
    model, batch = build(recipe).train(), contract.make_batch(recipe, count=1, cameras=1)
    outputs = model(batch)
    loss = model.loss(outputs, batch)["occupancy"]
    (gradient,) = torch.autograd.grad(loss, outputs["occupied"])
    centres = model.grid.centres()
    assert not gradient[0][centres[..., 0] < -2].any(), "behind the only camera"
    assert gradient[0][(centres[..., 0] > 6) & (centres[..., 1].abs() < 1) & (centres[..., 2].abs() < 1)].all()


def test_nothing_seen_or_nothing_occupied_teaches_no_features() -> None:
    recipe = small("occfeat-flashocc-mini")
    model, batch = build(recipe).train(), contract.make_batch(recipe, count=1, cameras=1)
    for points in (torch.tensor([[-9.0, 0, 0]]), torch.tensor([[500.0, 0, 0]]), torch.zeros(0, 3)):
        losses = contract.losses_of(model, batch.with_labels({LidarPoints: Scans([points], [SIZES[:1]], [0])}))
        assert float(losses["features"].detach()) == 0
        assert torch.isfinite(losses["occupancy"])


def test_the_teacher_is_neither_trained_nor_saved_nor_copied() -> None:
    recipe = small("occfeat-mini")
    model, batch = build(recipe).train(), contract.make_batch(recipe, count=1)
    keys = set(model.state_dict())
    assert model.teacher is not None
    photos: list[Tensor] = []
    model.teacher.on("cpu").register_forward_pre_hook(lambda _, given: photos.append(given[0]))
    torch.stack(list(contract.losses_of(model, batch).values())).sum().backward()
    torch.testing.assert_close(photos[0], batch.photographs().flatten(0, 1))
    assert set(model.state_dict()) == keys
    assert not any(p.requires_grad or p.grad is not None for p in model.teacher.on("cpu").parameters())


def test_it_says_whose_features_it_learns() -> None:
    """Of a teacher that is asked in training; others are labels, which say it themselves."""
    random = build(small("occfeat-mini"))
    assert random.taught_by == "efficientnet_lite0 with random weights"
    assert TeacherConfig(kind="resnet50").origin == "resnet50 with the weights of a package"
    assert TeacherConfig(weights="dino.pth").origin == "dinov2_vits14 (dino.pth)"
    assert build(small("occfeat-flashocc-mini")).taught_by == ""


def test_without_occupancy_nothing_is_predicted() -> None:
    recipe = small("occfeat-flashocc-mini", "model.occupancy_weight=0")
    model, batch = build(recipe).eval(), contract.make_batch(recipe)
    assert all(prediction.volume is None for prediction in model.predict(model(batch), batch))


def test_the_threshold_says_what_is_predicted() -> None:
    recipe = small("occfeat-flashocc-mini", "model.threshold=0.02")
    model, batch = build(recipe).eval(), contract.make_batch(recipe, count=1)
    outputs = model(batch)
    (prediction,) = model.predict(outputs, batch)
    assert prediction.volume is not None
    assert torch.equal(prediction.volume.occupied, outputs["occupied"][0].sigmoid() > 0.02)


# ---- what is refused ---------------------------------------------------------------------------------------------------------


def test_settings_that_make_no_sense_are_refused() -> None:
    simple = get_recipe("simplebev-mini").model
    with pytest.raises(ValidationError, match=r"exactly one of simplebev, .*got none"):
        MapNetwork()
    with pytest.raises(ValidationError, match="got simplebev and flashocc_tiny"):
        MapNetwork(simplebev=simple, flashocc_tiny=get_recipe("flashocc-tiny").model)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="nothing is learned"):
        OccFeatConfig(occupancy_weight=0, feature_weight=0)
    with pytest.raises(ValidationError, match="z_range goes from low to high, got 3,1"):
        OccFeatConfig(z_range=(3, 1))
    with pytest.raises(ConfigError, match="kind"):
        small("occfeat-mini", "model.teacher.kind=clip")


def test_missing_weights_of_the_teacher_are_noticed_before_training(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"dinov2_vits14 needs a file of weights: model.teacher.weights=dinov2_vits14_pretrain.pth"):
        build(small("occfeat-mini", "model.teacher.kind=dinov2_vits14", "model.teacher.weights=true")).prepare({})
    save_weights(tmp_path / "other.safetensors", torch.nn.Linear(2, 2))
    other = small("occfeat-mini", "model.teacher.kind=dinov2_vits14", f"model.teacher.weights={tmp_path / 'other.safetensors'}")
    with pytest.raises(CheckpointError, match=r"Needed .*dinov2_vits14_pretrain.pth"):
        build(other).prepare({})
    build(small("occfeat-flashocc-mini")).prepare({})


def test_depth_advice_names_the_setting() -> None:
    labels = [label for label in small("occfeat-ultimatedo-mini").model.learns_from() if isinstance(label, DepthLabels)]
    assert [label.without for label in labels] == ["model.network.ultimatedo_mini.depth_loss=0"]


def test_voxels_are_those_of_the_lifting_grid_by_default() -> None:
    """Of the published SimpleBEV: 200 x 200 x 8 of 0.5 x 0.5 x 1.25 m."""
    model = OccFeatConfig(feature_weight=0).build()
    assert model.grid == VoxelGrid(lower=(-50, -50, -6), upper=(50, 50, 4), cell=(0.5, 0.5, 1.25))
    assert TeacherConfig().features == 384
