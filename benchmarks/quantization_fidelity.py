"""Whether integer files compute what the Keras simulation computes, for architectures with random and trained weights.

KERAS_BACKEND=tensorflow python benchmarks/quantization_fidelity.py
KERAS_BACKEND=tensorflow python benchmarks/quantization_fidelity.py --trained --samples 500
"""

import os
import pathlib
import tempfile
import time

import keras
import numpy as np
from _common import Table, environment, write_results
from _common import parser as common_parser
from quantization_accuracy import CALIBRATION, TASKS

from keras_mot._keras import no_gradients
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import enum_name, operator_codes, parse_model
from keras_mot.layers.activation_quantizer import activation_quantizers, intercepted
from keras_mot.quantization import INT8, INT16X8, quantize_post_training, reference_rounding

MOVED = 0.005
SIZES = {"InceptionV3": 96, "Xception": 96, "NASNetMobile": 64, "NASNetMobile224": 224}
MODELS = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50", "ResNet50V2", "InceptionV3", "Xception"),
    *("NASNetMobile", "EfficientNetB0", "DenseNet121", "VGG16", "ConvNeXtTiny"),
)


def build(name, generator):
    """The architecture with random weights and random batch statistics."""
    size = SIZES.get(name, 64)
    if name == "VGG16":
        return randomised(small_vgg(), generator)
    options = {"include_preprocessing": False} if name == "MobileNetV3Small" else {}
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=100, classifier_activation=None, **options
    )
    return randomised(model, generator)


def small_vgg():
    """VGG16's layout with an eighth of its channels."""
    inputs = x = keras.Input((64, 64, 3))
    for block, (count, channels) in enumerate(((2, 8), (2, 16), (3, 32), (3, 64), (3, 64))):
        for number in range(count):
            x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{block}_conv{number}")(
                x
            )
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    for number in range(2):
        x = keras.layers.Dense(128, activation="relu", name=f"fc{number}")(x)
    return keras.Model(inputs, keras.layers.Dense(100, name="predictions")(x), name="small_vgg16")


def randomised(model, generator):
    """Gives every batch normalization random parameters and statistics."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            uniform = generator.uniform(0.5, 1.5, (2, *layer.moving_mean.shape))
            normal = generator.normal(0.0, 0.1, (2, *layer.moving_mean.shape))
            layer.moving_mean.assign(normal[0])
            layer.moving_variance.assign(uniform[0])
            if layer.gamma is not None:
                layer.gamma.assign(uniform[1])
            if layer.beta is not None:
                layer.beta.assign(normal[1])
    return model


def moved(model, x, share):
    """The outputs of a simulation in which a share of the input's values is moved by one step.

    How far they are from the simulation's own tells how much of a difference is the network's doing: a runtime that
    rounds one value in a hundred the other way does to every layer what this does to the first.
    """
    first, generator = activation_quantizers(model)[0], np.random.default_rng(1)

    def step(quantizer, values, averages):
        rounded = quantizer.rounded(values, averages)
        if quantizer is not first:
            return rounded
        chosen = generator.random(rounded.shape) < share
        return rounded + np.where(chosen, quantizer.parameters().scale, 0.0).astype("float32")

    with intercepted(step):
        return outputs(model, x)


def outputs(model, x):
    """The outputs without `predict`, which would not see that quantizers are replaced."""
    with no_gradients():
        parts = [model(x[start : start + 8], training=False) for start in range(0, len(x), 8)]
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])


def measure(name, scheme, samples):
    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    if name in TASKS:
        task = TASKS[name]()
        model, x = task.model, task.test[0][:samples]
        calibration = task.train[0][generator.permutation(len(task.train[0]))[:CALIBRATION]]
    else:
        model = build(name, generator)
        shape = model.input_shape[1:]
        calibration, x = (generator.normal(size=(count, *shape)).astype("float32") for count in (64, samples))
    quantized = quantize_post_training(model, scheme, calibration)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        started = time.perf_counter()
        result = export_litert(quantized, path, tolerance=10.0)
        seconds = time.perf_counter() - started
        content = path.read_bytes()
    simulated = quantized.predict(x, verbose=0, batch_size=16)
    with reference_rounding(quantized):
        expected = outputs(quantized, x)
    step = activation_quantizers(quantized)[-1].parameters().scale
    (received,) = LiteRTRunner(content, kernels="reference").run(x).values()
    (fast,) = LiteRTRunner(content).run(x).values()
    steps = np.round(np.abs(received - expected) / step)
    file = parse_model(content)
    codes = [enum_name(_operators(), code) for code in operator_codes(file)]
    kinds = [codes[operator.opcodeIndex] for operator in file.subgraphs[0].operators]
    return {
        "name": name,
        "parameters": model.count_params(),
        "operators": len(kinds),
        "conversions": kinds.count("QUANTIZE") + kinds.count("DEQUANTIZE"),
        "float_operators": [list(item) for item in result.float_operators],
        "within_one": float(np.mean(steps <= 1)),
        "largest": float(steps.max()),
        "argmax": float(np.mean(received.argmax(-1) == expected.argmax(-1))),
        "within_one_xnnpack": float(np.mean(np.round(np.abs(fast - simulated) / step) <= 1)),
        "argmax_xnnpack": float(np.mean(fast.argmax(-1) == simulated.argmax(-1))),
        "within_one_between_kernels": float(np.mean(np.round(np.abs(fast - received) / step) <= 1)),
        "within_one_moved": float(np.mean(np.round(np.abs(moved(quantized, x, MOVED) - simulated) / step) <= 1)),
        "float_argmax": float(np.mean(model.predict(x, verbose=0).argmax(-1) == simulated.argmax(-1))),
        "bytes": len(content),
        "export_seconds": seconds,
    }


def _operators():
    from ai_edge_litert import schema_py_generated

    return schema_py_generated.BuiltinOperator


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--scheme", choices=("int8", "int16x8"), default="int8")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--trained", action="store_true", help="the real models and data of quantization_accuracy.py")
    arguments = parser.parse_args()
    samples = 16 if arguments.quick else arguments.samples
    scheme = {"int8": INT8, "int16x8": INT16X8}[arguments.scheme]
    names, kind = (list(TASKS), "real") if arguments.trained else (arguments.models, "random")
    table = Table(
        f"Integer files against the simulation, {arguments.scheme}, reference kernels, {samples} {kind} inputs",
        (
            *("model", "operators", "conversions", "float operators", "<= 1 step", "largest", "same argmax"),
            *("<= 1 step, XNNPACK", "same argmax", "<= 1 step, between kernels", "simulation moved", "export, s"),
        ),
        notes=(
            "Trained weights. Targets: 99 %, 4 steps, 99.5 %."
            if arguments.trained
            else "Random weights and batch statistics. Targets: 99 %, 4 steps, 99 %.",
            "Beside reference kernels the simulation rounds as they do (`reference_rounding`); beside XNNPACK, once.",
            f"Moved: the simulation against itself, with {MOVED:.1%} of the input's values one step higher.",
        ),
    )
    rows = []
    for name in names:
        row = measure(name, scheme, samples)
        rows.append(row)
        floats = sorted({kind for kind, _, _ in row["float_operators"]})
        table.add(
            name,
            str(row["operators"]),
            str(row["conversions"]),
            f"{len(row['float_operators'])} {' '.join(floats)}",
            f"{row['within_one']:.2%}",
            f"{row['largest']:.0f}",
            f"{row['argmax']:.2%}",
            f"{row['within_one_xnnpack']:.2%}",
            f"{row['argmax_xnnpack']:.2%}",
            f"{row['within_one_between_kernels']:.2%}",
            f"{row['within_one_moved']:.2%}",
            f"{row['export_seconds']:.0f}",
        )
        print(row["name"], {key: value for key, value in row.items() if key != "float_operators"}, flush=True)
        print("   in floats:", row["float_operators"][:6], flush=True)
    values = {"environment": environment(), "load": os.getloadavg()[0], "rows": rows}
    trained = "_trained" if arguments.trained else ""
    file = f"quantization_fidelity{trained}_{arguments.scheme}_{keras.backend.backend()}"
    write_results(arguments, file, values, [table])


if __name__ == "__main__":
    main()
