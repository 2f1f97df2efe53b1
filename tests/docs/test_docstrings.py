"""Every example in the docstrings of public names runs, with the names that guides take for granted, too."""

import dataclasses
import inspect
import re

import keras
import numpy as np
import pytest
from keras import ops

import keras_mot
import keras_mot as kmot
from keras_mot.graph import kinds
from keras_mot.layers import _weights
from keras_mot.quantization.lowering import table
from keras_mot.targets import target
from tests.docs.test_snippets import names  # noqa: F401

EXPORTING = {"export", "analysis", "recipes"}  # through TensorFlow: the same from every backend


def _examples():
    for room in keras_mot.__all__:
        module = getattr(keras_mot, room)
        for name in getattr(module, "__all__", ()) if inspect.ismodule(module) else [room]:
            thing = getattr(module, name) if inspect.ismodule(module) else module
            own = [(f"{room}.{name}", thing)]
            if inspect.isclass(thing):
                own += [(f"{room}.{name}.{key}", value) for key, value in vars(thing).items() if callable(value)]
            for label, value in own:
                text = inspect.getdoc(value) or ""
                for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.S)):
                    yield pytest.param(label, block, id=f"{label}-{number}" if number else label)


@keras.saving.register_keras_serializable("examples")
class LowRankDense(keras.layers.Layer):
    """What examples call a layer of one's own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.left = self.add_weight(name="left", shape=(input_shape[-1], 2))
        self.right = self.add_weight(name="right", shape=(2, self.units))

    def call(self, inputs):
        return inputs @ self.left @ self.right


class TransposedDense(LowRankDense):
    """Another one."""


class Magnitude(keras.layers.Layer):
    """Another one, without weights."""

    def call(self, inputs):
        return ops.abs(inputs)


class SquaredReLU(Magnitude):
    """And another."""


class Subclassed(keras.Model):
    """A model with a `call` of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def with_lookup():
    inputs = keras.Input((1,), dtype="string")
    ids = keras.layers.StringLookup(vocabulary=["a", "b"])(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Embedding(4, 3)(ids))))
    return {"model": model, "texts": np.array([["a"]], object)}


def for_xnnpack():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.ZeroPadding2D(1)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="valid", activation="relu")(x)
    x = keras.layers.Conv2D(8, 1, activation="relu")(x)
    return {"model": keras.Model(inputs, keras.layers.GlobalAveragePooling2D(keepdims=True)(x))}


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 4), "float32"))
    return {"my_subclassed_model": model}


def quantized(given):
    return kmot.quantization.quantize_post_training(given["model"], calibration_data=given["x"][:64])


def exported(given):
    model = quantized(given)
    kmot.export.export_litert(model, "model.tflite")
    return {"quantized": model}


def for_accelerators(given):
    options = {"input_type": "int8", "output_type": "int8", "batch_size": 1}
    kmot.export.export_litert(quantized(given), "model.tflite", verify=False, **options)
    return {}


def for_npus(given):
    pytest.importorskip("ethosu", reason="the extra `ethos-u` is not installed")
    for name in ("model", "pruned"):
        made = kmot.quantization.quantize_post_training(given[name], calibration_data=given["x"][:64], target="ethos-u")
        path = f"{name.replace('model', 'dense')}.tflite"
        kmot.export.export_litert(made, path, verify=False, compiled=False)
    return {}


SPECIAL = {
    "analysis.check": for_accelerators,
    "analysis.ethos_u": for_npus,
    "graph.split_preprocessing": lambda given: with_lookup(),
    "graph.register_kind": lambda given: {"Magnitude": Magnitude, "SquaredReLU": SquaredReLU},
    "layers.update_step": lambda given: {"model": given["pruned"]},
    "update_step.update_step": lambda given: {"model": given["pruned"]},
    "graph.trace": lambda given: subclassed(),
    "sparsity.PruneForLatencyOnXNNPack": lambda given: for_xnnpack(),
    "analysis.measure_drift": exported,
    "export.LiteRTRunner": exported,
    "recipes.CompressionResult.best": lambda given: {
        "result": kmot.compress(given["model"], "int8", (given["x"], given["y"]), (given["x"], given["y"]))
    },
}
"""What some examples take for granted beside the rest."""
ELSEWHERE = {"recipes.search": "docs/search.md has shorter searches, which run"}


@pytest.fixture
def given(names):  # noqa: F811
    """A model with the layers that examples speak of, data, and models in training."""
    x, y = names["x_train"], names["y_train"]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, name="stem"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="dense"),
            keras.layers.Dense(10, activation="softmax", name="classifier"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    pruned = kmot.sparsity.prune_low_magnitude(model, kmot.sparsity.ConstantSparsity(0.5, 0))
    kmot.sparsity.update_pruning_step(pruned)
    clustered = kmot.clustering.cluster_weights(model, 8)
    for each in (pruned, clustered):
        each.compile("adam", "sparse_categorical_crossentropy")
    more = {"x": x, "y": y, "x_val": names["x_validation"], "y_val": names["y_validation"], "texts": None}
    more |= {"model": model, "pruned": pruned, "clustered": clustered, "train_step": lambda x, y: None}
    more |= {"schedule": kmot.sparsity.ConstantSparsity(0.5, 0), "my_subclassed_model": None}
    return {**names, **more, "LowRankDense": LowRankDense, "TransposedDense": TransposedDense}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("label", "example"), list(_examples()))
def test_example(label, example, given, backend, tmp_path, monkeypatch):
    room = label.partition(".")[0]
    if (room in EXPORTING or "export_litert(" in example) and backend != "tensorflow":
        pytest.skip("exports through TensorFlow, which is tested elsewhere")
    if label in ELSEWHERE:
        pytest.skip(ELSEWHERE[label])
    monkeypatch.chdir(tmp_path)
    tables = ((_weights, "_TABLE"), (kinds, "TABLE"), (target, "_TARGETS"), (table, "_LAYERS"))
    for module, attribute in tables:
        monkeypatch.setattr(module, attribute, dict(getattr(module, attribute)))
    namespace = {}
    for each in (*keras_mot.__all__, room):
        public = getattr(keras_mot, each)
        namespace |= {name: getattr(public, name) for name in getattr(public, "__all__", ())}
    namespace |= {"keras": keras, "layers": keras.layers, "ops": ops, "np": np, "dataclasses": dataclasses}
    if re.search(r"\bquantized\b", example) and "quantized =" not in example:
        namespace["quantized"] = quantized(given)
    namespace |= {"keras_mot": keras_mot, "kmot": kmot, **given, **SPECIAL.get(label, lambda given: {})(given)}
    exec(compile(example, "example", "exec"), namespace)
