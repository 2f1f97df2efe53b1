"""Where a file first computes something else than the quantized model: tensor by tensor."""

import collections
import dataclasses
import math

import numpy as np
from keras import ops

from keras_mot.export.litert.micro.runner import MicroRunner
from keras_mot.layers.activation_quantizer import intercepted
from keras_mot.quantization.simulation.reference_kernels import ReferenceRounding


@dataclasses.dataclass(frozen=True)
class Difference:
    """A tensor of a file that no result of the model's quantizer of its name is equal to.

    Attributes:
        name: of the tensor.
        share: of its values, those that are equal to the nearest such result.
        steps: by how many integers the others differ at most.
    """

    name: str
    share: float
    steps: int

    def __str__(self) -> str:
        share = math.floor(self.share * 10_000) / 100
        return f"'{self.name}' is the first that differs: {share:.2f}% equal, by {self.steps} at most"


class Recorded:
    """Rounds as reference kernels do, and keeps the integers of each quantizer.

    Args:
        model: a quantized model.

    Attributes:
        integers: by the names of quantizers, the integers of their calls.
    """

    def __init__(self, model):
        self._rounding = ReferenceRounding(model)
        self.integers = collections.defaultdict(list)

    def __call__(self, quantizer, inputs, averages):
        """The inputs, rounded; arguments as of `ActivationQuantizer.call`."""
        rounded = self._rounding(quantizer, inputs, averages)
        parameters = quantizer.parameters()
        numbers = ops.convert_to_numpy(rounded).astype("float64") / parameters.scale + parameters.zero_point
        self.integers[quantizer.name].append(np.rint(numbers).astype("int64"))
        return rounded


def first_difference(model, call, content: bytes, arrays, input_names=None) -> Difference | None:
    """The first tensor that differs for one sample, or `None`.

    Args:
        model: a quantized model.
        call: function from flat inputs to the outputs of the model.
        content: its file.
        arrays: flat inputs of one sample, in floats as the model takes them.
        input_names: names of the file's inputs in the order of the arrays.
    """
    recorded = Recorded(model)
    with intercepted(recorded, whole=True):
        call(arrays)
    runner = MicroRunner(content, input_names, keep_values=True)
    runner.run(arrays)
    for tensor, values in runner.inner_values():
        known = recorded.integers.get(tensor.name.split(":")[0], ())
        # Of another size are parts of a result, and of another type is what stands between.
        candidates = [each.ravel() for each in known if each.size == values.size]
        if tensor.dtype not in ("int8", "int16") or not candidates:
            continue
        steps = [np.abs(each - values.ravel().astype("int64")) for each in candidates]
        nearest = min(steps, key=np.mean)
        if nearest.any():
            return Difference(tensor.name, float(np.mean(nearest == 0)), int(nearest.max()))
    return None
