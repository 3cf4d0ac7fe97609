"""FlashOCC with stereo against the outputs of its reference implementation, and its parts at small size."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import frustum
from frustum.models.flashocc_stereo import FlashOccStereoConfig
from frustum.nn.encoders.swin import SwinConfig
from frustum.nn.temporal import HistoryConfig
from frustum.types.contract import Reads
from frustum.types.frame import keyframe_of
from tests.models import golden_weights as gold
from tests.models.moving import SIZES, Drive, farthest, lively
from tests.models.small import RESNET, SWIN

SMALL = {"flashocc-r50-4d-stereo": RESNET, "flashocc-swin-b-4d-stereo": SWIN}
_STAGES = {
    "image_features": "neck", "matching": "cost_1", "depth": "depth_1", "pooled": "bev_1", "bev": "bev_enc", "occ_logits": "occ_logits",
}  # fmt: skip
_TOLERANCE = {"occ_logits": 1e-3}


@pytest.mark.slow
def test_m2_equals_the_reference(shared):
    folder = gold.golden(shared, "stereo4d")
    shapes, meta = (json.loads((folder / f"{name}.json").read_text()) for name in ("keys", "meta"))
    with pytest.warns(UserWarning, match=r"model\.history\.align"):  # the fixture lifts, published evaluation warps
        model = frustum.load("flashocc-r50-4d-stereo", gold.state_dict(shapes), source="official", **{"model.history.align": "lift"})
    assert model.config.voxel_rounding == "reference"
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(meta["params_M"])
    batch, joined = gold.batch(3), []
    model.img_bev_encoder_backbone.register_forward_pre_hook(lambda _, given: joined.append(given[0]))
    with torch.inference_mode():
        outputs = model(batch)
    stored = np.load(folder / "outputs.npz")
    np.testing.assert_allclose(gold.strided(joined[0], meta["stats"]["bev_cat"]["slice"]), stored["bev_cat"], atol=1e-4, rtol=0)
    for ours, theirs in _STAGES.items():
        assert list(outputs[ours].shape) == meta["stats"][theirs]["shape"], ours
        found = gold.strided(outputs[ours], meta["stats"][theirs]["slice"])
        # rtol: pooled values reach 37, and one thread convolves in another order than several
        np.testing.assert_allclose(found, stored[theirs], atol=_TOLERANCE.get(ours, 1e-4), rtol=1e-5, err_msg=ours)
    assert (model.predict(outputs, batch)[0].occupancy.semantics.numpy() == stored["occ_argmax"]).mean() >= 0.999


def test_names_and_shapes_of_the_published_file(shared):
    shapes = json.loads((gold.golden(shared, "stereo4d") / "keys.json").read_text())
    with torch.device("meta"):
        model = FlashOccStereoConfig().build()
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == shapes


def test_points_that_the_published_depths_pool(shared):
    """Exact to the point: float32 in the reference's order, for a few points lie on borders of cells."""
    stored = np.load(gold.golden(shared, "stereo4d") / "outputs.npz")
    model = FlashOccStereoConfig(resnet=18, neck_channels=16, voxel_rounding="reference").build()
    frame, splat = keyframe_of(gold.batch()), model.img_view_transformer.splat
    plan = splat.plan(frame, (16, 44))
    counts = torch.bincount(plan.kept_cells, minlength=stored["points_per_cell"].size).view(stored["points_per_cell"].shape)
    np.testing.assert_array_equal(counts.numpy(), stored["points_per_cell"])
    exact = splat.points(frame, (16, 44))
    near = splat.reference_points(frame, (16, 44))
    torch.testing.assert_close(near.double(), exact, rtol=0, atol=3e-5)


def _small(**changes) -> FlashOccStereoConfig:
    return FlashOccStereoConfig(**{**SIZES, "depth_bins": {"step": 4.0, "spacing": "sid"}, **changes})


@pytest.mark.parametrize("swin", [None, SwinConfig(embed_channels=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 2), window=4)])
def test_small_networks_use_the_past(swin):
    model, drive = lively(_small(swin=swin).build()), Drive()
    with torch.no_grad():
        outputs = [model(drive.batch(4, frames)) for frames in range(3)]
    assert outputs[0]["matching"].shape == (4, 11, 8, 16)
    torch.testing.assert_close(outputs[2]["matching"].sum(1), torch.ones(4, 8, 16))
    # one past frame changes matching and map; the frame before that one counts only through the depth of the past map
    assert (outputs[1]["depth"] - outputs[0]["depth"]).abs().max() > 1e-3
    torch.testing.assert_close(outputs[1]["depth"], outputs[2]["depth"])
    assert farthest(outputs[0], outputs[1]) > 5e-3
    assert farthest(outputs[1], outputs[2]) > 1e-5


def test_the_keyframe_comes_last_among_the_maps():
    model, drive, joined = lively(_small().build()), Drive(), []
    model.img_bev_encoder_backbone.register_forward_pre_hook(lambda _, given: joined.append(given[0]))
    with torch.no_grad():
        outputs = model(drive.batch(4, 2))
        own = model.pre_process_net(outputs["pooled"])[0]
    torch.testing.assert_close(joined[0][:, 8:], own)
    assert (joined[0][:, :8] - own).abs().max() > 1e-2


def test_settings_that_do_not_fit():
    with pytest.raises(ValidationError, match="--init FILE"):
        FlashOccStereoConfig(swin=SwinConfig(), pretrained=True)
    with pytest.raises(ValidationError, match=r"set model\.history\.frames=1"):
        FlashOccStereoConfig(history={"frames": 0})
    assert FlashOccStereoConfig().reads() == Reads(past=2)
    assert FlashOccStereoConfig(history={"frames": 3}).reads() == Reads(past=4)


def test_settings_of_the_first_version():
    stored = FlashOccStereoConfig().model_dump(mode="json", exclude={"history"}) | {"history": 1, "align": "warp", "train_align": "lift"}
    assert FlashOccStereoConfig.model_validate(FlashOccStereoConfig.upgraded(stored)) == FlashOccStereoConfig()
    stored |= {"history": 2, "align": "warp_reference", "train_align": "warp"}
    found = FlashOccStereoConfig.model_validate(FlashOccStereoConfig.upgraded(stored))
    assert found.history == HistoryConfig(frames=2, align="warp_reference", train_align="warp")
    now = found.model_dump(mode="json")
    assert FlashOccStereoConfig.upgraded(now) == now
