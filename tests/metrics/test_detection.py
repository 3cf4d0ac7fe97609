"""nuScenes detection metrics against the devkit's figures, and hand-made cases of every rule."""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frustum.data.classes import DETECTION_CLASSES
from frustum.data.detection_boxes import ATTRIBUTE_OF, LABEL_OF, DetectionBoxes
from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import pose, rotation_z
from frustum.metrics.detection import NuScenesDetection
from frustum.metrics.detection_matching import eligible, match, true_positive_errors
from frustum.metrics.detection_rules import ERRORS, DetectionRules, Surroundings
from tests.metrics.figures import assert_figures

HERE = Path(__file__).parents[1] / "data" / "metrics"
RULES = DetectionRules()
NAN = math.nan


def packed(name: str) -> dict[str, Any]:
    return json.loads(lzma.decompress((HERE / name).read_bytes()))


CASES = {
    case: (name, case)
    for name, cases in (("det_ties", ("ties", "one_sample")), ("det_missing", ("missing_gt_class", "missing_pred_class")))
    for case in cases
}


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


# ---- golden ---------------------------------------------------------------------------------------------------------------------


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


# ---- any split of the data ------------------------------------------------------------------------------------------------------


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


# ---- one rule at a time ---------------------------------------------------------------------------------------------------------


def boxes(*rows: tuple[str, float, float], **given: Any) -> DetectionBoxes:
    """Boxes of 4 x 2 x 1 m, (class, x, score or -1), that stand still and look ahead."""
    num = len(rows)
    defaults = {
        "labels": np.array([LABEL_OF[name] for name, _, _ in rows], int),
        "centres": np.array([(x, 0, 0) for _, x, _ in rows], float).reshape(num, 3),
        "sizes": np.tile([4.0, 2.0, 1.0], (num, 1)),
        "rotations": np.tile([1.0, 0, 0, 0], (num, 1)),
        "velocities": np.zeros((num, 2)),
        "attributes": np.zeros(num, int),
        "scores": np.array([score for _, _, score in rows], float),
        "num_points": np.ones(num, int),
    }
    return DetectionBoxes(**(defaults | given))


def heading(*degrees: float) -> np.ndarray:
    half = np.radians(degrees) / 2
    return np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], 1)


def figures(*samples: tuple[DetectionBoxes, DetectionBoxes]) -> dict[str, Any]:
    metric = NuScenesDetection()
    for i, (pred, truth) in enumerate(samples):
        metric.add(f"{i:03d}", pred, truth)
    return metric.compute()


def test_the_classes_are_those_of_the_reader() -> None:
    assert RULES.classes == DETECTION_CLASSES


def test_the_best_score_chooses_first_and_a_second_one_takes_the_next() -> None:
    truth = boxes(("car", 0, -1), ("car", 1.5, -1))
    pred = boxes(("car", 0.1, 0.5), ("car", 0.0, 0.9), ("car", 0.2, 0.1))
    partners = match(pred, truth, RULES.thresholds)
    assert partners[1].tolist() == [0, 0, 0, 0], "the best score"
    assert partners[0].tolist() == [-1, -1, 1, 1], "a duplicate takes the box that is left, 1.4 m away"
    assert partners[2].tolist() == [-1, -1, -1, -1], "nothing is left"


def test_of_equal_scores_the_later_box_goes_first() -> None:
    pred, truth = boxes(("car", 0.3, 0.5), ("car", 0.2, 0.5), ("car", 0.4, 0.5)), boxes(("car", 0, -1))
    assert match(pred, truth, (4.0,))[:, 0].tolist() == [-1, -1, 0]


def test_of_equally_near_boxes_the_first_is_taken_and_the_limit_is_strict() -> None:
    truth = boxes(("car", -1, -1), ("car", 1, -1))
    assert match(boxes(("car", 0, 0.5)), truth, (1.0, 1.0000001)).tolist() == [[-1, 0]]


def test_classes_do_not_mix() -> None:
    assert match(boxes(("truck", 0, 0.5)), boxes(("car", 0, -1)), (4.0,)).tolist() == [[-1]]


def test_of_equal_scores_the_later_sample_ranks_first() -> None:
    """One hit and one miss with one score: if the hit ranks first its precision is 1, else 1/2."""
    hit, miss = (boxes(("car", 0, 0.5)), boxes(("car", 0, -1))), (boxes(("car", 30, 0.5)), boxes())
    late, early = figures(miss, hit), figures(hit, miss)
    recalls = np.arange(11, 101) / 100
    assert late["label_aps"]["car"]["2.0"] == pytest.approx((89 * 0.9 + 0.4) / 90 / 0.9), "precision 1 up to the miss at the last recall"
    assert early["label_aps"]["car"]["2.0"] == pytest.approx(np.maximum(recalls / 2 - 0.1, 0).mean() / 0.9), "from 0 to 1/2"
    metric = NuScenesDetection(order=["b", "a"])
    metric.add("a", *hit)
    metric.add("b", *miss)
    assert metric.compute()["label_aps"] == late["label_aps"], "the given order says that a comes after b"


def test_errors_of_a_pair() -> None:
    truth = boxes(("car", 0, -1), rotations=heading(10), velocities=np.array([[3.0, 0]]), attributes=np.array([2]))
    pred = boxes(
        ("car", 0.5, 0.9),
        centres=np.array([[0.3, 0.4, 9.0]]),
        sizes=np.array([[4.0, 1.0, 2.0]]),
        rotations=heading(-340),
        velocities=np.array([[3.0, -2]]),
        attributes=np.array([1]),
    )
    first = np.array([0])
    errors = true_positive_errors(pred, truth, first, first, RULES)
    np.testing.assert_allclose(errors, [[0.5, 1 - 4 / 12, np.radians(10), 2.0, 1.0]], atol=1e-12)
    unknown = true_positive_errors(
        pred, boxes(("car", 0, -1), velocities=np.full((1, 2), NAN), attributes=np.array([-1])), first, first, RULES
    )
    assert np.isnan(unknown[0]).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(("name", "turned", "error"), [("car", 180, 180), ("barrier", 180, 0), ("barrier", 100, 80), ("car", -100, 100)])
def test_a_barrier_has_no_front(name: str, turned: float, error: float) -> None:
    pred, truth, first = boxes((name, 0, 0.5), rotations=heading(turned)), boxes((name, 0, -1)), np.array([0])
    assert true_positive_errors(pred, truth, first, first, RULES)[0, 2] == pytest.approx(np.radians(error))


def test_errors_that_are_not_defined_stay_out_of_the_means() -> None:
    names = ("barrier", "traffic_cone", "car")
    truth = boxes(*((name, 10 * i, -1) for i, name in enumerate(names)))
    pred = boxes(*((name, 10 * i, 0.9) for i, name in enumerate(names)))
    result = figures((pred, truth))
    undefined = {name: [e for e in ERRORS if math.isnan(result["label_tp_errors"][name][e])] for name in names}
    assert undefined == {"barrier": ["vel_err", "attr_err"], "traffic_cone": ["orient_err", "vel_err", "attr_err"], "car": []}
    # Seven absent classes count 1, three are perfect; barriers and cones are left out where they have no error.
    expected = {"trans_err": 7 / 10, "scale_err": 7 / 10, "orient_err": 7 / 9, "vel_err": 7 / 8, "attr_err": 7 / 8}
    assert result["tp_errors"] == pytest.approx(expected)
    assert result["mean_ap"] == pytest.approx(0.3)
    assert result["nd_score"] == pytest.approx((5 * 0.3 + sum(1 - e for e in expected.values())) / 10)


def test_a_class_without_truth_or_without_a_match_counts_as_a_failure() -> None:
    result = figures((boxes(("bus", 0, 0.9), ("car", 30, 0.9)), boxes(("car", 0, -1))))
    for name in ("bus", "car", "trailer"):
        assert result["mean_dist_aps"][name] == 0
        assert set(result["label_tp_errors"][name].values()) == {1.0}
    assert result["nd_score"] == 0


def test_an_unknown_attribute_of_the_truth_is_ignored() -> None:
    def error(*true: int) -> float:
        places = [("car", 10.0 * i, 0.9 - 0.1 * i) for i in range(len(true))]
        pred, truth = boxes(*places, attributes=np.zeros(len(true), int)), boxes(*places, attributes=np.array(true))
        return figures((pred, truth))["label_tp_errors"]["car"]["attr_err"]

    assert error(0, -1, 0) == 0
    assert error(-1, -1) == 1, "none is known: that counts as a failure"
    recalls = np.arange(11, 101) / 100
    assert error(0, 1) == pytest.approx(np.interp(recalls, [0.5, 1], [0, 0.5]).mean())
    assert error(0, 1, -1) == pytest.approx(np.interp(recalls, [1 / 3, 2 / 3, 1], [0, 0.5, 0.5]).mean()), "the running mean skips it"


def test_recall_below_a_tenth_counts_nothing() -> None:
    truth = boxes(*(("car", 10.0 * i, -1) for i in range(20)))
    for found, ap in ((2, False), (3, True)):
        pred = boxes(*(("car", 10.0 * i, 0.9) for i in range(found)))
        result = figures((pred, truth))
        assert (result["mean_dist_aps"]["car"] > 0) == ap
        assert (result["label_tp_errors"]["car"]["trans_err"] == 1.0) == (not ap)


def test_a_score_of_zero_ends_the_recall_that_errors_are_averaged_over() -> None:
    places = [("car", 10.0 * i, 0.0) for i in range(4)]
    assert figures((boxes(*places), boxes(*places)))["label_tp_errors"]["car"]["trans_err"] == 1.0
    some = figures((boxes(*places, scores=np.array([0.9, 0.8, 0.0, 0.0])), boxes(*places)))
    assert some["label_tp_errors"]["car"]["trans_err"] == 0.0


# ---- filters --------------------------------------------------------------------------------------------------------------------


def test_ranges_are_horizontal_strict_and_per_class() -> None:
    shown = boxes(
        ("car", 50, 0), ("car", 49.99, 0), ("pedestrian", 40, 0), ("pedestrian", 39.99, 0), ("barrier", 30, 0), ("barrier", 29.99, 0)
    )
    shown.centres[:, 2] = 100
    for shift in (0.0, 1000.0):
        shown.centres[:, 1] = shift
        around = Surroundings(np.array([0.0, shift, 5.0]))
        assert eligible(shown, RULES, around, drop_empty=False).tolist() == [False, True] * 3


def test_true_boxes_need_a_point_predictions_do_not() -> None:
    both = boxes(("car", 0, 0.5), ("car", 5, 0.5), ("car", 9, 0.5), num_points=np.array([0, 1, -1]))
    here = Surroundings(np.zeros(2))
    assert eligible(both, RULES, here, drop_empty=True).tolist() == [False, True, True]
    assert eligible(both, RULES, here, drop_empty=False).all()
    metric = NuScenesDetection()
    metric.add("a", both, both, here)
    assert metric.counts()["car"] == {"true": 2, "predicted": 3}


def test_cycles_inside_a_rack_do_not_count() -> None:
    rack = pose(rotation_z(np.pi / 2), np.array([10.0, 0, 0]))[None]  # 6 m along y, 2 m along x
    around = Surroundings(np.zeros(2), rack, np.array([[6.0, 2.0, 2.0]]))
    shown = boxes(*((name, x, 0.5) for name in ("bicycle", "motorcycle", "car") for x in (10.0, 11.0, 11.01)))
    assert eligible(shown, RULES, around, drop_empty=False).tolist() == [False, False, True] * 2 + [True] * 3
    shown.centres[:, 2] = 1.5  # above the rack
    assert eligible(shown, RULES, around, drop_empty=False).all()


# ---- bad input ------------------------------------------------------------------------------------------------------------------


def test_too_many_boxes() -> None:
    metric, full = NuScenesDetection(), boxes(*[("car", 0, 0.5)] * 501)
    with pytest.raises(DataError, match="501 predicted boxes, but at most 500"):
        metric.add("a", full, boxes())
    metric.add("a", full.best(500), boxes())
    assert metric.counts()["car"]["predicted"] == 500


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"centres": np.array([[NAN, 0, 0]])}, DataError, "the predictions of sample a .* centres"),
        ({"scores": np.array([NAN])}, DataError, "scores"),
        ({"sizes": np.array([[1.0, 0, 1]])}, DataError, "not positive"),
        ({"labels": np.array([10])}, DataError, "10 classes car, truck"),
        ({"labels": np.array([-1])}, DataError, "none of the 10"),
        ({"velocities": np.zeros((1, 3))}, ShapeError, r"velocities of the predictions of sample a must have shape \(1, 2\), got \(1, 3\)"),
    ],
)
def test_bad_predictions(change: dict[str, Any], error: type[Exception], words: str) -> None:
    metric = NuScenesDetection()
    with pytest.raises(error, match=words):
        metric.add("a", boxes(("car", 0, 0.5), **change), boxes())
    assert len(metric) == 0


def test_unknown_velocities_are_allowed() -> None:
    unknown = boxes(("car", 0, 0.5), velocities=np.full((1, 2), NAN))
    assert figures((unknown, boxes(("car", 0, -1))))["label_tp_errors"]["car"]["vel_err"] == 1.0


def test_a_threshold_for_the_errors_that_is_none() -> None:
    with pytest.raises(ConfigError, match="error_threshold"):
        DetectionRules(error_threshold=3.0)


def test_nothing_at_all() -> None:
    result = NuScenesDetection().compute()
    assert (result["mean_ap"], result["nd_score"]) == (0, 0)
    assert figures((boxes(), boxes()))["tp_errors"] == dict.fromkeys(ERRORS, 1.0)


# ---- the plain formulation ------------------------------------------------------------------------------------------------------


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
