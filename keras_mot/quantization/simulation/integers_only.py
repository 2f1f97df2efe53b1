"""What a target cannot compute that computes in integers only: found before anything is calibrated."""

import keras

from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.float_boundary import ANGLE, ASKED, MASKED, NO_KERNEL, WIDE, FloatBoundary
from keras_mot.layers.transformed import plain_class

_WHY = {
    NO_KERNEL: "it has no kernel",
    MASKED: "no integer stands for what a mask leaves out; for `ops.where(mask, scores, -1e9)` in front of a softmax "
    "of the last axis, there is one",
    ANGLE: "it is an angle of many periods, for which integers are too coarse",
    WIDE: "a logarithm reads it, which needs small numbers: a scheme in `overrides` for the layer has it in integers",
}
_MOST = 10


def check_integers(placed, user_model, target, bits, chosen, origin, floats):
    """Raises a `ValueError` that names the layers which would compute in floats, though nobody asked for that.

    Args:
        placed: what `place` returned.
        user_model: the model that the user gave, for messages.
        target: a `Target` without `floats`.
        bits: bits of activations.
        chosen: function from an operation of the placed model to its settings, `None` where it is left in floats.
        origin: function from an operation of the placed model to one of the user's.
        floats: dictionary from ids of operations to the reason why they are left in floats.
    """
    graph, found = Graph(placed), {}
    for call in graph.calls:
        operation = call.operation
        if isinstance(operation, FloatBoundary):
            if operation.reason != ASKED:
                readers = [reader.operation for tensor in call.outputs for reader in graph.readers(tensor)]
                found.update({id(reader): (reader, operation.reason) for reader in readers})
        elif isinstance(operation, ActivationQuantizer) or chosen(operation) is None:
            continue
        elif id(operation) in floats:
            found[id(operation)] = (operation, floats[id(operation)])
        elif any("float" in str(tensor.dtype) for tensor in call.inputs) and not target.has_kernel(operation, bits):
            found.setdefault(id(operation), (operation, NO_KERNEL))
    if not found:
        return
    lines = dict.fromkeys(
        _line(operation, origin(operation), reason, user_model) for operation, reason in found.values()
    )
    shown = "\n".join(list(lines)[:_MOST]) + (f"\n  and {len(lines) - _MOST} more" if len(lines) > _MOST else "")
    raise ValueError(
        f"The target '{target.name}' computes in integers of {bits} bits only, and cannot compute this of "
        f"'{user_model.name}' so:\n{shown}\nReplace it, do it in front of or behind the model, or leave it in floats "
        "knowingly: `overrides={'its path': None}`."
    )


def _line(operation, source, reason, user_model):
    path = (getattr(source, "path", None) or source.name).removeprefix(f"{user_model.name}/")
    kind = plain_class(source).__name__ if isinstance(source, keras.layers.Layer) else type(source).__name__
    own = plain_class(operation).__name__ if isinstance(operation, keras.layers.Layer) else type(operation).__name__
    within = "" if own == kind else f", {own} in it"
    form = ""
    if getattr(operation, "data_format", None) == "channels_first":
        form = " with channels first; build the model with `data_format='channels_last'`"
    return f"  '{path}' ({kind}{within}): {_WHY.get(reason, 'it is left in floats')}{form}"
