"""Check a data set: print the findings and draw pictures. Images with label maps: `cli.checking_images`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.markup import escape

from frustum.cli.checking_cameras import check_framing
from frustum.cli.checking_images import check_images
from frustum.cli.common import say
from frustum.cli.folders import require_own_files
from frustum.cli.resolve import resolve_recipe
from frustum.data.check.findings import SEVERITIES, Finding, by_kind
from frustum.data.check.inspection import inspect
from frustum.data.framing import Framing
from frustum.data.images.labelled import LabelledImages
from frustum.data.labels.view_points import ImagePoints, Views, view_points
from frustum.data.opening import opened
from frustum.data.sample import Sample
from frustum.data.source import RigSource, spread
from frustum.engine.progress import loop_progress
from frustum.errors import DataError, OutputError
from frustum.files import make_folder
from frustum.locks import sole_owner
from frustum.recipes.finding import CHECKED
from frustum.viewer.overlay import draw_check

COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}
DRAWN = {"points": "LiDAR points", "classes": "2D labels", "ground": "ground", "stitched": "stitched ground", "voxels": "voxels"}  # by kind
SHOWN = 12  # kinds of findings of one severity that are printed; --json has all findings


def check_data(
    root: Path, version: str | None, split: str, samples: int, pictures: int, out: Path, augment: str | None, recipe: str = CHECKED
) -> dict[str, Any]:
    """What `frustum check` does.

    Args:
        root: a data set, a folder of images with label maps, or a rig folder, which is imported into a temporary data set first.
        split: split or scene; `samples` keyframes of it are inspected (0: all), `pictures` of those are drawn into `out`.
        augment: name of the recipe whose training augmentation is drawn; None draws the images as they are.
        recipe: name of the one for which it is said what a network reads of each image.

    Returns:
        JSON values: number of errors, warnings and notes, the findings, the pictures, and what is read of the images (`framing`).

    Raises:
        DataError: no data set there, or `out` cannot be written to or holds pictures of other data. OutputError: another process works in
            `out`.
    """
    with sole_owner(out, "frustum check") if pictures else nullcontext(), opened(root, version) as database:
        if pictures:
            require_own_files(out, database, root)
        tokens = list(database.tokens(split))
        if samples:
            tokens = spread(tokens, samples)
        drawn: set[str] = set()
        framed: list[Framing] = []
        if isinstance(database, LabelledImages):
            findings, files = check_images(database, tokens, pictures, out, augment)
            print_findings(findings, len(tokens), "images")
            drawn = {"label maps"}
        else:
            findings = inspect(database, tokens, progress=loop_progress)
            unseen, framed = check_framing(database, tokens, recipe)
            findings = sorted([*findings, *unseen], key=lambda f: SEVERITIES.index(f.severity))
            print_findings(findings, len(tokens), where=lambda token: _name(database, token), is_measured=_has_lidar(database, tokens))
            files, drawn = draw_pictures(database, spread(tokens, pictures), out, augment) if pictures else ([], set())
    if files:
        say(f"{len(files)} pictures are in {out}: {what_to_look_for(drawn)}")
    counts = {f"{severity}s": sum(f.severity == severity for f in findings) for severity in SEVERITIES}
    found = {"keyframes": len(tokens), "findings": [vars(f) for f in findings], "pictures": [str(f) for f in files]}
    return counts | found | {"framing": [vars(f) for f in framed]}


def print_findings(
    findings: list[Finding], checked: int, unit: str = "keyframes", where: Callable[[str], str] = str, is_measured: bool = True
) -> None:
    """One line per kind of finding, the worst first: the first of them, how many there are, and what to do about it.

    Args:
        findings: of any kind, the worst first.
        checked, unit: how many keyframes or images were looked at.
        where: the name of a sample from its token.
        is_measured: whether LiDAR points show where cameras look; without them only pictures do.
    """
    for severity in SEVERITIES:
        kinds = by_kind(f for f in findings if f.severity == severity)
        for first, *others in kinds[:SHOWN]:
            place = f"{where(first.sample)}: " if first.sample else ""
            more = f"; and {len(others)} more like this (--json has all)" if others else ""
            say(f"[{COLOURS[severity]}]{severity:8}[/]" + escape(f"{place}{first.what}{more}\n{'':8}-> {first.hint}"), markup=True)
        if len(kinds) > SHOWN:
            say(f"{'':8}... and {len(kinds) - SHOWN} more kinds of {severity}s (--json has all of them)")
    bad = sum(f.severity != "note" for f in findings)
    sound = "nothing is wrong." if is_measured else "nothing that numbers show is wrong."
    say(f"{checked} {unit} checked: " + (f"{bad} {'error or warning' if bad == 1 else 'errors and warnings'}." if bad else sound))
    if not is_measured:
        say("There is no LiDAR to compare with: a camera that is turned, moved or exchanged shows in *_stitched.png alone (--pictures).")


def what_to_look_for(drawn: Collection[str]) -> str:
    """One sentence about what the pictures must show."""
    marks = [name for name in ("LiDAR points", "2D labels", "label maps", "boxes", "voxels") if name in drawn]
    named = " and ".join(filter(None, [", ".join(marks[:-1]), *marks[-1:]]))
    parts = [f"{named} must lie on what they belong to"] if marks else []
    if "ground" in drawn:
        parts.append("without LiDAR, the grid must lie on the road, the line on the horizon, and the x axis straight ahead of the vehicle")
    if "stitched ground" in drawn:
        faults = "docs/your_own_cameras.md shows it right and with three faults"
        parts.append(f"in *_stitched.png kerbs and lane marks must run on from camera to camera ({faults})")
    return "; ".join(parts) + "."


def draw_pictures(database: RigSource, tokens: list[str], out: Path, augment: str | None) -> tuple[list[Path], set[str]]:
    """Draw keyframes into `out`; with `augment`, also after the augmentation of its training. Damaged ones are left out.

    Returns the files, and what is drawn in them, in the words of `what_to_look_for`.
    """
    options: dict[str, Any] = {}
    files: list[Path] = []
    drawn: set[str] = set()
    if augment is not None:
        recipe = resolve_recipe(augment)
        red, green, blue = recipe.data.mean if recipe.data.channel_order == "rgb" else recipe.data.mean[::-1]
        blank = (round(red), round(green), round(blue))
        options = {"augment": recipe.augment, "image_size": recipe.data.image_size, "blank": blank}
    make_folder(out)
    for number, token in enumerate(loop_progress("drawing", tokens)):
        try:
            sample = database.sample(token)
            made = draw_check(sample, out, seed=number, labels=_labels_2d(database, sample), **options)
        except OutputError:
            raise
        except DataError as error:
            say(f"keyframe {_name(database, token)} is not drawn: {error}")
            continue
        files += made
        drawn |= {DRAWN[kind] for kind in (file.stem.rpartition("_")[2] for file in made) if kind in DRAWN}
        if sample.boxes is not None and len(sample.boxes):
            drawn.add("boxes")
    return files, drawn


def _labels_2d(database: Any, sample: Sample) -> list[ImagePoints] | None:
    """Labelled points of each image; None without classes of LiDAR points, or where these are damaged."""
    if sample.lidar is None or not getattr(database, "has_point_labels", lambda _: False)(sample.token):
        return None
    try:
        return view_points(database, sample, Views())
    except DataError as error:
        say(f"2D labels of keyframe {sample.name} are not drawn: {error}")
        return None


def _has_lidar(database: RigSource, tokens: list[str]) -> bool:
    """Whether any of these keyframes has a LiDAR, or none can be read."""
    for token in tokens:
        try:
            if database.sample(token, with_boxes=False, occupancy=False).lidar is not None:
                return True
        except DataError:
            return True
    return not tokens


def _name(database: RigSource, token: str) -> str:
    """Scene and time of a keyframe; the token of one that cannot be read."""
    try:
        return database.sample(token, with_boxes=False, occupancy=False).name
    except DataError:
        return token
