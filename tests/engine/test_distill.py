"""Distillation through the ordinary `train`: what is learned from the teacher, what is saved of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from typing import Annotated

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from frustum.checkpoint.weights_file import WEIGHTS, read_weights, save_weights
from frustum.config import TRAVELS
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.engine.distill import FORMS, Distilled, Teacher, described, student_of, teacher_of, terms_of
from frustum.engine.distill_start import with_teacher
from frustum.engine.feed import TrainingFeed
from frustum.engine.metrics_log import read_lines
from frustum.engine.overrides import apply
from frustum.engine.recipe import DistillConfig, Recipe
from frustum.engine.taught import in_sentences, taught_of
from frustum.engine.train import start, train
from frustum.engine.trained import open_trained
from frustum.errors import CheckpointError, ConfigError
from frustum.losses.dense_distillation import cwd_loss, ifvd_loss, kd_loss, voxel_maps
from frustum.types.batch import ImageScale
from frustum.types.contract import Reads
from frustum.weights.loading import load
from tests.engine import toy, toy_gan
from tests.engine.test_train import losses, stop_after

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher_run(toy_root, tmp_path_factory):
    """A wide toy, trained."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(apply(toy.recipe(toy_root), ["model.width=24"]), folder)
    return folder


def student_recipe(root, teacher, *words: str, **settings) -> Recipe:
    found = [f"distill.teacher={teacher}", "distill.at=features,occ_logits", *words]
    return apply(toy.recipe(root, **settings), found)


def made(recipe: Recipe) -> tuple[Distilled, list[str]]:
    torch.manual_seed(0)
    return with_teacher(recipe, recipe.model.build(), teacher_of(recipe), recipe.data.open(), CPU)


def test_a_student_trains_beside_its_teacher_and_its_weights_are_its_own(toy_root, teacher_run, tmp_path):
    recipe = student_recipe(toy_root, teacher_run)
    result = train(recipe, tmp_path / "whole")
    lines = read_lines(tmp_path / "whole/metrics.jsonl")
    assert all(list(line["losses"]) == ["occupancy", "small", "cwd_features", "cwd_occ_logits"] for line in lines)
    assert all(line["loss"] == pytest.approx(sum(line["losses"].values())) for line in lines)
    assert lines[-1]["losses"]["cwd_features"] < lines[0]["losses"]["cwd_features"]
    state, header = read_weights(tmp_path / "whole")
    assert state.keys() == toy.ToyConfig().build().state_dict().keys()
    assert sorted(result.model.state_dict()) == sorted(state)
    about = taught_of(header)["distilled"]
    assert about[0].startswith("toy (weights ")
    assert str(teacher_run) not in about[0]
    assert "cwd of features (weight 50, tau 4)" in about[0]
    assert any(line.startswith("imitated: toy") for line in in_sentences(taught_of(header)))
    kept = read_weights(next(iter((tmp_path / "whole/checkpoints").glob("step_*12"))) / "model.safetensors")[0]
    others = {key for key in kept if not key.startswith("student.")}
    assert others == {"adapters.cwd_features.linear.weight", "adapters.cwd_features.linear.bias"}
    assert {key.removeprefix("student.") for key in kept if key.startswith("student.")} == set(state)


def test_a_stopped_distillation_goes_on_exactly(toy_root, teacher_run, tmp_path):
    recipe = student_recipe(toy_root, teacher_run)
    whole = train(recipe, tmp_path / "whole")
    stop_after(recipe, tmp_path / "parts", 7)
    again = train(recipe, tmp_path / "parts", resume="must")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
    with pytest.raises(ConfigError, match=r"distill\.tau"):
        train(apply(recipe, ["distill.tau=1"]), tmp_path / "parts")


def test_a_teacher_may_move_but_not_change_while_it_teaches(toy_root, teacher_run, tmp_path):
    copied = shutil.copytree(teacher_run, tmp_path / "teacher")
    recipe = student_recipe(toy_root, copied, steps=4)
    train(recipe, tmp_path / "run")
    copied.rename(tmp_path / "moved")
    longer = apply(recipe, ["train.steps=6"])
    with pytest.raises(CheckpointError, match=r"the teacher .* cannot be opened: there is no checkpoint .* says where it is now"):
        train(longer, tmp_path / "run")
    found = train(apply(longer, [f"distill.teacher={tmp_path / 'moved'}"]), tmp_path / "run")
    assert (found.resumed_from, found.steps) == (4, 6)
    train(apply(toy.recipe(toy_root, steps=1), ["model.width=24", "train.seed=1"]), tmp_path / "other")
    with pytest.raises(ConfigError, match=r"learned from toy \(weights .*and distill.teacher is now toy \(weights "):
        train(apply(recipe, [f"distill.teacher={tmp_path / 'other'}", "train.steps=8"]), tmp_path / "run")
    assert open_trained(tmp_path / "run")[0].distill.teacher == str(tmp_path / "moved")


def test_a_run_is_not_written_over_its_teacher(toy_root, teacher_run, tmp_path):
    copied = shutil.copytree(teacher_run, tmp_path / "teacher")
    for path in (copied, copied / WEIGHTS):
        with pytest.raises(ConfigError, match="over its own teacher"):
            train(student_recipe(toy_root, path), copied, resume="never")
    assert (copied / WEIGHTS).is_file()


def test_a_student_starts_and_draws_as_it_would_alone(toy_root, teacher_run, tmp_path):
    """So that only the teacher makes the difference between two runs of a seed."""
    words = ["model.dropout=0.3", "model.batch_norm=true"]
    train(apply(toy.recipe(toy_root, steps=1), words), tmp_path / "alone")
    train(student_recipe(toy_root, teacher_run, *words, "distill.loss=cwd,kd", steps=1), tmp_path / "beside")
    alone, beside = (losses(tmp_path / name)[1]["losses"]["occupancy"] for name in ("alone", "beside"))
    assert alone == beside


def test_a_training_starts_from_the_snapshot_of_a_student(toy_root, teacher_run, tmp_path):
    train(student_recipe(toy_root, teacher_run, steps=2), tmp_path / "run")
    snapshot = tmp_path / "run/checkpoints/step_00000002/ema.safetensors"
    recipe = toy.recipe(toy_root)
    network = recipe.model.build()
    start(network, apply(recipe, [f"train.init={snapshot}"]))
    trained = open_trained(tmp_path / "run")[1].state_dict()
    opened = open_trained(snapshot)[1].state_dict()
    loaded = load(snapshot).state_dict()
    for key, value in network.state_dict().items():
        assert all(torch.equal(value, other[key]) for other in (trained, opened, loaded))


def test_the_terms_are_those_of_the_losses_by_hand(toy_root, teacher_run):
    words = ("distill.at=occ_logits,occ_logits,occ_logits", "distill.loss=cwd,kd,ifvd", "distill.weight=2,3,4", "distill.tau=1,1,2")
    with pytest.raises(ConfigError, match="ifvd has no temperature"):
        made(student_recipe(toy_root, teacher_run, *words))
    recipe = student_recipe(toy_root, teacher_run, *words[:-1])
    network, _ = made(recipe)
    batch = TrainingFeed(recipe, recipe.data.open()).next_batches()[0]
    network.train()
    with torch.no_grad():
        found = network.loss(network(batch), batch)
        theirs = open_trained(teacher_run)[1](batch)["occ_logits"]
        ours = network.student(batch)["occ_logits"]
    s, t = (voxel_maps(x)[0] for x in (ours, theirs))
    labels = batch.need(OccupancyLabels).semantics
    assert float(found["cwd_occ_logits"]) == pytest.approx(2 * float(cwd_loss(s, t)), rel=1e-5)
    assert float(found["kd_occ_logits"]) == pytest.approx(3 * float(kd_loss(s, t)), rel=1e-5)
    assert float(found["ifvd_occ_logits"]) == pytest.approx(4 * float(ifvd_loss(s, t, labels, toy.K)), rel=1e-5)


def test_forms_of_references_are_named(toy_root, teacher_run):
    """CIRKD divides by the student's channels and has no bias, SKD's PI by the positions of one map, OpenMMLab's value has the entropy."""
    words = ("distill.at=features,occ_logits,features:features", "distill.loss=cwd,kd,pixel", "distill.form=cirkd,skd,channels")
    network, lines = made(student_recipe(toy_root, teacher_run, *words, "distill.weight=1"))
    assert "cwd of features (weight 1, tau 4, as cirkd)" in lines[0]
    recipe = student_recipe(toy_root, teacher_run, *words)
    batch = TrainingFeed(recipe, recipe.data.open()).next_batches()[0]
    with torch.no_grad():
        outputs = network(batch)
        found = network.loss(outputs, batch)
    s, t = (outputs[f"cwd_features/{who}"] for who in ("student", "teacher"))
    channels = network.student(batch)["features"].shape[1]
    assert channels < s.shape[1]
    assert network.adapters["cwd_features"].linear.bias is None
    assert network.adapters["pixel_features"].linear.bias is not None
    assert float(found["cwd_features"]) == pytest.approx(float(cwd_loss(s, t, channels=channels)), rel=1e-5)
    s, t = (outputs[f"kd_occ_logits/{who}"] for who in ("student", "teacher"))
    assert float(found["kd_occ_logits"]) == pytest.approx(float(kd_loss(s, t, mean_over="map", value="ce")), rel=1e-5)
    s, t = (outputs[f"pixel_features/{who}"] for who in ("student", "teacher"))
    squares = ((s - t) ** 2).sum() / s.shape[0] / s.shape[1]
    assert float(found["pixel_features"]) == pytest.approx(float(squares), rel=1e-5)
    for loss, forms in FORMS.items():
        for form in forms:
            at = "occ_logits" if loss == "kd" else "features"
            recipe = student_recipe(toy_root, teacher_run, f"distill.at={at}", f"distill.loss={loss}", f"distill.form={form}")
            network, _ = made(recipe)
            with torch.no_grad():
                usual = network.comparison.value(network.terms[0]._replace(form="usual"), *pair_of(network, batch), batch, 8)
                assert network.comparison.value(network.terms[0], *pair_of(network, batch), batch, 8) != pytest.approx(float(usual))


def pair_of(network: Distilled, batch) -> tuple[torch.Tensor, torch.Tensor]:
    outputs, name = network(batch), network.terms[0].name
    return outputs[f"{name}/student"], outputs[f"{name}/teacher"]


def test_losses_of_any_channels_need_no_adapter(toy_root, teacher_run):
    network, lines = made(student_recipe(toy_root, teacher_run, "distill.at=features,features", "distill.loss=at,pair"))
    assert not list(network.adapters.parameters())
    assert "adapted" not in " ".join(lines)


@pytest.mark.parametrize("reading", ["class", "class_height"])
def test_only_voxels_that_a_camera_sees_are_compared(toy_root, teacher_run, reading):
    words = ("distill.at=occ_logits", "distill.visible=true", f"distill.voxels={reading}")
    recipe = student_recipe(toy_root, teacher_run, *words)
    network, _ = made(recipe)
    batch = TrainingFeed(recipe, recipe.data.open()).next_batches()[0]
    outputs = network(batch)
    before = float(network.loss(outputs, batch)["cwd_occ_logits"])
    seen = batch.need(OccupancyLabels).mask_camera
    hidden, _ = voxel_maps((~seen)[..., None].expand(*seen.shape, toy.K), reading=reading)
    outputs["cwd_occ_logits/student"] = outputs["cwd_occ_logits/student"].where(~hidden, 50.0)
    assert float(network.loss(outputs, batch)["cwd_occ_logits"]) == pytest.approx(before, rel=1e-5)
    outputs["cwd_occ_logits/student"] = outputs["cwd_occ_logits/student"].where(hidden, torch.randn_like(outputs["cwd_occ_logits/student"]))
    assert float(network.loss(outputs, batch)["cwd_occ_logits"]) != pytest.approx(before, rel=1e-3)


def test_the_teacher_is_neither_trained_nor_averaged_nor_counted(toy_root, teacher_run):
    network, lines = made(student_recipe(toy_root, teacher_run))
    teacher = network.teacher
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    network.train()
    assert not teacher.network.training
    names = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert names == {"student", "adapters"}
    assert student_of(network) is network.student
    assert student_of(nn.Identity()).__class__ is nn.Identity
    assert set(network.parameter_groups()) == {"encoder", "head", "adapters"}
    assert "learning from" in lines[0]
    assert "16 channels adapted to 24" in " ".join(lines)
    import copy

    assert copy.deepcopy(network).teacher is teacher
    assert described(student_recipe(toy_root, teacher_run), teacher)[0].endswith("cwd of occ_logits (weight 3, tau 4)")


def test_trying_both_networks_changes_nothing_of_the_student(toy_root, teacher_run):
    recipe = apply(student_recipe(toy_root, teacher_run), ["model.batch_norm=true", "model.dropout=0.3"])
    torch.manual_seed(0)
    student = recipe.model.build()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    with_teacher(recipe, student, teacher_of(recipe), recipe.data.open(), CPU)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_the_teacher_sees_images_as_it_knows_them(toy_root, teacher_run, tmp_path):
    """Of a teacher that was trained on other pixel values and an other order of colours, the outputs are what they were."""
    recipe, network = open_trained(teacher_run)
    other = apply(recipe, ["data.channel_order=bgr", "data.mean=10,20,30", "data.std=1,2,3"])
    plain = TrainingFeed(recipe, recipe.data.open()).next_batches()[0]
    moved = TrainingFeed(other, other.data.open()).next_batches()[0]
    assert moved.image_scale == ImageScale((10, 20, 30), (1, 2, 3), "bgr")
    assert not torch.allclose(plain.images, moved.images, atol=1)
    with torch.no_grad():
        expected = network(plain)["occ_logits"]
    assert torch.allclose(Teacher(str(teacher_run))(moved)["occ_logits"], expected, atol=1e-4)
    assert moved.scaled_as(moved.image_scale) is moved


def test_a_network_gets_as_many_frames_as_it_reads(toy_root, teacher_run):
    recipe = toy.recipe(toy_root)
    reads = Reads(past=2)
    batch = TrainingFeed(recipe, recipe.data.open(), reads=reads).next_batches()[0]
    assert batch.images.shape[1] == 3
    one = batch.newest(1)
    assert one.images.shape[1] == 1
    assert one.rig.ego2global.shape[1] == 1
    assert one.frame_ego2global.shape[1] == 1
    assert one.is_present.shape[1] == 1
    assert batch.newest(5) is batch
    teacher = Teacher(str(teacher_run))
    teacher.recipe = teacher.recipe.model_copy(update={"model": PastConfig()})
    assert teacher.reads_with(recipe.model).past == 2


class PastConfig(toy.ToyConfig):
    """A toy that reads the past."""

    def reads(self) -> Reads:
        return Reads(past=2)


REFUSED = {
    "no teacher": (["distill.teacher="], "needs a teacher"),
    "no output": (["distill.at="], "names no output.*features.*occ_logits"),
    "unknown output": (["distill.at=bev"], "no output 'bev'.*Outputs to compare"),
    "unknown output of the teacher": (["distill.at=features:featurs"], "no output 'featurs'; did you mean 'features'"),
    "no output, two losses": (["distill.at=", "distill.loss=cwd,kd"], "names no output"),
    "too many losses": (["distill.loss=cwd,kd,at"], "3 entries, distill.at 2"),
    "twice": (["distill.at=features,features"], "cwd_features twice"),
    "classes of features": (["distill.loss=kd"], "which features does not have"),
    "classes of the teacher's features": (["distill.at=occ_logits:features", "distill.loss=kd"], "which features does not have"),
    "unknown form": (["distill.form=cirdk"], "cwd has the forms usual, cirkd, openmmlab. Give one for each"),
    "form of another loss": (["distill.at=features", "distill.loss=at", "distill.form=cirkd"], "at has the forms usual"),
    "visible features": (["distill.visible=true"], "distill.visible is of occ_logits"),
    "ifvd of features": (["distill.loss=ifvd"], "ifvd needs the class of each position of features"),
    "unlike": (["distill.at=features:occ_logits"], "not maps of the same things"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_the_first_step(toy_root, teacher_run, tmp_path, case):
    words, message = REFUSED[case]
    recipe = student_recipe(toy_root, teacher_run, *words)
    with pytest.raises(ConfigError, match=message):
        train(recipe, tmp_path / "run")


def test_a_term_that_is_zero_or_not_finite_says_why(toy_root, teacher_run, tmp_path):
    recipe = student_recipe(toy_root, teacher_run, "model.width=24")
    same = open_trained(teacher_run)[1]
    with pytest.raises(ConfigError, match="on the first samples: student and teacher answer the same"):
        with_teacher(recipe, same, teacher_of(recipe), recipe.data.open(), CPU)
    half = toy.ToyConfig().build()
    list(half.parameters())[-1].data[0] = torch.nan  # one class alone
    logits = student_recipe(toy_root, teacher_run, "distill.at=occ_logits")
    with pytest.raises(ConfigError, match="the student's output is not finite"):
        with_teacher(logits, half, teacher_of(logits), recipe.data.open(), CPU)
    for setting in ("weight", "tau"):
        with pytest.raises(ConfigError, match="finite number"):
            student_recipe(toy_root, teacher_run, f"distill.{setting}=inf")
    broken = {key: value * float("nan") for key, value in read_weights(teacher_run)[0].items()}
    save_file(broken, tmp_path / "broken.safetensors", {key: json.dumps(value) for key, value in read_weights(teacher_run)[1].items()})
    with pytest.raises(CheckpointError, match="holds numbers that are not finite"):
        made(student_recipe(toy_root, tmp_path / "broken.safetensors"))


def test_a_teacher_of_another_kind_is_refused(toy_root, teacher_run, tmp_path):
    recipe = student_recipe(toy_root, teacher_run)
    classes = ("wall", "ground", "free")
    teacher = teacher_of(recipe)
    teacher.recipe = teacher.recipe.model_copy(update={"model": NamedConfig(class_names=classes)})
    named = recipe.model_copy(update={"model": NamedConfig()})
    with pytest.raises(ConfigError, match="has other classes, wall, ground, free"):
        with_teacher(named, named.model.build(), teacher, recipe.data.open(), CPU)
    far = toy.GRID.model_copy(update={"lower": (-8.0, -4.0, -1.0), "cell": (1.2, 0.8, 0.8)})
    teacher = teacher_of(recipe)
    teacher.recipe = teacher.recipe.model_copy(update={"model": toy.ToyConfig(grid=far, width=24)})
    with pytest.raises(ConfigError, match=r"the student's map covers x -4 to 4 m.*x -8 to 4 m"):
        with_teacher(recipe, recipe.model.build(), teacher, recipe.data.open(), CPU)
    single = type("Single", (), {"has_rigs": False, "image_size": recipe.data.image_size})()
    teacher = teacher_of(recipe)
    teacher.recipe = teacher.recipe.model_copy(update={"data": single, "name": "large"})
    with pytest.raises(ConfigError, match=r"\(large\) works on single images, the student \(toy\) on rigs of cameras"):
        teacher.notes(recipe)
    high = toy.GRID.model_copy(update={"lower": (-4.0, -4.0, -2.0), "upper": (4.0, 4.0, 1.2)})
    teacher = teacher_of(recipe)
    teacher.recipe = teacher.recipe.model_copy(update={"model": toy.ToyConfig(grid=high, width=24)})
    with pytest.raises(ConfigError, match=r"z -1 to 2.2 m, the one of the teacher .* z -2 to 1.2 m"):
        with_teacher(recipe, recipe.model.build(), teacher, recipe.data.open(), CPU)


def test_other_input_and_other_rules_are_said(toy_root, teacher_run):
    recipe = student_recipe(toy_root, teacher_run)
    teacher = teacher_of(recipe)
    teacher.recipe = apply(teacher.recipe, ["data.image_size=32,64"]).model_copy(update={"model": RuledConfig(rule="there")})
    assert teacher.notes(recipe.model_copy(update={"model": RuledConfig()})) == [
        "the teacher gets another input than it was trained with: data.image_size was [32, 64], now [16, 32]",
        "the teacher works by other rules than the student: model.rule is there, here here",
    ]


class RuledConfig(toy.ToyConfig):
    """A toy with a setting that belongs to its weights."""

    rule: Annotated[str, TRAVELS] = "here"


class NamedConfig(toy.ToyConfig):
    """A toy that names its classes."""

    class_names: tuple[str, ...] = toy.OCC3D_CLASSES


def test_a_network_in_turns_cannot_be_distilled(toy_root, teacher_run):
    recipe = toy_gan.recipe(toy_root)
    recipe = recipe.model_copy(update={"distill": DistillConfig(teacher=str(teacher_run), at=("features",))})
    with pytest.raises(ConfigError, match="is trained in turns"):
        made(recipe)


def test_a_teacher_that_is_no_finished_run_is_refused(tmp_path, teacher_run):
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(CheckpointError, match="a training that is finished"):
        open_trained(tmp_path / "unfinished")
    save_weights(tmp_path / "bare.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="frustum weights convert"):
        open_trained(tmp_path / "bare.safetensors")
    recipe, network = open_trained(teacher_run / WEIGHTS)
    assert recipe.name == "toy"
    assert not network.training


def test_weights_and_temperatures_are_the_published_ones_unless_given():
    terms = terms_of(DistillConfig(at=("logits", "features:bev"), loss=("cwd",)))
    assert [(term.weight, term.tau, term.teacher, term.name) for term in terms] == [
        (3, 4, "logits", "cwd_logits"), (50, 4, "bev", "cwd_features"),
    ]  # fmt: skip
    assert terms_of(DistillConfig(at=("logits:features",)))[0].weight == 50, "features on one side make it a matter of features"
    terms = terms_of(DistillConfig(at=("logits", "features"), loss=("dist", "at"), tau=(2.0,)))
    assert [term.tau for term in terms] == [2, 1], "one temperature is that of the losses that have one"
    with pytest.raises(ConfigError, match="at, pair has no temperature"):
        terms_of(DistillConfig(at=("logits", "features"), loss=("at", "pair"), tau=(2.0,)))
    terms = terms_of(DistillConfig(at=("logits", "features"), loss=("dist", "at"), weight=(2.0,)))
    assert [(term.weight, str(term)) for term in terms] == [(2, "dist of logits (weight 2)"), (2, "at of features (weight 2)")]


def test_settings_are_kept_with_the_run(toy_root, teacher_run, tmp_path):
    recipe = student_recipe(toy_root, teacher_run, steps=1)
    train(recipe, tmp_path / "run")
    stored = json.loads((tmp_path / "run/recipe.json").read_text())["recipe"]["distill"]
    assert stored["at"] == ["features", "occ_logits"]
    assert stored["loss"] == ["cwd"]
    assert open_trained(tmp_path / "run")[0].distill == recipe.distill
    assert toy.recipe(toy_root).distill is None
    assert np.isfinite(float(read_lines(tmp_path / "run/metrics.jsonl")[0]["loss"]))
