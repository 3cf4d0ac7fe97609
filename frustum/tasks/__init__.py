"""One file per question that is scored. `TASKS` lists them all; a new question is a file here and an entry there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frustum.tasks.task import Task

    TASKS: tuple[type[Task], ...]


def __getattr__(name: str) -> Any:
    """`TASKS` is made when it is first asked for: the tasks import torch."""
    if name != "TASKS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from frustum.tasks.bev_map import BevMapTask
    from frustum.tasks.detection import DetectionTask
    from frustum.tasks.occupancy import OccupancyTask
    from frustum.tasks.segmentation import SegmentationTask

    return (OccupancyTask, DetectionTask, BevMapTask, SegmentationTask)
