"""The contract of docs/add_a_method.md, for every recipe: a new one is tested by existing.

Batches are made from what a recipe's model declares that it reads and learns from. `--recipe my_package.my_file:my_recipe` adds recipes
that are found by import path.
"""

from __future__ import annotations

import copy
import functools
import importlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frustum.data.labels.boxes import BoxLabels, TrueBoxes
from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth, class_counts
from frustum.data.source import RigSource
from frustum.engine import overrides
from frustum.engine.recipe import Recipe
from frustum.engine.turns import turns_of
from frustum.errors import DataError
from frustum.geometry import rotation_z
from frustum.recipes.finding import get_recipe, list_recipes
from frustum.tasks import TASKS
from frustum.types.batch import Batch
from frustum.types.contract import Label, Shapes
from frustum.types.predictions import Prediction

OURS = {info.name: info.module for info in list_recipes()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = [*OURS, *metafunc.config.getoption("recipe")]
        slow = metafunc.function.__name__ == "test_one_sample_overfits"
        kept = {"flashocc-tiny"} if slow else set(different())
        marks = {name: [] if name in kept or name not in OURS else [pytest.mark.slow] for name in names}
        metafunc.parametrize("name", [pytest.param(name, marks=marks[name]) for name in names])


def small(name: str) -> Recipe:
    """The recipe as its method's test file makes it small, which may name another size of image; or as it is."""
    module = OURS.get(name, name)
    if ":" in module:
        return get_recipe(name)
    proof = importlib.import_module(f"tests.models.test_{module.rpartition('.')[2]}")
    return overrides.apply(get_recipe(name), ["data.image_size=64,96", *proof.SMALL[name]])


@functools.cache
def different() -> list[str]:
    """Our recipes without those whose small network is that of an earlier one."""
    found: dict[str, str] = {}
    for name in OURS:
        model = small(name).model
        found.setdefault(f"{type(model).__name__} {model.model_dump_json()}", name)
    return list(found.values())


def build(name: str, seed: int = 0) -> tuple[Recipe, torch.nn.Module]:
    recipe = small(name)
    torch.manual_seed(seed)
    return recipe, recipe.model.build()


def rig(cameras: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cameras all around, at the height of a car's roof."""
    forward = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    cam2ego = np.tile(np.eye(4), (cameras, 1, 1))
    cam2ego[:, :3, :3] = rotation_z(np.linspace(0, 2 * np.pi, cameras, endpoint=False)) @ forward
    cam2ego[:, 2, 3] = 1.5
    focal, (height, width) = 0.625 * size[1], size
    intrinsics = np.tile(np.array([[focal, 0, width / 2], [0, focal, height * 0.375], [0, 0, 1]]), (cameras, 1, 1))
    intrinsics[:, 0, 0] *= 1 + 0.02 * np.arange(cameras)  # a network that reads the calibration learns nothing from equal cameras
    return intrinsics, cam2ego


def make_batch(recipe: Recipe, count: int = 2, cameras: int = 2, seed: int = 0) -> Batch:
    """A batch of random images with an example of each label."""
    draw, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    size = recipe.data.image_size
    if not recipe.data.has_rigs:
        batch, cameras = Batch.of_images(torch.randn(count, 3, *size, generator=draw)), 1
    else:
        frames = 1 + min(2, recipe.model.reads().past)  # networks over time get a past; what is missing of a long one is their affair
        poses = np.tile(np.eye(4), (count, frames, cameras, 1, 1))
        poses[..., 0, 3] = 100 - 2.5 * np.arange(frames)[None, :, None]  # drives ahead, newest first
        batch = Batch.from_arrays(torch.randn(count, frames, cameras, 3, *size, generator=draw), *rig(cameras, size), poses)
    shapes = Shapes(count, cameras, size)
    return batch.with_labels({type(label): label.example(rng, shapes) for label in recipe.model.learns_from()})


def parts_of(prediction: Prediction) -> dict[str, Any]:
    return {name: part for name, part in vars(prediction).items() if name != "token" and part is not None}


def test_outputs_and_predictions(name: str) -> None:
    recipe, model = build(name)
    batch = make_batch(recipe)
    with torch.no_grad():
        outputs = model.eval()(batch)
    assert outputs
    assert all(isinstance(value, Tensor) and torch.isfinite(value).all() for value in outputs.values())
    documented = type(model).__doc__ or ""
    assert all(f"{key}:" in documented for key in outputs), "every output key is documented in the class"
    predictions = model.predict(outputs, batch)
    assert [p.token for p in predictions] == batch.tokens
    questions = {task.part: task for task in TASKS}
    for prediction in predictions:
        assert isinstance(prediction, Prediction)
        assert parts_of(prediction), "a prediction answers a question"
        for part, value in parts_of(prediction.cpu()).items():
            assert questions[part].layers(value), "what is predicted can be drawn"
        if prediction.segmentation is not None:
            assert tuple(prediction.segmentation.labels.shape) == recipe.data.image_size, "one class for each pixel of the network's image"


def losses_of(model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The losses of all turns: of one with `loss`, where the model does not define its own."""
    return {key: value for turn in turns_of(model) for key, value in turn.loss(model(batch), batch).items()}


def test_loss_reaches_every_trainable_parameter(name: str) -> None:
    recipe, model = build(name)
    losses = losses_of(model.train(), make_batch(recipe))
    assert losses
    assert all(loss.dim() == 0 and loss.dtype == torch.float32 and math.isfinite(loss.detach()) for loss in losses.values())
    sum(losses.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name
            # dead units are chance, dead parameters are bugs
            assert parameter.grad.any(), parameter_name
        else:
            assert parameter.grad is None


def test_labels_are_needed_by_name(name: str) -> None:
    """What a config declares is what its loss asks for: without it, the one readable error."""
    recipe, model = build(name)
    batch = make_batch(recipe)
    model.train()(batch)
    for label in recipe.model.learns_from():
        rest = {kind: value for kind, value in batch.labels.items() if kind is not type(label)}
        with pytest.raises(DataError, match=type(label).what):
            losses_of(model, replace(batch, labels=rest))


def test_a_batch_of_two_equals_two_of_one(name: str) -> None:
    recipe, model = build(name)
    batch = make_batch(recipe)
    with torch.no_grad():
        together = model.eval()(batch)
        alone = [model(batch[i : i + 1]) for i in range(2)]
    module, most = OURS.get(name, name), 1e-4
    if ":" not in module:  # a method may name how far rounding goes in its network
        most = getattr(importlib.import_module(f"tests.models.test_{module.rpartition('.')[2]}"), "ROUNDING", most)
    for key, value in together.items():
        torch.testing.assert_close(value, torch.cat([one[key] for one in alone]), rtol=most, atol=most, msg=lambda m, k=key: f"{k}: {m}")


def test_state_dict_round_trip(name: str) -> None:
    (recipe, model), (_, other) = build(name, 0), build(name, 1)
    batch = make_batch(recipe, count=1)
    with torch.no_grad():
        first, second = model.eval()(batch), other.eval()(batch)
        assert any(not torch.equal(value, second[key]) for key, value in first.items())
        other.load_state_dict(copy.deepcopy(model.state_dict()))
        again = other(batch)
    assert all(torch.equal(value, again[key]) for key, value in first.items())


def test_bf16_autocast(name: str) -> None:
    recipe, model = build(name)
    batch = make_batch(recipe)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, batch)
    sum(losses.values()).backward()
    assert all(math.isfinite(loss.detach()) for loss in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert parts_of(model.predict(model(batch), batch)[0])


@pytest.mark.parametrize("cameras", [1, 4, 6, 8])
def test_number_of_cameras(name: str, cameras: int) -> None:
    recipe, model = build(name)
    if not recipe.data.has_rigs:
        pytest.skip("its data have no rigs")
    batch = make_batch(recipe, count=1, cameras=cameras)
    with torch.no_grad():
        outputs = model.eval()(batch)
    assert all(torch.isfinite(value).all() for value in outputs.values())
    assert parts_of(model.predict(outputs, batch)[0])


def test_one_sample_overfits(name: str) -> None:
    """One sample is learned by heart, judged by what the model predicts where the truth is at hand here, and by its loss in any case."""
    recipe, model = build(name)
    batch, statistics, can_prepare = make_batch(recipe, count=1, cameras=2), {}, hasattr(model, "prepare")
    for label in recipe.model.learns_from():
        statistics[type(label)] = {}
        can_prepare &= isinstance(label, OccupancyLabels) or type(label).statistics is Label.statistics  # of others there is no example
        if isinstance(label, OccupancyLabels):
            truth = a_street(batch.need(OccupancyLabels), label.class_names)
            batch, volume = batch.with_labels({OccupancyLabels: truth}), truth.semantics[0].numpy()
            statistics[OccupancyLabels] = {"counts": class_counts(volume, np.ones(volume.shape, bool), len(label.class_names))}
    model.train()
    if can_prepare:  # as the training loop does
        model.prepare(statistics)
    steps, highest, clip = schedule_of(name)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=highest or 1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=steps) if highest else None
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.stack(list(losses_of(model, batch).values())).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if cycle is not None:
            cycle.step()
        history.append(float(loss.detach()))
    assert history[-1] < history[0]
    bare = replace(batch, labels={type(label): batch.labels[type(label)] for label in recipe.model.reads().labels})
    with torch.no_grad():
        # as trained: with the statistics of this very batch
        prediction = model.predict(model(bare), bare)[0]
    if prediction.occupancy is not None and OccupancyLabels in batch.labels:
        found, true = prediction.occupancy.semantics, batch.need(OccupancyLabels).semantics[0]
        assert (found == true).float().mean() > 0.97
        rare = true == true.flatten().bincount().where(true.flatten().bincount() > 0, true.numel()).argmin()  # the car
        assert (found == true)[rare].float().mean() > 0.8
    if prediction.boxes is not None and BoxLabels in batch.labels:
        assert found_centres(prediction.boxes, batch.need(BoxLabels)) > 0.7


def schedule_of(name: str) -> tuple[int, float, float]:
    """Steps, highest learning rate of one cycle, 0 for a constant one, and largest gradient norm: ONE_CYCLE of the method's test file."""
    module = OURS.get(name, name)
    proof = None if ":" in module else importlib.import_module(f"tests.models.test_{module.rpartition('.')[2]}")
    return getattr(proof, "ONE_CYCLE", {}).get(name, (90, 0.0, math.inf))


def a_street(like: OccupancyTruth, names: tuple[str, ...]) -> OccupancyTruth:
    """Ground everywhere, one car in front of the first camera, all of it observed; the first classes where the names are others."""
    ground, car = (names.index(name) if name in names else 0 for name in ("driveable_surface", "car"))
    semantics = torch.full_like(like.semantics, len(names) - 1)
    semantics[..., 0] = ground
    x, y, _ = semantics.shape[1:]
    semantics[:, x // 2 + x // 16 : x // 2 + x // 4, y * 3 // 8 : y * 5 // 8, 1:3] = car
    seen = torch.ones_like(like.mask_camera)
    return OccupancyTruth(semantics, seen, seen)


def found_centres(part: Any, truth: TrueBoxes) -> float:
    """Share of the true boxes that one of the best predictions of their class is within 2 m of."""
    best = part.scores.argsort(descending=True)[: 3 * len(truth.boxes[0])]
    distance = torch.cdist(truth.boxes[0][:, :2], part.boxes[best, :2].float())
    same = truth.classes[0][:, None] == part.classes[best]
    return float(((distance < 2) & same).any(1).float().mean())


def test_sources_of_rigs_say_so(street_root) -> None:
    """`as_rig_source` recognises what labels of rigs are read from."""
    recipe = overrides.apply(get_recipe("flashocc-tiny"), [f"data.root={street_root}"])
    assert isinstance(recipe.data.open(), RigSource)
