"""nuScenes detection metrics against the devkit's figures, any split of the data, and the plain formulation."""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frustum.errors import ConfigError, DataError
from frustum.metrics.detection import NuScenesDetection
from frustum.metrics.detection_rules import DetectionRules, Surroundings
from frustum.types.boxes import ATTRIBUTE_OF, LABEL_OF, DetectionBoxes
from tests.metrics.figures import assert_figures

HERE = Path(__file__).parents[1] / "data" / "metrics"
CASES = {
    case: (name, case)
    for name, cases in (("det_ties", ("ties", "one_sample")), ("det_missing", ("missing_gt_class", "missing_pred_class")))
    for case in cases
}


def packed(name: str) -> dict[str, Any]:
    return json.loads(lzma.decompress((HERE / name).read_bytes()))


def columns(fields: list[str], rows: list[list[Any]]) -> DetectionBoxes:
    """Boxes from rows of the devkit's fields; null is NaN, sizes are width, length, height."""
    column = {name: [row[i] for row in rows] for i, name in enumerate(fields)}

    def numbers(name: str, width: int) -> np.ndarray:
        return np.array(column[name], object).astype(float).reshape(len(rows), width)

    return DetectionBoxes(
        labels=np.array([LABEL_OF[n] for n in column["detection_name"]], int),
        centres=numbers("translation", 3),
        sizes=numbers("size", 3)[:, [1, 0, 2]],
        rotations=numbers("rotation", 4),
        velocities=numbers("velocity", 2),
        attributes=np.array([ATTRIBUTE_OF[a] for a in column["attribute_name"]], int),
        scores=numbers("detection_score", 1)[:, 0],
        num_points=np.array(column["num_pts"], int),
    )


class Case:
    """A golden case: its samples in the file's order, and the devkit's figures."""

    def __init__(self, file: str, name: str):
        content = packed(f"{file}.json.xz")
        fields, case = content["fields"], content[name]
        self.expected = case["expected"]
        self.samples = {
            token: (columns(fields, pred), columns(fields, case["gt"][token]), Surroundings(np.array(case["ego"].get(token, (0, 0)))))
            for token, pred in case["pred"].items()
        }

    def metric(self, tokens: list[str] | None = None) -> NuScenesDetection:
        metric = NuScenesDetection(order=list(self.samples))
        for token in self.samples if tokens is None else tokens:
            metric.add(token, *self.samples[token])
        return metric


@pytest.fixture(scope="module")
def ties() -> Case:
    return Case(*CASES["ties"])


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    golden = Case(*CASES[case])
    assert assert_figures(golden.metric().compute(), golden.expected, 1e-9) == 10 * (4 + 1 + 5) + 10 + 2


def test_golden_main(shared: Path) -> None:
    folder = shared / "golden" / "metrics"
    content = json.loads(gzip.decompress((folder / "det_boxes.json.gz").read_bytes()))["main"]
    expected = json.loads((folder / "det_expected.json").read_text())["main"]
    fields = ["translation", "size", "rotation", "velocity", "detection_name", "detection_score", "attribute_name", "num_pts"]
    metric = NuScenesDetection(order=list(content["pred"]))
    for token, boxes in content["pred"].items():
        both = boxes + content["gt"][token]
        ego = np.subtract(both[0]["translation"], both[0]["ego_translation"]) if both else np.zeros(3)
        pred, truth = (columns(fields, [[b.get(f, -1) for f in fields] for b in side]) for side in (boxes, content["gt"][token]))
        metric.add(token, pred, truth, Surroundings(ego))
    counts = metric.counts().values()
    assert (sum(c["true"] for c in counts), sum(c["predicted"] for c in counts)) == (3887, 5274)
    curves = expected.pop("curves_2m")
    assert_figures(metric.compute(), expected, 1e-9)
    assert set(curves) == {"car", "barrier", "pedestrian"}
    found = metric.curves()
    for name, curve in curves.items():
        ours = {"precision": found[name].precision[2.0], "confidence": found[name].confidence, **found[name].errors}
        compared = [key for key in curve if key in ours]
        assert len(compared) >= 2
        for key in compared:
            np.testing.assert_allclose(ours[key], np.array(curve[key], object).astype(float), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_any_split_and_order_of_merging_gives_the_same_bits(ties: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.permutation(list(ties.samples)).tolist()
    parts = [ties.metric(part) for part in np.array_split(tokens, 1 + seed) if len(part)]
    whole = ties.metric([])
    for i in rng.permutation(len(parts)):
        whole.merge(pickle.loads(pickle.dumps(parts[i])))
    assert len(whole) == len(tokens)
    assert json.dumps(whole.compute()) == json.dumps(ties.metric().compute())


def test_without_an_order_samples_rank_by_token(ties: Case) -> None:
    results = []
    for tokens in (list(ties.samples), list(reversed(ties.samples))):
        metric = NuScenesDetection()
        for token in tokens:
            metric.add(token, *ties.samples[token])
        results.append(metric.compute())
    by_name = NuScenesDetection(order=sorted(ties.samples))
    for token in ties.samples:
        by_name.add(token, *ties.samples[token])
    assert json.dumps(results[0]) == json.dumps(results[1]) == json.dumps(by_name.compute())


def test_samples_count_once(ties: Case) -> None:
    token = next(iter(ties.samples))
    metric = ties.metric([token])
    with pytest.raises(DataError, match="a second time"):
        metric.add(token, *ties.samples[token])
    with pytest.raises(DataError, match="a second time"):
        metric.merge(ties.metric([token]))
    with pytest.raises(DataError, match="not one of the 60"):
        metric.add("elsewhere", *ties.samples[token])
    with pytest.raises(ConfigError, match="cannot merge"):
        metric.merge(NuScenesDetection())
    with pytest.raises(ConfigError, match="cannot merge"):
        metric.merge(NuScenesDetection(DetectionRules(max_boxes=10), order=list(ties.samples)))


@pytest.mark.parametrize("seed", range(3))
def test_the_plain_formulation_agrees(seed: int, tmp_path: Path) -> None:
    """The benchmark's box-by-box version, which shares no code with ours."""
    path = Path(__file__).parents[2] / "benchmarks" / "speed" / "detection.py"
    spec = importlib.util.spec_from_file_location("detection_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    rng = np.random.default_rng(seed)
    made = {f"sample-{i}": benchmark.make_sample(rng, num_pred=60, num_true=20) for i in range(8)}
    for pred, _ in made.values():
        pred.scores[:] = pred.scores.round(1)  # ties
    benchmark.write_detections(tmp_path / "file.json", {token: pred for token, (pred, _) in made.items()})
    truth = {token: boxes for token, (_, boxes) in made.items()}
    plain = benchmark.plain(tmp_path / "file.json", {token: benchmark.plain_boxes(token, truth[token]) for token in truth})
    ours = benchmark.score({token: pred for token, (pred, _) in made.items()}, truth)
    assert (ours["mean_ap"], ours["nd_score"]) == pytest.approx(plain, abs=1e-12)
    assert 0 < ours["mean_ap"] < 1
