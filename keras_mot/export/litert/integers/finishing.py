"""What is done last: the types of the file's inputs and outputs, and what nothing uses any more."""

from keras_mot.export.litert.litert_file import blocks_of


def finish(rewriter, input_type, output_type):
    """Gives the file its outputs and their types, and drops what is unused.

    Args:
        rewriter: the `Rewriter`, whose operators are rewritten.
        input_type: "float32", "int8", "uint8" or "int16".
        output_type: the same for the outputs.

    Raises:
        ValueError: an input or output cannot have the type.
    """
    graph = rewriter.graph.graph
    inputs, outputs = ([int(index) for index in indices] for indices in (graph.inputs, graph.outputs))
    graph.inputs, graph.outputs = inputs, [rewriter.in_floats(index) for index in outputs]
    renamed = dict(zip(outputs, graph.outputs, strict=True))
    for signature in rewriter.graph.model.signatureDefs or []:
        for item in signature.outputs:
            item.tensorIndex = renamed.get(item.tensorIndex, item.tensorIndex)
    if input_type != "float32":
        _in_integers(rewriter, graph.inputs, input_type, "inputs", "QUANTIZE")
    if output_type != "float32":
        _in_integers(rewriter, graph.outputs, output_type, "outputs", "DEQUANTIZE")
    drop_unused(rewriter.graph.model)


def _in_integers(rewriter, indices, kind, side, conversion):
    """Gives the float tensors `indices`, the `side` of the file, the type `kind`, without their conversion."""
    file = rewriter.graph
    for position, index in enumerate(indices):
        if not file.is_float(index):
            continue
        beside = [operator for operator in file.operators if index in getattr(operator, side)]
        if len(beside) != 1 or file.name(beside[0]) != conversion:
            raise ValueError(
                f"Number {position} of the file's {side} (counted from 0) is in floats, and cannot be {kind}: leave "
                f"`{side[:-1]}_type` at 'float32', or quantize what is next to it. (Features of different size are "
                "normalized in floats: do that in front of the model.)"
            )
        (operator,) = beside
        inner = int((operator.outputs if side == "inputs" else operator.inputs)[0])
        indices[position] = _exchanged(rewriter, index, inner, operator, kind, side)
        for signature in file.model.signatureDefs or []:
            for item in getattr(signature, side):
                if item.tensorIndex == index:
                    item.tensorIndex = indices[position]


def _exchanged(rewriter, outer, inner, operator, kind, side):
    """The integer tensor `inner`, or one of another type beside it, as an input or output of the file."""
    parameters, file = rewriter.parameters[inner], rewriter.graph
    if kind == {8: "int8", 16: "int16"}[parameters.bits]:
        file.operators.remove(operator)
        return inner
    if kind == "uint8" and parameters.bits == 8:
        file.quantize(outer, 8, [parameters.scale], [parameters.zero_point + 128])
        file.graph.tensors[outer].type = file.schema.TensorType.UINT8
        file.set_kind(operator, "QUANTIZE", 8)
        operator.builtinOptions, operator.builtinOptionsType = None, 0
        return outer
    types = {8: "'float32', 'int8' or 'uint8'", 16: "'float32' or 'int16'"}[parameters.bits]
    raise ValueError(
        f"The file computes in int{parameters.bits}: its {side} cannot be {kind}; `{side[:-1]}_type` should be {types}."
    )


def drop_unused(model):
    """Drops tensors, buffers and kinds of operators that nothing in the file refers to."""
    graph, *bodies = model.subgraphs
    used = {*graph.inputs, *graph.outputs}
    for operator in graph.operators:
        used.update(int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0)
    blocks = [found for found in (blocks_of(graph.tensors[index]) for index in used) if found is not None]
    used.update(each.scales for each in blocks)
    order = {index: number for number, index in enumerate(sorted(used))}
    order[-1] = -1
    graph.tensors = [graph.tensors[index] for index in sorted(used)]
    for each in blocks:
        each.scales = order[each.scales]
    for operator in graph.operators:
        operator.inputs = [order[int(index)] for index in operator.inputs]
        operator.outputs = [order[int(index)] for index in operator.outputs]
    graph.inputs, graph.outputs = [order[i] for i in graph.inputs], [order[i] for i in graph.outputs]
    for signature in model.signatureDefs or []:
        for item in (*signature.inputs, *signature.outputs):
            item.tensorIndex = order[item.tensorIndex]
    tensors = [*graph.tensors, *(tensor for body in bodies for tensor in body.tensors), *(model.metadata or [])]
    kept = sorted({0, *(item.buffer for item in tensors)})
    buffers = {index: number for number, index in enumerate(kept)}
    model.buffers = [model.buffers[index] for index in kept]
    for item in tensors:
        item.buffer = buffers[item.buffer]
    operators = [*graph.operators, *(operator for body in bodies for operator in body.operators)]
    codes = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in codes]
    for operator in operators:
        operator.opcodeIndex = codes.index(operator.opcodeIndex)
