"""Devices other than the CPU: nothing in float64 reaches them, and a training step with CUDA does what it does on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from frustum.nn.centre_head import decode_centres
from tests.models.test_contract import OURS, build, make_batch


class NoFloat64(TorchDispatchMode):
    """The device `meta` as if it were an Apple GPU: no operation may yield float64 on it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta" and tensor.dtype == torch.float64:
                raise TypeError(f"{func} made a float64 tensor on a device that has none")
        return result


@pytest.mark.parametrize("name", OURS)
def test_no_float64_on_the_device(name):
    recipe, model = build(name)
    model, batch = model.eval(), make_batch(recipe)
    on_cpu = {key: (value.shape, value.dtype) for key, value in model(batch).items()}
    with NoFloat64(), torch.no_grad():
        moved = batch.to("meta")
        outputs = model.to("meta")(moved)
        if "heatmap" in outputs:  # how many objects there are depends on values, which this device does not have
            predictions = list(decode_centres(outputs, model.config.grid).scores)
        else:
            predictions = model.predict(outputs, moved)
    assert {key: (value.shape, value.dtype) for key, value in outputs.items()} == on_cpu
    assert {value.device.type for value in outputs.values()} == {"meta"}
    assert len(predictions) == len(batch)


def test_the_watch_for_float64_works():
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.zeros(2, dtype=torch.float64).to("meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_steps_with_cuda():
    name = "flashocc-tiny"  # with pretrained=False
    runs = []
    for device in ("cpu", "cuda", "cuda"):
        recipe, model = build(name)
        model, batch = model.train().to(device), make_batch(recipe).to(device)
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for _ in range(3):
            torch.manual_seed(0)
            total = sum(model.loss(model(batch), batch).values())
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            losses.append(total.item())
        runs.append(losses)
    assert runs[1][0] == pytest.approx(runs[0][0], rel=0.05)  # TF32 convolutions
    assert runs[1][-1] < runs[1][0]
    assert runs[2] == pytest.approx(runs[1], rel=1e-3)
