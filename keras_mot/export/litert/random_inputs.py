"""Random data to run a model on, also where it says nothing of its sizes."""

import keras
import numpy as np

from keras_mot._keras import no_gradients
from keras_mot.graph.functional import as_functional

# Tried for dimensions beside the batch that a model leaves open, until it gives results.
OPEN_SIZES = (16, 32, 64, 128, 256, 512, 8, 4, 2, 1)


def random_inputs(signature, batch_size, size=OPEN_SIZES[0], seed=0):
    """Random data in sensible ranges: normal for floats, 0 and 1 for ids and flags.

    Args:
        signature: the `Signature` of a model.
        batch_size: number of samples.
        size: of all dimensions that are open.
        seed: of the numbers.

    Returns:
        List of arrays.
    """
    generator = np.random.default_rng(seed)
    arrays = []
    for tensor in signature.inputs:
        shape = [size if length is None else length for length in tensor.shape]
        if shape:
            shape[0] = batch_size
        floating = "float" in tensor.dtype
        array = generator.standard_normal(shape) if floating else generator.integers(0, 2, shape)
        arrays.append(array.astype("float32" if tensor.dtype == "bfloat16" else tensor.dtype))
    return arrays


def fitting_inputs(model, signature, batch_size):
    """Random data of a size that the model takes.

    Raises:
        ValueError: None of the sizes that are tried for open dimensions gives finite results.
    """
    if all(None not in tensor.shape[1:] for tensor in signature.inputs):
        return random_inputs(signature, batch_size)
    for size in OPEN_SIZES:
        problem = _problem_with(model, signature, random_inputs(signature, signature.fixed_batch_size or 1, size))
        if problem is None:
            return random_inputs(signature, batch_size, size)
    raise ValueError(
        f"The model '{model.name}' leaves dimensions of its inputs open, "
        f"{[(tensor.name, tensor.shape) for tensor in signature.inputs]}, and gives no results on random data of any "
        f"of the sizes {sorted(OPEN_SIZES)}. Pass `verification_data` of a size that it takes, or verify=False. "
        f"It says of size {size}: {problem}"
    )


def _problem_with(model, signature, arrays):
    """Why a model gives no results on some inputs, or None if it does."""
    try:
        if as_functional(model) is not None:
            # Convolutions that are larger than what they slide over are an error here, but no backend's kernels ask.
            shapes = [keras.KerasTensor(array.shape, str(array.dtype)) for array in arrays]
            model.compute_output_spec(*signature.packed(shapes))
        with no_gradients():
            outputs = signature.call(model, [keras.ops.convert_to_tensor(array) for array in arrays])
        values = [keras.ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(outputs)]
    except Exception as error:  # whatever the layers of a user raise
        return f"{type(error).__name__}: {error}"
    if not all(value.size and np.isfinite(value).all() for value in values):
        return "its outputs are empty, or not finite."
    return None
