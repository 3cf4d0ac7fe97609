"""Distillation: a network also learns to imitate outputs of a trained one, its teacher (`distill.teacher=RUN`, docs/methods/cwd.md).

The student is trained inside `Distilled`, which runs the teacher on the same augmented input, and holds the adapters that bring the
student's channels to the teacher's number. The weights of a run are the student's alone; its snapshots hold the adapters, too. The teacher
is no part of either: it is not trained, not averaged, not saved.

Shape letters: B batch, C channels, K classes, X Y Z voxels, * spatial dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from frustum.checkpoint.weights_file import digest
from frustum.config import travelling
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.labels.pixels import PixelLabels
from frustum.data.source import Source, labelled, spread
from frustum.engine.feed import build_pipeline
from frustum.engine.recipe import DistillConfig, Recipe
from frustum.engine.runtime import place
from frustum.engine.trained import open_trained
from frustum.errors import CheckpointError, ConfigError, FrustumError, nearest_names
from frustum.losses import dense_distillation as losses
from frustum.nn.adapters import Adapter, to_same_size
from frustum.types.batch import Batch, ImageScale
from frustum.types.contract import ModelConfig, Reads

Outputs = Mapping[str, Tensor]
VOXELS = "occ_logits"
"""The output (B, X, Y, Z, K) whose classes come last; all others are (B, C, *), except what a network names in `not_maps`."""


class Usual(NamedTuple):
    """What a loss is used with where nothing else is said: weights for class logits and for features, and the temperature."""

    logits: float
    features: float
    tau: float = 1.0


USUAL = {
    "cwd": Usual(3, 50, 4.0),  # published for logits; for features as in CIRKD
    "kd": Usual(1, 1, 4.0),  # of a mean over positions; ours, as references divide otherwise
    "pixel": Usual(1, 1),  # ours
    "pair": Usual(1, 1),  # SKD
    "at": Usual(10_000, 10_000),  # CIRKD
    "ifvd": Usual(200, 200),  # the authors' default
    "pkd": Usual(1, 1),  # ours
    "dist": Usual(1, 1),  # the authors' default
}
OF_IMAGES = ("image_features", "depth", "depth_logits", "matching", "pixel_logits")
"""Outputs over the image where others of the network are over the ground."""
OF_CLASSES, ANY_CHANNELS, WITH_MASK = ("kd", "dist"), ("pair", "at", "ifvd"), ("cwd", "kd", "pixel")


class Term(NamedTuple):
    """One loss between two outputs.

    Attributes:
        student, teacher: names of the outputs.
        loss: which.
        weight, tau: factor, and temperature of those that have one.
    """

    student: str
    teacher: str
    loss: str
    weight: float
    tau: float

    @property
    def name(self) -> str:
        """In the log: `cwd_bev`. Without the dots that names of modules may not have."""
        return f"{self.loss}_{self.student}".replace(".", "_")

    def __str__(self) -> str:
        of = self.student if self.student == self.teacher else f"{self.student} to {self.teacher}"
        heat = f", tau {self.tau:g}" if USUAL[self.loss].tau != 1 or self.tau != 1 else ""
        return f"{self.loss} of {of} (weight {self.weight:g}{heat})"


def terms_of(config: DistillConfig) -> list[Term]:
    """The losses that the settings ask for.

    Raises:
        ConfigError: a list that is neither one long nor as long as `at`, a loss that is asked for twice, or one that does not fit.
    """
    if not config.at:
        return []
    count = len(config.at)
    lists: dict[str, list[Any]] = {}
    for name in ("loss", "weight", "tau"):
        given = getattr(config, name)
        if len(given) not in (0, 1, count):
            raise ConfigError(f"distill.{name} has {len(given)} entries, distill.at {count}: give one for all outputs, or one for each.")
        lists[name] = list(given) * (count if len(given) < 2 else 1) or [None] * count
    terms = []
    for place_, loss, weight, tau in zip(config.at, lists["loss"], lists["weight"], lists["tau"], strict=True):
        student, _, teacher = place_.partition(":")
        usual = USUAL[loss]
        if tau is not None and loss not in ("cwd", "kd", "dist"):
            raise ConfigError(f"distill.tau is of cwd, kd and dist: {loss} has no temperature. Leave it out.")
        if loss in OF_CLASSES and not student.endswith("logits"):
            raise ConfigError(f"{loss} compares probabilities of classes, which {student} does not have. Take cwd, pkd, at or pixel there.")
        if config.visible and (student != VOXELS or loss not in WITH_MASK):
            raise ConfigError(f"distill.visible is of {VOXELS} with {', '.join(WITH_MASK)}, not of {student} with {loss}. Leave it out.")
        found = weight if weight is not None else usual.logits if student.endswith("logits") else usual.features
        terms.append(Term(student, teacher or student, loss, found, tau if tau is not None else usual.tau))
    names = [term.name for term in terms]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"distill.at and distill.loss ask for {', '.join(sorted(twice))} twice. Name each once.")
    return terms


class Teacher:
    """A trained network in evaluation mode. It is no module, so that nothing trains, averages, copies or saves it.

    Attributes:
        recipe: that it was trained by.
        network: on its device.
        what: the file, for messages.
    """

    def __init__(self, path: str, code: Collection[str] = ()):
        if not path:
            raise ConfigError("distillation needs a teacher: name a finished run or a weights file, distill.teacher=runs/large.")
        try:
            self.recipe, self.network = open_trained(path, code)
        except CheckpointError as error:
            raise CheckpointError(f"the teacher {path} cannot be opened: {error} distill.teacher=FOLDER says where it is now.") from error
        self.network.requires_grad_(False)
        self.what, data = path, self.recipe.data
        self._scale = ImageScale(data.mean, data.std, data.channel_order)
        self._frames = 1 + self.recipe.model.reads().past

    def __deepcopy__(self, memo: Any) -> Teacher:
        return self  # an average of the student is made of a copy

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the images that the student sees, normalised as the teacher knows them."""
        return self.network(batch.scaled_as(self._scale).newest(self._frames))

    def reads_with(self, student: ModelConfig) -> Reads:
        """What must be read so that both networks find what they read. Raises ConfigError where that cannot be one batch."""
        own, theirs = student.reads(), self.recipe.model.reads()
        if own.sweeps != theirs.sweeps:
            raise ConfigError(
                f"the student reads {_moments(own)}, but the teacher {self.what} reads {_moments(theirs)}: they cannot share their input."
            )
        known: dict[type, Any] = {type(label): label for label in (*student.learns_from(), *own.labels)}
        for label in theirs.labels:
            if known.get(type(label), label) != label:
                forms = f"{label} and {known[type(label)]}"
                raise ConfigError(f"the teacher {self.what} reads {label.what} in another form than the student: {forms}.")
        labels = {type(label): label for label in (*own.labels, *theirs.labels)}
        return replace(own, past=max(own.past, theirs.past), labels=tuple(labels.values()))

    def notes(self, recipe: Recipe) -> list[str]:
        """What about the student's input is new to the teacher, in sentences. Raises ConfigError where it cannot work with it."""
        ours, theirs = recipe.data, self.recipe.data
        if ours.has_rigs != theirs.has_rigs:
            kinds = "rigs of cameras", "single images"
            first, second = kinds if theirs.has_rigs else kinds[::-1]
            raise ConfigError(
                f"the teacher {self.what} ({self.recipe.name}) works on {first}, the student ({recipe.name}) on {second}. "
                "Take a teacher of the same kind."
            )
        multiple = self.recipe.model.image_multiple
        if any(side % multiple for side in ours.image_size):
            raise ConfigError(
                f"the teacher {self.what} needs images whose sides are multiples of {multiple}, but data.image_size is "
                f"{ours.image_size[0]},{ours.image_size[1]}. Train the student on a size that fits both."
            )
        handled = {"data.channel_order", "data.mean", "data.std"}
        now = travelling(recipe)
        other = {key: value for key, value in travelling(self.recipe).items() if key not in handled and now.get(key, value) != value}
        said = [f"{key} was {value}, now {now[key]}" for key, value in other.items() if not key.startswith("model.")]
        meant = [f"{key} is {value}, here {now[key]}" for key, value in other.items() if key.startswith("model.")]
        notes = [f"the teacher gets another input than it was trained with: {'; '.join(said)}"] if said else []
        return notes + ([f"the teacher works by other rules than the student: {'; '.join(meant)}"] if meant else [])


def _moments(reads: Reads) -> str:
    return "a moment between keyframes" if reads.sweeps else "keyframes alone"


@dataclass(frozen=True)
class Comparison:
    """How the outputs of both networks become maps, and what the losses need beside them.

    Attributes:
        config: the settings.
        labels: by the name of an output, the kind of label that knows the class of each position, and how many classes there are.
    """

    config: DistillConfig
    labels: Mapping[str, tuple[type, int]]

    def maps(self, output: Tensor, name: str) -> Tensor:
        """An output as (B, C, *)."""
        return losses.voxel_maps(output, reading=self.config.voxels)[0] if name == VOXELS else output

    def value(self, term: Term, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of two maps of one size, without its weight."""
        mask = None
        if self.config.visible:
            seen = batch.need(OccupancyLabels).mask_camera
            mask = losses.voxel_maps(seen[..., None], seen, self.config.voxels)[1]
        if term.loss == "ifvd":
            kind, count = self.labels[term.student]
            return losses.ifvd_loss(student, teacher, self._ids(batch, kind), count)
        return _LOSSES[term.loss](student, teacher, term.tau, mask)

    def _ids(self, batch: Batch, kind: type) -> Tensor:
        found: Any = batch.need(kind)
        if kind is not OccupancyLabels:
            return found
        return losses.voxel_maps(found.semantics[..., None], reading=self.config.voxels)[0][:, 0]


_LOSSES: dict[str, Callable[[Tensor, Tensor, float, Tensor | None], Tensor]] = {
    "cwd": losses.cwd_loss,
    "kd": losses.kd_loss,
    "pixel": lambda s, t, tau, mask: losses.pixel_loss(s, t, mask),
    "pair": lambda s, t, tau, mask: losses.pair_loss(s, t),
    "at": lambda s, t, tau, mask: losses.at_loss(s, t),
    "pkd": lambda s, t, tau, mask: losses.pkd_loss(s, t),
    "dist": lambda s, t, tau, mask: losses.dist_loss(s, t, tau),
}


class Distilled(nn.Module):
    """A student in training, beside its teacher: `forward` and `loss` are the student's with what is compared added.

    Args:
        student: the network that is trained.
        teacher: what it imitates.
        terms: the losses.
        adapters: by the name of a term, what brings the student's channels to the teacher's number.
        comparison: how outputs become maps.
        frames: how many the student reads.
    """

    def __init__(
        self, student: nn.Module, teacher: Teacher, terms: Sequence[Term], adapters: nn.ModuleDict, comparison: Comparison, frames: int
    ):
        super().__init__()
        self.student, self.adapters = student, adapters
        self.teacher, self.terms, self.comparison, self.frames = teacher, tuple(terms), comparison, frames

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs of the student, and for each term `cwd_bev/student` and `cwd_bev/teacher`, maps (B, C, *) of one size."""
        outputs, seen = self.student(batch.newest(self.frames)), self.teacher(batch)
        found: dict[str, Tensor] = dict(outputs)
        for term in self.terms:
            ours, theirs = self.comparison.maps(outputs[term.student], term.student), self.comparison.maps(seen[term.teacher], term.teacher)
            ours, theirs = to_same_size(self.adapters[term.name](ours), theirs)
            found |= {f"{term.name}/student": ours, f"{term.name}/teacher": theirs}
        return found

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The student's losses, and each term times its weight."""
        own = {name: value for name, value in outputs.items() if "/" not in name}
        return self.student.loss(own, batch.newest(self.frames)) | {  # type: ignore[operator]
            term.name: term.weight * self.comparison.value(term, outputs[f"{term.name}/student"], outputs[f"{term.name}/teacher"], batch)
            for term in self.terms
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The student's, and `adapters`."""
        groups = self.student.parameter_groups() if hasattr(self.student, "parameter_groups") else {}  # type: ignore[operator]
        return groups | {"adapters": list(self.adapters.parameters())}


def teacher_of(recipe: Recipe, out: Path | None = None, code: Collection[str] = ()) -> Teacher | None:
    """The teacher that a recipe names; None without distillation. `code` names modules whose classes it may import.

    Raises:
        ConfigError: none is named, or a run in the folder `out` would be written over it; and as `open_trained`.
        CheckpointError: as `open_trained`.
    """
    if recipe.distill is None:
        return None
    teacher = recipe.distill.teacher
    path, folder = Path(teacher).resolve(), None if out is None else out.resolve()
    if teacher and folder is not None and (path == folder or (path.is_file() and folder in path.parents)):
        raise ConfigError(f"this run would be written to {out}, over its own teacher {teacher}: give another --out FOLDER.")
    return Teacher(teacher, code)


def require_same_teacher(taught: Mapping[str, Any], now: Sequence[str]) -> None:
    """Raise ConfigError if a run that is resumed was `taught_with` another teacher than is `described` now, by its weights; where these lie
    does not matter."""
    old, new = (", ".join(text.partition(": ")[0] for text in texts) for texts in (taught.get("distilled", []), now))
    if old and old != new:
        raise ConfigError(
            f"this run learned from {old}, and distill.teacher is now {new}. Put the old weights back, or start again with --fresh or "
            "another --out FOLDER."
        )


def student_of(network: nn.Module) -> nn.Module:
    """The network without what it was trained beside."""
    return network.student if isinstance(network, Distilled) else network


def with_teacher(
    recipe: Recipe, student: nn.Module, teacher: Teacher, source: Source, device: torch.device, is_new: bool = True
) -> tuple[Distilled, list[str]]:
    """The student beside its teacher, ready to be trained, and sentences about what is compared.

    Both networks are tried on a batch of training samples; the student's state and the random numbers to come stay as they are.

    Args:
        recipe: of the student.
        student: on any device.
        teacher: is moved to `device`.
        source: the opened data set.
        device: that is trained on.
        is_new: whether the losses are tried, too: not ahead of a run that is resumed, whose state the student does not have yet.

    Raises:
        ConfigError: settings that do not fit, outputs that are missing or cannot be compared, or a loss that is zero or not finite.
    """
    config = recipe.distill or DistillConfig()
    terms, notes = terms_of(config), teacher.notes(recipe)
    if hasattr(student, "turns"):
        raise ConfigError(f"{type(student).__name__} is trained in turns, into which no teacher fits: take a network with one loss.")
    teacher.network = place(teacher.network, recipe.runtime.model_copy(update={"compile": False}), device)
    batch = _some_samples(recipe, source, teacher.reads_with(recipe.model)).to(device)
    frames = 1 + recipe.model.reads().past
    for network, name in ((student, "student"), (teacher.network, "teacher")):
        _show_all(network, [getattr(term, name) for term in terms], lambda n=network: _tried(n, recipe, teacher, batch, frames))  # type: ignore[misc]
    ours, theirs = _tried(student, recipe, teacher, batch, frames), _tried(teacher.network, recipe, teacher, batch, frames)
    if not terms:
        raise ConfigError(f"distill.at names no output. {_both(student, teacher, ours, theirs)}")
    _same_classes(recipe, teacher, terms)
    comparison = Comparison(config, {term.student: _labels_of(recipe, term) for term in terms if term.loss == "ifvd"})
    adapters, changed = _adapters(recipe, student, teacher, comparison, terms, ours, theirs)
    del ours, theirs  # as large as all that is compared
    found = Distilled(student, teacher, terms, adapters, comparison, frames)
    values = _checked(found, batch, device) if is_new else {}
    large = sum(p.numel() for p in teacher.network.parameters()) / 1e6
    about = ", ".join(f"{term}, now {values[term.name]:.4g}" if is_new else str(term) for term in terms)
    return found, [f"learning from {teacher.what}, too ({teacher.recipe.name}, {large:.2f} M parameters): {about}", *changed, *notes]


def described(recipe: Recipe, teacher: Teacher) -> list[str]:
    """What a student learned from its teacher, for the header of its weights; without paths."""
    origin = f"{teacher.recipe.name} (weights {digest(teacher.network)[:12]})"
    return [f"{origin}: {', '.join(map(str, terms_of(recipe.distill or DistillConfig())))}"]


# ---- parts ------------------------------------------------------------------------------------------------------------------


def _adapters(
    recipe: Recipe, student: nn.Module, teacher: Teacher, comparison: Comparison, terms: Sequence[Term], ours: Outputs, theirs: Outputs
) -> tuple[nn.ModuleDict, list[str]]:
    """An adapter for each term, by its name, and sentences about what is adapted and resized. Raises ConfigError for what cannot be."""
    adapters, notes = nn.ModuleDict(), []
    for term in terms:
        for network, outputs, name in ((student, ours, term.student), (teacher.network, theirs, term.teacher)):
            if name not in outputs or not _is_map(network, name, outputs[name]):
                raise ConfigError(f"{_why_not(network, name, outputs)} {_both(student, teacher, ours, theirs)}")
        s, t = comparison.maps(ours[term.student], term.student), comparison.maps(theirs[term.teacher], term.teacher)
        if s.dim() != t.dim() or len(s) != len(t):
            shapes = f"{tuple(ours[term.student].shape)} of the student and {tuple(theirs[term.teacher].shape)} of the teacher"
            raise ConfigError(f"{term}: the outputs {shapes} are not maps of the same things. {_both(student, teacher, ours, theirs)}")
        if term.student not in OF_IMAGES:
            _same_area(student, recipe, teacher, term)
        has_adapter = term.loss not in (*ANY_CHANNELS, *OF_CLASSES)
        with torch.random.fork_rng(devices=[]):  # the random numbers of the training stay those of the student alone
            adapters[term.name] = Adapter(s.shape[1], t.shape[1] if has_adapter else s.shape[1])
        if s.shape[2:] != t.shape[2:] or (has_adapter and s.shape[1] != t.shape[1]):
            size = f"{list(s.shape[2:])} resized to {list(t.shape[2:])}" if s.shape[2:] != t.shape[2:] else ""
            channels = f"{s.shape[1]} channels adapted to {t.shape[1]}" if has_adapter and s.shape[1] != t.shape[1] else ""
            notes += [f"{term.name}: the student's maps are {' and '.join(filter(None, (size, channels)))}"]
    return adapters, notes


def _some_samples(recipe: Recipe, source: Source, reads: Reads) -> Batch:
    """A batch as in training."""
    pipeline = build_pipeline(recipe, training=True, reads=reads)
    tokens = recipe.data.training_tokens(source, recipe.train.seed)
    tokens = spread(labelled(source, tokens) or tokens, recipe.train.batch_size)
    rng = np.random.default_rng(recipe.train.seed)
    return pipeline.collate([pipeline.apply(pipeline.load(source, token), rng) for token in tokens])


def _tried(network: nn.Module, recipe: Recipe, teacher: Teacher, batch: Batch, frames: int) -> dict[str, Tensor]:
    """Outputs of the teacher, or of a copy of the student in training, so that no statistics and no random numbers are used up."""
    if network is teacher.network:
        try:
            return teacher(batch)
        except FrustumError as error:
            raise ConfigError(f"the teacher {teacher.what} cannot read what {recipe.name} reads: {error}") from error
    with torch.random.fork_rng(devices=[batch.images.device] if batch.images.is_cuda else []), torch.no_grad():
        return copy.deepcopy(network).to(batch.images.device).train()(batch.newest(frames))


def _show_all(network: nn.Module, names: Sequence[str], run: Callable[[], Mapping[str, Tensor]]) -> None:
    """Have a network return all of its outputs, where one that is asked for is missing otherwise, or none is asked for yet."""
    if hasattr(network, "all_outputs") and not (names and set(names) <= run().keys()):
        network.all_outputs = True  # type: ignore[assignment]


def _is_map(network: nn.Module, name: str, output: Tensor) -> bool:
    return name.rpartition(".")[2] not in getattr(network, "not_maps", ()) and output.is_floating_point() and output.dim() in (4, 5)


def _why_not(network: nn.Module, name: str, outputs: Mapping[str, Tensor]) -> str:
    if name in outputs:
        return f"the output {name} of {type(network).__name__}, {tuple(outputs[name].shape)}, is not a map: no loss compares it."
    return f"{type(network).__name__} has no output {name!r}; {nearest_names(name, outputs)}"


def _both(student: nn.Module, teacher: Teacher, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    shown = (
        f"{who}: {', '.join(f'{name} {tuple(value.shape)}' for name, value in outputs.items() if _is_map(network, name, value)) or 'none'}"
        for who, network, outputs in (("student", student, ours), ("teacher", teacher.network, theirs))
    )
    return f"Outputs to compare: {'; '.join(shown)}. Name them in distill.at, STUDENT:TEACHER where the names differ."


def _same_classes(recipe: Recipe, teacher: Teacher, terms: Sequence[Term]) -> None:
    ours, theirs = (getattr(config, "class_names", None) for config in (recipe.model, teacher.recipe.model))
    named = [term for term in terms if term.student.endswith("logits")]
    if named and ours is not None and theirs is not None and tuple(ours) != tuple(theirs):
        raise ConfigError(
            f"{named[0]}: the teacher {teacher.what} has other classes, {', '.join(theirs)}, than the student, {', '.join(ours)}. "
            "Compare features, or take a teacher of the same classes."
        )


def _same_area(student: nn.Module, recipe: Recipe, teacher: Teacher, term: Term) -> None:
    """Raise ConfigError if maps over the ground, or voxels, cover other areas."""
    areas: list[np.ndarray] = []
    for network, config, name in ((student, recipe.model, term.student), (teacher.network, teacher.recipe.model, term.teacher)):
        grid = getattr(config, "grid", None) if name == VOXELS else getattr(network, "map_grid", getattr(config, "grid", None))
        sides = 3 if name == VOXELS else 2
        areas += [] if grid is None else [np.array([grid.lower[:sides], grid.upper[:sides]])]
    if len(areas) == 2 and (areas[0].shape != areas[1].shape or np.abs(areas[0] - areas[1]).max() > 1e-6):
        ours, theirs = (", ".join(f"{axis} {low:g} to {high:g} m" for axis, low, high in zip("xyz", *a, strict=False)) for a in areas)
        raise ConfigError(f"{term}: the student's map covers {ours}, the one of the teacher {teacher.what} {theirs}.")


def _labels_of(recipe: Recipe, term: Term) -> tuple[type, int]:
    wanted = OccupancyLabels if term.student == VOXELS else PixelLabels
    found = next((label for label in recipe.model.learns_from() if isinstance(label, wanted)), None)
    if found is None:
        raise ConfigError(f"ifvd needs the class of each position of {term.student}, which {recipe.name} does not learn. Take at or pkd.")
    return wanted, len(found.class_names)


def _checked(network: Distilled, batch: Batch, device: torch.device) -> dict[str, float]:
    """The terms of a batch. Raises ConfigError if one is zero or not finite, with the reason."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        tried = copy.deepcopy(network).to(device).train()
        outputs = tried(batch)
        values = {}
        for term in network.terms:
            s, t = outputs[f"{term.name}/student"], outputs[f"{term.name}/teacher"]
            try:
                values[term.name] = value = term.weight * float(network.comparison.value(term, s, t, batch))
            except FrustumError as error:
                raise ConfigError(f"{term}: {error}") from error
            if value == 0 or not np.isfinite(value) or _alike(s, t):
                raise ConfigError(f"{term} is {value:g} on the first samples: {_reason(network, s, t, batch)}.")
    return values


def _reason(network: Distilled, student: Tensor, teacher: Tensor, batch: Batch) -> str:
    for name, maps in (("teacher", teacher), ("student", student)):
        if not maps.isfinite().all():
            return f"the {name}'s output is not finite"
    if network.comparison.config.visible and not batch.need(OccupancyLabels).mask_camera.any():
        return "no voxel of theirs is marked as seen by a camera (distill.visible)"
    if not student.any() or not teacher.any():
        return f"the {'teacher' if student.any() else 'student'} answers with zeros alone"
    if _alike(student, teacher):
        return "student and teacher answer the same: these are the same weights"
    return "the difference is too small or too large for this loss; see the temperature and the outputs"


def _alike(student: Tensor, teacher: Tensor) -> bool:
    return student.shape == teacher.shape and torch.allclose(student, teacher, rtol=1e-4, atol=1e-6)
