"""What the model zoo compares: outputs of models and files, operators of files, latencies."""

import contextlib
import functools
import itertools
import time

import keras
import numpy as np

from keras_mot._keras import no_gradients
from keras_mot.export.litert.litert_file import enum_name, operator_codes, parse_model


def tensors(inputs):
    """Arrays as a model takes them when it is called; strings as TensorFlow wants them."""

    def convert(array):
        if array.dtype.kind in "USO":
            import tensorflow as tf

            return tf.constant(array.tolist())
        return keras.ops.convert_to_tensor(array)

    return keras.tree.map_structure(convert, inputs)


def predictions(model, inputs):
    """The outputs as a flat list of arrays, computed eagerly (compiled on JAX, where eager steps are slow)."""
    if keras.backend.backend() == "jax":
        outputs = model.predict(inputs, verbose=0, batch_size=16)
    else:
        with no_gradients():
            outputs = model(tensors(inputs), training=False)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


def steady(model, inputs):
    """(outputs, which of them are the same in two runs): a model may draw random numbers."""
    first, second = predictions(model, inputs), predictions(model, inputs)
    return first, [np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in zip(first, second, strict=True)]


def distance(received, expected, steady_ones):
    """The largest difference of two lists of outputs, as a share of each output's largest magnitude."""
    worst = 0.0
    for a, b, counts in zip(received, expected, steady_ones, strict=True):
        if not counts:
            continue
        if a.shape != b.shape:
            return float("inf")
        a, b = a.astype("float64"), b.astype("float64")
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return float("inf")
        finite = np.isfinite(b)
        if finite.any():
            worst = max(worst, float(np.abs(a - b)[finite].max() / max(np.abs(b[finite]).max(), 1e-6)))
    return worst


def signal_to_noise(received, expected, steady_ones):
    """Decibels of the least faithful output: what it varies by over the samples, beside what it is off by."""
    least = float("inf")
    for a, b, counts in zip(received, expected, steady_ones, strict=True):
        if not counts or a.shape != b.shape or not np.isfinite(b).all():
            continue
        if b.dtype.kind != "f":
            continue
        a, b = a.astype("float64"), b.astype("float64")
        signal = ((b - b.mean(0)) ** 2).mean() if len(b) > 1 else (b**2).mean()
        noise = ((a - b) ** 2).mean()
        least = min(least, 10 * np.log10(max(signal, 1e-20) / max(noise, 1e-20)))
    return round(float(least), 1)


def agreement(received, expected):
    """The share of equal decisions over the last axis of the first output."""
    return round(float(np.mean(received[0].argmax(-1) == expected[0].argmax(-1))), 4)


def float_operators(content):
    """Names of the operators of a file that compute in floats; conversions between floats and integers are none."""
    from ai_edge_litert import schema_py_generated as schema

    file = parse_model(content)
    codes = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(file)]
    found = []
    for graph in file.subgraphs:
        for operator in graph.operators:
            name = codes[operator.opcodeIndex]
            if name in ("QUANTIZE", "DEQUANTIZE"):
                continue
            touched = [index for index in [*operator.inputs, *operator.outputs] if index >= 0]
            if any(graph.tensors[index].type in _FLOATS(schema) for index in touched):
                found.append(name)
    return found


def _FLOATS(schema):
    return schema.TensorType.FLOAT32, schema.TensorType.FLOAT16


def stock_conversion(model, inputs):
    """(content, how): the integer file that TensorFlow's converter makes after training, in integers if it can.

    It is given what it does best with: variables frozen into constants, inputs of the model's types, and a batch of one
    where an open one is beyond it.

    Args:
        model: the Keras model.
        inputs: samples for calibration.

    Returns:
        The file, or `None` if there is none; and what it had to be allowed, or why there is none.
    """
    import tensorflow as tf

    flat = [np.asarray(array) for array in keras.tree.flatten(inputs)]
    dtypes = [tensor.dtype for tensor in model.inputs] if getattr(model, "inputs", None) else [a.dtype for a in flat]
    flat = [a if a.dtype.kind in "USO" else a.astype(dtype) for a, dtype in zip(flat, dtypes, strict=True)]

    def samples(named):
        for index in range(min(len(flat[0]), 64)):
            rows = {f"x{number:02}": array[index : index + 1] for number, array in enumerate(flat)}
            yield rows if named else list(rows.values())

    reason = ""
    for batch in (None, 1):  # recurrent layers of an open batch size are beyond the converter
        try:
            function = _frozen(model, inputs, flat, batch)
        except Exception as error:  # whatever TensorFlow raises
            reason = _line(error)
            continue
        kinds = (("integers", []), ("integers where it can", [tf.lite.OpsSet.TFLITE_BUILTINS]))
        for (how, others), named in itertools.product(kinds, (True, False)):
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = functools.partial(samples, named)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, *others]
            try:
                return bytes(converter.convert()), how
            except Exception as error:
                reason = _line(error)
                if "SignatureDef" not in reason:  # which needs samples in a list, whose order is then the file's
                    break
    return None, reason


def _frozen(model, inputs, flat, batch):
    """The model as a function of its inputs, one after the other, with constants for its variables."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def compute(*arguments):
        return keras.tree.flatten(model(keras.tree.pack_sequence_as(inputs, list(arguments)), training=False))

    specs = [
        tf.TensorSpec(
            (batch, *array.shape[1:]), tf.string if array.dtype.kind in "USO" else array.dtype, name=f"x{number:02}"
        )
        for number, array in enumerate(flat)
    ]
    function = tf.function(compute).get_concrete_function(*specs)
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def _line(error):
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if "error" in line.lower()), lines[0])[:160]


def latencies(contents, inputs, runs=100, seconds=1.5):
    """Dictionary from names to milliseconds of one sample, one thread: medians of interleaved runs.

    They are of the thread's own time, which others on the machine lengthen by little.
    """
    from ai_edge_litert.interpreter import Interpreter

    prepared = {}
    for name, content in contents.items():
        interpreter = Interpreter(model_content=content, num_threads=1)
        for detail in interpreter.get_input_details():
            signature = detail["shape_signature"]
            if len(signature) and signature[0] == -1:
                interpreter.resize_tensor_input(detail["index"], [1, *_sizes(detail, inputs)[1:]])
        interpreter.allocate_tensors()
        _fill(interpreter, inputs)
        started = time.perf_counter()
        for _ in range(3):
            interpreter.invoke()
        once = (time.perf_counter() - started) / 3
        prepared[name] = interpreter, max(1, int(5e-4 / max(once, 1e-7)))
    longest = max(repeats * 5e-4 for _, repeats in prepared.values())
    runs = max(7, min(runs, int(seconds / longest)))
    times = {name: [] for name in prepared}
    for number in range(runs):
        for name in list(prepared)[:: -1 if number % 2 else 1]:
            interpreter, repeats = prepared[name]
            started = time.thread_time()
            for _ in range(repeats):
                interpreter.invoke()
            times[name].append((time.thread_time() - started) / repeats * 1e3)
    return {name: float(np.median(values)) for name, values in times.items()}


def _sizes(detail, inputs):
    """The shape that an input takes; open sizes are those of the array of as many dimensions."""
    sizes = list(detail["shape_signature"])
    for array in keras.tree.flatten(inputs):
        if array.ndim == len(sizes) and all(
            size in (-1, given) for size, given in zip(sizes[1:], array.shape[1:], strict=True)
        ):
            return [1, *array.shape[1:]]
    return [1, *(16 if size == -1 else size for size in sizes[1:])]


def _fill(interpreter, inputs):
    """Gives a file's inputs values of a sample, where one fits."""
    for detail in interpreter.get_input_details():
        for array in keras.tree.flatten(inputs):
            with contextlib.suppress(ValueError, TypeError):
                if tuple(array.shape[1:]) == tuple(detail["shape"][1:]):
                    interpreter.set_tensor(detail["index"], array[:1].astype(detail["dtype"]))
                    break


def run_content(content, inputs):
    """The outputs of a file of `stock_conversion` for samples one by one, in the model's order."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    details = sorted(interpreter.get_input_details(), key=lambda detail: detail["name"])
    flat, rows = keras.tree.flatten(inputs), []
    for number, detail in enumerate(details):
        if -1 in detail["shape_signature"]:
            interpreter.resize_tensor_input(detail["index"], [1, *flat[number].shape[1:]])
    interpreter.allocate_tensors()
    outputs = sorted(interpreter.get_output_details(), key=lambda detail: _number(detail["name"]))
    for index in range(len(flat[0])):
        for number, detail in enumerate(details):
            interpreter.set_tensor(detail["index"], flat[number][index : index + 1].astype(detail["dtype"]))
        interpreter.invoke()
        rows.append([interpreter.get_tensor(detail["index"]) for detail in outputs])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _number(name):
    """Of "Identity_3", 3."""
    digits = name.replace(":", "_").rsplit("_", 1)[-1]
    return int(digits) if digits.isdigit() else 0
