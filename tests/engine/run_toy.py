"""`python -m tests.engine.run_toy DATABASE RUN [key=value ...]`: a process of its own to kill, stop, or start several of."""

from __future__ import annotations

import sys
from pathlib import Path

from frustum.engine.evaluate import evaluate
from frustum.engine.overrides import apply
from frustum.engine.train import train
from frustum.errors import FrustumError
from tests.engine import toy

if __name__ == "__main__":
    root, out, *settings = sys.argv[1:]
    try:
        recipe = apply(toy.recipe(root), settings)
        network = train(recipe, out, overrides=settings).model
        evaluate(recipe, network, out=Path(out) / "eval.json")
    except FrustumError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
