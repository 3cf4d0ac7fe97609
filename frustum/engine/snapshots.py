"""The full state of a training run: model, average, optimisers, schedules, data position and random numbers, for an exact resume.

    checkpoints/step_00000500/
        model.safetensors  ema.safetensors   weights as trained, and averaged
        trainer.pt                           per turn optimiser and schedule; counters (plain tensors and numbers, read with weights_only)
        rank_0.pt ...                        of each process: position in the data, random numbers
        digests.json                         SHA-256 of the .pt files; weights files hold their own

A snapshot is written into a temporary folder and renamed when all of it is on the disk, so one that exists is whole.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from frustum.checkpoint.fit import renamed
from frustum.checkpoint.integrity import check_archive, sha256
from frustum.checkpoint.weights_file import flush, load_state, read_weights, save_weights
from frustum.engine.sections import header_of
from frustum.engine.step import Stepper
from frustum.errors import CheckpointError, OutputError
from frustum.files import flush_folder, make_folder, read_json, why_unwritable, write_error, write_json

DIGESTS = "digests.json"


class Snapshots:
    """Saves and restores `step_*` folders under `folder`, keeping the newest `keep`."""

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator):
        self.folder, self.keep, self.accelerator = folder, keep, accelerator

    def all(self) -> list[Path]:
        """The snapshots, oldest first."""
        return sorted(path for path in self.folder.glob("step_*") if path.name[5:].isdigit() and path.is_dir())

    def latest(self) -> Path | None:
        """The newest snapshot, or None."""
        return self.all()[-1] if self.all() else None

    def save(self, stepper: Stepper, position: dict[str, Any], extra: dict[str, Any], header: Mapping[str, Any] | None = None) -> Path:
        """Write the state after `stepper.step_number` steps; `header` is what the weights say in addition to their recipe.

        Every process calls this. Raises OutputError when the disk is full; the snapshots of before stay as they are.
        """
        final = self.folder / f"step_{stepper.step_number:08d}"
        draft = self.folder / f".{final.name}.tmp"
        accelerator = self.accelerator
        try:
            if accelerator.is_main_process:
                make_folder(self.folder)
                self.sweep()
                draft.mkdir()
            accelerator.wait_for_everyone()
            _save(draft / f"rank_{accelerator.process_index}.pt", {"data": position, "random": random_state()})
            if accelerator.is_main_process:
                about = header_of(stepper.recipe) | {"step": stepper.step_number} | dict(header or {})
                save_weights(draft / "model.safetensors", stepper.network, about)
                if stepper.ema is not None:
                    save_weights(draft / "ema.safetensors", stepper.ema.module, about)
                _save(draft / "trainer.pt", stepper.state_dict() | {"extra": extra})
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                write_json(draft / DIGESTS, {file.name: sha256(file) for file in sorted(draft.glob("*.pt"))})
                flush(draft / DIGESTS)
                flush_folder(draft)
                if final.exists():
                    shutil.rmtree(final)
                os.replace(draft, final)
                flush_folder(self.folder)
                for old in self.all()[: -self.keep]:
                    shutil.rmtree(old)
        except OSError as error:
            raise self._failed(final, error) from error
        except OutputError as error:
            raise self._failed(final, error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error))) from error
        accelerator.wait_for_everyone()
        return final

    def require_room(self, stepper: Stepper) -> None:
        """Raise OutputError now, and not at the first snapshot, if the disk does not have the room for one."""
        weights = sum(value.nbytes for value in stepper.network.state_dict().values())
        trained = sum(value.nbytes for value in stepper.network.parameters() if value.requires_grad)
        needed = weights * (1 if stepper.ema is None else 2) + 2 * trained  # an optimiser keeps two moments
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed:
            raise OutputError(
                f"a snapshot of this training takes about {needed / 1e6:.0f} MB, but there are {free / 1e6:.0f} MB free for {self.folder}. "
                "Free some space or choose another output folder with --out FOLDER."
            )

    def sweep(self) -> None:
        """Delete what a process that was killed, or ran out of disk, left of a snapshot. For the owner of the run folder."""
        for draft in self.folder.glob(".step_*.tmp"):
            shutil.rmtree(draft, ignore_errors=True)

    def _failed(self, final: Path, error: OSError) -> OutputError:
        self.sweep()
        last = self.latest()
        there = f"The last snapshot, {last}, is whole: the same command goes on from it." if last else "No snapshot was saved yet."
        return OutputError(f"{write_error(final, error)} {there}")

    @staticmethod
    def header(path: Path, name: str) -> dict[str, Any]:
        """An entry that `save` was given in `header`, under its name; empty where there is none."""
        found = read_weights(path / "model.safetensors")[1]
        return {name: found[name]} if name in found else {}

    def restore(self, path: Path, stepper: Stepper) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put a snapshot's state into `stepper` and the random generators; returns the position in the data and `extra`.

        Raises:
            CheckpointError: a file is missing or damaged, or belongs to another model or number of processes.
        """
        rank = self.accelerator.process_index
        now, then = self.accelerator.num_processes, len(list(path.glob("rank_*.pt")))
        if now != then:
            why = f"{path} was saved by {then} processes and cannot be resumed exactly by {now}"
            raise CheckpointError(f"{why}. Start as many as before, or give its model.safetensors as weights to a new run.")
        trainer, own = _load(path / "trainer.pt"), _load(path / f"rank_{rank}.pt")
        names = stepper.recipe.model.renamed
        load_state(stepper.network, renamed(read_weights(path / "model.safetensors")[0], names), str(path))
        if stepper.ema is not None:
            load_state(stepper.ema.module, renamed(read_weights(path / "ema.safetensors")[0], names), str(path))
        try:
            stepper.load_state_dict(trainer)
            set_random_state(own["random"])
            return own["data"], trainer["extra"]
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
            raise CheckpointError(f"{path} holds another kind of state than this version of frustum needs: {error}.") from error


def random_state() -> dict[str, Any]:
    """The state of all random generators of this process, as plain numbers and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    numpy = (str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(gauss))
    cuda = {"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_available() else {}
    return {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state(), **cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _save(path: Path, content: Any) -> None:
    try:
        torch.save(content, path)
    except RuntimeError as error:  # torch's zip writer reports a full disk this way
        raise why_unwritable(path) or OSError(str(error)) from error
    flush(path)


def _load(path: Path) -> dict[str, Any]:
    advice = f"Remove the folder {path.parent} to go on from an older snapshot."
    try:
        if (path.parent / DIGESTS).is_file():  # snapshots of before December 2026 have none
            known = read_json(path.parent / DIGESTS, "list of digests")
            if not isinstance(known, dict) or known.get(path.name) != sha256(path):
                raise ValueError(f"its digest is not the one in {DIGESTS} (bits flipped?)")
        check_archive(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        return found
    except Exception as error:  # whatever bytes are in the file: the reader stumbles over them in many ways
        raise CheckpointError(f"{path} is missing or damaged: {error}. {advice}") from error
