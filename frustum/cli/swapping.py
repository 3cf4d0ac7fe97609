"""Swap heads in photographs: check and cut the input, align, blend, paste back, mark the result and note where it comes from."""

from __future__ import annotations

import hashlib
import io
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from frustum.checkpoint.weights_file import digest
from frustum.cli.common import say
from frustum.cli.head_swaps import parse_with
from frustum.cli.likeness import colours, odd_one
from frustum.cli.resolve import open_network
from frustum.data.images.labelled import images_in, read_ids
from frustum.data.pixels import photograph, read_image
from frustum.data.portraits.crop import Crop, crop_around, face_box
from frustum.data.portraits.marks import MIN_SIDE, find_mark, with_label, with_mark
from frustum.errors import ConfigError, DataError, FrustumWarning
from frustum.files import atomic_path, read_json, write_json
from frustum.models.head_swap import HeadSwapper, Parse
from frustum.models.heser_aligner import HeserAligner
from frustum.models.heser_blender import HeserBlender
from frustum.models.heser_fewshot import FewShot
from frustum.types.pixel_classes import FACE
from frustum.version import __version__

CONSENT = (
    "A head swap shows a person doing what they never did. Swap heads only of people who agreed to it, and do not hide that the picture is "
    "synthetic. If everybody in these pictures has agreed, give the same command with --consent; that is written beside the result. The "
    "result carries a label, an invisible mark (frustum swap --verify FILE finds it) and a file that says where it comes from."
)
_EYES = (4, 5, 6)


def swap_heads(
    sources: Sequence[Path],
    target: Path,
    out: Path,
    networks: dict[str, str],
    masks: Path | None = None,
    how: FewShot | None = None,
    has_label: bool = True,
) -> list[Path]:
    """What `frustum swap` does; returns the pictures that were written.

    Args:
        sources: photographs of one person, or folders of such.
        target: a photograph, or a folder of them.
        out: the picture; the folder of pictures for a folder of targets.
        networks: runs or weights files of `aligner`, `blender` and `parser`.
        masks: folder of parsing maps NAME.png for the photographs NAME.*, of their size; the parser's where there is none.
        how: how the aligner learns the person; by default it does not.
        has_label: write `synthetic` into the corner.

    Raises:
        DataError: files that are missing or damaged, no head, two heads, or a head without a face; of a folder of targets only if that is
            so for all of them, else they are left out with a warning. ConfigError: networks of other kinds.
    """
    if masks is not None and not masks.is_dir():
        raise DataError(f"--masks {masks} is not a folder of parsing maps.")
    opened = {name: open_network(run)[1] for name, run in networks.items() if name != "parser"}
    aligner, blender = opened["aligner"], opened["blender"]
    for name, network, kind in (("aligner", aligner, HeserAligner), ("blender", blender, HeserBlender)):
        if not isinstance(network, kind):
            raise ConfigError(
                f"--{name} {networks[name]} is a {type(network).__name__}, where a {kind.__name__} is needed: "
                f"frustum train heser-{name}-mini."
            )
    assert isinstance(aligner, HeserAligner)
    assert isinstance(blender, HeserBlender)
    parse, parser = parser_of(networks["parser"])
    swapper = HeadSwapper(aligner, blender, parse)
    photographs, targets = [file for path in sources for file in _files(path)], _files(target)
    places = _places(targets, out, photographs, is_folder=target.is_dir())
    cut = [_portrait(file, masks, parse, swapper.heads.side) for file in photographs]
    if masks is not None and not any((masks / f"{file.stem}.png").is_file() for file in (*photographs, *targets)):
        raise DataError(f"{masks} holds no parsing map of these photographs: of {targets[0].name} it would be {targets[0].stem}.png.")
    if odd := odd_one([colours(portrait, parts) for _, _, portrait, parts in cut]):
        warnings.warn(
            f"skin and hair in {photographs[odd[0]]} have other colours than in the other photographs of the source "
            f"({odd[1]:.0f} Delta E): are all of them of one person?",
            FrustumWarning,
            stacklevel=2,
        )
    person = swapper.heads.learn([portrait for _, _, portrait, _ in cut], [parts for *_, parts in cut], how or FewShot(steps=0))
    if person.history:
        first, best = person.history[0][1], min(loss for _, loss in person.history)
        say(f"learned the person in {person.step} steps; loss on frames held out {first:.4f} -> {best:.4f}")
    about = {
        "what": "a head swap: synthetic",
        "consent": "stated by the user (--consent)",
        "sources": {file.name: _sha(file) for file in photographs},
        "networks": {name: digest(network) for name, network in (("aligner", aligner), ("blender", blender), ("parser", parser))},
        "policy": blender.config.policy,
        "steps": person.step,
        "frustum": __version__,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    written, left_out = [], []
    for file, path in zip(targets, places, strict=True):
        try:
            image, crop, portrait, parts = _portrait(file, masks, parse, swapper.heads.side)
            found = swapper.swap(person, portrait, parts)
        except DataError as error:
            if not target.is_dir():
                raise
            left_out.append(f"{file.name}: {error}")
            continue
        made = crop.paste(image, found.image, found.where)
        made = with_label(made) if has_label else made
        note = about | {"target": {file.name: _sha(file)}, "square": vars(crop)}
        number = int(hashlib.sha256(repr(sorted(note.items())).encode()).hexdigest()[:8], 16)
        picture = io.BytesIO()
        Image.fromarray(with_mark(made, number)).save(picture, "PNG")
        note |= {"mark": number, "picture": hashlib.sha256(picture.getvalue()).hexdigest()}
        write_json(path.with_suffix(".json"), note, indent=2)  # first: no picture is without
        with atomic_path(path) as temporary:
            temporary.write_bytes(picture.getvalue())
        written.append(path)
    if not written:
        raise DataError(f"none of the {len(targets)} photographs in {target} could be used. The first: {left_out[0]}")
    if left_out:
        warnings.warn(f"{len(left_out)} of {len(targets)} photographs were left out. {' '.join(left_out)}", FrustumWarning, stacklevel=2)
    return written


def verify(path: Path) -> dict[str, Any]:
    """Whether a picture carries the mark of a swap, whether the note beside it is of this swap, and whether the picture was changed since
    then. Raises DataError."""
    number = find_mark(read_image(path, lambda image: np.asarray(image.convert("RGB"))))
    beside = path.with_suffix(".json")
    note = read_json(beside, "note of a swap") if number is not None and beside.is_file() else {}
    is_noted = isinstance(note, dict) and note.get("mark") == number
    is_changed = note.get("picture") != _sha(path) if is_noted else None
    return {"is_marked": number is not None, "mark": number, "note": str(beside) if is_noted else None, "is_changed": is_changed}


def parser_of(name: str) -> tuple[Parse, torch.nn.Module]:
    """A function that finds the parts of a head in any square image, and its network. Raises ConfigError for one with other classes."""
    recipe, network = open_network(name)
    if getattr(recipe.model, "class_names", None) != FACE.names:
        raise ConfigError(f"--parser {name} does not have the 19 classes of faces. Train one: frustum train face-parser data.root=HEADS.")
    return parse_with(recipe, network), network


def _portrait(file: Path, masks: Path | None, parse: Parse, side: int) -> tuple[np.ndarray, Crop, np.ndarray, np.ndarray]:
    """A photograph (H, W, 3), the square around its head, that square (side, side, 3), and its parts (side, side).

    Without a map of its own, the head is searched in the whole photograph first, and again in the square around it, for its exact place.
    """
    image = read_image(file, lambda opened: np.asarray(photograph(opened)))
    if min(image.shape[:2]) < MIN_SIDE:
        raise DataError(
            f"{file} has {image.shape[1]} x {image.shape[0]} pixels. A photograph needs {MIN_SIDE} on each side. Give a larger one "
            f"(generated: frustum data heads OUT --size 256)."
        )
    given = None if masks is None else masks / f"{file.stem}.png"
    if given is not None and given.is_file():
        maps = read_ids(given)
        if maps.shape != image.shape[:2] or maps[maps != 255].max(initial=0) >= len(FACE.names):
            raise DataError(f"the parsing map {given} needs the size of {file} and ids from 0 to {len(FACE.names) - 1}.")
        crop = crop_around(face_box(maps, str(file)))
        cut = crop.cut(np.repeat(maps[..., None], 3, 2), crop.side)[..., 0]
        parts = np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.NEAREST))
    else:
        height, width = image.shape[:2]
        crop = Crop((width - max(height, width)) // 2, (height - max(height, width)) // 2, max(height, width))
        for _ in range(2):
            seen = min(crop.side, 512)
            found = face_box(parse(crop.cut(image, seen)), str(file))
            scale = crop.side / seen
            near = crop_around(found._replace(x=found.x * scale, y=found.y * scale, height=found.height * scale))
            crop = Crop(crop.left + near.left, crop.top + near.top, near.side)
        parts = parse(crop.cut(image, side))
    if crop.side < side / 2:
        warnings.warn(
            f"the head in {file} is small: {crop.side} pixels around it become {side}. It will look soft.", FrustumWarning, stacklevel=2
        )
    if not np.isin(parts, _EYES).any():
        warnings.warn(f"no eye is found in {file}: seen from the side, or covered? The pose may fail.", FrustumWarning, stacklevel=2)
    return image, crop, crop.cut(image, side), parts


def _files(path: Path) -> list[Path]:
    """The photograph, or those of a folder. Raises DataError for a folder without any."""
    if not path.is_dir():
        return [path]
    if not (found := images_in(path)):
        raise DataError(f"the folder {path} holds no photograph (.png, .jpg).")
    return found


def _places(targets: Sequence[Path], out: Path, photographs: Sequence[Path], is_folder: bool) -> list[Path]:
    """Where the picture of each target goes. Raises ConfigError where it would replace a photograph or another picture, or is no PNG."""
    places = [out / f"{file.stem}.png" for file in targets] if is_folder else [out]
    if is_folder and out.suffix.lower() in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"--out {out}: the target is a folder, so that --out is one, too. Give its name.")
    if places[0].suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the picture is a PNG, whose mark is exact. Give a name that ends in .png.")
    given = {file.resolve() for file in (*targets, *photographs)}
    if replaced := [place for place in places if place.resolve() in given]:
        raise ConfigError(f"{replaced[0]} is one of the photographs and would be replaced. Choose another --out.")
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ConfigError(f"two photographs of the target would both become {twice}. Give their files different names.")
    return places


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
