"""Weights on disk: safetensors, written atomically, loaded strictly with a readable difference. Pickles are refused."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from frustum.checkpoint.fit import Fit, as_tensors, complete, describe_difference
from frustum.checkpoint.integrity import require_finite, signed
from frustum.checkpoint.unreadable import is_safetensors
from frustum.checkpoint.upstream_file import read_safetensors
from frustum.errors import CheckpointError
from frustum.files import atomic_path, flush_folder, why_unwritable
from frustum.version import __version__

WEIGHTS = "weights.safetensors"


def save_weights(path: Path | str, source: nn.Module | Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a state dict as safetensors, atomically, with the version, `metadata` (JSON values) and a digest of it all in its header.

    Raises:
        CheckpointError: an entry is not finite; nothing is written.
        DataError: the folder is missing, read-only or full.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else source
    # Entries that share memory (tied weights) or are strided otherwise are stored as plain copies of their own.
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}
    require_finite(tensors, f"the network that was to be saved as {path}")
    header = signed(tensors, {"frustum": __version__} | {key: json.dumps(value) for key, value in (metadata or {}).items()})

    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:  # a full disk arrives as this, not as OSError
            raise why_unwritable(temporary, error) or OSError(errno.EIO, str(error)) from error
        flush(temporary)
    flush_folder(Path(path).parent)


def flush(path: Path) -> None:
    """Have the operating system put a file on the disk, so that a rename after it never exposes an empty one."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def read_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict (on the CPU) and the metadata of a weights file, or of a run folder's `weights.safetensors`.

    Raises:
        CheckpointError: missing, empty, a pickle, truncated, damaged (its digest is another), or not safetensors at all.
    """
    path = Path(path) / WEIGHTS if Path(path).is_dir() else Path(path)
    if not is_safetensors(path):
        raise CheckpointError(
            f"{path} is a pickle where a checkpoint is expected: loading one could run any code, so frustum reads only safetensors. "
            f"Weights of an official repository load with --source official (frustum eval RECIPE --checkpoint {path} --source official; in "
            f'Python frustum.load(recipe, "{path}", source="official")), which reads tensors only; '
            f"a state dict of your own becomes such a file with `frustum weights convert {path} --recipe NAME -o NAME.safetensors`."
        )
    state, header = read_safetensors(path)
    return state, decode_header(header)


def decode_header(header: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a weights file as values; text that is not JSON stays text."""
    found: dict[str, Any] = dict(header)
    for key, text in header.items():
        with contextlib.suppress(ValueError, RecursionError):
            found[key] = json.loads(text)
    return found


GIVE_THE_RECIPE = "Give the recipe (and the model.* overrides) that the weights were trained with."


def load_state(
    model: nn.Module, state: Mapping[str, Tensor | np.ndarray], what: str, strict: bool = True, advice: str = GIVE_THE_RECIPE
) -> Fit:
    """Fill `model` from a state dict of tensors or arrays; counters of batch norms that are missing are 0. Returns what fitted.

    Args:
        what: names the source in messages.
        strict: refuse anything but an exact fit, and load nothing then; off, every entry of equal name and shape is taken.
        advice: what to type where the fit is not exact.

    Raises:
        CheckpointError: the readable difference; an entry is not finite; or, if not strict, nothing fits at all.
    """
    needed = model.state_dict()
    state = complete(needed, as_tensors(state, what))
    fit = Fit.of(needed, state)
    if strict and (difference := describe_difference(needed, state)):
        raise CheckpointError(f"{what} does not fit {type(model).__name__}:\n{difference}\n{advice}")
    if not fit.taken:
        raise CheckpointError(f"nothing in {what} fits {type(model).__name__}: no entry has name and shape of one of the network's.")
    require_finite(taken := {key: state[key] for key in fit.taken}, what)
    model.load_state_dict(taken, strict=strict)
    return fit


def digest(model: nn.Module) -> str:
    """SHA-256 over the names and values of a network's state: equal for equal weights, wherever they are and however they were saved."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        plain = value.detach().cpu().contiguous().reshape(-1)
        total.update(name.encode() + plain.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
