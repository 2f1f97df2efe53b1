"""The order in which a file lists its inputs and outputs.

The converter lists them by their names. Runtimes that take a list of arrays go by that order, and so would swap two
inputs of one shape.
"""

from collections.abc import Sequence

import numpy as np

from keras_mot.export.litert.litert_file import pack_model, parse_model


def in_model_order(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The file with its inputs and outputs in the order of the model's; nothing else of it changes.

    Args:
        content: a `.tflite` file with a signature.
        inputs: the names of the inputs there, in the order of the model's.
        outputs: the names of the outputs there.
    """
    if len(inputs) == len(outputs) == 1:
        return content
    model = parse_model(content)
    if len(model.signatureDefs or []) != 1 or any(buffer.offset > 1 for buffer in model.buffers):
        return content  # contents of more than 2 GB lie behind the model, where repacking would lose them
    (signature,), changed = model.signatureDefs, False
    graph = model.subgraphs[signature.subgraphIndex]
    # Not in place: vectors that are equal are stored once, and others would change with these.
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        indices = {_text(item.name): int(item.tensorIndex) for item in getattr(signature, side)}
        wanted = [indices[name] for name in names if name in indices]
        listed = [int(index) for index in getattr(graph, side)]
        if wanted != listed and sorted(wanted) == sorted(listed):  # else it lists a tensor once that has several names
            setattr(graph, side, np.array(wanted, "int32"))
            changed = True
    return pack_model(model) if changed else content


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)
