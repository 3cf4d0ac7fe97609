"""The ten-number code of boxes: both conventions, against the reference's numbers and against geometry; decoding without NMS."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from frustum.errors import ShapeError
from frustum.nn.box_code import CENTRE, CODE_FIELDS, boxes_to_code, code_to_boxes, decode_boxes
from frustum.types.classes import DETECTION_CLASSES

CONVENTIONS = ("mmdet3d<1.0", "mmdet3d>=1.0")


def gen(name: str, shape: tuple[int, ...], uniform: bool = False) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.random(shape) if uniform else rng.standard_normal(shape)


@pytest.fixture
def golden(shared: Path) -> dict[str, Tensor]:
    path = shared / "golden" / "3dppe" / "misc.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files if name[:3] in ("nb_", "dc_")}


def some_boxes(count: int) -> Tensor:
    boxes = torch.rand(count, 9) * 4 + 0.3
    boxes[:, :3] = torch.randn(count, 3) * 20
    boxes[:, 6] = (torch.rand(count) * 2 - 1) * torch.pi
    return boxes


def test_the_code_of_the_reference(golden: dict[str, Tensor]) -> None:
    boxes = golden["nb_in"]
    torch.testing.assert_close(boxes_to_code(boxes), golden["nb_norm"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(code_to_boxes(golden["nb_norm"]), golden["nb_denorm"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(boxes_to_code(boxes[:, :7]), golden["nb_norm7"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(code_to_boxes(golden["nb_norm7"]), golden["nb_denorm7"], atol=1e-5, rtol=1e-6)


def test_the_decoding_of_the_reference(golden: dict[str, Tensor]) -> None:
    place, codes = gen("dc.u", (900, 3), uniform=True), np.zeros((900, 10))
    codes[:, :2], codes[:, 4] = -65 + 130 * place[:, :2], -12 + 24 * place[:, 2]
    codes[:, 2:4], codes[:, 5] = gen("dc.wl", (900, 2)) * 0.5 + 0.5, gen("dc.h", (900,)) * 0.3 + 0.4
    codes[:, 6:8], codes[:, 8:] = gen("dc.sc", (900, 2)), gen("dc.v", (900, 2))
    logits = gen("dc.cls", (900, 10)) * 2 - 4
    (found,) = decode_boxes(torch.from_numpy(logits).float()[None], torch.from_numpy(codes).float()[None])
    assert len(found.boxes) == 238
    assert torch.equal(found.classes, golden["dc_labels"])
    torch.testing.assert_close(found.scores, golden["dc_scores"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.boxes, golden["dc_boxes"], atol=1e-5, rtol=1e-6)
    bottom = found.boxes.clone()
    bottom[:, 2] -= bottom[:, 5] / 2
    torch.testing.assert_close(bottom, golden["dc_boxes_bottom"], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("fields", [7, 9])
def test_there_and_back(convention, fields: int) -> None:
    boxes = some_boxes(200)[:, :fields]
    codes = boxes_to_code(boxes, convention)
    assert codes.shape == (200, fields + 1)
    torch.testing.assert_close(code_to_boxes(codes, convention), boxes, atol=1e-5, rtol=1e-5)
    scaled = codes.clone()
    scaled[:, 6:8] *= 3
    torch.testing.assert_close(code_to_boxes(scaled, convention), boxes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codes[:, list(CENTRE)], boxes[:, :3])
    assert len(CODE_FIELDS) == 10


def test_the_conventions_differ_as_the_converters_of_mmdet3d_do() -> None:
    """Old files hold (x, y, z, w, l, h, -yaw - pi/2); the code of such a row under the new rule is our code under the old one."""
    boxes = some_boxes(100)
    stored = boxes.clone()
    stored[:, 3], stored[:, 4], stored[:, 6] = boxes[:, 4], boxes[:, 3], -boxes[:, 6] - torch.pi / 2
    torch.testing.assert_close(boxes_to_code(boxes, "mmdet3d<1.0"), boxes_to_code(stored), atol=1e-6, rtol=1e-6)
    long = torch.tensor([[0.0, 0, 0, 8, 2, 3, 0.5, 0, 0]])
    assert boxes_to_code(long)[0, 2] > boxes_to_code(long)[0, 3]
    assert boxes_to_code(long, "mmdet3d<1.0")[0, 2] < boxes_to_code(long, "mmdet3d<1.0")[0, 3]
    wrong = code_to_boxes(boxes_to_code(long, "mmdet3d<1.0"), "mmdet3d>=1.0")
    assert wrong[0, 3:5].tolist() == pytest.approx([2, 8])


def test_what_is_not_known_stays_unknown() -> None:
    boxes = some_boxes(2)
    boxes[0, 7:] = torch.nan
    codes = boxes_to_code(boxes)
    assert codes[0, 8:].isnan().all()
    assert codes[0, :8].isfinite().all()
    with pytest.raises(ShapeError, match="9 numbers, or 7"):
        boxes_to_code(torch.zeros(3, 10))
    with pytest.raises(ShapeError, match="10 numbers, or 8"):
        code_to_boxes(torch.zeros(3, 9))


def slowly(logits: Tensor, codes: Tensor, max_boxes: int, limits: tuple[float, ...], threshold: float) -> list[tuple[int, int, float]]:
    """(query, class, score) by the words of the method."""
    pairs = [(torch.sigmoid(logits[q, k]).item(), q, k) for q in range(len(logits)) for k in range(logits.shape[1])]
    best = sorted(pairs, reverse=True)[:max_boxes]
    inside = lambda q: all(limits[i] <= codes[q, c] <= limits[3 + i] for i, c in enumerate(CENTRE))  # noqa: E731
    return [(q, k, score) for score, q, k in best if inside(q) and score > threshold]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_decoding_by_its_words(convention) -> None:
    logits, codes = torch.randn(2, 40, 10), boxes_to_code(some_boxes(80), convention).view(2, 40, 10)
    limits = (-30.0, -30.0, -20.0, 30.0, 30.0, 20.0)
    found = decode_boxes(logits, codes, convention, max_boxes=60, limits=limits, score_threshold=0.75)
    for i, part in enumerate(found):
        expected = slowly(logits[i], codes[i], 60, limits, 0.75)
        assert part.classes.tolist() == [k for _, k, _ in expected]
        torch.testing.assert_close(part.scores, torch.tensor([s for *_, s in expected]))
        queries = [q for q, *_ in expected]
        torch.testing.assert_close(part.boxes, code_to_boxes(codes[i, queries], convention))
        assert part.class_names == DETECTION_CLASSES
        assert 0 < len(queries) < 60


def test_decoding_is_float32_and_takes_what_there_is() -> None:
    codes = boxes_to_code(some_boxes(3)).view(1, 3, 10) * 0
    (found,) = decode_boxes(torch.zeros(1, 3, 10).bfloat16(), codes.bfloat16())
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert len(found.boxes) == 30
    (nothing,) = decode_boxes(torch.zeros(1, 3, 10), codes + 1000)
    assert nothing.boxes.shape == (0, 9)
    with pytest.raises(ShapeError, match=r"logits \(B, Q, K\) and codes \(B, Q, 10\)"):
        decode_boxes(torch.zeros(1, 3, 9), codes)
    with pytest.raises(ShapeError, match="with 10 classes"):
        decode_boxes(torch.zeros(1, 4, 10), codes)
