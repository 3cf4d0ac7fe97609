"""A world of heads on disk: what was rendered is what is read, whoever made it, in one go or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.data.portraits.opening import open_portraits
from frustum.errors import ConfigError
from frustum.nn.head_regions import region_labels
from frustum.worlds.heads.draws import draw_clip, draw_scene
from frustum.worlds.heads.generate import HeadsConfig, clip_seed, generate_heads, person
from frustum.worlds.heads.render import render

SMALL = HeadsConfig(identities=2, clips=1, frames=2, size=64, seed=3, people="balanced", train_swaps=0)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    report = generate_heads(SMALL, root, workers=1)
    assert (report.frames, report.generated, report.clips) == (4, 4, 2)
    return root


def test_what_was_rendered_is_read(made: Path) -> None:
    portraits = open_portraits(made)
    assert portraits.people() == ["id10000", "id10001"]
    assert portraits.people("train") == ["id10000", "id10001"]
    token = portraits.clips("id10001")["clip000-0"][1]
    identity, seed = person(SMALL, 1)[1], clip_seed(SMALL, 1, 0)
    shot = render(identity, draw_clip(seed, 2)[1], draw_scene(seed, identity), 64)
    assert np.array_equal(portraits.image(token), shot.image)
    assert np.array_equal(portraits.parsing(token), shot.parsing)
    truth = portraits.truth(token)
    assert truth is not None
    np.testing.assert_allclose(truth["landmarks"], shot.landmarks, atol=0.006)
    assert np.array_equal(truth["is_visible"], shot.is_visible)
    assert portraits.about("id10001")["corner"] == "medium skin, short hair"


def test_it_goes_on_where_it_stopped(made: Path, tmp_path: Path) -> None:
    generate_heads(SMALL.model_copy(update={"identities": 1}), tmp_path, workers=1)
    calls: list[tuple[int, int]] = []
    report = generate_heads(SMALL, tmp_path, workers=1, progress=lambda done, total: calls.append((done, total)))
    assert report.generated == 2
    assert calls == [(2, 4), (4, 4)]
    assert contents(tmp_path) | {"heads.jpg": b""} == contents(made) | {"heads.jpg": b""}  # the picture shows whom there was first
    with Image.open(made / "heads.jpg") as sheet:
        assert sheet.size == (2 * 64, 6 * 64)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    first = HeadsConfig(identities=1, clips=1, frames=1, size=64)
    generate_heads(first, tmp_path, workers=1)
    other = first.model_copy(update={"size": 72})
    with pytest.raises(ConfigError, match="size was 64, now 72"):
        generate_heads(other, tmp_path, workers=1)
    generate_heads(other, tmp_path, workers=1, overwrite=True)
    assert open_portraits(tmp_path).image("id10000/clip000-0/00000").shape == (72, 72, 3)


def test_true_swaps_of_people_held_out(tmp_path: Path) -> None:
    """Outside of both heads they are the target; the head that a blender is given lies where the true one does."""
    config = SMALL.model_copy(update={"identities": 10, "swaps": 3, "train_swaps": 2})
    calls: list[int] = []
    report = generate_heads(config, tmp_path, 1, lambda done, total: calls.append(total - done))
    assert report.generated == calls[0] == 10 * 2 + 4 * (2 * 1 + 8 * 2), "frames, and four pictures of each swap"
    seed, target = clip_seed(config, 9, 0), person(config, 9)[1]
    shot = render(target, draw_clip(seed, 2)[0], draw_scene(seed, target), 64)
    portraits = open_portraits(tmp_path)
    learned = portraits.tokens("train_swaps")
    assert len(learned) == 16
    assert "id10004" not in {person for token in learned for person in token.split("-on-")}
    assert portraits.tokens("swaps") == ["id10004-on-id10009", "id10009-on-id10004"], "there are two people"
    (head, mask), (true, parsing) = portraits.placed_head("id10004-on-id10009"), portraits.true_swap("id10004-on-id10009", "skin")
    assert np.array_equal(mask, parsing)
    labels = region_labels(torch.tensor(np.stack([parsing, shot.parsing]))).numpy() > 0
    outside = ~labels.any(0)
    edges = np.pad(outside, 1)[:-2, 1:-1] & np.pad(outside, 1)[2:, 1:-1] & np.pad(outside, 1)[1:-1, :-2] & np.pad(outside, 1)[1:-1, 2:]
    assert np.array_equal(true[edges & outside], shot.image[edges & outside])
    assert not np.array_equal(true[labels[0]], shot.image[labels[0]])
    assert not np.array_equal(head[labels[0]], true[labels[0]])


def test_swaps_are_made_anew_where_more_people_change_them(tmp_path: Path) -> None:
    """The next people of the last one are others then, so that the same two meet in another frame: no picture of before may stay."""
    few = SMALL.model_copy(update={"identities": 10, "frames": 3, "swaps": 2})
    more = few.model_copy(update={"identities": 15})
    generate_heads(few, tmp_path / "grown", 1)
    for root in ("grown", "new"):
        generate_heads(more, tmp_path / root, 1)
    grown, new = (open_portraits(tmp_path / root) for root in ("grown", "new"))
    assert grown.tokens("swaps") == new.tokens("swaps")
    for token in new.tokens("swaps"):
        assert np.array_equal(grown.image(token), new.image(token))
        assert np.array_equal(grown.true_swap(token, "region")[0], new.true_swap(token, "region")[0]), token


@pytest.mark.slow
def test_workers_write_the_same(made: Path, tmp_path: Path) -> None:
    generate_heads(SMALL, tmp_path, workers=2)
    assert contents(tmp_path) == contents(made)
