"""Line charts as inline SVG: they scale, follow the page's colours, and need no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 34


def nice_ticks(low: float, high: float, max_count: int = 5) -> list[float]:
    """Round numbers that span low to high, about `max_count` of them."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(max_count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    return [round(i * step, 12) for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def short_number(value: float) -> str:
    """A number for an axis: 0.25, 12, 3k, 1.5M, 2e-4."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    if 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:g}"


def smooth(values: Sequence[float], span: float = 0.03) -> list[float]:
    """An exponential moving average over about `span` of the series, corrected at the start."""
    decay = math.exp(-1 / max(span * len(values), 1.0))
    average, weight, out = 0.0, 0.0, []
    for value in values:
        average, weight = decay * average + (1 - decay) * value, decay * weight + (1 - decay)
        out.append(average / weight)
    return out


def line_chart(title: str, steps: Sequence[Any], series: Mapping[str, Sequence[Any]], *, smoothed: bool = True) -> str:
    """An SVG chart of named series over common steps; points that are not finite numbers are left out. Empty text when nothing is left.

    Thin lines are the values, thick ones their moving average. Colours come from CSS classes s0, s1, ...
    """
    points = {name: [p for p in zip(steps, values, strict=True) if all(map(_is_finite, p))] for name, values in series.items()}
    points = {name: p for name, p in points.items() if len(p) > 1}
    if not points:
        return ""
    xs = [x for p in points.values() for x, _ in p]
    ys = sorted(y for p in points.values() for _, y in p)
    # A few early spikes must not flatten the rest of the curve.
    high = min(ys[-1], ys[int(0.985 * (len(ys) - 1))] * 1.25) if ys[0] >= 0 else ys[-1]
    y_ticks = nice_ticks(0.0 if 0 <= ys[0] < 0.6 * high else ys[0], high)
    low, high = y_ticks[0], y_ticks[-1]
    x_low, x_high = min(xs), max(xs)
    x_ticks = [t for t in nice_ticks(x_low, x_high, 6) if x_low <= t <= x_high]

    def place(x: float, y: float) -> str:
        px = _LEFT + (x - x_low) / max(x_high - x_low, 1e-12) * (WIDTH - _LEFT - _RIGHT)
        py = HEIGHT - _BOTTOM - (min(max(y, low), high) - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return f"{px:.1f},{py:.1f}"

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"><g class="axis">']
    for tick in y_ticks:
        left, y = place(x_low, tick).split(",")
        parts.append(f'<line x1="{left}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{short_number(tick)}</text>')
    for tick in x_ticks:
        x = place(tick, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{short_number(tick)}</text>')
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 2}" text-anchor="end" class="label">step</text></g>')
    for index, curve in enumerate(points.values()):
        curve = _thin(curve)
        mean = zip([x for x, _ in curve], smooth([y for _, y in curve]), strict=True)
        lines = {"raw": curve, "line": mean} if smoothed else {"line": curve}
        for kind, line in lines.items():
            parts.append(f'<polyline class="{kind} s{index % 6}" points="{" ".join(place(x, y) for x, y in line)}"/>')
    parts.append("</svg>")
    names = "".join(f'<span><i class="s{i % 6}"></i>{escape(name)}</span>' for i, name in enumerate(points)) if len(points) > 1 else ""
    return f'<figure class="plot"><figcaption>{escape(title)}<em>{names}</em></figcaption>{"".join(parts)}</figure>'


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _thin(curve: Sequence[tuple[float, float]], max_points: int = 400) -> list[tuple[float, float]]:
    """At most `max_points` points: means of runs of neighbours."""
    run = math.ceil(len(curve) / max_points)
    groups = [zip(*curve[i : i + run], strict=True) for i in range(0, len(curve), run)]
    return [(sum(xs) / len(xs), sum(ys) / len(ys)) for xs, ys in groups]
