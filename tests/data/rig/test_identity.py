"""Which images belong together, which recording is which, and whose files they are."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.rig.importer import import_rig, read_rig
from frustum.data.rig.order import natural_key
from frustum.errors import DataError, FrustumWarning
from frustum.files import write_json
from tests.data.rig.test_importer import calibration, write_rig


def named(folder: Path, names: dict[str, list[str]]) -> Path:
    """A rig whose images have these names; the k-th of a list shows the brightness k."""
    write_rig(folder, calibration(tuple(names)), tuple(names), frames=0)
    for camera, files in names.items():
        for k, name in enumerate(files):
            Image.new("RGB", (120, 90), (k, k, k)).save(folder / camera / f"{name}.png")
    return folder


def order(folder: Path) -> list[list[str]]:
    return [[path.stem for path in frame.images.values()] for frame in read_rig(folder)[1]]


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    plain = [str(k) for k in range(1, 13)]
    folder = named(tmp_path / "rig", {"front": plain, "left": [f"{k:04d}" for k in range(1, 13)]})
    with pytest.warns(FrustumWarning, match=r"order of their numbers, 2\.png before 10\.png"):
        assert order(folder) == [[str(k), f"{k:04d}"] for k in range(1, 13)]
    with pytest.warns(FrustumWarning):
        import_rig(folder, tmp_path / "out")
    dataset = NuScenes(tmp_path / "out")
    shown = [[int(np.asarray(c.open()).max()) for c in dataset.sample(token).cameras] for token in dataset.tokens()]
    assert shown == [[k, k] for k in range(12)]
    assert sorted(["a/10.5", "a/9.25", "a/10.25", "b/1"], key=natural_key) == ["a/9.25", "a/10.25", "a/10.5", "b/1"]


@pytest.mark.parametrize(
    "names",
    [
        {"front": ["1", "2", "3"], "left": ["2", "3", "4"]},
        {"front": ["cam0_1", "cam0_2", "cam0_4"], "left": ["cam1_1", "cam1_3", "cam1_4"]},
    ],
)
def test_cameras_that_number_differently_are_refused(tmp_path: Path, names: dict[str, list[str]]) -> None:
    with pytest.raises(DataError, match=r'number their images differently.*under "frames"'):
        import_rig(named(tmp_path / "rig", names), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_numberings(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        order(named(tmp_path / "a", {"front": ["cam0_1", "cam0_2"], "left": ["cam1_01", "cam1_02"]}))
        order(named(tmp_path / "b", {"front": ["front2"], "left": ["left3"]}))
    with pytest.warns(FrustumWarning, match="paired by order"):
        order(named(tmp_path / "c", {"front": ["1600000000100", "1600000000600"], "left": ["1600000000120", "1600000000620"]}))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1600000000.450000000", "1600000000.50000000"], "decimal numbers in their names"),  # nanoseconds without zeros
        (["B4", "B5", "a1", "a2"], "order of their names, front/B5 before front/a1"),
        (["8", "9", "a", "10"], "order of their numbers, 8.png before 10.png"),
    ],
)
def test_names_that_can_be_read_in_two_ways_are_noted(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.warns(FrustumWarning, match=words):
        order(named(tmp_path / "rig", {"front": names}))


def test_negative_numbers_sort_as_numbers(tmp_path: Path) -> None:
    with pytest.warns(FrustumWarning, match="order of their numbers"):
        assert order(named(tmp_path / "rig", {"front": ["-1", "-2", "0", "1"]})) == [["-2"], ["-1"], ["0"], ["1"]]
    assert sorted(["img-2", "img-10"], key=natural_key) == ["img-2", "img-10"], "a dash between words is no sign"


@pytest.mark.parametrize("in_frames", [False, True])
def test_lists_in_the_order_of_text_are_noted(tmp_path: Path, in_frames: bool) -> None:
    """As `sorted(os.listdir(...))` gives them; a list in any other order was written on purpose."""

    def listed(names: list[str]) -> Path:
        content = calibration(("front",))
        files = [f"front/{name}.png" for name in names]
        if in_frames:
            del content["cameras"][0]["images"]
            content["frames"] = [{"images": {"front": file}} for file in files]
        else:
            content["cameras"][0]["images"] = files
        folder = named(tmp_path / "rig", {"front": names})
        write_json(folder / "calibration.json", content)
        return folder

    with pytest.warns(FrustumWarning, match=r"in the order of text, 10\.png|in the order of text, 10 before 2"):
        assert order(listed(["1", "10", "2"])) == [["1"], ["10"], ["2"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert order(listed(["10", "2", "1"])) == [["10"], ["2"], ["1"]]
        order(listed(["01", "02", "10"]))


def test_time_stamps_of_which_one_is_missing_are_refused(tmp_path: Path) -> None:
    """Paired by order they would drift apart by a whole step."""
    front = [str(1_600_000_000_000 + 100 * k) for k in range(6)]
    left = [str(1_600_000_000_003 + 100 * k) for k in (0, 1, 2, 4, 5, 6)]
    with pytest.raises(DataError, match=r"1600000000300\.png of front with 1600000000403\.png of left, which are 103 apart, and others 3"):
        order(named(tmp_path / "rig", {"front": front, "left": left}))


def test_two_cameras_cannot_have_one_image(tmp_path: Path) -> None:
    content = calibration(("front", "left"))
    content["cameras"][1]["images"] = content["cameras"][0]["images"]
    folder = named(tmp_path / "rig", {"front": ["1", "2"], "left": ["1", "2"]})
    write_json(folder / "calibration.json", content)
    with pytest.raises(DataError, match="gives the cameras front and left one and the same image in frame 0"):
        import_rig(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", ["Front", "CAM_FRONT", "cam_front"])
def test_names_that_differ_in_case_only(tmp_path: Path, other: str) -> None:
    with pytest.raises(DataError, match=f"front and {other} are both CAM_FRONT"):
        import_rig(write_rig(tmp_path / "rig", calibration(("front", other)), ("front", other)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_recording_does_not_replace_the_first(tmp_path: Path) -> None:
    one = named(tmp_path / "a" / "rig", {"front": ["1", "2"]})
    two = named(tmp_path / "b" / "rig", {"front": ["1", "2", "3"]})
    assert import_rig(one, tmp_path / "out")["is_new"]
    assert not import_rig(one, tmp_path / "out")["is_new"]  # the same again is recognised
    content = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for name in ("rig", "RIG"):
        with pytest.raises(DataError, match=rf"already has the scene rig.*--scene {name}-2"):
            import_rig(two, tmp_path / "out", scene=name)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == content
    import_rig(two, tmp_path / "out", scene="second")
    dataset = NuScenes(tmp_path / "out")
    assert (len(dataset.tokens("rig")), len(dataset.tokens("second"))) == (2, 3)
    assert import_rig(two, tmp_path / "out", scene="rig", overwrite=True)["is_new"]
    assert len(NuScenes(tmp_path / "out").tokens("rig")) == 3


def test_images_are_copied_unless_links_are_asked_for(tmp_path: Path) -> None:
    folder = named(tmp_path / "rig", {"front": ["1"]})
    source = folder / "front" / "1.png"
    original = source.read_bytes()
    import_rig(folder, tmp_path / "copied")
    import_rig(folder, tmp_path / "linked", link=True)
    copied, linked = (next((tmp_path / out / "samples").rglob("*.png")) for out in ("copied", "linked"))
    assert os.path.samefile(linked, source)
    assert not os.path.samefile(copied, source)
    copied.write_bytes(b"edited")
    assert source.read_bytes() == original
