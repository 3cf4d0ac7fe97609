"""Data loading: samples per second by how images are decoded and resized, and of the whole pipeline with caches and workers.

    python benchmarks/speed/loading.py [--quick] [--json FILE]

Images of 1600x900 and the database of 256x704 come from the street world, generated into a temporary folder. Files are in the system's
cache after the first round, so this measures the processor, not the disk.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.data.labels.depth import DepthLabels
from frustum.data.loader import SampleDataset, build_loader
from frustum.data.pixels import ImageTransform, normalise
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.recipes.finding import get_recipe
from frustum.types.contract import Label
from frustum.worlds.street.generate import generate
from frustum.worlds.street.world_config import WorldConfig

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PLAIN = "decode, resize, crop"


def world(folder: Path, size: tuple[int, int], frames: int) -> Path:
    """A generated database in `folder`."""
    generate(WorldConfig(train_scenes=1, val_scenes=0, frames=frames, image_size=size), folder, workers=1)
    return folder


def decoded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def plain(path: Path, fit: ImageTransform) -> np.ndarray:
    """As FlashOCC's pipeline: resize everything, then cut off the sky."""
    height, width = fit.size
    whole = decoded(path).resize((fit.resized[1], fit.resized[0]), Image.Resampling.BICUBIC)
    return np.asarray(whole.crop((fit.left, fit.top, fit.left + width, fit.top + height)))


def window(path: Path, fit: ImageTransform) -> np.ndarray:
    """As this package: only the part of the image that is kept is resampled."""
    return np.asarray(fit.apply(decoded(path)))


def draft(path: Path, fit: ImageTransform) -> np.ndarray:
    """JPEG's own halving while decoding; changes pixels a little."""
    with Image.open(path) as image:
        image.draft("RGB", (fit.resized[1], fit.resized[0]))
        small = image.convert("RGB")
    half = ImageTransform((small.height, small.width), fit.resized, fit.size, fit.left, fit.top)
    return np.asarray(half.apply(small))


def images(folder: Path, quick: bool) -> Table:
    full, size = ((300, 528), (96, 256)) if quick else ((900, 1600), (256, 704))
    root = world(folder / "full", full, 1 if quick else 2)
    paths = sorted((root / "samples").rglob("*.jpg"))[:6]
    fit = ImageTransform.fit(full, size)
    small = {}
    for path in paths:  # what `frustum` would load had the images been shrunk once beforehand
        small[path] = folder / f"small-{path.stem}.jpg"
        decoded(path).resize((fit.resized[1], fit.resized[0]), Image.Resampling.BICUBIC).save(small[path], quality=95)
    kept = {path: window(path, fit) for path in paths}
    beforehand = ImageTransform(fit.resized, fit.resized, fit.size, fit.left, fit.top)
    ways: dict[str, Callable[[Path], np.ndarray]] = {
        PLAIN: lambda p: plain(p, fit),
        "decode, resize what is kept (frustum)": lambda p: window(p, fit),
        "decode at half size (JPEG draft), resize what is kept": lambda p: draft(p, fit),
        "resized on disk beforehand": lambda p: window(small[p], beforehand),
        "cached in memory at the network's size (data.cache=memory)": lambda p: kept[p],
    }
    times = take_turns({n: lambda way=way: [normalise(way(p), MEAN, STD) for p in paths] for n, way in ways.items()}, 3 if quick else 9)
    exact = np.stack([plain(p, fit) for p in paths]).astype(float)
    changed = {name: np.abs(np.stack([way(p) for p in paths]) - exact).mean() for name, way in ways.items()}
    rows = [
        (name, 1e3 * t.median / len(paths), 1 / t.median, times[PLAIN].median / t.median, float(changed[name]))
        for name, t in times.items()
    ]  # fmt: skip
    kilobytes = sum(p.stat().st_size for p in paths) / len(paths) / 1e3
    return Table(
        f"Six images of {full[1]}x{full[0]} (JPEG, {kilobytes:.0f} kB each) to network input of {size[0]}x{size[1]}, one thread",
        ("way", "ms an image", "samples a second", "x plain", "mean change, of 255"),
        rows,
        f"Medians of {len(times[PLAIN].seconds)} rounds in turn; normalisation included.",
    )


def pipeline(folder: Path, quick: bool) -> Table:
    size, frames = ((64, 192), 4) if quick else ((256, 704), 24)
    root = world(folder / "fitted", size, frames)
    base = apply(get_recipe("flashocc-r50-m0"), [f"data.root={root}", f"data.image_size={size[0]},{size[1]}"])
    still = ["augment.flip=false", "augment.resize=0,0", "augment.rotate_deg=0,0"]
    cores = os.cpu_count() or 1
    cached = apply(base, [*still, "data.cache=memory"])
    cases: dict[str, tuple[Recipe, int]] = {
        "augmented, in the training process": (base, 0),
        "augmented, cached in memory": (apply(base, ["data.cache=memory"]), 0),
        "augmented, one worker": (base, 1),
        f"augmented, {cores} workers": (base, cores),
        "pixels stay in place": (apply(base, still), 0),
        "pixels stay in place, cached in memory": (cached, 0),
    }
    jobs = {name: epoch(recipe, workers) for name, (recipe, workers) in cases.items()}
    jobs["pixels stay in place, cached, with depth maps"] = epoch(cached, 0, DepthLabels())
    times = take_turns(jobs, 2 if quick else 5)
    first = times["augmented, in the training process"].median
    return Table(
        f"Whole keyframes to batches, {frames} keyframes, JPEG of {size[0]}x{size[1]} with occupancy labels",
        ("way", "samples a second", "ms a sample", "x first row"),
        [(name, frames / t.median, 1e3 * t.median / frames, first / t.median) for name, t in times.items()],
        f"Medians of {len(next(iter(times.values())).seconds)} epochs in turn; starting the workers, once per epoch, is counted.",
    )


def epoch(recipe: Recipe, workers: int, *more: Label[Any]) -> Callable[[], float]:
    """A function that loads every keyframe once, as training does, with more labels than the network needs."""
    source, model = recipe.data.open(), recipe.model
    loading = recipe.data.pipeline(model.reads(), (*model.learns_from(), *more), recipe.augment, training=True)
    dataset = SampleDataset(source, source.tokens("train"), loading, 0, recipe.data.cache)
    loader = build_loader(dataset, 1, shuffle=True, num_workers=workers)

    def run() -> float:
        start = time.perf_counter()
        assert sum(len(batch) for batch in loader) == len(dataset)
        return time.perf_counter() - start

    return run


def measure(quick: bool) -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as name:
        yield images(Path(name), quick)
        yield pipeline(Path(name), quick)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
