"""Exports and checks a model that was trained in mixed precision as what it is in full precision."""

import contextlib

import keras

from keras_mot._keras import flatten_layers


@contextlib.contextmanager
def full_precision(model):
    """Lets every layer compute in the dtype of its variables for the time of the block.

    A layer of the policy "mixed_float16" keeps float32 variables and computes in float16 for the speed of
    training on a GPU. LiteRT has no float16 arithmetic; the file computes in float32, and so must the model
    that it is compared with.
    """
    changed = []
    try:
        for layer in flatten_layers(model):
            policy = layer.dtype_policy
            if type(policy) is keras.DTypePolicy and policy.compute_dtype != policy.variable_dtype:
                layer.dtype_policy = keras.DTypePolicy(policy.variable_dtype)
                changed.append((layer, policy))
        yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy


def check_precision(model):
    """Checks that no layer stores its variables in half precision."""
    for layer in flatten_layers(model):
        dtype = layer.dtype_policy.variable_dtype
        if dtype in ("float16", "bfloat16"):
            raise ValueError(
                f"The layer '{layer.path}' stores its weights as {dtype}, which LiteRT cannot compute with. "
                f"Expected: float32 variables (the policies 'float32' and 'mixed_float16' have them). Build "
                f"the model with the policy 'float32', copy the weights with `set_weights`, and export it "
                f"with weights='float16' for a file of half the size."
            )
