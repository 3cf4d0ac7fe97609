"""The aligner: codes, masks, turns, losses, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.data.labels.pixels import PixelLabels
from frustum.data.labels.portraits import PlacedHead, PlacedHeads, SourceFrames, SourceParts
from frustum.errors import CheckpointError, ConfigError, ShapeError
from frustum.models.heser_aligner import HeserAligner, HeserAlignerConfig
from frustum.nn.encoders.arcface import IrSe50
from frustum.nn.encoders.vgg import Vgg19Maps
from frustum.nn.head_regions import REGIONS, region_labels
from frustum.nn.portrait_views import disguised, face_crop
from frustum.types.pixel_classes import FACE
from tests.models.portrait_batches import batch_for, step
from tests.nn import golden_heser as gold

TINY = {"image_size": 32, "encoders": "small", "encoder_size": 32, "frames": 2, "channels": 8, "max_channels": 16}
TINY |= {"appearance_code": 16, "pose_code": 8, "expression_code": 4}
_WORDS = ["data.image_size=32,32", *(f"model.{name}={value}" for name, value in TINY.items())]
ROUNDING = 1e-3  # instance norms divide maps that hardly vary by as little as 0.01, and rounding with them
SMALL = {"heser-aligner": _WORDS, "heser-aligner-mini": _WORDS}


def small(**settings: object) -> tuple[HeserAlignerConfig, HeserAligner]:
    config = HeserAlignerConfig(**{**TINY, **settings})
    return config, config.build()


@pytest.mark.data
def test_faces_are_cropped_as_in_the_reference(shared):
    golden = gold.outputs(shared)
    gold.close(face_crop(gold.img("x512", 1, 3, 512, 512), 112), golden, "align/process_id_512_to_112", 1e-6)
    gold.close(face_crop(gold.img("xs512", 1, 2, 3, 64, 64), 16), golden, "align/process_id_5d_64_to_16", 1e-6)


def test_a_disguise_keeps_the_place_and_changes_the_colours():
    portraits = torch.zeros(4, 3, 32, 32)
    portraits[:, 0, 14:18, 14:18] = 0.5
    moved = disguised(portraits)
    assert moved.shape == portraits.shape
    assert moved.abs().max() <= 1
    for one in moved:
        change = (one - one[:, :1, :1]).abs().sum(0)
        rows, columns = torch.nonzero(change > 0.5 * change.max(), as_tuple=True)
        assert abs(rows.float().mean() - 15.5) < 1
        assert abs(columns.float().mean() - 15.5) < 1
    assert len({round(float(one[0, 16, 16]), 4) for one in moved}) == 4


@pytest.mark.parametrize("has_mask", [True, False])
def test_a_step_trains_every_part(has_mask):
    config, network = small(has_mask=has_mask, discriminator="residual" if has_mask else "patch", adversarial="hinge")
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    losses = step(network.train(), batch_for(config))
    masked = {"mask", "matching"} if has_mask else set()
    assert set(losses) == {"l1", "deceive", "judge"} | masked
    still = [name for name, value in network.named_parameters() if torch.equal(value, before[name])]
    assert not [name for name in still if not name.startswith("discriminator")], still


def test_outputs_and_predictions():
    config, network = small()
    batch = batch_for(config)
    with torch.no_grad():
        outputs = network.eval()(batch)
        alone = network(batch[1:2])
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"image": (2, 3, 32, 32), "mask_logits": (2, 1, 32, 32)}
    torch.testing.assert_close(alone["image"], outputs["image"][1:2], rtol=1e-3, atol=1e-3)
    first, _ = network.predict(outputs, batch)
    assert first.token == batch.tokens[0]
    assert first.portrait.image.dtype == torch.uint8
    assert torch.equal(first.portrait.head, outputs["mask_logits"][0, 0] > 0)


def test_more_frames_are_a_mean():
    _, network = small()
    network.eval()
    frames = torch.rand(2, 3, 3, 32, 32)
    each = torch.stack([network.person(frames[:, i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network.person(frames), each.mean(0), rtol=1e-4, atol=1e-5)


def test_eyes_and_mouth_may_count_for_more():
    config, network = small(features_weight=2.0, discriminator_width=8)
    losses = step(network.train(), batch_for(config))
    assert losses["features"] > 0
    widest = max(p.shape[0] for p in network.discriminator.parameters())
    assert widest == 64
    assert max(p.shape[0] for p in small(discriminator="residual", discriminator_width=4)[1].discriminator.parameters()) == 32


def test_without_a_weight_there_is_no_discriminator():
    config, network = small(adversarial_weight=0)
    assert [turn.name for turn in network.turns()] == ["generator"]
    assert not any("discriminator" in key for key in network.state_dict())
    assert not {"deceive", "matching"} & step(network.train(), batch_for(config)).keys()


def test_the_generator_may_see_the_target_as_maps():
    """What the target shows in one corner reaches that corner of the image and no other, past the code; without its maps it is refused."""
    config, network = small(pose_maps=True, adversarial_weight=0, spectral=False)
    network.eval()
    code = torch.randn(1, network.generator.code_size)
    maps = [torch.zeros_like(found) for found in network.pose_maps(torch.zeros(1, 3, config.image_size, config.image_size))]
    before = network.generator(code, maps).image
    maps[-1][..., :2, :2] = 5.0
    changed = (network.generator(code, maps).image - before).abs().amax(1)[0]
    assert changed[:2, :2].max() > 1e-4
    assert changed[config.image_size // 2 :, config.image_size // 2 :].max() < 0.1 * changed[:2, :2].max()
    with pytest.raises(ShapeError, match="maps, got 0"):
        network.generator(code)


def test_the_generator_may_see_the_frames():
    """Past the code: frames that make the same code draw another image; maps of frames need those of the target."""
    config, network = small(pose_maps=True, frame_maps=True, adversarial_weight=0, spectral=False)
    network.eval()
    code, portraits = torch.randn(1, network.person(torch.zeros(1, 1, 3, 32, 32)).shape[1]), torch.rand(1, 3, 32, 32)
    frames = torch.rand(1, 2, 3, 32, 32)
    first, other, turned = (network.drawn(code, portraits, network.known(x))["image"] for x in (frames, -frames, frames.flip(1)))
    assert (other - first).abs().max() > 1e-4
    torch.testing.assert_close(turned, first, rtol=1e-2, atol=1e-3)
    assert small()[1].known(frames) is None
    before = network.frame_reference.places.detach().clone()
    step(network.train(), batch_for(config))
    assert not torch.equal(network.frame_reference.places, before), "what is alike is learned from the image"
    with pytest.raises(ConfigError, match="pose_maps=true"):
        small(frame_maps=True)


def test_the_picture_from_frames_ends_where_the_head_does():
    """Of frames that show the head alone; it is compared with the head on grey then, else inside of the head only."""
    for sees_parts in (True, False):
        config, network = small(pose_maps=True, frame_maps=True, sees_parts=sees_parts, disguise="colours")
        batch = batch_for(config)
        outputs, is_head = network.eval()(batch), network._is_head(batch) > 0
        changed = torch.where(is_head, outputs["reference"], 0.7)
        other = {**outputs, "reference": changed}
        losses = [network.loss(found, batch)["reference"] for found in (outputs, other)]
        assert torch.equal(*losses) != sees_parts


def test_it_may_see_the_parts_of_heads():
    """Neither what is beside the head nor a part that is nowhere matters; what is where does."""
    config, network = small(pose_maps=True, frame_maps=True, sees_parts=True, disguise="none")
    assert config.reads().labels == (SourceFrames(2), SourceParts(2), PixelLabels(FACE.names, needed=True))
    assert small()[0].reads().labels == (SourceFrames(2),)
    batch = batch_for(config)
    parsing, frames, parts = batch.need(PixelLabels), batch.need(SourceFrames), batch.need(SourceParts)

    def drawn(**labels: Tensor) -> Tensor:
        names = {"parsing": PixelLabels, "frames": SourceFrames, "parts": SourceParts}
        with torch.no_grad():
            return network.eval()(batch.with_labels({names[name]: value for name, value in labels.items()}))["image"]

    first = drawn()
    is_cloth = torch.isin(parts, torch.tensor([0, 14, 15, 16]))
    assert torch.equal(drawn(frames=torch.where(is_cloth[:, :, None], 0.5, frames)), first)
    assert torch.equal(drawn(parts=torch.where(is_cloth, 255, parts)), first)
    assert not torch.equal(drawn(parts=torch.where(parts == 17, 1, parts)), first)
    assert not torch.equal(drawn(parsing=torch.where(parsing == 1, 17, parsing)), first)
    for wrong in ({"disguise": "all", "pose_maps": True}, {"disguise": "none"}):
        with pytest.raises(ConfigError, match=r"model\.sees_parts needs model\.pose_maps=true"):
            small(sees_parts=True, **wrong)


def test_it_may_draw_the_parts_of_the_head():
    """Which are those of the true head where it is right; the mask says how likely any of them is."""
    seen = {"pose_maps": True, "frame_maps": True, "sees_parts": True, "disguise": "colours"}
    config, network = small(draws_parts=True, adversarial_weight=0, **seen)
    batch = batch_for(config)
    outputs = network.eval()(batch)
    assert outputs["parts_logits"].shape == (2, 1 + len(REGIONS), 32, 32)
    is_head = outputs["parts_logits"].softmax(1)[:, 1:].sum(1, keepdim=True)
    torch.testing.assert_close(outputs["mask_logits"].sigmoid(), is_head, rtol=1e-4, atol=1e-4)
    labels = region_labels(batch.need(PlacedHeads).parsing)
    right = F.one_hot(labels, 1 + len(REGIONS)).movedim(-1, 1).float()
    perfect = network.loss({**outputs, "parts_logits": 50 * right, "reference_parts": right[:, 1:]}, batch)
    assert perfect["parts"] < 1e-6
    assert perfect["reference_parts"] == 0
    losses = step(network.train(), batch)
    assert min(losses["parts"], losses["reference_parts"]) > 0
    with pytest.raises(ConfigError, match="teaches no parts"):
        small(draws_parts=True, parts_weight=0, **seen)
    with pytest.raises(ConfigError, match=r"model\.draws_parts needs model\.sees_parts=true"):
        small(draws_parts=True, **{**seen, "sees_parts": False})


def test_only_the_head_counts_with_a_mask():
    config, network = small()
    batch = batch_for(config)
    outputs = network.eval()(batch)
    is_head = network._is_head(batch)[:, 0] > 0
    head = batch.need(PlacedHeads)
    changed = head.image.clone()
    changed.permute(0, 2, 3, 1)[~is_head] = 0.3
    other = batch.with_labels({PlacedHeads: PlacedHead(changed, head.parsing)})
    assert torch.equal(network.loss(outputs, batch)["l1"], network.loss(outputs, other)["l1"])


def test_published_encoders_make_the_published_code(shared):
    with torch.device("meta"):
        network = HeserAlignerConfig(has_mask=False).build()
    keys = gold.keys(shared, "align.generator")
    assert gold.shapes(network.generator) == keys
    assert network.generator.code_size == 1536
    assert not any(p.requires_grad for p in network.id_encoder.parameters())


def test_the_perceptual_loss_reads_a_file(tmp_path):
    """The network of the loss is not saved with ours; a strange file is refused."""
    path = tmp_path / "vgg19.pth"
    torch.save({**gold.fill(Vgg19Maps()).state_dict(), "classifier.0.weight": torch.zeros(1)}, path)
    config, network = small(perceptual_weights=str(path))
    losses = network.loss(network(batch_for(config)), batch_for(config))
    assert losses["perceptual"] > 0
    assert not any("features." in key for key in network.state_dict())
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match="VGG-19"):
        small(perceptual_weights=str(path))[1].features.on()


def test_random_identity_is_refused():
    """A tiny stand-in for the encoder: its real size costs seconds."""
    _, network = small()
    network.id_encoder = IrSe50.__new__(IrSe50)
    torch.nn.Module.__init__(network.id_encoder)
    network.id_encoder.norm = torch.nn.BatchNorm2d(3)
    with pytest.raises(ConfigError, match="identity_weights=FILE"):
        network.turns()
    network.id_encoder.norm.running_var.fill_(2.0)
    assert [turn.name for turn in network.turns()] == ["generator", "discriminator"]


def test_another_size_is_refused():
    config, network = small()
    with pytest.raises(ShapeError, match="image_size=32,32"):
        network(batch_for(config, 64))


def test_half_precision_is_close():
    config, network = small()
    batch = batch_for(config)
    with torch.no_grad():
        full: Tensor = network.eval()(batch)["image"]
        with torch.autocast("cpu", torch.bfloat16):
            half = network(batch)["image"]
    assert half.dtype == torch.float32
    assert (half - full).abs().mean() < 0.02
