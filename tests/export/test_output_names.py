"""A quantized model and its file have outputs of the same names as the model that the user wrote."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import export_litert
from keras_mot.layers.copying import copy_model
from keras_mot.quantization import INT8, INT16X8, quantize_model, quantize_post_training, strip_quantization

X = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
LABELS = {"cls": np.zeros(16), "reg": np.ones((16, 2))}
LOSSES = {"cls": "sparse_categorical_crossentropy", "reg": "mse"}


def heads():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), name="x")
    hidden = layers.Dense(8, activation="relu", name="hidden")(inputs)
    return inputs, layers.Dense(3, activation="softmax", name="cls")(hidden), layers.Dense(2, name="reg")(hidden)


def listed():
    inputs, cls, reg = heads()
    return keras.Model(inputs, [cls, reg])


def keyed():
    inputs, cls, reg = heads()
    return keras.Model(inputs, {"probability": cls, "value": reg})


def nested():
    inputs, cls, reg = heads()
    return keras.Model(inputs, {"first": [cls, reg]})


def twice():
    inputs, cls, reg = heads()
    return keras.Model(inputs, [cls, reg, cls])


def with_input():
    inputs, cls, reg = heads()
    return keras.Model(inputs, [inputs, cls, reg])


def sequences():
    """Outputs of dense layers on sequences, which are steps between reshapes; one of them is called twice."""
    inputs = keras.Input((4,), name="x")
    sequence = layers.Reshape((2, 2))(inputs)
    hidden = layers.Dense(2, name="tags")(sequence)
    return keras.Model(inputs, [hidden, layers.Dense(3, name="words")(hidden)])


def of_one_grid():
    """Outputs that have the same quantization parameters as what they are put together from."""
    inputs = keras.Input((4,), name="x")
    halves = keras.ops.split(layers.Dense(4)(inputs), 2, axis=-1)
    pair, swapped = layers.Concatenate(name="pair")(halves), layers.Concatenate(name="swapped")(halves[::-1])
    return keras.Model(inputs, {"a": pair, "b": [swapped]})


def gelus():
    """Outputs of activations without a kernel for 16 bits."""
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, [layers.Dense(2, activation="gelu", name=name)(inputs) for name in ("first", "second")])


def from_models():
    """Outputs that Keras calls after models within the model."""
    inputs = keras.Input((4,), name="x")
    parts = []
    for name, units in (("cls", 3), ("reg", 2)):
        inner = keras.Input((4,))
        parts.append(keras.Model(inner, layers.Dense(units, name=f"{name}_dense")(inner), name=name)(inputs))
    return keras.Model(inputs, parts)


def test_a_dictionary_of_losses():
    quantized = quantize_model(listed())
    assert quantized.output_names == ["cls", "reg"]
    assert quantized.get_layer("cls").kernel.shape == (8, 3)
    quantized.compile("sgd", loss=LOSSES)
    history = quantized.fit(X, LABELS, verbose=0).history
    assert {"cls_loss", "reg_loss"} <= set(history)


def test_a_single_output():
    inputs, cls, _ = heads()
    quantized = quantize_model(keras.Model(inputs, cls))
    quantized.compile("sgd", loss={"cls": "sparse_categorical_crossentropy"})
    assert np.isfinite(quantized.fit(X, LABELS["cls"], verbose=0).history["loss"]).all()


@pytest.mark.parametrize(
    ("make", "scheme"),
    [(sequences, INT8), (of_one_grid, INT8), (gelus, INT16X8)],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_names_of_outputs_that_no_quantizer_has_to_itself(make, scheme, tmp_path):
    model = make()
    quantized = quantize_model(model, scheme, calibration_data=X)
    assert quantized.output_names == model.output_names
    losses = {name: "mse" for name in model.output_names}
    labels = dict(zip(model.output_names, keras.tree.flatten(model.predict(X, verbose=0)), strict=True))
    if isinstance(model.output, list):
        quantized.compile("sgd", loss=losses)
        quantized.fit(X, labels, verbose=0)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.output_names == copy_model(quantized).output_names == model.output_names
    np.testing.assert_array_equal(*(keras.tree.flatten(one.predict(X, verbose=0))[0] for one in (loaded, quantized)))
    assert all(type(layer).__module__.startswith("keras.") for layer in strip_quantization(quantized).layers)


def test_names_are_kept_in_copies_and_files(tmp_path):
    quantized = quantize_post_training(listed(), calibration_data=X)
    assert copy_model(quantized).output_names == ["cls", "reg"]
    quantized.compile("sgd", loss=LOSSES)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.output_names == ["cls", "reg"]
    assert np.isfinite(loaded.evaluate(X, LABELS, verbose=0)).all()
    assert strip_quantization(quantized).output_names[1] == "reg"


MAKERS = (listed, keyed, nested, twice, with_input, sequences, of_one_grid, from_models)


@pytest.mark.parametrize("make", MAKERS, ids=lambda f: f.__name__)
def test_names_in_the_file(make, tmp_path, backend):
    if backend != "tensorflow":
        pytest.skip("what concerns files alone is tested on TensorFlow")
    model = make()
    quantized = quantize_post_training(model, INT8, X)
    expected = export_litert(model, tmp_path / "float.tflite").output_names
    result = export_litert(quantized, tmp_path / "integer.tflite")
    assert result.output_names == expected
    received, simulated = result.run(X), quantized.predict(X, verbose=0)
    keras.tree.assert_same_structure(received, simulated)
    for one, other in zip(keras.tree.flatten(received), keras.tree.flatten(simulated), strict=True):
        np.testing.assert_allclose(one, other, atol=0.02)


def test_names_in_files_of_other_backends(tmp_path, backend):
    result = export_litert(quantize_post_training(listed(), INT8, X), tmp_path / "model.tflite")
    assert result.output_names == ("cls", "reg")
