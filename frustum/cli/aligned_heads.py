"""`frustum data aligned`: heads of true swaps as an aligner draws them, for a blender to learn from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from frustum.checkpoint.weights_file import digest
from frustum.cli.common import say
from frustum.cli.head_swaps import People
from frustum.cli.resolve import open_network
from frustum.cli.swapping import parser_of
from frustum.data.portraits.opening import open_portraits
from frustum.data.portraits.swaps import ALIGNED, MASK, SWAPS, TRAIN_SWAPS
from frustum.engine.progress import loop_progress
from frustum.errors import ConfigError
from frustum.files import atomic_path, inside, read_object, write_json
from frustum.locks import owning
from frustum.models.head_swap import HeadAligner, NoHeadError
from frustum.models.heser_aligner import HeserAligner


@owning("root", "frustum data aligned", "in another folder")
def write_aligned(name: str, parser: str, root: Path) -> dict[str, Any]:
    """What `frustum data aligned` does; JSON values.

    Args:
        name, parser: runs or weights files; a parser is asked only for an aligner that draws no parts.
        root: folder of generated heads; pictures go into those of its swaps to learn from.

    Raises:
        ConfigError: this is no aligner, or no parser, or portraits have another size. DataError: no such data.
    """
    network = open_network(name)[1]
    if not isinstance(network, HeserAligner):
        raise ConfigError(f"{name} is no aligner, but a {type(network).__name__}. Train one: frustum train heser-aligner-mini.")
    drawn_by, parse = {"aligner": digest(network)}, None
    if not network.config.draws_parts:
        parse, parsing = parser_of(parser)
        drawn_by["parser"] = digest(parsing)
    source, heads = open_portraits(root), HeadAligner(network, parse)
    people = People(source, heads)
    tokens = source.tokens(TRAIN_SWAPS)
    tokens.sort(key=lambda token: source.swap(token))  # type: ignore[arg-type, return-value]  # a person is learned once
    new = failed = 0
    progress = loop_progress("drawing heads", tokens)
    for token in progress:
        swap, folder = source.swap(token), inside(root, root / SWAPS / token)
        assert swap is not None
        about, note = {**swap._asdict(), **drawn_by}, folder / f"{ALIGNED}.json"
        pictures = [folder / f"{ALIGNED}{suffix}.png" for suffix in ("", f"_{MASK}")]
        known = read_object(note, "note") if note.is_file() else {}
        if about.items() <= known.items() and known.get("pictures") == [_sha(picture) for picture in pictures]:
            continue
        note.unlink(missing_ok=True)
        is_drawn = True
        try:
            made = heads.align(people.learned(source.source_frames(token)), source.image(token), source.parsing(token))
        except NoHeadError:
            is_drawn, placed = False, source.placed_head(token)
            assert placed is not None
            made = placed
        for picture, pixels in zip(pictures, made, strict=True):
            with atomic_path(picture) as temporary:
                Image.fromarray(pixels).save(temporary, "PNG")
        write_json(note, {**about, "failed": not is_drawn, "pictures": [_sha(picture) for picture in pictures]})
        new, failed = new + 1, failed + (not is_drawn)
    say(f"{len(tokens)} heads are in {root / SWAPS}, {new} of them are new. Learn from them: model.aligned=0.5")
    if failed:
        say(f"No head came out of {failed} of the new ones: the true head stands in their place.")
    return {"folder": str(root), "heads": len(tokens), "new": new, "failed": failed}


def _sha(path: Path) -> str:
    """Of a picture's file; empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
