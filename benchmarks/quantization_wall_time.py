"""Seconds of post-training quantization with its export, beside the stock converter's, in turn.

KERAS_BACKEND=tensorflow python benchmarks/quantization_wall_time.py
"""

import pathlib
import statistics
import tempfile
import time

from _common import Table, data_file, environment, write_results
from _common import parser as common_parser

SAMPLES = 40
TARGET = 2.0


def mini_xception():
    """A trained mini-XCEPTION of 58,000 parameters, and images for it."""
    import keras
    import numpy as np

    model = keras.models.load_model(data_file("wild/fer_mini_xception.keras"), compile=False)
    with np.load(data_file("wild/fer_mini_xception.npz")) as arrays:
        return model, arrays["x"][:SAMPLES].astype("float32")


def dilated_network(length=3000):
    """A network over sequences as those that find splice sites: 16 residual blocks of two dilated convolutions."""
    import keras
    import numpy as np
    from keras import layers

    keras.utils.set_random_seed(0)
    inputs = keras.Input((length, 4))
    x = skip = layers.Conv1D(32, 1)(inputs)
    skip = layers.Conv1D(32, 1)(skip)
    for block, (width, dilation) in enumerate([(11, 1)] * 4 + [(11, 4)] * 4 + [(21, 10)] * 4 + [(41, 25)] * 4):
        y = x
        for _ in range(2):
            y = layers.Conv1D(32, width, dilation_rate=dilation, padding="same")(
                layers.ReLU()(layers.BatchNormalization()(y))
            )
        x = layers.Add()([x, y])
        if block % 4 == 3:
            skip = layers.Add()([skip, layers.Conv1D(32, 1)(x)])
    model = keras.Model(inputs, layers.Conv1D(3, 1, activation="softmax")(skip))
    bases = np.random.default_rng(0).integers(0, 4, (12, length))
    return model, np.eye(4, dtype="float32")[bases]


MODELS = {"mini-xception": mini_xception, "dilated": dilated_network}


def stock(model, x, path):
    """Seconds of the stock converter; a dictionary of its one part."""
    import tensorflow as tf

    started = time.perf_counter()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[place : place + 1]] for place in range(len(x)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    path.write_bytes(converter.convert())
    return {"stock": time.perf_counter() - started}


def ours(model, x, path):
    """Seconds of quantization and of the export."""
    from keras_mot.export import export_litert
    from keras_mot.quantization import quantize_post_training

    started = time.perf_counter()
    quantized = quantize_post_training(model, calibration_data=x, progress=False)
    between = time.perf_counter()
    export_litert(quantized, path)
    return {"quantization": between - started, "export": time.perf_counter() - between}


def measure(name, rounds):
    """The medians of the parts over several rounds, and the median ratio of both ways within one."""
    model, x = MODELS[name]()
    found, ratios = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        for number in range(rounds + 1):  # the first loads libraries
            sums = []
            for way in (ours, stock):
                processor = time.process_time()
                parts = way(model, x, path)
                parts[f"{way.__name__} (processor)"] = time.process_time() - processor
                sums.append(sum(list(parts.values())[:-1]))
                for part, seconds in parts.items():
                    found.setdefault(part, []).append(seconds)
            ratios.append(sums[0] / sums[1])
            print(name, number if number else "warm-up", {part: round(s[-1], 2) for part, s in found.items()})
    medians = {part: statistics.median(seconds[1:] or seconds) for part, seconds in found.items()}
    return {"model": name, "seconds": medians, "ratio": statistics.median(ratios[1:] or ratios)}


def main():
    arguments = common_parser(__doc__.splitlines()[0])
    arguments.add_argument("--models", nargs="+", default=["mini-xception"], choices=MODELS)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments = arguments.parse_args()
    results = [measure(name, 1 if arguments.quick else arguments.rounds) for name in arguments.models]
    table = Table(
        f"Post-training quantization and export, seconds (medians); at most {TARGET:g}x the stock converter is asked",
        ("model", "quantization", "export", "stock", "ratio", "ratio of processor time"),
    )
    for result in results:
        seconds = result["seconds"]
        table.add(
            result["model"],
            *(f"{seconds[part]:.2f}" for part in ("quantization", "export", "stock")),
            f"{result['ratio']:.2f}",
            f"{seconds['ours (processor)'] / seconds['stock (processor)']:.2f}",
        )
    write_results(arguments, "quantization_wall_time", {"environment": environment(), "results": results}, [table])


if __name__ == "__main__":
    main()
