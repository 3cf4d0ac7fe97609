"""A table of figures as every report prints it: for a terminal, or for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """Rows of figures or text, the first column naming the row; None is printed as `-`.

    Attributes:
        title: what the figures are; of measurements, sizes included.
        columns: headings with units.
        rows: as many cells as there are columns.
        note: what a reader must know to read the figures.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {row[0]!r} has {len(row)} cells for {len(self.columns)} columns of {self.title!r}")

    def texts(self) -> list[list[str]]:
        """The rows as text: numbers with three significant digits."""
        return [[show(cell) for cell in row] for row in self.rows]

    def plain(self) -> str:
        """For a terminal."""
        rows = [list(self.columns), *self.texts()]
        first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], widths)]) for row in rows]
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in lines), *([f"  {self.note}"] if self.note else [])])

    def markdown(self) -> str:
        """For the documentation."""
        align = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, align, *self.texts())]
        return "\n".join([f"**{self.title}**", "", *lines, *(["", self.note] if self.note else [])])


def show(cell: Cell) -> str:
    """A cell as text: three significant digits, never in exponents above 0.001."""
    if cell is None or cell != cell:
        return "-"
    if isinstance(cell, str):
        return cell
    if cell == 0 or abs(cell) < 1e-3:
        return f"{cell:.2g}"
    if abs(cell) >= 100 or isinstance(cell, int):
        return f"{cell:,.0f}"
    return f"{cell:.3g}"


def percent(value: Any, digits: int = 2) -> str:
    """A share 0..1 as percent, `12.34`; `-` where there is none."""
    if not isinstance(value, (int, float)) or value != value:
        return "-"
    return f"{100 * value:.{digits}f}"
