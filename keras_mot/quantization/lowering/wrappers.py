"""Breaks down layers that call other layers."""

import keras
from keras import ops


def distribute(lowering, layer, inputs):
    """`TimeDistributed` as the wrapped layer called for all timesteps as one batch, or `None`."""
    shape = tuple(inputs.shape)
    if None in shape[1:] or isinstance(layer.layer, keras.Model):
        return None
    outputs = lowering.within(layer.layer, ops.reshape(inputs, (-1, *shape[2:])), lowering.steps)
    if not hasattr(outputs, "shape") or None in outputs.shape[1:]:
        return None
    return ops.reshape(outputs, (-1, shape[1], *outputs.shape[1:]))
