"""True boxes that both detectors must survive or refuse: none, far more than queries or slots, unknown velocities, unknown classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from frustum.data.labels.boxes import BoxLabels, TrueBoxes
from frustum.errors import DataError
from frustum.losses.centres import centre_targets
from frustum.types.batch import Batch
from tests.models import test_contract as contract

DETECTORS = ["ppe3d-v299", "petr-v299", "ultimatedo-r50", "ultimatedo-mini"]


def true_boxes(count: int) -> Tensor:
    """(M, 9) cars around the vehicle, every second one with an unknown velocity."""
    boxes = torch.rand(count, 9) * torch.tensor([30, 30, 2, 4, 2, 2, 6, 5, 5]) + torch.tensor([-15, -15, 0, 0.5, 0.5, 0.5, 0, 0, 0])
    boxes[::2, 7:] = torch.nan
    return boxes


def losses_of(name: str, boxes: list[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The losses with these boxes of each sample, and the gradients of what is trained."""
    recipe, network = contract.build(name)
    batch: Batch = contract.make_batch(recipe, len(boxes))
    truth = TrueBoxes(boxes, [torch.arange(len(b)) % 10 for b in boxes])
    batch = batch.with_labels({BoxLabels: truth})
    network.train()
    losses = network.loss(network(batch), batch)  # type: ignore[operator]
    torch.stack(list(losses.values())).sum().backward()
    return {key: value.detach() for key, value in losses.items()}, [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (2000, 0), (2000, 2000)], ids=str)
@pytest.mark.parametrize("name", DETECTORS)
def test_none_and_2000_boxes_with_unknown_velocities(name: str, counts: tuple[int, ...]) -> None:
    losses, gradients = losses_of(name, [true_boxes(n) for n in counts])
    assert all(value.isfinite() for value in losses.values()), losses
    assert gradients
    assert all(grad.isfinite().all() for grad in gradients)
    of_boxes = losses["box_xy" if "box_xy" in losses else "loss_bbox"]
    assert (of_boxes == 0) == (sum(counts) == 0), "boxes are learned where there are any"


@pytest.mark.parametrize("name", DETECTORS)
def test_only_unknown_velocities(name: str) -> None:
    boxes = true_boxes(4)
    boxes[:, 7:] = torch.nan
    losses, gradients = losses_of(name, [boxes, boxes])
    assert all(value.isfinite() for value in losses.values()), losses
    assert all(grad.isfinite().all() for grad in gradients)
    assert losses.get("box_velocity", torch.zeros(())) == 0


@pytest.mark.parametrize("wrong", [-1, 10])
def test_a_class_that_no_head_knows(wrong: int) -> None:
    with pytest.raises(DataError, match=rf"class {wrong}, but detectors know classes 0 to 9\. Leave such boxes out"):
        TrueBoxes([true_boxes(3)], [torch.tensor([0, wrong, 2])])
    recipe = contract.small("ultimatedo-mini")
    boxes = [true_boxes(2), true_boxes(2)]
    targets = centre_targets(boxes, [torch.tensor([0, wrong]), torch.tensor([1, 1])], recipe.model.map_grid)  # type: ignore[attr-defined]
    alone = centre_targets([boxes[0][:1], boxes[1]], [torch.tensor([0]), torch.tensor([1, 1])], recipe.model.map_grid)  # type: ignore[attr-defined]
    assert torch.equal(targets.heatmap, alone.heatmap), "it does not get into the map of another class or sample"
    assert targets.is_box.sum() == 3


def test_a_batch_keeps_classes_that_are_known() -> None:
    truth = TrueBoxes([true_boxes(2)], [torch.tensor([0, 9])])
    assert replace(truth, boxes=[b + 1 for b in truth.boxes]).classes[0].tolist() == [0, 9]
