"""TFMOT's chain of techniques as its tutorials write it, run by keras-mot or by TFMOT itself.

Arguments: a folder with `data.npz` and `model.json`, as `new_speakers.py` writes them; the name of the package that is
imported as `tfmot`; for how many seconds new rows are begun; and the names of the rows.

What is trained is stored in the folder, so that a row that begins with another finds it, also in a later run.
"""

import importlib
import json
import os
import pathlib
import sys
import tempfile
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

# The order is that in which rows can be trained: each says what it begins with.
STARTS = {
    "float": None,
    "float, tuned as long": None,
    "pruned": None,
    "PQAT": "pruned",
    "clustered": None,
    "CQAT": "clustered",
    "pruned, clustered": "pruned",
    "PCQAT": "pruned, clustered",
}
QUANTIZED = ("PQAT", "CQAT", "PCQAT")


class Script:
    """The data, and each line of the tutorials.

    Args:
        keras: Keras 3, or `tf_keras`.
        tfmot: keras-mot, or TFMOT.
        values: dictionary, `model.json`.
        arrays: dictionary, `data.npz`.
    """

    def __init__(self, keras, tfmot, values, arrays):
        self.keras, self.tfmot, self.values, self.arrays = keras, tfmot, values, arrays

    def given(self):
        """The float model, as given."""
        model = rebuilt(self.keras, self.values["layers"], self.arrays["x"].shape[1:])
        model.set_weights([self.arrays[f"weight_{index}"] for index in range(len(self.arrays) - 4)])
        return model

    def fit(self, model, name, callbacks=()):
        recipe = self.values["recipes"][name]
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        options = {"jit_compile": False} if self.keras.__name__ == "keras" else {}
        model.compile(self.keras.optimizers.Adam(recipe["learning_rate"]), loss, metrics=["accuracy"], **options)
        settings = {"batch_size": recipe["batch_size"], "epochs": recipe["epochs"], "callbacks": list(callbacks)}
        model.fit(self.arrays["x"], self.arrays["y"], verbose=2, **settings)
        return model

    def trained(self, row, start):
        """The model of a row, from that which it begins with."""
        sparsity, clustering = self.tfmot.sparsity.keras, self.tfmot.clustering.keras
        combine, clusters = self.tfmot.experimental.combine, self.values["clusters"]
        if row == "float":
            return start
        if row == "float, tuned as long":
            return self.fit(start, "float")
        if row == "pruned":
            recipe = self.values["recipes"]["pruning"]
            steps = recipe["epochs"] * -(-len(self.arrays["y"]) // recipe["batch_size"])
            schedule = sparsity.PolynomialDecay(0.0, self.values["sparsity"], 0, steps // 40 * 20, frequency=20)
            model = sparsity.prune_low_magnitude(start, pruning_schedule=schedule)
            return sparsity.strip_pruning(self.fit(model, "pruning", [sparsity.UpdatePruningStep()]))
        if row == "clustered":
            return clustering.strip_clustering(self.fit(clustering.cluster_weights(start, clusters), "clustering"))
        if row == "pruned, clustered":
            room = f"{self.tfmot.__name__}.python.core.clustering.keras.experimental.cluster"
            cluster = importlib.import_module(room)
            model = cluster.cluster_weights(start, clusters, preserve_sparsity=True)
            return clustering.strip_clustering(self.fit(model, "clustering"))
        scheme = {
            "PQAT": combine.Default8BitPrunePreserveQuantizeScheme,
            "CQAT": lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=False),
            "PCQAT": lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True),
        }[row]()
        annotated = self.tfmot.quantization.keras.quantize_annotate_model(start)
        return self.fit(self.tfmot.quantization.keras.quantize_apply(annotated, scheme), "quantization")

    def file(self, model, row):
        """The `.tflite` file of a model, in integers if it is trained for these."""
        if self.tfmot.__name__ == "keras_mot":
            with tempfile.TemporaryDirectory() as folder:
                options = {} if row in QUANTIZED else {"sparse_encoding": False}
                exported = self.tfmot.export.export_litert(model, pathlib.Path(folder) / "model.tflite", **options)
                return exported.path.read_bytes()
        import tensorflow as tf

        if row in ("CQAT", "PCQAT"):
            model = self.tfmot.experimental.combine.strip_clustering_cqat(model)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if row in QUANTIZED:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()

    def result(self, model, row, seconds):
        """What a model does on the test clips, in the runtime and in Keras."""
        content = self.file(model, row)
        x, y = self.arrays["x_test"], self.arrays["y_test"]
        return {
            "accuracy": float((outputs_of(content, x).argmax(-1) == y).mean()),
            "in Keras": float((model.predict(x, verbose=0).argmax(-1) == y).mean()),
            "bytes": len(content),
            "seconds": round(seconds, 1),
        }


def rebuilt(keras, layers, shape):
    """A sequential model of (name of a layer, its sizes), without its weights."""
    made = [getattr(keras.layers, name)(**sizes) for name, sizes in layers]
    return keras.Sequential([keras.layers.Input(shape), *made])


def outputs_of(content, x):
    """What a `.tflite` file returns for an array of inputs."""
    import tensorflow as tf

    warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated.*")
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


def trained(script, row, folder, prefix):
    """The model of a row and its seconds; what it begins with is trained before, if no run has kept it."""
    start, name = script.given(), STARTS[row]
    if name is not None:
        kept = folder / f"{prefix}{name}.npz"
        if not kept.is_file():
            trained(script, name, folder, prefix)
        with np.load(kept) as weights:
            start.set_weights([weights[key] for key in weights.files])
    before = time.perf_counter()
    script.keras.utils.set_random_seed(script.values["seed"])
    model = script.trained(row, start)
    seconds = time.perf_counter() - before
    if row in STARTS.values():
        np.savez(folder / f"{prefix}{row}.npz", *model.get_weights())
    return model, seconds


def main():
    folder, package, limit, rows = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:]
    started = time.monotonic()
    values = json.loads((folder / "model.json").read_text())
    with np.load(folder / "data.npz") as data:
        arrays = dict(data)
    tfmot = importlib.import_module(package)
    keras = importlib.import_module("keras" if package == "keras_mot" else "tf_keras")
    script, found = Script(keras, tfmot, values, arrays), {}
    for row in rows:
        if time.monotonic() - started > limit:
            break
        model, seconds = trained(script, row, folder, f"{package}, ")
        found[row] = script.result(model, row, seconds)
        print(row, found[row], flush=True)
    print("RESULT " + json.dumps({"rows": found, "version": getattr(tfmot, "__version__", "")}), flush=True)


if __name__ == "__main__":
    main()
