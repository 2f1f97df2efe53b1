"""Random data to run a model on, also where it says nothing of its sizes."""

import keras
import numpy as np

from keras_mot._keras import no_gradients
from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import LOOKS_UP, SAME, has_role, kind_of
from keras_mot.graph.model_graph import Graph

# Tried for dimensions beside the batch that a model leaves open, until it gives results.
OPEN_SIZES = (16, 32, 64, 128, 256, 512, 8, 4, 2, 1)
_WORDS = ("a", "b", "the cat", "3", "", "words that nobody knows")


def random_inputs(signature, batch_size, size=OPEN_SIZES[0], seed=0, counts=None):
    """Random data in sensible ranges: normal for floats, 0 and 1 for ids and flags.

    Args:
        signature: the `Signature` of a model.
        batch_size: number of samples.
        size: of all dimensions that are open.
        seed: of the numbers.
        counts: dictionary from positions of inputs to how many ids there are.

    Returns:
        List of arrays.
    """
    generator = np.random.default_rng(seed)
    arrays = []
    for position, tensor in enumerate(signature.inputs):
        shape = [size if length is None else length for length in tensor.shape]
        if shape:
            shape[0] = batch_size
        count = (counts or {}).get(position)
        if tensor.dtype == "string":
            arrays.append(generator.choice(np.array(_WORDS, object), shape))
            continue
        floating = "float" in tensor.dtype and count is None
        array = generator.standard_normal(shape) if floating else generator.integers(0, count or 2, shape)
        arrays.append(array.astype("float32" if tensor.dtype == "bfloat16" else tensor.dtype))
    return arrays


def positive(arrays):
    """The floats among random data moved between 0 and 1: what roots and logarithms take. `None`, if there are none."""
    if not any(np.issubdtype(array.dtype, np.floating) for array in arrays):
        return None
    generator = np.random.default_rng(0)
    return [
        generator.uniform(0.05, 1, array.shape).astype(array.dtype)
        if np.issubdtype(array.dtype, np.floating)
        else array
        for array in arrays
    ]


def embedded(model):
    """How many rows the embeddings have that read a model's inputs: dictionary from positions of these inputs."""
    functional = as_functional(model)
    if functional is None:
        return {}
    graph, reads, counts = Graph(functional), {}, {}
    for position, tensor in enumerate(functional.inputs):
        reads[id(tensor)] = position
    for call in graph.calls:
        sources = {reads.get(id(tensor)) for tensor in call.inputs[:1]}
        position = sources.pop() if sources else None
        if position is None:
            continue
        operation, kind = call.operation, kind_of(call.operation)
        if has_role(operation, LOOKS_UP) and hasattr(operation, "input_dim"):
            counts[position] = min(operation.input_dim, counts.get(position, operation.input_dim))
        elif as_functional(operation) is not None:
            inner = embedded(operation)
            for number, tensor in enumerate(call.inputs):
                if number in inner and id(tensor) in reads:
                    place = reads[id(tensor)]
                    counts[place] = min(inner[number], counts.get(place, inner[number]))
        elif kind is not None and kind.ranges == SAME:
            reads.update((id(tensor), position) for tensor in call.outputs)
    return counts


def fitting_inputs(model, signature, batch_size):
    """Random data of a size that the model takes.

    Raises:
        ValueError: None of the sizes that are tried for open dimensions gives finite results.
    """
    counts = embedded(model) if len(getattr(model, "inputs", None) or ()) == len(signature.inputs) else {}
    if all(None not in tensor.shape[1:] for tensor in signature.inputs):
        return random_inputs(signature, batch_size, counts=counts)
    for size in OPEN_SIZES:
        arrays = random_inputs(signature, signature.fixed_batch_size or 1, size, counts=counts)
        problem = _problem_with(model, signature, arrays)
        if problem is None:
            return random_inputs(signature, batch_size, size, counts=counts)
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
