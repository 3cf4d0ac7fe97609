"""Devices other than the CPU: nothing in float64 reaches them, and a training step with CUDA does what it does on the CPU."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from frustum.nn.centre_head import decode_centres
from frustum.nn.frozen import Frozen
from frustum.nn.small_trunk import doubled
from tests.models.test_contract import OURS, build, different, make_batch


class NoFloat64(TorchDispatchMode):
    """The device `meta` as if it were an Apple GPU: no operation may yield float64 on it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta" and tensor.dtype == torch.float64:
                raise TypeError(f"{func} made a float64 tensor on a device that has none")
        return result


@pytest.mark.parametrize("name", different())
def test_no_float64_on_the_device(name):
    recipe, model = build(name)
    model, batch = model.eval(), make_batch(recipe)
    if hasattr(model.config, "shown_width"):  # what is rendered depends on values, which this device does not have
        model.config = model.config.model_copy(update={"shown_width": 0})
    on_cpu = {key: (value.shape, value.dtype) for key, value in model(batch).items()}
    with NoFloat64(), torch.no_grad():
        moved = batch.to("meta")
        outputs = model.to("meta")(moved)
        if "heatmap" in outputs:  # how many objects there are depends on values, which this device does not have
            predictions = list(decode_centres(outputs, model.config.grid).scores)
        elif "box_codes" in outputs:
            predictions = list(outputs["box_codes"])
        elif "occupied" in outputs:
            predictions = list(outputs["occupied"])
        else:
            predictions = model.predict(outputs, moved)
    assert {key: (value.shape, value.dtype) for key, value in outputs.items()} == on_cpu
    assert {value.device.type for value in outputs.values()} == {"meta"}
    assert len(predictions) == len(batch)


def test_the_watch_for_float64_works():
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.zeros(2, dtype=torch.float64).to("meta")


class Constants(TorchFunctionMode):
    """Notes tensors that are made of Python numbers right on `meta`: a copy that a host would wait for, which no dispatch mode sees."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.device.type == "meta":
            self.found += [func.__name__] if not isinstance(args[0], torch.Tensor) or func is torch.Tensor.new_tensor else []
        return result


class Waits(TorchDispatchMode):
    """The device `meta` as if it were a GPU: `found` names the operations for which a host would wait, `copies` counts copies to it."""

    def __init__(self):
        super().__init__()
        self.found, self.copies = [], 0
        self.constants = Constants(self.found)

    def __enter__(self):
        self.constants.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.constants.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        there = [t for t in tensors if t.device.type == "meta"]
        name = func.overloadpacket.__name__
        self.copies += name == "_to_copy" and str(kwargs.get("device")) == "meta" != args[0].device.type
        copied = name == "_to_copy" and "meta" in (str(kwargs.get("device")), args[0].device.type) and not kwargs.get("non_blocking")
        moved = copied and torch.device(kwargs.get("device") or args[0].device) != args[0].device
        read = there and (name in READS or (name in ("index", "index_put_") and any(t.dtype == torch.bool for t in there)))
        mixed = name in ("copy_", "index", "index_put_") and there and len(there) < len([t for t in tensors if t.dim()])
        if moved or read or mixed:
            self.found.append(name)
        return func(*args, **kwargs)


READS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "bincount",
    "equal",
    "linalg_inv_ex",
)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("name", different())
def test_forward_does_not_wait_for_the_device(name, training, monkeypatch):
    monkeypatch.setattr("frustum.nn.lift_splat._HAVE_FLOAT64", ("cpu", "meta"))  # plans are made there, too
    recipe, model = build(name)
    model, batch = model.train(training).to("meta"), make_batch(recipe).to("meta")
    for held in vars(model).values():
        if isinstance(held, Frozen) and not name.startswith("heser-"):  # of files that the user gives
            held.on("meta")  # once, at the first step
    for _ in range(2):
        with Waits() as waits:
            model(batch)
        assert waits.found == []
    if not (training or recipe.model.reads().past or name.startswith("heser-")):  # which send small tables of labels each time
        assert waits.copies == 0, "what a CUDA graph needs: a rig that was there before is on the device already"


def test_the_watch_for_waits_works():
    there = torch.zeros(3, device="meta")
    with Waits() as waits:
        torch.zeros(3).to("meta", non_blocking=True)
        there + 1
    assert waits.found == []
    for wait in (
        lambda: torch.zeros(3).to("meta"),
        lambda: there.new_tensor([1.0]),
        lambda: there[torch.tensor([1])],
        lambda: there.sum().item(),
    ):
        with Waits() as waits, suppress(Exception):
            wait()
        assert len(waits.found) == 1, waits.found


WAITING = ("panoptic-flashocc-", "ppe3d-", "petr", "gsrender-", "renderocc-", "flashocc-mini-render", "occfeat-")


@pytest.mark.parametrize("name", [name for name in different() if not name.startswith(WAITING) or name == "panoptic-flashocc-mini"])
def test_loss_does_not_wait_for_the_device(name):
    """Lovasz-softmax does: it depends on how many classes there are. So do Hungarian matching, which scipy does on the CPU, and rendering,
    which looks at its input and at how many points there are; and features of voxels, of which as many are read as are occupied.
    """
    recipe, model = build(name)
    model, batch = model.train().to("meta"), make_batch(recipe).to("meta")
    outputs = model(batch)
    with Waits() as waits:
        losses = model.loss(outputs, batch)
    assert waits.found == []
    assert all(loss.dim() == 0 for loss in losses.values())


SMALL = [name for name in OURS if name.endswith(("-tiny", "-mini", "-kitti")) and name != "panoptic-flashocc-tiny"]
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def steps(name, device, count=3, dtype=None):
    """Losses of training steps with all columns, and the gradients of the first one, on the CPU."""
    recipe, model = build(name)  # with pretrained=False
    model.config = model.config.model_copy(update={"free_columns": 10**6})
    model, batch = model.train().to(device), make_batch(recipe).to(device)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses, gradients = [], {}
    for _ in range(count):
        with torch.autocast(device, dtype, enabled=dtype is not None):
            total = sum(model.loss(model(batch), batch).values())
        optimiser.zero_grad()
        total.backward()
        gradients = gradients or {key: p.grad.cpu() for key, p in model.named_parameters() if p.grad is not None}
        optimiser.step()
        losses.append(total.item())
    return losses, gradients


def test_all_columns_and_drawn_ones_have_one_loss():
    """What a GPU computes, all columns, is what a CPU computes if it draws all."""
    recipe, model = build("flashocc-tiny")
    model.config = model.config.model_copy(update={"free_columns": 10**6})
    batch = make_batch(recipe)
    drawn = model.train()(batch)
    whole = {"depth": drawn["depth"], **voxel_outputs_of(model, drawn["bev"])}
    for key, value in model.loss(drawn, batch).items():
        torch.testing.assert_close(model.loss(whole, batch)[key], value, rtol=1e-5, atol=1e-6)


def voxel_outputs_of(model, bev):
    return {"occ_logits": model.logits(doubled(model.refine(bev)).relu()).transpose(1, 2)}


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("name", SMALL)
def test_a_training_step_with_cuda_is_that_of_the_cpu(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    (ours, gradients), (theirs, expected) = steps(name, "cuda"), steps(name, "cpu")
    assert ours[0] == pytest.approx(theirs[0], rel=1e-3)
    assert gradients.keys() == expected.keys()
    for key, value in gradients.items():
        scale = expected[key].abs().max()
        torch.testing.assert_close(value, expected[key], rtol=0.02, atol=float(0.02 * scale + 1e-7), msg=key)


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SMALL)
def test_training_with_cuda_lowers_the_loss_and_repeats(name, dtype):
    (first, _), (again, _) = (steps(name, "cuda", 6, dtype) for _ in range(2))
    assert first[-1] < first[0]
    assert again == pytest.approx(first, rel=1e-2 if dtype else 1e-3)


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("name", different())
def test_forward_does_not_wait_with_cuda(name, training):
    recipe, model = build(name)
    model, batch = model.train(training).cuda(), make_batch(recipe).to("cuda")
    model(batch)  # plans, compiled kernels, and what cuDNN tries once
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@on_a_gpu
def test_a_rig_on_the_gpu_is_not_read_back():
    recipe, model = build("flashocc-r50-m0")
    model, batch = model.eval().cuda(), make_batch(recipe).to("cuda")
    there = replace(
        batch, calibration=batch.calibration.to("cuda"), key_ego2global=batch.key_ego2global.cuda(), bev_aug=batch.bev_aug.cuda()
    )
    with torch.no_grad():
        expected = model(batch)["occ_logits"]
        torch.testing.assert_close(model(there)["occ_logits"], expected)
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(there)
        finally:
            torch.cuda.set_sync_debug_mode("default")
