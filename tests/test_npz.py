"""Archives that claim more than they hold, or hold more than is expected, are refused before memory is taken."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from frustum.npz import DAMAGED, open_npz, read_sealed, sealed


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.array(["x", "yz"]),
        "c": np.array(1.5),
        "d": np.zeros((0, 3)),
        "e": np.eye(3).T[:, 1:],
    }
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    with open_npz(tmp_path / "x.npz") as found:
        assert sorted(found.files) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def test_what_is_larger_than_expected_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1 << 21, np.uint8))
    assert (tmp_path / "x.npz").stat().st_size < 10_000
    with pytest.raises(ValueError, match="would take 2 MB, where at most 1 MB are expected"), open_npz(tmp_path / "x.npz", 1_000_000):
        pass


def test_what_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 42,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + b"little")
    with pytest.raises(ValueError, match=r"a\.npy claims 4398046511104 bytes, and has 6"), open_npz(tmp_path / "x.npz"):
        pass


def test_pickles_and_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{}], object))
    with pytest.raises(ValueError), open_npz(tmp_path / "x.npz") as found:
        found["a"]
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(ValueError, match="does not begin as an archive"), open_npz(tmp_path / "y.npy"):
        pass


def test_sealed_archives_are_what_was_saved_for_the_same_words(tmp_path: Path) -> None:
    path, arrays = tmp_path / "a.npz", {"x": np.arange(6).reshape(2, 3), "name": np.array(["a", "bc"]), "none": np.zeros((0, 2))}
    np.savez(path, **sealed(arrays, "x of 1"))
    found = read_sealed(path, "x of 1")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    changes = (arrays | {"x": arrays["x"].T}, arrays | {"x": arrays["x"].astype(np.int32)}, arrays | {"more": np.zeros(1)}, {})
    for changed in changes:
        np.savez(path, **changed, digest=sealed(arrays, "x of 1")["digest"])
        with pytest.raises(ValueError, match="its digest is another"):
            read_sealed(path, "x of 1")
    np.savez(path, **sealed(arrays, "x of 1"))
    with pytest.raises(ValueError, match="its digest is another"):
        read_sealed(path, "x of 2")
    np.savez(path, **arrays)
    with pytest.raises(DAMAGED):
        read_sealed(path, "x of 1")
