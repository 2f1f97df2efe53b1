"""How far an integer file moves from the Keras model that simulates it, tensor by tensor."""

import dataclasses
import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._keras import no_gradients
from keras_mot._messages import describe
from keras_mot._tables import ShownAsTable
from keras_mot.data.arrays import slices
from keras_mot.export.litert.runner import LiteRTRunner
from keras_mot.export.litert.signature import check_inputs, read_signature
from keras_mot.graph.functional import as_functional
from keras_mot.layers.activation_quantizer import intercepted, is_quantized
from keras_mot.layers.dynamic_quantizer import is_dynamic
from keras_mot.quantization.algorithms.batch_norm import settled_fold
from keras_mot.quantization.simulation.reference_kernels import ReferenceRounding

_CHUNK = 16


@dataclasses.dataclass(frozen=True)
class TensorDrift:
    """The difference of one tensor between file and simulation.

    Attributes:
        name: of the `ActivationQuantizer`, and of the tensor in the file.
        step: the distance of two neighbouring integers.
        equal: share of the values that are the same integer.
        within_one: share of the values that are at most one step apart.
        largest: the largest difference, in steps.
    """

    name: str
    step: float
    equal: float
    within_one: float
    largest: int


@dataclasses.dataclass(frozen=True)
class DriftReport(ShownAsTable):
    """The drift of each tensor, in the order in which they are computed; prints as a table."""

    tensors: tuple[TensorDrift, ...]

    def __getitem__(self, name: str) -> TensorDrift:
        """The drift of the quantizer `name`."""
        return {tensor.name: tensor for tensor in self.tensors}[name]

    def first_beyond(self, steps: int = 1) -> TensorDrift | None:
        """The first tensor of which some value is more than `steps` away, or `None`."""
        return next((tensor for tensor in self.tensors if tensor.largest > steps), None)

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the shares of equal and near values, tensor by tensor.

        Args:
            path: of the picture, `.svg`, `.png` or `.pdf`; a file of that name is replaced.

        Raises:
            ImportError: if Matplotlib is not installed.
            ValueError: if no file can be written there.
        """
        from keras_mot.analysis import plots

        plots.save(plots.drift(self), path)

    def to_dict(self) -> dict[str, Any]:
        """The drift as a dictionary of JSON values."""
        return dataclasses.asdict(self)

    def _table(self):
        rows = [(each.name, f"{each.equal:.3%}", f"{each.within_one:.3%}", each.largest) for each in self.tensors]
        return ("tensor", "equal", "<= 1 step", "largest"), rows

    def _caption(self):
        return "share of the values that are the same integer, or one step apart; largest difference in steps."


def measure_drift(model: keras.Model, source: str | os.PathLike | bytes, inputs: Any) -> DriftReport:
    """Compares the inner values of an integer file with those of the model that it was exported from.

    The file runs on LiteRT's reference kernels, since those of XNNPACK keep no inner values, and the model rounds as
    they do, see `reference_rounding`.

    Args:
        model: the quantized model. Batch normalization that it trains is folded first, as in the file.
        source: path of its `.tflite` file, or the content.
        inputs: arrays in the structure of the model's inputs, the batch first.

    Returns:
        A `DriftReport` with a row for each `ActivationQuantizer` that the file has a tensor of.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is not quantized, the file is not one of it, or the inputs do not fit.

    Example:

    ```python
    report = measure_drift(quantized, "model.tflite", x_test[:64])
    print(report.first_beyond(1))
    ```
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`measure_drift` expects a Keras model; received {describe(model)}.")
    if not is_quantized(model):
        raise ValueError(f"'{model.name}' is not quantized: pass the model that the file was exported from.")
    if is_dynamic(model):
        raise ValueError(
            f"'{model.name}' has dynamic ranges: it computes in floats, whose integers are in no file to be compared."
        )
    model = settled_fold(model)
    signature = read_signature(model, None)
    arrays = check_inputs(signature, signature.flatten(inputs))
    runner = LiteRTRunner(source, kernels="reference", input_names=[tensor.name for tensor in signature.inputs])
    step = runner.batch_size or _CHUNK
    if runner.batch_size and len(arrays[0]) % step:
        raise ValueError(
            f"The file takes batches of {step}: pass a multiple of that; received {len(arrays[0])} samples."
        )
    counts, rounding = {}, ReferenceRounding(model)
    structure = (as_functional(model) or model).input  # a sequential model has none before it is called
    for batch in slices(arrays, step):
        runner.set_inputs(batch)
        runner.invoke()
        received = runner.inner_values()
        for quantizer, simulated in _simulated(model, rounding, keras.tree.pack_sequence_as(structure, batch)):
            values = _taken(received, quantizer.name, simulated.size)
            if values is not None:
                counts.setdefault(quantizer, []).append(_steps(quantizer, simulated, values))
    if not counts:
        raise ValueError(f"No tensor of the file has the name of a quantizer of '{model.name}': is it its file?")
    return DriftReport(tuple(_row(quantizer, np.concatenate(parts)) for quantizer, parts in counts.items()))


def _simulated(model, rounding, inputs):
    """(quantizer, values) of each call of a quantizer."""
    seen = []

    def watch(quantizer, values, averages):
        rounded = rounding(quantizer, values, averages)
        seen.append((quantizer, np.asarray(ops.convert_to_numpy(rounded), "float32")))
        return rounded

    with intercepted(watch), no_gradients():
        model(inputs, training=False)
    return seen


def _taken(received, name, size):
    """The values of the first tensor `name`, `name:2`, ... of this size, which is removed; `None` if there is none."""
    for key in [key for key in received if key.split(":")[0] == name]:
        if received[key].size == size:
            return received.pop(key)
    return None


def _steps(quantizer, simulated, received):
    difference = received.reshape(-1) - simulated.reshape(-1)
    return np.abs(np.round(difference / quantizer.parameters().scale)).astype("int64")


def _row(quantizer, steps):
    return TensorDrift(
        quantizer.name,
        quantizer.parameters().scale,
        float(np.mean(steps == 0)),
        float(np.mean(steps <= 1)),
        int(steps.max()),
    )
