"""The part of an image that a network reads: where the horizon was in training, for any camera of an imported rig."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.augment import anchor_of, draw, fit_image, horizon_share
from frustum.data.framing import advice, framing, framings, in_sentences, problem
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.pipeline import RigPipeline
from frustum.data.rig.importer import import_rig
from frustum.data.sample import CameraFrame
from frustum.data.source import AugmentConfig
from frustum.geometry import pose, rotation_xyz
from frustum.types.contract import Reads
from tests.data.rig.test_importer import calibration, write_rig

AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
SIZE = (256, 704)
PLAIN = AugmentConfig()


def camera(width: int, height: int, *, pitch: float = 0, focal: float = 0, own: bool = True) -> CameraFrame:
    focal = focal or 0.8 * max(width, height)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    cam2ego = pose(rotation_xyz(0, np.radians(pitch), 0) @ AHEAD, np.array([1.0, 0, 1.6]))
    return CameraFrame("CAM_A", Path("none.jpg"), 0.0, intrinsics, cam2ego, np.eye(4), (height, width), own)


def test_nuscenes_is_read_as_published() -> None:
    """Rows 318 to 900 of 900; the horizon, row 482, comes to row 72 of 256."""
    fit = fit_image(PLAIN, (900, 1600), SIZE)
    np.testing.assert_allclose(fit.matrix(), [[0.44, 0, 0], [0, 0.44, -140], [0, 0, 1]])
    assert horizon_share(PLAIN, SIZE) == pytest.approx((482 * 0.44 - 140) / 256)
    assert anchor_of(PLAIN, camera(1600, 900, own=False)) is None
    found = framing(camera(1600, 900, own=False), PLAIN, SIZE)
    assert (found.rows, found.columns, found.is_placed) == ((318, 900), (0, 1600), False)


@pytest.mark.parametrize(
    "given",
    [
        camera(1280, 960), camera(1280, 1024), camera(960, 1280), camera(1080, 1920), camera(1600, 900), camera(1920, 1080, pitch=10),
        camera(1280, 960, pitch=-8), camera(1920, 1080, focal=4500), camera(1280, 960, pitch=15, focal=600),
    ],
)  # fmt: skip
def test_the_horizon_comes_to_where_it_was_in_training(given: CameraFrame) -> None:
    found = framing(given, PLAIN, SIZE)
    assert found.is_placed
    assert found.share is not None
    assert found.share == pytest.approx(horizon_share(PLAIN, SIZE), abs=1 / 256)
    assert problem(found, is_trained=True) == ""
    top, bottom = found.rows
    assert bottom - top == pytest.approx(256 * given.size[1] / 704, abs=2)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_another_place_of_the_horizon(share: float) -> None:
    assert framing(camera(960, 1280), AugmentConfig(horizon=share), SIZE).share == pytest.approx(share, abs=1 / 256)


def test_a_four_to_three_camera_of_a_data_set_is_told_what_it_loses() -> None:
    """1280 x 960: rows 495 to 960 are kept, and the horizon is row 480."""
    found = framing(camera(1280, 960, own=False), PLAIN, SIZE)
    assert found.rows == (495, 960)
    assert found.horizon == 480
    assert "horizon, row 480 of 960, lies above the rows 495 to 960 that are read: nothing above it is seen" in problem(found)
    assert "augment.window=horizon" in advice(found)
    placed = framing(camera(1280, 960, own=False), AugmentConfig(window="horizon"), SIZE)
    assert (placed.rows, problem(placed)) == ((349, 815), "")
    assert framing(camera(1280, 960), AugmentConfig(window="bottom"), SIZE).rows == (495, 960)


def test_a_horizon_that_cannot_be_placed() -> None:
    down = framing(camera(1600, 900, pitch=40), PLAIN, SIZE)  # the horizon is above the image: its top rows are kept
    assert down.rows == (0, 582)
    assert "above the rows 0 to 582" in problem(down)
    assert "turn the camera" in advice(down)
    up = framing(camera(1600, 900, pitch=-40), PLAIN, SIZE)
    assert up.rows == (318, 900)
    assert "no ground is seen" in problem(up)
    nadir = framing(camera(1600, 900, pitch=90), PLAIN, SIZE)
    assert (nadir.horizon, nadir.share, problem(nadir)) == (None, None, "")
    flat = framing(camera(1600, 400), PLAIN, SIZE)  # an image that is not high enough is read whole
    assert flat.rows == (0, 400)


def test_where_it_was_in_training_counts_for_a_network() -> None:
    kitti = framing(camera(1242, 375, own=False), PLAIN, SIZE)
    assert problem(kitti) == ""
    assert "59 % of the way down in the network's image, and in training 28 %" in problem(kitti, is_trained=True)
    assert problem(framing(camera(1242, 375, own=False), AugmentConfig(horizon=0.59), SIZE), is_trained=True) == ""


def test_training_draws_about_the_same_window() -> None:
    given, rng = camera(960, 1280), np.random.default_rng(0)
    wanted, shares = horizon_share(PLAIN, SIZE), []
    for _ in range(50):
        (fit,) = draw(AugmentConfig(rotate_deg=(0, 0)), rng, [given.size], SIZE, [640.0]).images
        shares.append((640 * fit.resized[0] / 1280 - fit.top) / 256)
    assert abs(np.mean(shares) - wanted) < 0.05
    assert np.std(shares) > 0.01  # the scale is drawn, as for other cameras


def test_sentences() -> None:
    left = replace(camera(1280, 960), channel="CAM_LEFT")
    tall = replace(camera(960, 1280), channel="CAM_TALL")
    lines = in_sentences(framings([camera(1280, 960), left, camera(1280, 960), tall], PLAIN, SIZE))
    assert lines == [
        "CAM_A, CAM_LEFT (1280 x 960 pixels): rows 349 to 815 and all columns are read; the horizon is row 480, 28 % of the way down in "
        "the network's image",
        "CAM_TALL (960 x 1280 pixels): rows 542 to 891 and all columns are read; the horizon is row 640, 28 % of the way down in the "
        "network's image",
    ]


def test_an_imported_rig_is_read_so(tmp_path: Path) -> None:
    """Images and matrices agree: the row of the horizon is painted, and is found where the pipeline's matrix says."""
    content = calibration(("front",))
    content["cameras"][0] |= {"cx": 60, "cy": 45}
    content["pixel_origin"] = "corner"
    folder = write_rig(tmp_path / "rig", content, ("front",), frames=0)
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[44:46] = 255
    Image.fromarray(pixels).save(folder / "front" / "1.png")
    import_rig(folder, tmp_path / "out")
    dataset = NuScenes(tmp_path / "out")
    (token,) = dataset.tokens()
    (frame,) = dataset.sample(token).cameras
    assert frame.is_own_rig
    for augment, row in ((PLAIN, round(32 * horizon_share(PLAIN, (32, 120)))), (AugmentConfig(window="bottom"), None)):
        pipeline = RigPipeline(NuScenesData(image_size=(32, 120), mean=(0, 0, 0), std=(1, 1, 1)), Reads(), (), augment, training=False)
        batch = pipeline.collate([pipeline(dataset, token)])
        image = batch.images[0, 0, 0, 0].numpy()
        if row is None:
            assert image.max() == 0
            continue
        assert set(np.flatnonzero(image.mean(1) > 100)) == {row - 1, row}
        assert (batch.calibration.image_aug[0, 0, 0] @ batch.calibration.image_aug.new_tensor([60, 45, 1]))[1] == pytest.approx(row)


def test_training_notes_where_the_horizon_was(toy_root: Path) -> None:
    data = NuScenesData(root=str(toy_root), version=NuScenes(toy_root, _version(toy_root)).version)
    source = data.open()
    data = data.model_copy(update={"train_split": source.splits()[0]})
    shares = [f.share for t in source.tokens(data.train_split) for f in framings(source.sample(t).cameras, PLAIN, SIZE)]
    measured = data.measured(source, PLAIN)
    assert measured.horizon == pytest.approx(np.median([s for s in shares if s is not None]), abs=0.05)
    assert data.measured(source, AugmentConfig(horizon=0.4)).horizon == 0.4


def _version(root: Path) -> str:
    return next(path.parent.name for path in root.glob("*/sample.json"))
