"""Recipes that scale the rate of a part name a parameter group that their network has."""

from __future__ import annotations

import pytest

from frustum.engine.optim import build_optimizer
from frustum.engine.overrides import apply
from frustum.recipes.finding import get_recipe


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("flashocc-tiny", ["model.pretrained=false"], "trunk.encoder"),
        ("flashocc-r50-m0", ["model.resnet=18", "model.bev_channels=16", "optim.lr_scale.encoder=0.3"], "img_backbone"),
    ],
)
def test_the_image_encoder_has_its_own_rate(name, settings, part):
    recipe = apply(get_recipe(name), settings)
    network = recipe.model.build()
    others, encoder = build_optimizer(network, recipe.optim).param_groups
    assert (others["lr"], encoder["lr"]) == (recipe.optim.lr, recipe.optim.lr * 0.3)
    assert [id(p) for p in encoder["params"]] == [id(p) for p in network.get_submodule(part).parameters() if p.requires_grad]
    assert len(others["params"]) + len(encoder["params"]) == sum(p.requires_grad for p in network.parameters())
