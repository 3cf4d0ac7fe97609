"""A network that renders its images, through predict and report: what is drawn is what it says, beside the labels."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from frustum.checkpoint.weights_file import WEIGHTS, save_weights
from frustum.cli.resolve import resolve_recipe
from frustum.data.labels.view_points import CLASSES
from frustum.engine.run import save_run
from frustum.tasks.rendered_views import RenderedViewsTask
from frustum.types.classes import OCC3D_COLOURS
from tests.cli.conftest import Run
from tests.models.small import TRUNK

CAR, ROAD = CLASSES.index("car"), CLASSES.index("driveable_surface")


def painted(picture: np.ndarray, kind: int) -> float:
    """Share of the pixels (H, W, 3) that can be a class colour over a photograph."""
    part = picture - 0.62 * np.array(OCC3D_COLOURS[kind])
    return float(((part > -12) & (part < 0.38 * 255 + 12)).all(-1).mean())


def sheet_of(page: Path) -> dict[str, np.ndarray]:
    """The pictures of a report by their captions."""
    found = re.findall(r'<figure><img src="data:image/\w+;base64,([^"]+)" alt="([^"]+)"', page.read_text(encoding="utf-8"))
    return {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float) for data, name in found}


def test_what_a_network_renders_is_drawn(frustum: Run, street_root: Path, tmp_path: Path) -> None:
    """One that sees cars everywhere paints them over what its cameras show; the labels are of other classes."""
    run, out = tmp_path / "run", tmp_path / "out"
    words = [word.replace("model.", "model.trunk.flashocc_tiny.", 1) for word in TRUNK if "grid" not in word]
    words += [f"data.root={street_root}", "data.image_size=64,176", "runtime.precision=fp32", "model.shown_width=44"]
    words += ["model.threshold=0.999"]  # no voxels to draw, which takes long
    recipe = resolve_recipe("renderocc-mini", words)
    save_run(run, recipe, source="renderocc-mini", overrides=words)
    torch.manual_seed(0)
    model = recipe.model.build()
    with torch.no_grad():
        model.trunk.head.weight.zero_()
        numbers = model.trunk.head.bias.zero_().view(-1, 1 + len(CLASSES))  # density and classes, of each height
        numbers[:, 0], numbers[:, 1 + CAR] = 8.0, 5.0
    save_weights(run / WEIGHTS, model)

    done = frustum("predict", run, street_root, "--split", "val", "--limit", 1, "--out", out)
    assert done.code == 0, done.err
    (file,), (picture,) = out.glob("*.views.npz"), out.glob("*.png")
    views = RenderedViewsTask.load(file)
    assert views.labels.shape == (6, 16, 44)
    assert (views.labels == CAR).float().mean() > 0.9
    assert views.depth[views.labels == CAR].max() < 5
    with Image.open(picture) as sheet:
        assert painted(np.asarray(sheet.convert("RGB"), float), CAR) > 0.05

    page = frustum("report", run, "--out", tmp_path / "report", "--samples", 1)
    assert page.code == 0, page.err
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Rendered views" in text
    drawn = sheet_of(tmp_path / "report" / "report.html")
    assert (tmp_path / "report" / "sample-1.png").is_file()
    predicted = [image for caption, image in drawn.items() if "predicted class" in caption.lower()]
    true = [image for caption, image in drawn.items() if "true class" in caption.lower()]
    assert len(predicted) == len(true) == 6
    assert min(painted(image, CAR) for image in predicted) > 0.9
    assert max(painted(image, CAR) for image in true) < 0.3
    assert np.mean([painted(image, ROAD) for image in true]) > np.mean([painted(image, ROAD) for image in predicted])
    depths = [image for caption, image in drawn.items() if "predicted depth" in caption.lower()]
    assert all((image[..., 0] > image[..., 2]).mean() > 0.9 for image in depths), "red is near"
