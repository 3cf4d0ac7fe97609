"""Draw the pictures of README and docs from a finished run: `make docs-figures`. Generated data only, so they may be published.

python tools/docs_figures.py [--run runs/demo/train] [--sample 3] [--out docs/pictures] [--name demo]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from frustum.cli.reporting import report_run


def main() -> None:
    """Write NAME.jpg: cameras, prediction and truth of one unseen keyframe on one sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo/train"))
    parser.add_argument("--sample", type=int, default=3, help="which sheet of the report, from 1")
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--name", default="demo", help="of the picture")
    args = parser.parse_args()

    page = report_run(args.run, samples=max(4, args.sample))
    args.out.mkdir(parents=True, exist_ok=True)
    with Image.open(page.with_name(f"sample-{args.sample}.png")) as sheet:
        height = round(sheet.height * args.width / sheet.width)
        small = sheet.convert("RGB").resize((args.width, height), Image.Resampling.LANCZOS)
    file = args.out / f"{args.name}.jpg"
    small.save(file, quality=85, optimize=True)
    print(f"{file}: {small.width} x {small.height}, {file.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
