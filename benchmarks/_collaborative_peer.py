"""The stages of `collaborative_accuracy.py mnist` in TFMOT, run by the interpreter of an environment that has it.

Arguments: data folder, and `--quick` for a run on few samples.
"""

import json
import pathlib
import sys
import tempfile
import time
import zipfile

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from _step_time_peer import BATCH, plain_model, saved_weights
from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as with_sparsity

combine = tfmot.experimental.combine
SEEDING = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
CALIBRATION = 500


class Peer:
    """The data, and what is done with every model.

    Args:
        folder: the data folder.
        quick: whether to use few samples.
    """

    def __init__(self, folder, quick):
        with np.load(folder / "mnist/mnist.npz") as data:
            order = np.random.RandomState(0).permutation(60000)[: 640 if quick else None]
            images = {name: data[name][..., None] / np.float32(255) for name in ("x_train", "x_test")}
            self.x, self.y = images["x_train"][order], data["y_train"][order].astype("int32")
            self.test = images["x_test"][: 500 if quick else None], data["y_test"][: 500 if quick else None]
        self.rows = []

    def trained(self, model, epochs, rate, callbacks=()):
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        started = time.perf_counter()
        model.fit(self.x, self.y, batch_size=BATCH, epochs=epochs, verbose=2, callbacks=list(callbacks))
        return time.perf_counter() - started

    def add(self, name, model, seconds, integers=False):
        """Converts a model, and notes what its file is and does."""
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if integers:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if integers == "after training":
            converter.representative_dataset = lambda: ([x[None]] for x in self.x[:CALIBRATION])
        content = converter.convert()
        row = {"name": f"TFMOT: {name}", "fit_seconds": round(seconds, 1), "bytes": len(content)}
        row |= {"zipped_bytes": zipped(content), "accuracy": self.accuracy(content), **kernels(content)}
        print(row, flush=True)
        self.rows.append(row)

    def accuracy(self, content):
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=2)
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        correct, (x, y) = 0, self.test
        for start in range(0, len(y), 100):
            interpreter.resize_tensor_input(source["index"], x[start : start + 100].shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(source["index"], x[start : start + 100])
            interpreter.invoke()
            correct += (interpreter.get_tensor(result["index"]).argmax(-1) == y[start : start + 100]).sum()
        return correct / len(y)


def zipped(content):
    with tempfile.NamedTemporaryFile() as file:
        with zipfile.ZipFile(file.name, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.writestr("model.tflite", content)
        return pathlib.Path(file.name).stat().st_size


def kernels(content):
    """Zeros, values and entropy of the four kernels."""
    interpreter = tf.lite.Interpreter(model_content=content)
    sizes = (800, 51200, 3211264, 10240)
    found = {}
    for detail in interpreter.get_tensor_details():
        size = int(np.prod(detail["shape"]))
        if size in sizes and len(detail["shape"]) in (2, 4) and size not in found:
            try:
                found[size] = interpreter.get_tensor(detail["index"])
            except ValueError:  # an activation
                continue
    zeros = [float((item == 0).mean()) for item in found.values()]
    counts = [np.unique(item, return_counts=True)[1] / item.size for item in found.values()]
    bits = sum(-(share * np.log2(share)).sum() * item.size for share, item in zip(counts, found.values(), strict=True))
    total = sum(item.size for item in found.values())
    sparsity = sum((item == 0).sum() for item in found.values()) / total
    values = {"sparsity": float(sparsity), "least_sparsity": min(zeros), "values": max(map(len, counts))}
    return {**values, "entropy_bytes": bits / 8}


def main():
    folder = pathlib.Path(sys.argv[1])
    peer = Peer(folder, "--quick" in sys.argv)
    keras.utils.set_random_seed(0)
    weights = saved_weights(folder / "mnist/mnist_cnn.keras")
    peer.add("float", plain_model(weights), 0.0)

    def copied(model):
        return plain_model(model.get_weights())

    def quantized(name, model, scheme, strip=lambda model: model):
        annotated = tfmot.quantization.keras.quantize_annotate_model(copied(model))
        trained = tfmot.quantization.keras.quantize_apply(annotated, scheme)
        seconds = peer.trained(trained, 1, 1e-4)
        peer.add(name, strip(trained), seconds, "trained")

    def clustered(name, model, function, **options):
        wrapped = function(copied(model), 16, SEEDING, **options)
        seconds = peer.trained(wrapped, 1, 1e-4)
        stripped = tfmot.clustering.keras.strip_clustering(wrapped)
        peer.add(name, stripped, seconds)
        peer.add(f"{name}, then int8 after training", stripped, 0.0, "after training")
        return stripped

    steps = -(-len(peer.x) // BATCH) * 2
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.5, 0.9, 0, max(1, steps * 3 // 4), frequency=min(100, steps // 2))
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(plain_model(weights), schedule)
    seconds = peer.trained(wrapped, 2, 1e-3, [tfmot.sparsity.keras.UpdatePruningStep()])
    pruned = tfmot.sparsity.keras.strip_pruning(wrapped)
    peer.add("prune 90 %", pruned, seconds)
    peer.add("prune 90 %, then int8 after training", pruned, 0.0, "after training")
    quantized("prune 90 %, then int8 trained (PQAT)", pruned, combine.Default8BitPrunePreserveQuantizeScheme())
    both = clustered("prune 90 %, cluster 16", pruned, with_sparsity.cluster_weights, preserve_sparsity=True)
    scheme = combine.Default8BitClusterPreserveQuantizeScheme
    name = "prune 90 %, cluster 16, then int8 trained (PCQAT)"
    quantized(name, both, scheme(preserve_sparsity=True), combine.strip_clustering_cqat)
    shared = clustered("cluster 16", plain_model(weights), tfmot.clustering.keras.cluster_weights)
    name = "cluster 16, then int8 trained (CQAT)"
    quantized(name, shared, scheme(preserve_sparsity=False), combine.strip_clustering_cqat)
    print("RESULT " + json.dumps({"rows": peer.rows, "version": tfmot.__version__}, default=float), flush=True)


if __name__ == "__main__":
    main()
