"""The pictures of the guides: each is there, small, described, made by the library, and shown somewhere."""

import importlib.util
import pathlib
import re

import pytest

pytestmark = pytest.mark.backend_independent

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
SHOWN = [
    (guide.name, *found)
    for guide in sorted(DOCS.glob("*.md"))
    for found in re.findall(r"!\[(.*?)\]\((.*?)\)", guide.read_text(encoding="utf-8"))
]
LARGEST = 50_000  # bytes


@pytest.mark.parametrize(("guide", "words", "path"), SHOWN)
def test_a_picture_is_small_and_described(guide, words, path):
    file = DOCS / path
    assert 2_000 < file.stat().st_size < LARGEST
    assert len(words) > 20
    text = file.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text  # as `plots.save` writes it
    assert "<script" not in text


def test_every_picture_is_shown_and_drawn_by_the_script():
    shown = {pathlib.Path(path).stem for _, _, path in SHOWN}
    assert {file.stem for file in (DOCS / "pictures").iterdir()} == shown
    assert shown <= set(re.findall(r'"(\w+)": ', (DOCS / "pictures.py").read_text(encoding="utf-8")))


def test_the_script_draws():
    pytest.importorskip("sklearn", reason="the pictures are drawn on scikit-learn's digits, the extra 'demo'")
    pytest.importorskip("matplotlib", reason="plots are drawn with Matplotlib, the extra 'plot'")
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    x, y = script.load_digits(return_X_y=True)
    data = x[:128].reshape(-1, 8, 8, 1) / 16, y[:128]
    model = script.trained_model(data, data)
    drawn = script.pruning(model, data, data) | script.clustering(
        model, data
    )  # the others need exports, and take longer
    assert sorted(drawn) == ["mask", "palette", "pruning"]
    sparsity = drawn["pruning"].axes[0].lines[0].get_ydata()
    assert sparsity[-1] == pytest.approx(0.9, abs=0.01)
    assert len(drawn["palette"].axes[0].lines[0].get_xdata()) == 16
