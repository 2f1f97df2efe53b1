"""Everything once, on one backend, by an installed keras-mot: what must work for a set of versions to be allowed.

It needs no test runner, so that it runs in an environment that holds what a user's does.
"""

import importlib.metadata
import pathlib
import platform
import subprocess
import sys
import tempfile

import keras
import numpy as np
from keras import layers

import keras_mot as kmot

BATCH = 32
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "ai-edge-litert", "numpy")


def versions():
    installed = reversed(list(importlib.metadata.distributions()))  # the first on the path is the one in use
    found = {each.name.lower().replace("_", "-"): each.version for each in installed}
    return ", ".join(f"{name} {found[name]}" for name in PACKAGES if name in found)


def installation():
    """A package as a user has it: not the checkout, with its marker of types, and with nothing beside it."""
    assert pathlib.Path(kmot.__file__).is_relative_to(sys.prefix), kmot.__file__
    files = [file for file in importlib.metadata.files("keras-mot") if file.parts[0] != ".."]  # ".." leads to scripts
    assert any(file.name == "py.typed" for file in files)
    strangers = {file.parts[0] for file in files if not file.parts[0].startswith("keras_mot")}
    assert not strangers, strangers
    assert importlib.metadata.version("keras-mot") == kmot.__version__


def data():
    """(x, y): images with a bright row that says the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 256)
    x = rng.normal(0, 0.1, (256, 8, 8, 1)).astype("float32")
    x[np.arange(256), 2 * y] += 1
    return x, y.astype("int32")


def network():
    """A convolutional network with batch normalization and a merge."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)])
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    hidden = layers.Dense(16, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-4))(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(hidden))


def train(model, x, y, epochs=1):
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def saved_and_loaded(model, folder, x):
    """The model after a round trip, which must not change what it computes, nor what it is."""
    model.save(folder / "saved.keras")
    loaded = keras.models.load_model(folder / "saved.keras")
    np.testing.assert_allclose(predicted(loaded, x), predicted(model, x), rtol=1e-5, atol=1e-5)
    assert [type(layer).__name__ for layer in loaded.layers] == [type(layer).__name__ for layer in model.layers]
    return loaded


def predicted(model, x):
    return model.predict(x, verbose=0)


def kernel_of(model):
    return keras.ops.convert_to_numpy(model.layers[-2].kernel)


def pruning_and_clustering(model, x, y, folder):
    pruned = train(kmot.sparsity.prune_low_magnitude(model, kmot.sparsity.PolynomialDecay(0.2, 0.75, 0, 8)), x, y, 2)
    pruned = train(saved_and_loaded(pruned, folder, x), x, y)
    assert np.mean(kernel_of(kmot.sparsity.strip_pruning(pruned)) == 0) >= 0.74
    clustered = train(kmot.clustering.cluster_weights(pruned, 8), x, y)
    stripped = kmot.clustering.strip_clustering(saved_and_loaded(clustered, folder, x))
    assert len(np.unique(kernel_of(stripped))) <= 8
    assert np.mean(kernel_of(stripped) == 0) >= 0.74
    np.testing.assert_allclose(predicted(stripped, x), predicted(clustered, x), rtol=1e-5, atol=1e-5)
    return clustered


def quantization(model, clustered, x, y, folder):
    quantized = {
        "after training": kmot.quantization.quantize_post_training(model, calibration_data=x[:64]),
        "clustered": kmot.quantization.quantize_post_training(clustered, calibration_data=x[:64]),
        "in training": train(kmot.quantization.quantize_model(model, calibration_data=x[:64]), x, y),
    }
    return {name: saved_and_loaded(each, folder, x) for name, each in quantized.items()}


def recurrent_and_attention(folder):
    """Layers whose inner workings change most between versions of Keras; pruned and stripped."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(64, 5, 6)).astype("float32"), rng.integers(0, 3, 64)
    inputs = keras.Input((5, 6))
    sequence = layers.Bidirectional(layers.GRU(4, return_sequences=True))(layers.LSTM(6, return_sequences=True)(inputs))
    attended = layers.MultiHeadAttention(2, 4)(sequence, sequence)
    outputs = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(attended))
    half = kmot.sparsity.ConstantSparsity(0.5, 0)
    pruned = train(kmot.sparsity.prune_low_magnitude(keras.Model(inputs, outputs), half), x, y)
    stripped = kmot.sparsity.strip_pruning(saved_and_loaded(pruned, folder, x))
    assert 0.45 < kmot.analysis.sparsity(stripped) < 0.55
    return stripped, x


def check_file(model, x, path, integers):
    """The file computes what the model does; a quantized one in integers alone."""
    result = kmot.export.export_litert(model, path, strict=integers)
    (outputs,) = kmot.export.LiteRTRunner(path).run(x[:32]).values()
    np.testing.assert_allclose(outputs, predicted(model, x[:32]), atol=0.02 if integers else 1e-4)
    assert (result.weights == "integer") is integers


def recipe(model, x, y, folder):
    taught = kmot.recipes.FineTune(1, 1e-3, batch_size=BATCH)
    stages = [kmot.recipes.Prune(0.5, fine_tune=taught), kmot.recipes.QuantizeAware(fine_tune=taught)]
    result = kmot.compress(
        model, kmot.recipes.Recipe(stages, "smoke"), (x, y), (x, y), output_dir=folder / "run", progress=False
    )
    assert result.artifact.is_file()
    assert result.ratio > 1


def commands(model, folder):
    """The command line of the installation, in processes of their own."""
    program = pathlib.Path(sys.executable).with_name("keras-mot")
    path = folder / "model.keras"
    model.save(path)
    for command in ([program, "--version"], [program, "inspect", path], [sys.executable, "-m", "keras_mot", "--help"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main():
    """Runs everything, and prints the versions that it ran with."""
    keras.utils.set_random_seed(0)
    backend = keras.backend.backend()
    installation()
    x, y = data()
    model = train(network(), x, y, 4)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        clustered = pruning_and_clustering(model, x, y, folder)
        quantized = quantization(model, clustered, x, y, folder)
        sequences, sequence_data = recurrent_and_attention(folder)
        check_file(quantized["clustered"], x, folder / "clustered.tflite", True)
        if backend == "tensorflow":  # elsewhere each file takes a second process, which does the same
            check_file(model, x, folder / "float.tflite", False)
            check_file(sequences, sequence_data, folder / "sequences.tflite", False)
            for name in ("after training", "in training"):
                check_file(quantized[name], x, folder / f"{name}.tflite", True)
            commands(model, folder)
        recipe(model, x, y, folder)
    print(f"{backend} passed: Python {platform.python_version()}, {versions()}", flush=True)


if __name__ == "__main__":
    main()
