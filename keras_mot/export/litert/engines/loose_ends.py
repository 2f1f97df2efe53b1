"""What a traced model computes and does not return, such as a loss that a layer adds in its call."""

_LOOPS = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "For", "Scan"})


def without_loose_ends(function, names):
    """A traced function without the loops and branches that no output depends on, and what is there for them alone.

    TensorFlow cannot freeze some of them, such as those of `keras.ops.ctc_loss`, and the converter drops them anyhow.

    Args:
        function: a concrete function of TensorFlow.
        names: the names of its arguments.

    Returns:
        A concrete function of the same arguments, outputs and variables; the given one where there is nothing to drop.
    """
    import tensorflow as tf

    graph = function.graph
    needed = _leading_to(function.outputs)
    if not any(operation.type in _LOOPS and operation not in needed for operation in graph.get_operations()):
        return function
    wanted = needed | {tensor.op for tensor in function.inputs}
    definition = _without(graph.as_graph_def(), {operation.name for operation in wanted})

    def imported():
        outer = tf.compat.v1.get_default_graph()
        captured = {inner.name: outer.capture(variable) for variable, inner in graph.captures}
        tf.graph_util.import_graph_def(definition, input_map=captured, name="")

    wrapped = tf.compat.v1.wrap_function(imported, [])
    wrapped.graph.variables = graph.variables
    inputs = [wrapped.graph.get_tensor_by_name(f"{name}:0") for name in names]
    return wrapped.prune(inputs, [wrapped.graph.get_tensor_by_name(tensor.name) for tensor in function.outputs])


def _leading_to(tensors):
    """The operations whose results tensors depend on. What only has to run before, returns nothing that counts."""
    found, waiting = set(), [tensor.op for tensor in tensors]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    return found


def _without(definition, names):
    """A graph of the nodes of these names, and of the functions that they call."""
    nodes = [node for node in definition.node if node.name in names]
    for node in nodes:
        node.input[:] = [each for each in node.input if not each.startswith("^") or each[1:] in names]
    functions = {each.signature.name: each for each in definition.library.function}
    called, waiting = set(), nodes
    while waiting:
        found = {name for node in waiting for name in _functions_of(node)} - called
        called |= found
        waiting = [node for name in found if name in functions for node in functions[name].node_def]
    gradients = [each for each in definition.library.gradient if each.function_name in called]
    del definition.node[:], definition.library.function[:], definition.library.gradient[:]
    definition.node.extend(nodes)
    definition.library.function.extend(functions[name] for name in called if name in functions)
    definition.library.gradient.extend(gradients)
    return definition


def _functions_of(node):
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        yield from (each.name for each in value.list.func)
