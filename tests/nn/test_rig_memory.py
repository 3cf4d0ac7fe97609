"""Values of a rig are made once, found by content on the CPU and by identity elsewhere."""

from __future__ import annotations

import contextlib
import copy

import torch

from frustum.nn.rig_memory import RigMemory


def test_found_by_content_on_the_cpu():
    memory, made = RigMemory(max_rigs=2), []
    matrix = torch.eye(3)

    def get(tensor, rest=""):
        return memory.get([tensor], rest, lambda: made.append(tensor.clone()) or len(made))

    assert [get(matrix), get(matrix.clone()), get(matrix * 2), get(matrix)] == [1, 1, 2, 1]
    assert get(matrix, "another size") == 3, "this one pushed out that of matrix * 2"
    assert get(matrix * 2) == 4
    matrix[0, 0] = 5
    assert get(matrix) == 5, "another content"
    assert len(memory) == 2


def test_views_of_another_shape_are_other_matrices():
    memory = RigMemory()
    matrix = torch.arange(12.0)
    assert [memory.get([matrix.view(shape)], "", lambda s=shape: s) for shape in ((3, 4), (4, 3), (3, 4))] == [(3, 4), (4, 3), (3, 4)]


class Elsewhere(torch.Tensor):
    """A CPU tensor that says that it lies on a GPU, and counts how often it is read."""

    reads = 0

    @property
    def device(self):
        return torch.device("cuda:0")

    def cpu(self):
        Elsewhere.reads += 1
        return self.as_subclass(torch.Tensor)


def test_a_rig_elsewhere_is_read_once():
    memory, made = RigMemory(max_rigs=2), []
    matrices = torch.stack([torch.eye(3), torch.eye(3) * 2]).as_subclass(Elsewhere)
    Elsewhere.reads = 0

    def get(tensor):
        return memory.get([tensor], "", lambda: made.append(1) or len(made))

    assert [get(matrices[0]), get(matrices[0]), get(matrices[:1][0])] == [1, 1, 1], "views of the same place"
    assert Elsewhere.reads == 1
    assert get(matrices[1]) == 2
    assert get(matrices[0].clone()) == 1, "elsewhere, but with the same content"
    assert Elsewhere.reads == 3
    matrices.mul_(3)
    assert get(matrices[0]) == 3, "something was written into it"
    assert Elsewhere.reads == 4


def test_tensors_of_inference_mode_are_read_every_time():
    """They do not count what is written into them."""
    with torch.inference_mode():
        matrix = torch.eye(3).as_subclass(Elsewhere)
        memory = RigMemory()
        assert memory.get([matrix], "", lambda: 1) == 1
        matrix.mul_(2)
        assert memory.get([matrix], "", lambda: 2) == 2


def test_what_is_made_in_inference_mode_serves_training():
    memory, weight = RigMemory(), torch.ones(3, requires_grad=True)
    matrix = torch.arange(3.0)
    for mode in (torch.inference_mode(), contextlib.nullcontext()):
        with mode:
            product = (weight * memory.get([matrix], "", lambda: matrix + 1)).sum()
    product.backward()
    assert weight.grad.tolist() == [1, 2, 3]


def test_a_copy_starts_empty():
    memory = RigMemory(max_rigs=3)
    memory.get([torch.eye(3)], "", lambda: 1)
    twin = copy.deepcopy(memory)
    assert (len(twin), twin.max_rigs) == (0, 3)
    assert twin.get([torch.eye(3)], "", lambda: 2) == 2
