"""The protocol of the step time benchmarks for TFMOT, run by the interpreter of an environment that has it.

Arguments: data folder, steps, rounds, technique ("prune" or "cluster"; "prune" if it is left out).
"""

import json
import os
import pathlib
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

BATCH = 128


def saved_weights(path):
    """The weights of the Keras 3 model, layer by layer."""
    import io
    import zipfile

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        names = ("conv2d", "conv2d_1", "dense", "dense_1")
        return [file[f"layers/{name}/vars/{index}"][()] for name in names for index in (0, 1)]


def plain_model(weights):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.set_weights(weights)
    return model


def pruned(weights):
    """The models pruned at 90 %, by the frequency of their mask updates."""
    sparsity = tfmot.sparsity.keras
    models = {}
    for frequency in (100, 10):
        schedule = sparsity.ConstantSparsity(0.9, begin_step=0, frequency=frequency)
        models[str(frequency)] = sparsity.prune_low_magnitude(plain_model(weights), pruning_schedule=schedule)
    return models


def clustered(weights):
    """The models with 16 and 64 clusters."""
    keras_clustering = tfmot.clustering.keras
    start = keras_clustering.CentroidInitialization.KMEANS_PLUS_PLUS
    return {str(n): keras_clustering.cluster_weights(plain_model(weights), n, start) for n in (16, 64)}


def main():
    folder, steps, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with np.load(folder / "mnist/mnist.npz") as data:
        order = np.random.RandomState(0).permutation(60000)[: steps * BATCH]
        x, y = data["x_train"][order][..., None] / np.float32(255), data["y_train"][order].astype("int32")
    weights = saved_weights(folder / "mnist/mnist_cnn.keras")
    clustering = sys.argv[4:] == ["cluster"]
    models = {"plain": plain_model(weights), **(clustered(weights) if clustering else pruned(weights))}

    ends = []  # `fit` itself may wait long for its input pipeline
    clock = keras.callbacks.LambdaCallback(on_train_end=lambda logs: ends.append(time.perf_counter()))

    def fit(name, count):
        callbacks = [clock] if name == "plain" or clustering else [clock, tfmot.sparsity.keras.UpdatePruningStep()]
        models[name].fit(x[:count], y[:count], batch_size=BATCH, epochs=1, verbose=0, callbacks=callbacks)

    for name, model in models.items():
        model.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
        fit(name, 12 * BATCH)
    seconds = {name: [] for name in models}
    for _ in range(rounds):
        for name in models:
            started = time.perf_counter()
            fit(name, steps * BATCH)
            seconds[name].append(ends[-1] - started)
    versions = {"tensorflow_model_optimization": tfmot.__version__, "tf_keras": keras.__version__}
    print("RESULT " + json.dumps({"seconds": seconds, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
