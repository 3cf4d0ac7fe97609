"""Whether weights are what was written: digests of files and of tensors, checksums of archives, and numbers that are finite.

A weights file of ours names the digest of its tensors and of the rest of its header there. So one flipped bit is noticed.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from frustum.errors import CheckpointError

_DIGEST, _MARK = "sha256", "digest"
_AGAIN = "Get or copy it again, or take an older one from the run's checkpoints folder."


def signed(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, str]:
    """The header of a weights file with the digest of everything in it."""
    marked = {key: text for key, text in header.items() if key != _DIGEST} | {_MARK: _DIGEST}  # two entries: no flip removes both
    return marked | {_DIGEST: _digest(tensors, marked)}


def unsigned(tensors: Mapping[str, Tensor], header: Mapping[str, str], what: str) -> dict[str, str]:
    """The header without its digest; one of a file that never had any (before December 2026, or another project's) as it is.

    Raises:
        CheckpointError: the file `what` does not hold what was written to it.
    """
    if _DIGEST not in header and _MARK not in header:
        return dict(header)
    rest = {key: text for key, text in header.items() if key != _DIGEST}
    if header.get(_DIGEST) != _digest(tensors, rest):
        raise CheckpointError(f"{what} is damaged: what it holds has another digest than its header says (bits flipped?). {_AGAIN}")
    return {key: text for key, text in rest.items() if key != _MARK}


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    total = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        total.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            total.update(block)
    return total.hexdigest()


def check_archive(path: Path) -> None:
    """Check the checksums of torch.save's archive, which torch.load does not look at; a file of before torch 1.6 has none.

    Raises:
        ValueError: a member has another checksum, or the archive is broken.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("torch.save compresses nothing, but it is compressed")
            bad = archive.testzip()
    except (zipfile.BadZipFile, RuntimeError, EOFError, LookupError) as error:
        raise ValueError(str(error)) from error
    if bad is not None:
        raise ValueError(f"the checksum of {bad} in it is wrong")


def not_finite(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Entries with numbers that are NaN or infinite, and how many."""
    counts = {key: int((~torch.isfinite(value)).sum()) for key, value in state.items() if value.is_floating_point()}
    return {key: count for key, count in counts.items() if count}


def require_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raise CheckpointError if weights or running statistics of `what` are NaN or infinite."""
    if broken := not_finite(state):
        names = ", ".join(f"{key} ({count})" for key, count in list(broken.items())[:4]) + (", ..." if len(broken) > 4 else "")
        raise CheckpointError(
            f"{what} holds numbers that are not finite (NaN or infinite): {names}. A network with them predicts nothing: the training that "
            "wrote the file had broken down, or the file is damaged. Take an earlier epoch of it, or get it again."
        )
