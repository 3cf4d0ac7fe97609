"""A portrait with another head, or that head alone, beside what a perfect swap gives (docs/metrics.md).

Shape letters: H W image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from frustum.data.pixels import read_image
from frustum.errors import DataError, ShapeError
from frustum.files import atomic_path
from frustum.metrics.colour_error import ColourError
from frustum.metrics.image_quality import Psnr, Ssim
from frustum.nn.head_regions import FEATURES, REGIONS, dilation_for, head_masks, region_labels
from frustum.tasks.portrait_baselines import portrait_baselines
from frustum.tasks.task import ClassFigures, Figure, Predictor, Progress, Task, silent, without_nan
from frustum.types.layers import ImageLayer, Layer, Legend
from frustum.types.predictions import PredictedPortrait

if TYPE_CHECKING:
    from typing_extensions import Self

_POLICIES = ("source", "skin", "region")
_AREAS = ("head", "features", "gap", "both")


class TruePortrait(NamedTuple):
    """What a perfect swap gives.

    Attributes:
        pictures: by colour policy the whole portrait, by "" the head in its own colours and light; (H, W, 3) uint8.
        parsing: (H, W) parts of all of these, ids of CelebAMask-HQ.
        scene, scene_parsing: the portrait that gets the head, and its parts.
    """

    pictures: Mapping[str, np.ndarray]
    parsing: np.ndarray
    scene: np.ndarray
    scene_parsing: np.ndarray


class PortraitTask(Task):
    """`compute` gives `psnr_*` in dB and `ssim_*` of areas, `colour_error`, `region_error` by region, `background_changed`, `head_iou`.

    Areas: `head` is the true head; `features` its eyes, brows, lips and teeth; `gap` the ring around it, up to the dilated union of the
    heads of both people; `both` head and gap; the background is the rest. A prediction of a head alone is compared in the head, with the
    head in its own light.

    A prediction is written as a PNG, with `token`, `scene`, `policy`, and the packed bits of `head` in its text chunks.
    """

    name = "portrait"
    part = "portrait"
    protocol: ClassVar[Mapping[str, str]] = {
        "psnr_head": "peak signal-to-noise ratio in dB over the pixels of the true head, mean over images",
        "psnr_features": "the same over its eyes, brows, lips and teeth",
        "psnr_gap": "the same over the ring between the true head and the dilated union of both heads (by 17 pixels at 512)",
        "psnr_both": "the same over head and gap",
        "ssim_head": "structural similarity (11 x 11 Gaussian windows) around the pixels of the true head, mean over images",
        "ssim_gap": "the same around those of the gap",
        "colour_error": "Delta E (1976) between the mean colours of a region of the true head in prediction and truth, mean over images, "
        "then over regions",
        "region_error": "the same by region",
        "background_changed": "share of the pixels of the background that differ from the portrait by any amount",
        "head_iou": "intersection over union of predicted and true head, mean over images",
    }
    accepts = ""
    policy: str | None = None

    def __init__(self, order: Sequence[str] = (), slow: bool = True):
        super().__init__(order, slow)
        self._psnr = {area: Psnr() for area in _AREAS}
        self._ssim = {area: Ssim(region="full") for area in ("head", "gap")}
        self._colours = ColourError(len(REGIONS))
        self._images = self._background = self._changed = 0
        self._iou = [0.0, 0.0]

    def truth(self, source: Any, token: str) -> TruePortrait:
        """See `Task.truth`."""
        if not hasattr(source, "true_swap"):
            raise DataError(f"sample {token} of {source.root} is not a portrait, so that there is nothing to compare a head with.")
        pictures = {policy: source.true_swap(token, policy)[0] for policy in _POLICIES}
        placed = source.placed_head(token)
        pictures[""], parsing = (source.image(token), source.parsing(token)) if placed is None else placed
        return TruePortrait(pictures, parsing, source.image(token), source.parsing(token))

    def add(self, token: str, part: PredictedPortrait, truth: TruePortrait) -> None:
        """See `Task.add`."""
        self.policy = part.policy if self.policy is None else self.policy
        if part.policy != self.policy:
            raise DataError(f"the prediction of {token} has the colour policy {part.policy!r}, but others {self.policy!r}.")
        made, true = part.image.permute(1, 2, 0).numpy(), truth.pictures[part.policy]
        if made.shape != true.shape:
            raise ShapeError(f"the prediction of {token} has {made.shape[:2]} pixels, but the portrait has {true.shape[:2]}.")
        labels, scene = (region_labels(torch.tensor(parsing)[None]) for parsing in (truth.parsing, truth.scene_parsing))
        masks = head_masks(labels, scene, dilation_for(max(true.shape[:2])))
        regions, head, gap = labels[0].numpy(), masks.head[0].numpy(), masks.ring[0].numpy()
        areas = {"head": head, "features": np.isin(regions, FEATURES)}
        if part.policy:
            areas |= {"gap": gap, "both": head | gap}
            background = ~(head | gap)
            self._background += int(background.sum())
            self._changed += int((made != truth.scene).any(-1)[background].sum())
        else:  # nothing but the head counts
            made, true = (np.where(head[..., None], image, 127) for image in (made, true))
        for area, where in areas.items():
            self._psnr[area].add(made, true, where)
            if area in self._ssim:
                self._ssim[area].add(made, true, where)
        self._colours.add(made, true, regions)
        self._images += 1
        if part.head is not None:
            found = part.head.numpy()
            self._iou = [self._iou[0] + (found & head).sum() / max(1, (found | head).sum()), self._iou[1] + 1]

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        if self._images and other._images:
            self.require_alike(other, "policy")
        self.policy = other.policy if self.policy is None else self.policy
        for area, psnr in self._psnr.items():
            psnr.merge(other._psnr[area])
        for area, ssim in self._ssim.items():
            ssim.merge(other._ssim[area])
        self._colours.merge(other._colours)
        self._images, self._background = self._images + other._images, self._background + other._background
        self._changed += other._changed
        self._iou = [a + b for a, b in zip(self._iou, other._iou, strict=True)]
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class; and `policy`. An infinite figure is None."""
        found: dict[str, Any] = {f"psnr_{area}": _finite(metric.compute()["psnr"]) for area, metric in self._psnr.items()}
        found |= {f"ssim_{area}": metric.compute()["ssim"] for area, metric in self._ssim.items()}
        colours = self._colours.compute()
        found |= {"colour_error": colours["error"], "region_error": dict(zip(REGIONS, colours["by_part"], strict=True))}
        found["background_changed"] = self._changed / self._background if self._background else None
        found["head_iou"] = float(self._iou[0] / self._iou[1]) if self._iou[1] else None
        return without_nan(found | {"policy": self.policy or ""})

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        policy, group = metrics["policy"], "Portrait"
        way = f"colours: {policy}" if policy else "the head alone, in its own light"
        rows = [
            Figure("psnr_head", "PSNR head", metrics["psnr_head"], "dB", "true head", way, "", "how close the head is", group, True),
            Figure("psnr_features", "PSNR features", metrics["psnr_features"], "dB", "eyes, brows, lips, teeth", way, "", "", group),
            Figure("psnr_gap", "PSNR gap", metrics["psnr_gap"], "dB", "around the head", way, "", "how well gaps are filled", group, True),
            Figure("psnr_both", "PSNR head and gap", metrics["psnr_both"], "dB", "head and gap", way),
            Figure("ssim_head", "SSIM head", metrics["ssim_head"], "of 1", "true head", way, "", "how alike the structure is", group),
            Figure("ssim_gap", "SSIM gap", metrics["ssim_gap"], "of 1", "around the head", way),
            Figure(
                "colour_error", "colour error", metrics["colour_error"], "Delta E", "regions of the head", way, "",
                "distance of mean colours", group, False, False,
            ),
            Figure(
                "background_changed", "background changed", metrics["background_changed"], "%", "background", "any difference",
                higher_is_better=False,
            ),
            Figure("head_iou", "head IoU", metrics["head_iou"], "%", "all pixels", "mean over images"),
        ]  # fmt: skip
        return [row for row in rows if row.value is not None]

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures:
        """See `Task.classes`."""
        column = "colour error (Delta E)"
        values, mean = {column: metrics["region_error"]}, {column: metrics["colour_error"]}
        return ClassFigures("colour error by region", Legend.of(list(REGIONS)), values, mean, {column: "Delta E"})

    def baselines(self, source: Any, split: str, progress: Progress = silent) -> list[Predictor]:
        """See `portrait_baselines`: heads that are pasted, for what was scored here."""
        return portrait_baselines(source, self.policy or "", self.order)

    @classmethod
    def layers(cls, part: PredictedPortrait) -> list[Layer]:
        """The picture."""
        return [ImageLayer(part.image.permute(1, 2, 0).numpy(), "predicted")]

    @classmethod
    def truth_layers(cls, truth: TruePortrait, part: PredictedPortrait | None = None) -> list[Layer]:
        """The true picture under the policy of the prediction."""
        return [ImageLayer(truth.pictures[part.policy if part is not None else "region"], "true")]

    @classmethod
    def arrays(cls, part: PredictedPortrait) -> dict[str, np.ndarray]:
        """`image` uint8 (3, H, W), `policy` text, and `head` (H, W) bool where it is known."""
        head = {} if part.head is None else {"head": part.head.numpy()}
        return {"image": part.image.numpy(), "policy": np.array(part.policy), **head}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedPortrait:
        """The inverse of `arrays`."""
        head = torch.from_numpy(stored["head"]) if "head" in stored else None
        return PredictedPortrait(torch.from_numpy(stored["image"]), head, str(stored["policy"]))

    @classmethod
    def path(cls, folder: Path, token: str) -> Path:
        """See `Task.path`."""
        return folder / f"{token}.portrait.png"

    @classmethod
    def save(cls, part: PredictedPortrait, folder: Path, token: str, scene: str = "") -> Path:
        """See `Task.save`: a picture that any program opens."""
        path, text = cls.path(folder, token), PngInfo()
        head = "" if part.head is None else np.packbits(part.head.numpy()).tobytes().hex()
        for name, value in (("token", token), ("scene", scene), ("policy", part.policy), ("head", head)):
            text.add_text(name, value, zip=name == "head")
        with atomic_path(path) as temporary:
            Image.fromarray(part.image.permute(1, 2, 0).contiguous().numpy()).save(temporary, "PNG", pnginfo=text)
        return path

    @classmethod
    def read(cls, path: Path | str) -> tuple[str, PredictedPortrait]:
        """See `Task.read`."""
        advice = "It is not a prediction of `frustum predict`, or it is damaged."
        text, pixels = read_image(Path(path), lambda image: (dict(image.info), np.array(image.convert("RGB"))), advice)
        try:
            stored = {"image": np.moveaxis(pixels, -1, 0).copy(), "policy": np.array(text["policy"])}
            if text["head"]:
                packed, count = np.frombuffer(bytes.fromhex(text["head"]), np.uint8), pixels[..., 0].size
                if len(packed) != (count + 7) // 8:
                    raise ValueError("the mask is of another size")
                bits = np.unpackbits(packed, count=count)
                stored["head"] = bits.reshape(pixels.shape[:2]).astype(bool)
            return str(text["token"]), cls.restored(stored)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not a prediction of `frustum predict`: it does not name its sample and policy.") from error


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
