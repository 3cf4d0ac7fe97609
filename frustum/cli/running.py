"""Verbs that run a network: demo, train, eval, robustness, predict, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frustum.cli.common import GOES_ON, JsonOption, OverridesArgument, VersionOption, command, optional, say, split_overrides, write_json
from frustum.data.corruption_names import CORRUPTIONS
from frustum.errors import ConfigError
from frustum.weights.catalogue import SOURCES

SourceOption = Annotated[
    str,
    typer.Option(
        "--source",
        help="who wrote the checkpoint: frustum (also what `frustum weights convert` made), or official for the project that published the "
        f"network, which may be named, too: {', '.join(SOURCES)}",
    ),
]

CodeOption = Annotated[
    list[str] | None,
    optional("--code", metavar="MODULE", help="your module whose classes the run or file names; may be repeated"),
]
CheckpointOption = Annotated[Path | None, optional("--checkpoint", metavar="FILE", help="weights to load instead of the run's own")]
app = typer.Typer()
NAME = "a weights file, the folder of a run, or a recipe together with --checkpoint"


@command(
    app,
    "demo",
    "frustum demo",
    "frustum demo --minutes 30 --out runs/long",
    "frustum demo heads",
    "frustum demo heads --train",
    after_interrupt=GOES_ON,
)
def demo(
    what: Annotated[str, typer.Argument(metavar="[city|heads]", help="city: occupancy from six cameras; heads: head swapping")] = "city",
    out: Annotated[
        Path | None, optional("--out", help="folder for the world and what is made of it; by default runs/demo or runs/heads")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=1.0, help="time budget, set-up included; of heads with --train alone")] = 15.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of the world, and of the training")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="start again instead of going on from what is there")] = False,
    training: Annotated[
        bool, typer.Option("--train", help="heads: train networks for what is left of the time, instead of taking those of frustum")
    ] = False,
    json_file: JsonOption = None,
    started: Annotated[float | None, typer.Option("--started", hidden=True, help="time at which the clock of the budget started")] = None,
) -> None:
    """Generate a city, train FlashOCC-tiny on it, compare it with two blind baselines on unseen streets, and write a report.

    Needs no data and no GPU. Every stage is kept on disk: the same command goes on where it was stopped, and ends at once when all is done.

    With `heads`: generate people whom the networks of frustum never saw, put the heads of some onto others, compare the pictures
    with the perfect ones, and draw a sheet; with `--train`, train networks on other people first.
    """
    if what not in ("city", "heads"):
        raise ConfigError(f"there is no demo {what!r}: frustum demo, which is that of a city, or frustum demo heads.")
    if what == "heads":
        from frustum.cli.demo_heads import run_head_demo

        write_json(json_file, run_head_demo(out or Path("runs/heads"), minutes, seed, fresh, training=training))
        return
    if training:
        raise ConfigError("the demo of the city always trains: --train is for frustum demo heads.")
    from frustum.cli.demo import run_demo

    write_json(json_file, run_demo(out=out or Path("runs/demo"), minutes=minutes, seed=seed, fresh=fresh, started=started))


@command(
    app,
    "train",
    "frustum train flashocc-tiny data.root=runs/demo/world --out runs/tiny",
    "frustum train flashocc-r50 data.root=/data/nuscenes optim.lr=1e-4 runtime.precision=bf16",
    "frustum train flashocc-r50 --init bevdet-r50-cbgs.pth data.root=/data/nuscenes",
    "frustum train flashocc-tiny data.root=runs/demo/world distill.teacher=runs/large distill.at=bev,occ_logits distill.loss=cwd",
    "frustum train runs/tiny --resume",
    after_interrupt=GOES_ON,
)
def train(
    recipe: Annotated[str, typer.Argument(help="a recipe (`frustum list`), module:function, or the folder of a run to resume or repeat")],
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, optional("--out", help="folder of the run; by default runs/RECIPE")] = None,
    init: Annotated[Path | None, optional("--init", help="weights to start from; what fits is taken (train.init=FILE)")] = None,
    code: CodeOption = None,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="go on with a run that is already in the folder, or delete it")] = True,
    json_file: JsonOption = None,
) -> None:
    """Train a recipe. Ctrl-C or SIGTERM saves first; the same command goes on exactly where it stopped, in mid-epoch too."""
    from frustum.cli.resolve import resolve_recipe, run_folder

    words = split_overrides(overrides) + ([f"train.init={init}"] if init else [])
    found, folder = resolve_recipe(recipe, words, code or ()), run_folder(recipe, out)
    from frustum.engine.sections import modules_to_name
    from frustum.engine.taught import in_sentences
    from frustum.engine.train import train as run  # after the check of the settings: it imports torch

    result = run(found, folder, resume=resume, source=recipe, overrides=words, code=code or ())
    for line in in_sentences(getattr(result.model, "taught_with", {})):
        say(line)
    was = "nothing was left to do: " if result.resumed_from >= result.steps else ""
    then = f"frustum eval {folder}" + "".join(f" --code {module}" for module in modules_to_name(found))
    say(f"{was}trained {result.steps} steps, loss {result.loss:.4f}; weights and logs are in {folder}. Next: {then}")
    write_json(json_file, result.as_dict())


@command(
    app,
    "eval",
    "frustum eval runs/demo/train --baselines --json numbers.json",
    "frustum eval m0.safetensors data.root=/data/nuscenes",
    "frustum eval flashocc-r50-m0 --checkpoint flashocc-r50-M0-256x704.pth --source official data.root=/data/nuscenes",
    "frustum eval runs/demo/train eval.corruption=fog:3",
    "frustum eval --results detections.json --data /data/nuscenes --json numbers.json",
)
def evaluate(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=NAME, show_default=False)] = None,
    overrides: OverridesArgument = None,
    checkpoint: CheckpointOption = None,
    source: SourceOption = "frustum",
    code: CodeOption = None,
    split: Annotated[
        str | None,
        optional("--split", help="split to evaluate; by default data.val_split, or the one that FILE is of"),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="also score what answers without looking (a prior, no boxes, the likely boxes), and black images"),
    ] = False,
    results: Annotated[
        Path | None,
        optional(
            "--results",
            metavar="FILE",
            help="instead of a RUN, predictions of any origin: a nuScenes detection JSON, or a folder with one occupancy npz per keyframe",
        ),
    ] = None,
    data: Annotated[Path | None, optional("--data", metavar="ROOT", help="data set with the truth for FILE")] = None,
    version: VersionOption = None,
    json_file: JsonOption = None,
) -> None:
    """Evaluate a network, or a file of predictions with --results. All numbers name their protocol.

    Occupancy: mIoU by mask, convention and class, geometric IoU, F-score, RayIoU, and RayPQ and voxel PQ for predictions with instances.
    Detection: nuScenes' mAP, NDS and five errors. Maps from above: IoU of vehicles. Segmentation: mIoU and pixel accuracy.
    """
    if results is None:
        from frustum.cli.evaluation import evaluate_run

        if run is None or data is not None or version is not None:
            raise ConfigError(
                "give a RUN, or predictions with --results FILE --data ROOT. "
                "The data set of a RUN is set with data.root=... and data.version=..."
            )
        numbers = evaluate_run(run, split_overrides(overrides), checkpoint, source, split, baselines, code or ())
    else:
        from frustum.cli.evaluation import evaluate_results

        if run is not None or checkpoint is not None or source != "frustum" or baselines or code or data is None:
            raise ConfigError(
                f"--results {results} is evaluated without a network: give the data set with --data ROOT, and leave out RUN, settings, "
                "--checkpoint, --source, --code and --baselines."
            )
        numbers = evaluate_results(results, data, version, split)
    write_json(json_file, numbers)


@command(
    app,
    "robustness",
    "frustum robustness runs/demo/train",
    "frustum robustness runs/demo/train --corruptions fog,snow --levels 3 eval.every=5",
    "frustum robustness runs/plain runs/pretrained --json numbers.json",
    after_interrupt="the evaluations so far are kept, and the same command goes on from there",
)
def robustness(
    words: Annotated[list[str], typer.Argument(metavar="RUN... [KEY=VALUE]...", help="runs or weights files, and settings for all")],
    corruptions: Annotated[str, optional("--corruptions", metavar="A,B", help=f"some of {', '.join(CORRUPTIONS)}; by default all")] = "",
    levels: Annotated[str, optional("--levels", metavar="1,2,3", help="1 easy, 2 mid, 3 hard; by default all")] = "",
    code: CodeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Evaluate on images with fog, snow, failing cameras and more: a table of the main figures; of several runs also the differences.

    All figures go to robustness.json in the folder of the run, with settings to a file of those. Evaluations that it holds of the same
    weights and settings are kept.
    """
    from frustum.cli.robustness import measure_robustness

    runs = [word for word in words if "=" not in word]
    if not runs:
        raise ConfigError(f"give at least one RUN: {NAME.partition(', or a recipe')[0]}.")
    write_json(json_file, measure_robustness(runs, split_overrides(w for w in words if "=" in w), corruptions, levels, code or ()))


@command(
    app,
    "predict",
    "frustum predict runs/demo/train my_rig --out predictions",
    "frustum predict runs/demo/train runs/demo/world --split val --limit 4 --out predictions",
    "frustum predict r50.safetensors /data/nuscenes --split val --no-pictures --submission challenge",
    after_interrupt="the predictions so far are kept, and the same command goes on from there",
)
def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help=NAME)],
    where: Annotated[Path, typer.Argument(metavar="SOURCE", help="a data set, or a rig folder with images and calibration.json")],
    overrides: OverridesArgument = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the predictions")] = Path("predictions"),
    checkpoint: CheckpointOption = None,
    source: SourceOption = "frustum",
    code: CodeOption = None,
    version: VersionOption = None,
    split: Annotated[str, typer.Option("--split", help="split or scene to predict")] = "all",
    token: Annotated[list[str] | None, optional("--token", help="predict this keyframe only; may be repeated")] = None,
    limit: Annotated[int | None, optional("--limit", min=1, help="at most so many keyframes, evenly spread")] = None,
    submission: Annotated[
        Path | None,
        optional("--submission", metavar="DIR", help="also write files of public challenges: Occ3D's TOKEN.npz, nuScenes' detections.json"),
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="draw every prediction with its images")] = True,
    json_file: JsonOption = None,
) -> None:
    """Predict: a file per sample and question that the network answers, and a picture. Labels need not exist.

    Occupancy goes to TOKEN.npz (semantics, class names, grid), boxes to TOKEN.boxes.npz, and so on (docs/metrics.md).

    An interrupted prediction goes on with the same command, a finished one is made anew.

    A network that separates objects adds `instances`, and class, centre and score of each object; the picture colours them one by one.
    """
    from frustum.cli.predicting import predict_source

    words = split_overrides(overrides)
    found = predict_source(
        run, where, out, words, checkpoint, source, pictures,
        version=version, split=split, tokens=token, limit=limit, submission=submission, code=code or (),
    )  # fmt: skip
    say(f"{len(found['tokens'])} predictions are in {out}" + (f", and as challenge files in {submission}" if submission else ""))
    write_json(json_file, found)


@command(
    app,
    "report",
    "frustum report runs/demo/train",
    "frustum report runs/tiny data.root=/new/place",
    "frustum report runs/student --beside runs/teacher --beside runs/student_alone",
)
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help=NAME)],
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, optional("--out", help="folder of the report; by default RUN/report or FILE-report")] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="keyframes of the validation split to draw")] = 4,
    beside: Annotated[
        list[Path] | None, optional("--beside", metavar="RUN", help="another run, to show its numbers beside; may be repeated")
    ] = None,
    checkpoint: CheckpointOption = None,
    source: SourceOption = "frustum",
    code: CodeOption = None,
) -> None:
    """Write a report: one self-contained HTML page and pictures. It needs no network, no GL and no server."""
    from frustum.cli.reporting import report_run

    page = report_run(run, out, samples, split_overrides(overrides), checkpoint, source, code or (), beside or ())
    say(f"The report: {page}")
