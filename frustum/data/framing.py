"""Which part of a camera's image a network reads, and where the horizon lies in it: in numbers, in words, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from frustum.data.augment import anchor_of, fit_image, horizon_share
from frustum.data.sample import CameraFrame
from frustum.data.source import AugmentConfig
from frustum.geometry import horizon_row

OTHER_WINDOW = "augment.horizon=SHARE moves it, augment.window=bottom keeps the bottom of every image"
"""The settings for it, in words."""
_EDGE = 0.05  # share of the network's image: a horizon nearer to its border leaves nothing to be seen on one side
_ELSEWHERE = 0.2  # from where it was in training, of a network that is used


@dataclass(frozen=True)
class Framing:
    """What an image that is not augmented gives a network.

    Attributes:
        channel: of the camera.
        size: (height, width) of its images.
        rows, columns: of the image that are read, as (first, one after the last).
        horizon: row of the image; None where it is no row (`geometry.horizon_row`).
        share: of the network's image that lies above the horizon; below 0 or above 1 where it is outside.
        trained: what it was in training.
        is_placed: the window was placed by the horizon; else it keeps the bottom of the image.
    """

    channel: str
    size: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    horizon: float | None
    share: float | None
    trained: float
    is_placed: bool


def framing(camera: CameraFrame, augment: AugmentConfig, size: tuple[int, int]) -> Framing:
    """What a network that reads images of (height, width) `size` is given of a camera, when nothing is drawn at random."""
    anchor = anchor_of(augment, camera)
    fit = fit_image(augment, camera.size, size, anchor)
    spans = zip((fit.top, fit.left), size, fit.resized, camera.size, strict=True)
    rows, columns = ((round(max(at, 0) * pixels / n), round(min(at + m, n) * pixels / n)) for at, m, n, pixels in spans)
    horizon = horizon_row(camera.intrinsics, camera.cam2ego, camera.size)
    share = None if horizon is None else (horizon * fit.resized[0] / camera.size[0] - fit.top) / size[0]
    trained = horizon_share(augment, size)
    return Framing(camera.channel, camera.size, rows, columns, horizon, share, trained, anchor is not None)


def framings(cameras: Iterable[CameraFrame], augment: AugmentConfig, size: tuple[int, int]) -> list[Framing]:
    """Those of cameras, each once."""
    return list(dict.fromkeys(framing(camera, augment, size) for camera in cameras))


def in_sentences(found: Sequence[Framing]) -> list[str]:
    """A sentence for cameras that are read alike."""
    groups: dict[tuple, list[Framing]] = {}
    for one in found:
        groups.setdefault((one.size, one.rows, one.columns), []).append(one)
    sentences = []
    for ((height, width), rows, columns), members in groups.items():
        channels = list(dict.fromkeys(one.channel for one in members))
        named = ", ".join(channels) if len(channels) < 4 else f"{', '.join(channels[:2])} and {len(channels) - 2} more"
        across = "all columns" if columns == (0, width) else f"columns {columns[0]} to {columns[1]}"
        sentence = f"{named} ({width} x {height} pixels): rows {rows[0]} to {rows[1]} and {across} are read; the horizon is "
        known = [(one.horizon, one.share) for one in members if one.horizon is not None and one.share is not None]
        if known:
            rows_at, shares = zip(*known, strict=True)
            sentence += f"row {_range(rows_at)}, {_range([100 * share for share in shares])} % of the way down in the network's image"
        else:
            sentence += "not a row of it"
        sentences.append(sentence)
    return sentences


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def problem(found: Framing, is_trained: bool = False) -> str:
    """What a network does not see of a camera, or sees elsewhere than in training, in words; "" where nothing is wrong.

    With `is_trained`, the horizon must also be about where the network that is used was trained with it.
    """
    if found.horizon is None or found.share is None:
        return ""
    where = f"the horizon, row {found.horizon:.0f} of {found.size[0]},"
    rows = f"rows {found.rows[0]} to {found.rows[1]} that are read"
    if found.share < _EDGE:
        return f"{where} lies {'above' if found.share < 0 else 'at the top of'} the {rows}: nothing above it is seen"
    if found.share > 1 - _EDGE:
        return f"{where} lies {'below' if found.share > 1 else 'at the bottom of'} the {rows}: no ground is seen"
    if is_trained and abs(found.share - found.trained) > _ELSEWHERE:
        return f"{where} lies {100 * found.share:.0f} % of the way down in the network's image, and in training {100 * found.trained:.0f} %"
    return ""


def advice(found: Framing) -> str:
    """What to set against a `problem`."""
    if found.is_placed:
        return "The image does not show enough there: turn the camera, or state another place of the horizon, augment.horizon=SHARE."
    return "Set augment.window=horizon, in training too; augment.crop_h=0.3,0.3 cuts off 30 % at the bottom."
