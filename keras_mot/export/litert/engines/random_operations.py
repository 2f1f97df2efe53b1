"""Random numbers in a graph: what Keras draws with a seed becomes operations that LiteRT has kernels for.

Keras draws by operations that take a seed and return the same numbers for the same seed. A frozen graph has a frozen
seed, and LiteRT has no such operations; its own draw other numbers in each run, as Keras does from call to call.
"""

# Operation of TensorFlow -> (the one with a kernel, how many inputs it takes, its attributes that stay).
_DRAWING = {
    "StatelessRandomNormalV2": ("RandomStandardNormal", 1, {"dtype": "dtype", "Tshape": "T"}),
    "StatelessRandomUniformV2": ("RandomUniform", 1, {"dtype": "dtype", "Tshape": "T"}),
    "StatelessRandomNormal": ("RandomStandardNormal", 1, {"dtype": "dtype", "T": "T"}),
    "StatelessRandomUniform": ("RandomUniform", 1, {"dtype": "dtype", "T": "T"}),
    "StatelessMultinomial": ("Multinomial", 2, {"T": "T", "output_dtype": "output_dtype"}),
}


def draws(graph) -> bool:
    """Whether a graph, or a function in it, has such operations."""
    definition = graph.as_graph_def()
    return any(node.op in _DRAWING for nodes in _bodies(definition) for node in nodes)


def exchange(definition):
    """Puts operations of LiteRT in place of those that draw random numbers in a `GraphDef`."""
    for nodes in _bodies(definition):
        for node in nodes:
            if node.op in _DRAWING:
                _exchange(node)


def _bodies(definition):
    return [definition.node, *(function.node_def for function in definition.library.function)]


def _exchange(node):
    name, inputs, attributes = _DRAWING[node.op]
    kept = {new: node.attr[old] for old, new in attributes.items()}
    controls = [item for item in node.input if item.startswith("^")]
    data = [item for item in node.input if not item.startswith("^")][:inputs]
    del node.input[:]
    node.input.extend([*data, *controls])
    values = {key: type(value).FromString(value.SerializeToString()) for key, value in kept.items()}
    node.attr.clear()
    for key, value in values.items():
        node.attr[key].CopyFrom(value)
    for key in ("seed", "seed2"):
        node.attr[key].i = 0
    node.op = name
