"""A small network that reads pose, expression and identity off a picture of a head, so that swaps can be judged by what the world knows.

It learns from portraits of many people who are in no other data set, in random colours, as long as those of them who are held out are read
better; and of their identity it is asked for the numbers alone that it reads of these. What it is wrong by on true swaps is the least
that any swap can be wrong by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.checkpoint.weights_file import read_weights, save_weights
from frustum.engine.progress import progress_bar
from frustum.nn.encoders.small_code import SmallCode
from frustum.worlds.heads.person import HairStyle, Shape

POSE, EXPRESSION = ("yaw", "pitch", "roll"), ("jaw", "smile")
HAIR, WORN = ("length", "volume", "curl", "fringe"), ("hat", "glasses", "beard")
IDENTITY = (*Shape._fields, *HAIR, *WORN)
_GROUPS = tuple(map(len, (POSE, EXPRESSION, Shape._fields, HAIR, WORN)))  # each counts as much as the others
NAMES = (*POSE, *EXPRESSION, *IDENTITY)
STEPS, BATCH, EVERY = 3000, 64, 200
CAN_TELL = 0.8  # of the spread of a number: what is read off people who are held out with a larger error is not asked for


class Judge:
    """Reads NAMES off portraits (S, S, 3) uint8.

    Args:
        network: trained by `learn`.
        mean, spread: of each number over the people that it learned from.
        error: of each number, root mean square over people who were held out, in units of its spread.
    """

    def __init__(self, network: SmallCode, mean: np.ndarray, spread: np.ndarray, error: np.ndarray):
        self.network, self.mean, self.spread = network.eval(), mean, spread
        self.asked = [i for i, name in enumerate(NAMES) if name in IDENTITY and error[i] < CAN_TELL]

    @torch.no_grad()
    def errors(self, portrait: np.ndarray, motion: dict[str, float], about: dict[str, Any]) -> dict[str, float | None]:
        """What is read off a portrait against the truth.

        Returns:
            pose_error: degrees, mean over yaw, pitch, roll. expression_error: mean over jaw and smile, as the world counts them.
            identity_error: root mean square over the numbers of IDENTITY that it can tell, each in units of its spread over people: 1 is a
                guess of the mean. None where it can tell none.
        """
        found = self.network(_signed(portrait[None]))[0].numpy()
        apart = np.abs(found - (numbers(motion, about) - self.mean) / self.spread)
        pose, expression, _ = np.split(apart, (len(POSE), len(POSE) + len(EXPRESSION)))
        spreads = np.split(self.spread, (len(POSE), len(POSE) + len(EXPRESSION)))
        identity = apart[self.asked]
        return {
            "pose_error": float(np.degrees(pose * spreads[0]).mean()),
            "expression_error": float((expression * spreads[1]).mean()),
            "identity_error": float(np.sqrt((identity**2).mean())) if self.asked else None,
        }


def numbers(motion: dict[str, float], about: dict[str, Any]) -> np.ndarray:
    """NAMES of a frame: its motion, and what people.json says of the person."""
    hair = dict(zip(HairStyle._fields, about["hair"], strict=True))
    worn = [float(bool(about[name])) for name in WORN]
    return np.array([*(motion[name] for name in (*POSE, *EXPRESSION)), *about["shape"], *(hair[name] for name in HAIR), *worn], np.float32)


def learn(source: Any, path: Path) -> Judge:
    """The judge in the file `path`, trained from portraits of generated people where there is none yet."""
    network = SmallCode(len(NAMES))
    if path.is_file():
        state, about = read_weights(path)
        network.load_state_dict(state)
        return Judge(network, *(np.array(about[name], np.float32) for name in ("mean", "spread", "error")))
    (images, true), (others, theirs) = (_portraits(source, split) for split in ("train", "val"))
    mean, spread = true.mean(0), np.maximum(true.std(0), 1e-3)
    wanted, held_out = (torch.from_numpy((values - mean) / spread) for values in (true, theirs))
    best, error, kept = np.inf, np.full(len(NAMES), np.inf), {}
    with torch.random.fork_rng(devices=[]), progress_bar("training the judge", STEPS) as bar:
        torch.manual_seed(0)
        network = SmallCode(len(NAMES))
        optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for step in range(1, STEPS + 1):
            chosen = torch.randint(len(images), (BATCH,))
            mixed = torch.eye(3) + 0.4 * (torch.rand(BATCH, 3, 3) - 0.5)  # colours are not what it should go by
            shown = torch.einsum("bij,bjhw->bihw", mixed, _signed(images[chosen.numpy()]))
            optimiser.zero_grad()
            apart = F.smooth_l1_loss(network(shown), wanted[chosen], reduction="none")
            torch.stack([group.mean() for group in apart.split(_GROUPS, 1)]).sum().backward()
            optimiser.step()
            schedule.step()
            bar.advance()
            if step % EVERY == 0 or step == STEPS:
                with torch.no_grad():
                    read = torch.cat([network.eval()(_signed(some)) for some in np.array_split(others, -(-len(others) // BATCH))])
                apart = (read - held_out).square().mean(0)
                network.train()
                guessed = apart.clamp(max=1)  # what cannot be told is no reason to stop
                if (mark := float(torch.stack([group.mean() for group in guessed.split(_GROUPS)]).sum())) < best:
                    best, error, kept = mark, apart.sqrt().numpy(), {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    save_weights(path, network, {"mean": mean.tolist(), "spread": spread.tolist(), "error": error.tolist()})
    return Judge(network, mean, spread, error)


def _portraits(source: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All of a split (M, S, S, 3), and their numbers (M, len(NAMES))."""
    tokens = source.tokens(split)
    about = {who: source.about(who) for who in {token.split("/")[0] for token in tokens}}
    true = np.stack([numbers(source.truth(token)["motion"], about[token.split("/")[0]]) for token in tokens])
    return np.stack([source.image(token) for token in tokens]), true


def _signed(images: np.ndarray) -> Tensor:
    """(M, S, S, 3) uint8 as (M, 3, S, S) from -1 to 1."""
    return torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
