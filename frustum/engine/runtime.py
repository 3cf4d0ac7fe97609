"""Where a run computes and in which precision: the recipe's wishes against what the machine has."""

from __future__ import annotations

import atexit
import gc

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin
from torch import distributed, nn

from frustum.engine.recipe import RuntimeConfig
from frustum.errors import ConfigError

if distributed.is_available():
    # Before a group exists: default arguments in there hold the group that they find, with its threads, for good.
    import torch.distributed.nn.functional


def computes_bf16(device_type: str) -> bool:
    """True if the device multiplies in bfloat16 itself (CPU: AVX512-BF16 or AMX), so that bf16 is faster and not only smaller."""
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if device_type == "cpu":
        return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return False


def pick_device(config: RuntimeConfig) -> torch.device:
    """The device that `runtime.device` means here. Raises ConfigError if this machine does not have it."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = config.device
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if has[kind])
    if not has.get(name.partition(":")[0], False):
        usable = ", ".join(["auto", *(kind for kind, there in has.items() if there)])
        raise ConfigError(f"runtime.device={config.device} is not available here; usable: {usable}. `frustum doctor` shows what was found.")
    return torch.device(name)


def pick_precision(config: RuntimeConfig, device: torch.device) -> str:
    """`bf16` or `fp32`: what `runtime.precision` means on this device."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if computes_bf16(device.type) else "fp32"


def make_accelerator(config: RuntimeConfig, accumulate: int = 1) -> Accelerator:
    """Accelerate's view of the devices: one process, or the ranks that torchrun or `accelerate launch` started.

    Micro-steps are counted by us alone: the loop reads whole groups of `accumulate`, an epoch's end cuts none short.
    """
    device = pick_device(config)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    # The state of an earlier run in this process (a test, train followed by eval) must not decide over this one.
    given = _connected()  # by the caller, who also closes the connection
    AcceleratorState._reset_state(reset_partial_state=not given)
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if pick_precision(config, device) == "bf16" else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulate, sync_with_dataloader=False),
    )
    if _connected() and not given:
        atexit.register(_leave_processes)
    return accelerator


def _connected() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _leave_processes() -> None:
    """Close the connection to the other processes while Python still runs.

    Gloo's threads may hold the last reference to a tensor for a moment after its exchange. If they drop it when the interpreter is
    already going down, the process aborts (SIGABRT, "terminate called without an active exception") although all its work is done.
    """
    if _connected():
        gc.collect()  # a wrapped network in a cycle would keep the threads
        distributed.destroy_process_group()


def place(model: nn.Module, config: RuntimeConfig, device: torch.device) -> nn.Module:
    """The model on its device, in channels-last layout and compiled if the recipe says so; state-dict keys do not change."""
    model = model.to(device)
    if config.channels_last:
        for tensor in model.parameters():
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    if config.compile:
        model.compile()
    return model
