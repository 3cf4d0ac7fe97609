"""One file per question that is scored. `TASKS` lists them all; a new question is a file here and an entry there."""

from frustum.tasks.bev_map import BevMapTask
from frustum.tasks.detection import DetectionTask
from frustum.tasks.occupancy import OccupancyTask
from frustum.tasks.portraits import PortraitTask
from frustum.tasks.rendered_views import RenderedViewsTask
from frustum.tasks.segmentation import SegmentationTask
from frustum.tasks.task import Task
from frustum.tasks.volume import VolumeTask

TASKS: tuple[type[Task], ...] = (OccupancyTask, DetectionTask, BevMapTask, SegmentationTask, RenderedViewsTask, VolumeTask, PortraitTask)
