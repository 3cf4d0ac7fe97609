"""UltimateDO's claim in miniature: one network for boxes and occupancy is better at both than a network for each, at little cost.

    python benchmarks/claims/ultimatedo.py                      # two seeds of six networks, then speed and memory
    python benchmarks/claims/ultimatedo.py --seeds 3            # another seed: what is finished is kept
    python benchmarks/claims/ultimatedo.py --measure-again      # speed and memory once more, on a quieter machine

`ultimatedo-mini` is trained for boxes alone, for occupancy alone, and for both with each priority (docs/methods/ultimatedo.md), with the
same budget on the same generated world; with one seed, all begin with the same weights below the heads. Speed is measured in turn within
one process, memory in a process of its own for each figure. What is finished is kept in the folder --out and not done again, a training
that was interrupted goes on where it was stopped, and the JSON is written anew after every run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import measuring
from benchmarks.claims.tasks import Tasks, claim_parser, fingerprint, generate_missing, world_of
from frustum.engine import overrides
from frustum.engine.evaluate import evaluate
from frustum.engine.recipe import Recipe
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.files import write_json
from frustum.recipes.finding import get_recipe
from frustum.tasks import TASKS
from frustum.worlds.street.world_config import WorldConfig

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "ultimatedo-mini"
SINGLE = {"detection": ["model.tasks.occupancy=null"], "occupancy": ["model.tasks.detection=null"]}
JOINT = {f"joint-{priority}": [f"model.tasks.priority={priority}"] for priority in ("equal", "detection", "occupancy", "none")}
ARMS = SINGLE | JOINT
"""Settings of what is trained."""
FIGURES = {
    "detection": {"map": "mean_ap", "recall": "recall", "nds": "nd_score", "mate": "tp_errors.trans_err"},
    "occupancy": {"miou": "miou.camera", "ray_iou": "ray_iou.mean", "geometric_iou": "geometric_iou.camera"},
}
"""By task, what is compared and the key of the figure; all but mATE, in metres, are ratios, and higher is better."""
MEASUREMENTS = [
    "speed",
    *(f"memory+{arm}+{kind}" for arm in ("detection", "occupancy", "joint-equal") for kind in ("prediction", "training")),
]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "ultimatedo", settings="settings of the recipe")
    parser.set_defaults(steps=700, seeds=2, jobs=1)
    options = parser.parse_args(words)
    options.json = options.json or ROOT / "benchmarks/claims/ultimatedo.json"
    options.world = world_of(options)
    options.fingerprint = fingerprint(options, repr(ARMS), get_recipe(RECIPE).model_dump_json(exclude_defaults=True))
    options.out /= options.fingerprint  # results of another budget, recipe or other settings are in a folder of their own
    return options


def recipe_of(arm: str, seed: int, options: argparse.Namespace) -> Recipe:
    changes = [f"data.root={world_of(options)}", f"train.steps={options.steps}", f"train.seed={seed}", *ARMS[arm]]
    return overrides.apply(get_recipe(RECIPE), [*changes, *options.settings])


# ---- one result each, in a process of its own ----------------------------------------------------------------------------------


def run_training(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate; an interrupted training goes on where it was stopped."""
    recipe = recipe_of(arm, seed, options)
    result = train(recipe, options.out / f"{arm}-{seed}", source=RECIPE, progress=False)
    report = evaluate(recipe, result.model, progress=False)
    found: dict[str, Any] = {"seed": seed, "steps": result.steps, "loss": result.loss}
    for task in TASKS:
        if task.name in report.results:
            figures = {figure.key: figure.value for figure in task.figures(report.results[task.name])}
            found |= {name: figures[key] for name, key in FIGURES[task.name].items() if key in figures}
    if "detection" in report.results:
        metrics = report.results["detection"]
        found |= {"ap_by_class": metrics["mean_dist_aps"], "errors": metrics["tp_errors"], "counts": metrics["counts"]}
    return found


def blind(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of answers that do not look at the images."""
    recipe = recipe_of("joint-equal", 0, options)
    source, split = recipe.data.open(), recipe.data.val_split
    found: dict[str, Any] = {}
    for task in TASKS:
        for baseline in task().baselines(source, recipe.data.train_split) if task.name in FIGURES else ():
            metrics = evaluate(recipe, baseline, source, split, progress=False).results[task.name]
            figures = {figure.key: figure.value for figure in task.figures(metrics)}
            found[baseline.name] = {name: figures[key] for name, key in FIGURES[task.name].items() if key in figures}
    return found


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds."""
    kind, *words = task.split("+")
    if kind == "train":
        return run_training(words[0], int(words[1]), options)
    if kind == "blind":
        return blind(options)
    if kind == "memory":
        return measuring.network_memory(recipe_of(words[0], 0, options), training=words[1] == "training")
    arms = ["joint-equal", *(arm for arm in ARMS if arm != "joint-equal")]  # the first one's batch has the labels of all
    return measuring.network_speed({arm: recipe_of(arm, 0, options) for arm in arms}, options.repeats)


# ---- all results ------------------------------------------------------------------------------------------------------------------


def joint_minus_single(runs: dict[str, dict[int, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By network of both tasks and figure, its difference from the network of that task alone, for every seed that both have."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for arm in (arm for arm in JOINT if arm in runs):
        found[arm] = {}
        for single, figures in FIGURES.items():
            seeds = [seed for seed in runs[arm] if seed in runs.get(single, {})]
            for name in figures if seeds else ():
                pairs = [(runs[arm][seed].get(name), runs[single][seed].get(name)) for seed in seeds]
                known = [a - b for a, b in pairs if a is not None and b is not None]
                if len(known) == len(seeds):
                    found[arm][name] = measuring.mean_and_spread(known) | {"seeds": seeds}
    return found


def collect(options: argparse.Namespace, tasks: Tasks) -> dict[str, Any]:
    """Everything that is finished, as JSON values."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for arm in ARMS:
        done = [seed for seed in range(options.seeds) if tasks.path(f"train+{arm}+{seed}").is_file()]
        if done:
            runs[arm] = {seed: tasks.read(f"train+{arm}+{seed}") for seed in done}
    names = [name for figures in FIGURES.values() for name in figures]
    accuracy = {}
    for arm, rows in runs.items():
        known = {name: [row[name] for row in rows.values() if row.get(name) is not None] for name in names}
        accuracy[arm] = {name: measuring.mean_and_spread(values) for name, values in known.items() if values}
    numbers: dict[str, Any] = {
        "benchmark": "claims/ultimatedo",
        "command": " ".join(["python benchmarks/claims/ultimatedo.py", *(w for w in sys.argv[1:] if w != "--measure-again")]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "world": {key: getattr(options, key) for key in ("scenes", "val_scenes", "frames")} | {"image_size": WorldConfig().image_size},
        "budget": {"steps": options.steps, "batch_size": get_recipe(RECIPE).train.batch_size, "seeds": list(range(options.seeds))},
        "settings": options.settings,
        "fingerprint": options.fingerprint,
        "results": tasks.finished(),
        "accuracy": accuracy,
        "joint_minus_single": joint_minus_single(runs),
        "runs": {arm: list(rows.values()) for arm, rows in runs.items()},
    }
    if tasks.path("blind").is_file():
        numbers["blind"] = tasks.read("blind")
    if all(tasks.path(task).is_file() for task in MEASUREMENTS):
        numbers["network"] = {arm: dict(found) for arm, found in tasks.read("speed").items()}
        for _, arm, kind in (task.split("+") for task in MEASUREMENTS if "+" in task):
            numbers["network"][arm].setdefault("peak_memory_mib", {})[kind] = tasks.read(f"memory+{arm}+{kind}")
    return numbers


def _unit(name: str) -> float:
    return 1.0 if name == "mate" else 100.0


def show(numbers: dict[str, Any]) -> None:
    names = [name for figures in FIGURES.values() for name in figures]
    seeds = [str(seed) for seed in numbers["budget"]["seeds"]]

    def row(title: str, values: dict[str, Any], sign: str = "") -> None:
        cells = ("-" if values.get(name) is None else f"{_unit(name) * values[name]:{sign}.2f}" for name in names)
        print(f"{title:<24}" + "".join(f"{cell:>14}" for cell in cells))

    print(f"\n{'percent, mATE in metres':<24}" + "".join(f"{name:>14}" for name in names))
    for name, values in numbers.get("blind", {}).items():
        row(name, values)
    for arm, rows in numbers["runs"].items():
        for values in rows:
            row(f"{arm}, seed {values['seed']}", values)
    print(f"\njoint minus single, seeds {', '.join(seeds)}")
    for arm, found in numbers["joint_minus_single"].items():
        for seed in numbers["budget"]["seeds"]:
            row(f"{arm}, seed {seed}", {n: d["values"][d["seeds"].index(seed)] for n, d in found.items() if seed in d["seeds"]}, "+")
        row(f"{arm}, mean", {name: d["mean"] for name, d in found.items()}, "+")
    for arm, found in numbers.get("network", {}).items():
        peaks = {kind: memory["rise_mib"] for kind, memory in found.get("peak_memory_mib", {}).items()}
        memory = ", ".join(f"{kind} {value:.0f} MiB" for kind, value in peaks.items())
        times = f"{found['latency_ms']:>9.1f} ms a frame{found['training_step_ms']:>9.1f} ms a step"
        print(f"{arm:<18}{found['parameters']:>10,} weights{times}  {memory}")


def main() -> None:
    options = parse()
    tasks = Tasks(Path(__file__), options.out)
    if options.work:
        tasks.write(options.work, work(options.work, options))
        return
    generate_missing(options)
    trainings = [f"train+{arm}+{seed}" for seed in range(options.seeds) for arm in ARMS]
    tasks.restore(options.json, options.fingerprint)
    if options.measure_again:
        tasks.forget(MEASUREMENTS)
    while missing := [task for task in [*trainings, "blind", *MEASUREMENTS] if not tasks.path(task).is_file()]:
        kind = missing[0].split("+")[0]
        jobs = options.jobs if kind == "train" else 1
        tasks.make([task for task in missing if task.startswith(kind)][:jobs], jobs)
        write_json(options.json, collect(options, tasks), indent=2)
    numbers = collect(options, tasks)
    write_json(options.json, numbers, indent=2)
    show(numbers)


if __name__ == "__main__":
    main()
