"""Breaks down layers that call other layers."""

import functools

import keras
from keras import ops

from keras_mot.graph.functional import as_functional
from keras_mot.graph.rewrite import operations_of, run_on


def distributed(layer):
    """The layers within a `TimeDistributed` that are broken down by themselves; of a model, all its layers."""
    if as_functional(layer.layer) is not None:
        return [each for each in operations_of(layer.layer) if isinstance(each, keras.layers.Layer)]
    return [] if isinstance(layer.layer, keras.Model) else [layer.layer]


def distribute(lowering, layer, inputs):
    """`TimeDistributed` as the wrapped layer or model called for all timesteps as one batch, or `None`."""
    shape, wrapped = tuple(inputs.shape), layer.layer
    if None in shape[1:] or (isinstance(wrapped, keras.Model) and as_functional(wrapped) is None):
        return None
    together = ops.reshape(inputs, (-1, *shape[2:]))
    if as_functional(wrapped) is not None:
        outputs = run_on(wrapped, together, functools.partial(_within, lowering))
    else:
        outputs = lowering.within(wrapped, together)
    if not hasattr(outputs, "shape") or None in outputs.shape[1:]:
        return None
    return ops.reshape(outputs, (-1, shape[1], *outputs.shape[1:]))


def _within(lowering, operation, *args, **kwargs):
    """The results of an operation of a model within another layer; settings of its own, only layers have."""
    call = lowering.within if isinstance(operation, keras.layers.Layer) else lowering.steps
    return call(operation, *args, **kwargs)
