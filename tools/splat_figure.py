"""Draw how splatting grows, from the figures of its benchmark, for docs/performance.md.

frustum bench splat --json runs/bench.json
python tools/splat_figure.py runs/bench.json [--out docs/pictures/splat_growth.png]
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from frustum.errors import DataError
from frustum.files import read_json

PANELS = {"Gaussians": r"([\d,]+) Gaussians$", "pixels": r"([\d.]+) x [\d.]+ the pixels", "channels": r"(\d+) channels"}


def curves(figures: dict[str, Any]) -> dict[str, list[tuple[float, float, float | None]]]:
    """For each panel what is varied, milliseconds, and MiB, ascending.

    Raises:
        DataError: the file has no figures of this benchmark.
    """
    tables = figures.get("benchmarks", {}).get("splat", {}).get("tables", [])
    grown = next((t for t in tables if t["title"].startswith("How splatting grows")), None)
    if grown is None:
        raise DataError("there are no figures of how splatting grows. Make them: frustum bench splat --json runs/bench.json")
    pixels = int(re.search(r"6 x (\d+) x (\d+) pixels", grown["note"])[1]) * 6 * int(re.search(r"6 x \d+ x (\d+)", grown["note"])[1])  # type: ignore[index]
    found: dict[str, list[tuple[float, float, float | None]]] = {name: [] for name in PANELS}
    for name, ms, _, mib, _ in grown["rows"]:
        for panel, pattern in PANELS.items():
            if match := re.match(pattern, name):
                value = float(match[1].replace(",", ""))
                found[panel].append((value * value * pixels if panel == "pixels" else value, ms, mib))
    return {panel: sorted(points) for panel, points in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figures", type=Path, help="what `frustum bench splat --json` wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/splat_growth.png"))
    options = parser.parse_args(arguments)
    found = curves(read_json(options.figures, "figures of the benchmarks"))

    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (panel, points) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        axes.loglog([x for x, _, _ in points], [ms for _, ms, _ in points], "o-", color="#1f77b4", label="ms")
        axes.loglog([x for x, _, m in points if m], [m for _, _, m in points if m], "s--", color="#d62728", label="MiB")
        axes.set_xlabel(panel)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(True, which="both", alpha=0.25)
    figure.axes[0].set_ylabel("forward + backward")
    figure.axes[0].legend()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
