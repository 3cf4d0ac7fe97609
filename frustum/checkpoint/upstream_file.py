"""Reads state dicts that other projects wrote, tensors only: no code in a file is ever run."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from frustum.checkpoint.fit import as_tensors
from frustum.checkpoint.integrity import check_archive, unsigned
from frustum.checkpoint.unreadable import is_safetensors, why_damaged, why_refused
from frustum.errors import CheckpointError

# Where a state dict lies in what other projects save; the first one found is taken.
_CONTAINERS = ("state_dict", "state_dict_ema", "model_state_dict", "model", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning; one inside the other, too
_DETAILS = ("epoch", "iter", "updates", "step", "mmcv_version", "mmdet_version", "mmdet3d_version", "CLASSES")


class StateFile(NamedTuple):
    """A state dict without its wrappers, and what was around it.

    Attributes:
        state: names with tensors, on the CPU.
        layout: how it was wrapped, in words.
        details: plain facts from around it (epoch, number of averaging steps, versions, class names), as far as there are any.
        metadata: the header of a safetensors file.
    """

    state: dict[str, Tensor]
    layout: str
    details: dict[str, Any]
    metadata: dict[str, str]


def open_state(checkpoint: str | Path | Mapping[str, Any]) -> StateFile:
    """The state dict in a file of whatever project (or in what `torch.load` gave for one), without wrappers, and what was around it.

    Understands mmcv's `{meta, state_dict, optimizer}`, FlashOCC's EMA files `{epoch, state_dict, updates}`, a plain state dict (of numpy
    arrays, too, when given as a dict), several networks side by side (a GAN's `{G, D, optimisers, args}`; their names come ahead of the
    keys), safetensors, and keys that all begin with `module.` (DataParallel), `_orig_mod.` or `model.`.

    Raises:
        CheckpointError: the file is missing or damaged, holds anything but plain data and tensors, or does not hold a state dict.
    """
    if isinstance(checkpoint, Mapping):
        return _unwrapped(checkpoint, "the given dict")
    path = Path(checkpoint)
    if not is_safetensors(path):
        return _unwrapped(_read_torch(path), str(path))
    state, metadata = read_safetensors(path)
    return _unwrapped(state, str(path))._replace(layout="safetensors", metadata=metadata)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its header without the digest. Raises CheckpointError if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            tensors, header = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors: {error}. The file is truncated or damaged; get or copy it again, or take an older one "
            "from the run's checkpoints folder."
        ) from error
    return tensors, unsigned(tensors, header, str(path))


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_plain_data()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            check_archive(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(why_refused(path, error)) from error
    except Exception as error:  # whatever bytes are in the file: the reader stumbles over them in many ways
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            size = f"{path.stat().st_size:,} bytes"
            raise CheckpointError(f"{path} ({size}) asks for more memory than there is: it is damaged, or too large.") from error
        raise CheckpointError(why_damaged(path)) from error


def _plain_data() -> list[Any]:
    """Harmless types that lie around weights beside strings and numbers: numpy scalars, ordinary containers, arguments of a script."""
    scalar = np.float64(0).__reduce__()[0]  # how numpy builds one; older versions call its module otherwise
    kinds = [type(np.dtype(t)) for t in ("float64", "float32", "int64", "int32", "bool")]
    names = [(scalar, f"numpy.{home}.multiarray.scalar") for home in ("core", "_core")]
    return [OrderedDict, defaultdict, dict, argparse.Namespace, np.dtype, *kinds, *names]


def _unwrapped(content: Any, what: str) -> StateFile:
    layout, around = "plain state dict", content if isinstance(content, Mapping) else {}
    if key := next((key for key in _CONTAINERS if isinstance(around.get(key), Mapping)), ""):
        layout = "mmcv" if "meta" in around else "moving average" if "updates" in around else f"state dict under {key!r}"
        content = around[key]
    elif len(networks := {name: part for name, part in around.items() if _is_state(part)}) > 1:
        layout = f"networks side by side ({', '.join(map(str, networks))})"
        # A discriminator's own names may begin with "model.", so only DataParallel's wrapper is taken off.
        content = {f"{name}.{str(key).removeprefix('module.')}": v for name, part in networks.items() for key, v in part.items()}
    if not _is_state(content):
        kind = f"a dict with the keys {sorted(map(str, content))[:8]}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(f"{what} does not hold a state dict (names with tensors, or such a dict under 'state_dict') but {kind}.")
    state = as_tensors({str(key): value for key, value in content.items()}, what)
    while wrapper := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
        layout += f", keys under {wrapper!r}"
    return StateFile(state, layout, _details(around) if key else {}, {})


def _is_state(content: Any) -> bool:
    return isinstance(content, Mapping) and len(content) > 0 and all(isinstance(v, (Tensor, np.ndarray)) for v in content.values())


def _details(around: Mapping[str, Any]) -> dict[str, Any]:
    meta = around.get("meta")
    found = {**(meta if isinstance(meta, Mapping) else {}), **around}
    plain = {key: found[key] for key in _DETAILS if isinstance(found.get(key), (str, int, float, list, tuple))}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
