import dataclasses

import keras
import numpy as np
import pytest
from export_helpers import zero_smallest

from keras_mot.export import LiteRTExport, export_litert


def build_two_inputs():
    """A model with a float and an integer input and two named outputs."""
    keras.utils.set_random_seed(0)
    features = keras.Input((24,), name="features")
    ids = keras.Input((3,), dtype="int32", name="ids")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(10, 5)(ids))
    hidden = keras.layers.Dense(64, activation="relu", bias_initializer="ones", name="hidden")(features)
    joined = keras.layers.Concatenate()([hidden, embedded])
    outputs = {
        "value": keras.layers.Dense(1, bias_initializer="ones")(hidden),
        "probability": keras.layers.Dense(4, activation="softmax", bias_initializer="ones")(joined),
    }
    return keras.Model({"ids": ids, "features": features}, outputs)


@dataclasses.dataclass
class Exported:
    model: keras.Model
    result: LiteRTExport


@pytest.fixture(scope="session")
def two_inputs(tmp_path_factory):
    """A pruned model and its export; made once, for on JAX and PyTorch it takes seconds."""
    model = build_two_inputs()
    zero_smallest(model, 0.9)
    path = tmp_path_factory.mktemp("two_inputs") / "model.tflite"
    return Exported(model, export_litert(model, path))


@pytest.fixture
def small_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="first"), keras.layers.Dense(2)])


@pytest.fixture
def two_input_data():
    generator = np.random.default_rng(1)
    return {
        "features": generator.standard_normal((5, 24)).astype("float32"),
        "ids": generator.integers(0, 10, (5, 3)).astype("int32"),
    }
