"""A frozen network is no part of the one that holds it, is built once and late, and draws no random number of the run."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from frustum.errors import CheckpointError
from frustum.nn.frozen import Frozen


def build() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.teacher = nn.Linear(2, 2), Frozen(build)


def test_in_eval_mode_without_gradients():
    network = Frozen(build).on()
    assert not any(part.training for part in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    assert torch.equal(network(x), network(x))
    network(x).sum().backward()
    assert x.grad.any(), "a loss on its features reaches what it looks at"


def test_is_no_part_of_the_network_that_holds_it():
    student = Student()
    network = student.teacher.on()
    before = copy.deepcopy(network.state_dict())
    assert sorted(student.state_dict()) == ["own.bias", "own.weight"]
    assert len(list(student.parameters())) == 2
    student.train().to(torch.float64)
    assert not network.training
    assert network(torch.randn(2, 3, 8, 8)).dtype == torch.float32
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_is_built_once_when_first_asked():
    built = []
    frozen = Frozen(lambda: built.append(1) or build())
    assert not built
    assert frozen.on() is frozen.on("cpu")
    assert built == [1]


def test_building_draws_no_random_number():
    state = torch.get_rng_state()
    Frozen(build).on()
    assert torch.equal(torch.get_rng_state(), state), "or a resumed run would not be the uninterrupted one"


def test_copies_share_the_network_and_pickles_drop_it():
    student = Student()
    network = student.teacher.on()
    assert copy.deepcopy(student).teacher is student.teacher
    content = pickle.dumps(student)
    assert len(content) < len(pickle.dumps(network))
    assert isinstance(pickle.loads(content).teacher.on(), nn.Sequential)
    assert student.teacher.on() is network


def test_built_in_inference_mode_it_serves_in_training_too():
    frozen = Frozen(build)
    with torch.inference_mode():
        frozen.on()
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    frozen.on()(x).sum().backward()
    assert x.grad.any()


def test_what_cannot_be_built_is_tried_again():
    files: list[str] = []

    def from_file() -> nn.Module:
        if not files:
            raise CheckpointError("there is no checkpoint x.pth")
        return build()

    frozen, state = Frozen(from_file), torch.get_rng_state()
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        frozen.on()
    files.append("x.pth")
    assert isinstance(frozen.on(), nn.Sequential)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_moves_to_the_device_that_asks():
    frozen = Frozen(build)
    assert next(frozen.on("cuda").parameters()).is_cuda
    assert not next(frozen.on().parameters()).is_cuda
