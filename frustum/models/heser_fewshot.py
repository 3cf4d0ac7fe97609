"""Few-shot head swapping: the aligner learns a person from a few frames of them (LPD: Burkov et al., CVPR 2020, section 3.4).

The mean of the frames' codes is the start; then that code and the generator are trained to draw these frames, while all encoders stay as
they are. Too few steps leave another face, too many learn these few frames by heart, so that frames which are held out say when to stop.
They are of the same person: of the pose of others they say nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from frustum.data.labels.portraits import PlacedHead, PlacedHeads
from frustum.errors import ConfigError, ShapeError
from frustum.models.heser_aligner import HeserAligner
from frustum.nn.frame_reference import KnownFrames
from frustum.nn.portrait_views import SIGNED, Disguise, disguised
from frustum.types.batch import Batch


@dataclass(frozen=True)
class FewShot:
    """How an aligner learns a person.

    Attributes:
        steps: at most; 0 keeps the mean code. LPD takes 125 for one frame, up to 230 for more than 30.
        lr: of RAdam, which LPD uses.
        batch_size: frames of a step.
        held_out: every n-th frame is not learned from, but says when to stop; with fewer than n frames all steps are taken.
        every: steps between two looks at them; the last step is followed by one, too.
        patience: looks without an improvement after which it stops; the best state is kept.
        seed: of the order and of the disguise.
    """

    steps: int = 200
    lr: float = 5e-4
    batch_size: int = 4
    held_out: int = 4
    every: int = 10
    patience: int = 5
    seed: int = 0


_NOT_LEARNED = ("deceive", "reference", "reference_parts")  # of the discriminator, and of what compares frames


class Learned(NamedTuple):
    """A person that an aligner has learned.

    Attributes:
        aligner: whose generator knows the person; a copy, in evaluation mode.
        code: (1, D') for `HeserAligner.drawn`.
        frames: of one person, for the same.
        step: after which of the steps taken this is.
        history: (step, loss on the frames that were held out).
    """

    aligner: HeserAligner
    code: Tensor
    frames: KnownFrames | None
    step: int
    history: list[tuple[int, float]]


def learn_person(aligner: HeserAligner, frames: Tensor, parsing: Tensor, how: FewShot | None = None) -> Learned:
    """Learn a person from frames of them. The aligner itself is not changed.

    Args:
        frames: (K, 3, S, S) from -1 to 1.
        parsing: (K, S, S) ids of CelebAMask-HQ.

    Raises:
        ShapeError: the numbers of frames and maps differ, or the size is not the aligner's. ConfigError: a setting below its minimum.
    """
    how = how or FewShot()
    side = aligner.config.image_size
    if tuple(frames.shape[1:]) != (3, side, side) or parsing.shape != (len(frames), side, side) or not len(frames):
        raise ShapeError(
            f"a person is learned from frames (K, 3, {side}, {side}) and maps, got {tuple(frames.shape)}, {tuple(parsing.shape)}."
        )
    if how.steps < 0 or how.held_out < 2 or min(how.batch_size, how.every, how.patience) < 1:
        raise ConfigError(f"{how} has a setting below its minimum: steps from 0, held_out from 2, the other numbers from 1.")
    network = copy.deepcopy(aligner).eval().requires_grad_(False)
    truth, inputs = PlacedHead(frames, parsing), network.seen(frames, parsing)
    with torch.no_grad():
        code, known = network.person(inputs[None]), network.known(inputs[None])
    if not how.steps:
        return Learned(network, code, known, 0, [])
    network.generator.requires_grad_(True)
    code = nn.Parameter(code.clone())
    spared = list(range(how.held_out - 1, len(frames), how.held_out))
    learned = [i for i in range(len(frames)) if i not in spared]
    optimiser = torch.optim.RAdam([code, *network.generator.parameters()], how.lr)
    drawing = torch.Generator().manual_seed(how.seed)
    history: list[tuple[int, float]] = []
    best, waited = _state(network, code, 0), 0
    with torch.random.fork_rng(devices=[]):  # the disguise draws from the global state
        torch.manual_seed(how.seed)
        for step in range(how.steps + 1):
            if spared and (step % how.every == 0 or step == how.steps):
                with torch.no_grad():
                    found = float(_loss(network, code, truth, known, spared, learned, "none"))
                waited = 0 if not history or found < min(loss for _, loss in history) else waited + 1
                history.append((step, found))
                if waited == 0:
                    best = _state(network, code, step)
                if waited >= how.patience:
                    break
            if step < how.steps:
                chosen = [learned[i] for i in torch.randint(len(learned), (how.batch_size,), generator=drawing).tolist()]
                optimiser.zero_grad()
                _loss(network, code, truth, known, chosen, learned, aligner.config.disguise).backward()
                optimiser.step()
    state, kept, step = best if spared else _state(network, code, how.steps)
    network.generator.load_state_dict(state)
    return Learned(network.requires_grad_(False), kept, known, step, history)


def _loss(
    network: HeserAligner,
    code: Tensor,
    truth: PlacedHead,
    frames: KnownFrames | None,
    wanted: list[int],
    seen: list[int],
    disguise: Disguise,
) -> Tensor:
    """The losses of the generator for the frames with the numbers `wanted`, without those of parts that are not trained here.

    Of the frames the network looks at those with the numbers `seen`, but not at the one that it draws, unless there is no other.
    """
    others = None
    if frames is not None:
        numbers = [[j for j in seen if j != i] or [i] for i in wanted]
        others = KnownFrames(*(torch.stack([maps[0, those] for those in numbers]) for maps in frames))
    images, parsing = truth.image[wanted], truth.parsing[wanted]
    outputs = network.drawn(code.expand(len(images), -1), network.seen(disguised(images, disguise), parsing), others)
    batch = Batch.of_images(images).with_labels({PlacedHeads: PlacedHead(images, parsing)})
    losses = network.loss(outputs, Batch(**{**vars(batch), "image_scale": SIGNED}))
    return torch.stack([value for name, value in losses.items() if name not in _NOT_LEARNED]).sum()


def _state(network: HeserAligner, code: Tensor, step: int) -> tuple[dict[str, Tensor], Tensor, int]:
    return {name: value.clone() for name, value in network.generator.state_dict().items()}, code.detach().clone(), step
