"""`frustum demo`: generate a city, train on it, compare with two blind baselines, write a report; every stage is kept and resumed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from frustum.checkpoint.weights_file import digest
from frustum.cli.common import console, say
from frustum.cli.evaluation import numbers_of, print_table
from frustum.cli.reporting import report_run
from frustum.cli.worlds import generate_world
from frustum.data.source import Source
from frustum.engine import overrides as settings
from frustum.engine.evaluate import evaluate_with_baselines
from frustum.engine.progress import pace
from frustum.engine.recipe import Recipe
from frustum.engine.reports import EvalReport, class_tables, compare, headline, read_reports, write_reports
from frustum.engine.speedtest import choose_steps
from frustum.engine.train import train
from frustum.errors import ConfigError
from frustum.files import make_folder, read_object, write_json
from frustum.locks import owning
from frustum.recipes.finding import DEMO, get_recipe
from frustum.worlds.street.world_config import WorldConfig

MINIMUM_STEPS = 1500  # with fewer, the network hardly leaves the prior
STAGES = 5


@owning("out", "frustum demo")
def run_demo(
    out: Path,
    minutes: float = 15.0,
    seed: int = 0,
    fresh: bool = False,
    started: float | None = None,
    changes: list[str] | None = None,
    minimum_steps: int = MINIMUM_STEPS,
    world: WorldConfig | None = None,
) -> dict[str, Any]:
    """Run the demo in the folder `out`.

    Args:
        out: gets world/, train/ (the run), report/ and demo.json.
        minutes: time budget for everything; the number of training steps is chosen to fit it, but never below `minimum_steps`.
        seed: of the world and of the training.
        fresh: delete an earlier demo in `out` first.
        started: time.time() at which the budget's clock started; by default now.
        changes: further settings of the recipe, `key=value`.
        world: another world than the default one.

    Returns:
        The numbers that demo.json holds, too.

    Raises:
        DataError: `out` cannot be written to. ConfigError: an earlier demo in `out` had another seed. Errors of the stages.
    """
    started, seconds = started or time.time(), 60 * minutes
    make_folder(out)
    if fresh:
        for name in ("world", "train", "report", "plan.json", "demo.json"):
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)

    plan = stored_plan(out / "plan.json", seed)  # another seed is refused before anything is made
    if not plan:
        write_json(out / "plan.json", {"seed": seed})
    config = world or WorldConfig(seed=seed)
    with stage(1, "a city, filmed by six cameras and a LiDAR"):
        made = generate_world(config, out / "world")
        rate = pace(made["keyframes_per_second"], "keyframes") if made["generated"] else "all there"
        say(f"{made['scenes']} scenes, {made['keyframes']} keyframes, {rate}")

    words = [f"data.root={out / 'world'}", f"train.seed={seed}", *(changes or []), f"data.version={config.version}"]
    recipe = settings.apply(get_recipe(DEMO), words)
    source = recipe.data.open()
    with stage(2, "how fast is this machine?"):
        if "steps" not in plan:  # an interrupted demo goes on with the number that was chosen first
            plan = make_plan(recipe, source, started, seconds, minimum_steps, seed)
            write_json(out / "plan.json", plan, indent=2)
        say(plan["text"])
    recipe = settings.apply(recipe, [f"train.steps={plan['steps']}"])

    with stage(3, f"training {DEMO}"):
        result = train(recipe, out / "train", source=DEMO)
    with stage(4, "evaluation on streets that training did not use"):
        reports = evaluate_once(recipe, result.model, source, out / "train")
    with stage(5, "report"):
        page = report_run(out / "train", out / "report")

    for shown in class_tables(reports[0]):
        print_table(shown)
    print_table(compare(reports))
    for line in verdict(*reports):
        say(line)
    minutes, memory = round((time.time() - started) / 60, 2), peak_memory_gib()
    numbers = numbers_of(reports) | {"world": made, "plan": plan, "steps": result.steps, "minutes": minutes, "peak_memory_gib": memory}
    write_json(out / "demo.json", numbers, indent=2)
    used = f", no process took more than {memory:.1f} GiB of memory" if memory else ""
    say(f"\n{minutes:.1f} minutes{used}. The report: {page}")
    return numbers


@contextmanager
def stage(number: int, title: str, of: int = STAGES) -> Iterator[None]:
    """A heading before, the time after."""
    console().print(f"\n[bold]{number}/{of} {title}[/]")
    began = time.monotonic()
    yield
    console().print(f"[dim]{time.monotonic() - began:.0f} s[/]")


def make_plan(recipe: Recipe, source: Source, started: float, seconds: float, minimum: int, seed: int) -> dict[str, Any]:
    """The number of training steps, from a speed test; all that the demo does must fit into `seconds` since `started`."""
    maximum = max(minimum, int((recipe.train.steps or minimum) * max(1.0, seconds / 900)))
    # what follows training: prior, two passes over the validation frames with RayIoU, pictures
    after = 60 + 0.6 * len(source.tokens(recipe.data.val_split))
    # 15 s for the test itself; the factor is for snapshots and for a machine that slows down when it is warm
    test = choose_steps(recipe, max(1.0, 0.93 * (started + seconds - time.time() - 15 - after)), minimum, maximum, data=source)
    text, used = str(test), time.time() - started
    needed = used + test.steps * test.seconds_per_step + after
    if needed > seconds:
        text += f"; this machine needs about {needed / 60:.0f} minutes in all"
    return asdict(test) | {"seconds_left": round(seconds - used, 1), "seconds_after_training": round(after, 1), "seed": seed, "text": text}


def stored_plan(path: Path, seed: int) -> dict[str, Any]:
    """The plan of an interrupted or finished demo, empty if there is none. Raises ConfigError when that demo had another seed."""
    if not path.is_file():
        return {}
    plan = read_object(path, "plan of the demo")
    if plan.get("seed") != seed:
        raise ConfigError(
            f"{path.parent} holds a demo with seed {plan.get('seed')}; give another folder with --out, or --fresh to start again."
        )
    return plan


def evaluate_once(recipe: Recipe, network: nn.Module, source: Source, run: Path) -> list[EvalReport]:
    """The reports of the network and its baselines; read from the run's folder when they were made with these weights."""
    kept = read_reports(run, digest(network))
    if [report.images for report in kept] == ["as they are", "none", "black"]:
        return kept
    reports = evaluate_with_baselines(recipe, network, source)
    write_reports(run, reports)
    return reports


def verdict(model: EvalReport, prior: EvalReport, black: EvalReport) -> list[str]:
    """In words: how far the network is above the best answer that ignores the images, and what it is worth on black images."""
    of_prior, of_black = ({figure.key: figure for figure in headline(report)} for report in (prior, black))
    shared = [figure for figure in headline(model) if figure.key in of_prior and figure.key in of_black]
    values = [(f.name, f.value or 0.0, of_prior[f.key].value or 0.0, of_black[f.key].value or 0.0) for f in shared]

    def times(name: str, value: float, base: float) -> str:
        return f"{name} {100 * value:.1f} against {100 * base:.1f}" + (f" ({value / base:.1f} times)" if base > 0 else "")

    uses_images = all(dark <= base for _, _, base, dark in values) and any(dark < base for _, _, base, dark in values)
    return [
        f"Against the {prior.name}: " + "; ".join(times(name, value, base) for name, value, base, _ in values),
        "With black images the same network gets "
        + ", ".join(f"{name} {100 * dark:.1f}" for name, _, _, dark in values)
        + (": it uses the images." if uses_images else ": that is not below the prior."),
    ]


def peak_memory_gib() -> float | None:
    """Largest memory of a single process so far, this one or a child, not of all together; None where the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(peak / unit, 2)
