"""Why a file could not be read as a checkpoint, in words: what it is instead, or what is wrong with it. No code in it is run."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from frustum.errors import CheckpointError

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_AGAIN = "Get it again (`frustum weights list` says where published files are)."
_PAGE = (
    "a web page",
    "The server answered with a page (a log-in, a quota, a confirmation): open its address in a browser and save the file.",
)
_UNPACK = "Unpack it, and give the .pth file that is in it."

# what a file is that begins so (in lower case, after white space), and what to do about it
_KINDS = {
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"<?xml": _PAGE,
    b"<head": _PAGE,
    b"version https://git-lfs": ("the note that git-lfs leaves in place of a large file", "Type git lfs pull in its repository."),
    b"\x1f\x8b": ("a gzip archive", _UNPACK),
    b"bzh": ("a bzip2 archive", _UNPACK),
    b"\xfd7zxz": ("an xz archive", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"rar!": ("a rar archive", _UNPACK),
    b"\x93numpy": ("a numpy array", "Save names with tensors: torch.save(state_dict, 'x.pth')."),
    b"\x89hdf": ("an HDF5 file (of Keras?)", "Only PyTorch's files and safetensors can be read."),
}


def is_safetensors(path: Path) -> bool:
    """True if a file begins as safetensors does, False if it is a pickle or torch.save's archive; whether it is whole is left open.

    Raises:
        CheckpointError: missing, a folder, empty, or another kind of file: a web page, text, an archive.
    """
    if path.is_dir():
        inside = [str(file) for file in sorted(path.iterdir()) if file.suffix in SUFFIXES]
        none = "There is none in it: give the path of a .pth or .safetensors file."
        advice = f"Give a file in it: {', '.join(inside[:3])}" if inside else none
        raise CheckpointError(f"{path} is a folder, where a weights file is needed. {advice}")
    if not path.is_file():
        if saved := sorted(path.parent.glob("checkpoints/step_*/model.safetensors")):
            averaged = saved[-1].with_name("ema.safetensors")
            raise CheckpointError(
                f"the training in {path.parent} is not finished: there is no {path} yet. Go on: frustum train {path.parent}. The last step "
                f"that it saved is {averaged if averaged.is_file() else saved[-1]}, which can be given instead."
            )
        raise CheckpointError(f"there is no checkpoint {path}. Give a .pth or .safetensors file, or the folder of a finished run.")
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes): nothing was downloaded or copied. {_AGAIN}")
    if head[8:9] == b"{" or head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return head[8:9] == b"{"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind, advice = next((found for magic, found in _KINDS.items() if start.startswith(magic)), ("", ""))
    if not kind:
        text = head.decode("utf-8", errors="replace" if len(head) < 4096 else "ignore")
        is_text = all(c.isprintable() or c.isspace() for c in text) and "\N{REPLACEMENT CHARACTER}" not in text
        first = " ".join(text.split())
        first = first if len(first) <= 40 else first[:37] + "..."
        kind = f"text, which begins with {first!r}" if is_text else "something else"
        advice = f"The server may have answered with a message in place of the file. {_AGAIN}" if is_text else _AGAIN
    size = f"{path.stat().st_size:,} bytes"
    raise CheckpointError(f"{path} is not a checkpoint but {kind} ({size}): a file of torch.save or safetensors is needed. {advice}")


def why_damaged(path: Path) -> str:
    """What is wrong with a file that begins as torch.save writes it, and cannot be read to its end."""
    size = f"{path.stat().st_size:,} bytes"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        with open(path, "rb") as file:
            if file.read(4) == b"PK\x03\x04":
                return f"{path} is truncated: its end is missing after {size}, as when a download or a copy breaks off. {_AGAIN}"
        return f"{path} ({size}) cannot be read as a PyTorch checkpoint: it is truncated or damaged. {_AGAIN}"
    if not any(name.endswith("data.pkl") for name in names):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return f"{path} is a zip archive that torch.save did not write: it holds {shown}. {_UNPACK}"
    return f"{path} ({size}) cannot be read as a PyTorch checkpoint: its content is damaged. {_AGAIN}"


def why_refused(path: Path, error: Exception) -> str:
    """What a pickle holds in addition to tensors and plain values, and how its owner gets the tensors out of it."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    refused = f"{path} was refused without running it: "
    if found is None:
        return f"{refused}it is a pickle that torch.save did not write, or a damaged one. Give what torch.save wrote."
    if "is blocked" in str(error):
        return f"{refused}it would call {found[1]}, which no weights need. Do not open it by other means; get the weights elsewhere."
    what, tensors = f"it refers to {found[1]}. A checkpoint must hold tensors and plain values only.", "f.get('state_dict', f)"
    if holds_module(path):
        what, tensors = f"it is a whole network ({found[1]}), saved with its code, not its state dict.", "f.state_dict()"
    return (
        f'{refused}{what} If you trust whoever wrote it, save its tensors alone, and give that file: python -c "import torch; '
        f"f = torch.load('{path.name}', weights_only=False); torch.save({tensors}, 'tensors.pth')\""
    )


def holds_module(path: Path) -> bool:
    """Whether a pickle holds an nn.Module: the names of its inner dictionaries are in every one."""
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    except (zipfile.BadZipFile, StopIteration, OSError):
        with open(path, "rb") as file:
            content = file.read(1 << 22)
    return all(word in content for word in (b"_parameters", b"_buffers", b"_modules"))
