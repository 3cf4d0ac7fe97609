"""Why a file could not be read as a checkpoint, in words: what it is instead, or what is wrong with it. No code in it is run."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from frustum.errors import CheckpointError

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_AGAIN = "Get it again (`frustum weights list` says where published files are)."


def refuse_what_is_no_checkpoint(path: Path) -> None:
    """Return if a file begins as a checkpoint does (safetensors, torch.save's zip archive, a pickle); whether it is whole is left open.

    Raises:
        CheckpointError: missing, a folder, empty, or another kind of file: a web page, text, an archive.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, where a weights file is needed. {_inside(path)}")
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}. Give the path of a .pth or .safetensors file.")
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes): nothing was downloaded or copied. {_AGAIN}")
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80" or head[8:9] == b"{":
        return
    kind, advice = _kind(head)
    raise CheckpointError(
        f"{path} is no checkpoint but {kind} ({path.stat().st_size:,} bytes), where a file of torch.save or safetensors is needed. {advice}"
    )


def why_damaged(path: Path) -> str:
    """What is wrong with a file that begins as torch.save writes it, and cannot be read to its end."""
    with open(path, "rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    size = f"{path.stat().st_size:,} bytes"
    if not is_archive:
        return f"{path} ({size}) cannot be read as a PyTorch checkpoint: it is truncated or damaged. {_AGAIN}"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return f"{path} is truncated: its end is missing after {size}, as when a download or a copy breaks off. {_AGAIN}"
    if not any(name.endswith("data.pkl") for name in names):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return (
            f"{path} is a zip archive, but none that torch.save wrote: it holds {shown}. Unpack it, and give the .pth file that is in it."
        )
    return f"{path} ({size}) cannot be read as a PyTorch checkpoint: its content is damaged. {_AGAIN}"


def why_refused(path: Path, error: Exception) -> str:
    """What a pickle holds beside tensors and plain values, and how its owner gets the tensors out of it."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    refused = f"{path} was refused without running it: "
    trust = 'If you trust whoever wrote it, save its tensors alone, and give that file: python -c "import torch; '
    if found is None:
        return f"{refused}it is a pickle, but none that torch.save wrote, or a damaged one. Give what torch.save wrote."
    if "is blocked" in str(error):
        return f"{refused}it would call {found[1]}, which no weights need. Do not open it by other means; get the weights elsewhere."
    if holds_module(path):
        return (
            f"{refused}it is a whole network ({found[1]}), saved with its code, not its state dict. "
            f"{trust}torch.save(torch.load('{path.name}', weights_only=False).state_dict(), 'tensors.pth')\""
        )
    return (
        f"{refused}it refers to {found[1]}. A checkpoint must hold tensors and plain values only. {trust}"
        f"f = torch.load('{path.name}', weights_only=False); torch.save(f.get('state_dict', f), 'tensors.pth')\""
    )


def holds_module(path: Path) -> bool:
    """Whether a pickle holds an nn.Module: the names of its inner dictionaries are in every one."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            content = archive.read(name)
    except (zipfile.BadZipFile, StopIteration, OSError):
        with open(path, "rb") as file:
            content = file.read(1 << 22)
    return all(word in content for word in (b"_parameters", b"_buffers", b"_modules"))


def _kind(head: bytes) -> tuple[str, str]:
    """What a file is that begins with `head`, and what to do about it."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")) or b"<html" in start[:512]:
        return (
            "a web page",
            "The server answered with a page (a log-in, a quota, a confirmation): open its address in a browser and save the file.",
        )
    if head.startswith(b"version https://git-lfs"):
        return "the note that git-lfs leaves in place of a large file", "Type git lfs pull in its repository."
    packed = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
    for magic, name in packed.items():
        if head.startswith(magic):
            return f"a {name} archive", "Unpack it, and give the .pth file that is in it."
    if head.startswith(b"\x93NUMPY"):
        return "a numpy array", "Save names with tensors: torch.save(state_dict, 'x.pth')."
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file (of Keras?)", "Only PyTorch's files and safetensors can be read."
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
    except UnicodeDecodeError:
        return "something else", _AGAIN
    if not all(c.isprintable() or c.isspace() for c in text):
        return "something else", _AGAIN
    first = " ".join(text.split())
    first = first if len(first) <= 40 else first[:37] + "..."
    return f"text, which begins with {first!r}", f"The server may have answered with a message in place of the file. {_AGAIN}"


def _inside(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.suffix in _SUFFIXES)
    if not names:
        return "There is none in it: give the path of a .pth or .safetensors file."
    return f"Give a file in it: {', '.join(str(folder / name) for name in names[:3])}{', ...' if len(names) > 3 else ''}"
