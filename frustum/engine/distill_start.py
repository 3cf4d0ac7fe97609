"""What happens before a student's first step beside its teacher: both are tried on training samples, and what does not fit is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.labels.pixels import PixelLabels
from frustum.data.source import Source, labelled, spread
from frustum.engine.distill import ANY_CHANNELS, OF_CLASSES, OF_IMAGES, VOXELS, Comparison, Distilled, Teacher, Term, terms_of
from frustum.engine.feed import build_pipeline
from frustum.engine.recipe import DistillConfig, Recipe
from frustum.engine.runtime import place
from frustum.errors import ConfigError, FrustumError, nearest_names
from frustum.nn.adapters import Adapter
from frustum.types.batch import Batch
from frustum.types.contract import Reads

Outputs = Mapping[str, Tensor]


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
            adapters[term.name] = Adapter(s.shape[1], t.shape[1] if has_adapter else s.shape[1], bias=term.form != "cirkd")
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
    named = [term for term in terms if term.of_classes]
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
                values[term.name] = value = term.weight * float(network.value(term, outputs, batch))
            except FrustumError as error:
                raise ConfigError(f"{term}: {error}") from error
            if value == 0 or not np.isfinite(value) or not (s.isfinite().all() and t.isfinite().all()) or _alike(s, t):
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
