"""3DPPE's claim in miniature: one 3D point per feature as its position is better than its ray (tables 4, 5 and 6 of the paper).

    python benchmarks/claims/ppe3d.py                                  # all encodings of table 5, the oracle and the control; two seeds
    python benchmarks/claims/ppe3d.py --arms point camera_ray oracle   # some of them
    python benchmarks/claims/ppe3d.py --arms no_depth_loss smooth_l1 hybrid separate  # tables 4 and 6

`ppe3d-mini` is trained with each encoding, with the same budget and seeds, on the same generated world. Votes are off in all: only points
can vote; without them `aids.memory_norm` is what makes attention look nearby. `hybrid` is 3DPPE's depth, `point` the recipe's, which is
predicted directly. So that nothing favours an arm, the learning rate of each is chosen from --lr on a second world, whose scenes are
neither trained nor scored on: by short runs, and if --finalists is more than 1, among the best of these by whole trainings. There is a
control: `ray_mean`, whose rays pass the MLP that the queries share, as points do. It has no depth net, and 8 points where `camera_ray` has
64; the oracle has no depth net either. Cross-entropies of depths are summed over 32 bins: their weight is small, so that they are about as
large as the other depth losses. All arms start from the same encoder, and by the same seeds; but parts that one has and another has not
take random numbers, so that the first weights of the rest differ.
mATE alone misleads while few boxes are found: classes without a match count 1. Read it beside the recall.
What is finished is kept in the folder --out and not done again. --json is written after each result; on another machine the runs that it
holds are not done again either. KEY=VALUE settings come first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import measuring
from benchmarks.claims.tasks import Tasks, claim_parser, fingerprint, generate_missing, run_claim, world_of
from frustum.cli.worlds import generate_world
from frustum.engine import overrides
from frustum.engine.evaluate import evaluate
from frustum.engine.recipe import Recipe
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.files import write_json
from frustum.recipes.finding import get_recipe
from frustum.worlds.street.world_config import WorldConfig

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "ppe3d-mini"
ARMS = {
    "camera_ray": ["model.encoding=camera_ray"],
    "ray_mean": ["model.encoding=ray_mean", "model.ray_depths=8"],
    "feature_guided": ["model.encoding=feature_guided"],
    "topk": ["model.encoding=topk", "model.ray_spacing=ud", "model.score_loss=0.25"],
    "depth_guided_feature": ["model.encoding=depth_guided_feature", "model.score_loss=0.25"],
    "hybrid": ["model.depth=hybrid", "model.depth_loss.distribution_weight=1"],
    "point": ["model.encoding=point3d"],
    "oracle": ["model.encoding=point3d_lidar"],
    # tables 4 and 6
    "no_depth_loss": ["model.depth=hybrid", "model.depth_loss.depth_weight=0"],
    "smooth_l1": ["model.depth=hybrid"],
    "separate": ["model.depth=hybrid", "model.depth_loss.distribution_weight=1", "model.shared_embedding=false"],
}
"""Settings of what is trained, in the order of the paper's table 5."""
WITHOUT_VOTES = ("model.aids.votes=false", "model.aids.memory_norm=true")
TABLE_5 = ("camera_ray", "ray_mean", "feature_guided", "topk", "depth_guided_feature", "hybrid", "point", "oracle")
FIGURES = ("mean_ap", "recall", "nd_score", "mean_ate", "loss")
OTHER_CITY = 7  # seed of the world that learning rates are chosen on


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "ppe3d", settings="settings of all arms")
    parser.set_defaults(seeds=2)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(TABLE_5))
    parser.add_argument("--lr", nargs="+", type=float, default=[5e-4, 1e-3, 2e-3], help="learning rates to choose from")
    parser.add_argument("--lr-steps", type=int, default=500, help="training steps of each run that chooses")
    parser.add_argument("--finalists", type=int, default=1, help="learning rates of each arm that are trained in full")
    parser.add_argument("--finished", action="store_true", help="train nothing: show what is finished, and write it if --json is given")
    options = parser.parse_args(words)
    options.writes = not options.finished or options.json is not None
    options.json = options.json or ROOT / "benchmarks/claims/ppe3d.json"
    options.world, options.other_city = world_of(options), options.out / "other_city"
    recipe = get_recipe(RECIPE).model_dump_json(exclude_defaults=True)
    options.fingerprint = fingerprint(options, str(options.lr_steps), repr((ARMS, WITHOUT_VOTES)), recipe)
    options.out /= options.fingerprint  # results of another budget, recipe or other settings are in a folder of their own
    return options


def tasks_of(options: argparse.Namespace) -> Tasks:
    return Tasks(Path(__file__), options.out)


# ---- one result each, in a process of its own ----------------------------------------------------------------------------------


def recipe_of(arm: str, options: argparse.Namespace, **changes: Any) -> Recipe:
    words = [f"data.root={world_of(options)}", *WITHOUT_VOTES, *ARMS[arm], *options.settings]
    return overrides.apply(get_recipe(RECIPE), [*words, *(f"{key}={value}" for key, value in changes.items())])


def score(recipe: Recipe, model: Any, root: Path) -> dict[str, Any]:
    """Figures of a trained network on the validation scenes of a world."""
    metrics = evaluate(overrides.apply(recipe, [f"data.root={root}"]), model, progress=False).results["detection"]
    figures = {key: metrics[key] for key in ("mean_ap", "recall", "nd_score", "mean_dist_aps")}
    return figures | {"mean_ate": metrics["tp_errors"]["trans_err"]}


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds; an interrupted training goes on where it was stopped."""
    kind, arm, lr, *seed = task.split("+")
    steps, number = (options.steps, seed[0]) if kind == "train" else (options.lr_steps, 1000)
    recipe = recipe_of(arm, options, **{"optim.lr": lr, "train.steps": steps, "train.seed": number})
    result = train(recipe, options.out / task.replace("+", "-"), source=RECIPE, progress=False)
    found = {"lr": recipe.optim.lr, "steps": result.steps, "loss": result.loss}
    if kind == "choose":
        return found | score(recipe, result.model, options.other_city)
    found |= score(recipe, result.model, world_of(options))
    return found | ({"other_city": score(recipe, result.model, options.other_city)} if len(options.lr) > 1 else {})


def finalists(arm: str, options: argparse.Namespace) -> list[float]:
    """The learning rates whose short runs reached the highest mAP in the other city, best first."""
    if len(options.lr) == 1:
        return options.lr
    tasks = tasks_of(options)
    known = [lr for lr in options.lr if tasks.path(f"choose+{arm}+{lr:g}").is_file()]
    return sorted(known, key=lambda lr: -tasks.read(f"choose+{arm}+{lr:g}")["mean_ap"])[: options.finalists]


def trainings(arm: str, options: argparse.Namespace, seeds: Iterable[int]) -> list[str]:
    return [f"train+{arm}+{lr:g}+{seed}" for seed in seeds for lr in finalists(arm, options)]


def runs_of(arm: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The finished trainings of an arm with the learning rate that did best in the other city, in the mean over its seeds."""
    tasks = tasks_of(options)
    by_rate = [_finished(tasks, [f"train+{arm}+{lr:g}+{seed}" for seed in range(options.seeds)]) for lr in finalists(arm, options)]
    most = max(map(len, by_rate), default=0)
    whole = [rows for rows in by_rate if rows and len(rows) == most]  # a rate with fewer seeds than another is not compared yet
    return max(whole, key=lambda rows: sum(row.get("other_city", {}).get("mean_ap", 0.0) for row in rows), default=[])


# ---- all results ------------------------------------------------------------------------------------------------------------------


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """What is finished, as JSON values."""
    tasks = tasks_of(options)
    runs = {arm: runs_of(arm, options) for arm in options.arms}
    choices = {arm: _finished(tasks, [f"choose+{arm}+{lr:g}" for lr in options.lr]) for arm in options.arms if len(options.lr) > 1}
    return {
        "benchmark": "claims/ppe3d",
        "command": " ".join(["python benchmarks/claims/ppe3d.py", *sys.argv[1:]]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "world": {"scenes": options.scenes, "val_scenes": options.val_scenes, "frames": options.frames},
        "budget": {"steps": options.steps, "lr_steps": options.lr_steps, "batch_size": get_recipe(RECIPE).train.batch_size},
        "settings": options.settings,
        "fingerprint": options.fingerprint,
        "accuracy": {
            arm: {key: measuring.mean_and_spread([run[key] for run in rows]) for key in FIGURES} for arm, rows in runs.items() if rows
        },
        "runs": runs,
        "learning_rates": choices,
        "results": tasks.finished(),
    }


def _finished(tasks: Tasks, names: list[str]) -> list[dict[str, Any]]:
    return [tasks.read(name) for name in names if tasks.path(name).is_file()]


def show(numbers: dict[str, Any]) -> None:
    """Percent, mATE in metres; and how much of the way from rays to the oracle each arm goes."""
    accuracy = numbers["accuracy"]
    print(f"\n{'':<22}{'runs':>5}{'lr':>8}{'mAP':>16}{'recall @ 2 m':>16}{'NDS':>16}{'mATE m':>16}{'of the gap':>12}")
    for arm, figures in accuracy.items():
        rows = numbers["runs"][arm]
        cells = [(figures[key], 1 if key == "mean_ate" else 100) for key in FIGURES[:4]]
        text = "".join(f"{unit * cell['mean']:>9.2f} +- {unit * (cell['std'] or 0):4.2f}" for cell, unit in cells)
        print(f"{arm:<22}{len(rows):>5}{rows[0]['lr']:>8g}{text}{_of_gap(accuracy, arm):>12}")


def _of_gap(accuracy: dict[str, Any], arm: str) -> str:
    if not {"camera_ray", "oracle"} <= accuracy.keys():
        return "-"
    ray, oracle, here = (accuracy[name]["mean_ap"]["mean"] for name in ("camera_ray", "oracle", arm))
    return f"{100 * (here - ray) / (oracle - ray):.0f} %" if oracle > ray else "-"


def main() -> None:
    options = parse()
    run_claim(options, tasks_of(options), work, make_missing, collect, show)


def make_missing(options: argparse.Namespace, tasks: Tasks) -> None:
    """The worlds, the short runs that choose, and the trainings."""
    generate_missing(options)
    other = WorldConfig(train_scenes=1, val_scenes=options.val_scenes, frames=options.frames, seed=OTHER_CITY)
    if len(options.lr) > 1 and not (options.other_city / other.version).is_dir():
        generate_world(other, options.other_city)

    def say(task: str, found: dict[str, Any]) -> str:
        write_json(options.json, collect(options), indent=2)
        return f"mAP {100 * found['mean_ap']:.2f}, recall {100 * found['recall']:.1f}"

    if len(options.lr) > 1:
        tasks.make([f"choose+{arm}+{lr:g}" for arm in options.arms for lr in options.lr], options.jobs, say)
    tasks.make(
        [task for seed in range(options.seeds) for arm in options.arms for task in trainings(arm, options, [seed])], options.jobs, say
    )


if __name__ == "__main__":
    main()
