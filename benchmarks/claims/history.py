"""What past keyframes are worth: networks that read 0, 1, 8 ... of them, scored on the same validation frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.claims import grouping, measuring
from frustum.data.nuscenes.reader import NuScenes
from frustum.engine.recipe import Recipe

KEYS = ("miou", "ray_iou", "raypq")
FRAMES = ("all", "late")
"""All validation frames; those with as many past keyframes as the longest history of the comparison reads."""


def settings(variant: str) -> list[str]:
    """Settings of a network called `history8` and the like."""
    count = int(variant.removeprefix("history"))
    return [f"model.history.frames={count}"]


def late_frames(database: NuScenes, tokens: list[str], longest: int) -> set[str]:
    """Those of `tokens` whose scene has at least `longest` keyframes before them."""
    return {token for token in tokens if len(database.sample(token, occupancy=False, history=longest).history) == longest}


def score(recipe: Recipe, network: torch.nn.Module, longest: int) -> dict[str, Any]:
    """KEYS of all validation frames, and under `late` those of the late frames."""
    database = recipe.data.open()
    tallies = {name: grouping.Tally(database, ["centres"]) for name in FRAMES}
    late = late_frames(database, database.tokens(recipe.data.val_split), longest)
    for frame in grouping.answers(recipe, network, database, ["centres"]):
        tallies["all"].add(*frame)
        if frame[0] in late:
            tallies["late"].add(*frame)
    figures = {name: tally.compute() for name, tally in tallies.items()}
    found = {name: {"miou": f["miou"], "ray_iou": f["ray_iou"], "raypq": f["groupings"]["centres"]["raypq"]} for name, f in figures.items()}
    return {**found["all"], "late": found["late"], "late_frames": len(late)}


def collect(runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and spread over the seeds, and the gain over the shortest history, seed by seed."""
    rows = {variant: {"all": found, "late": [run["late"] for run in found]} for variant, found in runs.items()}
    first = next(iter(rows))
    table = {}
    for variant, by_frames in rows.items():
        table[variant] = {
            frames: {
                key: {
                    **measuring.mean_and_spread([run[key] for run in found]),
                    "gain": measuring.mean_and_spread([a[key] - b[key] for a, b in zip(found, rows[first][frames], strict=True)]),
                }
                for key in KEYS
            }
            for frames, found in by_frames.items()
        }
    return {"history": table, "runs": dict(runs)}


def show(numbers: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\npercent, mean over {len(numbers['budget']['seeds'])} seeds +- spread; in brackets the gain over the first row")
    for frames in FRAMES:
        print(f"{frames} frames" + " " * 6 + "".join(f"{key:>36}" for key in KEYS))
        for variant, found in numbers["history"].items():
            print(f"  {variant:<12}" + "".join(f"{_cell(found[frames][key]):>36}" for key in KEYS))


def _cell(found: dict[str, Any]) -> str:
    value, gain = (f"{100 * f['mean']:.2f} +- {100 * (f['std'] or 0):.2f}" for f in (found, found["gain"]))
    return f"{value} ({gain})"
