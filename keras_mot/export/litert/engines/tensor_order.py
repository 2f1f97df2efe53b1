"""The order in which a file lists its inputs and outputs.

The converter lists them by their names. Runtimes that take a list of arrays go by that order, and so would swap two
inputs of one shape.
"""

from collections.abc import Sequence

from keras_mot.export.dependencies import require


def in_model_order(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The file with its inputs and outputs in the order of the model's; nothing else of it changes.

    Args:
        content: a `.tflite` file with a signature.
        inputs: the names of the inputs there, in the order of the model's.
        outputs: the names of the outputs there.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    if model.SignatureDefsLength() != 1:
        return content
    signature = model.SignatureDefs(0)
    graph = model.Subgraphs(signature.SubgraphIndex())
    sides = (
        (graph.InputsAsNumpy(), inputs, [signature.Inputs(place) for place in range(signature.InputsLength())]),
        (graph.OutputsAsNumpy(), outputs, [signature.Outputs(place) for place in range(signature.OutputsLength())]),
    )
    for listed, names, items in sides:
        indices = {item.Name().decode(): int(item.TensorIndex()) for item in items}
        wanted = [indices[name] for name in names if name in indices]
        if sorted(wanted) == sorted(listed):  # else the graph lists a tensor once that has several names
            listed[:] = wanted
    return bytes(changed)
