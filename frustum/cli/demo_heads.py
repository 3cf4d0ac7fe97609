"""`frustum demo heads`: heads of people whom no network saw, swapped by the networks that come with frustum, judged by the exact truth."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from frustum.cli.common import say
from frustum.cli.demo import stage, stored_plan
from frustum.cli.evaluation import numbers_of, print_table
from frustum.cli.head_swaps import HeadSwaps, parse_with
from frustum.cli.resolve import open_network
from frustum.cli.worlds import generate_portraits
from frustum.data.portraits.opening import open_portraits
from frustum.data.source import spread
from frustum.engine.evaluate import evaluate
from frustum.engine.reports import compare
from frustum.files import atomic_path, make_folder, write_json
from frustum.locks import owning
from frustum.models.head_swap import HeadSwapper, NoHeadError
from frustum.tasks.portrait_baselines import portrait_baselines
from frustum.weights.shipped import NETWORKS, SEED, shipped

STAGES = 4
PEOPLE, FRAMES = 60, 6  # every fifth of the people gets the heads of four others
SHOWN = 10  # swaps in the picture
_TITLES = ("source", "target", "aligned head", "swap", "perfect swap")


@owning("out", "frustum demo heads")
def run_head_demo(
    out: Path, seed: int = 0, fresh: bool = False, people: int = PEOPLE, networks: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run the demo in the folder `out`.

    Args:
        out: gets world/, swaps.png and demo.json.
        seed: another one makes other people; none of them is in the training of the networks.
        fresh: delete an earlier demo in `out` first.
        people: of the world; every fifth is swapped.
        networks: runs or weights files of `aligner`, `blender` and `parser`; by default those that come with frustum.

    Returns:
        The numbers that demo.json holds, too.

    Raises:
        DataError: `out` cannot be written to. ConfigError: an earlier demo in `out` had another seed. Errors of the stages.
    """
    began = time.time()
    make_folder(out)
    if fresh:
        for name in ("world", "swaps.png", "plan.json", "demo.json"):
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
    stored_plan(out / "plan.json", seed)
    write_json(out / "plan.json", {"seed": seed})
    opened = {name: open_network((networks or {}).get(name) or str(shipped(name))) for name in NETWORKS}
    aligner, blender = (opened[name][1] for name in ("aligner", "blender"))
    swapper = HeadSwapper(aligner, blender, parse_with(*opened["parser"]))  # type: ignore[arg-type]
    with stage(1, "heads of people whom the networks never saw", STAGES):
        world = {"identities": people, "clips": 1, "frames": FRAMES, "size": swapper.side, "seed": SEED + 1 + seed}
        made = generate_portraits(world, out / "world")
        source = open_portraits(out / "world")
        tokens = source.tokens("swaps")
        say(f"{len(source.people('val'))} people, {len(tokens)} swaps of which the perfect one is known to the pixel")
    with stage(2, "swapping each head, from the frames of another clip", STAGES):
        ways = [HeadSwaps(source, swapper), HeadSwaps(source, swapper, is_blended=False)]
        reports = [evaluate(None, way, source, "swaps") for way in ways]
    with stage(3, "what pasting a head gives", STAGES):
        pasted = portrait_baselines(source, swapper.blender.config.policy, tokens)
        reports += [evaluate(None, way, source, "swaps") for way in pasted]
    with stage(4, "a picture", STAGES):
        draw_swaps(ways[0], source, tokens, out / "swaps.png")
    print_table(compare(reports))
    if ways[0].failed:
        say(f"Of {len(ways[0].failed)} of {len(tokens)} swaps no head came out.")
    gained = [report.results["portrait"]["psnr_head"] for report in reports]
    aligned = next(i for i, report in enumerate(reports) if report.name == "aligned and pasted, recoloured")
    say(f"In the head the swap is {gained[0] - gained[aligned]:+.1f} dB beside the head that was pasted by its landmarks and recoloured.")
    minutes = round((time.time() - began) / 60, 2)
    numbers = numbers_of(reports) | {"world": made, "failed": ways[0].failed, "minutes": minutes}
    write_json(out / "demo.json", numbers, indent=2)
    say(f"\n{minutes:.1f} minutes. The swaps: {out / 'swaps.png'}")
    return numbers


def draw_swaps(way: HeadSwaps, source: Any, tokens: list[str], path: Path) -> None:
    """Write a picture of SHOWN swaps, one a column: source, target, aligned head, swap, perfect swap. Raises DataError."""
    columns = []
    for token in spread(tokens, min(SHOWN, len(tokens))):
        try:
            found = way.swapped(token)
            aligned, made = found.aligned, found.image
        except NoHeadError:
            aligned, made = np.full_like(source.image(token), 127), source.image(token)
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
