"""Several turns in a step: adversarial training, through the ordinary `train`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from frustum.engine.feed import TrainingFeed
from frustum.engine.metrics_log import read_lines
from frustum.engine.optim import lr_factor
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import make_accelerator
from frustum.engine.step import Stepper
from frustum.engine.train import train
from frustum.engine.turns import average_gradients, turns_of
from frustum.errors import CheckpointError, ConfigError, TrainingError
from frustum.types.contract import Turn
from tests.engine import toy, toy_gan
from tests.engine.test_processes import assert_same_weights, free_port, start_python
from tests.engine.test_train import losses, stop_after


def stepper_and_feed(recipe: Recipe) -> tuple[Stepper, TrainingFeed]:
    torch.manual_seed(0)
    accelerator = make_accelerator(recipe.runtime, recipe.train.accumulate)
    feed = TrainingFeed(recipe, recipe.data.open())
    return Stepper(recipe, recipe.model.build(), accelerator, 12, feed.steps_per_epoch), feed


def test_an_adversarial_model_trains_logs_all_losses_and_resumes_exactly(toy_root, tmp_path):
    recipe = toy_gan.recipe(toy_root, toy_gan.GanConfig(dropout=0.2), checkpoint_every=5)
    whole = train(recipe, tmp_path / "whole")
    lines = read_lines(tmp_path / "whole/metrics.jsonl")
    assert all(list(line["losses"]) == ["pixels", "deceive", "judge"] for line in lines)
    assert all(line["loss"] == pytest.approx(sum(line["losses"].values())) for line in lines)
    assert lines[-1]["losses"]["pixels"] < lines[0]["losses"]["pixels"]
    saved = torch.load(tmp_path / "whole/checkpoints/step_00000012/trainer.pt", weights_only=True)
    assert (len(saved["optimizers"]), len(saved["schedulers"])) == (2, 2)
    assert [state["param_groups"][0]["initial_lr"] for state in saved["optimizers"]] == [0.01, 0.005]
    stop_after(recipe, tmp_path / "parts", 7)
    again = train(recipe, tmp_path / "parts", resume="must")
    assert again.resumed_from == 7
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_equal_a_loop_by_hand(toy_root, accumulate):
    """Generator first; the discriminator then judges the images of the improved generator. Only one of them learns at a time."""
    recipe = toy_gan.recipe(toy_root, accumulate=accumulate)
    stepper, feed = stepper_and_feed(recipe)
    torch.manual_seed(0)
    network = recipe.model.build().to(memory_format=torch.channels_last)
    parts = (network.generator, network.generator_loss, 1e-2), (network.discriminator, network.discriminator_loss, 0.5e-2)
    optimizers = [torch.optim.AdamW(part.parameters(), lr=lr, weight_decay=1e-2) for part, _, lr in parts]
    for step in range(3):
        batches = feed.next_batches()
        norms, expected = [], {}
        for (part, loss, lr), optimizer in zip(parts, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = lr * lr_factor(recipe.optim, step, 12, 8)
            network.zero_grad()
            for batch in batches:
                named = loss(network(batch), batch)
                (sum(named.values()) / accumulate).backward()
                expected |= {name: expected.get(name, 0.0) + float(value.detach()) / accumulate for name, value in named.items()}
            norms.append(float(nn.utils.clip_grad_norm_(part.parameters(), recipe.optim.clip_norm)))
            optimizer.step()
        result = stepper.step(batches)
        assert result.losses == pytest.approx(expected, rel=1e-5)
        assert result.grad_norm == pytest.approx(math.hypot(*norms), rel=1e-4)
        assert result.lr == pytest.approx(1e-2 * lr_factor(recipe.optim, step, 12, 8))
    for name, value in stepper.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert all(p.requires_grad for p in stepper.network.parameters())


def test_a_turn_whose_loss_is_not_finite_is_named_and_everything_needs_gradients_again(toy_root, tmp_path):
    recipe = toy_gan.recipe(toy_root)
    token = TrainingFeed(recipe, recipe.data.open()).next_batches()[0].tokens[0]
    poisoned = toy_gan.recipe(toy_root, toy_gan.GanConfig(poison=token))
    with pytest.raises(TrainingError, match=f"step 1, turn 'discriminator': judge = nan on {token}"):
        train(poisoned, tmp_path)
    stepper, feed = stepper_and_feed(poisoned)
    before = [p.detach().clone() for p in stepper.network.discriminator.parameters()]
    with pytest.raises(TrainingError):
        stepper.step(feed.next_batches())
    assert all(p.requires_grad for p in stepper.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, stepper.network.discriminator.parameters(), strict=True))


def test_only_the_parameters_of_a_turn_get_gradients(toy_root):
    stepper, feed = stepper_and_feed(toy_gan.recipe(toy_root))
    network, seen = stepper.network, []

    def watched(turn: Turn) -> Callable:
        def loss(outputs, batch):
            seen.append((turn.name, {name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad}))
            return turn.loss(outputs, batch)

        return loss

    stepper.turns = tuple(Turn(turn.name, turn.parameters, watched(turn)) for turn in stepper.turns)
    stepper.step(feed.next_batches())
    assert seen == [("generator", {"generator"}), ("discriminator", {"discriminator"})]
    assert all(p.grad is None for p in network.parameters())


def test_turns_that_do_not_fit_the_model_are_refused():
    def refused(turns: str) -> str:
        with pytest.raises(ConfigError) as error:
            turns_of(toy_gan.GanConfig(turns=turns).build())
        return str(error.value)

    assert "Gan has parameters that no turn trains: discriminator.0.weight, discriminator.0.bias," in refused("generator")
    network = toy_gan.GanConfig(turns="generator").build()
    network.discriminator.requires_grad_(False)
    assert [turn.name for turn in turns_of(network)] == ["generator"], "what is frozen needs no turn"
    both = toy_gan.GanConfig().build()
    both.discriminator.requires_grad_(False)
    with pytest.raises(ConfigError, match="turn 'discriminator' of Gan has no trainable parameter"):
        turns_of(both)
    both.turns = lambda: (Turn("other", (nn.Parameter(torch.zeros(1)),), both.generator_loss),)
    with pytest.raises(ConfigError, match="turn 'other' of Gan trains a parameter that is not the model's"):
        turns_of(both)
    (default,) = turns_of(toy.ToyConfig().build())
    assert len(default.parameters) == 5


def test_losses_of_different_turns_have_different_names_and_a_parameter_may_be_in_two(toy_root):
    stepper, feed = stepper_and_feed(toy_gan.recipe(toy_root))
    first, second = stepper.turns
    shared = (*second.parameters, *first.parameters)
    stepper.turns = (first, Turn("again", shared, lambda *given: {"pixels": sum(second.loss(*given).values())}))
    with pytest.raises(ConfigError, match=r"turn 'again' returns a loss that an earlier turn also has: pixels\. Rename it"):
        stepper.step(feed.next_batches())
    stepper.turns = (first, Turn("again", shared, second.loss))
    assert list(stepper.step(feed.next_batches()).losses) == ["pixels", "deceive", "judge"]


def test_a_snapshot_of_before_turns_resumes_exactly(toy_root, tmp_path):
    recipe = toy.recipe(toy_root, checkpoint_every=6)
    train(recipe, tmp_path / "whole")
    stop_after(recipe, tmp_path / "parts", 6)
    path = tmp_path / "parts/checkpoints/step_00000006/trainer.pt"
    state = torch.load(path, weights_only=True)
    (optimizer,), (scheduler,) = state.pop("optimizers"), state.pop("schedulers")
    assert sorted(state) == ["ema_updates", "extra", "step"]
    torch.save({"optimizer": optimizer, "scheduler": scheduler, **state}, path)
    path.with_name("digests.json").unlink()  # there were none then, either
    described = json.loads((tmp_path / "parts/recipe.json").read_text())
    names = ("lr", "weight_decay", "clip_norm", "schedule", "warmup_steps", "warmup_ratio", "step_epochs")
    described["recipe"]["optim"] = {name: described["recipe"]["optim"][name] for name in names} | {"encoder_lr_scale": 1.0}
    (tmp_path / "parts/recipe.json").write_text(json.dumps(described))
    assert train(recipe, tmp_path / "parts", resume="must").resumed_from == 6
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    torch.save({"optimizers": [optimizer] * 2, "schedulers": [scheduler] * 2, **state}, path)
    (tmp_path / "parts/checkpoints/step_00000012").rename(tmp_path / "later")
    with pytest.raises(CheckpointError, match=r"another kind of state.*optimisers of 2 turns, where the model has 1"):
        train(recipe, tmp_path / "parts")


def test_gradients_are_averaged_and_one_that_no_process_has_stays_none():
    here, there, nowhere = (nn.Parameter(torch.zeros(2, 1)) for _ in range(3))
    here.grad = torch.tensor([[2.0], [4.0]])

    class Two:
        """The other process has a gradient of ones for the second parameter only."""

        def reduce(self, vector, how):
            assert how == "mean"
            assert vector.tolist() == [2, 4, 0, 0, 0, 0, 1, 0, 0]
            return (vector + torch.tensor([0.0, 0, 1, 1, 0, 0, 0, 1, 0])) / 2

    average_gradients([here, there, nowhere], Two())  # type: ignore[arg-type]
    assert here.grad.tolist() == [[1.0], [2.0]]
    assert there.grad.tolist() == [[0.5], [0.5]]
    assert nowhere.grad is None


GAN = """
import sys
from frustum.engine.train import train
from tests.engine import toy_gan
train(toy_gan.recipe(sys.argv[1], accumulate=2), sys.argv[2])
"""


def test_two_gloo_processes_with_turns_equal_one_with_more_micro_steps(toy_root, tmp_path):
    port = free_port()
    ranks = [
        start_python(
            ["-c", GAN, str(toy_root), str(tmp_path / "two")],
            RANK=str(r), LOCAL_RANK=str(r), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for r in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=180) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    train(toy_gan.recipe(toy_root, accumulate=4), tmp_path / "one")
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert list(two) == list(one) == list(range(1, 13))
    for step in one:
        assert two[step]["losses"] == pytest.approx(one[step]["losses"], rel=1e-4)
        assert two[step]["grad_norm"] == pytest.approx(one[step]["grad_norm"], rel=1e-3)
    assert_same_weights(tmp_path / "two", tmp_path / "one", 1e-4)


def test_a_turn_reuses_outputs_or_has_a_forward_of_its_own(toy_root):
    """The discriminator judges what the generator made before it was improved; a third turn computes what it needs by itself."""
    recipe = toy_gan.recipe(toy_root, accumulate=2)
    stepper, feed = stepper_and_feed(recipe)
    network, batches, calls = stepper.network, feed.next_batches(), []
    seen: dict[str, list] = {"generator": [], "discriminator": [], "alone": []}

    def noted(name: str, loss: Callable) -> Callable:
        def wrapped(outputs: dict, batch: object) -> dict:
            seen[name].append(outputs)
            return {f"{name}_{key}": value for key, value in loss(outputs, batch).items()}

        return wrapped

    def own(batch: object) -> dict:
        calls.append(batch)
        return network(batch)

    judges = tuple(network.discriminator.parameters())
    stepper.turns = (
        Turn("generator", tuple(network.generator.parameters()), noted("generator", network.generator_loss)),
        Turn("discriminator", judges, noted("discriminator", network.discriminator_loss), reuses=True),
        Turn("alone", judges, noted("alone", network.discriminator_loss), own),
    )
    stepper.optimizers = [*stepper.optimizers, stepper.optimizers[1]]
    result = stepper.step(batches)
    assert set(result.losses) == {"generator_pixels", "generator_deceive", "discriminator_judge", "alone_judge"}
    assert len(calls) == 2
    for made, judged, alone in zip(*seen.values(), strict=True):
        assert torch.equal(made["fake"], judged["fake"])
        assert not judged["fake"].requires_grad
        assert not torch.equal(alone["fake"], judged["fake"])
    network.turns = lambda: (Turn("first", tuple(network.parameters()), network.generator_loss, reuses=True),)
    with pytest.raises(ConfigError, match="reuses the outputs of a turn before it"):
        turns_of(network)
