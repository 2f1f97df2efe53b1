"""Draws the pictures of the guides: `KERAS_BACKEND=tensorflow python docs/pictures.py [FOLDER]`.

On scikit-learn's digits, in about two minutes; by default into `docs/pictures`. What is drawn was measured in that run.
"""

import pathlib
import sys
import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_mot
from keras_mot.analysis import activation_ranges, measure_drift, plots
from keras_mot.clustering import cluster_weights, strip_clustering
from keras_mot.export import export_litert
from keras_mot.quantization import INT4_WEIGHTS, INT8, quantize_post_training
from keras_mot.recipes import Cluster, FineTune, Prune, QuantizeAware, Recipe
from keras_mot.sparsity import PolynomialDecay, prune_low_magnitude, strip_pruning


def trained_model(train, test):
    """A small convolutional network for the digits."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv"),
            layers.Conv2D(32, 3, strides=2, activation="relu", name="conv_2"),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="digits",
    )
    compiled(model, 2e-3).fit(*train, batch_size=32, epochs=15, verbose=0)
    print(f"float: {model.evaluate(*test, verbose=0)[1]:.4f}")
    return model


def compiled(model, learning_rate):
    """The model, compiled."""
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def kernel(model, layer="dense"):
    """The kernel of a layer, as its forward pass uses it."""
    for weight in keras_mot.layers.transformed_weights(model):
        if weight.owner.name == layer:
            return keras.ops.convert_to_numpy(weight.effective_value())
    return keras.ops.convert_to_numpy(model.get_layer(layer).kernel)


def pruning(model, train, test):
    """Sparsity over the epochs, beside the accuracy; and the zeros of a kernel."""
    steps = -(-len(train[0]) // 32)
    schedule = PolynomialDecay(0.3, 0.9, begin_step=0, end_step=9 * steps, frequency=steps // 4)
    pruned = compiled(prune_low_magnitude(model, schedule), 1e-3)
    history = pruned.fit(*train, batch_size=32, epochs=12, validation_data=test, verbose=0)
    zeros = kernel(strip_pruning(pruned))
    return {
        "pruning": plots.training(history),
        "mask": plots.mask(zeros, f"dense/kernel: {np.mean(zeros == 0):.0%} zeros"),
    }


def clustering(model, train):
    """The palette of a kernel."""
    clustered = compiled(cluster_weights(model, 16), 3e-4)
    clustered.fit(*train, batch_size=32, epochs=2, verbose=0)
    return {"palette": plots.weights(kernel(strip_clustering(clustered)), kernel(model), title="dense/kernel")}


def quantization(model, train, folder):
    """The levels of a kernel, ranges of activations, and the drift of a file."""
    overrides = {name: INT8 for name in ("^conv$", "^classes$")}
    small = quantize_post_training(model, INT4_WEIGHTS, train[0], overrides=overrides, placement="integer")
    (file,) = (each for each in read(export_litert(small, folder / "small.tflite").path) if each.name == "dense/kernel")
    channel = np.argsort(file.scales.ravel())[file.scales.size // 2]
    levels = plots.weights(
        *(file.floats[channel], kernel(model)[:, channel], file.scales.ravel()[channel], 4),
        title=f"dense/kernel, the weights of output {channel}",
    )
    quantized = quantize_post_training(model, INT8, train[0], placement="integer")
    ranges = plots.ranges(activation_ranges(quantized, train[0][:256]))
    exported = export_litert(quantized, folder / "int8.tflite")
    changed = keras_mot.layers.copy_model(quantized)
    stored = changed.get_layer("conv_2").kernel  # as if it had been trained further after the export
    noise = np.random.default_rng(0).normal(0, 0.02, stored.shape)
    stored.assign(keras.ops.convert_to_numpy(stored) + noise.astype("float32"))
    drift = plots.drift(measure_drift(changed, exported.path, train[0][:64]))
    return {"levels": levels, "ranges": ranges, "drift": drift}


def read(path):
    """The constant tensors of a LiteRT file."""
    from keras_mot._formats import FORMATS

    return list(FORMATS["litert"].functions.parameters(path))


def stages(model, train, test, folder):
    """Accuracy against size of the stages of a recipe."""
    taught = FineTune(epochs=4, learning_rate=1e-3, batch_size=32, schedule="cosine")
    recipe = Recipe(
        [
            Prune(0.8, scope="model", frequency=10, fine_tune=taught),
            Cluster(16, fine_tune=FineTune(2, 2e-4, batch_size=32)),
            QuantizeAware(fine_tune=FineTune(2, 2e-4, batch_size=32)),
        ],
        name="digits",
    )
    result = keras_mot.compress(model, recipe, train, test, output_dir=folder / "run", latency_runs=0, progress=False)
    print(result)
    points = [
        plots.Point(stage.name, stage.zipped_bytes, stage.metric, chosen=stage is result.stages[-1])
        for stage in result.stages
    ]
    return {"front": plots.front(points, result.metric_name)}


def main():
    """Draws all of them."""
    target = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "pictures")
    target.mkdir(exist_ok=True)
    x, y = load_digits(return_X_y=True)
    x, y = x.reshape(-1, 8, 8, 1).astype("float32") / 16, y.astype("int32")
    order = np.random.default_rng(0).permutation(len(x))
    train, test = ((x[part], y[part]) for part in (order[:-360], order[-360:]))
    model = trained_model(train, test)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        drawn = pruning(model, train, test) | clustering(model, train) | quantization(model, train, folder)
        drawn |= stages(model, train, test, folder)
    for name, figure in drawn.items():
        plots.save(figure, target / f"{name}.svg")
        print(f"{name}.svg: {(target / f'{name}.svg').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
