"""IoU of bird's-eye-view segmentation in the four published conventions, which agree on the idea and on little else.

| convention | positive | over the set | cells that count |
|---|---|---|---|
| lss | logit > 0 | sum of intersections / sum of unions | all |
| simplebev | round(sigmoid) = 1, so > 1/2 | the same | those whose box is not of visibility 1 |
| simplebev-train | the same | mean over images of I / (1e-4 + U) | the same |
| cvt | sigmoid >= 0.40 and >= 0.50 | TP / (TP + FP + FN + 1e-7) | visibility >= 2 or background; and all |
| pointbev | sigmoid >= 1/2 | TP / (TP + FP + FN + 1e-7) | visibility >= 2 or background (also 1, that is all) |

(lift-splat-shoot src/tools.py; simple_bev eval_nuscenes.py and train_nuscenes.py; cross_view_transformers metrics.py; PointBeV trainer.py.)
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from frustum.errors import ConfigError, DataError, nearest_names
from frustum.metrics.counts import CountMetric, Labels, flat_images, same_shape, to_numpy
from frustum.metrics.sums import to_words

BevRule = Literal["lss", "simplebev", "simplebev-train", "cvt", "pointbev"]
BACKGROUND = 255
"""Visibility of cells without a box: they always count."""


class _Rule(NamedTuple):
    thresholds: tuple[float, ...]  # on the probability
    is_strict: bool  # a probability equal to the threshold is negative
    epsilon: float
    min_visibility: int | None


_RULES: dict[str, _Rule] = {
    "lss": _Rule((0.5,), True, 0.0, None),
    "simplebev": _Rule((0.5,), True, 0.0, 2),
    "simplebev-train": _Rule((0.5,), True, 1e-4, 2),
    "cvt": _Rule((0.40, 0.50), False, 1e-7, 2),
    "pointbev": _Rule((0.5,), False, 1e-7, 2),
}


class BevIoU(CountMetric):
    """IoU of one class seen from above.

    State: `tp`, `fp`, `fn` (T,) for T thresholds, `images`, and `ratio` (T, 2): the exact sum of single images' IoUs (`metrics.sums`).

    Args:
        rule: the convention (see the table of this module).
        min_visibility: cells whose visibility is lower do not count; None counts all and takes no map; "published" is the rule's own.
        thresholds: on the probability; None is the rule's own.
    """

    _free_settings = ("_counts_all",)

    def __init__(
        self,
        rule: BevRule = "lss",
        min_visibility: int | Literal["published"] | None = "published",
        thresholds: tuple[float, ...] | None = None,
    ):
        if rule not in _RULES:
            raise ConfigError(f"unknown BEV IoU rule {rule!r}; {nearest_names(str(rule), _RULES)}")
        if min_visibility not in ("published", None, 1, 2, 3, 4):
            raise ConfigError(f"min_visibility must be 1 to 4, None or 'published', got {min_visibility!r}.")
        self.rule = rule
        self._counts_all = min_visibility is None
        self.min_visibility = _RULES[rule].min_visibility if min_visibility == "published" else min_visibility
        self.thresholds = _RULES[rule].thresholds if thresholds is None else tuple(thresholds)
        if not self.thresholds or not all(0 < t < 1 for t in self.thresholds):
            raise ConfigError(f"thresholds must be probabilities between 0 and 1, got {self.thresholds}.")
        count = len(self.thresholds)
        self._start(tp=count, fp=count, fn=count, images=(), ratio=(count, 2))

    def add(self, logits: np.ndarray | torch.Tensor, target: Labels, visibility: Labels | None = None) -> None:
        """Count one image (Y, X) or a batch (B, Y, X) or (B, 1, Y, X).

        Args:
            logits: floats before the sigmoid.
            target: 1 or True where the class is.
            visibility: 1 to 4 where a box is, 255 elsewhere, as `data.labels.bev_map` draws it. Needed unless all cells count, and refused
                under min_visibility=None.

        Raises:
            ShapeError: shapes differ.
            DataError: logits are not floats or not finite, the target holds other values than 0 and 1, or the visibility is missing,
                given under min_visibility=None, or holds others than documented.
        """
        score = logits.detach().cpu() if isinstance(logits, torch.Tensor) else torch.from_numpy(np.array(logits))
        if not score.is_floating_point():
            raise DataError(f"BEV IoU needs logits, got {score.dtype}. Pass the output of the network before sigmoid and threshold.")
        score = score if score.dtype == torch.float64 else score.float()
        true = to_numpy(target, "the target")
        same_shape(logits=score.numpy(), target=true)
        if not score.isfinite().all():
            raise DataError("the logits are not finite: check the weights and the input for NaN.")
        if true.size and (true.min() < 0 or true.max() > 1):
            raise DataError(f"the target of BEV IoU is 0 or 1, got {true.min()} to {true.max()}.")
        counts = np.ones(true.shape, bool)
        if self._counts_all and visibility is not None:
            fault = "this metric counts all cells (min_visibility=None), but add() was given a visibility map"
            raise DataError(f"{fault}: leave it out, or set min_visibility to 1 to 4 or 'published'.")
        if self.min_visibility is not None:
            if visibility is None:
                raise DataError(f"rule {self.rule!r} leaves out boxes of low visibility: pass the visibility map, or min_visibility=None.")
            visible = to_numpy(visibility, "the visibility")
            same_shape(visibility=visible, target=true)
            if not np.isin(visible, (1, 2, 3, 4, BACKGROUND)).all():
                raise DataError(f"visibilities are 1 to 4, and {BACKGROUND} where no box is: this looks like a mask or another map.")
            counts = visible >= self.min_visibility
        true, counts = flat_images(true.astype(bool)), flat_images(counts)
        self._add(images=len(true))
        for t, threshold in enumerate(self.thresholds):
            positive = flat_images(self._is_positive(score, threshold))
            cells = {"tp": positive & true, "fp": positive & ~true, "fn": ~positive & true}
            found = {name: np.count_nonzero(mask & counts, 1) for name, mask in cells.items()}
            for name, number in found.items():
                self._state[name][t] += number.sum()
            union, epsilon = sum(found.values()), _RULES[self.rule].epsilon
            # Without an epsilon, an image without a true or predicted cell scores 1.
            ious = found["tp"] / (union + epsilon) if epsilon else np.where(union > 0, found["tp"] / np.maximum(union, 1), 1.0)
            self._state["ratio"][t] += to_words(ious).sum(0)

    def _is_positive(self, logits: torch.Tensor, threshold: float) -> np.ndarray:
        if self.rule == "lss" and threshold == 0.5:
            return (logits > 0).numpy()
        probability, bound = logits.float().sigmoid(), torch.tensor(threshold)  # float32, as the references compare
        return (probability > bound if _RULES[self.rule].is_strict else probability >= bound).numpy()

    def compute(self) -> dict[str, Any]:
        """`iou` of the rule (0..1; of the last threshold, NaN without any positive cell where the rule adds no epsilon).

        Also `at` {threshold: iou}, `image_mean` (mean of the IoUs of single images; an empty image without a prediction scores 1 under
        "lss" and "simplebev", 0 where the rule adds an epsilon), `tp`, `fp`, `fn`, and the conventions `rule` and `min_visibility`.
        """
        rule = _RULES[self.rule]
        tp, union = self._state["tp"], self._state["tp"] + self._state["fp"] + self._state["fn"]
        mean = self._mean("ratio", "images")
        with np.errstate(invalid="ignore"):
            pooled = mean if self.rule == "simplebev-train" else tp / (union + rule.epsilon)
        return {
            "iou": float(pooled[-1]),
            "at": {f"{t:.2f}": float(v) for t, v in zip(self.thresholds, pooled, strict=True)},
            "image_mean": float(mean[-1]),
            **{name: self._state[name].tolist() for name in ("tp", "fp", "fn")},
            "rule": self.rule,
            "min_visibility": self.min_visibility,
        }
