"""The runtime has each kernel that the table of integer operators names, in the version that is written."""

import numpy as np
import pytest

from keras_mot.export.litert.integers import rules
from keras_mot.export.litert.litert_file import pack_model

SAME = (1, 4, 4, 4)
COMPARISONS = ("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "EQUAL", "NOT_EQUAL")
# Operator -> (shapes of the inputs, int32 constants after them, shape of the result, fields of its options).
GRAPHS = {
    "RESHAPE": ([SAME], [[1, 64]], (1, 64), {}),
    "TRANSPOSE": ([SAME], [[0, 2, 1, 3]], SAME, {}),
    "SQUEEZE": ([(1, 1, 4)], [], (1, 4), {"squeezeDims": [1]}),
    "EXPAND_DIMS": ([(1, 4)], [1], (1, 1, 4), {}),
    "PAD": ([SAME], [[[0, 0], [1, 1], [0, 0], [0, 0]]], (1, 6, 4, 4), {}),
    "PADV2": ([SAME], [[[0, 0], [1, 1], [0, 0], [0, 0]]], (1, 6, 4, 4), {}),
    "SLICE": ([SAME], [[0, 1, 0, 0], [1, 2, 4, 4]], (1, 2, 4, 4), {}),
    "STRIDED_SLICE": ([SAME], [[0, 0, 0, 0], [1, 4, 4, 4], [1, 2, 1, 1]], (1, 2, 4, 4), {}),
    "SPLIT": ([SAME], [], (1, 4, 4, 2), {"numSplits": 2}),
    "SPLIT_V": ([SAME], [[2, 2], 3], (1, 4, 4, 2), {"numSplits": 2}),
    "UNPACK": ([(1, 2, 4)], [], (1, 4), {"num": 2, "axis": 1}),
    "TILE": ([(1, 4)], [[1, 2]], (1, 8), {}),
    "MAX_POOL_2D": ([SAME], [], (1, 2, 2, 4), {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}),
    "AVERAGE_POOL_2D": ([SAME], [], (1, 2, 2, 4), {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}),
    "RESIZE_NEAREST_NEIGHBOR": ([SAME], [[8, 8]], (1, 8, 8, 4), {}),
    "RESIZE_BILINEAR": ([SAME], [[8, 8]], (1, 8, 8, 4), {}),
    "REDUCE_MAX": ([SAME], [[1, 2]], (1, 4), {}),
    "REDUCE_MIN": ([SAME], [[1, 2]], (1, 4), {}),
    "SPACE_TO_DEPTH": ([SAME], [], (1, 2, 2, 16), {"blockSize": 2}),
    "DEPTH_TO_SPACE": ([SAME], [], (1, 8, 8, 1), {"blockSize": 2}),
    "SPACE_TO_BATCH_ND": ([SAME], [[2, 2], [[0, 0], [0, 0]]], (4, 2, 2, 4), {}),
    "BATCH_TO_SPACE_ND": ([(4, 2, 2, 4)], [[2, 2], [[0, 0], [0, 0]]], SAME, {}),
    "MIRROR_PAD": ([SAME], [[[0, 0], [1, 1], [0, 0], [0, 0]]], (1, 6, 4, 4), {}),
    "REVERSE_V2": ([SAME], [[1]], SAME, {}),
    "BROADCAST_TO": ([(1, 1, 4)], [[1, 3, 4]], (1, 3, 4), {}),
    "GATHER": ([SAME], [[0, 2]], (1, 2, 4, 4), {"axis": 1}),
    "GATHER_ND": ([(4, 4)], [[[0], [2]]], (2, 4), {}),
    "CONCATENATION": ([SAME, SAME], [], (1, 4, 4, 8), {"axis": 3}),
    "MAXIMUM": ([SAME, SAME], [], SAME, {}),
    "MINIMUM": ([SAME, SAME], [], SAME, {}),
    "PACK": ([(1, 4), (1, 4)], [], (1, 2, 4), {"valuesCount": 2, "axis": 1}),
    "MEAN": ([SAME], [[1, 2]], (1, 4), {}),
    "SUM": ([SAME], [[1, 2]], (1, 4), {}),
    "BATCH_MATMUL": ([(1, 4, 4), (1, 4, 4)], [], (1, 4, 4), {}),
    "PRELU": ([SAME, (1, 1, 4)], [], SAME, {}),
    "QUANTIZE": ([SAME], [], SAME, {}),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), ([SAME], [3], SAME[:3], {"outputType": 2})),
}
PAIRS = ("ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "SELECT", "SELECT_V2", *COMPARISONS)
OPTIONS = {  # whose options are not named after them
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), "ReducerOptions"),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), "Pool2DOptions"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions"),
    **dict.fromkeys(("RELU", "RELU6", "LOGISTIC", "TANH", "ELU", "PRELU", "LOG")),
    **dict.fromkeys(COMPARISONS),
}


def graph_of(name):
    if name in PAIRS:
        return [SAME, SAME], [], SAME, {}
    return GRAPHS.get(name, ([SAME], [], SAME, {}))


def file_of(schema, name, bits):
    """A file of one operator on integers."""
    shapes, constants, result, fields = graph_of(name)
    types = schema.TensorType
    kind = types.INT8 if bits == 8 else types.INT16
    model, graph, code, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [code], [graph]
    number = getattr(schema.BuiltinOperator, name)
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.version = rules.version_of(name, bits)
    graph.tensors, graph.operators = [], [operator]

    def tensor(shape, kind, values=None, zero_point=0, scale=0.05):
        item = schema.TensorT()
        item.shape, item.type, item.buffer, item.name = list(shape), kind, 0, f"tensor{len(graph.tensors)}"
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), "uint8")
            model.buffers.append(buffer)
            item.buffer = len(model.buffers) - 1
        if kind in (types.INT8, types.INT16):
            item.quantization = schema.QuantizationParametersT()
            item.quantization.scale = np.array([scale], "float32")
            item.quantization.zeroPoint = np.array([zero_point], "int64")
        graph.tensors.append(item)
        return len(graph.tensors) - 1

    operator.opcodeIndex = 0
    operator.inputs = [tensor(shape, kind) for shape in shapes]
    graph.inputs = list(operator.inputs)
    if name == "SPLIT":  # whose axis comes first
        operator.inputs = [tensor((), types.INT32, np.array(3, "int32")), *operator.inputs]
    operator.inputs += [tensor(np.shape(value), types.INT32, np.array(value, "int32")) for value in constants]
    if name == "PADV2":
        operator.inputs.append(tensor((), kind, np.zeros((), "int8" if bits == 8 else "int16")))
    if name in ("SELECT", "SELECT_V2"):  # whose condition comes first
        operator.inputs = [tensor(SAME, types.BOOL), *operator.inputs]
        graph.inputs = list(operator.inputs)
    prescribed = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
    prescribed["LOG_SOFTMAX"] = (1 / 16, 127)
    scale, zero_point = prescribed.get(name, (0.05, 0)) if bits == 8 else (1 / 32768 if name in prescribed else 0.05, 0)
    operator.outputs = [tensor(result, kind, None, zero_point, scale) for _ in range(fields.get("numSplits", 1))]
    operator.outputs += [tensor(result, kind) for _ in range(fields.get("num", 1) - 1)]
    graph.outputs = list(operator.outputs)
    results = {**dict.fromkeys(COMPARISONS, types.BOOL), "ARG_MAX": types.INT32, "ARG_MIN": types.INT32}
    if name in results:
        graph.tensors[graph.outputs[0]].type, graph.tensors[graph.outputs[0]].quantization = results[name], None
    labels = {label.lower(): label for label in vars(schema.BuiltinOptions)}
    label = OPTIONS.get(name, labels.get(f"{name.replace('_', '')}options".lower()))
    assert label or name in OPTIONS, name
    if label:
        options = getattr(schema, f"{label}T")()
        for field, value in fields.items():
            setattr(options, field, value)
        if name == "SOFTMAX":
            options.beta = 1.0
        operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, label), options
    return pack_model(model)


NAMES = sorted(
    {*rules._MOVING, *rules._UNIFYING, *rules._COMPUTING, *rules._COMPUTING_8_BITS, *rules._PRESCRIBED, "QUANTIZE"}
    | {*rules._READING, *rules._READING_8_BITS}
    | {"DEQUANTIZE"}
)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_runtime_has_each_kernel_and_version(bits, backend):
    if backend != "tensorflow":
        pytest.skip("what concerns files alone is tested on TensorFlow")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    refused = {}
    for name in NAMES:
        if name == "DEQUANTIZE" or (name != "QUANTIZE" and rules.rule_for(name, bits) is None):
            continue
        content = file_of(schema, name, bits)
        for resolver in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF):
            try:
                interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
                interpreter.allocate_tensors()
                for details in interpreter.get_input_details():
                    interpreter.set_tensor(details["index"], np.ones(details["shape"], details["dtype"]))
                interpreter.invoke()
            except (ValueError, RuntimeError) as error:
                refused[name, resolver.name] = str(error)[:120]
    refused.pop(("ELU", "BUILTIN_REF"), None)  # the reference kernels have none
    assert refused == {}
