"""Checkpoints of HeSer.Pytorch, HeadSwap and GHOST 2.0, made up by the names and shapes of their code: no published one is here."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from frustum.checkpoint.upstream_file import open_state
from frustum.errors import CheckpointError
from frustum.models.heser_aligner import HeserAlignerConfig
from frustum.models.heser_blender import HeserBlenderConfig
from frustum.weights import heser
from frustum.weights.adapter import Origin
from frustum.weights.upstream import adapter_of
from tests.nn import golden_heser as gold

ORIGIN = Origin("file.pth", {}, {})
ALIGNER = {
    "G": "align.generator", "D": "disc_in3", "Epor": "align.Epor", "Epose": "align.Epose", "Eexp": "align.Eexp", "Eid": "align.Eid.facenet",
}  # fmt: skip


def empty(shared: Path, networks: dict[str, str]) -> dict[str, Tensor]:
    """State dicts as `open_state` joins them, without numbers; the identity encoder's are behind `facenet.`."""
    found = {}
    for name, module in networks.items():
        for key, shape in gold.keys(shared, module).items():
            found[f"{name}.{'facenet.' if name == 'Eid' else ''}{key}"] = torch.empty(shape, device="meta")
    return found


def needed(config: HeserAlignerConfig | HeserBlenderConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in config.build().state_dict().items()}


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def settings(words: list[str]) -> dict[str, object]:
    pairs = (word.removeprefix("model.").split("=") for word in words)
    return {name: {"true": True, "false": False}.get(value, value) for name, value in pairs}


@pytest.mark.data
def test_the_aligner_of_heser(shared):
    state = empty(shared, ALIGNER)
    assert adapter_of(state) is heser
    found, config = heser.identify(state), HeserAlignerConfig()
    assert found.is_consistent
    assert "one person" in found.about
    changed = settings(heser.widths(state, config))
    assert changed == {"has_mask": False}
    assert shapes(heser.translated(state)) == needed(HeserAlignerConfig(**changed))
    assert heser.translated(heser.translated(state)) == heser.translated(state)
    assert heser.needs(state, ORIGIN) == {}
    assert heser.widths(state, HeserBlenderConfig()) == []


@pytest.mark.data
def test_an_aligner_without_its_pose_encoder_is_refused(shared):
    state = empty(shared, {name: module for name, module in ALIGNER.items() if name != "Epose"})
    assert not heser.identify(state).is_consistent
    with pytest.raises(CheckpointError, match="pose encoder"):
        heser.needs(state, ORIGIN)


@pytest.mark.data
def test_the_blender_of_heser_and_headswap(shared):
    state = empty(shared, {"G": "blend.generator", "D": "disc_in5"})
    assert adapter_of(state) is heser
    assert shapes(heser.translated(state)) == needed(HeserBlenderConfig())
    assert heser.widths(state, HeserBlenderConfig()) == []
    assert settings(heser.widths(state, HeserBlenderConfig(width=8))) == {"width": "64"}
    with pytest.raises(CheckpointError, match="conventions=heser"):
        heser.needs(state, ORIGIN)
    assert heser.needs(state, ORIGIN._replace(said={"model.conventions": "heser"})) == {}


@pytest.mark.data
def test_generator_and_discriminator_of_ghost(shared):
    state = empty(shared, {"gen": "ghost2.generator", "disc": "ghost2.disc"})
    state["embedder.whatever.weight"] = torch.empty(1, device="meta")
    assert adapter_of(state) is heser
    assert "--partial" in heser.identify(state).about
    changed = settings(heser.widths(state, HeserAlignerConfig()))
    assert changed == {"discriminator": "residual", "expression_code": "0"}
    ours = needed(HeserAlignerConfig(**changed))
    found = {key: shape for key, shape in shapes(heser.translated(state)).items() if not key.startswith("embedder")}
    assert found == {key: shape for key, shape in ours.items() if key.startswith(("generator.", "discriminator."))}


def test_ghosts_images_are_turned_to_rgb():
    """The same network, fed and read the other way round."""
    config = HeserAlignerConfig(
        image_size=16, encoders="small", encoder_size=16, channels=4, max_channels=8, discriminator="residual", expression_code=0
    )
    network, turned = config.build().eval(), config.build().eval()
    names = {"generator.": "gen.", "discriminator.": "disc."}
    state = {}
    for key, value in network.state_dict().items():
        if start := next((start for start in names if key.startswith(start)), ""):
            state[names[start] + key.removeprefix(start)] = value
    turned.load_state_dict(heser.translated(state), strict=False)
    code, image = torch.randn(2, network.generator.code_size), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(turned.generator(code).image, network.generator(code).image.flip(1))
    torch.testing.assert_close(turned.generator(code).mask_logits, network.generator(code).mask_logits)
    torch.testing.assert_close(turned.discriminator(image).scores, network.discriminator(image.flip(1)).scores)


def test_a_file_with_the_arguments_of_a_script(tmp_path):
    """Networks side by side, optimisers and an argparse.Namespace, as HeSer.Pytorch saves them."""
    config = HeserBlenderConfig(width=8, feature_width=4, match_channels=8)
    network = config.build()
    parts = {"G": network.generator.state_dict(), "D": network.discriminator.state_dict()}
    wrapped = {name: {f"module.{key}": value for key, value in part.items()} for name, part in parts.items()}
    around = {"g_optim": torch.optim.Adam(network.parameters()).state_dict(), "args": argparse.Namespace(lr=1e-4, name="x", sizes=[512])}
    for i, content in enumerate((parts, wrapped)):
        path = tmp_path / f"{i}.pth"
        torch.save({**content, **around}, path)
        file = open_state(path)
        assert file.layout == "networks side by side (G, D)"
        state = heser.translated(file.state)
        assert settings(heser.widths(state, HeserBlenderConfig())) == {"width": "8", "feature_width": "4", "match_channels": "8"}
        loaded = config.build()
        loaded.load_state_dict(state)
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_other_networks_are_left_alone():
    state = {"conv.weight": torch.zeros(1)}
    assert heser.translated(state) is state
    assert not heser.identify(state).channels
    assert not heser.reads(HeserAlignerConfig(encoders="small"))
    assert heser.reads(HeserAlignerConfig())
    assert heser.reads(HeserBlenderConfig())
