"""The calls (nodes) on symbolic tensors that a functional model is made of, and the masks of such tensors."""

import contextlib

from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

__all__ = [
    "call_of",
    "calls_anywhere",
    "calls_by_depth",
    "forgetting_calls",
    "functional_of",
    "get_keras_mask",
    "output_structure",
    "producer_of",
    "run_graph",
    "set_keras_mask",
]


def producer_of(tensor):
    """The layer or operation that a symbolic tensor is a result of."""
    return tensor._keras_history.operation


def call_of(tensor):
    """The call (node) that a symbolic tensor is a result of."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def calls_anywhere(operation):
    """All calls (nodes) of a layer or operation on symbolic tensors, in whatever graphs they are."""
    return list(operation._inbound_nodes)


def functional_of(sequential):
    """The functional model that a sequential one computes with."""
    return sequential._functional


def calls_by_depth(functional):
    """The calls (nodes) of a functional model, inputs among them, in the order in which they run."""
    by_depth = functional._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def output_structure(functional):
    """The symbolic outputs of a functional model, in the structure in which it returns them."""
    return functional._outputs_struct


def run_graph(functional, inputs, call):
    """The outputs of a functional model on other inputs, where `call(operation)` gives what is called for each."""
    return functional._run_through_graph(inputs, operation_fn=call)


@contextlib.contextmanager
def forgetting_calls(operations):
    """Context in which operations may be called on symbolic tensors, and remember nothing of it afterwards.

    `layer.output` of a user's model is refused once a layer has two calls. The tensors that came of the calls cannot be
    followed to where they came from any more.
    """
    counts = [(each, len(each._inbound_nodes), len(each._outbound_nodes)) for each in operations]
    try:
        yield
    finally:
        for operation, inbound, outbound in counts:
            del operation._inbound_nodes[inbound:]
            del operation._outbound_nodes[outbound:]
