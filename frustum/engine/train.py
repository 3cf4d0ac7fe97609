"""The training loop. What a step computes is in step.py, where batches come from in feed.py, what is saved in snapshots.py and run.py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import set_seed
from torch import nn

from frustum.checkpoint.fit import renamed, without_holder
from frustum.checkpoint.upstream_file import open_state
from frustum.checkpoint.weights_file import WEIGHTS, decode_header, load_state, save_weights
from frustum.data.source import Source, cameras_of
from frustum.engine.distill import described, require_same_teacher, student_of, teacher_of
from frustum.engine.distill_start import with_teacher
from frustum.engine.feed import TrainingFeed
from frustum.engine.memory import require_memory
from frustum.engine.metrics_log import MetricsLog
from frustum.engine.progress import Reporter, progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.run import changed_length, clear_run, require_same, save_run
from frustum.engine.runtime import make_accelerator
from frustum.engine.sections import changes_that_travel, header_of
from frustum.engine.signals import stop_signals
from frustum.engine.snapshots import Snapshots
from frustum.engine.statistics import STATISTICS, label_statistics
from frustum.engine.step import Stepper, StepResult
from frustum.engine.taught import RIG, TAUGHT, forget_origins, origins, taught_with
from frustum.errors import CheckpointError, ConfigError, StoppedError, TrainingError
from frustum.files import make_folder
from frustum.locks import owning
from frustum.ops.processes import deaths_explained

Resume = Literal["auto", "never", "must"]


@dataclass(frozen=True)
class TrainResult:
    """What training left behind. `model` is the trained network (averaged weights), in evaluation mode, on its device."""

    folder: Path
    weights: Path
    steps: int  # taken in all, by earlier processes too
    loss: float  # mean over the last logged steps
    seconds: float  # of this process, set-up included
    resumed_from: int  # step, 0 for a fresh run
    model: nn.Module = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items() if name != "model"}


@owning("out", "frustum train")
@deaths_explained
def train(
    recipe: Recipe,
    out: Path | str,
    resume: Resume | bool = "auto",
    model: nn.Module | None = None,
    progress: bool = True,
    *,
    source: str | None = None,
    overrides: Sequence[str] = (),
    code: Sequence[str] = (),
) -> TrainResult:
    """Train `recipe` into the run folder `out`.

    Args:
        recipe: the complete description of the run.
        out: folder of the run; run.py lists what it holds.
        resume: `auto` (or True) goes on exactly where an earlier run in `out` stopped, else starts; `must` raises if there is nothing to
            resume; `never` (or False) deletes the earlier run.
        model: a network to start from (loaded weights), for which `train.init` is not read; by default `recipe.model.build()`, prepared
            with the label statistics, then filled from `train.init`.
        progress: show a bar, or plain lines where there is no terminal.
        source, overrides: how the recipe was called, for recipe.json.
        code: modules whose classes a teacher may import.

    Raises:
        TrainingError: a loss, or what was to be saved, is not finite; the message names step and samples, the last snapshot stays.
        StoppedError: SIGTERM or Ctrl-C, after saving. DataError: bad data, or `out` cannot be written to.
        ConfigError: `out` holds a run with other settings, a step needs more memory than there is, or a teacher does not fit.
        CheckpointError: the snapshots in `out` do not fit.
    """
    began, out = time.monotonic(), Path(out)
    mode = ("auto" if resume else "never") if isinstance(resume, bool) else resume
    teacher = teacher_of(recipe, out, code)
    accelerator = make_accelerator(recipe.runtime, recipe.train.accumulate)
    set_seed(recipe.train.seed)
    snapshots = Snapshots(out / "checkpoints", recipe.train.keep_checkpoints, accelerator)
    last_saved = None if mode == "never" else snapshots.latest()
    then = {} if last_saved is None else snapshots.header(last_saved, TAUGHT)
    if teacher is not None:
        require_same_teacher(then.get(TAUGHT, {}), described(recipe, teacher))
    changed = _open_folder(out, recipe, mode, snapshots, source, overrides)

    data = recipe.data.open()
    recipe = recipe.model_copy(update={"augment": recipe.data.measured(data, recipe.augment)})
    if accelerator.is_main_process:
        save_run(out, recipe, source=source, overrides=overrides)  # again, with what the data say
    reads = None if teacher is None else teacher.reads_with(recipe.model)
    feed = TrainingFeed(recipe, data, accelerator.process_index, accelerator.num_processes, reads)
    total = recipe.train.steps or (recipe.train.epochs or 1) * feed.steps_per_epoch
    network = model if model is not None else build_model(recipe, data, out)
    begin = [] if model is not None or snapshots.latest() is not None else start(network, recipe)
    taught = {TAUGHT: taught_with(recipe, network, data, out, is_given=model is not None)}
    begin += require_memory(recipe, network, accelerator.device, cameras_of(data, recipe.data.train_split))
    window = Window()
    if teacher is not None:
        taught[TAUGHT]["distilled"] = described(recipe, teacher)
        network, lines = with_teacher(recipe, network, teacher, data, accelerator.device, is_new=last_saved is None)
        begin += lines
    stepper = Stepper(recipe, network, accelerator, total, feed.steps_per_epoch)
    if last_saved is not None:
        position, extra = snapshots.restore(last_saved, stepper)
        taught = then or taught
        try:
            feed.load_state_dict(position)
            window = Window(**extra)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{last_saved} holds another kind of state than is needed: {error!r}. Remove it.") from error
    first = stepper.step_number
    if first < total and accelerator.is_main_process:
        snapshots.require_room(stepper)

    is_main = accelerator.is_main_process
    with (
        stop_signals() as received,
        MetricsLog(out, first, is_main) as log,
        progress_bar("train", total, done=first, show=progress and is_main) as bar,
    ):
        for line in begin:
            bar.note(line)
        if first:
            bar.note(_resume_note(recipe, first, total, changed))
        while stepper.step_number < total:
            try:
                result = stepper.step(feed.next_batches(), stop=bool(received))
                step = stepper.step_number
                is_due = step % recipe.train.checkpoint_every == 0 or step == total or result.stop
                if is_due:
                    stepper.require_finite()
            except TrainingError as error:
                good = f"The last good state is {last_saved}" if last_saved else "No state was saved yet"
                raise TrainingError(f"{error} {good}; lower optim.lr, or try runtime.precision=fp32.") from error
            window.add(result)
            bar.advance(f"loss {result.loss:.4f}")
            if step % recipe.train.log_every == 0 or step == total:
                log.write(window.line(result, step, step / feed.steps_per_epoch, bar))
            if is_due:
                last_saved = snapshots.save(stepper, feed.state_dict(), asdict(window), taught)
            if result.stop and step < total:
                why = received[0] if received else "a signal to another process"
                after = f"stopped by {why} after step {step} of {total}"
                raise StoppedError(f"{after}; {last_saved} is saved. The same command goes on from there.")
    trained, steps = student_of(stepper.result()), stepper.step_number
    if is_main:
        save_weights(out / WEIGHTS, trained, header_of(recipe) | {"step": steps, RIG: recipe.data.rig_of(data)} | taught)
    trained.taught_with = taught[TAUGHT]  # type: ignore[assignment]
    accelerator.wait_for_everyone()
    return TrainResult(out, out / WEIGHTS, steps, window.last_loss, time.monotonic() - began, first, trained)


def build_model(recipe: Recipe, data: Source, cache: Path | None = None) -> nn.Module:
    """The recipe's network with fresh weights; where it has `prepare`, that is given the statistics of the training labels."""
    network = recipe.model.build()
    if hasattr(network, "prepare"):
        network.prepare(label_statistics(recipe, data, cache))  # type: ignore[operator]
    return network


def start(network: nn.Module, recipe: Recipe) -> list[str]:
    """Fill fresh weights from `train.init`, as far as it fits; returns sentences about where the weights come from.

    Raises:
        CheckpointError: the file is missing, unsafe or damaged, nothing in it fits, or the network cannot start from it.
    """
    path, lines = recipe.train.init, []
    if path is not None:
        opened = open_state(Path(path) / WEIGHTS if Path(path).is_dir() else path)
        state, held = renamed(opened.state, recipe.model.renamed), recipe.model.held
        if held and not state.keys() & network.state_dict().keys():
            state = {held + key: value for key, value in state.items()}
        state, holder = without_holder(state, network.state_dict().keys())
        fit = load_state(network, state, path, strict=False)
        forget_origins(network, fit.taken)
        trained = held_settings(decode_header(opened.metadata).get("recipe", {}), holder)
        lines += [f"starting from {path}: {fit}", *recipe.model.check_start(fit.taken, trained.get("model"), opened.details, path)]
        other = changes_that_travel(trained, recipe)
        lines += [f"this run prepares its input otherwise than those weights: {other}"] if other else []
    return [f"the image encoder starts from {origin}" for origin in origins(network)] + lines


def held_settings(trained: Mapping[str, Any], holder: str) -> Mapping[str, Any]:
    """The recipe (JSON) of weights, of whose network one was taken that it held: with the settings of that one as its model."""
    around = trained.get("model", {}).get(holder) if holder else None
    chosen = [entry for entry in around.values() if isinstance(entry, Mapping)] if isinstance(around, Mapping) else []
    return {**trained, "model": chosen[0]} if len(chosen) == 1 else trained


@dataclass
class Window:
    """Losses since the last logged line. Saved with a snapshot, so that the lines of a resumed run are the same, too."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    last_loss: float = float("nan")

    def add(self, result: StepResult) -> None:
        """Count one step."""
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in result.losses.items()}
        self.count += 1

    def line(self, result: StepResult, step: int, epoch: float, bar: Reporter) -> dict[str, Any]:
        """The line to log: means over the window; rate and norm of the newest step. Empties the window."""
        losses = {name: value / self.count for name, value in self.sums.items()}
        self.last_loss, self.sums, self.count = sum(losses.values()), {}, 0
        figures = {"lr": result.lr, "grad_norm": result.grad_norm, "steps_per_second": round(bar.rate, 4)}
        return {"step": step, "epoch": round(epoch, 6), "loss": self.last_loss, "losses": losses, **figures, "time": round(time.time(), 3)}


def _open_folder(out: Path, recipe: Recipe, mode: str, snapshots: Snapshots, source: str | None, overrides: Sequence[str]) -> str:
    """Prepare the run folder before anything slow happens; returns `run.changed_length` of a resumed run."""
    if mode not in ("auto", "never", "must"):
        raise ConfigError(f"resume={mode!r} is not known; use 'auto', 'must' or 'never'.")
    changed, accelerator = "", snapshots.accelerator
    if mode != "never" and snapshots.latest() is not None:
        require_same(recipe, out)
        changed = changed_length(recipe, out)
    elif mode == "must":
        raise CheckpointError(f"{out} holds no snapshot to resume from. Start the run without resume, or give the folder of a run.")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        make_folder(out)
        snapshots.sweep()
        if mode == "never":
            clear_run(out)
        if snapshots.latest() is None:
            (out / STATISTICS).unlink(missing_ok=True)  # of labels that may have changed since
        save_run(out, recipe, source=source, overrides=overrides)
    accelerator.wait_for_everyone()
    return changed


def _resume_note(recipe: Recipe, done: int, total: int, changed: str) -> str:
    """The note about an earlier run that is resumed after `done` steps; `changed` is from `run.changed_length`."""
    if done < total:
        return f"going on after step {done} of {total}" + (f". {changed}" if changed else "")
    key = "train.steps" if recipe.train.steps else "train.epochs"
    return f"this run is finished: {done} steps are done, {total} are asked for. To train longer, set a larger {key}."
