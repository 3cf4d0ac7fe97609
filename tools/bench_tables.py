"""Put the figures of `frustum bench --json FILE` into the documentation.

    frustum bench --json runs/bench.json
    python tools/bench_tables.py runs/bench.json docs/performance.md

Replaces what stands between `<!-- bench NAME -->` and `<!-- end -->` by the tables of the benchmark NAME, with the machine that they come
from. Blocks of benchmarks that are not in the file stay as they are; figures of a --quick run are refused. `tools/gpu_check.py` writes
such a file, too.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from typing import Any

from frustum.benchmark import Table, describe
from frustum.errors import DataError
from frustum.files import read_json, write_bytes

BLOCK = re.compile(r"(<!-- bench (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, reports: dict[str, Any]) -> tuple[str, list[str]]:
    """The text with fresh blocks, and the names of the benchmarks that were put in."""
    used = []

    def block(match: re.Match[str]) -> str:
        report = reports.get(match[2])
        if report is None:
            return match[0]
        used.append(match[2])
        tables = "\n\n".join(Table(**table).markdown() for table in report["tables"])
        command = report.get("command", f"frustum bench {match[2]}")
        lines = [f"`{command}` on {describe(report['machine'])}.", "", *tables.split("\n")]
        return "\n".join([match[1], *map(wrapped, lines), "", match[3]])

    return BLOCK.sub(block, text), used


def wrapped(line: str) -> str:
    """Prose broken at the width of the documents; rows of tables and their titles as they are."""
    return line if line.startswith(("|", "**")) else textwrap.fill(line, 120, break_long_words=False, break_on_hyphens=False)


def main(arguments: list[str] | None = None) -> None:
    """Read, fill in, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figures", type=Path, help="what `frustum bench --json` wrote")
    parser.add_argument("document", type=Path, nargs="?", default=Path("docs/performance.md"))
    options = parser.parse_args(arguments)
    figures = read_json(options.figures, "figures of the benchmarks")
    if figures.get("quick"):
        raise DataError(f"{options.figures} holds figures of a --quick run, which mean little. Run `frustum bench` without --quick.")
    text, used = filled(options.document.read_text(encoding="utf-8"), figures["benchmarks"])
    write_bytes(options.document, text.encode())
    print(f"{options.document}: {', '.join(used) or 'nothing to put in'}")


if __name__ == "__main__":
    main()
