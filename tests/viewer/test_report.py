"""The report is one file, complete, honest about what is missing, and safe against odd names."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from frustum.errors import DataError
from frustum.types.classes import CAMERAS, OCC3D_CLASSES, OCC3D_FREE
from frustum.viewer.report import ReportData, SamplePanel, Scores, report_html, write_report
from frustum.viewer.report_data import METRICS

SMALL = (40, 60)  # pictures of another size would only take longer
VOID = {"meta", "img", "input", "br", "hr", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests look at."""

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


def panel(seed=0, title="scene-0001", **changes):
    rng = np.random.default_rng(seed)
    parts = {
        "images": [(name, rng.integers(0, 255, (24, 64, 3), np.uint8)) for name in CAMERAS],
        "prediction": volume(seed),
        "truth": volume(seed + 1),
        "mask_camera": rng.random((16, 16, 5)) < 0.8,
        "caption": "rain at dusk",
    }
    return SamplePanel(title, **{**parts, **changes})


def scores(scale=1.0, note=""):
    values = {metric.key: scale * (0.1 + 0.01 * i) for i, metric in enumerate(METRICS)}
    per_class = [scale * 0.02 * i for i in range(18)]
    per_class[2] = math.nan
    return Scores(values, per_class, note)


def full():
    losses = [{"step": s, "loss": 3 / (s + 1), "losses": {"occupancy": 2 / (s + 1), "depth": 1 / (s + 1)}, "lr": 1e-3} for s in range(40)]
    return ReportData(
        "A small network",
        "One sentence.",
        {"model": scores(), "blind prior": scores(0.25, "never looks"), "black images": scores(0.1)},
        [panel(0), panel(5, "scene-0002")],
        losses,
        json.dumps({"name": "flashocc-tiny", "lr": 0.002}, indent=2),
        {"Steps": "1,630", "Machine": "2 CPU cores"},
        [0.01] * 17 + [0.83],
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
    for words in ("A small network", "One sentence.", "blind prior", "never looks", "1,630", "flashocc-tiny", "rain at dusk", "front left"):
        assert words in page.words
    for metric in METRICS:
        assert metric.name in page.words
        assert metric.meaning in page.words
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
    assert sorted(radios) == sorted(labels) == ["s0", "s0t0", "s0t1", "s1", "s1t0", "s1t1"]
    checked = [attrs["id"] for tag, attrs in page.tags if tag == "input" and "checked" in attrs]
    assert checked == ["s0", "s0t0", "s1t0"]
    for radio in radios:
        assert f"{radio}v" in page.ids
        assert f"#{radio}:checked ~ #{radio}v" in text


def test_best_values_are_marked_and_missing_ones_named():
    report = full()
    worse = Scores({**report.results["model"].values, "rayiou": math.nan, "miou_camera": 0.01}, report.results["model"].per_class)
    text = report_html(ReportData("t", results={"model": worse, "blind prior": scores(0.25)}))
    row = re.search(r"<tr><th>mIoU, camera mask.*?</tr>", text).group()
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
    report = ReportData(
        evil,
        evil,
        {evil: scores(note=evil), "b" + evil: scores(0.5)},
        [panel(title=evil, caption=evil, images=[(evil, np.zeros((8, 8, 3), np.uint8))])],
        [{"step": s, "loss": 1.0, "losses": {evil: 1.0, "b": 0.5}} for s in range(3)],
        evil,
        {evil: evil},
        class_names=[evil, *OCC3D_CLASSES[1:]],
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
        (ReportData("pictures only", panels=[panel(truth=None, mask_camera=None)], picture_size=SMALL), {"samples"}),
        (ReportData("images only", panels=[panel(prediction=None, truth=None, mask_camera=None)]), {"samples"}),
        (ReportData("no images", panels=[panel(images=())], picture_size=SMALL), {"samples"}),
        (ReportData("numbers", results={"model": Scores({"miou_camera": 0.1})}), {"results"}),
        (ReportData("one line", losses=[{"step": 1, "loss": 1.0}]), set()),
        (ReportData("odd lines", losses=[{"step": 1}, {"note": "x"}, {"step": 2, "loss": None}], recipe="{}"), {"run"}),
        (ReportData("per class without frequency", results={"m": Scores({}, [0.1] * 18)}), {"classes"}),
    ],
    ids=lambda value: value.title if isinstance(value, ReportData) else "",
)
def test_missing_parts_leave_their_sections_out(report, present, tmp_path):
    page = Page(write_report(report, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert {"samples", "results", "classes", "curves", "run"} & set(page.ids) == present
    assert report.title in page.words
    assert "None" not in page.words


def test_a_prediction_alone_has_no_tabs():
    page = Page(report_html(ReportData("t", panels=[panel(truth=None)], picture_size=SMALL)))
    assert "Truth" not in page.words
    assert "Prediction from above" in page.words
    assert not [1 for tag, attrs in page.tags if tag == "input" and attrs["name"] != "sample"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="report"):
        write_report(ReportData("t"), blocked / "report")
