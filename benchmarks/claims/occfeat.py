"""OccFeat's claim in miniature: networks that see from above, pretrained without a label, need fewer labels.

    python benchmarks/claims/occfeat.py                                          # every network, pretraining and share
    python benchmarks/claims/occfeat.py --networks simplebev --arms none occupancy features --shares 1 10
    python benchmarks/claims/occfeat.py --robust simplebev --networks simplebev  # and on corrupted images
    python benchmarks/claims/occfeat.py --kitti data/kitti                       # and an imported KITTI drive
    python benchmarks/claims/occfeat.py --finished                               # train nothing: tables of what is finished

Pretraining (--arms), all from the same ImageNet encoder, with the same steps, on the LiDAR and the images of all training scenes:

- none: no pretraining. longer: neither, but as many more steps with labels as pretraining takes.
- depth (of flashocc alone, which lifts by depth): the depth of LiDAR points in the images, a control that needs no label either.
- occupancy: which voxels hold a LiDAR point.
- features: that, and the features of EfficientNet-Lite0 in them, the recipe's own teacher: the last block of the network of which the
  student has the first ones. resnet50: of another network. exact: vectors of the true classes of pixels; it uses labels, and is there as
  the best that a teacher can be.

Then each network is trained on the labels of 1, 10 and 100 % of the scenes (--shares; of 140 scenes, 1, 14 and all), everything else equal:
the same steps (--tuning, one number for each share), learning rate, scenes and seeds. The scenes of a share are those of its seed.
`simplebev` and `bevformer` learn vehicles and the drivable area in one map, `flashocc` occupancy. --seeds are those of the shares below
100 %; that has one. All of them start from one pretraining, or from --pretrainings of them in turn: the spread is that of scenes and seeds.

With --robust, networks of the largest share, first seed, are evaluated on corrupted images (docs/metrics.md), every third keyframe.

With --kitti ROOT (docs/data.md) flashocc is pretrained on the LiDAR of a drive's training frames, and trained on the occupancy of a tenth
of them: figures on frames that neither saw.

What is finished is kept in the folder --out and not done again, --json is written after each result. Weights are in --out alone: where
they are not there, what is still missing and starts from them has them made again. KEY=VALUE settings come first, for both trainings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import measuring
from benchmarks.claims.tasks import Tasks, claim_parser, fingerprint, generate_missing, recipe_json, run_claim, world_of
from frustum.checkpoint.weights_file import WEIGHTS
from frustum.data.corruption_names import CORRUPTIONS, LEVELS
from frustum.engine import overrides
from frustum.engine.evaluate import evaluate
from frustum.engine.recipe import Recipe
from frustum.engine.robustness import mean
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.files import write_json
from frustum.recipes.finding import get_recipe
from frustum.weights.loading import load

ROOT = Path(__file__).resolve().parents[2]
STEPS, TUNING, SEEDS = 1000, {1: 300, 10: 600, 100: 2000}, 3


class Network(NamedTuple):
    """Recipes of pretraining and of training with labels, settings of the latter, and the figures that count, by task."""

    pretraining: str
    recipe: str
    words: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]


_MAPS = ('model.maps.class_names=["vehicle","drivable_area"]',)
_MAP_FIGURES = (("vehicle", "bev_map/class_iou/vehicle"), ("map", "bev_map/class_iou/drivable_area"))
_VOXELS = (
    ("mIoU", "occupancy/miou/camera"),
    ("RayIoU", "occupancy/ray_iou/mean"),
    ("above ground", "occupancy/geometric_iou_above_ground/camera"),
)
NETWORKS = {
    "simplebev": Network("occfeat-mini", "simplebev-mini", _MAPS, _MAP_FIGURES),
    "bevformer": Network("occfeat-bevformer-mini", "bevformer-seg-mini", _MAPS, _MAP_FIGURES),
    "flashocc": Network("occfeat-flashocc-mini", "flashocc-tiny", ("data.labelled_only=true",), _VOXELS),
}
DATA: dict[str, tuple[str, ...]] = {"street": (), "kitti": ("data.image_size=96,320", "data.labelled_by=keyframe")}
"""Settings that a data set needs, by its name."""
PAIRS = (
    ("occupancy", "none", ""), ("features", "none", ""), ("features", "occupancy", ""), ("resnet50", "occupancy", ""),
    ("occupancy", "longer", "not of the abstract, "), ("occupancy", "depth", "not of the abstract, "),
    ("exact", "occupancy", "not of the abstract, with labels in pretraining, "),
)  # fmt: skip
"""Which arm should be above which, and what is to be said of that."""
ARMS: dict[str, tuple[str, ...] | None] = {
    "none": None,
    "longer": None,
    "depth": ("model.feature_weight=0", "model.occupancy_weight=0"),
    "occupancy": ("model.feature_weight=0",),
    "features": (),
    "resnet50": ("model.teacher.kind=resnet50", "model.teacher.scale=1"),
    "exact": ("model.teacher.kind=exact",),
}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "occfeat", settings="settings of all trainings")
    parser.set_defaults(steps=STEPS, seeds=SEEDS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--shares", nargs="+", type=int, choices=TUNING, default=list(TUNING), metavar="PERCENT", help="of the scenes")
    parser.add_argument("--tuning", nargs=3, type=int, default=list(TUNING.values()), metavar="STEPS", help="at 1, 10 and 100 percent")
    parser.add_argument("--pretrainings", type=int, default=1, metavar="N", help="seeds of pretraining, which those of training share out")
    parser.add_argument(
        "--robust", nargs="+", choices=NETWORKS, default=[], metavar="NAME", help="networks to evaluate on corrupted images"
    )
    parser.add_argument("--kitti", type=Path, metavar="ROOT", help="an imported KITTI drive")
    parser.add_argument("--finished", action="store_true", help="train nothing: show what is finished, and write it if --json is given")
    options = parser.parse_args(words)
    options.tuning = dict(zip(TUNING, options.tuning, strict=True))
    options.writes = not options.finished or options.json is not None
    options.json = options.json or ROOT / "benchmarks/claims/occfeat.json"
    options.world = world_of(options)
    options.fingerprint = fingerprint(options, repr(options.tuning))
    options.out /= options.fingerprint  # results of another budget or other settings are in a folder of their own
    return options


def tasks_of(options: argparse.Namespace) -> Tasks:
    return Tasks(Path(__file__), options.out)


# ---- names of results: what made them changes them ---------------------------------------------------------------------------


def pretraining(network: str, arm: str, seed: int, options: argparse.Namespace, data: str = "street") -> str:
    """The name of the pretraining that a training of this seed starts from."""
    made = fingerprint(options, recipe_json(NETWORKS[network].pretraining), repr(ARMS[arm]), repr(DATA[data]))
    return f"pre+{data}+{network}+{arm}+{made}+{seed % options.pretrainings}"


def tuning(network: str, arm: str, share: int, seed: int, options: argparse.Namespace, data: str = "street", kind: str = "fine") -> str:
    """The name of a training with labels, or with `kind` "robust" of an evaluation of what it made on corrupted images."""
    start = pretraining(network, arm, seed, options, data) if ARMS[arm] is not None else ""
    made = fingerprint(options, start, recipe_json(NETWORKS[network].recipe), repr((NETWORKS[network].words, DATA[data])))
    return f"{kind}+{data}+{network}+{arm}+{share}+{made}+{seed}"


def arms_of(network: str, options: argparse.Namespace) -> list[str]:
    return [arm for arm in options.arms if arm != "depth" or network == "flashocc"]


def tunings(options: argparse.Namespace) -> list[tuple[str, str, int, int, str]]:
    """Network, arm, share, seed and data of every training with labels that is asked for."""
    seeds = {share: 1 if share == 100 else options.seeds for share in options.shares}
    found = [
        (network, arm, share, seed, "street")
        for network in options.networks
        for share in options.shares
        for seed in range(seeds[share])
        for arm in arms_of(network, options)
    ]
    drive = [
        ("flashocc", arm, 10, seed, "kitti") for seed in range(options.seeds) for arm in arms_of("flashocc", options) if arm != "exact"
    ]
    return found + (drive if options.kitti else [])


# ---- one result each, in a process of its own --------------------------------------------------------------------------------


def folder_of(task: str, options: argparse.Namespace) -> Path:
    return options.out / task.replace("+", "-")


def root_of(data: str, options: argparse.Namespace) -> list[str]:
    return [f"data.root={options.kitti if data == 'kitti' else options.world}", *DATA[data]]


def recipe_of(task: str, options: argparse.Namespace) -> Recipe:
    """What a pretraining or a training with labels is."""
    kind, data, network, arm, *rest = task.split("+")
    found = NETWORKS[network]
    if kind == "pre":
        words = [f"train.steps={options.steps}", f"train.seed={rest[-1]}", *(ARMS[arm] or ())]
        return overrides.apply(get_recipe(found.pretraining), [*root_of(data, options), *words, *options.settings])
    share, seed = int(rest[0]), int(rest[-1])
    words = [
        f"train.steps={options.tuning[share]}",
        f"train.seed={seed}",
        f"data.labelled_seed={seed}",
        f"data.labelled_share={share / 100}",
    ]
    if ARMS[arm] is not None:
        words.append(f"train.init={folder_of(pretraining(network, arm, seed, options, data), options)}")
    elif arm == "longer":
        words[0] = f"train.steps={options.tuning[share] + options.steps}"
    return overrides.apply(get_recipe(found.recipe), [*root_of(data, options), *found.words, *words, *options.settings])


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds; an interrupted training goes on where it was stopped."""
    kind, _, network = task.split("+")[:3]
    if kind == "robust":
        weights = folder_of(task.replace("robust", "fine", 1), options)
        recipe, model = recipe_of(task, options), load(weights)
        return {
            name: [figures_of(network, evaluate(corrupted(recipe, f"{name}:{level}"), model, every=3, progress=False)) for level in LEVELS]
            for name in CORRUPTIONS
        } | {"clean": [figures_of(network, evaluate(recipe, model, every=3, progress=False))]}
    recipe = recipe_of(task, options)
    result = train(recipe, folder_of(task, options), progress=False)
    made = {"steps": result.steps, "loss": result.loss, "taught_with": result.model.taught_with}
    if kind == "pre":
        is_scored = recipe.model.occupancy_weight > 0  # type: ignore[attr-defined]
        return made | {"volume": evaluate(recipe, result.model, every=3, progress=False).results["volume"] if is_scored else {}}
    return made | {"figures": figures_of(network, evaluate(recipe, result.model, progress=False))}


def corrupted(recipe: Recipe, corruption: str) -> Recipe:
    return overrides.apply(recipe, [f"eval.corruption={corruption}"])


def figures_of(network: str, report: Any) -> dict[str, float | None]:
    """The figures that count, 0..1."""
    found = {}
    for name, path in NETWORKS[network].figures:
        value: Any = report.results
        for word in path.split("/"):
            value = (value or {}).get(word)
        found[name] = value
    return found


# ---- all results -------------------------------------------------------------------------------------------------------------


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """What is finished of what is asked for, as JSON values: figures of each arm by seed, and gains over no pretraining seed by seed."""
    tasks, rows = tasks_of(options), {}
    for network, arm, share, seed, data in tunings(options):
        name = tuning(network, arm, share, seed, options, data)
        if tasks.path(name).is_file():
            rows.setdefault(f"{network}, {data}, {share} %", {}).setdefault(arm, {})[seed] = tasks.read(name)["figures"]
    accuracy = {group: {arm: summary(found, arms.get("none", {})) for arm, found in arms.items()} for group, arms in rows.items()}
    robust = {}
    for network in options.robust:
        for arm in arms_of(network, options):
            name = tuning(network, arm, max(options.shares), 0, options, kind="robust")
            if tasks.path(name).is_file():
                robust.setdefault(network, {})[arm] = tasks.read(name)
    numbers = ("steps", "seeds", "pretrainings", "scenes", "val_scenes", "frames")
    given = [f"--{key.replace('_', '-')} {getattr(options, key)}" for key in numbers]
    lists = ((key, getattr(options, key)) for key in ("networks", "arms", "shares", "robust"))
    given += [f"--{key} {' '.join(map(str, value))}" for key, value in lists if value]
    given += ["--tuning " + " ".join(map(str, options.tuning.values())), *(["--kitti ROOT"] if options.kitti else [])]
    return {
        "benchmark": "claims/occfeat",
        "command": " ".join(["python benchmarks/claims/occfeat.py", *options.settings, *given]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "settings": options.settings,
        "fingerprint": options.fingerprint,
        "accuracy": accuracy,
        "statements": statements(accuracy, robust),
        "robust": robust,
        "results": tasks.finished(),
    }


def summary(found: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of each figure, and of what it gains over no pretraining with the same scenes and seed."""
    names = [name for name in next(iter(found.values())) if all(row[name] is not None for row in found.values())]
    shared = [seed for seed in found if seed in base and found is not base]
    return {
        name: measuring.mean_and_spread([row[name] for row in found.values()])
        | ({"gain": measuring.mean_and_spread([found[seed][name] - base[seed][name] for seed in shared])} if shared else {})
        for name in names
    } | {"seeds": list(found)}


def statements(accuracy: dict[str, Any], robust: dict[str, Any]) -> list[dict[str, Any]]:
    """What the abstract says; held where it is so for every seed."""
    found = []

    def say(text: str, differences: list[float]) -> None:
        if differences:
            found.append({"statement": text, **measuring.mean_and_spread(differences), "held": min(differences) > 0})

    for group, arms in accuracy.items():
        for name in arms.get("none", {}):
            if name == "seeds":
                continue
            values = {arm: dict(zip(row["seeds"], row[name]["values"], strict=True)) for arm, row in arms.items() if name in row}
            for arm, base, of in PAIRS:
                shared = values.get(arm, {}).keys() & values.get(base, {}).keys()
                say(f"{of}{group}: {arm} is above {base}, {name}", [values[arm][seed] - values[base][seed] for seed in sorted(shared)])
    for group in dict.fromkeys(text.rpartition(", ")[0] for text in accuracy):
        small, whole = (accuracy.get(f"{group}, {share} %", {}).get("features", {}) for share in (1, 100))
        for name in small:
            if name != "seeds" and "gain" in small[name] and "gain" in whole.get(name, {}):
                say(
                    f"{group}: pretraining gains more with 1 % of the labels than with all, {name}",
                    [small[name]["gain"]["mean"] - whole[name]["gain"]["mean"]],
                )
    for network, arms in robust.items():
        for name, _ in NETWORKS[network].figures:
            if {"none", "features"} <= arms.keys():
                pairs = [(means_of(arms["features"], what, name), means_of(arms["none"], what, name)) for what in CORRUPTIONS]
                gains = [a - b for a, b in pairs if a is not None and b is not None]
                say(f"{network}: on corrupted images features are above none, {name}", gains)
    return found


def means_of(found: dict[str, Any], what: str, name: str) -> float | None:
    """A figure on images that something was done to, mean over the levels."""
    return mean(level.get(name) for level in found[what])


def show(numbers: dict[str, Any]) -> None:
    """A table for each network and share, percent; then corrupted images, then the statements."""
    for group, arms in numbers["accuracy"].items():
        names = [name for name in next(iter(arms.values())) if name != "seeds"]
        print(f"\n{group:<24}{'seeds':>6}" + "".join(f"{name:>16}{'gain':>16}" for name in names))
        for arm, row in arms.items():
            cells = "".join(f"{_text(row.get(name)):>16}{_text(row.get(name, {}).get('gain')):>16}" for name in names)
            print(f"{arm:<24}{len(row['seeds']):>6}{cells}")
    for network, arms in numbers["robust"].items():
        for name, _ in NETWORKS[network].figures:
            print(f"\n{network}, {name} on corrupted images, mean over three levels".ljust(60) + "".join(f"{arm:>12}" for arm in arms))
            for what in ("clean", *CORRUPTIONS):
                means = [means_of(found, what, name) for found in arms.values()]
                print(f"{what:<59}" + "".join(f"{'-' if value is None else f'{100 * value:.2f}':>12}" for value in means))
    print()
    for found in numbers["statements"]:
        each = ", ".join(f"{100 * value:+.2f}" for value in found["values"])
        print(f"{'held' if found['held'] else 'not held':<10}{found['statement']}: {100 * found['mean']:+.2f} points ({each})")


def _text(found: dict[str, Any] | None) -> str:
    if not found:
        return "-"
    return f"{100 * found['mean']:.2f}" + ("" if found["std"] is None else f" +- {100 * found['std']:.2f}")


def main() -> None:
    options = parse()
    run_claim(options, tasks_of(options), work, make_missing, collect, show)


def make_missing(options: argparse.Namespace, tasks: Tasks) -> None:
    """The world, then pretrainings, trainings with labels, and evaluations of those on corrupted images."""
    generate_missing(options, ("semantics",))

    def say(task: str, found: dict[str, Any]) -> str:
        write_json(options.json, collect(options), indent=2)
        figures = found.get("figures") or found.get("volume") or found.get("clean", [{}])[0]
        return ", ".join(f"{key} {value:.4f}" for key, value in figures.items() if value is not None)

    def without_weights(names: Iterable[str]) -> list[str]:
        return [name for name in names if not (folder_of(name, options) / WEIGHTS).is_file()]

    asked = {tuning(*row[:4], options, row[4]): row for row in tunings(options)}
    pairs = [(network, arm) for network in options.robust for arm in arms_of(network, options)]
    robust = [tuning(*pair, max(options.shares), 0, options, kind="robust") for pair in pairs]
    tasks.forget(without_weights(name.replace("robust", "fine", 1) for name in robust if not tasks.path(name).is_file()))
    missing = [row for name, row in asked.items() if not tasks.path(name).is_file()]
    needed = list(dict.fromkeys(pretraining(row[0], row[1], row[3], options, row[4]) for row in missing if ARMS[row[1]] is not None))
    tasks.forget(without_weights(needed))
    for names in (needed, list(asked), robust):
        tasks.make(names, options.jobs, say)


if __name__ == "__main__":
    main()
