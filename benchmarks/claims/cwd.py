"""CWD's claim in miniature: a small network learns more beside a large one, and channel by channel is the best way to compare the two.

    python benchmarks/claims/cwd.py --camvid data/camvid                        # real photographs: every loss, three seeds
    python benchmarks/claims/cwd.py --camvid data/camvid --arms alone cwd-logits kd-logits
    python benchmarks/claims/cwd.py --on street occupancy                       # the world: its front camera, and its voxels
    python benchmarks/claims/cwd.py --finished                                  # train nothing: tables of what is finished

Three grounds (--on):

- camvid: 367 photographs, 180x240, 11 classes; `pspnet-lite` (from ImageNet) teaches `pspnet-small` (from random weights).
- street: the same networks on the front camera of the world, whose classes are exact.
- occupancy: `flashocc-tiny` teaches itself with a quarter of the channels behind the image encoder, on the world.

The arms of one ground have the same data, steps, learning rate and seeds, and one teacher, which is trained longer. `alone` has no teacher.
Losses are compared on logits and on features; `cwd` at four temperatures. The published weight of a loss fits its network and no other,
so that each is tried with several shares of it (--factors) by the first seed; the share that is best on validation samples is taken for the
other seeds, that of CamVid for the street world, too; --all-factors takes all shares for all seeds. CamVid's figures are those of its
test images, which choose nothing; of voxels the same keyframes choose and are reported. Every share that was tried has its row; a
statement is about the share that was chosen.

What a loss costs, `frustum bench distillation` measures.

What is finished is kept in the folder --out and not done again, --json is written after each result. KEY=VALUE settings come first, for
students alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import measuring
from benchmarks.claims.tasks import Tasks, claim_parser, fingerprint, generate_missing, recipe_json, run_claim, world_of
from frustum.checkpoint.weights_file import WEIGHTS
from frustum.cli.labelling import write_segmentation
from frustum.engine import overrides
from frustum.engine.distill import terms_of
from frustum.engine.evaluate import evaluate
from frustum.engine.recipe import Recipe
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.errors import ConfigError
from frustum.files import write_json
from frustum.recipes.finding import get_recipe

ROOT = Path(__file__).resolve().parents[2]
STEPS, TEACHER_STEPS, SEEDS, FACTORS = 1000, 1500, 3, (0.1, 1.0)


class Ground(NamedTuple):
    """What is trained on, by which recipes and settings; splits that are scored, the last one reported; figures, the first one counts."""

    teacher: str
    student: str
    words: tuple[str, ...]
    splits: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]


_PIXELS = (("mIoU", "segmentation/miou"), ("accuracy", "segmentation/accuracy"))
_VOXELS = (("mIoU", "occupancy/miou/camera"), ("RayIoU", "occupancy/ray_iou/mean"))
_NARROW = ("model.lift_channels=8", "model.bev_channels=8", "model.voxel_channels=8", "model.neck_channels=32")
GROUNDS = {
    "camvid": Ground("pspnet-lite", "pspnet-small", (), ("val", "test"), _PIXELS),
    "street": Ground("pspnet-lite", "pspnet-small", (), ("val",), _PIXELS),
    "occupancy": Ground("flashocc-tiny", "flashocc-tiny", (*_NARROW, "model.free_columns=1000000"), ("val",), _VOXELS),
}
"""A student that imitates voxels computes all columns, so that the one that is trained alone learns from all of them, too."""
LOSSES = ("cwd", "kd", "pair", "at", "ifvd", "pkd", "dist")
ARMS: dict[str, tuple[str, ...]] = {
    "alone": (),
    **{f"{loss}-logits": (f"distill.loss={loss}", "distill.at=logits") for loss in LOSSES},
    **{f"{loss}-features": (f"distill.loss={loss}", "distill.at=features") for loss in LOSSES if loss not in ("kd", "dist")},
    "pixel-features": ("distill.loss=pixel", "distill.at=features"),
    "pi-logits": ("distill.loss=kd", "distill.form=skd", "distill.tau=1", "distill.at=logits"),  # pixel-wise as CWD's paper has it
    **{f"cwd-logits-tau{tau}": ("distill.loss=cwd", "distill.at=logits", f"distill.tau={tau}") for tau in (1, 2, 8)},
    "cwd-voxels": ("distill.loss=cwd", "distill.at=occ_logits"),
    "cwd-voxels-by-height": ("distill.loss=cwd", "distill.at=occ_logits", "distill.voxels=class_height"),
    "kd-voxels": ("distill.loss=kd", "distill.at=occ_logits"),
    "cwd-bev": ("distill.loss=cwd", "distill.at=bev"),
}
OF_VOXELS = ("cwd-voxels", "cwd-voxels-by-height", "kd-voxels", "cwd-bev")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "cwd", settings="settings of all students")
    parser.set_defaults(steps=STEPS, seeds=SEEDS)
    parser.add_argument("--on", nargs="+", choices=GROUNDS, default=["camvid"], metavar="NAME", help=f"of {', '.join(GROUNDS)}")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--camvid", type=Path, metavar="ROOT", help="folder of CamVid (docs/data.md)")
    parser.add_argument("--teacher-steps", type=int, default=TEACHER_STEPS, metavar="STEPS", help="of each teacher")
    parser.add_argument("--factors", nargs="+", type=float, default=list(FACTORS), metavar="SHARE", help="of a loss's published weight")
    parser.add_argument("--all-factors", action="store_true", help="all of them for all seeds, not the best one alone")
    parser.add_argument("--finished", action="store_true", help="train nothing: show what is finished, and write it if --json is given")
    options = parser.parse_args(words)
    if "camvid" in options.on and options.camvid is None and not options.finished:
        parser.error("--camvid ROOT is needed to train on CamVid: name its folder, or --on street occupancy.")
    options.writes = not options.finished or options.json is not None
    options.json = options.json or ROOT / "benchmarks/claims/cwd.json"
    options.world = world_of(options)
    options.fingerprint = fingerprint(options, repr(options.teacher_steps))
    options.out /= options.fingerprint  # results of another budget or other settings are in a folder of their own
    return options


def tasks_of(options: argparse.Namespace) -> Tasks:
    return Tasks(Path(__file__), options.out)


# ---- names of results: what made them changes them ------------------------------------------------------------------------------


def teaching(ground: str, options: argparse.Namespace) -> str:
    return f"teacher+{ground}+{fingerprint(options, recipe_json(GROUNDS[ground].teacher), repr(options.teacher_steps))}"


def training(ground: str, arm: str, factor: float, seed: int, options: argparse.Namespace) -> str:
    """The name of a student's training; without a teacher there is no factor."""
    factor = 1.0 if arm == "alone" else factor
    what = (recipe_json(GROUNDS[ground].student), repr((GROUNDS[ground].words, ARMS[arm])))
    start = () if arm == "alone" else (teaching(ground, options),)
    return f"student+{ground}+{arm}+{factor:g}+{fingerprint(options, *what, *start)}+{seed}"


def arms_of(ground: str, options: argparse.Namespace) -> list[str]:
    """The losses that a ground has outputs for."""
    return [arm for arm in options.arms if arm == "alone" or (arm in OF_VOXELS) == (ground == "occupancy")]


def factors_of(ground: str, arm: str, options: argparse.Namespace) -> list[float]:
    """Shares of the published weight that the first seed tries; on the street world, the one that CamVid chose.

    Raises:
        ConfigError: CamVid has chosen none.
    """
    if arm == "alone":
        return [1.0]
    if ground != "street" or len(options.factors) == 1:
        return options.factors
    if not seeds_of("camvid", arm, options):
        raise ConfigError(f"the street world takes the weight of {arm} that CamVid chose: first --on camvid, or give one: --factors 1.")
    return [chosen("camvid", arm, options)]


def seeds_of(ground: str, arm: str, options: argparse.Namespace) -> dict[float, dict[int, Any]]:
    """What is finished of an arm: results by share and seed."""
    tasks, found = tasks_of(options), {}
    for factor in [1.0] if arm == "alone" else options.factors:
        names = {seed: training(ground, arm, factor, seed, options) for seed in range(options.seeds)}
        found[factor] = {seed: tasks.read(name) for seed, name in names.items() if tasks.path(name).is_file()}
    return {factor: done for factor, done in found.items() if done}


def chosen(ground: str, arm: str, options: argparse.Namespace) -> float:
    """Of the shares with most seeds the one that is best on the validation split, in the mean; 1 where nothing is finished."""
    figure, found = GROUNDS[ground].figures[0][0], seeds_of(ground, arm, options)

    def standing(factor: float) -> tuple[int, float]:
        return len(found[factor]), mean(row["figures"]["val"][figure] for row in found[factor].values())

    return max(found, key=standing, default=1.0)


# ---- one result each, in a process of its own --------------------------------------------------------------------------------


def folder_of(task: str, options: argparse.Namespace) -> Path:
    return options.out / task.replace("+", "-")


def data_of(ground: str, options: argparse.Namespace) -> list[str]:
    if ground == "occupancy":
        return [f"data.root={world_of(options)}"]
    root = options.camvid if ground == "camvid" else images_of(options)
    names = overrides.apply(get_recipe("pspnet-lite"), [f"data.root={root}"]).data.open().class_names
    size = ["data.image_size=80,208", "data.short_side=96"] if ground == "street" else []
    return [f"data.root={root}", f"model.class_names={list(names)}".replace("'", '"'), *size]


def images_of(options: argparse.Namespace) -> Path:
    return world_of(options).with_name(f"{world_of(options).name}_images")


def recipe_of(task: str, options: argparse.Namespace) -> Recipe:
    """What a teacher or a student is."""
    kind, name, *rest = task.split("+")
    ground = GROUNDS[name]
    if kind == "teacher":
        return overrides.apply(get_recipe(ground.teacher), [*data_of(name, options), f"train.steps={options.teacher_steps}"])
    arm, factor, seed = rest[0], float(rest[1]), rest[-1]
    words = [*data_of(name, options), *ground.words, f"train.steps={options.steps}", f"train.seed={seed}"]
    if arm != "alone":
        words += [f"distill.teacher={folder_of(teaching(name, options), options)}", *ARMS[arm]]
    recipe = overrides.apply(get_recipe(ground.student), [*words, *options.settings])
    if arm != "alone" and factor != 1:
        usual = terms_of(recipe.distill)[0].weight  # type: ignore[arg-type]
        recipe = overrides.apply(recipe, [f"distill.weight={factor * usual!r}"])
    return recipe


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds; an interrupted training goes on where it was stopped."""
    recipe = recipe_of(task, options)
    result = train(recipe, folder_of(task, options), progress=False)
    made = {"steps": result.steps, "loss": result.loss, "parameters": measuring.parameters(result.model)}
    ground = GROUNDS[task.split("+")[1]]
    figures, classes = {}, {}
    for split in ground.splits:
        report = evaluate(recipe, result.model, split=split, progress=False)
        figures[split] = {name: value_at(report.results, path) for name, path in ground.figures}
        classes = value_at(report.results, f"{ground.figures[0][1].partition('/')[0]}/class_iou")
    return made | {"figures": figures, "classes": classes.get("camera", classes)}


def value_at(found: Any, path: str) -> Any:
    for word in path.split("/"):
        found = (found or {}).get(word)
    return found


# ---- all results -------------------------------------------------------------------------------------------------------------


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """What is finished, as JSON values: figures of each arm by seed, and its gains over `alone` seed by seed."""
    tasks, accuracy, teachers = tasks_of(options), {}, {}
    for ground in GROUNDS:
        if tasks.path(teaching(ground, options)).is_file():
            teachers[ground] = tasks.read(teaching(ground, options))
        rows: dict[str, dict[int, Any]] = {}
        best = []
        for arm in arms_of(ground, options):
            for factor, done in seeds_of(ground, arm, options).items():
                name = arm if factor == 1 else f"{arm} x{factor:g}"
                rows[name] = done
                best += [name] if factor == chosen(ground, arm, options) else []
        if rows:
            accuracy[ground] = {
                name: {"chosen": name in best} | summary(ground, done, rows.get("alone", {})) for name, done in rows.items()
            }
    numbers = ("steps", "teacher_steps", "seeds", "scenes", "val_scenes", "frames")
    given = [f"--{key.replace('_', '-')} {getattr(options, key)}" for key in numbers]
    given += [f"--{key} {' '.join(map(str, getattr(options, key)))}" for key in ("on", "arms", "factors")]
    return {
        "benchmark": "claims/cwd",
        "command": " ".join(["python benchmarks/claims/cwd.py", *options.settings, *given]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "fingerprint": options.fingerprint,
        "settings": options.settings,
        "teachers": teachers,
        "accuracy": accuracy,
        "statements": statements(accuracy, teachers),
        "results": tasks.finished(),
    }


def summary(ground: str, done: dict[int, Any], alone: dict[int, Any]) -> dict[str, Any]:
    """Mean and spread of the figures of the reported split, and of the gains over the same seeds without a teacher."""
    split, found = GROUNDS[ground].splits[-1], {"seeds": list(done)}
    for name, _ in GROUNDS[ground].figures:
        values = {seed: row["figures"][split][name] for seed, row in done.items()}
        gains = [value - alone[seed]["figures"][split][name] for seed, value in values.items() if seed in alone]
        found[name] = measuring.mean_and_spread(list(values.values())) | {"gain": measuring.mean_and_spread(gains) if gains else None}
    names = next(iter(done.values()))["classes"]
    found["classes"] = {name: [row["classes"][name] for row in done.values()] for name in names}
    return found


def statements(accuracy: dict[str, Any], teachers: dict[str, Any]) -> list[dict[str, Any]]:
    """What the abstract says, and a figure for each seed that must be above zero in every one for it to hold."""
    found = []

    def say(text: str, values: list[float]) -> None:
        if values:
            found.append({"statement": text, **measuring.mean_and_spread(values), "seeds": len(values), "held": min(values) > 0})

    for ground, arms in accuracy.items():
        figure, split = GROUNDS[ground].figures[0][0], GROUNDS[ground].splits[-1]
        rows = {arm.partition(" ")[0]: row for arm, row in arms.items() if row["chosen"]}
        if ground in teachers and "alone" in rows:
            top = teachers[ground]["figures"][split][figure]
            say(f"{ground}: the teacher is above the student alone: {figure}", [top - value for value in rows["alone"][figure]["values"]])
        for arm in rows:
            if arm.startswith("cwd") and rows[arm][figure]["gain"]:
                say(f"{ground}: {arm} is above the student alone (abstract: by up to 5.8): {figure}", rows[arm][figure]["gain"]["values"])
        for where in ("logits", "features", "voxels"):
            best = rows.get(f"cwd-{where}", {})
            for arm, row in rows.items():
                if best and arm.endswith(f"-{where}") and not arm.startswith("cwd"):
                    ours, theirs = (dict(zip(one["seeds"], one[figure]["values"], strict=True)) for one in (best, row))
                    both = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
                    say(f"{ground}: cwd-{where} is above {arm}: {figure}", both)
    return found


def show(numbers: dict[str, Any]) -> None:
    """A table for each ground, percent; then the statements."""
    for ground, arms in numbers["accuracy"].items():
        names = [name for name, _ in GROUNDS[ground].figures]
        print(f"\n{ground + ', ' + GROUNDS[ground].splits[-1]:<32}{'seeds':>6}" + "".join(f"{name:>16}{'gain':>16}" for name in names))
        if ground in numbers["teachers"]:
            figures = numbers["teachers"][ground]["figures"][GROUNDS[ground].splits[-1]]
            print(f"{'teacher':<38}" + "".join(f"{100 * figures[name]:>16.2f}{'':>16}" for name in names))
        for arm, row in arms.items():
            cells = "".join(f"{_text(row[name]):>16}{_text(row[name]['gain'], arm != 'alone'):>16}" for name in names)
            print(f"{arm:<32}{len(row['seeds']):>6}{cells}")
    print()
    for found in numbers["statements"]:
        each = ", ".join(f"{100 * value:+.2f}" for value in found["values"])
        print(f"{'held' if found['held'] else 'not held':<10}{found['statement']}: {100 * found['mean']:+.2f} points ({each})")


def _text(found: dict[str, Any] | None, is_shown: bool = True) -> str:
    if not found or not is_shown:
        return "-"
    return f"{100 * found['mean']:.2f}" + ("" if found["std"] is None else f" +- {100 * found['std']:.2f}")


def main() -> None:
    options = parse()
    try:
        run_claim(options, tasks_of(options), work, make_missing, collect, show)
    except ConfigError as error:
        sys.exit(f"error: {error}")


def make_missing(options: argparse.Namespace, tasks: Tasks) -> None:
    """The world, the teachers, the first seed of each arm with all factors, then the other seeds with the factor that is best."""
    if {"street", "occupancy"} & set(options.on):
        generate_missing(options, ("semantics",))
    if "street" in options.on and not images_of(options).is_dir():
        write_segmentation(world_of(options), images_of(options), "CAM_FRONT", None)

    def say(task: str, found: dict[str, Any]) -> str:
        write_json(options.json, collect(options), indent=2)
        figures = list(found["figures"].values())[-1] if "figures" in found else {}
        return ", ".join(f"{key} {value:.4f}" for key, value in figures.items() if value is not None)

    pairs = [(ground, arm) for ground in options.on for arm in arms_of(ground, options)]
    first = [training(ground, arm, factor, 0, options) for ground, arm in pairs for factor in factors_of(ground, arm, options)]
    is_missing = any(not tasks.path(name).is_file() for name in first)
    teachers = [teaching(ground, options) for ground in options.on]
    if is_missing or options.seeds > 1:  # students learn from weights, which are in --out alone
        tasks.forget([name for name in teachers if not (folder_of(name, options) / WEIGHTS).is_file()])
    tasks.make(teachers, options.jobs, say)
    tasks.make(first, options.jobs, say)
    others = []
    for seed in range(1, options.seeds):
        for ground, arm in pairs:
            shares = factors_of(ground, arm, options) if options.all_factors or ground == "street" else [chosen(ground, arm, options)]
            others += [training(ground, arm, factor, seed, options) for factor in shares]
    tasks.make(list(dict.fromkeys(others)), options.jobs, say)


if __name__ == "__main__":
    main()
