"""Learning a person: what changes and what does not, when it stops, what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from frustum.data.labels.pixels import PixelLabels
from frustum.data.labels.portraits import PlacedHead
from frustum.errors import ConfigError, ShapeError
from frustum.models.heser_aligner import HeserAligner
from frustum.models.heser_fewshot import FewShot, _loss, learn_person
from frustum.nn.head_regions import region_labels
from frustum.nn.portrait_views import signed
from tests.models.portrait_batches import batch_for
from tests.models.test_heser_aligner import small


def person(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    batch = batch_for(small()[0], 32, count)
    smooth = torch.nn.functional.interpolate(signed(batch)[:1, :, ::8, ::8], (32, 32), mode="bilinear")
    return smooth.expand(count, -1, -1, -1).clone(), batch.need(PixelLabels)


def test_a_person_is_learned_and_the_aligner_stays():
    torch.manual_seed(3)  # of some networks this small and untrained, learning a few frames makes others worse
    _, network = small(disguise="none")
    before, (frames, parsing) = copy.deepcopy(network.state_dict()), person()
    found = learn_person(network, frames, parsing, FewShot(steps=20, lr=1e-3, every=5))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [step for step, _ in found.history] == [0, 5, 10, 15, 20]
    assert found.history[-1][1] < 0.98 * found.history[0][1]
    assert found.step == min(found.history, key=lambda row: row[1])[0]
    again = float(_loss(found.aligner, found.code, PlacedHead(frames, parsing), None, [3], [0, 1, 2, 4], disguise="none"))
    assert again == pytest.approx(dict(found.history)[found.step], rel=1e-4), "the best state is kept"
    changed = {name.split(".")[0] for name, value in found.aligner.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"generator"}
    assert not torch.equal(found.code, network.eval().person(frames[None]))


def test_it_stops_when_frames_that_were_held_out_get_worse():
    _, network = small()
    found = learn_person(network, *person(), FewShot(steps=200, lr=math.inf, every=1, patience=2))
    assert found.step == 0
    assert len(found.history) == 3
    assert all(value.isfinite().all() for value in found.aligner.state_dict().values())


def test_the_last_step_counts():
    """Also where it comes before the first look but one."""
    _, network = small()
    found = learn_person(network, *person(), FewShot(steps=5, lr=1e-3))
    assert [step for step, _ in found.history] == [0, 5]


def test_without_steps_the_mean_code_is_kept():
    _, network = small()
    frames, parsing = person(3)
    found = learn_person(network, frames, parsing, FewShot(steps=0))
    assert torch.equal(found.code, network.eval().person(frames[None]))
    assert found.history == []
    one = learn_person(network, frames[:1], parsing[:1], FewShot(steps=1))
    assert (one.step, one.history) == (1, [])


def test_a_frame_is_learned_from_the_others(monkeypatch):
    """An aligner that looks at frames would copy the one that it is to draw."""
    _, network = small(pose_maps=True, frame_maps=True, disguise="none")
    frames, parsing = person(5)
    frames = frames + torch.linspace(0, 0.4, 5)[:, None, None, None]  # told apart by their first number
    seen: list[tuple[float, list[float]]] = []
    drawn = HeserAligner.drawn

    def watched(self, code, portraits, others):
        firsts = others.patches[:, :, 0, 0]  # of the padded frame, whose corner is the frame's
        seen.extend((float(one[0, 0, 0]), row.tolist()) for one, row in zip(portraits, firsts, strict=True))
        return drawn(self, code, portraits, others)

    monkeypatch.setattr(HeserAligner, "drawn", watched)
    learn_person(network, frames, parsing, FewShot(steps=3, every=1))
    numbers = frames[:, 0, 0, 0].tolist()
    assert {number for number, _ in seen} > {numbers[3]}
    for number, row in seen:
        assert row == [other for i, other in enumerate(numbers) if i != 3 and other != number]
    seen.clear()
    learn_person(network, frames[:1], parsing[:1], FewShot(steps=1))
    assert [row for _, row in seen] == [[numbers[0]]] * 4, "of a single frame there are no others"


def test_what_is_beside_the_head_does_not_matter():
    """Of frames that show the head alone; learning still compares with the whole portraits' heads, in their poses."""
    _, network = small(sees_parts=True, draws_parts=True, pose_maps=True, frame_maps=True, disguise="none")
    frames, parsing = person()
    is_head = (region_labels(parsing) > 0)[:, None]
    other = torch.where(is_head, frames, 0.3)
    found, again = (learn_person(network, images, parsing, FewShot(steps=0)) for images in (frames, other))
    assert torch.equal(found.code, again.code)
    assert all(torch.equal(*maps) for maps in zip(found.frames, again.frames, strict=True))
    seen = network.seen(frames, parsing)
    assert torch.equal(seen[:, :3], torch.where(is_head, frames, 0.0))
    assert torch.equal(seen[:, 3:].sum(1, keepdim=True) > 0, is_head), "then a map of each region"
    assert learn_person(network, frames, parsing, FewShot(steps=2, every=1)).history


def test_what_does_not_fit():
    _, network = small()
    frames, parsing = person(2)
    with pytest.raises(ShapeError, match=r"frames \(K, 3, 32, 32\) and maps"):
        learn_person(network, frames, parsing[:1])
    for wrong in (FewShot(patience=0), FewShot(held_out=1)):
        with pytest.raises(ConfigError, match="below its minimum"):
            learn_person(network, frames, parsing, wrong)
