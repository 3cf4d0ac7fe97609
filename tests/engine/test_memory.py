"""The estimate of a training step's memory: what makes it larger, that it is a lower one, and what is said where it does not fit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from frustum.engine import memory
from frustum.engine.memory import device_memory, estimate, image_encoder, kept_for_gradient, require_memory
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.engine.train import train
from frustum.errors import ConfigError, FrustumWarning
from frustum.recipes.finding import get_recipe, list_recipes
from tests.engine import toy

CPU = torch.device("cpu")
NETWORK = torch.nn.Linear(10, 9)  # 99 weights
NEAR = ("model.views.adjacent=-1,1", "model.views.drawn=1")
SAMPLES = ("model.loss.window_share=0", "model.loss.free_weight=0", "model.loss.depth=silog", "model.renderer=march")


def needed(name: str, *words: str, device: str = "cpu") -> int:
    return sum(estimate(apply(get_recipe(name), words), NETWORK, torch.device(device)).values())


@pytest.mark.parametrize("name", ["gsrender-mini", "renderocc-mini", "gsrender-r50", "gsrender-swin-b", "renderocc-swin-b"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_grows_with_the_batch_and_with_the_voxels(name, device):
    recipe = get_recipe(name)
    one, four = (needed(name, f"train.batch_size={count}", device=device) for count in (1, 4))
    trunk = next(name for name, part in recipe.model.trunk if part is not None)
    cell = [2 * side for side in recipe.model.trunk.config.grid.cell]
    coarse = needed(name, "train.batch_size=1", f'model.trunk.{trunk}.grid={{"cell": {cell}}}', device=device)
    assert 3.5 < four / one <= 4
    assert 2 < one / coarse <= 8, "an eighth of the voxels, and as many samples along rays in steps of metres"
    assert one > 4 * recipe.model.trunk.config.grid.num_cells * (24 if "gs" in name else 18), "more than the numbers of the voxels"


def test_what_else_makes_it_larger():
    camera, resample = (needed("gsrender-mini", *NEAR, f"model.compensation={way}") for way in ("camera", "resample"))
    assert needed("gsrender-mini") < camera < resample
    assert needed("gsrender-mini", "model.head.most=1000") < needed("gsrender-mini")
    assert needed("gsrender-mini", "model.head.most=9999999") == needed("gsrender-mini")
    assert needed("gsrender-mini", device="cuda") < needed("gsrender-mini"), "what the CPU copies"
    some, more = (needed("renderocc-mini", *SAMPLES, f"model.views.points={count}") for count in (1000, 3000))
    assert more - some == 1000 * 400 * 16, "of half of the points, 400 steps of 0.2 m, four numbers each"
    voxels = 'model.trunk={"flashocc_tiny": null, "bevdet_occ_tiny": {}}'
    assert needed("renderocc-mini", voxels) - needed("renderocc-mini") == 2 * 40000 * (16 * 16 - 32)


def test_weights_count_with_what_belongs_to_them():
    recipe = get_recipe("renderocc-mini")

    def of_weights(network: torch.nn.Module, *words: str) -> int:
        return estimate(apply(recipe, words), network, CPU)["weights, their average and the optimiser"]

    assert of_weights(NETWORK) == 99 * 4 * 4, "weights, average, two moments"
    assert of_weights(NETWORK, "train.accumulate=2") == 99 * 4 * 5, "gradients stay while the next micro-step is computed"
    assert of_weights(NETWORK, "ema=null") == 99 * 4 * 3
    assert of_weights(NETWORK, "ema=null", "optim.kind=sgd") == 99 * 4 * 2
    assert of_weights(torch.nn.Linear(10, 9).requires_grad_(False)) == 99 * 4 * 2


def test_the_image_encoder_counts_by_the_images():
    recipe = apply(get_recipe("gsrender-mini"), ["model.trunk.flashocc_tiny.pretrained=false", "data.image_size=64,96"])
    network = recipe.model.build()
    encoder = image_encoder(network)
    assert encoder is network.trunk.trunk.encoder
    six, one = (estimate(recipe, network, CPU, cameras)["the image encoder"] for cameras in (6, 1))
    assert six == 6 * one > 0
    exact = apply(recipe, ["runtime.precision=fp32"])
    assert estimate(exact, network, CPU, 6)["the image encoder"] == 2 * six
    assert image_encoder(NETWORK) is None


@pytest.mark.parametrize("inner", [torch.nn.ReLU(), torch.nn.BatchNorm2d(8)])
def test_what_is_kept_for_a_gradient_is_what_a_run_keeps(inner):
    part, images = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), inner, torch.nn.Conv2d(8, 4, 1)), torch.randn(2, 3, 20, 30)
    own, seen = {p.data_ptr() for p in [*part.parameters(), *part.buffers()]}, {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.setdefault(t.data_ptr(), t), t)[1], lambda t: t):
        part(images)
    measured = sum(t.untyped_storage().nbytes() for key, t in seen.items() if key not in own)
    assert measured > 0
    assert kept_for_gradient(part, images.shape) == measured
    assert all(p.grad is None and not p.is_meta for p in part.parameters())


class OnNumbers(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.sum())


def test_a_part_that_must_see_numbers_is_left_out():
    assert kept_for_gradient(OnNumbers(), (2, 3)) == 0


def test_no_estimate_for_others():
    for name in {info.name for info in list_recipes()}:
        if not name.startswith(("gsrender", "renderocc")) and not name.endswith("-render"):
            assert estimate(get_recipe(name), NETWORK, CPU) == {}, name


def offered(monkeypatch: pytest.MonkeyPatch, free: float, total: float) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda device: (int(free * 2**30), int(total * 2**30)))


def large() -> Recipe:
    words = ["train.batch_size=8", *NEAR, "model.compensation=resample", "train.accumulate=2", "model.head.mean_shift=0.5"]
    return apply(get_recipe("gsrender-mini"), words)


def test_too_large_a_setting_says_what_to_reduce(monkeypatch):
    offered(monkeypatch, 1, 1.25)
    with pytest.raises(ConfigError) as caught:
        require_memory(large(), NETWORK, CPU)
    text = str(caught.value)
    assert text.startswith(
        "a training step needs at least 2.8 GiB of memory (0.9 GiB for 24 numbers of 640,000 voxels and their gradients, "
    )
    assert "but this machine has 1.2 GiB" in text
    words = [
        "train.batch_size=4 train.accumulate=4 (1.4 GiB)",
        "model.compensation=none 'model.views.adjacent=[]' model.views.drawn=0",
        "compensation=camera",
    ]
    places = [text.index(word) for word in (*words, "model.head.most=80000")]
    assert places == sorted(places), "smaller batches, by which nothing is lost, then what saves most"


def test_what_is_advised_is_a_setting_and_is_enough_where_it_says_so(monkeypatch):
    offered(monkeypatch, 0.6, 0.6)
    less = apply(large(), ["train.batch_size=1", "train.accumulate=16"])
    assert require_memory(less, NETWORK, CPU)[0].startswith("a training step needs at least 3")
    with pytest.raises(ConfigError, match="needs at least"):
        require_memory(large(), NETWORK, CPU)


def test_what_may_fit_is_not_refused(monkeypatch):
    offered(monkeypatch, 1, 16)
    with pytest.warns(
        FrustumWarning, match=r"at least 2\.8 GiB .*, but of the 16\.0 GiB of this machine 1\.0 GiB are free now\. What makes it less"
    ):
        assert require_memory(large(), NETWORK, CPU) == []
    offered(monkeypatch, 8, 16)
    (line,) = require_memory(large(), NETWORK, CPU)
    assert line.startswith("a training step needs at least 2.8 GiB of memory (")


def test_memory_of_this_machine():
    free, total = device_memory(CPU)
    assert 2**20 < free <= total


def test_a_training_is_refused_before_its_first_step(toy_root, tmp_path, monkeypatch, capsys):
    recipe = toy.recipe(toy_root, steps=1)
    train(recipe, tmp_path / "plain")
    assert "GiB of memory" not in capsys.readouterr().out
    mixed = get_recipe("flashocc-mini-render").model
    found, without = mixed.memory(1, "cpu"), mixed.model_copy(update={"render": None})
    assert found.less == ("render=null",)
    assert sum(found.parts.values()) > 4 * 3 * 18 * 640_000
    assert without.memory(1, "cpu") is None
    found = get_recipe("renderocc-mini").model.memory(1, "cpu")
    monkeypatch.setattr(toy.ToyConfig, "memory", lambda self, batch_size, device: found)
    train(recipe, tmp_path / "told")
    assert "a training step needs at least" in " ".join(capsys.readouterr().out.split())
    offered(monkeypatch, 0.01, 0.01)
    with pytest.raises(ConfigError, match="but this machine has 10 MiB"):
        train(recipe, tmp_path / "refused")
    assert not list(tmp_path.glob("refused/checkpoints/*"))


MEASURED = """
import json, sys, torch
torch.set_num_threads(1)
from benchmarks.claims.measuring import training_step
from frustum.benchmark import peak_rise
from frustum.engine.memory import estimate
from frustum.engine.overrides import apply
from frustum.recipes.finding import get_recipe
from tests.models.test_contract import make_batch
recipe = apply(get_recipe(sys.argv[1]), json.loads(sys.argv[2]))
batch, found = make_batch(recipe, recipe.train.batch_size), {}

def job():
    network = recipe.model.build()
    optimizer = torch.optim.AdamW(network.parameters())
    step = training_step(network, recipe, batch)
    for _ in range(2):
        step()
        optimizer.step()
    found.update(estimate(recipe, network, torch.device("cpu")))

training_step(recipe.model.build(), recipe, batch)()  # compiles
print(json.dumps([sum(found.values()) / 2**20, rise] if (rise := peak_rise(job)["rise_mib"]) else []))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures through /proc")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gsrender-mini", []),
        ("gsrender-mini", [*NEAR, "model.compensation=resample"]),
        ("gsrender-mini", ["model.head.most=20000"]),
        ("renderocc-mini", []),
        ("renderocc-mini", [*SAMPLES]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_it_is_a_lower_estimate_of_what_is_measured(name, words):
    trunk = {"grid": {"cell": [0.4, 0.4, 0.8]}, "bev_channels": 8, "lift_channels": 4, "pretrained": False, "depth_loss": 0}
    small = [f"model.trunk.flashocc_tiny.{key}={json.dumps(value)}" for key, value in trunk.items()]
    small += ["train.batch_size=2", "data.image_size=32,64", "runtime.precision=fp32", "ema=null"]
    command = [sys.executable, "-c", MEASURED, name, json.dumps([*small, *words])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    low, measured = json.loads(done.stdout.splitlines()[-1])
    assert 0.4 < low / measured < 1, f"{low:.0f} of {measured:.0f} MiB"
