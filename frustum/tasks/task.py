"""A scored question: the truth of a sample, figures, baselines, files of predictions, and what can be drawn of them (docs/metrics.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.errors import ConfigError, DataError
from frustum.files import atomic_path
from frustum.geometry import VoxelGrid
from frustum.npz import open_npz
from frustum.types.layers import Layer, Legend
from frustum.types.predictions import Prediction
from frustum.types.table import percent

if TYPE_CHECKING:
    from typing_extensions import Self

Progress = Callable[[str, Sequence[str]], Iterable[str]]
"""Yields the samples it is given behind a progress bar with a title."""


def silent(title: str, tokens: Sequence[str]) -> Iterable[str]:
    """A `Progress` that shows nothing."""
    return tokens


class Figure(NamedTuple):
    """One number of an evaluation. Tables, comparisons and reports show these fields.

    Attributes:
        key: unique within its task.
        name: as it is printed.
        value: None where nothing was counted.
        unit: "%" for a ratio 0..1 that is printed as percent; else what the value is in.
        counted: on which voxels, pixels or boxes.
        convention: which of several definitions in use.
        published_as: what authors call this figure under this convention, or empty.
        meaning: a sentence for readers who do not know it.
        group: heading under which comparisons and reports show it; empty for figures that only the full table has.
        is_headline: whether it is one of the few that sum a result up.
        higher_is_better: what "best" means.
    """

    key: str
    name: str
    value: float | None
    unit: str = "%"
    counted: str = ""
    convention: str = ""
    published_as: str = ""
    meaning: str = ""
    group: str = ""
    is_headline: bool = False
    higher_is_better: bool = True

    def text(self, digits: int = 2) -> str:
        """The value for readers: percent without a sign, or a number with its unit; `-` where there is none."""
        if self.unit == "%" or self.value is None:
            return percent(self.value, digits)
        return f"{self.value:.4f} ({self.unit})" if " " in self.unit else f"{self.value:.4f} {self.unit}"


def titles(figures: Sequence[Figure]) -> list[str]:
    """A name for each figure; what it is counted on is added where several share one name."""
    known = Counter(figure.name for figure in figures)
    return [f.name if known[f.name] == 1 or not f.counted else f"{f.name}, {f.counted}" for f in figures]


class ClassFigures(NamedTuple):
    """Figures of every class.

    Attributes:
        title: what they are.
        legend: the classes in their order.
        columns: by heading, the figure of each class, a ratio 0..1 or None. The first is the main one.
        means: by heading, the mean over the classes.
        units: by heading, of columns that are not ratios: "count", "m", ...
        published: the authors' figures by class, ratios, or None.
        share: share of each class in what was evaluated, or None.
    """

    title: str
    legend: Legend
    columns: Mapping[str, Mapping[str, float | None]]
    means: Mapping[str, float | None] = {}
    units: Mapping[str, str] = {}
    published: Mapping[str, float] | None = None
    share: Mapping[str, float] | None = None


class Predictor(ABC):
    """Predicts samples without their images: a baseline, or predictions in files.

    Attributes:
        name: in reports.
        note: what it is, in a sentence.
        tokens: the samples that its files hold; empty for a baseline, which knows all.
        about: what its files say of themselves, JSON values.
    """

    name: str
    note: str = ""
    tokens: Sequence[str] = ()
    about: Mapping[str, Any] = {}

    @abstractmethod
    def answer(self, token: str) -> Prediction:
        """The prediction for a sample. Raises DataError where there is none."""

    def ordered(self, tokens: Sequence[str], split: str) -> list[str]:
        """The samples of a split in the order in which equal scores are ranked. Raises DataError unless all can be predicted."""
        there = set(self.tokens)
        if missing := [token for token in tokens if there and token not in there]:
            raise DataError(
                f"{self.name} lacks {len(missing)} of the {len(tokens)} samples to be scored, {', '.join(missing[:3])} first. It holds "
                f"{len(there)}, {self.tokens[0]} first. Predict all of the split, or score another with --split."
            )
        return list(tokens)


class PredictedFiles(Predictor):
    """What `frustum predict` wrote for one question (`Task.save`).

    Attributes:
        tokens: samples that have a file.
    """

    def __init__(self, folder: Path, task: type[Task]):
        self.name, self._folder, self._task = folder.name, folder, task
        self.tokens = predicted(folder, task)

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample. Raises DataError for a file that is damaged or belongs to another sample."""
        path = self._task.path(self._folder, token)
        written, part = self._task.read(path)
        if written != token:
            raise DataError(f"{path} holds the prediction of {written}. Rename it, or predict again.")
        return Prediction(token, **{self._task.part: part})


class Together(Predictor):
    """Predictors that answer different questions about the same samples."""

    def __init__(self, predictors: Sequence[Predictor]):
        self._predictors, self.name = predictors, predictors[0].name
        self.tokens = sorted({token for predictor in predictors for token in predictor.tokens})

    def answer(self, token: str) -> Prediction:
        """The parts of all."""
        answers = [vars(predictor.answer(token)) for predictor in self._predictors]
        return Prediction(**{name: value for answer in answers for name, value in answer.items() if value is not None})

    def ordered(self, tokens: Sequence[str], split: str) -> list[str]:
        """See `Predictor.ordered`."""
        for predictor in self._predictors:
            tokens = predictor.ordered(tokens, split)
        return list(tokens)


def predicted(folder: Path, task: type[Task]) -> list[str]:
    """Samples of which a folder holds the file that a task writes, by name; a name may be PERSON/CLIP/FRAME."""
    ending = task.path(folder, "").name
    files = [path for depth in ("", "*/*/") for path in folder.glob(f"{depth}*{ending}")] if folder.is_dir() else ()
    return sorted(path.relative_to(folder).as_posix().removesuffix(ending) for path in files if not path.name.startswith("."))


class Submission(ABC):
    """Writes predictions in the form of a public challenge into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder

    @abstractmethod
    def add(self, token: str, part: Any, sample: Any) -> None:
        """Take the prediction of one sample. Raises DataError where the challenge does not allow it."""

    def finish(self) -> None:  # noqa: B027 (a writer may write each sample at once)
        """Call this when all samples were added."""


class Task(ABC):
    """One scored question; an instance accumulates one evaluation. It holds counts and no open data set, so that it can be sent to
    another process.

    Args:
        order: all samples of the evaluation; what is ranked by score takes equal scores in this order.
        slow: whether to compute figures that take much longer than the others, where a task has some.

    Attributes:
        name: of the question.
        part: the attribute of `Prediction` that answers it.
        protocol: what the entries of `compute` are, for the JSON file.
        nothing_found: what is said of a prediction that `is_empty`, without a full stop.
        accepts: which files of others `recognise` takes, in words; empty for none.
        submission: the class that writes challenge files; None for a question without a challenge.
    """

    name: ClassVar[str]
    part: ClassVar[str]
    protocol: ClassVar[Mapping[str, str]]
    nothing_found: ClassVar[str] = ""
    accepts: ClassVar[str] = ""
    submission: ClassVar[type[Submission] | None] = None

    def __init__(self, order: Sequence[str] = (), slow: bool = True):
        self.order, self.slow = tuple(order), slow

    @abstractmethod
    def truth(self, source: Any, token: str) -> Any:
        """What a sample's prediction is compared with. Raises DataError where the data set does not have it."""

    @abstractmethod
    def add(self, token: str, part: Any, truth: Any) -> None:
        """Score one sample. Raises DataError or ShapeError where prediction and truth do not fit."""

    def require_alike(self, other: Self, *attributes: str) -> None:
        """Raise ConfigError unless two processes scored the same classes, grids, and so on."""
        for name in attributes:
            if (first := getattr(self, name)) != (second := getattr(other, name)):
                raise ConfigError(f"cannot merge evaluations of other {name}: {first} and {second}. Evaluate anew.")

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Add what another process counted; returns itself."""

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """All figures as JSON values; None where nothing was counted."""

    @classmethod
    @abstractmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """The figures that `compute` gave; those of older evaluations may be fewer."""

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures | None:
        """The figures of every class, where there are some."""
        return None

    @classmethod
    def notes(cls, metrics: Mapping[str, Any]) -> list[str]:
        """What a reader must know to read the figures, in sentences."""
        return []

    @classmethod
    def is_empty(cls, part: Any) -> bool:
        """Whether a prediction finds nothing where something always is, so that people are told."""
        return False

    def baselines(self, source: Any, split: str, progress: Progress = silent) -> list[Predictor]:
        """Baselines without images, learned from the labels of a training split, for what was scored here."""
        return []

    @classmethod
    def recognise(cls, path: Path) -> Predictor | None:
        """The predictions in a file or folder, if it is of a kind that this task knows: at least what `save` wrote.

        Raises:
            DataError: for a damaged one.
        """
        return PredictedFiles(path, cls) if predicted(path, cls) else None

    @classmethod
    @abstractmethod
    def layers(cls, part: Any) -> list[Layer]:
        """What can be drawn of a prediction."""

    @classmethod
    @abstractmethod
    def truth_layers(cls, truth: Any, part: Any = None) -> list[Layer]:
        """What can be drawn of the truth, in the colours of the prediction `part` if there is one."""

    # ---- files of `frustum predict` ---------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def arrays(cls, part: Any) -> dict[str, np.ndarray]:
        """The prediction as named arrays, for a file."""

    @classmethod
    @abstractmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> Any:
        """The inverse of `arrays`."""

    @classmethod
    def path(cls, folder: Path, token: str) -> Path:
        """Where the prediction of a sample lies."""
        return folder / f"{token}.{cls.part}.npz"

    @classmethod
    def save(cls, part: Any, folder: Path, token: str, scene: str = "") -> Path:
        """Write the prediction of a sample, atomically: `arrays`, and the names `token` and `scene`. Raises DataError."""
        path = cls.path(folder, token)
        with atomic_path(path, ".npz") as temporary:
            np.savez_compressed(temporary, **cls.arrays(part), token=np.array(token), scene=np.array(scene))  # type: ignore[arg-type]
        return path

    @classmethod
    def load(cls, path: Path | str) -> Any:
        """The prediction that `save` wrote. Raises DataError when the file is missing or damaged."""
        return cls.read(path)[1]

    @classmethod
    def read(cls, path: Path | str) -> tuple[str, Any]:
        """The token and the prediction that `save` wrote. Raises DataError when the file is missing or damaged."""
        try:
            with open_npz(path) as stored:
                return str(stored["token"]), cls.restored(stored)
        except Exception as error:  # zipfile, zlib, KeyError, ValueError: whatever a damaged file leads to
            raise DataError(f"{path} is not a prediction of `frustum predict`, or it is damaged: {error}.") from error


def grid_from(stored: Mapping[str, np.ndarray]) -> VoxelGrid:
    """The grid of a stored prediction: `lower`, `upper` and `cell`, (3,) in metres."""
    return VoxelGrid.model_validate({name: stored[name].tolist() for name in VoxelGrid.model_fields})


def names_from(stored: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The classes of a stored prediction, `class_names`. Raises ValueError for what is no list of texts."""
    if stored["class_names"].ndim != 1 or stored["class_names"].dtype.kind != "U":
        raise ValueError(f"class_names is {stored['class_names'].dtype} of shape {stored['class_names'].shape}, not a list of texts")
    return tuple(stored["class_names"].tolist())


def tensor_from(stored: Mapping[str, np.ndarray], name: str, kinds: str, *shape: int | None) -> Tensor:
    """An array of a stored prediction whose type is of one of the kinds of numpy (`f`, `iu`, ...), and whose shape is this one.

    None stands for any size. Raises ValueError for another one.
    """
    array = stored[name]
    is_such = array.ndim == len(shape) and all(need in (None, size) for need, size in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in kinds or not is_such:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, where {shape} is needed")
    return torch.from_numpy(array)


def require_names(token: str, given: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Raise DataError unless a prediction has the classes of the labels, or of the predictions that came first."""
    if given != expected:
        names, others = ", ".join(given), ", ".join(expected)
        raise DataError(f"the prediction of {token} has the classes {names}, but {others} are evaluated.")


def without_nan(value: Any) -> Any:
    """NaN is not JSON: None instead."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and value != value else value
