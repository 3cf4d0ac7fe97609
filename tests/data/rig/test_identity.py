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
