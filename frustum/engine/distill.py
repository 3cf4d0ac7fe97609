"""Distillation: a network also learns to imitate outputs of a trained one, its teacher (`distill.teacher=RUN`, docs/methods/cwd.md).

The student is trained inside `Distilled`, which runs the teacher on the same augmented input, and holds the adapters that bring the
student's channels to the teacher's number. The weights of a run are the student's alone; its snapshots hold the adapters, too. The teacher
is no part of either: it is not trained, not averaged, not saved.

Shape letters: B batch, C channels, K classes, X Y Z voxels, * spatial dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from frustum.checkpoint.weights_file import digest
from frustum.config import travelling
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.engine.recipe import DistillConfig, Recipe
from frustum.engine.trained import open_trained
from frustum.errors import CheckpointError, ConfigError
from frustum.losses import dense_distillation as losses
from frustum.nn.adapters import to_same_size
from frustum.types.batch import Batch, ImageScale
from frustum.types.contract import ModelConfig, Reads

VOXELS = "occ_logits"
"""The output (B, X, Y, Z, K) whose classes come last; all others are (B, C, *), except what a network names in `not_maps`."""


class Usual(NamedTuple):
    """What a loss is used with where nothing else is said: weights for class logits and for features, and the temperature."""

    logits: float
    features: float
    tau: float = 1.0


USUAL = {
    "cwd": Usual(3, 50, 4.0),  # published for logits; for features CIRKD's, which divides by another number of channels (FORMS)
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
OF_CLASSES, ANY_CHANNELS, WITH_MASK, WITH_TAU = ("kd", "dist"), ("pair", "at", "ifvd"), ("cwd", "kd", "pixel"), ("cwd", "kd", "dist")


USUAL_FORM = "usual"
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "cwd": {"cirkd": {"channels": "student"}, "openmmlab": {"channels": "student", "value": "ce"}},
    "kd": {
        "torchdistiller": {"mean_over": "elements", "tau_squared": False},
        "mmrazor": {"mean_over": "samples"},
        "skd": {"mean_over": "map", "value": "ce"},
    },
    "pixel": {"positions": {"mean_over": "positions"}, "channels": {"mean_over": "channels"}},
    "pair": {"everywhere": {"scale": None}},
}
"""How references divide a loss, or change it, by name: what the functions in losses/dense_distillation.py are called with. The channels of
`student` are those that it has ahead of the adapter."""


class Term(NamedTuple):
    """One loss between two outputs.

    Attributes:
        student, teacher: names of the outputs.
        loss: which.
        weight, tau: factor, and temperature of those that have one.
        form: of FORMS, or the usual one.
    """

    student: str
    teacher: str
    loss: str
    weight: float
    tau: float
    form: str = USUAL_FORM

    @property
    def of_classes(self) -> bool:
        """Whether both outputs hold logits of classes, as their names tell."""
        return self.student.endswith("logits") and self.teacher.endswith("logits")

    @property
    def name(self) -> str:
        """In the log: `cwd_bev`. Without the dots that names of modules may not have."""
        return f"{self.loss}_{self.student}".replace(".", "_")

    def __str__(self) -> str:
        of = self.student if self.student == self.teacher else f"{self.student} to {self.teacher}"
        heat = f", tau {self.tau:g}" if USUAL[self.loss].tau != 1 or self.tau != 1 else ""
        form = "" if self.form == USUAL_FORM else f", as {self.form}"
        return f"{self.loss} of {of} (weight {self.weight:g}{heat}{form})"


def terms_of(config: DistillConfig) -> list[Term]:
    """The losses that the settings ask for.

    Raises:
        ConfigError: a list that is neither one long nor as long as `at`, a loss that is asked for twice, or one that does not fit.
    """
    if not config.at:
        return []
    count = len(config.at)
    lists: dict[str, list[Any]] = {}
    for name in ("loss", "form", "weight", "tau"):
        given = getattr(config, name)
        if len(given) not in (0, 1, count):
            raise ConfigError(f"distill.{name} has {len(given)} entries, distill.at {count}: give one for all outputs, or one for each.")
        lists[name] = list(given) * (count if len(given) < 2 else 1) or [None] * count
    if config.tau and not set(lists["loss"]) & set(WITH_TAU):
        raise ConfigError(f"distill.tau is of {', '.join(WITH_TAU)}: {', '.join(config.loss)} has no temperature. Leave it out.")
    terms = []
    for place_, loss, form, weight, tau in zip(config.at, *lists.values(), strict=True):
        student, _, teacher = place_.partition(":")
        usual, form = USUAL[loss], form or USUAL_FORM
        term = Term(student, teacher or student, loss, weight or 1.0, tau if tau and loss in WITH_TAU else usual.tau, form)
        if len(config.tau) > 1 and tau != 1 and loss not in WITH_TAU:
            raise ConfigError(f"distill.tau is of {', '.join(WITH_TAU)}: {loss} has no temperature. Give 1 there.")
        if form not in (USUAL_FORM, *FORMS.get(loss, ())):
            raise ConfigError(
                f"distill.form={form}: {loss} has the forms {', '.join((USUAL_FORM, *FORMS.get(loss, ())))}. Give one for each entry of "
                f"distill.at where they differ, {USUAL_FORM} for ours."
            )
        if loss in OF_CLASSES and not term.of_classes:
            which = student if not student.endswith("logits") else teacher
            raise ConfigError(f"{loss} compares probabilities of classes, which {which} does not have. Take cwd, pkd, at or pixel there.")
        if config.visible and (student != VOXELS or loss not in WITH_MASK):
            raise ConfigError(f"distill.visible is of {VOXELS} with {', '.join(WITH_MASK)}, not of {student} with {loss}. Leave it out.")
        terms.append(term if weight is not None else term._replace(weight=usual.logits if term.of_classes else usual.features))
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

    def value(self, term: Term, student: Tensor, teacher: Tensor, batch: Batch, channels: int) -> Tensor:
        """The loss of two maps of one size, without its weight; `channels` are those of the student ahead of its adapter."""
        mask = None
        if self.config.visible:
            seen = batch.need(OccupancyLabels).mask_camera
            mask = losses.voxel_maps(seen[..., None], seen, self.config.voxels)[1]
        if term.loss == "ifvd":
            kind, count = self.labels[term.student]
            return losses.ifvd_loss(student, teacher, self._ids(batch, kind), count)
        how = dict(FORMS.get(term.loss, {}).get(term.form, {}))
        if how.get("channels") == "student":
            how["channels"] = channels
        if mask is not None:
            how["mask"] = mask
        if term.loss in WITH_TAU:
            how["tau"] = term.tau
        return getattr(losses, f"{term.loss}_loss")(student, teacher, **how)

    def _ids(self, batch: Batch, kind: type) -> Tensor:
        found: Any = batch.need(kind)
        if kind is not OccupancyLabels:
            return found
        return losses.voxel_maps(found.semantics[..., None], reading=self.config.voxels)[0][:, 0]


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
            term.name: term.weight * self.value(term, outputs, batch) for term in self.terms
        }

    def value(self, term: Term, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """A term without its weight, for what `forward` returned."""
        student, teacher = outputs[f"{term.name}/student"], outputs[f"{term.name}/teacher"]
        return self.comparison.value(term, student, teacher, batch, self.adapters[term.name].channels)  # type: ignore[arg-type]

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


def described(recipe: Recipe, teacher: Teacher) -> list[str]:
    """What a student learned from its teacher, for the header of its weights; without paths."""
    origin = f"{teacher.recipe.name} (weights {digest(teacher.network)[:12]})"
    return [f"{origin}: {', '.join(map(str, terms_of(recipe.distill or DistillConfig())))}"]
