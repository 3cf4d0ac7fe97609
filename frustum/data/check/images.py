"""`frustum check` of images with label maps: files that training would stop at, what nothing is learned from, and class shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from frustum.data.check.findings import SEVERITIES, Finding
from frustum.data.images.labelled import LabelledImages
from frustum.errors import DataError
from frustum.types.classes import IGNORE

_UNLABELLED = "Nothing is learned from them, and a split that lacks some cannot be scored. Add their label maps, or remove the images."


@dataclass(frozen=True)
class ImageFindings:
    """What a check of images found.

    Attributes:
        findings: worst first.
        shares: of the labelled pixels, by class.
        images: in how many images a class occurs.
        labelled: images with a sound label map.
    """

    findings: list[Finding]
    shares: dict[str, float]
    images: dict[str, int]
    labelled: int


def inspect_images(
    source: LabelledImages, tokens: Sequence[str], progress: Callable[[str, Sequence[str]], Iterable[str]] | None = None
) -> ImageFindings:
    """Decode images and label maps.

    Args:
        source: the data set.
        tokens: images to inspect.
        progress: wraps the loop over tokens, `progress(title, tokens)`.
    """
    names, labelled = source.class_names, 0
    findings: list[Finding] = []
    missing: list[str] = []
    if not tokens:
        findings.append(Finding("error", "", f"there is no image to check in {source.root}", "docs/data.md shows where they lie."))
    pixels, images = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for token in progress("checking", tokens) if progress else tokens:
        try:
            source.sample(token).open()
        except DataError as error:
            findings.append(Finding("error", token, str(error), "A list of the split names it, or the file is damaged: restore the image."))
            continue
        try:
            labels = source.labels(token)
        except DataError as error:
            findings.append(Finding("error", token, str(error), "Training and evaluation stop at it: replace the label map."))
            continue
        if labels is None:
            missing.append(token)
            continue
        labelled += 1
        counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[: len(names)]
        pixels, images = pixels + counts, images + (counts > 0)
        if not counts.any():
            what = f"no pixel of {source.label_file(token)} counts: all have an id that is ignored"
            findings.append(Finding("warning", token, what, "Nothing is learned from it, and it is not scored. Is it the right file?"))
    findings += _unlabelled(source, tokens, missing)
    if labelled and (absent := [name for name, count in zip(names, images, strict=True) if not count]):
        what = f"{len(absent)} of {len(names)} classes do not occur in the {labelled} label maps: {', '.join(absent)}"
        findings.append(Finding("note", "", what, "Check all images with --samples 0; a class that is in none cannot be learned."))
    findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    shares = pixels / max(1, int(pixels.sum()))
    return ImageFindings(findings, dict(zip(names, shares.tolist(), strict=True)), dict(zip(names, images.tolist(), strict=True)), labelled)


def _unlabelled(source: LabelledImages, tokens: Sequence[str], missing: Sequence[str]) -> list[Finding]:
    """One finding per split that lacks label maps: a note where it has none at all, as the test splits of public sets."""
    found, lacking, checked = [], set(missing), set(tokens)
    for split in source.splits():
        members = [token for token in source.tokens(split) if token in checked]
        some = [token for token in members if token in lacking]
        if some and len(some) == len(members):
            what, hint = f"none of the {len(some)} images of the split {split} has a label map", "They can be predicted, and no more."
            found.append(Finding("note", "", what, hint))
        elif some:
            what = f"{len(some)} of {len(members)} images of the split {split} have no label map, {some[0]} first"
            found.append(Finding("warning", "", what, _UNLABELLED))
    return found
