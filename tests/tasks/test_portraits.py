"""Heads in portraits: areas and figures by hand, pasted baselines, files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from frustum.data.portraits.folder import Portraits
from frustum.errors import DataError, ShapeError
from frustum.tasks.portrait_baselines import aligned_head, recoloured, similarity
from frustum.tasks.portraits import PortraitTask
from frustum.tasks.task import PredictedFiles
from frustum.types.predictions import PredictedPortrait
from tests.data.portraits.people import NAME, parts, write_people


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Portraits:
    return Portraits(write_people(tmp_path_factory.mktemp("people")))


def portrait(image: np.ndarray, policy: str, head: np.ndarray | None = None) -> PredictedPortrait:
    return PredictedPortrait(torch.from_numpy(np.moveaxis(image, -1, 0).copy()), None if head is None else torch.from_numpy(head), policy)


def scored(people: Portraits, part: PredictedPortrait, token: str = NAME) -> dict:
    task = PortraitTask([token])
    task.add(token, part, task.truth(people, token))
    return task.compute()


def psnr(made: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    return -10 * np.log10(np.mean(((made[where].astype(float) - true[where]) / 255) ** 2))


def test_a_whole_portrait(people: Portraits) -> None:
    """At 16 pixels the dilation is one pixel, so that the union is that of the two heads."""
    made, true = people.true_swap(NAME, "source")[0], people.true_swap(NAME, "skin")[0]
    head, scene = parts(4), parts(5)
    is_head, gap = np.isin(head, (1, 4, 5, 17)), np.isin(scene, (1, 4, 5, 17)) & ~np.isin(head, (1, 4, 5, 17))
    made = np.where((is_head | gap)[..., None], made, people.image(NAME))
    made[0, 0] += 1
    found = scored(people, portrait(made, "skin", is_head))
    assert found["policy"] == "skin"
    assert found["psnr_head"] == pytest.approx(psnr(made, true, is_head))
    assert found["psnr_gap"] == pytest.approx(psnr(made, true, gap))
    assert found["psnr_both"] == pytest.approx(psnr(made, true, is_head | gap))
    assert found["psnr_features"] == pytest.approx(psnr(made, true, np.isin(head, (4, 5))))
    assert found["background_changed"] == pytest.approx(1 / (256 - (is_head | gap).sum()))
    assert found["head_iou"] == 1
    assert set(PortraitTask.protocol) <= set(found)
    figures = {figure.key: figure for figure in PortraitTask.figures(found)}
    assert figures["psnr_head"].text() == f"{found['psnr_head']:.4f} dB"
    assert PortraitTask.classes(found).columns["colour error (Delta E)"]["teeth"] is None


def test_a_perfect_swap(people: Portraits) -> None:
    found = scored(people, portrait(people.true_swap(NAME, "region")[0], "region"))
    assert found["psnr_head"] is None, "infinite"
    assert found["ssim_head"] == pytest.approx(1)
    assert found["colour_error"] == 0
    assert found["head_iou"] is None
    assert "psnr_head" not in {figure.key for figure in PortraitTask.figures(found)}


def test_a_head_alone(people: Portraits) -> None:
    true, parsing = people.placed_head(NAME)
    is_head = np.isin(parsing, (1, 4, 5, 17))
    made = np.where(is_head[..., None], true // 2, 0).astype(np.uint8)
    found = scored(people, portrait(made, "", np.roll(is_head, 1, 1)))
    assert found["psnr_head"] == pytest.approx(psnr(made, true, is_head))
    assert found["psnr_gap"] is None
    assert found["background_changed"] is None
    assert found["head_iou"] == pytest.approx(7 / 9)
    again = scored(people, portrait(np.where(is_head[..., None], made, 200).astype(np.uint8), ""))
    assert again["ssim_head"] == found["ssim_head"], "what is around the head does not count"


def test_of_a_frame_the_truth_is_itself(people: Portraits) -> None:
    token = people.tokens("val")[0]
    assert scored(people, portrait(people.image(token), "region"), token)["psnr_head"] is None
    with pytest.raises(DataError, match="is not a portrait"):
        PortraitTask().truth(SimpleNamespace(root=Path("rigs")), token)


def test_processes_are_merged(people: Portraits) -> None:
    tokens = [NAME, *people.tokens("val")]
    whole, halves = PortraitTask(tokens), [PortraitTask(tokens) for _ in range(3)]
    for i, token in enumerate(tokens):
        made = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        part = portrait(made, "skin", made[..., 0] > 99)
        for task in (whole, halves[i % 2]):
            task.add(token, part, task.truth(people, token))
    merged = halves[2].merge(halves[0]).merge(halves[1]).compute()
    assert merged.pop("head_iou") == pytest.approx(whole.compute().pop("head_iou"))
    assert {k: v for k, v in whole.compute().items() if k != "head_iou"} == merged


def test_what_does_not_fit(people: Portraits) -> None:
    task, image = PortraitTask(), people.image(NAME)
    truth = task.truth(people, NAME)
    with pytest.raises(ShapeError, match=r"has \(8, 16\) pixels, but the portrait has \(16, 16\)"):
        task.add(NAME, portrait(image[:8], "skin"), truth)
    task.add(NAME, portrait(image, "skin"), truth)
    with pytest.raises(DataError, match="has the colour policy '', but others 'skin'"):
        task.add(NAME, portrait(image, ""), truth)


def test_files_and_layers(people: Portraits, tmp_path: Path) -> None:
    """A prediction of a frame lies in folders as the frame does."""
    image, head = people.image(NAME), parts(4) > 0
    for token, part in ((NAME, portrait(image, "skin", head)), ("id1/v-0/00001", portrait(image, ""))):
        path = PortraitTask.save(part, tmp_path, token)
        again = PortraitTask.load(path)
        assert torch.equal(again.image, part.image)
        assert again.policy == part.policy
        assert (again.head is None) == (part.head is None)
    assert np.array_equal(PortraitTask.load(tmp_path / f"{NAME}.portrait.png").head.numpy(), head)
    found = PortraitTask.recognise(tmp_path)
    assert isinstance(found, PredictedFiles)
    assert found.tokens == ["id00012-on-id00017", "id1/v-0/00001"]
    assert found.answer("id1/v-0/00001").portrait.policy == ""
    (layer,), (true,) = PortraitTask.layers(again), PortraitTask.truth_layers(PortraitTask().truth(people, NAME), again)
    assert np.array_equal(layer.image, image)
    assert np.array_equal(true.image, people.placed_head(NAME)[0])
    (tmp_path / "bad.portrait.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="It is not a prediction"):
        PortraitTask.load(tmp_path / "bad.portrait.png")


def test_a_similarity_is_found_exactly() -> None:
    points = np.random.default_rng(0).normal(size=(68, 2))
    turn = np.array([[1.2, -0.5], [0.5, 1.2]])
    matrix, error = similarity(points, points @ turn.T + [3, -4])
    np.testing.assert_allclose(matrix, np.column_stack([turn, [3, -4]]), atol=1e-12)
    assert error == pytest.approx(0, abs=1e-20)
    assert similarity(points, points * [1, -1])[1] > 0.1, "a mirror image is not one"


def test_recoloured_regions_have_the_colours_of_the_target() -> None:
    rng = np.random.default_rng(0)
    image, scene = (rng.integers(low, low + 90, (16, 16, 3)).astype(np.uint8) for low in (20, 120))
    labels, others = np.zeros((16, 16), int), np.zeros((16, 16), int)
    labels[2:8], labels[8:12] = 1, 2  # skin, hair
    others[4:9, :8], others[9:12] = 1, 2
    made = recoloured(image, labels, scene, others, "skin")
    np.testing.assert_allclose(made[labels == 1].mean(0), scene[others == 1].mean(0), atol=0.6)
    np.testing.assert_allclose(made[labels == 1].std(0), scene[others == 1].std(0), atol=0.6)
    assert np.array_equal(made[labels != 1], image[labels != 1])
    both = recoloured(image, labels, scene, others, "region")
    np.testing.assert_allclose(both[labels == 2].mean(0), scene[others == 2].mean(0), atol=0.6)


def test_baselines(people: Portraits, tmp_path: Path) -> None:
    task = PortraitTask([NAME])
    task.add(NAME, portrait(people.image(NAME), "skin"), task.truth(people, NAME))
    found = {predictor.name: predictor for predictor in task.baselines(people, "train")}
    ways = ["pasted", "aligned and pasted", "exact head, pasted"]
    assert list(found) == [*ways, *(f"{way}, recoloured" for way in ways)]
    part = found["exact head, pasted"].answer(NAME).portrait
    (true, _), is_head = people.placed_head(NAME), np.isin(parts(4), (1, 4, 5, 17))
    made = part.image.permute(1, 2, 0).numpy()
    assert np.array_equal(made, np.where(is_head[..., None], true, people.image(NAME)))
    assert part.policy == "skin"
    frames = people.source_frames(NAME)
    marks = people.truth(frames[1])["landmarks"]
    people_like = SimpleNamespace(  # the target's landmarks are those of a frame, 2 pixels lower
        source_frames=people.source_frames, image=people.image, parsing=people.parsing,
        truth=lambda token: {"landmarks": marks + [0, 2]} if token == NAME else people.truth(token),
    )  # fmt: skip
    image, labels = aligned_head(people_like, NAME)
    assert np.abs(image[3:-1, 1:-1].astype(int) - people.image(frames[1])[1:-3, 1:-1]).max() <= 1
    assert np.array_equal(labels[2:] > 0, np.isin(people.parsing(frames[1])[:-2], (1, 4, 5, 17)))
    alone = PortraitTask([NAME])
    alone.add(NAME, portrait(people.image(NAME), ""), alone.truth(people, NAME))
    assert [predictor.name for predictor in alone.baselines(people, "train")] == ways[:2]
    photographs = Portraits(write_people(tmp_path, with_truth=False))
    task = PortraitTask(photographs.tokens("val"))
    task.policy = "source"
    assert [predictor.name for predictor in task.baselines(photographs, "train")] == ["pasted"]
