"""Panoptic-FlashOcc's claims in miniature: objects at little cost, grouped by centres that know their class; more history helps.

    python benchmarks/claims/panoptic_flashocc.py                      # train three seeds, score every grouping, measure the cost
    python benchmarks/claims/panoptic_flashocc.py --measure-again      # the cost once more, on a quieter machine
    python benchmarks/claims/panoptic_flashocc.py --truth-only         # only what each grouping is worth by itself, in minutes
    python benchmarks/claims/panoptic_flashocc.py --history 0 1 8 --scenes 50 --val-scenes 12 --frames 20 --steps 6000 --seeds 2 \\
        --out runs/claims/history6000                                  # more history: three networks, two seeds each

`panoptic-flashocc-mini` is trained with and without its instance part, with the same budget on the same generated world. The trained
networks answer each validation frame once; every way to group voxels is scored on these same answers (benchmarks/claims/grouping.py).
With --history, networks that read so many past keyframes are trained instead, and scored (benchmarks/claims/history.py).
Speed is measured in turn within one process. What is finished is kept in the folder --out and not done again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import grouping, history, measuring
from benchmarks.claims.tasks import Tasks, claim_parser, generate_missing, world_of
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.engine import overrides
from frustum.engine.feed import TrainingFeed, evaluation_batches
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.recipe import Recipe
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.files import write_json
from frustum.nn.instances import panoptic_predictions
from frustum.recipes.finding import get_recipe
from frustum.types.classes import OBJECT_CLASSES
from frustum.types.predictions import PredictedOccupancy, Prediction
from frustum.weights.loading import load
from frustum.worlds.street.world_config import WorldConfig

ROOT = Path(__file__).resolve().parents[2]
RECIPE, PUBLISHED = "panoptic-flashocc-mini", "panoptic-flashocc-tiny"
VARIANTS = {"panoptic": [], "semantic": ["model.instances=null"]}
"""Settings of what is trained."""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "panoptic_flashocc", settings="settings of the recipe")
    parser.add_argument("--history", type=int, nargs="*", default=[], help="train with these numbers of past keyframes instead")
    parser.add_argument("--without-published", action="store_true", help="leave out the timings at the published size")
    parser.add_argument("--truth-only", action="store_true", help="only group true voxels by true centres; nothing is trained")
    options = parser.parse_args(words)
    if options.history and max(options.history) >= options.frames:
        parser.error(f"a history of {max(options.history)} needs scenes of at least {max(options.history) + 1} keyframes; add --frames")
    name = "panoptic_flashocc_history" if options.history else "panoptic_flashocc"
    options.json = options.json or ROOT / f"benchmarks/claims/{name}.json"
    return options


def recipe_of(variant: str, seed: int, options: argparse.Namespace) -> Recipe:
    """`variant` is a name in VARIANTS, or `history8` and the like."""
    own = VARIANTS[variant] if variant in VARIANTS else history.settings(variant)
    changes = [f"data.root={world_of(options)}", f"train.steps={options.steps}", f"train.seed={seed}", *own]
    return overrides.apply(get_recipe(RECIPE), [*changes, *options.settings])


# ---- one result each, in a process of its own ----------------------------------------------------------------------------------


def run_training(variant: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score; an interrupted training goes on where it was stopped."""
    recipe = recipe_of(variant, seed, options)
    result = train(recipe, options.out / f"{variant}-{seed}", source=RECIPE, progress=False)
    figures = history.score(recipe, result.model, max(options.history)) if options.history else grouping.score(recipe, result.model)
    return {"seed": seed, "steps": result.steps, "loss": result.loss, **figures}


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a frame with and without the instance part, of its two halves, and of a training step."""
    recipes = {variant: recipe_of(variant, 0, options) for variant in VARIANTS}
    networks = {variant: load(recipe, options.out / f"{variant}-0") for variant, recipe in recipes.items()}
    predictors = {variant: NetworkPredictor(networks[variant], recipe.runtime) for variant, recipe in recipes.items()}
    recipe, network = recipes["panoptic"], networks["panoptic"]
    database = recipe.data.open()
    token = database.tokens(recipe.data.val_split)[0]
    batch = next(evaluation_batches(recipe, database, [token], labels=False))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=predictors["panoptic"].bf16):
        outputs = network.eval()(batch)
        found = [replace(p, occupancy=replace(p.occupancy, instances=None, objects=None)) for p in network.predict(outputs, batch)]

    def head() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=predictors["panoptic"].bf16):
            network.centre_head(outputs["bev"])

    jobs = {f"{name}_frame": lambda n=name: predictors[n](batch) for name in VARIANTS}
    jobs |= {
        "centre_head": head,
        "decode_and_group": lambda: panoptic_predictions(found, outputs, network.config.instances, network.map_grid),
    }
    times = measuring.in_turn(jobs, options.repeats)
    labelled = TrainingFeed(recipe, recipe.data.open()).next_batches()[0]
    steps = {f"{name}_training_step": measuring.training_step(networks[name], recipes[name], labelled) for name in VARIANTS}
    times |= measuring.in_turn(steps, options.repeats)
    return {
        "milliseconds": times,
        "parameters": {name: measuring.parameters(networks[name]) for name in VARIANTS},
        "precision": "bf16" if predictors["panoptic"].bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "repeats": options.repeats,
    }


def published_cost(options: argparse.Namespace) -> dict[str, Any]:
    """The same at the published size with random weights; centres and voxels are those of a labelled frame."""
    recipe = overrides.apply(get_recipe(PUBLISHED), [f"data.root={world_of(options)}", "train.num_workers=0"])
    database = recipe.data.open()
    token = database.tokens(recipe.data.val_split)[0]
    batch = next(evaluation_batches(recipe, database, [token], labels=True))
    networks = {name: overrides.apply(recipe, VARIANTS[name]).model.build().eval() for name in VARIANTS}
    semantic = networks["semantic"]
    grid = recipe.model.grid
    boxes, classes = grouping.true_boxes(database, token)
    outputs = grouping.perfect_outputs(boxes, classes, grid)
    found = [Prediction(token, PredictedOccupancy(batch.need(OccupancyLabels).semantics[0], grid, recipe.model.class_names))]
    head, config = networks["panoptic"].aux_centerness_head, networks["panoptic"].config.instances
    bev = torch.randn(1, recipe.model.bev_channels, 200, 200)
    with torch.inference_mode():
        jobs = {
            "semantic_frame": lambda: semantic.predict(semantic(batch), batch),
            "centre_head": lambda: head(bev),
            "decode_and_group": lambda: panoptic_predictions(found, outputs, config, grid),
        }
        times = measuring.in_turn(jobs, max(3, options.repeats // 5), warm_up=1)
    return {"milliseconds": times, "objects": len(boxes), "precision": "fp32", "threads": torch.get_num_threads()}


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds."""
    kind, *words = task.split("+")
    if kind == "train":
        return run_training(words[0], int(words[1]), options)
    if kind == "truth":
        return grouping.score_truth(recipe_of("panoptic", 0, options))
    return cost(options) if kind == "cost" else published_cost(options)


# ---- all results ------------------------------------------------------------------------------------------------------------------


def origin(options: argparse.Namespace) -> dict[str, Any]:
    """Where figures come from, as JSON values."""
    return {
        "benchmark": "claims/panoptic_flashocc",
        "command": " ".join(["python benchmarks/claims/panoptic_flashocc.py", *(w for w in sys.argv[1:] if w != "--measure-again")]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "world": {key: getattr(options, key) for key in ("scenes", "val_scenes", "frames")} | {"image_size": WorldConfig().image_size},
        "budget": {"steps": options.steps, "seeds": list(range(options.seeds))},
        "settings": options.settings,
    }


def collect(options: argparse.Namespace, tasks: Tasks, runs: dict[str, list[dict[str, Any]]], timed: list[str]) -> dict[str, Any]:
    """Everything as JSON values."""
    spread = measuring.mean_and_spread
    accuracy = {variant: {key: spread([r[key] for r in rows]) for key in ("miou", "ray_iou")} for variant, rows in runs.items()}
    groups = {}
    for name in grouping.GROUPINGS:
        rows = [run["groupings"][name] for run in runs["panoptic"]]
        groups[name] = {key: spread([r[key] for r in rows]) for key in rows[0] if key != "raypq_by_class"}
    rays = {name: [run["groupings"][name]["raypq"] for run in runs["panoptic"]] for name in grouping.GROUPINGS}
    return {
        **origin(options),
        "accuracy": accuracy,
        "groupings": groups,
        "groupings_of_the_truth": tasks.read("truth")["groupings"],
        "raypq_gain_of_centres_over": {
            name: spread([a - b for a, b in zip(rays["centres"], values, strict=True)]) for name, values in rays.items()
        },
        "runs": runs,
        "cost": {task: tasks.read(task) for task in timed},
    }


def show(numbers: dict[str, Any]) -> None:
    def cell(found: dict[str, Any]) -> str:
        return f"{100 * found['mean']:7.2f} +- {100 * (found['std'] or 0):4.2f}"

    print(f"\npercent, mean over {len(numbers['budget']['seeds'])} seeds +- spread")
    for variant, found in numbers["accuracy"].items():
        print(f"  {variant:<16} mIoU {cell(found['miou'])}   RayIoU {cell(found['ray_iou'])}")
    print(f"  {'grouping':<16} {'RayPQ':>16} {'of things':>16} {'voxel PQ':>16} {'of things':>16}")
    for name, found in numbers["groupings"].items():
        cells = [cell(found[key]) for key in ("raypq", "raypq_things", "voxel_pq", "voxel_pq_things")]
        print(f"  {name:<16} " + " ".join(f"{c:>16}" for c in cells))
    show_truth(numbers["groupings_of_the_truth"])
    for task, found in numbers["cost"].items():
        print(f"{task}, median ms: " + ", ".join(f"{name} {value:g}" for name, value in found["milliseconds"].items()))


def show_truth(groups: dict[str, Any]) -> None:
    keys = ("raypq", "raypq_things", "voxel_pq", "voxel_pq_things")
    print(f"\n  {'true classes and centres':<24} " + " ".join(f"{key:>16}" for key in keys) + "   RayPQ of " + ", ".join(OBJECT_CLASSES))
    for name, found in groups.items():
        classes = ", ".join("-" if v is None else f"{100 * v:.1f}" for v in found["raypq_by_class"].values())
        print(f"  {name:<24} " + " ".join(f"{100 * found[key]:>16.2f}" for key in keys) + f"   {classes}")


def main() -> None:
    options = parse()
    tasks = Tasks(Path(__file__), options.out)
    if options.work:
        tasks.write(options.work, work(options.work, options))
        return
    generate_missing(options)
    if options.truth_only:
        tasks.make(["truth"])
        show_truth(tasks.read("truth")["groupings"])
        return
    timed = ["cost"] if options.without_published else ["cost", "published_cost"]
    if options.measure_again:
        tasks.forget(timed)
    variants = [f"history{count}" for count in options.history] or list(VARIANTS)
    # the networks in turn, so that whatever else the machine does hits all
    trained = [f"train+{variant}+{seed}" for seed in range(options.seeds) for variant in variants]
    others = [task for task in trained if tasks.path(task).is_file() and tasks.read(task)["steps"] != options.steps]
    if others:
        sys.exit(f"{options.out} holds results of {tasks.read(others[0])['steps']} steps, not {options.steps}: give another --out.")
    tasks.make(trained, options.jobs, lambda _, r: f"mIoU {100 * r['miou']:.2f}, RayIoU {100 * r['ray_iou']:.2f}")
    runs = {variant: [tasks.read(f"train+{variant}+{seed}") for seed in range(options.seeds)] for variant in variants}
    if options.history:
        numbers = origin(options) | history.collect(runs)
        history.show(numbers)
    else:
        tasks.make(["truth", *timed])
        numbers = collect(options, tasks, runs, timed)
        show(numbers)
    write_json(options.json, numbers, indent=2)


if __name__ == "__main__":
    main()
