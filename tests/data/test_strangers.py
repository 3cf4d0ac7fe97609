"""Data sets from strangers: their names and links lead nowhere else, and what is no image is not opened as one."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frustum.data import pixels
from frustum.data.images.opening import open_images
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.pixels import read_image
from frustum.data.rig.importer import import_rig
from frustum.data.sample import LidarFrame
from frustum.errors import DataError
from frustum.files import ALSO_READ, check_name, inside, read_json, write_json
from tests.data.toy import VERSION

NOT_A_NAME = ["", ".", "..", "../../x", "/abs/x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 181, "\ud800", None, 7]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")


@pytest.fixture
def root(toy_root: Path, tmp_path: Path) -> Path:
    """A private copy of the toy database."""
    return Path(shutil.copytree(toy_root, tmp_path / "db"))


@pytest.mark.parametrize("name", NOT_A_NAME)
def test_names_are_one_component_of_a_path(name: Any) -> None:
    with pytest.raises(DataError, match=r"the token is .* cannot be the name of a file"):
        check_name(name, "the token")
    for good in ("scene-0001", "n015__CAM_FRONT__153", "front left", "..a", "字"):
        assert check_name(good, "the token") == good


@POSIX
def test_links_stay_inside_unless_the_user_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "samples", other):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"")
    (root / "file.jpg").symlink_to(other / "a.jpg")
    (root / "folder").symlink_to(other)
    (root / "within").symlink_to(root / "samples")
    (tmp_path / "root2").symlink_to(root)
    for name in ("samples/a.jpg", "within/a.jpg", "samples/../samples/a.jpg", "samples/missing.jpg"):
        assert inside(root, name) == root / name
        assert inside(tmp_path / "root2", name) == tmp_path / "root2" / name
    monkeypatch.chdir(tmp_path)
    assert inside(Path("root"), Path("root/samples/a.jpg")) == Path("root/samples/a.jpg"), "a path is that of the file itself"
    assert inside(Path("root"), "samples/a.jpg") == Path("root/samples/a.jpg")
    with pytest.raises(DataError, match="outside the data set"):
        inside(Path("root"), Path("root/file.jpg"))
    outside = ["file.jpg", "folder/a.jpg", "../other/a.jpg", str(other / "a.jpg"), "within/../../other/a.jpg", "folder/.."]
    for name in outside:
        with pytest.raises(DataError, match="outside the data set"):
            inside(root, name)
    with pytest.raises(DataError, match="cannot be the name of a file"):
        inside(root, "a\0b")
    monkeypatch.setenv(ALSO_READ, f"/nowhere{os.pathsep}{other}")
    assert inside(root, "folder/a.jpg") == root / "folder/a.jpg"
    with pytest.raises(DataError, match="outside the data set"):
        inside(root, "../third/a.jpg")


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [("sample", "token", "token of a keyframe"), ("scene", "name", "name of a scene"), ("sensor", "channel", "channel of a sensor"),
     ("log", "location", "location of a log")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["../../x", "/abs/x"])
def test_names_in_tables_are_checked_where_the_index_is_built(root: Path, table: str, field: str, words: str, name: str) -> None:
    rows = read_json(root / VERSION / f"{table}.json")
    rows[-1][field] = name
    write_json(root / VERSION / f"{table}.json", rows)
    with pytest.raises(DataError, match=rf"the {words} .* which cannot be the name of a file"):
        NuScenes(root, VERSION).tokens()


@pytest.mark.parametrize("name", ["../secret.jpg", "{tmp}/secret.jpg", "samples/link.jpg"])
def test_files_that_tables_name_lie_in_the_data_set(root: Path, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.jpg")
    (root / "samples" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    rows = read_json(root / VERSION / "sample_data.json")
    for row in rows:
        row["filename"] = name.format(tmp=tmp_path)
    write_json(root / VERSION / "sample_data.json", rows)
    reader = NuScenes(root, VERSION)
    with pytest.raises(DataError, match=r"secret\.jpg, outside the data set"):
        reader.sample(reader.tokens()[0])


@POSIX
def test_label_files_and_tables_lie_in_the_data_set(root: Path, tmp_path: Path) -> None:
    reader = NuScenes(root, VERSION)
    token = reader.tokens()[0]
    assert reader.labels_path(reader.scene(token).name, token) is not None
    (root / "gts").rename(tmp_path / "gts")
    (root / "gts").symlink_to(tmp_path / "gts")
    inside.__globals__["_real"].cache_clear()  # within a process folders do not become links
    with pytest.raises(DataError, match="outside the data set"):
        NuScenes(root, VERSION).sample(token)
    (root / VERSION).rename(tmp_path / "tables")
    (root / VERSION).symlink_to(tmp_path / "tables")
    inside.__globals__["_real"].cache_clear()
    with pytest.raises(DataError, match="outside the data set"):
        NuScenes(root, VERSION)


@pytest.mark.parametrize("images", ["../*.png", "/etc/*", ["../secret.png"], ["{tmp}/secret.png"], ["link.png"], "l*.png"])
def test_a_rig_takes_its_images_from_its_own_folder(tmp_path: Path, images: Any) -> None:
    rig = tmp_path / "rig"
    rig.mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
    (rig / "link.png").symlink_to(tmp_path / "secret.png")
    given = images if isinstance(images, str) else [name.format(tmp=tmp_path) for name in images]
    camera = {"name": "front", "images": given, "fx": 30, "fy": 30, "cx": 20, "cy": 15, "cam2ego": np.eye(4).tolist()}
    (rig / "calibration.json").write_text(json.dumps({"cameras": [camera]}))
    with pytest.raises(DataError, match=r"outside the data set|must lie in"):
        import_rig(rig, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.png"))


def test_image_sets_too(tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
            Image.new("L", (4, 4)).save(root / folder / "a.png")
        (root / f"{split}.txt").write_text(f"{split}/{split}.png {split}annot/a.png\n")
        os.replace(root / split / "a.png", root / split / f"{split}.png")
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    assert open_images(root).sample("val").size == (4, 4)
    (root / "val.txt").write_text("x/../secret.png ../secret.png\n")
    with pytest.raises(DataError, match="outside the data set"):
        open_images(root).sample("secret")
    (root / "val.txt").write_text("val/.. valannot/a.png\n")
    with pytest.raises(DataError, match="cannot be the name of a file"):
        open_images(root)


def test_programs_are_not_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EndProlog\nshowpage\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(eps)
    with pytest.raises(DataError, match=r"a\.jpg: it is damaged, or none of JPEG, PNG"):
        read_image(tmp_path / "a.jpg", lambda image: image.convert("RGB"))
    for kind in pixels.FORMATS:
        Image.new("RGB", (40, 30)).save(tmp_path / "b.jpg", kind)
        assert read_image(tmp_path / "b.jpg", lambda image: image.convert("RGB").size) == (40, 30)


def test_a_small_file_that_claims_a_large_image_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for width, height in ((30_000, 30_000), (13_500, 13_500)):  # Pillow refuses the first by itself
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
        with pytest.raises(DataError, match=r"cannot read the image .*pixels"):
            read_image(tmp_path / "a.png", lambda image: image.convert("RGB"))


@POSIX
def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (lambda p: read_image(p, np.asarray), read_json, LidarFrame(path, 0.0, np.eye(4), np.eye(4)).load):
            with pytest.raises(DataError, match="a folder, a pipe or a device"):
                read(path) if read.__name__ != "load" else read()


@POSIX
def test_a_table_that_is_a_pipe_does_not_hang(root: Path) -> None:
    (root / VERSION / "sample.json").unlink()
    os.mkfifo(root / VERSION / "sample.json")
    with pytest.raises(DataError, match="a folder, a pipe or a device"):
        NuScenes(root, VERSION).tokens()
