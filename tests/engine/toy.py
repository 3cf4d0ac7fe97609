"""A network of a few hundred parameters and a database of a few kilobytes: what the engine's tests train and evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.nuscenes.records import KeyframeRecord, SampleDataRecord, SceneRecord, SensorRecord, sample_token
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.occ3d.label_files import labels_path, write_labels
from frustum.data.sample import Occupancy
from frustum.engine.recipe import (
    AugmentConfig,
    EmaConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    RuntimeConfig,
    TrainConfig,
)
from frustum.geometry import VoxelGrid
from frustum.types.batch import Batch
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE
from frustum.types.predictions import PredictedOccupancy, Prediction

GRID = VoxelGrid(lower=(-4.0, -4.0, -1.0), upper=(4.0, 4.0, 2.2), cell=(0.8, 0.8, 0.8))
X, Y, Z = GRID.shape
K = len(OCC3D_CLASSES)


class ToyConfig(ModelConfig):
    grid: VoxelGrid = GRID
    width: int = 16
    dropout: float = 0.0
    batch_norm: bool = False
    poison: str = ""  # token of a sample whose loss is not a number
    slow: float = 0.0  # seconds a forward pass takes longer

    def learns_from(self) -> tuple[OccupancyLabels]:
        return (OccupancyLabels(self.grid),)

    def build(self) -> Toy:
        return Toy(self)


class Toy(nn.Module):
    """The mean image of all cameras, shrunk to the map, which knows its places; then a convolution to all heights and classes."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.encoder = nn.Conv2d(3, config.width, 3, padding=1)
        self.norm = nn.BatchNorm2d(config.width) if config.batch_norm else nn.Identity()
        self.place = nn.Parameter(torch.randn(config.width, Y, X))
        self.head = nn.Conv2d(config.width, Z * K, 1)
        self.prepared: np.ndarray | None = None

    def prepare(self, statistics) -> None:
        self.prepared = counts = statistics[OccupancyLabels]["counts"]
        share = (counts + 1) / (counts + 1).sum(1, keepdims=True)
        with torch.no_grad():
            self.head.bias.copy_(torch.from_numpy(np.log(share)).float().flatten())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": list(self.encoder.parameters()), "head": list(self.head.parameters())}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if self.config.slow:
            import time

            time.sleep(self.config.slow)
        images = batch.images[:, 0].mean(1)  # (B, 3, H, W)
        features = self.norm(self.encoder(F.adaptive_avg_pool2d(images, (Y, X))) + self.place).relu()
        features = F.dropout(features, self.config.dropout, self.training)
        logits = self.head(features).unflatten(1, (Z, K)).permute(0, 4, 3, 1, 2)  # (B, X, Y, Z, K)
        return {"features": features, "occ_logits": logits}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        truth = batch.need(OccupancyLabels)
        seen = truth.mask_camera
        cross = F.cross_entropy(outputs["occ_logits"][seen], truth.semantics[seen].long())
        if self.config.poison and self.config.poison in batch.tokens:
            cross = cross * float("nan")
        return {"occupancy": cross, "small": 1e-3 * outputs["occ_logits"].square().mean()}

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        semantics = outputs["occ_logits"].argmax(-1).to(torch.uint8)
        parts = [PredictedOccupancy(s, self.config.grid, OCC3D_CLASSES) for s in semantics]
        return [Prediction(token, occupancy=part) for token, part in zip(batch.tokens, parts, strict=True)]


def recipe(root: Path | str = "toy", **train: object) -> Recipe:
    """Twelve steps over eight training keyframes, batches of one."""
    settings: dict = {"epochs": None, "steps": 12, "batch_size": 1, "num_workers": 0, "checkpoint_every": 5, "log_every": 1, **train}
    return Recipe(
        name="toy",
        model=ToyConfig(),
        data=NuScenesData(root=str(root), image_size=(16, 32)),
        augment=AugmentConfig(resize=(0.0, 0.1), rotate_deg=(0.0, 0.0), colour_jitter=0.1, bev_flip_x=0.0, bev_flip_y=0.0),
        optim=OptimConfig(lr=1e-1, warmup_steps=3, schedule="cosine"),
        ema=EmaConfig(decay=0.9, warmup=0, initial_updates=0),
        train=TrainConfig(**settings),
        runtime=RuntimeConfig(device="cpu", precision="fp32"),
        eval=EvalConfig(),
    )


def write_database(root: Path, train_scenes: int = 2, val_scenes: int = 1, frames: int = 4, labels: bool = True) -> Path:
    """Two cameras whose colour tells the side on which a wall stands; ground everywhere."""
    rng = np.random.default_rng(0)
    writer = DatabaseWriter(root)
    names = [f"scene-{i:04d}" for i in range(1, train_scenes + val_scenes + 1)]
    intrinsics = np.array([[16.0, 0, 16], [0, 16, 8], [0, 0, 1]])
    forward = np.array([[0.0, 0, 1, 0.5], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]])
    backward = np.diag([-1.0, -1, 1, 1]) @ forward
    lidar = np.eye(4)
    lidar[2, 3] = 0.5
    sensors = (
        SensorRecord("CAM_FRONT", "camera", forward, intrinsics),
        SensorRecord("CAM_BACK", "camera", backward, intrinsics),
        SensorRecord("LIDAR_TOP", "lidar", lidar),
    )
    for scene in names:
        keyframes = []
        for i in range(frames):
            time = 1_700_000_000_000_000 + 500_000 * i + 10_000_000 * names.index(scene)
            ego = np.eye(4)
            ego[0, 3] = 0.5 * i
            wall = bool(rng.integers(2))
            data = []
            for sensor in sensors:
                is_camera = sensor.modality == "camera"
                file = f"samples/{sensor.channel}/{scene}__{sensor.channel}__{time}.{'png' if is_camera else 'bin'}"
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                if is_camera:
                    pixels = rng.integers(0, 60, (16, 32, 3)) + np.array([180, 20, 20] if wall else [20, 20, 180])
                    Image.fromarray(pixels.astype(np.uint8)).save(root / file)
                else:
                    np.zeros((4, 5), np.float32).tofile(root / file)
                data.append(SampleDataRecord(sensor.channel, time, file, ego, (16, 32) if is_camera else (0, 0)))
            keyframes.append(KeyframeRecord(time, tuple(data)))
            if labels:
                semantics = np.full(GRID.shape, OCC3D_FREE, np.uint8)
                semantics[:, :, 0] = OCC3D_CLASSES.index("driveable_surface")
                semantics[8 if wall else 1, :, 1:] = OCC3D_CLASSES.index("manmade")
                lidar_mask = (rng.random(GRID.shape) < 0.9).astype(np.uint8)
                camera_mask = lidar_mask & (rng.random(GRID.shape) < 0.8)
                write_labels(labels_path(root, scene, sample_token(scene, time)), Occupancy(semantics, lidar_mask, camera_mask))
        writer.add_scene(SceneRecord(scene, sensors, tuple(keyframes)))
    writer.finish({"train": names[:train_scenes], "val": names[train_scenes:]})
    return root
