"""What a report shows. Every part may be missing; the report leaves its section out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from frustum.types.layers import Calibration, Layer

if TYPE_CHECKING:
    from frustum.tasks.task import ClassFigures, Figure


class Question(NamedTuple):
    """One question about a sample: what was predicted, and what is true where it is known.

    Layers of one kind are shown in pairs: the first of the prediction with the first of the truth, and so on.
    """

    heading: str
    prediction: Sequence[Layer] = ()
    truth: Sequence[Layer] = ()


@dataclass(frozen=True)
class SamplePanel:
    """One sample to draw.

    Attributes:
        title: short name.
        images: (name, (H, W, 3) uint8) per camera.
        questions: what was predicted, shown one below the other.
        cameras: one per image; boxes are drawn into the images where they are given.
    """

    title: str
    images: Sequence[tuple[str, np.ndarray]] = ()
    questions: Sequence[Question] = ()
    cameras: Sequence[Calibration] = ()


class Result(NamedTuple):
    """How one predictor answered one question: all figures, and those of each class."""

    figures: Sequence[Figure] = ()
    classes: ClassFigures | None = None


@dataclass(frozen=True)
class ReportData:
    """All parts of a report.

    Attributes:
        title: headline.
        results: by name of the predictor, then by name of the question; the first predictor is the trained model.
        about: a sentence on a predictor, by its name.
        notes: sentences on how all figures were counted.
        panels: samples in the order shown.
        losses: lines of metrics.jsonl: `step`, `loss`, `losses` by name, `lr`, ...
        recipe: the resolved recipe as JSON text.
        facts: what to know about the run, in order: name -> value.
        picture_size: (height, width) of the 3D views in pixels.
    """

    title: str
    results: Mapping[str, Mapping[str, Result]] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    panels: Sequence[SamplePanel] = ()
    losses: Sequence[Mapping[str, Any]] = ()
    recipe: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    picture_size: tuple[int, int] = (520, 760)
