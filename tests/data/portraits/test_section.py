"""The data section of portraits: what a network is given of frames and of swaps, and predictions back at their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.data.labels.pixels import PixelLabels
from frustum.data.labels.portraits import PlacedHeads, SourceFrames
from frustum.data.opening import open_root, split_of
from frustum.data.portraits.folder import Portraits
from frustum.data.portraits.section import PortraitData
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError, DataError
from frustum.types.contract import Reads
from frustum.types.pixel_classes import FACE
from frustum.types.predictions import PredictedPortrait, PredictedSegmentation, Prediction
from tests.data.portraits.people import NAME, write_people

LABELS = (SourceFrames(2), PlacedHeads(), PixelLabels(FACE.names))
MIRRORED = AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


def test_a_swap_as_network_input(root: Path) -> None:
    data = PortraitData(root=str(root), image_size=(16, 16))
    source, pipeline = data.open(), data.pipeline(Reads(), LABELS, MIRRORED, training=False)
    batch = pipeline.collate([pipeline(source, NAME)])
    assert batch.tokens == [NAME]
    torch.testing.assert_close((batch.images[0, 0, 0] + 1) * 127.5, torch.from_numpy(source.image(NAME).copy()).movedim(-1, 0).float())
    head = batch.need(PlacedHeads)
    assert np.array_equal(((head.image[0] + 1) * 127.5).round().numpy(), np.moveaxis(source.placed_head(NAME)[0], -1, 0))
    assert np.array_equal(head.parsing[0].numpy(), source.placed_head(NAME)[1])
    first = source.image(source.source_frames(NAME)[0])
    assert np.array_equal(((batch.need(SourceFrames)[0, 0] + 1) * 127.5).round().numpy(), np.moveaxis(first, -1, 0))
    assert [name for name, _ in data.show(source, NAME)] == ["portrait", "source"]
    assert [name for name, _ in data.show(source, source.tokens()[0])] == ["portrait"]


def test_training_mirrors_all_together_and_recolours_anew(root: Path) -> None:
    data = PortraitData(root=str(root), image_size=(16, 16))
    source = data.open()
    pipeline, token, heads = data.pipeline(Reads(), LABELS, MIRRORED, training=True), source.tokens("train")[0], set()
    for seed in range(6):
        batch = pipeline.collate([pipeline(source, token, np.random.default_rng(seed))])
        image = ((batch.images[0, 0, 0] + 1) * 127.5).round().movedim(0, -1).numpy()
        is_mirrored = not np.array_equal(image, source.image(token))
        turn = -1 if is_mirrored else 1
        assert np.array_equal(image[:, ::turn], source.image(token))
        assert np.array_equal(batch.need(PixelLabels)[0].numpy()[:, ::turn], source.parsing(token))
        assert np.array_equal(batch.need(PlacedHeads).parsing[0].numpy()[:, ::turn], source.parsing(token))
        heads.add((is_mirrored, batch.need(PlacedHeads).image.numpy().tobytes()))
    assert len(heads) == 6
    assert {is_mirrored for is_mirrored, _ in heads} == {True, False}


def test_predictions_come_back_at_the_size_of_the_portrait(root: Path) -> None:
    data = PortraitData(root=str(root), image_size=(8, 8))
    source, head = data.open(), torch.zeros(8, 8, dtype=torch.bool)
    head[2:4, 1:5] = True
    made = PredictedPortrait(torch.full((3, 8, 8), 77, dtype=torch.uint8), head, "skin")
    maps = PredictedSegmentation(head.to(torch.uint8), FACE.names)
    found = data.back_to_source(source, Prediction(NAME, portrait=made, segmentation=maps), MIRRORED)
    assert found.portrait.policy == "skin"
    assert (found.portrait.image == 77).all()
    assert found.portrait.image.shape == (3, 16, 16)
    wide = head.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(found.portrait.head, wide)
    assert torch.equal(found.segmentation.labels > 0, wide)
    same = Prediction(NAME, portrait=made)
    assert data.model_copy(update={"image_size": (16, 16)}).back_to_source(source, same, MIRRORED) is same


def test_what_does_not_fit(root: Path, tmp_path: Path) -> None:
    data = PortraitData(root=str(root))
    with pytest.raises(ConfigError, match="portraits are read one by one"):
        data.pipeline(Reads(past=1), (), MIRRORED, training=True)
    with pytest.raises(DataError, match="has 8 x 6 pixels, but portraits are square"):
        data.evaluated(MIRRORED, (8, 6))
    with pytest.raises(DataError, match="is not a folder of portraits"):
        PortraitData(root=str(tmp_path)).open()


def test_commands_find_portraits_by_their_folder(root: Path) -> None:
    source = open_root(root)
    assert type(source) is Portraits
    assert split_of(source, [NAME]) == "swaps"
    assert split_of(source, source.tokens("val")) == "val"
    with pytest.raises(DataError, match="leave out --version"):
        open_root(root, "v1.0")
