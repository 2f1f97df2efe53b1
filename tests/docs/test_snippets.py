"""Every Python snippet of the README and the guides runs, in the order of its document."""

import pathlib
import re

import keras
import numpy as np
import pytest

from keras_mot._packages import is_installed
from keras_mot.graph import kinds
from keras_mot.layers import _weights
from keras_mot.targets import target

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPORTING = {
    "README.md",
    "docs/devices.md",
    "docs/export.md",
    "docs/npu.md",
    "docs/quantization.md",
    "docs/recipes.md",
    "docs/report.md",
    "docs/search.md",
    "docs/tutorial.md",
}  # exports: the conversion is the same from every backend, and is tested elsewhere


TRAINED = []  # the weights of the model, once it was trained


@pytest.fixture
def names():
    """What the documents take for granted: a trained `model` and data."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, 320).astype("int32")
    patterns = generator.random((10, 8, 8, 1))
    x = (patterns[y] + 0.3 * generator.random((320, 8, 8, 1))).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", name="conv2d"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="dense"),
            keras.layers.Dense(10, activation="softmax", name="dense_1"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    if TRAINED:
        model.set_weights(TRAINED)
    else:
        model.fit(x, y, epochs=12, verbose=0)
        TRAINED.extend(model.get_weights())
    batches = [(x[i * 32 : i * 32 + 32], y[i * 32 : i * 32 + 32]) for i in range(10)] * 4
    held_out = {"x_test": x[:64], "y_test": y[:64], "x_validation": x[64:128], "y_validation": y[64:128]}
    return {"model": model, "x_train": x, "y_train": y, "batches": batches, **held_out}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/pruning.md",
        "docs/clustering.md",
        "docs/quantization.md",
        "docs/recipes.md",
        "docs/export.md",
        "docs/npu.md",
        "docs/migration-from-tfmot.md",
        "docs/architecture.md",
        "docs/low_rank.md",
        "docs/report.md",
        "docs/search.md",
        "docs/sensitivity.md",
        "docs/devices.md",
        "docs/goals.md",
        "docs/training.md",
        "docs/tutorial.md",
    ],
)
def test_snippets_run(document, names, backend, tmp_path, monkeypatch):
    if document in EXPORTING and backend != "tensorflow":
        pytest.skip("exports through TensorFlow, which is tested elsewhere")
    monkeypatch.chdir(tmp_path)
    for module, table in ((_weights, "_TABLE"), (kinds, "TABLE"), (target, "_TARGETS")):
        monkeypatch.setattr(module, table, dict(getattr(module, table)))
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    for index, block in enumerate(blocks):
        wanted, needed = re.match(r"# backend: (\w+)", block), re.match(r"# needs: (.+)", block)
        installed = needed is None or all(map(is_installed, needed[1].split(", ")))
        if installed and (wanted is None or wanted[1] == backend):
            exec(compile(block, f"{document}[{index}]", "exec"), names)
    assert blocks or document != "README.md"
