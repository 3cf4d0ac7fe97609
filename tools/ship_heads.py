"""Write the weights of head swapping that come with frustum, in half precision, from runs.

python tools/ship_heads.py aligner=runs/heser-aligner-mini blender=runs/heser-blender-mini parser=runs/face-parser
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from frustum.checkpoint.weights_file import save_weights
from frustum.engine.overrides import apply
from frustum.engine.sections import header_of
from frustum.engine.taught import TAUGHT
from frustum.weights.loading import open_network
from frustum.weights.shipped import FOLDER


def main(runs: list[str]) -> None:
    """Take the networks NAME=RUN: `parser`, `aligner`, `blender`."""
    FOLDER.mkdir(exist_ok=True)
    for name, run in (word.split("=", 1) for word in runs):
        recipe, network = open_network(run)
        halves = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
        lost = max(float((value.float() - network.state_dict()[key].float()).abs().max()) for key, value in halves.items())
        header = header_of(apply(recipe, ["data.root=data/heads"])) | {TAUGHT: network.taught_with}
        save_weights(FOLDER / f"{name}.safetensors", halves, header)
        print(f"{name}: {sum(value.numel() for value in halves.values()):,} numbers, rounded by {lost:.2g} at most")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
