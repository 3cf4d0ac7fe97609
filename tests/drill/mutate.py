"""Damage to files, drawn by a seed: of their bytes, and of what they hold where it is known what that is."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image

Mutation = Callable[[Generator, bytes], bytes]

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, -0.5, 3.7, 1e-300, 1e300, -1e300, 2**63, -(2**63) - 1, 10**400, float("nan"), float("inf"), float("-inf"), "", "x",
    "../../x", "/etc/*", "a\0b", "\ud800", "1" * 5000, [], {}, [[]], [None], {"token": None}, [1, 2, 3, 4, 5, 6, 7],
)  # fmt: skip
"""Values that are put in place of others."""
_DEEP = 100_000  # brackets in a row: more than any parser recurses
_BOMB = 1 << 31  # bytes that a small file claims


# ---- of any file -----------------------------------------------------------------------------------------------------------------


def flipped(rng: Generator, data: bytes) -> bytes:
    """One to eight bits."""
    changed = bytearray(data or b"\0")
    for _ in range(int(rng.integers(1, 9))):
        changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(rng: Generator, data: bytes) -> bytes:
    """The end is missing, or all of it."""
    return data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.9 else b""


def longer(rng: Generator, data: bytes) -> bytes:
    """Something follows the end."""
    return data + (data[: int(rng.integers(1, 4096))] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 4096))))


def zeroed(rng: Generator, data: bytes) -> bytes:
    """A block that a disk lost."""
    start = int(rng.integers(len(data) + 1))
    size = min(len(data) - start, int(rng.integers(1, 4096)))
    return data[:start] + bytes(size) + data[start + size :]


def moved(rng: Generator, data: bytes) -> bytes:
    """A block that stands elsewhere."""
    a, b = (int(i) for i in rng.integers(len(data) + 1, size=2))
    block = data[a : a + int(rng.integers(1, 512))]
    return data[:b] + block + data[b + len(block) :]


def foreign(rng: Generator, data: bytes) -> bytes:
    """A file of another kind."""
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    texts = (b"<!doctype html><html>", b"[" * _DEEP, b"{}")
    kinds = (*texts, pickle.dumps({"a": [1]}), b"\x89PNG\r\n\x1a\n", archive.getvalue(), rng.bytes(512))
    return kinds[rng.integers(len(kinds))]


BYTES: tuple[Mutation, ...] = (flipped, cut, longer, zeroed, moved, foreign)


# ---- of text ---------------------------------------------------------------------------------------------------------------------


def recoded(rng: Generator, data: bytes) -> bytes:
    """The same text as some editors save it."""
    return data.decode("utf-8", "replace").encode(("utf-16", "utf-8-sig", "utf-32")[rng.integers(3)], "surrogatepass")


def long_number(rng: Generator, data: bytes) -> bytes:
    """One of its numbers gets 10,000 digits, or more than a float holds."""
    digits = (b"9" * 10_000, b"1e999", b"-1e308", b"nan", b"1" * 25)[rng.integers(5)]
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", data))
    if not numbers:
        return digits
    start, stop = numbers[rng.integers(len(numbers))].span()
    return data[:start] + digits + data[stop:]


TEXT = (*BYTES, recoded, long_number)


def hostile_json(rng: Generator, data: bytes) -> bytes:
    """One value becomes a hostile one, is deleted, doubled or wrapped."""
    top = [json.loads(data)]
    holder, key = top, 0
    while rng.random() < 0.95:  # a way down; most ends are near the leaves
        inner = holder[key]
        if isinstance(inner, (dict, list)) and inner:
            keys = list(inner) if isinstance(inner, dict) else range(len(inner))
            holder, key = inner, keys[rng.integers(len(keys))]
        else:
            break
    kind = rng.integers(10)
    if kind == 0 and holder is not top:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.append(holder[key])
    elif kind == 2:
        holder[key] = [holder[key]]
    elif kind == 3:
        holder[key] = "DEEP"
        return json.dumps(top[0]).replace('"DEEP"', "[" * _DEEP + "]" * _DEEP).encode()
    else:
        holder[key] = HOSTILE[rng.integers(len(HOSTILE))]
    return _dumped(top[0])


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


JSON = (*TEXT, *[hostile_json] * 12)  # most of what bytes do to JSON is not JSON: it is refused alike


# ---- of archives of arrays -------------------------------------------------------------------------------------------------------


def hostile_arrays(rng: Generator, data: bytes) -> bytes:
    """An npz archive with sound checksums and one array that is something else, more than the disk holds, or not there."""
    with np.load(io.BytesIO(data), allow_pickle=True) as archive:
        arrays = dict(archive)
    name = list(arrays)[rng.integers(len(arrays))]
    array = np.asarray(arrays[name])
    kind = rng.integers(12)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = array[None]
    elif kind == 2:
        arrays[name] = array.ravel()[: array.size // 2]
    elif kind == 3:
        arrays[name] = np.array({"a": 1}, object)
    elif kind == 4:
        arrays[name] = array.astype("U1") if array.dtype.kind in "SU" else array.astype(np.complex64)
    elif kind == 5:
        arrays[name] = np.array("text")
    elif kind == 6:
        arrays[name] = np.zeros(0, array.dtype)
    elif kind == 7 and array.dtype.kind in "iuf" and array.size:
        arrays[name] = array.copy()
        extremes = (np.iinfo(array.dtype).min, np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else (np.nan, np.inf, -1e38, 1e38)
        arrays[name].flat[rng.integers(array.size)] = extremes[rng.integers(len(extremes))]
    elif kind == 8:
        arrays[name] = np.zeros((1, 1 << 28), np.uint8)  # compresses to 260 kB
    elif kind == 9:
        return _claiming(arrays, name)
    elif kind == 10:
        arrays["more"] = np.zeros(3)
    else:
        arrays[name] = array.T
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _claiming(arrays: dict[str, np.ndarray], name: str) -> bytes:
    """The header of one array says that it has 2 GiB."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for key, array in arrays.items():
            part = io.BytesIO()
            if key == name:
                about = {"descr": "|u1", "fortran_order": False, "shape": (_BOMB,)}
                np.lib.format.write_array_header_1_0(part, about)
                part.write(bytes(64))
            else:
                np.lib.format.write_array(part, array)
            archive.writestr(f"{key}.npy", part.getvalue())
    return content.getvalue()


NPZ = (*BYTES, *[hostile_arrays] * 6)


# ---- of weights ------------------------------------------------------------------------------------------------------------------


def hostile_header(rng: Generator, data: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    size = struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.2:
        return struct.pack("<Q", (0, 1, 2**40, 2**63)[rng.integers(4)]) + data[8:]
    header = hostile_json(rng, data[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


SAFETENSORS = (*BYTES, *[hostile_header] * 4)


def hostile_tensors(rng: Generator, data: bytes) -> bytes:
    """A .pth file of which one tensor is another, huge, sparse, repeated, or no tensor."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    state = content.get("state_dict", content) if isinstance(content, dict) else {"x": content}
    name = list(state)[rng.integers(len(state))]
    others: tuple[Any, ...] = (
        torch.zeros(1).expand(1 << 40), torch.zeros(1).expand(1 << 20, 1 << 10), torch.zeros(1).expand(1 << 25, 1 << 5),
        torch.zeros(1).as_strided((1 << 20, 1 << 20), (0, 0)), torch.zeros(3, 3).to_sparse(), torch.full((3,), float("nan")),
        7, "x", None, [state[name]], {"deeper": state[name]}, torch.zeros(0), torch.nn.Parameter(torch.zeros(2)),
        torch.zeros(2, dtype=torch.complex64), torch.full(getattr(state[name], "shape", (2,)), 1j),
    )  # fmt: skip
    state[name] = others[rng.integers(len(others))]
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=bool(rng.random() < 0.8))
    return file.getvalue()


def compressed(rng: Generator, data: bytes) -> bytes:
    """An archive of the same members, or of larger ones, that are compressed: a bomb."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return data
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            content = old.read(member)
            new.writestr(member, bytes(1 << 26) if rng.random() < 0.2 else content)
    return out.getvalue()


PTH = (*BYTES, *[hostile_tensors] * 4, compressed)


# ---- of images -------------------------------------------------------------------------------------------------------------------


def hostile_image(rng: Generator, data: bytes) -> bytes:
    """A sound image that is of another kind, mode or size, or claims one of a gigapixel."""
    image = Image.open(io.BytesIO(data))
    kind = rng.integers(6)
    if kind == 0:
        header = struct.pack(">IIBBBBB", 30_000 + int(rng.integers(9)), 30_000, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")
    if kind == 1:
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"
    out = io.BytesIO()
    if kind == 2:
        image.convert(("1", "L", "P", "RGBA", "CMYK", "I;16")[rng.integers(6)] if image.mode == "RGB" else "RGB").save(out, "TIFF")
    elif kind == 3:
        image.resize((int(rng.integers(1, 9)), int(rng.integers(1, 9)))).save(out, "PNG")
    elif kind == 4:
        image.convert("RGB").save(out, "GIF", save_all=True, append_images=[image.convert("RGB")] * 3)
    else:
        image.save(out, "PNG", pnginfo=None)
        return out.getvalue()[:-30] + _chunk(b"tEXt", b"x" * 100) * 1000 + out.getvalue()[-12:]
    return out.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


IMAGE = (*BYTES, *[hostile_image] * 4)


# ---- of plain numbers ------------------------------------------------------------------------------------------------------------


def hostile_floats(rng: Generator, data: bytes) -> bytes:
    """Some, or most, of the numbers of a scan."""
    numbers = np.frombuffer(data[: len(data) // 4 * 4], np.float32).copy()
    share = (0.001, 0.1, 0.9, 1.0)[rng.integers(4)]
    numbers[rng.random(len(numbers)) < share] = (np.nan, np.inf, 1e38, -3e9, 1e30)[rng.integers(5)]
    return numbers.tobytes()


FLOATS = (*BYTES, *[hostile_floats] * 4)
