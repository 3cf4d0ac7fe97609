"""The report is one file, complete, honest about what is missing, and safe against odd names."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from frustum.errors import DataError
from frustum.tasks.task import ClassFigures, Figure
from frustum.types.classes import CAMERAS, OCC3D_CLASSES, OCC3D_FREE
from frustum.types.layers import BoxLayer, Legend
from frustum.viewer.report import report_html, write_report
from frustum.viewer.report_data import Question, ReportData, Result, SamplePanel
from tests.viewer.volumes import LEGEND, layer

SMALL = (40, 60)  # pictures of another size would only take longer
VOID = {"meta", "img", "input", "br", "hr", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests read."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.text, self._hidden = [], [], [], [], 0
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag not in VOID and tag not in ("line", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def volume(seed):
    rng = np.random.default_rng(seed)
    labels = np.full((16, 16, 5), OCC3D_FREE, np.uint8)
    labels[:, :, 0] = 11
    labels[rng.random(labels.shape) < 0.1] = 4
    return labels


def panel(seed=0, title="scene-0001", truth=True, prediction=True, boxes=False, **changes):
    rng = np.random.default_rng(seed)
    images = [(name, rng.integers(0, 255, (24, 64, 3), np.uint8)) for name in CAMERAS]
    mask = rng.random((16, 16, 5)) < 0.8
    true = [layer(volume(seed + 1), mask)] if truth else []
    questions = [Question("Occupancy", [layer(volume(seed))] if prediction else [], true)] if truth or prediction else []
    if boxes:
        found = BoxLayer(np.array([[5.0, 2, 0, 4, 2, 2, 0.3, 0, 0]]), np.zeros(1, int), Legend(("car",), ((0, 0, 200),)), np.ones(1))
        questions.append(Question("Detection", [found]))
    return SamplePanel(title, **{"images": images, "questions": questions, **changes})


NAMES = (("mIoU", "Classes", True), ("geometric IoU", "Shape", True), ("RayIoU", "Rays", True), ("RayIoU@1", "Rays", False))


def scores(scale=1.0, share=False, **values):
    """An answer to the question of occupancy; `values` replaces those of figures."""
    figures = [
        Figure(name, name, values.get(name, scale * (0.1 + 0.01 * i)), meaning=f"what {name} means", group=group, is_headline=head)
        for i, (name, group, head) in enumerate(NAMES)
    ]
    figures.append(Figure("hidden", "F-score of tables", 0.5, meaning="not for reports"))
    per_class = {name: None if name == "bicycle" else scale * 0.02 * i for i, name in enumerate(OCC3D_CLASSES[:-1])}
    legend = Legend(LEGEND.names[:-1], LEGEND.colours[:-1])
    shares = {name: 0.01 for name in OCC3D_CLASSES[:-1]} if share else None
    return {"occupancy": Result(figures, ClassFigures("IoU by class", legend, {"IoU": per_class}, share=shares))}


def detection():
    """An answer to another question, with units of its own."""
    figures = [
        Figure("map", "mAP", 0.25, meaning="mean average precision", group="Boxes", is_headline=True),
        Figure("ate", "ATE", 0.7, "m", meaning="distance of centres.", group="Boxes", higher_is_better=False),
    ]
    legend = Legend(("car", "bus"), ((0, 0, 200), (200, 0, 0)))
    columns = {"AP": {"car": 0.5, "bus": 0.1}, "ATE": {"car": 0.4, "bus": None}, "boxes": {"car": 1234.0, "bus": 5.0}}
    classes = ClassFigures("AP by class", legend, columns, units={"ATE": "m", "boxes": "count"}, published={"car": 0.6, "bus": 0.2})
    return {"detection": Result(figures, classes)}


def full():
    losses = [{"step": s, "loss": 3 / (s + 1), "losses": {"occupancy": 2 / (s + 1), "depth": 1 / (s + 1)}, "lr": 1e-3} for s in range(40)]
    return ReportData(
        "A small network",
        {"model": scores(share=True), "blind prior": scores(0.25), "black images": scores(0.1)},
        {"blind prior": "never looks"},
        ["covered: a third of the voxels"],
        [panel(0), panel(5, "scene-0002")],
        losses,
        json.dumps({"name": "flashocc-tiny", "lr": 0.002}, indent=2),
        {"Steps": "1,630", "Machine": "2 CPU cores"},
        picture_size=SMALL,
    )


@pytest.fixture(scope="module")
def full_text():
    return report_html(full())


def test_a_full_report_is_one_file_with_pictures_beside_it(tmp_path):
    path = write_report(full(), tmp_path / "deep" / "report")
    assert path.name == "report.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "sample-1.png", "sample-2.png"]
    for picture in path.parent.glob("*.png"):
        with Image.open(picture) as image:
            image.load()
            assert image.width == 1600
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for section in ("samples", "results", "classes", "curves", "run"):
        assert section in page.ids
    assert len(set(page.ids)) == len(page.ids)
    for words in ("A small network", "Six images in", "blind prior", "never looks", "1,630", "flashocc-tiny", "front left"):
        assert words in page.words
    for name, group, _ in NAMES:
        assert f"{name} what {name} means" in page.words
        assert group in page.words
    assert "F-score" not in page.words, "a figure without a group is for tables only"
    assert "covered: a third of the voxels" in page.words
    assert "share" in page.words
    assert "1.0 %" in page.words
    for name in OCC3D_CLASSES[:-1]:
        assert name.replace("_", " ") in page.words


def test_nothing_comes_from_elsewhere(full_text):
    text, page = full_text, Page(full_text)
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "srcset", "data", "action"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_embedded_pictures_decode(full_text):
    addresses = [attrs["src"] for tag, attrs in Page(full_text).tags if tag == "img"]
    # per sample: a thumbnail, six cameras, and two tabs of five pictures
    assert len(addresses) == 2 * (1 + 6 + 2 * 5)
    for address in addresses:
        head, _, body = address.partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as image:
            image.load()


def test_every_switch_has_its_target(full_text):
    text, page = full_text, Page(full_text)
    radios = [attrs["id"] for tag, attrs in page.tags if tag == "input"]
    labels = [attrs["for"] for tag, attrs in page.tags if tag == "label"]
    assert sorted(radios) == sorted(labels) == ["s0", "s0q0t0", "s0q0t1", "s1", "s1q0t0", "s1q0t1"]
    checked = [attrs["id"] for tag, attrs in page.tags if tag == "input" and "checked" in attrs]
    assert checked == ["s0", "s0q0t0", "s1q0t0"]
    for radio in radios:
        assert f"{radio}v" in page.ids
        assert f"#{radio}:checked ~ #{radio}v" in text


def test_best_values_are_marked_and_missing_ones_named():
    worse = scores(RayIoU=math.nan, mIoU=0.01)
    text = report_html(ReportData("t", results={"model": worse, "blind prior": scores(0.25)}))
    row = re.search(r"<tr><th>mIoU.*?</tr>", text).group()
    assert re.findall(r'class="n( best)?(?: na)?"><span>([^<]*)', row) == [("", "1.00"), (" best", "2.50")]
    row = re.search(r"<tr><th>RayIoU<small>.*?</tr>", text).group()
    assert re.findall(r'class="n[^"]*"><span>([^<]*)', row)[0] == "n/a"
    assert "best" not in row  # alone, there is nothing to be better than
    bicycle = re.search(r"<tr><th><i[^>]*></i>bicycle</th>.*?</tr>", text).group()
    assert re.findall(r"<span>([^<]*)</span></td>", bicycle) == ["n/a", "n/a"]
    assert "nan" not in Page(text).words.lower()


def test_the_headline_says_how_far_above_the_prior(full_text):
    assert Page(full_text).words.count("×4.0 the blind prior") == 3
    alone = Page(report_html(ReportData("t", results={"model": scores()})))
    assert "×" not in alone.words
    assert "the blind prior" not in alone.words


def test_names_are_escaped():
    evil = '<script>alert("x")</script>&'
    figures = [Figure(evil, evil, 0.5, meaning=evil, group=evil, is_headline=True), Figure("u", evil, 0.5, unit=evil, group=evil)]
    classes = ClassFigures(evil, Legend((evil,), ((1, 2, 3),)), {evil: {evil: 0.5}, "b": {evil: 0.5}}, units={"b": evil})
    legend = Legend((evil, *LEGEND.names[1:]), LEGEND.colours)
    question = Question(evil, [replace(layer(volume(0)), legend=legend)])
    report = ReportData(
        evil,
        {evil: {evil: Result(figures, classes)}, "b" + evil: {"other": Result(figures, classes)}},
        {evil: evil},
        [evil],
        [panel(title=evil, images=[(evil, np.zeros((8, 8, 3), np.uint8))], questions=[question, question])],
        [{"step": s, "loss": 1.0, "losses": {evil: 1.0, "b": 0.5}} for s in range(3)],
        evil,
        {evil: evil},
        picture_size=SMALL,
    )
    text = report_html(report)
    assert "<script" not in text.lower()
    assert "&lt;" in text
    assert all(tag != "script" for tag, _ in Page(text).tags)


@pytest.mark.parametrize(
    ("report", "present"),
    [
        (ReportData("nothing"), set()),
        (ReportData("pictures only", panels=[panel(truth=False)], picture_size=SMALL), {"samples"}),
        (ReportData("images only", panels=[panel(truth=False, prediction=False)]), {"samples"}),
        (ReportData("no images", panels=[panel(images=())], picture_size=SMALL), {"samples"}),
        (ReportData("numbers", results={"model": {"q": Result([Figure("a", "a", 0.1, group="g")])}}), {"results"}),
        (ReportData("one line", losses=[{"step": 1, "loss": 1.0}]), set()),
        (ReportData("odd lines", losses=[{"step": 1}, {"note": "x"}, {"step": 2, "loss": None}], recipe="{}"), {"run"}),
        (ReportData("per class without share", results={"m": {"q": Result([], scores()["occupancy"].classes)}}), {"classes"}),
        (ReportData("figures of tables only", results={"m": {"q": Result([Figure("a", "a", 0.1)])}}), set()),
    ],
    ids=lambda value: value.title if isinstance(value, ReportData) else "",
)
def test_missing_parts_leave_their_sections_out(report, present, tmp_path):
    page = Page(write_report(report, tmp_path).read_text(encoding="utf-8"))
    assert {"samples", "results", "classes", "curves", "run"} & set(page.ids) == present
    assert report.title in page.words
    assert "None" not in page.words


def test_a_prediction_alone_has_no_tabs():
    page = Page(report_html(ReportData("t", panels=[panel(truth=False)], picture_size=SMALL)))
    assert "Truth" not in page.words
    assert "Prediction from above" in page.words
    assert not [1 for tag, attrs in page.tags if tag == "input" and attrs["name"] != "sample"]


def test_several_questions_of_one_sample():
    """Occupancy and boxes lie one below the other, each under its heading and with its colours."""
    page = Page(report_html(ReportData("t", panels=[panel(boxes=True)], picture_size=SMALL)))
    order = [
        page.words.index(words) for words in ("Occupancy", "Prediction from above", "vegetation", "Detection", "Predicted boxes from above")
    ]
    assert order == sorted(order)
    assert "Six images in, occupancy and detection out." in page.words
    assert [attrs["id"] for tag, attrs in page.tags if tag == "input"] == ["s0", "s0q0t0", "s0q0t1"], "boxes need no tabs"
    headings = [tag for tag, _ in page.tags].count("h4")
    assert headings == 2
    alone = Page(report_html(ReportData("t", panels=[panel()], picture_size=SMALL)))
    assert "h4" not in [tag for tag, _ in alone.tags], "one question needs no heading"


def test_figures_of_several_questions():
    model = {**scores(), **detection()}
    page = Page(report_html(ReportData("t", results={"model": model, "blind prior": scores(0.25)})))
    text = report_html(ReportData("t", results={"model": model, "blind prior": scores(0.25)}))
    row = re.search(r"<tr><th>ATE.*?</tr>", text).group()
    assert re.findall(r'class="n[^"]*"><span>([^<]*)', row) == ["0.7000 m", "n/a"]
    assert "distance of centres; lower is better" in row
    assert "Percent where there is no unit" in page.words
    assert "AP by class." in page.words
    car = re.findall(r"<tr><th><i[^>]*></i>car</th>.*?</tr>", text)
    assert len(car) == 2
    assert re.findall(r"<span>([^<]*)</span></td>", car[1]) == ["50.0", "0.400 m", "1,234", "60.0"]
    best = {"model": detection(), "other": {"detection": Result([Figure("ate", "ATE", 0.5, "m", group="Boxes", higher_is_better=False)])}}
    row = re.search(r"<tr><th>ATE.*?</tr>", report_html(ReportData("t", results=best))).group()
    assert re.findall(r'class="n( best)?(?: na)?"><span>([^<]*)', row) == [("", "0.7000 m"), (" best", "0.5000 m")]


def test_a_group_of_rows_is_one():
    """Figures of one group that stand apart in the list are shown under one heading."""
    figures = [Figure(k, k, 0.1, group=g) for k, g in (("a", "Objects"), ("b", "Rays"), ("c", "Objects"))]
    text = report_html(ReportData("t", results={"m": {"q": Result(figures)}}))
    found = re.findall(r'<tr(?: class="group")?><th[^>]*>(\w+)', text)
    assert found == ["Objects", "a", "c", "Rays", "b"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match=r"cannot write .*report.*Choose another output folder"):
        write_report(ReportData("t"), blocked / "report")
