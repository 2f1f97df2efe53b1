"""What one layer of a quantized model takes and returns, in floats and as rounded."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._keras import no_gradients, run_graph
from keras_mot._messages import describe
from keras_mot.graph.functional import as_functional
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.transformed_weight import evaluated_once
from keras_mot.quantization.estimators.calibrating import in_floats
from keras_mot.quantization.estimators.samples import Samples


@dataclasses.dataclass(frozen=True, eq=False)
class LayerIO:
    """What a layer takes and returns at one place of a model, for all samples: tuples of float32 arrays.

    Args:
        inputs: what the layer takes where nothing is rounded, one array for each tensor.
        outputs: what it returns there.
        rounded_inputs: what it takes where weights and activations are rounded.
        rounded_outputs: what it returns there, with its own weights rounded, before a quantizer behind it.
    """

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    rounded_inputs: tuple[np.ndarray, ...]
    rounded_outputs: tuple[np.ndarray, ...]


def layer_io(model: keras.Model, layer: Any, batches: Any, batch_size: int = 32) -> list[LayerIO]:
    """The inputs and outputs of one layer of a quantized model, in floats and as rounded.

    From these follow what rounding does to a layer, and methods that choose a layer's integers by its outputs.

    Args:
        model: a quantized model.
        layer: one of its layers, or the name of one.
        batches: inputs, in any of the forms that `Calibration` takes. All that the layer takes and returns for them is
            kept in memory.
        batch_size: how many samples of arrays are run at a time.

    Returns:
        A `LayerIO` for each time that the model calls the layer, in the order of the graph.

    Raises:
        TypeError: if `model` is no model, or `batches` is no data.
        ValueError: if the model is not quantized, has no such layer, or the data do not fit it.

    Example:

    ```python
    quantized = quantize_post_training(model, INT8, x_train[:500])
    (seen,) = layer_io(quantized, "dense", x_train[:100])
    error = seen.rounded_outputs[0] - seen.outputs[0]
    print(error.mean(axis=0))  # what rounding shifts each channel by
    ```
    """
    functional = as_functional(model) if isinstance(model, keras.Model) else None
    if functional is None:
        raise TypeError(f"`layer_io` expects a quantized Keras model; received {describe(model)}.")
    if not is_quantized(model):
        raise ValueError(f"'{model.name}' is not quantized: pass the result of `quantize_post_training`.")
    chosen = [each for each in functional.layers if each is layer or each.name == layer]
    if not chosen:
        raise ValueError(
            f"'{model.name}' has no layer {describe(layer)}; there are: {[each.name for each in functional.layers]}."
        )
    seen = {"floats": [], "rounded": []}  # for each batch, for each call, a pair of inputs and outputs
    with no_gradients():
        for inputs in Samples(model, batches, batch_size):
            with in_floats(model), evaluated_once():
                seen["floats"].append(_calls(functional, chosen[0], inputs))
            with evaluated_once():
                seen["rounded"].append(_calls(functional, chosen[0], inputs))
    floats, rounded = (list(map(_joined, zip(*batches, strict=True))) for batches in seen.values())
    return [LayerIO(*of_floats, *of_rounded) for of_floats, of_rounded in zip(floats, rounded, strict=True)]


def _calls(functional, layer, inputs):
    """The inputs and outputs of each call of a layer, for one batch."""
    noted = []

    def noting(*args, **kwargs):
        outputs = layer(*args, **kwargs)
        noted.append((_arrays((args, kwargs)), _arrays(outputs)))
        return outputs

    run_graph(functional, inputs, lambda operation: noting if operation is layer else operation)
    return noted


def _arrays(tensors):
    leaves = [leaf for leaf in keras.tree.flatten(tensors) if hasattr(leaf, "shape")]
    return tuple(np.asarray(ops.convert_to_numpy(ops.cast(leaf, "float32"))) for leaf in leaves)


def _joined(calls):
    """The inputs and outputs of one call, over batches."""
    inputs, outputs = zip(*calls, strict=True)
    return tuple(tuple(map(np.concatenate, zip(*side, strict=True))) for side in (inputs, outputs))
