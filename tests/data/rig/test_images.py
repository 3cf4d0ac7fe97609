"""The images of a rig as files really are: turned by a note of the camera, of other bit depths, of two sizes, through fisheye lenses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frustum.data.lenses import Lens, undistort_image
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.rig.importer import import_rig
from frustum.errors import DataError, FrustumWarning
from tests.data.rig.test_importer import calibration, write_rig

ORIENTATION = 0x0112
CORNERS = np.array([[10, 80], [150, 230]])  # grey values of the quarters of an upright image


def upright_pixels(size: tuple[int, int] = (90, 120)) -> np.ndarray:
    return np.kron(CORNERS, np.ones((size[0] // 2, size[1] // 2))).astype(np.uint8)[..., None].repeat(3, -1)


def as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a file with this orientation holds, by the definition of the tag: where row 0 and column 0 of the file are."""
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    return np.ascontiguousarray(undo[orientation](pixels))


def save(path: Path, pixels: np.ndarray, orientation: int) -> None:
    image = Image.fromarray(as_stored(pixels, orientation))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))


def rig(folder: Path, suffix: str = ".jpg", **changes: Any) -> Path:
    content = calibration(("front",))
    content["cameras"][0] |= {"images": f"front/*{suffix}"} | changes
    return write_rig(folder, content, ("front",), frames=0)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_notes_of_the_camera_are_applied_and_stripped(tmp_path: Path, orientation: int, suffix: str) -> None:
    folder = rig(tmp_path / "rig", suffix)
    save(folder / "front" / f"1{suffix}", upright_pixels(), orientation)
    import_rig(folder, tmp_path / "out", link=True)
    dataset = NuScenes(tmp_path / "out")
    (frame,) = dataset.sample(dataset.tokens()[0]).cameras
    assert frame.size == (90, 120)
    np.testing.assert_allclose(np.asarray(frame.open()), upright_pixels(), atol=6)
    with Image.open(frame.path) as stored:
        assert stored.getexif().get(ORIENTATION, 1) == 1
        assert stored.size == (120, 90)
    with Image.open(folder / "front" / f"1{suffix}") as own:
        assert own.getexif()[ORIENTATION] == orientation  # the user's file stays as it is


@pytest.mark.parametrize(("orientation", "size"), [(3, None), (4, None), (6, (120, 90)), (8, (90, 120))])
def test_notes_count_in_data_sets_too(tmp_path: Path, toy_root: Path, orientation: int, size: Any) -> None:
    root = Path(shutil.copytree(toy_root, tmp_path / "data"))
    dataset = NuScenes(root, next(p.parent.name for p in root.glob("*/sample.json")))
    frame = dataset.sample(dataset.tokens()[0]).cameras[0]
    pixels = upright_pixels((2 * (frame.size[0] // 2), 2 * (frame.size[1] // 2)))
    save(frame.path, pixels, orientation)
    opened = frame.open()
    np.testing.assert_allclose(np.asarray(opened), pixels, atol=6)
    assert opened.info == {"turned": orientation}


def test_a_size_that_is_right_only_without_the_note_is_explained(tmp_path: Path) -> None:
    folder = rig(tmp_path / "rig", width=90, height=120, cx=40, cy=60)
    save(folder / "front" / "1.jpg", upright_pixels(), 6)
    with pytest.raises(DataError, match="has 120x90 pixels, but camera front is calibrated for 90x120"):
        import_rig(folder, tmp_path / "out")


def sixteen_bits(path: Path) -> None:
    """A PNG of 16 bits per colour, which Pillow cannot write: header, one row filter, deflate."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + (np.full(120 * 3, 3000, ">u2")).tobytes() for _ in range(90))
    header = struct.pack(">IIBBBBB", 120, 90, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def test_more_than_eight_bits_are_refused_by_name(tmp_path: Path) -> None:
    folder = rig(tmp_path / "rig", ".*")
    for name, make in {
        "a.png": lambda path: Image.fromarray(np.full((90, 120), 40000, np.uint16)).save(path),
        "b.png": sixteen_bits,
        "c.tiff": lambda path: Image.fromarray(np.full((90, 120), 0.5, np.float32)).save(path),
        "d.tiff": lambda path: Image.fromarray(np.full((90, 120), 7, np.int32)).save(path),
    }.items():
        path = folder / "front" / name
        make(path)
        with pytest.raises(DataError, match=rf"{name} has more than 8 bits per colour.*mogrify -depth 8"):
            import_rig(folder, tmp_path / "out")
        path.unlink()
    assert not (tmp_path / "out" / "v1.0-trainval" / "scene.json").exists()


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 90, 90), ("1", 1, 255), ("RGBA", (90, 90, 90, 255), 90), ("P", 3, None)])
def test_fewer_bits_come_out_right(tmp_path: Path, mode: str, value: Any, expected: int | None) -> None:
    folder = rig(tmp_path / "rig", ".png")
    image = Image.new(mode, (120, 90), value)
    if mode == "P":
        image.putpalette([5, 6, 7] * 3 + [90, 91, 92] + [0] * 756)
    image.save(folder / "front" / "1.png")
    import_rig(folder, tmp_path / "out")
    dataset = NuScenes(tmp_path / "out")
    pixel = np.asarray(dataset.sample(dataset.tokens()[0]).cameras[0].open())[40, 60].tolist()
    assert pixel == ([90, 91, 92] if expected is None else [expected] * 3)


@pytest.mark.parametrize("stated", [{}, {"width": 120, "height": 90}])
def test_two_sizes_in_one_camera(tmp_path: Path, stated: dict[str, int]) -> None:
    content = calibration(("front",))
    del content["cameras"][0]["width"], content["cameras"][0]["height"]
    content["cameras"][0] |= stated
    folder = write_rig(tmp_path / "rig", content, ("front",))
    Image.new("RGB", (240, 180)).save(folder / "front" / "001.png")
    words = "has 240x180 pixels, but camera front is calibrated" if stated else r"2 sizes, 120x90 \(000.png\) and 240x180 \(001.png\)"
    with pytest.raises(DataError, match=words):
        import_rig(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fisheye_camera_becomes_a_pinhole_camera(tmp_path: Path) -> None:
    numbers = [-0.012, 0.021, -0.018, 0.004]
    lens = {"distortion": numbers, "distortion_model": "fisheye"}
    folder = rig(tmp_path / "rig", ".png", **lens)
    rng = np.random.default_rng(0)
    original = np.asarray(Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((120, 90)))
    Image.fromarray(original).save(folder / "front" / "1.png")
    with pytest.warns(FrustumWarning, match='pinhole images of 62 degrees across.*"field_of_view": DEGREES'):
        assert import_rig(folder, tmp_path / "out")["undistorted_images"] == 1
    folder = rig(tmp_path / "narrow", ".png", **lens, field_of_view=40)
    Image.fromarray(original).save(folder / "front" / "1.png")
    with pytest.warns(FrustumWarning, match="40 degrees across"):
        import_rig(folder, tmp_path / "out")
    seen = np.array([[100.0, 0, 60], [0, 101, 45], [0, 0, 1]])
    dataset = NuScenes(tmp_path / "out")
    for scene, scale in (("rig", 1), ("narrow", 60 / np.tan(np.radians(20)) / 100)):
        (frame,) = dataset.sample(dataset.tokens(scene)[0]).cameras
        np.testing.assert_allclose(frame.intrinsics, seen * [[scale, scale, 1], [scale, scale, 1], [1, 1, 1]])
        expected = undistort_image(original, seen, Lens("equidistant", tuple(numbers)), frame.intrinsics)
        np.testing.assert_array_equal(np.asarray(frame.open()), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"field_of_view": 90}, "no distortion that is undone"),
        ({"field_of_view": 200, "distortion_model": "equidistant", "distortion": [0, 0, 0, 0]}, "10 to 160 degrees"),
        ({"fx": 20, "fy": 20, "distortion_model": "equidistant", "distortion": [0, 0, 0, 0]}, '143 degrees across.*"field_of_view": 100'),
        ({"distortion_model": "mei"}, "not known"),
    ],
)
def test_lenses_that_cannot_be_undone(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = rig(tmp_path / "rig", ".png", **changes)
    Image.new("RGB", (120, 90)).save(folder / "front" / "1.png")
    with pytest.raises(DataError, match=words):
        import_rig(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
