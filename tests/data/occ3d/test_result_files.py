"""Files of the Occ3D challenge and their relatives: written, read back, refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.data.occ3d.result_files import read_result, write_result
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.tasks.occupancy import OccupancyFiles, OccupancyTask
from frustum.types.predictions import PredictedOccupancy

GRID = VoxelGrid(lower=(0.0, 0.0, 0.0), upper=(4.0, 3.2, 1.6), cell=(0.4, 0.4, 0.4))


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 18, GRID.shape)


def test_the_challenge_form_is_one_unnamed_array(tmp_path):
    occ3d = np.full((200, 200, 16), 17)
    occ3d[3, 4, 5] = 9
    path = write_result(tmp_path / "new folder", "token", torch.from_numpy(occ3d))
    assert path == tmp_path / "new folder" / "token.npz"
    with np.load(path, allow_pickle=False) as stored:
        assert stored.files == ["arr_0"]
        assert stored["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(stored["arr_0"], occ3d)
    assert path.stat().st_size < 5000, "compressed"
    found, instances = read_result(path)
    np.testing.assert_array_equal(found, occ3d)
    assert instances is None


@pytest.mark.parametrize("key", ["arr_0", "pred", "semantics"])
@pytest.mark.parametrize("batch", [False, True])
def test_all_known_names_are_read(tmp_path, labels, key, batch):
    np.savez_compressed(tmp_path / "a.npz", **{key: labels[None] if batch else labels})
    found, _ = read_result(tmp_path / "a.npz", GRID)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)


def test_our_own_predictions_are_read_with_their_instances(tmp_path, labels):
    ids = torch.randint(0, 60000, GRID.shape, dtype=torch.int32)
    predicted = PredictedOccupancy(torch.from_numpy(labels).to(torch.uint8), GRID, ("x",), ids)
    assert OccupancyTask.save(predicted, tmp_path, "abc") == tmp_path / "abc.npz"
    prediction = OccupancyFiles(tmp_path, GRID).answer("abc")
    found = prediction.occupancy
    assert torch.equal(found.semantics, predicted.semantics)
    assert torch.equal(found.instances, ids)
    assert (prediction.token, found.grid, len(found.class_names)) == ("abc", GRID, 18)
    shifted = VoxelGrid(lower=(1.0, 0.0, 0.0), upper=(5.0, 3.2, 1.6), cell=GRID.cell)
    with pytest.raises(DataError, match="was made on the grid"):
        OccupancyFiles(tmp_path, shifted).answer("abc")


def test_the_layout_of_flashocc_is_read(tmp_path, labels):
    for scene, token in (("scene-0003", "b"), ("scene-0012", "a")):
        (tmp_path / scene / token).mkdir(parents=True)
        np.savez_compressed(tmp_path / scene / token / "pred.npz", pred=labels.astype(np.uint8), gt=labels * 0, sample_token=token)
    assert OccupancyFiles(tmp_path, GRID).tokens == ["a", "b"]
    found = OccupancyTask.recognise(tmp_path)
    assert list(found.files) == ["a", "b"]
    np.testing.assert_array_equal(OccupancyFiles(tmp_path, GRID).answer("b").occupancy.semantics.numpy(), labels)
    assert OccupancyFiles(tmp_path / "scene-0003", GRID).tokens == ["b"]
    with pytest.raises(DataError, match=r"single keyframe: give the folder of all results, which has SCENE/TOKEN/pred\.npz"):
        OccupancyTask.recognise(tmp_path / "scene-0003" / "b")
    write_result(tmp_path, "a", labels, GRID)
    with pytest.raises(DataError, match="both predictions of the keyframe a"):
        OccupancyFiles(tmp_path, GRID)


def test_missing_keyframes_are_named(tmp_path, labels):
    for token in ("a", "b"):
        write_result(tmp_path, token, labels, GRID)
    (tmp_path / "picture.png").touch()
    (tmp_path / ".b.npz.tmp.npz").touch()
    results = OccupancyFiles(tmp_path, GRID)
    assert results.tokens == ["a", "b"]
    assert results.ordered(["b"], "val") == ["b"]
    with pytest.raises(DataError, match=r"lacks 4 of the 5 samples to be scored, c, d, e first") as error:
        results.ordered(["a", "c", "d", "e", "f"], "val")
    assert "--split" in str(error.value)
    with pytest.raises(DataError, match="does not exist"):
        results.answer("zzz")
    with pytest.raises(DataError, match="is not a folder"):
        OccupancyFiles(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no npz"):
        OccupancyFiles(tmp_path / "empty")


def test_what_does_not_fit_is_refused(tmp_path, labels):
    def stored(name, **arrays):
        np.savez_compressed(tmp_path / name, **arrays)
        return tmp_path / name

    with pytest.raises(DataError, match=r"shape \(10, 8, 4\).*\(200, 200, 16\)"):
        read_result(stored("a.npz", arr_0=labels))
    with pytest.raises(DataError, match="class id 18"):
        read_result(stored("b.npz", arr_0=np.where(labels == 3, 18, labels)), GRID)
    with pytest.raises(DataError, match="class id -1"):
        read_result(stored("c.npz", arr_0=labels - 1), GRID)
    with pytest.raises(DataError, match="float64"):
        read_result(stored("d.npz", arr_0=labels.astype(float)), GRID)
    with pytest.raises(DataError, match="holds logits, but needs the class ids as arr_0, pred or semantics"):
        read_result(stored("e.npz", logits=labels), GRID)
    with pytest.raises(DataError, match="0 to 65535"):
        read_result(stored("f.npz", arr_0=labels, instances=labels + 65536), GRID)
    with pytest.raises(DataError, match="instances in the prediction"):
        read_result(stored("g.npz", arr_0=labels, instances=labels[1:]), GRID)
    with pytest.raises(DataError, match="damaged or not an npz archive"):
        read_result(stored("h.npz", arr_0=np.array([{"a": 1}], object)), GRID)
    np.save(tmp_path / "i.npy", labels)
    with pytest.raises(DataError, match="not an npz archive"):
        read_result(tmp_path / "i.npy", GRID)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "j.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        read_result(tmp_path / "j.npz", GRID)
    for wrong in (labels + 1, labels[1:], labels.astype(np.float32)):
        with pytest.raises(DataError, match="the prediction of t"):
            write_result(tmp_path / "out", "t", wrong, GRID)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        write_result(tmp_path / "file", "t", labels, GRID)
