"""The whole of training in one screen, without the engine: read a database, augment, forward, loss, step, predict.

frustum data world data/street --scenes 4 --val-scenes 1 --frames 5
python examples/train_loop_by_hand.py data/street 100
"""

from __future__ import annotations

import sys

import torch

import frustum
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.engine.feed import build_pipeline
from frustum.engine.statistics import label_statistics
from frustum.metrics.occupancy import OccupancyIoU


def main(root: str, steps: int = 100, **settings: object) -> float:
    """Train on the split `train`, return the mIoU (camera mask) on the first keyframe of `val`."""
    model = frustum.load("flashocc-tiny", **{"data.root": root, **settings}).train()
    recipe = model.recipe  # how its input is prepared, and from what it learns
    source, pipeline = recipe.data.open(), build_pipeline(recipe, training=False)
    model.prepare(label_statistics(recipe, source))  # start from how often each class occurs at each height
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    random = torch.Generator().manual_seed(0)

    train = source.tokens("train")
    for step in range(steps):
        token = train[int(torch.randint(len(train), (), generator=random))]
        batch = pipeline.collate([pipeline(source, token)])
        losses = model.loss(model(batch), batch)
        loss = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        if step % 10 == 0:
            print(f"step {step}: " + ", ".join(f"{name} {float(value.detach()):.3f}" for name, value in losses.items()))

    model.eval()
    batch = pipeline.collate([pipeline(source, source.tokens("val")[0])])
    with torch.inference_mode():
        prediction = model.predict(model(batch), batch)[0]
    score, truth = OccupancyIoU(), batch.need(OccupancyLabels)
    score.add(prediction.occupancy.semantics, truth.semantics[0], truth.mask_camera[0])
    miou = float(score.compute()["miou"])
    print(f"mIoU on one unseen keyframe: {100 * miou:.2f} %")
    return miou


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100)
