"""A network whose numbers stop being finite: the layer, the weight or the gradient is named, through `train` too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from frustum.engine.non_finite import origin
from frustum.engine.overrides import apply
from frustum.engine.runtime import make_accelerator
from frustum.engine.step import Stepper
from frustum.errors import TrainingError
from frustum.models.ppe3d import Ppe3d
from frustum.types.batch import Batch
from tests.engine import toy
from tests.engine.test_turns import stepper_and_feed
from tests.models import test_contract as contract


class Broken(nn.Module):
    """Divides by zero, or has a finite output with an infinite gradient (the root of 0), between two layers."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return {"division": lambda: x / 0, "root": lambda: x + (x * 0).sqrt(), "none": lambda: x}[self.kind]()


class Chain(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), Broken(kind), nn.ReLU(inplace=True), nn.Conv2d(4, 1, 1))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"found": self.layers(batch.images[:, 0, 0])}


def loss(outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    return {"mean": outputs["found"].square().mean()}


@pytest.mark.parametrize(("kind", "words"), [
    ("division", r"first in the output of layers.1 (Broken)"), ("root", "the gradient first at the output of layers.0 (Conv2d)"),
    ("none", ""),
])  # fmt: skip
def test_the_layer_is_named(kind: str, words: str) -> None:
    network, batch = Chain(kind), Batch.of_images(torch.rand(2, 3, 4, 4))
    assert origin(network, batch, loss) == words
    assert all(p.grad is None for p in network.parameters())
    assert not network.layers[1]._forward_hooks


def test_a_weight_is_named() -> None:
    network = Chain("none")
    with torch.no_grad():
        network.layers[3].bias[0] = torch.nan
    assert origin(network, Batch.of_images(torch.rand(2, 3, 4, 4)), loss) == "layers.3.bias of the network is not finite"


@pytest.mark.parametrize("compiled", [False, True])
def test_training_names_the_layer(toy_root, compiled: bool) -> None:
    recipe = apply(toy.recipe(toy_root), ["model.batch_norm=true"])
    stepper, feed = stepper_and_feed(recipe)
    stepper.network.norm.register_forward_hook(lambda module, given, output: output * torch.inf)
    if compiled:
        stepper.network.compile(backend="eager")
    with pytest.raises(TrainingError, match=r"step 1: occupancy = nan.* on .*; first in the output of norm \(BatchNorm2d\)\."):
        stepper.step(feed.next_batches())


def test_a_detector_names_its_layer() -> None:
    """3DPPE under bf16, as `train` runs it: a depth net that overflows."""
    recipe = apply(contract.small("ppe3d-v299"), ["runtime.device=cpu", "runtime.precision=bf16"])
    network = recipe.model.build()
    assert isinstance(network, Ppe3d)
    last = [m for m in network.pts_bbox_head.depth_net.modules() if isinstance(m, nn.Conv2d)][-1]
    last.register_forward_hook(lambda module, given, output: output * torch.nan)
    stepper = Stepper(recipe, network, make_accelerator(recipe.runtime), 3, 3)
    with pytest.raises(TrainingError, match=r"step 1: .*nan.*; first in the output of pts_bbox_head\.depth_net\.\S+ \(Conv2d\)"):
        stepper.step([contract.make_batch(recipe, 1)])
