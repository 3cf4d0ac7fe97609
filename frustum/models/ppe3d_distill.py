"""3DPPE's distillation (Shu et al., ICCV 2023): a network without LiDAR learns beside an oracle that has it. Our reading of the paper.

The paper says: an oracle (`encoding=point3d_lidar`) is trained first. The student gets an auxiliary branch, its own decoder with the same
weights, run on the oracle's frozen reference points. Its targets follow the oracle's assignment; it is supervised by the true boxes and by
what the oracle predicts. Neither code nor weights of the losses were published. What we took it to mean:

- the oracle sees the same augmented images as the student, in evaluation mode;
- each layer of the branch follows the assignment of the same layer of the oracle;
- true boxes are learned by the usual losses; the oracle's scores by a quality focal loss, its boxes by the L1 distance of the codes of
  the queries that it assigns (losses/distillation.py).

The branch is there in training only. The oracle is no part of the student's weights: a trained student loads and runs without it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from frustum.checkpoint.weights_file import load_state, read_weights
from frustum.config import Config
from frustum.errors import CheckpointError, ConfigError
from frustum.losses.distillation import imitation_losses
from frustum.losses.set_prediction import SetLoss, TrueCodes, match, set_losses
from frustum.nn.frozen import Frozen
from frustum.types.batch import Batch

PREFIX = "distill."
"""In front of the outputs and losses of the branch; the oracle's outputs are under `oracle.`."""

_EQUAL = ("channels", "queries", "layers", "box_range", "box_convention", "frame")


class Distillation(Config):
    """Settings of the auxiliary branch.

    Attributes:
        teacher: the oracle: the folder of its run, or its weights file.
        truth_weight: of the losses against the true boxes.
        imitation_weight: of the losses against what the oracle predicts.
    """

    teacher: str = ""
    truth_weight: NonNegativeFloat = 1.0
    imitation_weight: NonNegativeFloat = 1.0


class Oracle:
    """The frozen teacher, read when it is first asked, so that a student is built without it (nn/frozen.py).

    Args:
        path: its run or weights file.
        student: the config of the network that learns from it.
    """

    def __init__(self, path: str, student: Any):
        if not path:
            raise ConfigError("model.distill needs an oracle to learn from: model.distill.teacher=RUN of `model.encoding=point3d_lidar`.")
        self._frozen = Frozen(partial(_read, path, student))

    def __deepcopy__(self, memo: dict[int, Any]) -> Oracle:
        return self

    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """The teacher on a device. Raises CheckpointError if the file is missing, no oracle, or one of other sizes."""
        return self._frozen.on(device)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """What it answers, and `places` (Q, 3), its reference points. Raises CheckpointError; DataError without depth maps."""
        network: Any = self.network(batch.images.device)
        return network(batch) | {"places": network.pts_bbox_head.reference_points.weight.float()}


def _read(path: str, student: Any) -> nn.Module:
    """The oracle in a file, which must fit the student's config."""
    state, header = read_weights(path)
    kind, own = type(student), f"{type(student).__module__}:{type(student).__qualname__}"
    model, found = dict(header.get("recipe") or {}).get("model"), dict(header.get("classes") or {}).get("model")
    train = "Train one: frustum train RECIPE model.encoding=point3d_lidar."
    if model is None or found != own:
        raise CheckpointError(f"model.distill.teacher={path} holds {found or 'no recipe'}, where an oracle of {own} is needed. {train}")
    config = kind.model_validate(kind.upgraded(dict(model)))
    if config.encoding != "point3d_lidar":
        raise CheckpointError(
            f"model.distill.teacher={path} is no oracle: it has model.encoding={config.encoding}, not point3d_lidar. {train}"
        )
    pairs = {name: (getattr(config, name), getattr(student, name)) for name in _EQUAL}
    if other := [f"{name} {theirs} (here {ours})" for name, (theirs, ours) in pairs.items() if theirs != ours]:
        raise CheckpointError(
            f"the oracle {path} has other settings than its student: {', '.join(other)}. The branch runs on the oracle's queries "
            "and is compared with its boxes: train both with the same ones."
        )
    network = config.model_copy(update={"pretrained": False, "distill": None}).build()
    load_state(network, state, path)
    return network


def distillation_losses(outputs: dict[str, Tensor], truth: TrueCodes, settings: Distillation, set_loss: SetLoss) -> dict[str, Tensor]:
    """The losses of the branch, weighted: those of losses/set_prediction.py and of losses/distillation.py.

    Args:
        outputs: of Ppe3d in training: (B, L, Q, *) under `distill.` and `oracle.`.
        truth: the true boxes.
        settings: weights of the two kinds.
        set_loss: of matching and losses.
    """
    names = [f"{prefix}{name}" for prefix in (PREFIX, "oracle.") for name in ("class_logits", "box_codes")]
    logits, codes, their_logits, their_codes = (outputs[name].transpose(0, 1) for name in names)
    matches = match(their_logits, their_codes, truth, set_loss)
    true = set_losses(logits, codes, truth, set_loss, matches, PREFIX)
    imitated = imitation_losses(logits, codes, their_logits, their_codes, matches, set_loss, PREFIX)
    weighted = {name: value * settings.truth_weight for name, value in true.items()}
    return weighted | {name: value * settings.imitation_weight for name, value in imitated.items()}
