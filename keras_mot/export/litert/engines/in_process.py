"""The engine that converts through TensorFlow's converter, inside a process whose backend is TensorFlow."""

import contextlib
import dataclasses
import logging
import re
import tempfile

import keras

from keras_mot._keras import plain_places
from keras_mot._messages import shortened
from keras_mot._quiet import quiet
from keras_mot.data.naming import name_outputs
from keras_mot.export.litert.engines.conversion import UnsupportedOperationError, convert_with, variables_at
from keras_mot.export.litert.engines.exact_angles import has_rounded_angles, with_exact_angles
from keras_mot.export.litert.engines.exchanges import with_kernels
from keras_mot.export.litert.engines.filling import fill
from keras_mot.export.litert.engines.loose_ends import without_loose_ends
from keras_mot.export.litert.engines.stand_ins import StandIns
from keras_mot.export.litert.engines.tensor_names import name_weights, variables_of_operations
from keras_mot.export.litert.marking import marked
from keras_mot.export.litert.sparse.encoding import encode


def convert_in_process(model, signature, request):
    """Converts `model` as the `ConversionRequest` says; returns a `Conversion`."""
    converted = {}  # batch size -> (dense file, names of its outputs)

    def convert_one(batch_size, sparse):
        with quiet(), _quiet_loggers():
            if batch_size not in converted:
                converted.clear()
                converted[batch_size] = _convert_exactly(model, signature, request, batch_size)
            content, names = converted[batch_size]
            if sparse:
                content = encode(content) or _convert_by_itself(model, signature, request, batch_size, True)[0]
            return content, names

    return convert_with(convert_one, request)


def _convert_exactly(model, signature, request, batch_size):
    """The content of a file and the names of its outputs; what angles are computed from is never rounded to halves."""
    content, names = _convert(model, signature, request, batch_size)
    if request.weights == "float16" and has_rounded_angles(content):
        floats, _ = _convert(model, signature, dataclasses.replace(request, weights="float32"), batch_size)
        content = with_exact_angles(content, floats)
    return content, names


def _convert(model, signature, request, batch_size):
    """The content of a file and the names of its outputs; large weights go through the converter as stand-ins."""
    weights, left = variables_at(model, request.marked_weights), set()
    stand_ins = StandIns(model, left, weights)
    while stand_ins:
        content, names, unknown, readers = _convert_with(stand_ins, model, signature, request, batch_size, False)
        if content is not None:
            content, unknown = fill(content, stand_ins.filled)
            unknown |= stand_ins.lost_marks(content)
        if not unknown:
            return name_weights(content, model, readers, weights), names
        left |= unknown
        stand_ins = StandIns(model, left, weights)
    return _convert_by_itself(model, signature, request, batch_size, False)


def _convert_by_itself(model, signature, request, batch_size, sparse):
    """The same without stand-ins."""
    content, names, _, readers = _convert_with(None, model, signature, request, batch_size, sparse)
    return name_weights(content, model, readers), names


def _convert_with(stand_ins, model, signature, request, batch_size, sparse):
    """Converts a model with stand-ins, or `None`.

    Returns:
        The content; the names of the outputs; the ids of variables that cannot have stand-ins; and which variables the
        operations of the graph read. If some cannot have stand-ins, there is no content.
    """
    import tensorflow as tf

    try:
        with marked(model) if request.marked else contextlib.nullcontext(), plain_places():
            function, names, unknown, readers = _freeze(model, signature, batch_size, stand_ins)
    except Exception as error:
        raise ValueError(
            f"TensorFlow could not trace the model '{model.name}' ({type(error).__name__}): {_last_words(error)} A "
            f"custom layer must compute with `keras.ops` alone, and `input_signature` must fit the model's `call`."
            f"{_of_open_sizes(signature)}"
        ) from error
    if unknown:
        return None, names, unknown, readers
    with tempfile.TemporaryDirectory(prefix="keras_mot_export_") as directory:
        # Gradients are of no use in the file, and those of some activations (silu) cannot be saved.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(tf.Module(), directory, signatures=function, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        return _run_converter(converter, function, request.weights, sparse), names, unknown, readers


def _last_words(error):
    """What an error says, without the lines of code that TensorFlow puts before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("in user code"):
        lines = [line for line in lines[1:] if not line.startswith("File ")][-3:]
    return shortened(" ".join(lines), 600)


def _of_open_sizes(signature):
    """What to do where it may be the sizes that are open beside the batch: Keras computes with them in Python."""
    tensor = next((each for each in signature.inputs if None in tuple(each.shape)[1:]), None)
    if tensor is None:
        return ""
    shape = tuple(tensor.shape)
    return (
        f" Its input '{tensor.name}' has open sizes, {shape}, which some layers cannot be traced with, such as "
        "`UpSampling2D` with `interpolation='bilinear'`: give them, `input_signature=keras.InputSpec(shape=(None, 224, "
        f"224, {shape[-1]}))`, or call the model on a `keras.Input` of fixed sizes before it is quantized."
    )


def _run_converter(converter, function, weights, sparse):
    import tensorflow as tf

    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    optimizations = []
    if weights != "float32":  # without data, this makes weights alone smaller: 8 bits, unless types are given
        optimizations.append(tf.lite.Optimize.DEFAULT)
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if sparse:
        optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    converter.optimizations = optimizations
    try:
        return bytes(converter.convert())
    except Exception as error:
        raise _explain(error, function) from error


def _freeze(model, signature, batch_size, stand_ins):
    """Traces the model and folds its variables into constants.

    The converter folds variables too, but only after it has looked for patterns; with constants in place
    from the start it fuses batch normalization and finds the weights of quantized layers. Freezing loses
    the names of the outputs, so the frozen function is wrapped once more, under names.

    Returns:
        The function, the names of its outputs, the ids of variables that cannot have stand-ins, and which variables
        the operations of the graph read.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = {}
    for tensor in signature.inputs:
        shape = list(tensor.shape)
        if shape:
            shape[0] = batch_size
        specs[tensor.name] = tf.TensorSpec(shape, tensor.dtype, name=tensor.name)
    order = [tensor.name for tensor in signature.inputs]
    names, constants, replaced = [], [], []

    def call(**tensors):
        scope = (
            keras.StatelessScope()
        )  # recurrent layers with dropout draw random numbers, and assign, in inference too
        if stand_ins is not None:
            scope, constants[:], replaced[:] = stand_ins.scope()
        with scope:
            outputs = signature.call(model, [tensors[name] for name in order])
        names[:], flat = name_outputs(model, outputs)
        return [tf.identity(tensor) for tensor in flat]

    def call_frozen(**tensors):
        # The frozen function takes its arguments by the names that tracing gave them.
        outputs = frozen(**tensors)
        return dict(zip(names, outputs, strict=True))

    traced = tf.function(call).get_concrete_function(**specs)
    unknown = stand_ins.find_readers(constants) if stand_ins is not None else set()
    if unknown:
        return None, list(names), unknown, {}
    traced = without_loose_ends(traced, order)
    frozen = convert_variables_to_constants_v2(traced)
    by_handle = {id(variable.value.handle): variable for variable in model.variables}
    captured = {inner.op.name: by_handle[id(outer)] for outer, inner in traced.graph.captures if id(outer) in by_handle}
    sources = {**captured, **{constant.op.name: variable for variable, constant in replaced}}
    graph, frozen = with_kernels(frozen, order)
    readers = variables_of_operations(graph, sources, model.variables)
    return tf.function(call_frozen).get_concrete_function(**specs), list(names), unknown, readers


def _explain(error, function):
    """Turns the converter's page of text into one sentence about the operation and where it stands."""
    text = str(error)
    operations = re.findall(r"^\s*tf\.(\w+)\(", text, re.MULTILINE) or re.findall(r"'tf\.(\w+)' op", text)
    if not operations:
        reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        return ValueError(
            f"The TensorFlow converter could not convert the model: {reason} Rewrite the layer that it names "
            f"with `keras.ops`, or report the model."
        )
    operations = list(dict.fromkeys(operations))
    places = _places(function.graph, set(operations))
    where = f" in {', '.join(places)}" if places else ""
    return UnsupportedOperationError(
        f"The model uses {', '.join(operations)}{where}, which the plain LiteRT runtime cannot run. Expected "
        f"operations with a LiteRT kernel (TensorFlow's own kernels, 'Flex', are not used). Replace the "
        f"layer, give its inputs fixed shapes, or leave the operation out of the exported model."
    )


def _places(graph, types):
    """Names of the graph nodes of the given types; their first parts are the Keras layers."""
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    graphs = [graph]
    for definition in graph.as_graph_def().library.function:
        try:
            graphs.append(function_def_to_graph(definition))
        except Exception:  # a place is a courtesy, never a second error
            continue
    names = [node.name for item in graphs for node in item.get_operations() if node.type in types]
    return [f"'{name}'" for name in list(dict.fromkeys(names))[:3]]


class _quiet_loggers:
    """Raises the level of TensorFlow's Python loggers for the time of the block."""

    def __enter__(self):
        self.levels = [(name, logging.getLogger(name).level) for name in ("absl", "tensorflow")]
        for name, _ in self.levels:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *exception):
        for name, level in self.levels:
            logging.getLogger(name).setLevel(level)
