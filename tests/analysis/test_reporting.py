"""The report: its words and numbers, the page that cannot be broken into, its size, what happens when it fails."""

import dataclasses
import html.parser
import json
import math
import sys

import keras
import numpy as np
import pytest

from keras_mot import analysis
from keras_mot._version import __version__
from keras_mot.analysis.plots.style import printable
from keras_mot.analysis.reporting import measured
from keras_mot.analysis.reporting.advice import advice_for
from keras_mot.analysis.reporting.contents import Variant
from keras_mot.analysis.reporting.kernels import kernel_changes
from keras_mot.analysis.reporting.markup import prose, tag, text
from keras_mot.analysis.reporting.words import details, headline, told
from keras_mot.export.litert.litert_file import ConstantTensor, along
from tests.report_cases import EVIL, FIGURES, LONG, tensors, whole_report

pytest.importorskip("matplotlib", reason="reports are drawn with Matplotlib, the extra 'plot'")


class Page(html.parser.HTMLParser):
    """The elements of a page, its ids, what it would load, and its text."""

    EMPTY = ("meta", "img", "wbr")

    def __init__(self, source):
        super().__init__()
        self.elements, self.ids, self.loaded, self.open, self.text, self.labels = [], [], [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.labels += [attributes["aria-label"]] if "aria-label" in attributes else []
        self.loaded += [attributes[key] for key in ("src", "href", "xlink:href", "srcset") if key in attributes]
        assert not any(key.startswith("on") for key in attributes), attributes
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.backend_independent
@pytest.mark.parametrize("names", [(), EVIL, (LONG, *EVIL[::-1])], ids=["plain", "evil", "long"])
def test_the_page_is_whole_whatever_names_are(names):
    source = whole_report(names).to_html()
    page = Page(source)
    assert page.open == []
    assert not {"script", "iframe", "link", "object", "form", "base"} & set(page.elements)
    assert len(page.ids) == len(set(page.ids))
    assert all(each.startswith(("#", "data:image/png;base64,")) for each in page.loaded)
    assert {each[1:] for each in page.loaded if each.startswith("#")} <= set(page.ids)
    for figure in FIGURES:
        assert any(figure in label for label in page.labels), figure
    words = "".join(page.text)
    for name in names[:3]:
        assert printable(name) in words  # as text, to the letter
    assert "\x00" not in source
    assert "\u202e" not in source
    assert "default-src 'none'" in source


@pytest.mark.backend_independent
def test_each_name_reaches_the_page_as_text_alone():
    assert text("<b>&'\"") == "&lt;b&gt;&amp;&#x27;&quot;"
    assert tag("p", "<b>", tag("b", "x"), class_='a"b') == '<p class="a&quot;b">&lt;b&gt;<b>x</b></p>'
    assert prose("see `<b>`") == "see <code>&lt;b&gt;</code>"


@pytest.mark.backend_independent
def test_a_model_of_many_layers_has_a_page_of_less_than_two_megabytes(tmp_path):
    report = whole_report(count=300, size=120)
    path = report.save(tmp_path / "report.html")
    assert path.stat().st_size < 2_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert any("histogram" in label for label in page.labels)
    assert "layer_299/kernel" in "".join(page.text)  # in the table, though without a picture


@pytest.mark.backend_independent
def test_the_numbers_are_json(tmp_path):
    report = whole_report(EVIL)
    values = json.loads(report.to_json(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text()) == values
    assert values["variants"][-1]["zipped_bytes"] == 40_000
    assert values["kernels"][0]["name"] == EVIL[0]
    assert values["kernels"][0]["before"]["bytes"] == 4 * values["kernels"][0]["after"]["bytes"] == 6400
    assert values["drift"]["tensors"][0]["within_one"] == 0.93
    assert values["sensitivity"]["measure"] == "KL divergence"
    infinite = dataclasses.replace(report.variants[-1], metric=math.inf)
    told = dataclasses.replace(report, variants=(report.variants[0], infinite)).to_dict()
    assert told["variants"][-1]["metric"] is None


@pytest.mark.backend_independent
def test_a_page_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    report, path = whole_report(), tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"should end in \.html or \.htm"):
        report.save(tmp_path / "report.txt")
    with pytest.raises(ValueError, match="does not exist"):
        report.save(tmp_path / "nowhere" / "report.html")
    monkeypatch.setattr(analysis.plots, "front", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.save(path)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("report.html", "old")]


def variant(zipped, metric, latency, **others):
    return Variant("v", "litert", 2 * zipped, zipped, 0.0, 10, metric, {}, latency, **others)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("before", "after", "metric", "better", "words"),
    [
        ((100, 0.9, 1.0), (10, 0.9, 0.5), "accuracy", True, "10.0 times smaller and 2.0 times faster, at the same"),
        ((100, 0.9, 1.0), (50, 0.88, 1.05), "accuracy", True, "2.0 times smaller and as fast as before, but its accur"),
        ((100, 0.9, 1.0), (50, 0.88, 1.05), "accuracy", True, "accuracy is 2.0 points lower."),
        ((100, 0.9, 1.0), (80, 0.91, 3.0), "accuracy", True, "1.25 times smaller and 3.0 times slower, and its accura"),
        ((100, 0.9, 1.0), (80, 0.91, 3.0), "accuracy", True, "accuracy is 1 point higher."),
        ((100, 2.0, None), (200, 2.5, None), "mae", False, "2.0 times larger, but its mae is 0.5 higher."),
        ((100, 2.0, None), (100, 1.5, None), "mae", False, "as large as before, and its mae is 0.5 lower."),
        ((100, 0.9, 0.001), (50, 0.9, 0.009), "accuracy", True, "is 2.0 times smaller, at the same accuracy."),
        ((100, None, None), (50, None, None), None, True, "smaller; what that costs in quality was not measured."),
        ((100, 0.9, None), (50, math.nan, None), "accuracy", True, "and its accuracy is nan."),
        ((100, 2.0, None), (50, 2.0001, None), "mae", False, "at the same mae."),
    ],
)
def test_the_headline(before, after, metric, better, words):
    assert words in headline(variant(*before), variant(*after), metric, better)


@pytest.mark.backend_independent
def test_how_far_chance_goes():
    lines = details(variant(100, 0.9, 1.0), variant(10, 0.9, 0.5), "accuracy", 400, "LiteRT", False)
    assert "With so many samples, 3.0 points either way may be chance." in lines[1]  # 2 sqrt(0.9 * 0.1 / 400)
    assert told(0.98765, "accuracy") == "98.8%"
    assert told(0.98765, "mae") == "0.9877"


@pytest.mark.backend_independent
def test_what_the_reader_is_told_to_do():
    said = {advice.what: advice for advice in whole_report().advice}
    costs = said["It costs 6.0 points of accuracy."]
    assert "Or take 'name_0': 90.0%, 90 kB zipped." in costs.then
    (drift,) = (advice for what, advice in said.items() if "computes other integers" in what)
    assert drift.serious
    assert next(iter(said.values())) is drift  # the serious come first
    assert any("clips 2.0%" in what and "5 others" in what for what in said)
    assert any("uses 10% of its range" in what for what in said)
    assert any("compute" in what and "in floats" in what for what in said)


@pytest.mark.backend_independent
def test_a_layer_of_zeros_or_without_numbers_is_serious():
    before, after = tensors(1)
    dead = [dataclasses.replace(after[0], values=np.zeros_like(after[0].values))]
    lost = [dataclasses.replace(before[0], values=np.full_like(before[0].values, np.nan))]
    for changed, words in ((dead, "nothing but zeros"), (lost, "holds NaN or infinite values")):
        report = whole_report(kernels=kernel_changes(before, changed))
        said = advice_for({field.name: getattr(report, field.name) for field in dataclasses.fields(report)})
        assert any(words in advice.what and advice.serious for advice in said)
    assert dataclasses.replace(report, advice=said).to_html()


@pytest.mark.backend_independent
def test_which_kernel_was_which():
    def named(*shapes):
        return [ConstantTensor(n, "float32", np.ones(s, "float32"), False, 0) for n, s in shapes]

    before = named(("a/kernel", (4, 3)), ("inner/b/kernel", (5, 2)), ("c", (7, 7)), ("d", (2, 2)), ("e", (2, 2)))
    after = named(("x", (7, 7)), ("b/kernel", (2, 5)), ("a/kernel", (3, 4)), ("y", (2, 2)), ("bias", (3,)))
    rows = {row.name: row.before and row.before.name for row in kernel_changes(before, after, ["a/kernel", "b/kernel"])}
    # By name, by the end of the name, or the only one of its size; of two that it may be, neither is claimed.
    assert rows == {"a/kernel": "a/kernel", "b/kernel": "inner/b/kernel", "x": "c", "y": None}
    assert list(rows)[:2] == ["a/kernel", "b/kernel"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(3, activation="softmax", name="classes"),
        ],
        name="small",
    )


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(40, 6)).astype("float32"), generator.integers(0, 3, 40)


def test_a_report_of_keras_models(model, data, tmp_path):
    pruned = analysis_copy(model)
    report = analysis.report(pruned, {"before": model, "pruned": pruned}, data, tmp_path / "r.html", progress=False)
    assert report.samples == 40
    assert json.loads(report.to_json())["variants"][0]["weights"] == "float32"
    assert [variant.name for variant in report.variants] == ["before", "pruned"]
    assert [(kernel.name, kernel.after.sparsity) for kernel in report.kernels] == [
        ("hidden/kernel", pytest.approx(0.5)),
        ("classes/kernel", 0.0),
    ]
    assert report.kernels[0].before.sparsity == 0.0
    assert "this one computes in floats" in report.missing["Drift"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert report.headline in page
    assert f"Made by keras-mot {__version__}" in page


def analysis_copy(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernel = copy.get_layer("hidden").kernel
    values = np.array(keras.ops.convert_to_numpy(kernel))
    values[np.abs(values) < np.median(np.abs(values))] = 0
    kernel.assign(values)
    return copy


def test_what_is_wrong_is_said_before_any_work(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "measure", lambda *_, **__: pytest.fail("work was begun"))
    files = {"a": model}
    with pytest.raises(ValueError, match=r"should end in \.html"):
        analysis.report(model, files, data, tmp_path / "report.pdf")
    with pytest.raises(TypeError, match="expects a Keras model"):
        analysis.report("model.keras", files, data)
    with pytest.raises(TypeError, match="what `sensitivity` returned"):
        analysis.report(model, files, data, sensitivity={"rows": []})
    with pytest.raises(ValueError, match="gone through once only"):
        analysis.report(model, files, iter([data]))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        analysis.report(model, files, data, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_report_of_integer_files(model, data, tmp_path, backend):
    if backend != "tensorflow":
        pytest.skip("exports through TensorFlow, which is tested elsewhere")
    from keras_mot.export import export_litert
    from keras_mot.quantization import INT8, quantize_post_training

    quantized = quantize_post_training(model, INT8, data[0], placement="integer")
    files = {
        "float": export_litert(model, tmp_path / "float.tflite"),
        "int8": export_litert(quantized, tmp_path / "int8.tflite"),
    }
    found = analysis.sensitivity(model, data[0], sparsity=(0.5,), progress=False)
    report = analysis.report(quantized, files, data, sensitivity=found, latency_runs=2, progress=False)
    assert (report.before.bytes, report.after.bytes) == (files["float"].bytes, files["int8"].bytes)
    assert [(each.before.name, each.bits) for each in report.kernels] == [("hidden/kernel", 8), ("classes/kernel", 8)]
    steps = steps_of(quantized.get_layer("hidden"))  # the levels drawn are those of the file
    assert report.kernels[0].histogram.step == pytest.approx(np.median(steps), rel=1e-5)
    assert report.kernels[0].histogram.scales == 8
    assert ("FULLY_CONNECTED", "int8", 2) in report.operators
    assert len(report.ranges) == len(report.drift.tensors)
    assert report.drift.first_beyond(1) is None
    assert report.after.latency_ms > 0
    page = Page(report.to_html())
    assert all(any(figure in label for label in page.labels) for figure in FIGURES)


def steps_of(layer):
    from keras_mot.layers import transformed_weights
    from keras_mot.transforms import FakeQuantize

    (weight,) = transformed_weights(layer)
    return weight.transform_of(FakeQuantize).scales(keras.ops.convert_to_numpy(weight.variable))


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("scales", "axis", "shape", "expected"),
    [
        ([0.5], 7, (3, 2), (1, 1)),
        (0.5, 0, (3, 2), (1, 1)),
        ([1, 2, 3], 0, (3, 2), (3, 1)),
        ([1, 2], -1, (3, 2), (1, 2)),
        ([1, 2], 0, (3, 2), None),  # as many as no axis has
        ([1, 2], 2, (3, 2), None),
        ([[1, 2], [1, 2], [1, 2]], 1, (3, 4), None),  # of blocks
        ([1.0], 0, (), ()),
    ],
)
def test_scales_along_an_axis(scales, axis, shape, expected):
    found = along(np.array(scales), axis, shape)
    assert (None if found is None else found.shape) == expected
