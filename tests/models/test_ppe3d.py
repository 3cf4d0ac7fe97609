"""3DPPE and PETR against the outputs of their reference implementation, and what each encoding needs, learns and predicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from frustum.config import travelling
from frustum.data.labels.boxes import BoxLabels, TrueBoxes
from frustum.data.labels.depth import DepthLabels
from frustum.engine import overrides
from frustum.engine.feed import TrainingFeed, evaluation_batches
from frustum.errors import ConfigError, DataError
from frustum.losses.pixel_depth import PixelDepthLoss, pixel_depth_losses
from frustum.losses.set_prediction import SetLoss
from frustum.models.ppe3d import Ppe3d, Ppe3dConfig, Ppe3dHead, _cell_depth, _joined
from frustum.nn.box_code import decode_boxes
from frustum.nn.point_encoding import inverse_sigmoid
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.types.contract import Reads, Shapes, Sweeps
from frustum.types.frame import frames_of, keyframe_of
from tests.models import golden_ppe3d as gold
from tests.models.test_contract import found_centres, rig

_SMALL = [
    "model.encoder=efficientnet_lite0", "model.channels=32", "model.queries=60", "model.layers=1", "model.heads=4", "model.hidden=64",
    "model.dropout=0", "model.depth_bins=8", "model.ray_depths=8", "model.depth_channels=16",
]  # fmt: skip
AIDS = {
    "ray_input": True, "light_depth": True, "anchor_grid": True, "metric_code": True, "metric_offsets": True, "position_in_values": True,
    "votes": True, "token_loss": 1, "denoising": 2,
}  # fmt: skip
_NAMES = ("ppe3d-v299", "ppe3d-r50", "ppe3d-r50-512", "ppe3d-r101-512", "petr-v299", "petrv2-v299", "ppe3d-2f-v299")
SMALL = {name: _SMALL for name in _NAMES}
SMALL |= {name: [*_SMALL, "model.pretrained=false"] for name in ("ppe3d-mini", "ppe3d-mini-kitti")}
ONE_CYCLE = {name: (300, 2e-3, 10.0) for name in SMALL}  # a decoder of queries learns little without a warm-up and clipping

# ---- against the reference ------------------------------------------------------------------------------------------------------

HEADS = {
    "head_v2_main": ({}, 256),
    "head_v2_ctx_r50": ({"context_blocks": 3}, 256),
    "head_v2_refine": ({"context_blocks": 3, "refine_boxes": True}, 256),
    "head_direct": ({"context_blocks": 3, "depth": "direct"}, 256),
    "head_topk": ({"encoding": "topk", "depth_bins": 64, "ray_spacing": "ud"}, 256),
    "head_dpe": ({"encoding": "depth_guided_feature", "depth_bins": 64}, 256),
    "head_petr": ({"encoding": "camera_ray"}, 256),
    "head_gtpe": ({"encoding": "point3d_lidar"}, 2048),
    "head_petrv2": ({"encoding": "feature_guided", "past": 1, "grouped_boxes": True}, 256),
    "head_petrv2_3dppe": ({"past": 1, "grouped_boxes": True}, 256),
}
TOLERANCES = {
    "head_v2_main": {"decoder": 1e-4, "cls": 5e-5, "bbox": 1e-3, "pos_embed": 1e-4},
    "head_v2_ctx_r50": {"decoder": 1e-4, "cls": 6e-5, "bbox": 1.8e-3, "pos_embed": 1e-4},
    "head_petr": {"decoder": 1e-3, "cls": 9e-4, "bbox": 1.5e-2, "pos_embed": 1e-4},
    "head_gtpe": {"decoder": 1e-3, "cls": 5e-4, "bbox": 1.1e-2, "pos_embed": 1.4e-2},
}


def _shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("case", HEADS)
def test_every_key_of_a_head_is_there(shared, case):
    settings, channels = HEADS[case]
    assert _shapes(Ppe3dHead(Ppe3dConfig(**settings), channels)) == gold.keys(shared, case)


@pytest.mark.parametrize(("case", "settings"), [("det_r50", {"encoder": "resnet50", "context_blocks": 3}), ("det_v299", {})])
def test_every_key_of_a_detector_is_there(shared, case, settings):
    assert _shapes(Ppe3dConfig(**settings).build()) == gold.keys(shared, case)


@pytest.mark.parametrize("case", TOLERANCES)
def test_a_head_equals_the_reference(shared, case):
    settings, channels = HEADS[case]
    info, stored = gold.info(shared, case), np.load(gold.folder(shared) / f"{case}.npz")
    size, (_, height, width) = tuple(info["final_dim"]), info["feat"]
    head = Ppe3dHead(Ppe3dConfig(set_loss=SetLoss(drop_boxes_without_velocity=True), **settings), channels).eval()
    head.load_state_dict(gold.state_dict(shared, case, size))
    seen: dict[str, torch.Tensor] = {}
    head.transformer["decoder"].register_forward_hook(
        lambda _, given, found: seen.update(
            query_embeds=given[0].embedding, memory=given[1].memory, pos_embed=given[1].position, decoder=found.queries
        )
    )
    features = torch.from_numpy(gold.draw("input.img_feats", (1, 6, channels, height, width)).astype(np.float32))[0]
    depth, mask = gold.depth_map(height, width)
    lidar = torch.where(mask, depth, 0)
    with torch.inference_mode():
        outputs = head(features, keyframe_of(gold.batch(shared, size)), lidar if case == "head_gtpe" else None)
    stored = {name: stored[name] for name in stored.files}
    maps = {name: seen[name][0].mT.unflatten(1, (6, height, width)).transpose(0, 1)[:, ::8, ::4, ::5] for name in ("memory", "pos_embed")}
    found = maps | {
        "query_embeds": seen["query_embeds"][0, ::15, ::2],
        "decoder": seen["decoder"][:, 0, ::15, ::4],
        "cls": outputs["class_logits"][0, :, ::5],
        "bbox": outputs["box_codes"][0, :, ::5],
    }
    if "depth" in outputs:
        found |= {"depth_logits": outputs["depth_logits"][:, :, ::4, ::5], "depth_map_pred": outputs["depth"].flatten()}
    tolerances = {"memory": 1e-4, "query_embeds": 2e-5, "depth_logits": 1e-4, "depth_map_pred": 2e-4, **TOLERANCES[case]}
    for name, value in found.items():
        np.testing.assert_allclose(value, stored[name], atol=tolerances[name], rtol=0, err_msg=name)
    boxes = decode_boxes(outputs["class_logits"][:, -1], outputs["box_codes"][:, -1])[0]
    assert len(boxes.scores) == int(stored["_n_dec"])
    assert boxes.classes[:50].tolist() == stored["dec_labels"].tolist()
    np.testing.assert_allclose(boxes.scores[:50], stored["dec_scores"], atol=1e-4)
    np.testing.assert_allclose(boxes.boxes[:50], stored["dec_boxes"], atol=tolerances["bbox"], rtol=0)
    _losses_equal(head.config, outputs, lidar, stored)


def _losses_equal(config, outputs, lidar, stored) -> None:
    """Those of six layers, and of the depth: whose labels are given at the size of the features here."""
    detector = Ppe3d.__new__(Ppe3d)
    torch.nn.Module.__init__(detector)
    detector.config = config.model_copy(update={"depth_loss": PixelDepthLoss(depth_weight=0, distribution_weight=0)})
    losses = detector.loss(outputs, Batch.of_images(torch.zeros(1, 3, 8, 8)).with_labels({BoxLabels: gold.true_boxes()}))
    if "depth" in outputs:
        losses |= pixel_depth_losses(outputs["depth"], outputs["depth_logits"], lidar)
    assert {f"loss.{name}" for name in losses} == {name for name in stored if name.startswith("loss.") and "|" not in name}
    for name, value in losses.items():
        assert float(value) == pytest.approx(float(stored[f"loss.{name}"]), rel=1e-4), name


def test_the_whole_detector_equals_the_reference(shared):
    size, stored = (256, 704), np.load(gold.folder(shared) / "det_r50.npz")
    model = Ppe3dConfig(encoder="resnet50", context_blocks=3).build().eval()
    model.load_state_dict(gold.state_dict(shared, "det_r50", size))
    images = torch.from_numpy((gold.draw("input.img", (1, 6, 3, *size)) * 50).astype(np.float32))
    batch, seen = gold.batch(shared, size, images), {}
    model.img_neck.register_forward_hook(lambda _, given, found: seen.update(maps=given[0], neck=found))
    with torch.inference_mode():
        outputs = model(batch)
    found = {
        "backbone0": seen["maps"][0][:, ::32, ::4, ::5],
        "backbone1": seen["maps"][1][:, ::32, ::4, ::5],
        "neck0": seen["neck"][:, ::8, ::4, ::5],
        "depth_map_pred": outputs["depth"].flatten(),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, stored[name], atol=1e-3 * stored[name].std(), rtol=0, err_msg=name)
    np.testing.assert_allclose(outputs["class_logits"][0, :, ::5], stored["cls"], atol=1e-3)
    np.testing.assert_allclose(outputs["box_codes"][0, :, ::5], stored["bbox"], atol=1e-2)
    boxes = model.predict(outputs, batch)[0].boxes
    assert len(boxes.scores) == int(stored["n_dec"])
    assert boxes.classes[:50].tolist() == stored["dec_labels"].tolist()
    bottom = boxes.boxes[:50] - torch.eye(9)[2] * boxes.boxes[:50, 5:6] / 2
    np.testing.assert_allclose(bottom, stored["dec_boxes_bottom"], atol=1e-2)


# ---- small networks -------------------------------------------------------------------------------------------------------------

TINY = {
    "encoder": "efficientnet_lite0", "channels": 32, "queries": 30, "layers": 2, "heads": 4, "hidden": 64, "dropout": 0.0, "depth_bins": 8,
    "ray_depths": 8, "depth_channels": 16,
}  # fmt: skip
ENCODINGS = ("camera_ray", "feature_guided", "topk", "depth_guided_feature", "point3d", "point3d_lidar", "ray_mean")


def tiny(**settings) -> Ppe3dConfig:
    return Ppe3dConfig(**{**TINY, **settings})


def made_up(config: Ppe3dConfig, count: int = 2, cameras: int = 2, size: tuple[int, int] = (64, 96), **more) -> Batch:
    """Random images; a past frame is 2 m and half a second behind."""
    frames = 1 + config.past
    intrinsics, cam2ego = rig(cameras, size)
    intrinsics[:, :2] *= np.linspace(1, 1.2, cameras)[:, None, None]  # calibrations that are all the same tell a depth net nothing
    poses = np.tile(np.eye(4), (count, frames, cameras, 1, 1))
    poses[..., 0, 3] = -2.0 * np.arange(frames)[:, None]
    given = {"ego2global": poses, "timestamps": 10 - 0.5 * np.arange(frames), **more}
    batch = Batch.from_arrays(torch.randn(count, frames, cameras, 3, *size), intrinsics, cam2ego, **given)
    shapes, rng = Shapes(count, cameras, size), np.random.default_rng(0)
    return batch.with_labels({type(label): label.example(rng, shapes) for label in config.learns_from()})


@pytest.mark.parametrize("settings", [
    *[{"encoding": name} for name in ENCODINGS], {"depth": "direct"}, {"depth": "probabilistic"}, {"refine_boxes": True},
    {"shared_embedding": False}, {"camera_code": False}, {"refine_boxes": True, "queries": 16, "aids": AIDS},
    {"encoding": "camera_ray", "queries": 16, "aids": AIDS | {"votes": False}},
    {"past": 1, "grouped_boxes": True}, {"past": 1, "encoding": "feature_guided"},
], ids=str)  # fmt: skip
def test_losses_reach_every_trainable_parameter(settings):
    config = tiny(**settings)
    model, batch = config.build().train(), made_up(config)
    losses = model.loss(model(batch), batch)
    assert {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"} <= losses.keys()
    assert ("loss_depth" in losses) == config.learns_depth
    assert ("loss_dfl" in losses) == (config.encoding == "point3d" and config.depth != "direct")
    assert all(math.isfinite(value) for value in (v.detach() for v in losses.values()))
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


def test_only_the_oracle_reads_lidar_to_predict():
    for name in ENCODINGS:
        config = tiny(encoding=name)
        model, batch = config.build().eval(), replace(made_up(config), labels={})
        if name == "point3d_lidar":
            with pytest.raises(DataError, match=r"reads depth maps to predict, not only to learn.*an oracle.*predict without LiDAR"):
                model(batch)
        else:
            model(batch)


def test_the_oracle_stands_at_the_measured_depth():
    config = tiny(encoding="point3d_lidar")
    model, batch = config.build().eval(), made_up(config)
    far = torch.full_like(batch.need(DepthLabels), 200.0)
    with torch.no_grad():
        near, beyond, unknown = (
            model(batch.with_labels({DepthLabels: depth}))["box_codes"] for depth in (batch.need(DepthLabels), far, torch.zeros_like(far))
        )
    torch.testing.assert_close(beyond, unknown)  # what was not measured is as far as can be
    assert not torch.allclose(near, unknown)


def test_what_an_encoding_learns_from():
    kinds = {name: [type(label) for label in tiny(encoding=name).learns_from()] for name in ENCODINGS}
    without = {"camera_ray", "feature_guided", "ray_mean"}
    assert {name for name, labels in kinds.items() if DepthLabels in labels} == set(ENCODINGS) - without
    without = PixelDepthLoss(depth_weight=0, distribution_weight=0)
    assert [type(label) for label in tiny(depth_loss=without).learns_from()] == [BoxLabels]
    assert [type(label) for label in tiny(encoding="topk", score_loss=0).learns_from()] == [BoxLabels]
    model = tiny(depth_loss=without).build()
    batch = made_up(model.config)
    assert "loss_depth" not in model.loss(model(batch), batch)


def test_depth_belongs_to_the_nearest_corner_of_a_feature():
    depth = torch.zeros(1, 1, 32, 64)
    depth[0, 0, 7, 40], depth[0, 0, 8, 39], depth[0, 0, 8, 24] = 5.0, 4.0, 3.0
    assert _cell_depth(depth, (2, 4)).tolist() == [[[0, 0, 0, 5], [0, 0, 3, 0]]]


def test_boxes_out_of_range_and_unknown_velocities_are_left_out():
    config = tiny(encoding="camera_ray")
    model, batch = config.build().eval(), made_up(config, count=1)
    with torch.no_grad():
        outputs, truth = model(batch), batch.need(BoxLabels)
    far = torch.cat([truth.boxes[0], truth.boxes[0][:1] + torch.eye(9)[0] * 80])
    more = batch.with_labels({BoxLabels: TrueBoxes([far], [torch.cat([truth.classes[0], truth.classes[0][:1]])])})
    assert all(torch.equal(value, model.loss(outputs, batch)[name]) for name, value in model.loss(outputs, more).items())
    unknown = truth.boxes[0].clone()
    unknown[:, 7:] = math.nan
    lost = model.loss(outputs, batch.with_labels({BoxLabels: TrueBoxes([unknown], truth.classes)}))
    assert all(math.isfinite(value) for value in lost.values())


@pytest.mark.parametrize("count", [0, 2000])
def test_no_boxes_and_very_many(count):
    config = tiny(encoding="camera_ray")
    model, batch = config.build(), made_up(config, count=1)
    boxes = torch.cat([torch.rand(count, 3) * 20, torch.rand(count, 6) + 0.5], 1)
    batch = batch.with_labels({BoxLabels: TrueBoxes([boxes], [torch.zeros(count, dtype=torch.int64)])})
    total = sum(model.loss(model(batch), batch).values())
    total.backward()
    assert math.isfinite(float(total.detach()))


def test_a_prediction_is_in_range_and_sorted():
    config = tiny(encoding="camera_ray", max_boxes=40)
    model, batch = config.build().eval(), made_up(config)
    with torch.no_grad():
        predictions = model.predict(model(batch), batch)
    assert [p.token for p in predictions] == batch.tokens
    boxes = predictions[0].boxes
    assert boxes.boxes.shape == (40, 9)
    assert (boxes.boxes[:, :2].abs() <= 51.2).all()
    assert (boxes.scores.diff() <= 0).all()


def test_the_frame_of_a_batch_is_that_of_the_boxes():
    """In a turned frame the same cameras see other places: what official files in the frame of the LiDAR need."""
    config = tiny(encoding="camera_ray")
    model, batch = config.build().eval(), made_up(config, count=1)
    turned = torch.eye(4, dtype=torch.float64)[None]
    turned[0, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    with torch.no_grad():
        here = model(batch)["box_codes"]
        there = model(replace(batch, key_ego2global=turned))["box_codes"]
        moved = model(replace(batch, bev_aug=turned.mT))["box_codes"]
    assert not torch.allclose(here, there)
    torch.testing.assert_close(there, moved, atol=1e-4, rtol=1e-4)


def test_the_box_convention_travels_and_decides():
    settings = tiny(encoding="camera_ray", box_convention="mmdet3d<1.0")
    assert travelling(settings)["box_convention"] == "mmdet3d<1.0"
    old, new = settings.build().eval(), tiny(encoding="camera_ray").build().eval()
    new.load_state_dict(old.state_dict())
    batch = made_up(settings)
    with torch.no_grad():
        outputs = old(batch)
        first, second = (model.predict(outputs, batch)[0].boxes.boxes for model in (old, new))
    torch.testing.assert_close(first[:, 3], second[:, 4])
    torch.testing.assert_close((-first[:, 6] - math.pi / 2).cos(), second[:, 6].cos(), atol=1e-5, rtol=0)
    assert float(old.loss(outputs, batch)["loss_bbox"]) != float(new.loss(outputs, batch)["loss_bbox"])


def test_refinement_starts_each_layer_where_the_one_before_put_its_boxes():
    config = tiny(refine_boxes=True)
    model, plain, batch = config.build().eval(), tiny().build().eval(), made_up(config)
    assert any("post_norm" in key for key in plain.state_dict())
    assert not any("post_norm" in key for key in model.state_dict())
    with torch.no_grad():
        for branch in model.pts_bbox_head.reg_branches:
            branch[-1].weight.zero_()  # each layer moves all queries by its bias alone
            branch[-1].bias.zero_()
            branch[-1].bias[4] = 1.0
        height = (model(batch)["box_codes"][..., 4] + 5) / 8  # of the range of boxes
        start = inverse_sigmoid(model.pts_bbox_head.reference_points.weight[:, 2])
    torch.testing.assert_close(height[0, 0], (start + 1).sigmoid(), atol=1e-5, rtol=0)
    torch.testing.assert_close(height[0, 1], (start + 2).sigmoid(), atol=1e-5, rtol=0)


def test_a_past_frame_is_placed_by_its_pose():
    batch = made_up(tiny(past=1, encoding="camera_ray"))
    frames = frames_of(batch, 1)
    frame = _joined(frames)
    assert frame.images.shape[1] == frame.rig.num_cameras == 4
    places = frame.rig.cam2key(frame.ego2global)[..., :3, 3]
    torch.testing.assert_close(places[:, 2:], places[:, :2] - torch.tensor([2.0, 0, 0], dtype=places.dtype))
    assert _joined(frames[:1]) is frames[0]


def test_velocities_are_regressed_per_time_between_the_frames():
    config = tiny(past=1, past_frame="keyframe", encoding="camera_ray")
    model, batch = config.build().eval(), made_up(config)
    times = torch.tensor([10.0, 9.0], dtype=torch.float64)[None, :, None].expand(2, 2, 2)
    later = replace(batch, calibration=replace(batch.rig, timestamps=times))
    unknown = replace(batch, calibration=replace(batch.rig, timestamps=None))
    missing = replace(later, is_present=torch.tensor([[True, False]] * 2))
    with torch.no_grad():
        half, one, usual, repeated = (model(b)["box_codes"] for b in (batch, later, unknown, missing))
    torch.testing.assert_close(half[..., :8], one[..., :8])
    torch.testing.assert_close(half[..., 8:], 2 * one[..., 8:])
    assert torch.equal(half, usual)
    assert torch.equal(half, repeated)  # the images are the same here, and what passed since is not known
    sweep = tiny(past=1, encoding="camera_ray").build().eval()
    sweep.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(sweep(unknown)["box_codes"][..., 8:], half[..., 8:] / 2.5)  # 15 images of 12 a second


def test_depth_is_learned_in_the_keyframe_alone():
    config = tiny(past=1)
    model, batch = config.build(), made_up(config)
    outputs = model(batch)
    assert outputs["depth"].shape[0] == outputs["depth_logits"].shape[0] == 4  # B * N
    assert model.loss(outputs, batch)["loss_depth"].isfinite()


def test_the_past_frame_is_a_camera_sweep_or_the_keyframe_before():
    published = get_recipe("ppe3d-2f-v299").model.reads()
    assert published == tiny(past=1).reads() == Reads(past=1, sweeps=Sweeps(3, 27, 14, without="model.past_frame=keyframe"))
    assert tiny(past=1, past_frame="keyframe").reads() == Reads(past=1)
    assert tiny().reads() == tiny(past_frame="keyframe").reads() == Reads()


def test_a_two_frame_network_without_sweeps_says_what_to_type(street_root):
    """Before anything is trained or predicted; with what it says, the keyframe before is read."""
    words = [*SMALL["ppe3d-2f-v299"], f"data.root={street_root}", "data.image_size=64,96", "train.num_workers=0"]
    recipe = overrides.apply(get_recipe("ppe3d-2f-v299"), words)
    source = recipe.data.open()
    for start in (lambda r: TrainingFeed(r, source), lambda r: evaluation_batches(r, source, source.tokens("val"))):
        with pytest.raises(DataError, match=r"holds images of keyframes alone\..*keyframe before instead: model\.past_frame=keyframe$"):
            start(recipe)
    after = overrides.apply(recipe, ["model.past_frame=keyframe"])
    batch = next(evaluation_batches(after, source, source.tokens("val")[1:2]))
    assert batch.images.shape[1] == 2
    assert batch.is_present.all()
    assert TrainingFeed(after, source).steps_per_epoch == 1


def test_published_settings_of_the_input():
    """GridMask is PETR's; an enlarged evaluation is 3DPPE's."""
    for name in SMALL:
        augment = get_recipe(name).augment
        expected = (0.7, 0.0) if name.startswith("petr") else (0.0, 0.0) if "mini" in name else (0.0, 0.04)
        assert (augment.grid_mask, augment.eval_resize) == expected, name


def test_two_frames_learn_velocities_as_much_as_the_rest():
    for name in SMALL:
        model = get_recipe(name).model
        assert model.set_loss.code_weights[8:] == ((1, 1) if model.past else (0.2, 0.2)), name


def test_two_frames_need_poses():
    config = tiny(past=1, encoding="camera_ray")
    with pytest.raises(DataError, match="needs the ego pose of each"):
        config.build()(made_up(config, ego2global=None))


@pytest.mark.parametrize(("settings", "message"), [
    ({"past": 1, "encoding": "point3d_lidar"}, "no depth of past frames"),
    ({"channels": 30}, "multiple of 4"),
    ({"heads": 5}, "multiple of 4 and of the 5 heads"),
    ({"depth_channels": 18}, "depth_channels must be a multiple of 4"),
    ({"encoding": "topk", "top_depths": 9}, "top_depths of the encoding topk at most depth_bins"),
    ({"encoding": "camera_ray", "aids": {"votes": True, "token_loss": 1}}, "votes needs an encoding by points"),
    ({"aids": {"votes": True}}, r"votes needs .*token_loss above 0"),
    ({"frame": "lidar", "aids": {"anchor_grid": True}}, "the ground of the ego frame"),
    ({"encoding": "points"}, "point3d_lidar"),
])  # fmt: skip
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValidationError, match=message):
        tiny(**settings)


@pytest.mark.parametrize("settings", [
    {"encoding": "camera_ray", "aids": {"token_loss": 1}}, {"encoding": "topk"}, {"distill": {"teacher": "x"}},
    {"queries": 16, "aids": {"token_loss": 1, "votes": True}},
], ids=str)  # fmt: skip
def test_the_words_that_train_without_depth_are_enough(settings):
    config = tiny(**settings)
    (words,) = (label.without for label in config.learns_from() if isinstance(label, DepthLabels))
    recipe = get_recipe("ppe3d-v299").model_copy(update={"model": config})
    assert [type(label) for label in overrides.apply(recipe, words.split()).model.learns_from()] == [BoxLabels]


def test_a_batch_without_boxes_has_the_same_losses():
    config = tiny(queries=16, aids=AIDS)
    model, batch = config.build().train(), made_up(config)
    none = TrueBoxes([torch.zeros(0, 9)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    empty = replace(batch, labels={**batch.labels, BoxLabels: none})
    assert model.loss(model(empty), empty).keys() == model.loss(model(batch), batch).keys()


def test_a_huge_size_is_cut():
    codes = torch.zeros(1, 2, 10)
    codes[0, 0, [2, 3, 5]] = 100.0
    (found,) = decode_boxes(torch.zeros(1, 2, 10), codes)
    assert found.boxes.isfinite().all()


def test_there_are_no_weights_for_v299():
    with pytest.raises(ConfigError, match="no package has weights for VoVNet99: give a file"):
        Ppe3dConfig(pretrained=True).build()


def test_the_default_is_the_published_main_network():
    config = Ppe3dConfig()
    assert (config.queries, config.layers, config.channels, config.depth_bins) == (900, 6, 256, 16)
    assert (config.depth_loss.depth_weight, config.depth_loss.distribution_weight) == (0.1, 0.25)


@pytest.mark.slow
def test_one_sample_is_learned_by_heart():
    config = tiny(channels=64, queries=40)
    model, batch = config.build().train(), made_up(config, count=1)
    optimizer = torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=300)
    for _ in range(300):
        optimizer.zero_grad()
        sum(model.loss(model(batch), batch).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)  # without, or without a warm-up, it learns little
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        boxes = model.predict(model(batch), batch)[0].boxes
    assert found_centres(boxes, batch.need(BoxLabels)) == 1
