"""Plots: what is drawn, in numbers; SVG that follows the background; names that cannot break out."""

import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from keras_mot.analysis import ActivationRange, DriftReport, Sensitivity, SensitivityRow, TensorDrift, plots
from keras_mot.analysis.plots.sizes import unbeaten
from keras_mot.analysis.plots.style import COLOURS, in_bytes, in_time, is_share, shortened_name
from keras_mot.analysis.plots.weights import levels_of
from keras_mot.analysis.weight_histograms import density_picture, histogram

pytest.importorskip("matplotlib", reason="plots are drawn with Matplotlib, the extra 'plot'")
pytestmark = pytest.mark.backend_independent

EVIL = '<script>alert("$x_1$ & more")</script>'
POINTS = [plots.Point("float", 1000, 0.9, "a"), plots.Point(EVIL, 100, 0.89, "b", True), plots.Point("bad", 200, 0.5)]
RANGES = [
    ActivationRange(EVIL, 8, -1.0, 1.0, False, -2.0, 0.5, -1.5, 0.4, 0.01, 0.75),
    ActivationRange("fixed", 8, 0.0, 1.0, True, 0.0, 1.0, 0.0, 1.0, 0.3, 1.0),
]
DRIFT = DriftReport((TensorDrift(EVIL, 0.1, 0.9, 0.99, 3), TensorDrift("last", 0.1, 1.0, 1.0, 0)))
FOUND = Sensitivity(
    (
        SensitivityRow(EVIL, "sparsity", 0.5, 0.1, 10.0, 0.01, 100, 50),
        SensitivityRow("last", "sparsity", 0.5, 0.0, None, None, 100, 50),
        SensitivityRow("last", "values", 16, 0.2, 3.0, 0.2, 100, 50),
    ),
    "KL divergence",
    64,
)
KERNEL = np.random.default_rng(0).normal(size=(30, 20)).astype("float32")
FIGURES = {
    "front": lambda: plots.front(POINTS, "accuracy", floor=0.8, limit=500),
    "ranges": lambda: plots.ranges(RANGES),
    "drift": lambda: plots.drift(DRIFT),
    "sensitivity": lambda: plots.sensitivity(FOUND),
    "layer_bytes": lambda: plots.layer_bytes({EVIL: 400, "b": 100}, {EVIL: 100, "b": 25}),
    "latencies": lambda: plots.latencies({EVIL: 1.5, "b": 0.01}),
    "weights": lambda: plots.weights(np.round(KERNEL / 0.5) * 0.5, KERNEL, 0.5, 4, title=EVIL),
    "mask": lambda: plots.mask(np.abs(KERNEL) > 1, title=EVIL),
    "training": lambda: plots.training({"sparsity": [0.1, 0.5], "val_accuracy": [0.9, 0.8]}),
}


@pytest.fixture(params=FIGURES)
def figure(request):
    return FIGURES[request.param]()


def texts_of(svg):
    return "".join(ElementTree.fromstring(svg).itertext())


def test_the_svg_is_small_and_follows_the_background(figure):
    svg = plots.svg_of(figure)
    assert len(svg) < 50_000
    assert "prefers-color-scheme: dark" in svg
    bare = re.sub(r"var\(--\w+, #\w{6}\)|<style>.*?</style>", "", svg, flags=re.S)
    for light, _ in COLOURS.values():
        assert light not in bare
    assert "<script" not in svg
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)


def test_letters_stay_text_and_names_stay_names():
    for name, limit in {"drift": 34, "ranges": 26, "latencies": 34, "layer_bytes": 34}.items():
        shown = texts_of(plots.svg_of(FIGURES[name]()))
        assert shortened_name(EVIL, limit) in shown, name
    assert EVIL in texts_of(plots.svg_of(FIGURES["mask"]()))  # as letters, `$` and all


def test_several_on_one_page_share_no_id():
    first, second = (plots.svg_of(FIGURES["front"](), prefix=f"f{number}", standalone=False) for number in (1, 2))
    ids = [re.findall(r'\bid="([^"]*)"', svg) for svg in (first, second)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', first)
    assert used
    assert {name or other for name, other in used} <= set(ids[0])


def test_a_picture_is_written_as_a_whole_or_not_at_all(tmp_path):
    drawn = FIGURES["drift"]()
    for name in ("drift.svg", "drift.png", "drift.pdf"):
        plots.save(drawn, tmp_path / name)
    assert (tmp_path / "drift.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "drift.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match=r"should end in \.svg or \.png or \.pdf"):
        plots.save(drawn, tmp_path / "drift.txt")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["drift.pdf", "drift.png", "drift.svg"]


def test_the_users_settings_of_matplotlib_stay():
    import matplotlib

    matplotlib.rcParams["axes.grid"] = False
    before = dict(matplotlib.rcParams)
    plots.svg_of(FIGURES["weights"]())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("draw", [lambda: plots.front([]), lambda: plots.ranges([]), lambda: plots.latencies({})])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(ValueError, match=r"no candidate|no ranges|No file"):
        draw()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib \(it is the extra 'plot'\)"):
        FIGURES["drift"]()


def test_the_front_is_what_no_other_beats():
    points = [plots.Point(str(n), cost, metric) for n, (cost, metric) in enumerate([(5, 0.9), (3, 0.8), (4, 0.7)])]
    points.append(plots.Point("same size", 5, 0.95))
    assert [point.name for point in unbeaten(points)] == ["1", "same size"]
    assert [point.name for point in unbeaten(points, greater_is_better=False)] == ["1", "2"]


def test_levels_are_the_multiples_of_the_step():
    seen = histogram(np.array([-1.5, 0.0, 0.5, 1.5]), steps=0.5, bits=3)
    assert levels_of(seen).tolist() == [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    assert levels_of(histogram(KERNEL)) is None
    assert levels_of(histogram(KERNEL, steps=1e-4, bits=16)) is None  # too many to be seen


def test_a_histogram_counts_all_values_but_zeros():
    rounded = np.round(KERNEL / 0.02) * 0.02
    seen = histogram(rounded, KERNEL, np.array([0.01, 0.02, 0.05]), 8)
    assert sum(seen.after) == np.count_nonzero(rounded)
    assert sum(seen.before) == KERNEL.size
    assert (seen.step, seen.bits, seen.scales) == (0.02, 8, 3)
    # Bins hold equally many levels each, or every second one would look higher than its neighbours.
    width = seen.edges[1] - seen.edges[0]
    assert width / 0.02 == pytest.approx(round(width / 0.02))
    assert round(width / 0.02) % 2 == 1
    assert (seen.edges[0] / width) % 1 == pytest.approx(0.5)


def test_a_palette_is_each_value_and_how_often_it_is_used():
    seen = histogram(np.array([[0.0, 0.0], [0.5, -1.0], [0.5, 0.5]]))
    assert seen.palette == ((-1.0, 1), (0.0, 2), (0.5, 3))
    assert histogram(np.arange(65.0)).palette == ()


def test_zeros_alone_and_damaged_weights():
    assert sum(histogram(np.zeros((2, 2))).after) == 0
    plots.weights(np.zeros((2, 2)))
    for wrong in (np.zeros((0, 3)), np.array([np.nan])):
        with pytest.raises(ValueError, match="finite"):
            histogram(wrong)


def test_a_mask_is_as_dark_as_its_weights_are_many():
    values = np.array([[1, 0, 1, 1], [0, 0, 0, 1]])
    assert density_picture(values).tolist() == values.tolist()
    assert density_picture(values, (2, 2)).tolist() == [[0.5, 1.0], [0.0, 0.5]]
    assert density_picture(values.T).tolist() == values.tolist()  # lying, not standing
    assert density_picture(np.ones((3, 3, 2, 500))).shape == (18, 192)


def test_a_history_from_a_csv_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,accuracy,unique_values\n0,0.5,16.0\n1,0.75,15.0\n")
    drawn = plots.training(path)
    lines = [line.get_ydata().tolist() for axes in drawn.axes for line in axes.lines]
    assert lines == [[16.0, 15.0], [0.5, 0.75]]


@pytest.mark.parametrize(
    ("history", "options", "words"),
    [
        ({"loss": [1.0]}, {}, "none of 'sparsity', 'unique_values'"),
        ({"sparsity": [1.0], "accuracy": [1.0]}, {"metric": "acuracy"}, "Did you mean 'accuracy'"),
        ("nowhere.csv", {}, "not a file"),
    ],
)
def test_a_history_without_what_is_asked_for(history, options, words):
    with pytest.raises(ValueError, match=words):
        plots.training(history, **options)


def test_a_history_of_another_kind():
    with pytest.raises(TypeError, match="what `fit` returned"):
        plots.training([1, 2])


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0 bytes"), (999, "999 bytes"), (23_821, "23.8 kB"), (999_600, "1 MB")]
)
def test_bytes_for_people(value, words):
    assert in_bytes(value) == words


@pytest.mark.parametrize(("value", "words"), [(0.0504, "50.4 µs"), (3.123, "3.12 ms"), (1500, "1.5 s")])
def test_times_for_people(value, words):
    assert in_time(value) == words


def test_which_metrics_are_shares():
    assert all(map(is_share, ["accuracy", "top5", "accuracy of 'a'", "val_accuracy", "f1", "auc"]))
    assert not any(map(is_share, ["mae", "loss", None, "root_mean_squared_error"]))
