"""What lets a small 3DPPE learn in minutes: that each aid does what its setting says, and is off in the published recipes."""

from __future__ import annotations

from dataclasses import replace

import torch

from frustum.nn.query_aids import QueryAids
from frustum.recipes.finding import get_recipe
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


def test_metric_offsets_are_metres_from_the_place_of_a_query():
    head = tiny(queries=16, aids={"metric_offsets": True, "anchor_grid": True}).build().pts_bbox_head
    places = torch.tensor([[[0.5, 0.5, 0.5], [0.25, 0.5, 0.5]]])
    raw = torch.zeros(1, 2, 10)
    raw[0, 0, 0], raw[0, 1, 1], raw[0, 1, 4] = 3.0, -2.0, 0.5
    found = head._box_codes(raw, places, None)[0, :, [0, 1, 4]]
    torch.testing.assert_close(found, torch.tensor([[3.0, 0, -1], [-25.6, -2, -0.5]]))


def test_with_a_light_depth_net_tokens_read_the_features_themselves():
    model, batch = (config := tiny(queries=16, aids={"light_depth": True, "ray_input": True})).build().eval(), made_up(config)
    with torch.no_grad():
        first = model(batch)
        model.pts_bbox_head.input_proj.weight.zero_()
        second = model(batch)
    assert torch.equal(first["depth"], second["depth"])
    assert not torch.equal(first["class_logits"], second["class_logits"])


def test_votes_make_up_for_the_depth():
    """With votes the loss is zero where tokens vote for the centre, wherever they take themselves to be."""
    config = tiny(queries=16, aids={"token_loss": 1, "votes": True})
    model, batch = config.build(), made_up(config)
    with torch.no_grad():
        outputs = model(batch)
    boxes, classes = model._truth(batch)
    assert float(model._token_losses(outputs, batch, boxes, classes)["loss_token_centre"]) > 0
    one = [found[:1] for found in boxes]
    centre = torch.stack([found[0, :3] for found in one]).repeat_interleave(batch.images.shape[2], 0)  # of each image
    outputs["token_votes"] = centre[:, None, None].expand_as(outputs["token_votes"])
    kinds = [found[:1] for found in classes]
    assert float(model._token_losses(outputs, batch, one, kinds)["loss_token_centre"]) == 0


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
