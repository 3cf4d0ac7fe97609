"""`frustum demo heads`: people whom the networks that come with frustum never saw, swaps of their heads, judged by the exact truth.

Or networks are trained on others of these people first (`training`).
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import nn

from frustum.cli.aligned_heads import write_aligned
from frustum.cli.common import say
from frustum.cli.demo import stage, stored_plan
from frustum.cli.evaluation import numbers_of, print_table
from frustum.cli.head_swaps import HeadSwaps, parse_with
from frustum.cli.resolve import open_network
from frustum.cli.worlds import generate_portraits
from frustum.data.portraits.opening import open_portraits
from frustum.data.source import spread
from frustum.engine import overrides as settings
from frustum.engine.evaluate import evaluate
from frustum.engine.reports import compare
from frustum.engine.speedtest import choose_steps
from frustum.engine.train import train
from frustum.errors import ConfigError, DataError
from frustum.files import atomic_path, make_folder, write_json
from frustum.locks import owning
from frustum.models.head_swap import HeadSwapper, NoHeadError
from frustum.recipes.finding import get_recipe
from frustum.tasks.portrait_baselines import portrait_baselines
from frustum.weights.shipped import SEED, shipped

WORLD = {"identities": 60, "clips": 1, "frames": 8, "train_swaps": 0}  # every fifth of the people gets the heads of four others
WORLD_TO_LEARN = {"identities": 160, "clips": 2, "frames": 8, "train_swaps": 10}
RECIPES = {"aligner": "heser-aligner-mini", "blender": "heser-blender-mini"}
_AFTER = 60.0  # seconds that follow the training: 25 on two quiet cores
_PER_HEAD = 0.06  # seconds in which the trained aligner draws a head for the blender to learn from
SHOWN = 10  # swaps in the picture
_TITLES = ("source", "target", "aligned head", "swap", "perfect swap")


@owning("out", "frustum demo heads")
def run_head_demo(
    out: Path,
    minutes: float = 15.0,
    seed: int = 0,
    fresh: bool = False,
    changes: dict[str, list[str]] | None = None,
    parser: str = "",
    world: dict[str, int] | None = None,
    training: bool = False,
) -> dict[str, Any]:
    """Run the demo in the folder `out`.

    Args:
        out: gets world/, swaps.png and demo.json, and with `training` the runs aligner/ and blender/.
        minutes: time budget for everything with `training`: the networks are trained for what is left of it.
        seed: of the world and of the trainings.
        fresh: delete an earlier demo in `out` first.
        changes: further settings of the recipes of `aligner` and `blender`, `key=value`.
        parser: a run or weights file; by default the one that comes with frustum.
        world: other numbers than WORLD or WORLD_TO_LEARN.
        training: train networks from random weights, instead of taking those that come with frustum.

    Returns:
        The numbers that demo.json holds, too.

    Raises:
        DataError: `out` cannot be written to, or this installation lacks weights. ConfigError: an earlier demo in `out` had another
            seed, or trained. Errors of the stages.
    """
    began = time.time()
    make_folder(out)
    if fresh:
        for name in ("world", *RECIPES, "swaps.png", "plan.json", "demo.json"):
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
    plan = stored_plan(out / "plan.json", seed) or {"seed": seed, "training": training}
    if plan.get("training", True) != training:
        raise ConfigError(f"{out} holds a demo {'without' if training else 'with'} --train: give another --out, or --fresh.")
    write_json(out / "plan.json", plan)
    opened = open_network(parser or _own("parser"))
    recipes = {name: get_recipe(recipe) for name, recipe in RECIPES.items()}
    stages = 6 if training else 3
    with stage(1, "people, in clips", stages):
        size = recipes["aligner"].model.image_size  # type: ignore[attr-defined]
        made = generate_portraits(
            (world or (WORLD_TO_LEARN if training else WORLD)) | {"size": size, "seed": SEED + 1 + seed}, out / "world"
        )
        source = open_portraits(out / "world")
        tokens = source.tokens("swaps")
        learned = f"{len(source.people('train'))} people to learn from, " if training else ""
        say(f"{learned}{len(tokens)} swaps of {len(source.people('val'))} people whom no network saw")
    networks = {} if training else {name: open_network(_own(name))[1] for name in recipes}

    def trained(name: str, until: float, trainings: int) -> nn.Module:
        """A network, trained for its share of the time `until` then."""
        asked = settings.apply(recipes[name], [f"data.root={out / 'world'}", f"train.seed={seed}", *((changes or {}).get(name, []))])
        if name not in plan:  # an interrupted demo goes on with the number that was chosen first
            left = (until - time.time()) / trainings
            plan[name] = choose_steps(asked, max(1.0, left), 2, asked.train.steps or 2, data=source).steps
            write_json(out / "plan.json", plan)
        return train(settings.apply(asked, [f"train.steps={plan[name]}"]), out / name, source=recipes[name].name).model

    if training:
        end = began + 60 * minutes - _AFTER
        with stage(2, f"training {recipes['aligner'].name}", stages):
            networks["aligner"] = trained("aligner", end - _PER_HEAD * len(source.tokens("train_swaps")), 2)
        with stage(3, "drawing heads to learn from", stages):
            write_aligned(str(out / "aligner"), parser or _own("parser"), out / "world")
        with stage(4, f"training {recipes['blender'].name}", stages):
            networks["blender"] = trained("blender", end, 1)
    swapper = HeadSwapper(networks["aligner"], networks["blender"], parse_with(*opened))  # type: ignore[arg-type]
    with stage(stages - 1, "swapping their heads", stages):
        ways = [HeadSwaps(source, swapper), HeadSwaps(source, swapper, is_blended=False)]
        reports = [evaluate(None, way, source, "swaps") for way in ways]
        blended = settings.apply(recipes["blender"], [f"data.root={out / 'world'}"])
        reports.append(evaluate(blended, networks["blender"], source, "swaps", name="exact head, blended"))
        pasted = portrait_baselines(source, swapper.blender.config.policy, tokens)
        reports += [evaluate(None, way, source, "swaps") for way in pasted]
    with stage(stages, "a picture", stages):
        draw_swaps(ways[0], source, tokens, out / "swaps.png")
    print_table(compare(reports))
    if failed := ways[0].failed:
        say(
            f"In {len(failed)} of {len(tokens)} swaps no head came out. There the portrait stays as it is, and that is what the first two "
            "rows count: they say nothing of the networks." + (" Give more --minutes in another --out." if training else "")
        )
    minutes = round((time.time() - began) / 60, 2)
    numbers = numbers_of(reports) | {"world": made, "plan": plan, "failed": failed, "minutes": minutes}
    write_json(out / "demo.json", numbers, indent=2)
    say(f"\n{minutes:.1f} minutes. The swaps: {out / 'swaps.png'}")
    return numbers


def _own(network: str) -> str:
    path = shipped(network)
    if path is None:
        raise DataError(f"this installation of frustum lacks the weights of its {network} (frustum/weights/heads). Install it again.")
    return str(path)


def draw_swaps(way: HeadSwaps, source: Any, tokens: list[str], path: Path) -> None:
    """Write a picture of SHOWN swaps, one a column: source, target, aligned head, swap, perfect swap; grey where no head came out.

    Raises DataError.
    """
    columns = []
    for token in spread(tokens, min(SHOWN, len(tokens))):
        try:
            found = way.swapped(token)
            aligned, made = found.aligned, found.image
        except NoHeadError:
            aligned = made = np.full_like(source.image(token), 127)
        frames = source.source_frames(token)
        true, _ = source.true_swap(token, way.policy)
        columns.append(np.vstack([source.image(frames[len(frames) // 2]), source.image(token), aligned, made, true]))
    rows = np.hstack(columns)
    side = len(rows) // len(_TITLES)
    large = Image.fromarray(rows).resize((rows.shape[1] * 96 // side, 96 * len(_TITLES)), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (large.width + 90, large.height), "white")
    picture.paste(large, (90, 0))
    for i, title in enumerate(_TITLES):
        ImageDraw.Draw(picture).text((6, 96 * i + 42), title, fill="black")
    with atomic_path(path, ".png") as temporary:
        picture.save(temporary, "PNG")
