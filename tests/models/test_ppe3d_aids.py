"""What lets a small 3DPPE learn in minutes: that each aid does what its setting says, and is off in the published recipes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.models.ppe3d import _cell_depth
from frustum.nn.point_encoding import pixel_points
from frustum.nn.query_aids import QueryAids
from frustum.recipes.finding import get_recipe
from frustum.types.frame import frames_of
from tests.models.test_ppe3d import AIDS, SMALL, made_up, tiny


def test_published_recipes_have_no_aids():
    for name in SMALL:
        assert (get_recipe(name).model.aids == QueryAids()) == (not name.startswith("ppe3d-mini")), name


def test_denoising_queries_are_there_in_training_and_change_nothing_for_the_others():
    config = tiny(queries=16, aids=AIDS)
    model, batch = config.build(), made_up(config)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    with torch.no_grad():
        with_them, without = model.train()(batch), model(replace(batch, labels={}))
        assert "denoising_logits" not in model.eval()(batch)
    assert with_them["denoising_codes"].shape[2] == 2 * 5, "two groups of the five boxes of the fuller sample"
    # batch normalisation is the same in both: queries do not pass it
    torch.testing.assert_close(with_them["class_logits"], without["class_logits"], atol=1e-4, rtol=1e-4)


def test_no_denoising_query_answers_for_a_box_that_is_not_learned():
    config = tiny(queries=16, aids=AIDS)
    model, batch = config.build().train(), made_up(config)
    outputs, before = model(batch), batch.need(BoxLabels).boxes[0].clone()
    batch.need(BoxLabels).boxes[0][1, 0] = config.box_range[3] + 1
    losses = [model.loss(outputs, batch)]
    batch.need(BoxLabels).boxes[0][1, 0] = config.box_range[3] + 99
    losses.append(model.loss(outputs, batch))
    batch.need(BoxLabels).boxes[0][:] = before
    losses.append(model.loss(outputs, batch))
    first, second, inside = (loss["denoising.loss_bbox"] for loss in losses)
    assert first == second != inside


def test_metric_offsets_are_metres_from_the_place_of_a_query():
    head = tiny(queries=16, aids={"metric_offsets": True, "anchor_grid": True}).build().pts_bbox_head
    places = torch.tensor([[[0.5, 0.5, 0.5], [0.25, 0.5, 0.5]]])
    raw = torch.zeros(1, 2, 10)
    raw[0, 0, 0], raw[0, 1, 1], raw[0, 1, 4] = 3.0, -2.0, 0.5
    found = head._box_codes(raw, places, None)[0, :, [0, 1, 4]]
    torch.testing.assert_close(found, torch.tensor([[3.0, 0, -1], [-25.6, -2, -0.5]]))


@pytest.mark.parametrize("light", [True, False])
def test_with_a_light_depth_net_tokens_read_the_features_themselves(light):
    config = tiny(queries=16, aids={"light_depth": light, "ray_input": True, "token_loss": 1})
    model, batch = config.build().eval(), made_up(config)
    first = next(p for p in model.pts_bbox_head.depth_net.parameters() if p.dim() == 4)  # its first convolution
    with torch.no_grad():
        before = model(batch)
        first.zero_()
        after = model(batch)
    assert not torch.equal(before["depth"], after["depth"])
    assert torch.equal(before["token_logits"], after["token_logits"]) == light


@pytest.mark.parametrize("normed", [True, False])
def test_with_a_norm_of_the_memory_its_size_does_not_decide_where_attention_looks(normed):
    model, batch = (config := tiny(queries=16, aids={"memory_norm": normed})).build().eval(), made_up(config)
    with torch.no_grad():
        first = model(batch)["class_logits"]
        for parameter in model.pts_bbox_head.input_proj.parameters():
            parameter.mul_(10)
        assert torch.allclose(model(batch)["class_logits"], first, atol=1e-3) == normed


def test_a_light_depth_net_needs_rays_and_has_no_context_encoder():
    with pytest.raises(ValueError, match=r"set aids\.ray_input=true"):
        tiny(aids={"light_depth": True})
    with pytest.raises(ValueError, match="set context_blocks=0, not 3"):
        tiny(aids={"light_depth": True, "ray_input": True}, context_blocks=3)


def test_votes_make_up_for_the_depth():
    """What is learned is where a token's vote lands from where it takes itself to be, and so the depth learns, too."""
    config = tiny(queries=16, aids={"token_loss": 1, "votes": True})
    model, batch = config.build(), made_up(config)
    outputs = model(batch)
    cameras = (len(batch.images), batch.images.shape[2])
    depth = _cell_depth(batch.need(DepthLabels), outputs["token_logits"].shape[1:3]).unflatten(0, cameras)
    points = pixel_points(depth, frames_of(batch, 0)[0])  # (B, N, h, w, 3)
    seen = torch.stack([places[known][0] for places, known in zip(points, depth > 0, strict=True)])  # one LiDAR point a sample
    centres = seen + torch.tensor([0.3, -0.2, 0.1])
    boxes = [torch.cat([centre, torch.tensor([2.0, 2, 2, 0, 0, 0])])[None] for centre in centres]
    classes = [torch.zeros(1, dtype=torch.long) for _ in boxes]

    def loss() -> torch.Tensor:
        return model._token_losses(outputs, batch, boxes, classes)["loss_token_centre"]

    loss().backward(retain_graph=True)
    assert loss() > 0
    assert any(p.grad is not None and p.grad.any() for p in model.pts_bbox_head.depth_net.depth_prob_conv.parameters())
    outputs["token_votes"] = centres.repeat_interleave(cameras[1], 0)[:, None, None].expand_as(outputs["token_votes"])
    assert loss() == 0
    del outputs["token_votes"]  # without votes offsets begin at the LiDAR point
    assert loss() > 0


def test_queries_do_not_listen_where_an_oracle_has_no_depth():
    config = tiny(encoding="point3d_lidar", queries=16, aids={"token_loss": 1, "votes": True})
    model, batch, seen = config.build().eval(), made_up(config), []
    batch.need(DepthLabels)[..., : batch.images.shape[-1] // 2] = 0
    model.pts_bbox_head.transformer["decoder"].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    with torch.no_grad():
        size = model(batch)["token_logits"].shape[1:3]
    known = (_cell_depth(batch.need(DepthLabels), size) > 0).view_as(seen[0].scores)
    assert known.any()
    assert not known.all()
    assert (seen[0].scores[~known] == -50).all()
    assert (seen[0].scores[known] > -50).all()


def test_suppression_is_a_setting():
    config = tiny(queries=16)
    model, batch = config.build().eval(), made_up(config)
    near = tiny(queries=16, suppression="circle").build().eval()
    near.load_state_dict(model.state_dict())
    with torch.no_grad():
        outputs = model(batch)
    outputs["box_codes"] = torch.zeros_like(outputs["box_codes"])  # all in one place
    for found, fewer in zip(model.predict(outputs, batch), near.predict(outputs, batch), strict=True):
        assert len(found.boxes.boxes) > 10
        assert sorted(fewer.boxes.classes.tolist()) == list(range(10))  # the best of each class
        assert fewer.boxes.scores.tolist() == sorted(fewer.boxes.scores.tolist(), reverse=True)
