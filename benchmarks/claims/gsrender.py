"""GSRender's claim in miniature: Gaussians in place of samples along rays, and Ray Compensation, when all labels are points in images.

    python benchmarks/claims/gsrender.py                                   # every arm, two seeds, and the blind prior
    python benchmarks/claims/gsrender.py --arms samples loss               # some groups; or arms by their names
    python benchmarks/claims/gsrender.py --arms gaussians camera-1 --seeds 3
    python benchmarks/claims/gsrender.py --finished                        # train nothing: tables of what is finished

The groups, each with what differs within it; an arm that is in several is trained once:

- samples: renderocc-mini with the published loss (`loss.depth=silog`, logits that are not normalised, no free space, no sparsity) and 32
  to 256 samples along a ray of 80 m (`renderer=march`, a step of 80 / N m; half of them and fewer lie in the grid), the exact traversal,
  and Gaussians, which have no such number.
- loss: the published loss, and that of the mini recipes (`hit`); of the traversal, and of Gaussians, which are read out as the recipe says.
- shifts: of mean and scale of the Gaussians: both, that of the mean, that of the scale (the recipe's own), none.
- readout: the opacity of all Gaussians at the middle of a voxel (the recipe's own), or that of the voxel's Gaussian alone.
- compensation: none, and the keyframes one before and after by `resample` or by `camera`. interval: one to three keyframes away, by
  `camera`. In scenes of five keyframes the middle one has none that is three away.
- dynamic: points of moving classes in adjacent keyframes are never drawn, are drawn with a weight of 0.3, or as all others are
  (`views.moving_weight`); what is drawn counts in full (`loss.moving_weight=1`; where nothing is drawn, that says nothing). Not of the
  paper: `clear`, points behind where something moving is now are not drawn (`views.uncovered=false`), nor are those on it, or they are.
- labels3d, mixed: flashocc-tiny with the 3D labels of all scenes or of a tenth, each without and with the render loss. Without it, a tenth
  of the scenes is all that is trained on, so that every step has 3D labels; with it, the others come, too, with 2D labels, in half of the
  steps. A voxel is read out where the probability that it is occupied reaches a threshold; `own` is the most likely class.

All arms have the same steps, seeds, trunk, learning rate (4e-3) and class weights; renderocc-mini and gsrender-mini draw 4,000 points a
step, of which Ray Compensation takes its share. RenderOcc's losses of entropy and distortion are not part of the published loss here: they
are of its own renderer alone. The best read-out threshold moves with the renderer and the loss, so that any fixed one fakes effects. It is
chosen for every run by the mIoU of training keyframes, which takes 3D labels; figures at the recipe's own one are beside it.

`runs` are duplicates: how many separate runs of occupied voxels a ray to a LiDAR point within 30 m crosses on its 30 m, things behind the
point included. Where all is occupied there is 1, where nothing is there are none: compare them with the truth's.

With --kitti ROOT, an imported drive (docs/data.md), gsrender-mini-kitti learns from the depth of LiDAR points alone. It learns no class, so
that shapes are scored: all that is occupied is one class, and voxels of the true ground do not count in IoU.

What is finished is kept in the folder --out and not done again, --json is written after each result; on another machine what it holds is
not done again either. KEY=VALUE settings come first.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import measuring, readout
from benchmarks.claims.tasks import Tasks, claim_parser, fingerprint, generate_missing, recipe_json, run_claim, world_of
from frustum.engine import overrides
from frustum.engine.recipe import Recipe
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.files import write_json
from frustum.recipes.finding import get_recipe

ROOT = Path(__file__).resolve().parents[2]
STEPS, SEEDS = 1000, 2
SAMPLES = (32, 64, 128, 256)
RAY = 80.0  # metres that `voxel_march` follows a ray


class Arm(NamedTuple):
    """What is trained: a recipe, and settings of it."""

    recipe: str
    words: tuple[str, ...] = ()


_SILOG = ("model.loss.window_share=0", "model.loss.free_weight=0", "model.loss.depth=silog")
_PUBLISHED = (*_SILOG, "model.loss.normalise=false", "model.loss.sparsity=0")
_COUNTS = "model.loss.moving_weight=1"


def _near(interval: int, compensation: str, *words: str) -> Arm:
    views = (f"model.views.adjacent=-{interval},{interval}", "model.views.drawn=1")
    return Arm("gsrender-mini", (*views, f"model.compensation={compensation}", *words))


ARMS = {
    **{f"march-{n}": Arm("renderocc-mini", (*_PUBLISHED, "model.renderer=march", f"model.step={RAY / n}")) for n in SAMPLES},
    "traversal-silog": Arm("renderocc-mini", _PUBLISHED),
    "gaussians-silog": Arm("gsrender-mini", _PUBLISHED),
    "traversal": Arm("renderocc-mini"),
    "gaussians": Arm("gsrender-mini"),
    "mean-shift": Arm("gsrender-mini", ("model.head.mean_shift=0.5", "model.head.scale_shift=0")),
    "both-shifts": Arm("gsrender-mini", ("model.head.mean_shift=0.5",)),
    "no-shifts": Arm("gsrender-mini", ("model.head.scale_shift=0",)),
    "no-splat-readout": Arm("gsrender-mini", ("model.readout=opacity", "model.threshold=0.05")),
    "resample-1": _near(1, "resample"),
    **{f"camera-{interval}": _near(interval, "camera") for interval in (1, 2, 3)},
    "moving-weighted": _near(1, "camera", "model.views.moving_weight=0.3", _COUNTS),
    "moving-kept": _near(1, "camera", "model.views.moving_weight=1", _COUNTS),
    "moving-clear": _near(1, "camera", "model.views.uncovered=false"),
    "moving-kept-clear": _near(1, "camera", "model.views.moving_weight=1", _COUNTS, "model.views.uncovered=false"),
    "labels3d": Arm("flashocc-tiny"),
    "labels3d-render": Arm("flashocc-mini-render", ("data.labelled_share=1", "data.labelled_repeat=1")),
    "labels10": Arm("flashocc-tiny", ("data.labelled_share=0.1", "data.labelled_only=true")),
    "labels10-render": Arm("flashocc-mini-render"),
    "kitti": Arm("gsrender-mini-kitti"),
}
MARCHES = tuple(f"march-{n}" for n in SAMPLES)
GROUPS = {
    "samples": (*MARCHES, "traversal-silog", "gaussians-silog"),
    "loss": ("traversal-silog", "traversal", "gaussians-silog", "gaussians"),
    "shifts": ("both-shifts", "mean-shift", "gaussians", "no-shifts"),
    "readout": ("gaussians", "no-splat-readout"),
    "compensation": ("gaussians", "resample-1", "camera-1"),
    "interval": ("camera-1", "camera-2", "camera-3"),
    "dynamic": ("camera-1", "moving-weighted", "moving-kept", "moving-clear", "moving-kept-clear"),
    "labels3d": ("labels3d",),
    "mixed": ("labels3d", "labels3d-render", "labels10", "labels10-render"),
}
GAPS = ("miou", "ray_iou")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "gsrender", settings="settings of all arms")
    parser.set_defaults(steps=STEPS, seeds=SEEDS)
    names = [*GROUPS, *(arm for arm in ARMS if arm not in GROUPS and arm != "kitti")]
    parser.add_argument("--arms", nargs="+", choices=names, default=list(GROUPS), metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--kitti", type=Path, metavar="ROOT", help="an imported KITTI drive, to learn from depth alone there, too")
    parser.add_argument("--finished", action="store_true", help="train nothing: show what is finished, and write it if --json is given")
    options = parser.parse_args(words)
    options.arms = list(dict.fromkeys(arm for name in options.arms for arm in GROUPS.get(name, (name,))))
    options.writes = not options.finished or options.json is not None
    options.json = options.json or ROOT / "benchmarks/claims/gsrender.json"
    options.world = world_of(options)
    options.fingerprint = fingerprint(options, repr((readout.THRESHOLDS, readout.SWEPT, readout.FAR, readout.STEP, readout.RAYS)))
    options.out /= options.fingerprint  # results of another budget or other settings are in a folder of their own
    return options


def tasks_of(options: argparse.Namespace) -> Tasks:
    return Tasks(Path(__file__), options.out)


def training(arm: str, seed: int, options: argparse.Namespace) -> str:
    """The name of a result: of an arm whose recipe or settings changed it is another one, and those of the others stay."""
    swept = () if hasattr(get_recipe(ARMS[arm].recipe).model, "threshold") else ("read out at several thresholds",)
    return f"train+{arm}+{fingerprint(options, recipe_json(ARMS[arm].recipe), repr(ARMS[arm].words), *swept)}+{seed}"


# ---- one result each, in a process of its own ----------------------------------------------------------------------------------


def recipe_of(arm: str, seed: int, options: argparse.Namespace) -> Recipe:
    root = options.kitti if arm == "kitti" else world_of(options)
    words = [f"data.root={root}", f"train.steps={options.steps}", f"train.seed={seed}", *ARMS[arm].words]
    return overrides.apply(get_recipe(ARMS[arm].recipe), [*words, *options.settings])


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds; an interrupted training goes on where it was stopped."""
    if task == "blind+kitti":
        recipe = recipe_of("kitti", 0, options)
        return readout.score_blind(recipe, shapes=True) | {"drive": drive_of(recipe)}
    if task == "blind":
        return readout.score_blind(overrides.apply(recipe_of(options.arms[0], 0, options), ["data.labelled_share=1"]))
    _, arm, _, seed = task.split("+")
    recipe = recipe_of(arm, int(seed), options)
    result = train(recipe, options.out / task.replace("+", "-"), source=ARMS[arm].recipe, progress=False)
    made = {"seed": int(seed), "steps": result.steps, "loss": result.loss, "taught_with": result.model.taught_with}
    return made | readout.score_network(recipe, result.model, shapes=arm == "kitti")


def drive_of(recipe: Recipe) -> str:
    """By which results of another drive are told apart, wherever it lies."""
    return hashlib.sha256(" ".join(recipe.data.open().tokens()).encode()).hexdigest()[:10]


# ---- all results ------------------------------------------------------------------------------------------------------------------

Runs = dict[str, dict[int, dict[str, Any]]]
"""What is finished of each arm, by seed."""


def runs_of(options: argparse.Namespace) -> Runs:
    tasks = tasks_of(options)
    found: Runs = {}
    for arm in ARMS:
        names = {seed: training(arm, seed, options) for seed in range(options.seeds)}
        done = {seed: tasks.read(name) for seed, name in names.items() if tasks.path(name).is_file()}
        if done:
            found[arm] = done
    return found


def summary(rows: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds of an arm, for each threshold."""
    found: dict[str, Any] = {"seeds": list(rows), "thresholds": [row["threshold"] for row in rows.values()]}
    for which in ("chosen", "own"):
        known = {key: [row[which][key] for row in rows.values() if which in row] for key in readout.FIGURES}
        found[which] = {key: measuring.mean_and_spread(values) for key, values in known.items() if values and None not in values}
    return {key: value for key, value in found.items() if value}


def gap_closed(value: float, blind: float, labels: float) -> float | None:
    """How much of the way from the blind prior to 3D labels a figure goes; None where these are not above it."""
    return (value - blind) / (labels - blind) if labels > blind else None


def gaps(accuracy: dict[str, Any], blind: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """`gap_closed` of each arm, in the mean over its seeds."""
    top = accuracy.get("labels3d", {}).get("chosen", {})
    keys = [key for key in GAPS if key in top and blind.get(key) is not None]
    return {
        arm: {key: gap_closed(found["chosen"][key]["mean"], blind[key], top[key]["mean"]) for key in keys if key in found["chosen"]}
        for arm, found in accuracy.items()
        if keys
    }


def statements(runs: Runs) -> list[dict[str, Any]]:
    """What the abstract says, and a figure for each seed that must be above `least` for it to hold, in every seed."""

    def values(arms: Iterable[str], key: str, which: str = "chosen") -> list[list[float]]:
        """[seed][arm] for seeds that all arms have."""
        rows = [runs.get(arm, {}) for arm in arms]
        seeds = [seed for seed in rows[0] if all(seed in row and row[seed][which].get(key) is not None for row in rows)]
        return [[row[seed][which][key] for row in rows] for seed in seeds]

    def minus(arm: str, base: str, key: str) -> list[float]:
        return [a - b for a, b in values([arm, base], key)]

    found = []

    def say(text: str, differences: list[float], least: float = 0.0, unit: str = "points") -> None:
        if differences:
            spread = measuring.mean_and_spread(differences)
            found.append({"statement": text, "unit": unit, "least": least, **spread, "held": min(differences) > least})

    moved = "mIoU of RenderOcc moves with the number of samples along a ray, by 5 points and more (abstract: 5 to 10)"
    for which, at in (("chosen", "each with its best threshold"), ("own", "one fixed threshold")):
        say(f"{moved}: highest minus lowest, {at}", [max(row) - min(row) for row in values(MARCHES, "miou", which)], 0.05)
    best = [row[0] - max(row[1:]) for row in values(["gaussians-silog", *MARCHES], "miou")]
    say("Gaussians, which have no such number, are above the best of them: mIoU", best)
    say("with shifts of mean and scale Gaussians are better than without: mIoU", minus("both-shifts", "no-shifts", "miou"))
    for name in ("resample", "camera"):
        title = f"Ray Compensation ({name})"
        fewer = [-value for value in minus(f"{name}-1", "gaussians", "excess")]
        say(f"{title} leaves fewer duplicates along a ray: runs beyond those of the truth", fewer, unit="runs")
        say(f"{title} is better than none: RayIoU", minus(f"{name}-1", "gaussians", "ray_iou"))
        say(
            f"{title}: RayIoU above RenderOcc's, traversal and the same loss (abstract: by 6.0)", minus(f"{name}-1", "traversal", "ray_iou")
        )
        say(f"{title} narrows the gap to 3D labels more than RenderOcc: mIoU", minus(f"{name}-1", "traversal", "miou"))
    for kind in ("static", "moving"):
        say(f"adjacent points that move left out, not kept: IoU of {kind} classes", minus("camera-1", "moving-kept", kind))
        clear = minus("moving-clear", "camera-1", kind)
        say(f"not of the abstract: what moving things uncovered left out, too: IoU of {kind} classes", clear)
    for arm, share in (("labels3d", "all"), ("labels10", "a tenth of the")):
        say(f"not of the abstract: the render loss beside {share} 3D labels helps: mIoU", minus(f"{arm}-render", arm, "miou"))
    return found


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """What is finished, as JSON values."""
    tasks, runs = tasks_of(options), runs_of(options)
    kitti = runs.pop("kitti", {})
    accuracy = {arm: summary(rows) for arm, rows in runs.items()}
    blind, there = (tasks.read(name) if tasks.path(name).is_file() else {} for name in ("blind", "blind+kitti"))
    budget = {"steps": options.steps, "seeds": options.seeds}
    world = {key: getattr(options, key) for key in ("scenes", "val_scenes", "frames")}
    given = [f"--{key.replace('_', '-')} {value}" for key, value in (budget | world).items()]
    return {
        "benchmark": "claims/gsrender",
        "command": " ".join(["python benchmarks/claims/gsrender.py", *options.settings, *given]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "world": world,
        "budget": budget | {"batch_size": get_recipe("gsrender-mini").train.batch_size},
        "settings": options.settings,
        "fingerprint": options.fingerprint,
        "arms": {arm: {"recipe": ARMS[arm].recipe, "settings": list(ARMS[arm].words)} for arm in runs},
        "statements": statements(runs),
        "blind": blind,
        "accuracy": accuracy,
        "gap_closed": gaps(accuracy, blind),
        "kitti": {"blind": there, "depth alone": summary(kitti)} if kitti and there else {},
        "results": tasks.finished(),
    }


# ---- tables -----------------------------------------------------------------------------------------------------------------------


def show(numbers: dict[str, Any]) -> None:
    """By group: percent, runs along a ray, the share of the gap from the blind prior to 3D labels; then the statements."""
    titles = ("mIoU", "RayIoU", "geometric", "moving", "static", "runs", "true runs")
    head = "".join(f"{title:>15}" for title in titles) + f"{'gap mIoU':>10}{'RayIoU':>8}{'mIoU, own':>15}  thresholds"
    if numbers["blind"]:
        cells = "".join(_cell(numbers["blind"].get(key), key) for key in readout.FIGURES)
        print(f"\n{'':<23}{'seeds':>6}{head}\n{numbers['blind']['name']:<29}{cells}")
    for group, arms in GROUPS.items():
        rows = [arm for arm in arms if arm in numbers["accuracy"]]
        if rows:
            print(f"\n{group:<23}{'seeds':>6}{head}")
        for arm in rows:
            found, gap = numbers["accuracy"][arm], numbers["gap_closed"].get(arm, {})
            cells = "".join(_cell(found["chosen"].get(key), key) for key in readout.FIGURES)
            closed = "".join(
                f"{'-' if gap.get(key) is None else f'{100 * gap[key]:.0f} %':>{w}}" for key, w in zip(GAPS, (10, 8), strict=True)
            )
            thresholds = ", ".join(_threshold(value) for value in found["thresholds"])
            print(f"{arm:<23}{len(found['seeds']):>6}{cells}{closed}{_cell(found.get('own', {}).get('miou'), 'miou')}  {thresholds}")
    if numbers["kitti"]:
        blind, (title, found) = numbers["kitti"]["blind"], list(numbers["kitti"].items())[1]
        keys = {"miou": "IoU above ground", "ray_iou": "RayIoU, any class", "runs": "runs", "true_runs": "true runs"}
        print(f"\n{'KITTI, shapes':<29}" + "".join(f"{text:>20}" for text in keys.values()))
        print(f"{blind['name']:<29}" + "".join(f"{_cell(blind.get(key), key):>20}" for key in keys))
        print(f"{title:<23}{len(found['seeds']):>6}" + "".join(f"{_cell(found['chosen'].get(key), key):>20}" for key in keys))
    print()
    for found in numbers["statements"]:
        unit = 1 if found["unit"] == "runs" else 100
        each = ", ".join(f"{unit * value:+.2f}" for value in found["values"])
        least = f", more than {unit * found['least']:g} asked for" if found["least"] else ""
        verdict = "held" if found["held"] else "not held"
        print(f"{verdict:<10}{found['statement']}: {unit * found['mean']:+.2f} {found['unit']} ({each}){least}")


def _threshold(value: float | None) -> str:
    """With a mark where the best one tried is the first or last, so that a better one may lie beyond."""
    at_end = value in (readout.THRESHOLDS[0], readout.THRESHOLDS[-1])
    return "-" if value is None else f"{value:g}{' (the end)' if at_end else ''}"


def _cell(found: dict[str, Any] | float | None, key: str) -> str:
    unit = 1 if key in ("runs", "true_runs") else 100
    if found is None:
        return f"{'-':>15}"
    if isinstance(found, dict):
        spread = "" if found["std"] is None else f" +- {unit * found['std']:.2f}"
        return f"{unit * found['mean']:.2f}{spread}".rjust(15)
    return f"{unit * found:>15.2f}"


def main() -> None:
    options = parse()
    run_claim(options, tasks_of(options), work, make_missing, collect, show)


def make_missing(options: argparse.Namespace, tasks: Tasks) -> None:
    """The world, the blind prior, and the trainings."""
    generate_missing(options)

    def say(task: str, found: dict[str, Any]) -> str:
        write_json(options.json, collect(options), indent=2)
        figures = found.get("chosen", found)
        return ", ".join(f"{key} {figures[key]:.4f}" for key in ("miou", "ray_iou", "runs") if figures[key] is not None)

    names = [training(arm, seed, options) for seed in range(options.seeds) for arm in options.arms]
    if options.kitti:
        here = [name for name in tasks.finished() if "kitti" in name]
        if "blind+kitti" in here and tasks.read("blind+kitti").get("drive") != drive_of(recipe_of("kitti", 0, options)):
            tasks.forget(here)
        names += ["blind+kitti", *(training("kitti", seed, options) for seed in range(options.seeds))]
    tasks.make(["blind", *names], options.jobs, say)


if __name__ == "__main__":
    main()
