"""Detectors: a decoder layer beside the reference's attention, matching and losses beside a loop, and what a second task costs.

    python benchmarks/speed/detectors.py [--quick] [--json FILE]

The decoder of 3DPPE and PETR has six layers of 900 queries over 6,000 image tokens; one of them is measured. The plain formulation is what
the reference runs: torch's MultiheadAttention, which writes down all weights of the attention and their mean over the heads. The plain
matching and losses go through layers and samples one by one, as the reference does. For UltimateDO each task alone and both are measured in
evaluation mode: the whole network, and only what is behind the shared map, which differs and is steadier.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.engine.overrides import apply
from frustum.engine.runtime import computes_bf16
from frustum.losses.set_prediction import SetLoss, TrueCodes, set_losses
from frustum.models.ultimatedo import UltimateDo
from frustum.models.ultimatedo_mini import UltimateDoMini
from frustum.nn.query_decoder import Answer, Attention, DecoderLayer
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.worlds.street.rigs import StreetRig

PLAIN = "plain: MultiheadAttention"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class MaterialisedAttention(nn.Module):
    """The same attention by torch's module, as the reference calls it."""

    def __init__(self, ours: Attention):
        super().__init__()
        self.attn = nn.MultiheadAttention(ours.attn.out_proj.in_features, ours.heads, ours.dropout, batch_first=True)
        self.attn.load_state_dict(ours.attn.state_dict())
        self.drop = nn.Dropout(ours.dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: None = None, votes: None = None) -> Answer:
        return Answer(self.drop(self.attn(query, key, value)[0]))


def plain_layer(ours: DecoderLayer) -> DecoderLayer:
    layer = copy.deepcopy(ours)
    layer.attentions = nn.ModuleList([MaterialisedAttention(part) for part in ours.attentions])  # type: ignore[arg-type]
    return layer


def measure_decoder(quick: bool) -> Table:
    queries, tokens, repeats = (30, 200, 2) if quick else (900, 6000, 3)
    ours = DecoderLayer(256, 8, 2048, 0.1).to(DEVICE)
    layers = {PLAIN: plain_layer(ours).to(DEVICE), "frustum": ours}
    inputs = [torch.randn(1, n, 256, device=DEVICE, requires_grad=True) for n in (queries, queries, tokens, tokens)]
    above = torch.randn(1, queries, 256, device=DEVICE)
    jobs: dict[tuple[str, bool, bool], Callable[[], object]] = {}
    errors: dict[tuple[str, bool], float] = {}
    with torch.no_grad():
        exact = plain_layer(ours).double().eval()(*(x.double() for x in inputs)).queries
    for name, layer in layers.items():
        for half in (False, True):

            def forward(layer: nn.Module = layer, half: bool = half) -> Tensor:
                with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
                    return layer.eval()(*inputs).queries

            def learn(layer: nn.Module = layer, half: bool = half) -> object:
                with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
                    found = layer.train()(*inputs).queries
                return torch.autograd.grad(found, [*inputs, *layer.parameters()], above.to(found.dtype))

            jobs[name, half, False] = torch.no_grad()(forward)
            if not half or computes_bf16(DEVICE.type):  # else a step takes half a minute
                jobs[name, half, True] = learn
            errors[name, half] = float((jobs[name, half, False]() - exact).abs().max())  # type: ignore[operator]
    times = take_turns(jobs, repeats)
    rows = []
    for half in (False, True):
        for name in layers:
            figures: list[float | None] = []
            for learns in (False, True):
                plain, own = (times.get((form, half, learns)) for form in (PLAIN, name))
                figures += [None, None] if plain is None or own is None else [1e3 * own.median, plain.median / own.median]
            rows.append((name, "bfloat16" if half else "float32", *figures, errors[name, half]))
    return Table(
        f"A decoder layer: {queries} queries, {tokens:,} image tokens, 256 channels, 8 heads, one sample, {DEVICE.type}",
        ("form", "precision", "forward, ms", "x plain", "training, ms", "x plain", "largest error"),
        rows,
        f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s). Training: forward and backward with dropout 0.1, "
        "in bfloat16 only where the processor computes in it. "
        f"Error: against float64; the results have a spread of {float(exact.std()):.0f}.",
    )


def plain_losses(logits: Tensor, codes: Tensor, truth: list[tuple[Tensor, Tensor]], settings: SetLoss) -> list[Tensor]:
    """Class and box loss of each layer, layer by layer and sample by sample."""
    losses = []
    weights = torch.tensor(settings.code_weights)
    for layer, layer_codes in zip(logits, codes, strict=True):
        wanted, targets, factors = torch.zeros_like(layer), torch.zeros_like(layer_codes), torch.zeros_like(layer_codes)
        count = 0
        for i, (boxes, classes) in enumerate(truth):
            with torch.no_grad():
                p = layer[i].sigmoid()
                negative = -(1 - p + 1e-12).log() * (1 - settings.alpha) * p**settings.gamma
                positive = -(p + 1e-12).log() * settings.alpha * (1 - p) ** settings.gamma
                cost = (positive[:, classes] - negative[:, classes]) * settings.class_weight
                cost = cost + settings.box_weight * torch.cdist(layer_codes[i, :, :8], boxes[:, :8], p=1)
                rows, columns = (torch.from_numpy(x) for x in linear_sum_assignment(cost.nan_to_num(100, 100, -100).numpy()))
            wanted[i, rows, classes[columns]] = 1
            targets[i, rows], factors[i, rows] = boxes[columns], weights
            count += len(rows)
        p = layer.sigmoid()
        missed = (1 - p) * wanted + p * (1 - wanted)
        weight = (settings.alpha * wanted + (1 - settings.alpha) * (1 - wanted)) * missed**settings.gamma
        entropy = F.binary_cross_entropy_with_logits(layer, wanted, reduction="none")
        losses.append((entropy * weight).sum() * settings.class_weight / count)
        losses.append(((layer_codes - targets).abs() * factors).sum() * settings.box_weight / count)
    return losses


def measure_matching(quick: bool) -> Table:
    queries, boxes, layers, repeats = (50, 6, 2, 2) if quick else (900, 60, 6, 15)
    settings = SetLoss()
    logits, codes = (torch.randn(layers, 1, queries, 10).mul_(scale).requires_grad_() for scale in (1, 10))
    true, kinds = 10 * torch.randn(boxes, 10), torch.randint(0, 10, (boxes,))
    truth = TrueCodes.of([true], [kinds])
    forms: dict[str, Callable[[], list[Tensor]]] = {
        "plain: layer by layer": lambda: plain_losses(logits, codes, [(true, kinds)], settings),
        "frustum": lambda: list(set_losses(logits, codes, truth, settings).values()),
    }
    found = {name: torch.stack(form()).sum() for name, form in forms.items()}
    assert len({f"{value:.4g}" for value in found.values()}) == 1, found
    jobs: dict[tuple[str, bool], Callable[[], object]] = {}
    for name, form in forms.items():
        jobs[name, False] = torch.no_grad()(form)
        jobs[name, True] = lambda form=form: torch.autograd.grad(torch.stack(form()).sum(), (logits, codes))  # type: ignore[misc]
    times = take_turns(jobs, repeats, 2)
    rows = []
    for name in forms:
        once, both = (times[name, learns].median for learns in (False, True))
        plain = [times["plain: layer by layer", learns].median for learns in (False, True)]
        rows.append((name, 1e3 * once, plain[0] / once, 1e3 * both, plain[1] / both))
    return Table(
        f"Matching and losses: {layers} layers, {queries} queries, {boxes} boxes, one sample, cpu",
        ("form", "matching and losses, ms", "x plain", "with gradients, ms", "x plain"),
        rows,
        f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s). Both give the same losses.",
    )


ONE_TASK = {"detection alone": ["model.tasks.occupancy=null"], "occupancy alone": ["model.tasks.detection=null"], "both tasks": []}


def measure_tasks(name: str, size: tuple[int, int], repeats: int) -> Table:
    cameras = StreetRig.nuscenes().cameras
    intrinsics, cam2ego = (np.stack(m) for m in ([c.fitted(*size)[0] for c in cameras], [c.cam2ego.sensor2ego for c in cameras]))
    batch = Batch.from_arrays(torch.randn(1, len(cameras), 3, *size, device=DEVICE), intrinsics, cam2ego)
    networks: dict[str, UltimateDo | UltimateDoMini] = {}
    for tasks, more in ONE_TASK.items():
        recipe = apply(get_recipe(name), ["model.pretrained=false", *more])
        networks[tasks] = recipe.model.build().to(DEVICE).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    jobs: dict[tuple[str, bool], Callable[[], object]] = {}
    for tasks, network in networks.items():
        with torch.no_grad():
            bev = network(batch)["bev"]
        jobs[tasks, False] = torch.no_grad()(lambda network=network: network(batch))
        jobs[tasks, True] = torch.no_grad()(heads_of(network, bev, batch))
    times = take_turns(jobs, repeats)
    whole, behind = ({tasks: 1e3 * times[tasks, heads].median for tasks in networks} for heads in (False, True))
    rows = []
    for tasks in networks:
        added = behind["both tasks"] - behind[tasks]
        parameters = sum(p.numel() for p in networks[tasks].parameters()) / 1e6
        rows.append((tasks, parameters, whole[tasks], behind[tasks], added, 100 * added / whole[tasks]))
    return Table(
        f"{name}, {size[0]}x{size[1]}, one sample of six cameras, float32, {DEVICE.type}",
        ("network", "parameters, M", "whole, ms", "behind the map, ms", "both tasks add, ms", "both tasks add, %"),
        rows,
        f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s), without decoding. What both tasks add is taken behind "
        "the map; all before it is the same.",
    )


def heads_of(network: UltimateDo | UltimateDoMini, bev: Tensor, batch: Batch) -> Callable[[], object]:
    return (lambda: network.heads(bev, batch)) if isinstance(network, UltimateDoMini) else (lambda: network.heads(bev))


def measure(quick: bool) -> Iterator[Table]:
    torch.manual_seed(0)
    yield measure_matching(quick)
    yield measure_tasks("ultimatedo-mini", (96, 256), 2 if quick else 7)
    yield measure_decoder(quick)
    if not quick:
        yield measure_tasks("ultimatedo-r50", (256, 704), 3)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
