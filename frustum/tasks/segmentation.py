"""The class of every pixel of an image: mIoU over a set of labelled images (docs/metrics.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from frustum.data.images.labelled import images_in, read_ids
from frustum.data.pixels import read_image
from frustum.errors import DataError, ShapeError
from frustum.files import atomic_path
from frustum.metrics.semantic_iou import SemanticIoU
from frustum.tasks.task import ClassFigures, Figure, Predictor, Task, names_from, require_names, without_nan
from frustum.types.classes import IGNORE
from frustum.types.layers import Layer, Legend, PixelLayer
from frustum.types.predictions import PredictedSegmentation, Prediction

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class TrueSegmentation:
    """Labels (H, W) uint8 of an image, IGNORE where nothing counts, and the class names of the data set, empty if it states none."""

    labels: np.ndarray
    class_names: tuple[str, ...] = ()


class SegmentationTask(Task):
    """`compute` gives `miou`, the pixel `accuracy`, `mean_accuracy`, and by class `class_iou`, `class_accuracy` and `class_share`, all
    ratios 0..1.

    A prediction is written as a PNG of 8-bit class ids, with a palette so that it can be looked at, and in its text chunks `token`,
    `scene` and `class_names`, a JSON list.
    """

    name = "segmentation"
    part = "segmentation"
    protocol: ClassVar[Mapping[str, str]] = {
        "miou": "mean over the classes of IoU, counts pooled over all images; pixels labelled 255 do not count; a class that occurs "
        "neither in truth nor in prediction is left out (Cityscapes)",
        "accuracy": "share of the labelled pixels whose class is right",
        "mean_accuracy": "mean over the classes of class_accuracy; a class without a true pixel is left out",
        "class_accuracy": "share of the pixels of each class whose class is right",
        "class_share": "share of each class among the labelled pixels",
    }
    accepts = "a folder of label maps TOKEN.png (8 bits, the class of each pixel)"
    _metric: SemanticIoU | None = None
    class_names: tuple[str, ...] = ()

    def truth(self, source: Any, token: str) -> TrueSegmentation:
        """See `Task.truth`."""
        read = getattr(source, "labels", None)
        if read is None or (labels := read(token)) is None:
            raise DataError(f"sample {token} of {source.root} has no label image to compare with; use `frustum predict` for such data.")
        return TrueSegmentation(labels, tuple(getattr(source, "class_names", ())))

    def add(self, token: str, part: PredictedSegmentation, truth: TrueSegmentation) -> None:
        """See `Task.add`."""
        names = part.class_names or truth.class_names  # files of others do not name their classes
        if self._metric is None:
            if not names:
                raise DataError(f"neither the prediction of {token} nor the data set names the classes. Give the data set a classes.json.")
            self.class_names, self._metric = names, SemanticIoU(len(names), IGNORE)
        require_names(token, names, self.class_names)
        if truth.class_names not in ((), names):
            raise DataError(
                f"the network predicts the classes {', '.join(names)}, but the labels have {', '.join(truth.class_names)}. "
                "Evaluate on the data set that it was trained for."
            )
        if tuple(part.labels.shape) != truth.labels.shape:
            raise ShapeError(f"the prediction of {token} has {tuple(part.labels.shape)} pixels, but its labels have {truth.labels.shape}.")
        self._metric.add(part.labels, truth.labels)

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        self.require_alike(other, "class_names")
        if self._metric is not None and other._metric is not None:
            self._metric.merge(other._metric)
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class."""
        metric = self._metric or SemanticIoU(1)
        found, true = metric.compute(), metric.state["confusion"].sum(1)
        recall = dict(zip(self.class_names, found["class_accuracy"], strict=False))
        by_class = dict(zip(self.class_names, found["per_class"], strict=False))
        share = dict(zip(self.class_names, (true / max(1, true.sum())).tolist(), strict=False))
        figures = {name: found[name] for name in ("miou", "accuracy", "mean_accuracy")}
        return without_nan({**figures, "class_iou": by_class, "class_accuracy": recall, "class_share": share})

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        count, on, right = len(metrics["class_iou"]), "labelled pixels", "share of the pixels whose class is right"
        mean = f"mean over {count} classes of the IoU of their pixels"
        return [
            Figure("miou", "mIoU", metrics["miou"], "%", on, f"{count} classes, pooled", "mIoU", mean, "Pixels", True),
            Figure("accuracy", "pixel accuracy", metrics["accuracy"], "%", on, "all classes", "pixel accuracy", right, "Pixels"),
            *_mean_accuracy(metrics),
        ]

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures:
        """See `Task.classes`."""
        columns, means = {"IoU": metrics["class_iou"]}, {"IoU": metrics["miou"]}
        if "class_accuracy" in metrics:  # not in evaluations before November 2026
            columns["accuracy"], means["accuracy"] = metrics["class_accuracy"], metrics["mean_accuracy"]
        return ClassFigures("IoU by class", Legend.of(list(columns["IoU"])), columns, means, share=metrics["class_share"])

    @classmethod
    def layers(cls, part: PredictedSegmentation) -> list[Layer]:
        """The classes of the pixels."""
        return [PixelLayer(part.labels.numpy(), Legend.of(part.class_names), IGNORE)]

    @classmethod
    def truth_layers(cls, truth: TrueSegmentation, part: PredictedSegmentation | None = None) -> list[Layer]:
        """The labels; in the colours of the prediction where the data set does not name its classes."""
        names = truth.class_names or (part.class_names if part is not None else ())
        return [PixelLayer(truth.labels, Legend.of(names), IGNORE)] if names else []

    @classmethod
    def arrays(cls, part: PredictedSegmentation) -> dict[str, np.ndarray]:
        """`labels` uint8 (H, W), `class_names` (K,) text."""
        return {"labels": part.labels.numpy().astype(np.uint8), "class_names": np.array(part.class_names)}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedSegmentation:
        """The inverse of `arrays`."""
        return PredictedSegmentation(torch.from_numpy(stored["labels"]), names_from(stored))

    @classmethod
    def path(cls, folder: Path, token: str) -> Path:
        """See `Task.path`."""
        return folder / f"{token}.segmentation.png"

    @classmethod
    def save(cls, part: PredictedSegmentation, folder: Path, token: str, scene: str = "") -> Path:
        """See `Task.save`: a label map that any program opens."""
        path, text = cls.path(folder, token), PngInfo()
        for name, value in (("token", token), ("scene", scene), ("class_names", json.dumps(part.class_names))):
            text.add_text(name, value)
        image = Image.fromarray(cls.arrays(part)["labels"])
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(part.class_names)] = Legend.of(part.class_names).colours
        image.putpalette(colours.ravel().tolist())
        with atomic_path(path) as temporary:
            image.save(temporary, "PNG", pnginfo=text)
        return path

    @classmethod
    def read(cls, path: Path | str) -> tuple[str, PredictedSegmentation]:
        """See `Task.read`."""
        text = read_image(Path(path), lambda image: dict(image.info), "It is not a prediction of `frustum predict`, or it is damaged.")
        labels = read_ids(Path(path))
        try:
            names = json.loads(text["class_names"])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("no list of names")
            return str(text["token"]), cls.restored({"labels": labels.copy(), "class_names": np.array(names)})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path} is not a prediction of `frustum predict`: it does not name its sample and classes.") from error

    @classmethod
    def recognise(cls, path: Path) -> Predictor | None:
        """What `save` wrote, or a folder of label maps TOKEN.png of others."""
        if (own := super().recognise(path)) is not None:
            return own
        files = [file for file in images_in(path) if file.suffix == ".png"]
        if not files or any(path.glob("*.npz")) or read_image(files[0], lambda image: image.mode) not in ("L", "P"):
            return None  # pictures beside predictions of other questions
        return LabelMaps(path)


class LabelMaps(Predictor):
    """Label maps of any origin, TOKEN.png; their ids are the classes of the data set that they are compared with.

    Attributes:
        tokens: samples that have a file.
    """

    def __init__(self, folder: Path):
        self.name, self._folder = folder.name, folder
        self.tokens = [path.stem for path in images_in(folder) if path.suffix == ".png"]

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample. Raises DataError for a damaged file, and for one that does not hold ids of 8 bits."""
        labels = torch.from_numpy(read_ids(self._folder / f"{token}.png").copy())
        return Prediction(token, segmentation=PredictedSegmentation(labels, ()))


def _mean_accuracy(metrics: Mapping[str, Any]) -> list[Figure]:
    """Evaluations before November 2026 do not have it."""
    if "mean_accuracy" not in metrics:
        return []
    value, mean = metrics["mean_accuracy"], "mean over the classes of the share of their pixels whose class is right"
    return [Figure("mean_accuracy", "mean accuracy", value, "%", "labelled pixels", "by class", "mAcc", mean, "Pixels")]
